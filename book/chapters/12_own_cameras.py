# %% [markdown]
# # Adapt it to your own cameras
#
# **What you will learn**
#
# - how a folder of unlabelled pictures of people becomes a set, and a source network one for these cameras;
# - what can be seen of an adaptation *without* labels: how far the bank drifts, whether patches agree, which cameras
#   find each other, and a contact sheet;
# - how far such signs go with the truth, measured where the truth is known;
# - how images of any kind are described, searched, shown and exported.
#
# Chapters 07 to 10 had query, gallery and labels. Who comes with cameras of their own has none of these, and can't
# compute a score. This chapter plays that part: it takes the rendered people, hides their labels, and opens the
# envelope only at the end.
#
# **Before anything else: may you?** The people in front of your cameras didn't ask to be found again. Have the right to
# use these images, for this purpose, before you copy the first one. Chapter 01 has more, and nothing below answers it.

# %% tags=["parameters"]
profile: str = "mini"
data_dir: str = "data"
results_dir: str = "results"
models_dir: str = "build/models"
target: str = "market"
seed: int = 0
people: int = 100
gallery_size: int = 100_000

# %%
import copy
import shutil
import tempfile
from pathlib import Path
from time import perf_counter
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import pandas as pd
import torch
from IPython.display import Markdown, display
from PIL import Image
from scipy.stats import spearmanr
from torch.nn import functional as F

from data_prep.real import plan_folder, prepare
from paul import Extractor
from paul.adapt import adapt
from paul.datasets import ReidDataset
from paul.device import pick_device
from paul.embeddings import embed, listed, read_embeddings
from paul.engine import Run
from paul.experiments import source_model
from paul.export import load_safetensors, model_card, save_onnx, save_safetensors
from paul.features import extract, refresh_statistics
from paul.images import load_images
from paul.plots import BLUE, GREEN, GREY, ORANGE, STYLE
from paul.profiles import PROFILES
from paul.ranking import page, picture, rank
from paul.rows import Places, Spec
from paul.runs import target_name
from paul.search import Index
from paul.trust import bank_drift, neighbours, patch_agreement, purity

plt.rcParams.update(STYLE)
chosen = PROFILES[profile]
work = Path(tempfile.mkdtemp(prefix="own-cameras-"))
rng = np.random.default_rng(seed)

# %% [markdown]
# ## A folder of crops
#
# What a detector leaves behind: a folder per camera, files with numbers for names. Ours are made of the people of a
# target, training and test people alike. `envelope` keeps who is who; nothing reads it until it is opened.

# %%
known = ReidDataset.load(Path(data_dir) / chosen.folders[target]).frame
known = known[known["split"].isin(["train", "query", "gallery"]) & (known["person_id"] > 0)]
some = rng.permutation(known["person_id"].unique())[:people]
known = known[known["person_id"].isin(some)].sample(frac=1, random_state=seed)
envelope = {}
for number, row in enumerate(known.itertuples()):
    name = f"camera{row.camera_id}/{number:05d}.jpg"
    (work / "crops" / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(data_dir) / chosen.folders[target] / row.file, work / "crops" / name)
    envelope[name] = row.person_id
print(f"{len(envelope)} crops in {known['camera_id'].nunique()} folders, from {target_name(target, profile)}")

# %% [markdown]
# Prepared by the function behind
#
#     python -m data_prep folder --raw crops --name mine --pattern 'camera(?P<camera_id>\d+)/'
#
# which checks each image and writes an index. The pattern reads the camera off the folder's name. It may be left out;
# then cameras are unknown, adaptation is the same, and two of the signs below are lost.

# %%
prepare(plan_folder(name="mine", pattern=r"camera(?P<camera_id>\d+)/"), work / "crops", work / "data", progress=False)
mine = ReidDataset.load(work / "data/mine").split("train")
assert (mine.person_ids == -1).all()  # nobody is known
images, cameras = load_images(mine, chosen.image_size), mine.camera_ids
N = len(images)
mine.frame.head(3)

# %% [markdown]
# ## Adapt
#
#     paul adapt --data data/mine --init CHECKPOINT
#
# writes to `models/mine`, and goes on from the last whole epoch when it was stopped. `CHECKPOINT` is a source network,
# trained by `paul pretrain` on a labelled set. Here the same call is made from Python. To watch the bank, this cell
# keeps bank and weights whenever an epoch is saved. "Epoch 0" is the bank as it was filled, by the source's weights.

# %%
source = source_model(Spec("paul", target, seed, profile), Places(data_dir, models=models_dir)).eval()
banks, weights = [], []


def keep_and_save(run, save=Run.save):
    banks.append(run.parts["memory"].bank.detach().cpu().clone())
    weights.append({name: value.cpu().clone() for name, value in run.model.state_dict().items()})
    save(run)


def enter_and_keep(loss, model, images, generator):
    from paul.adapt import fill_bank

    fill_bank(loss, model, images, generator)
    banks.append(loss.memory.bank.detach().cpu().clone())


with mock.patch.object(Run, "save", keep_and_save), mock.patch("paul.adapt.fill_bank", enter_and_keep):
    model = adapt(source, images, chosen.adapt, folder=work / "models/mine", seed=seed).eval()
history = pd.DataFrame(model.history)
print(f"{len(history)} epochs over {N} images, {history['seconds'].sum():.0f} s")

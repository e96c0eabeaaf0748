# %% [markdown] tags=["slide"]
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
# Chapters 07 to 09 had query, gallery and labels. Who comes with cameras of their own has none of these, and can't
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
import re
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
from book.start import start
from data_prep.real import plan_folder, prepare
from IPython.display import Markdown, display
from paul import Extractor
from paul.adapt import adapt, fill_bank
from paul.data.datasets import ReidDataset
from paul.data.images import read_image
from paul.data.passes import extract, refresh_statistics
from paul.data.pixels import load_images
from paul.engine.device import pick_device
from paul.engine.run import Run
from paul.experiments.profiles import PROFILES
from paul.experiments.runner import source_model
from paul.experiments.specs import Places, Spec
from paul.patchnet import PatchNet
from paul.plots import BLUE, GREEN, GREY, ORANGE, STYLE
from paul.report.frames import target_name
from paul.retrieval.agreement import bank_drift, neighbours, patch_agreement, purity
from paul.retrieval.embeddings import embed, listed
from paul.retrieval.export import (
    load_safetensors,
    model_card,
    save_onnx,
    save_safetensors,
)
from paul.retrieval.features import read_embeddings
from paul.retrieval.ranked_lists import page, picture, rank
from paul.search import Index
from PIL import Image
from scipy.stats import spearmanr
from scipy.stats import t as student_t
from torch.nn import functional as F

start(data_dir, profile)
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
used = known["split"].isin(["train", "query", "gallery"])
known = known[used & (known["person_id"] > 0)]
some = rng.permutation(known["person_id"].unique())[:people]
known = known[known["person_id"].isin(some)].sample(frac=1, random_state=seed)
envelope = {}
for number, row in enumerate(known.itertuples()):
    name = f"camera{row.camera_id}/{number:05d}.jpg"
    (work / "crops" / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(data_dir) / chosen.folders[target] / row.file,
                work / "crops" / name)
    envelope[name] = row.person_id
print(f"{len(envelope)} crops in {known['camera_id'].nunique()} folders, "
      f"from {target_name(target, profile)}")

# %% [markdown]
# Prepared by the function behind
#
#     python -m data_prep folder --raw crops --name mine --pattern 'camera(?P<camera_id>\d+)/'
#
# which checks each image and writes an index. The pattern reads the camera off the folder's name. It may be left out;
# then cameras are unknown, adaptation is the same, and two of the signs below are lost.

# %%
prepare(plan_folder(name="mine", pattern=r"camera(?P<camera_id>\d+)/"),
        work / "crops", work / "data", progress=False)
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
# writes to `models/mine`, and goes on where it was stopped. `CHECKPOINT` is a source network,
# trained by `paul pretrain` on a labelled set. Here the same call is made from Python. To watch the bank, this cell
# keeps bank and weights whenever an epoch is saved. "Epoch 0" is the bank as it was filled, by the source's weights.

# %%
source, _ = source_model(Spec("paul", target, seed, profile),
                         Places(data_dir, models=models_dir))
source.eval()
banks, weights = [], []


def fill_and_keep(loss, *rest, fill=fill_bank):
    fill(loss, *rest)
    banks.append(loss.memory.bank.detach().cpu().clone())


def save_and_keep(run, save=Run.save):
    if len(run.history) > len(weights):  # an epoch is whole
        banks.append(run.parts["memory"].bank.detach().cpu().clone())
        state = run.parts["model"].state_dict()
        weights.append({name: value.cpu().clone() for name, value in state.items()})
    save(run)


at_save = mock.patch.object(Run, "save", save_and_keep)
at_fill = mock.patch("paul.adapt.fill_bank", fill_and_keep)
with at_save, at_fill:
    model, history = adapt(source, images, chosen.adapt,
                           folder=work / "models/mine", seed=seed)
model.eval()
history = pd.DataFrame(history)
print(f"{len(history)} epochs over {N} images, {history['seconds'].sum():.0f} s")

# %% [markdown] tags=["slide"]
# ## What can be seen without labels
#
# A falling loss says that the network does what the loss asks. It doesn't say that two images of one person met. That
# would be *purity*: the share of an image's nearest that show its person (chapter 08). It takes labels. Four signs
# don't.
#
# ### Sign 1: how far the bank drifts
#
# Entry $w_j^m$ is the moving average of patch $m$ of image $j$ (chapter 04). If training settles, the entries come to
# rest:
#
# $$
# \text{drift}_t = \frac{1}{MN} \sum_{m,j} \big(1 - \cos(w_{j,t-1}^m,\; w_{j,t}^m)\big) .
# $$

# %%
def drift_by_hand(before, after):
    turned = [1 - (a @ b) / (a.norm() * b.norm())
              for a, b in zip(before.flatten(0, 1), after.flatten(0, 1))]
    return sum(turned) / len(turned)


part = slice(0, 40)
before, after = banks[0][:, part], banks[1][:, part]
torch.testing.assert_close(drift_by_hand(before, after).item(),
                           bank_drift(before, after), rtol=1e-4, atol=1e-6)
drift = [bank_drift(before, after) for before, after in zip(banks, banks[1:])]

# %% [markdown] tags=["slide"]
# ### Sign 2: whether patches agree
#
# The six patches of an image look at different parts of one person. If head and legs independently point to the same
# other images, these images likely show that person. With $\mathcal N_m(i)$ the $k$ nearest images by patch $m$ alone,
#
# $$
# \text{agreement}(i) = \frac{2}{M(M-1)} \sum_{m<n} \frac{|\mathcal N_m(i) \cap \mathcal N_n(i)|}{k} .
# $$
#
# Patches that point at random share $k/(N-1)$. Neighbours are taken from *other cameras* only: two frames of one
# passage are alike for any network, and would flatter it.

# %%
k = 5


def agreement_by_hand(features, M, i):
    sets = []
    for patch in features.chunk(M, dim=1):
        similarity = F.cosine_similarity(patch[i], patch, dim=1).double()
        # its own camera, and itself
        similarity[torch.tensor(cameras == cameras[i])] = -2
        sets.append(set(similarity.argsort(descending=True)[:k].tolist()))
    return np.mean([len(sets[m] & sets[n]) / k
                    for m in range(M) for n in range(m + 1, M)])


M = source.options.num_patches
features = extract(source, images).float().cpu()
library = patch_agreement(features, M, k, cameras)
np.testing.assert_allclose([agreement_by_hand(features, M, i) for i in range(10)],
                           library[:10], atol=1e-6)

# %% [markdown]
# ### Sign 3: which cameras find each other
#
# Were cameras no hindrance, an image's nearest ones would come from its own camera only as often as its camera has
# images. How much more often they do is a sign of how much of the *camera* is in the descriptor. (Frames of one passage
# add to it for a good reason: they show the same person. So the number matters less than its change.)

# %%
def own_camera(features):
    """Share of neighbours from the image's own camera, over the share of images
    that this camera has."""
    same = cameras[neighbours(features, k)] == cameras[:, None]
    expected = np.array([(cameras == camera).sum() - 1 for camera in cameras])
    expected = expected / (N - 1)
    return same.mean() / expected.mean()


# %% [markdown]
# ### All of them, for all networks at hand
#
# The source network as it is; with the statistics of our cameras (AdaBN, chapter 06); and after each epoch. Beside them
# a network that never learned anything, with our cameras' statistics too. A sign that likes that one is worth little.

# %% tags=["slide"]
def state(number):
    network = copy.deepcopy(model)
    network.load_state_dict(weights[number])
    return network


adabn = copy.deepcopy(source)
refresh_statistics(adabn, images)
torch.manual_seed(seed)
untrained = PatchNet(source.options).to(pick_device())
refresh_statistics(untrained, images)
networks = {"untrained": untrained, "source": source, "AdaBN": adabn,
            **{f"epoch {number + 1}": state(number)
               for number in range(len(weights))},
            "adapted": model}
described = {name: extract(network, images).float().cpu()
             for name, network in networks.items()}
signs = pd.DataFrame({
    "agreement": {name: patch_agreement(f, M, k, cameras).mean().item()
                  for name, f in described.items()},
    "own camera": {name: own_camera(f) for name, f in described.items()}})
print(f"{N} images; patches that point at random agree by {k / (N - 1):.3f}")
signs.style.format("{:.3f}").set_caption(
    f"{target_name(target, profile)}, seed {seed}: one run, so no interval")

# %% [markdown]
# "adapted" is the last epoch with its statistics set to these images once more, which this profile does at the end.
#
# ### Sign 4: a contact sheet
#
# The oldest and the best of all signs: look. Queries drawn at random, never picked, each with its most similar images
# from other cameras. On the command line:
#
#     paul rank --query data/mine/camera1/00007.jpg --gallery data/mine --init models/mine/model.pt -o ranked.png \
#         --other-cameras
#     paul rank --query data/mine --gallery data/mine --init models/mine/model.pt -o page.html --other-cameras
#
# The second makes a page of all images that needs no network and holds its pictures inside. A prepared set that has a
# query and a gallery is asked and searched by these alone, unless `--splits` names others. `--other-cameras` leaves out
# gallery images whose camera is not known, and says how many: an unknown camera may be the query's.

# %% tags=["slide"]
#| caption: A contact sheet: images, each before the nearest that other cameras
#|   took, by the adapted network.
frame = listed([work / "data/mine"])
# as the images above
assert frame["file"].tolist() == [str(file) for file in mine.files]
drawn = rng.choice(N, 6, replace=False)
queries = frame.iloc[drawn].reset_index(drop=True)
ranking = rank(described["adapted"][drawn], queries, described["adapted"], frame, 8,
               other_cameras=True)
picture(ranking)

# %% [markdown]
# **You should see** (at `mini`) people with the same clothes in most lines. Ask of each line: is it clothes, or is it
# the same street, light, or crop, that makes them alike? The second is a network that has learned the camera.
#
# ## The envelope
#
# Now the labels, which a reader with real cameras doesn't have. *Purity across cameras* takes the same neighbours as
# the signs, those from other cameras, and is meant by "purity" in the rest of this chapter:

# %% tags=["slide"]
#| caption: The drift of the bank epoch by epoch; and the purity of neighbours,
#|   which needs labels, against the agreement of patches, which doesn't.
person_ids = np.array([envelope[name] for name in mine.frame["file"]])
signs["purity"] = {name: purity(neighbours(f, k, cameras), person_ids).mean().item()
                   for name, f in described.items()}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.1))
left.plot(range(1, len(drift) + 1), drift, "o-", color=BLUE)
left.set(xlabel="epoch", ylabel="drift of the bank", ylim=(0, None),
         title="against the epoch before")
left.xaxis.get_major_locator().set_params(integer=True)
trained = signs.drop(index="untrained")
looks = {"source": (ORANGE, "s"), "AdaBN": (GREY, "D"), "adapted": (GREEN, "^")}
for name, row in trained.iterrows():
    colour, marker = looks.get(name, (BLUE, "o"))
    label = name if name in looks else None
    label = "after each epoch" if name == "epoch 1" else label
    right.plot(row["agreement"], row["purity"], marker, color=colour, label=label)
right.set(xlabel="agreement of patches (no labels)", ylabel="purity (labels)",
          title="a trained network each")
right.legend(fontsize=10)
plt.show()
signs.style.format("{:.3f}")

# %% [markdown]
# Does agreement go with purity? Two questions, and they needn't have one answer: *across networks* (which of two would
# I take?), and *across images* of one network (which of its answers would I believe?).

# %%
across_networks = spearmanr(trained["agreement"], trained["purity"])[0]
lines = []
lines.append(f"Across the {len(trained)} networks that were trained: "
             f"rank correlation {across_networks:.2f}.")
for name in ("source", "adapted"):
    agreed = patch_agreement(described[name], M, k, cameras).numpy()
    pure = purity(neighbours(described[name], k, cameras), person_ids).numpy()
    parts = np.array_split(np.argsort(agreed, kind="stable"), 3)
    least, middle, most = [pure[part].mean() for part in parts]
    lines.append(f"Across images, {name}: rank correlation "
                 f"{spearmanr(agreed, pure)[0]:.2f}; purity of the third that "
                 f"agrees least {least:.2f}, middle {middle:.2f}, most {most:.2f}.")
better = signs.loc["adapted", "purity"] - signs.loc["source", "purity"]
lines.append("Purity from source to adapted: "
             f"{signs.loc['source', 'purity']:.2f} to "
             f"{signs.loc['adapted', 'purity']:.2f} ({better:+.2f}); "
             f"AdaBN alone {signs.loc['AdaBN', 'purity']:.2f}.")
display(Markdown("\n".join(f"- {line}" for line in lines)))

# %% [markdown]
# How sure is a purity? Images of one person are no independent witnesses: whoever wears a red coat is found again in
# each of their images. The sample is of *people*. So take each person's mean first, then the mean over people and its
# interval (chapter 07), with $t$ for as many people:

# %% tags=["implement", "slide"]
def interval_over_people(values, people, t):
    """(low, high) of the mean over people: values [N] and people [N], one of each
    an image; t, the quantile for the number of people."""
    everybody = np.unique(people)
    means = np.array([values[people == person].mean() for person in everybody])
    half = t * means.std(ddof=1) / len(means) ** 0.5
    return means.mean() - half, means.mean() + half


# %%
quantile = student_t.ppf(0.975, len(set(person_ids)) - 1)
for name in ("source", "AdaBN", "adapted"):
    pure = purity(neighbours(described[name], k, cameras), person_ids).numpy()
    low, high = interval_over_people(pure, person_ids, quantile)
    naive = 1.96 * pure.std(ddof=1) / len(pure) ** 0.5
    print(f"{name}: {low:.3f} to {high:.3f} over people; as if images were "
          f"independent {pure.mean() - naive:.3f} to {pure.mean() + naive:.3f}")

# %% [markdown]
# **You should see** (at `mini`)
#
# - agreement and purity rise together from source over AdaBN to the epochs, and stay far above the untrained network.
#   That is weaker evidence than its correlation looks: the epochs lie on one path, and all that moves along a path
#   moves together. Exercise 1 has a network whose patches agree fully and know nothing, and at `smoke`, with a source
#   that hardly learned, agreement fell while purity rose.
# - across images a moderate correlation, and a purity of the third that agrees most far above that of the third that
#   agrees least. So agreement can sort answers by how far to believe them. But a good part even of the best third is
#   wrong, and without labels nobody knows how large that part is.
# - a drift that stays about level and small. Each visit moves an entry by a tenth of the way only (the rate $l$), so a
#   small drift shows a slow average first, and a network at rest second. Over four epochs it warns of a training that
#   runs away, no more.

# %% [markdown]
# ## Describing images: `paul.Extractor`
#
# One call for paths, arrays, PIL images and tensors, one or many, of any size. The same pixels give the same
# descriptor, whatever they came in.

# %%
describe = Extractor(model)  # or Extractor("models/mine/model.pt")
file = frame["file"][0]
pixels = read_image(file)
kinds = {"path": file, "array": pixels, "PIL image": Image.fromarray(pixels),
         "tensor": torch.tensor(pixels).permute(2, 0, 1),
         "tensor in [0, 1]": torch.tensor(pixels).permute(2, 0, 1) / 255}
rows = [describe(item) for item in kinds.values()]
assert all(torch.equal(row, rows[0]) for row in rows)
print(f"{', '.join(kinds)}: one and the same [1, {describe.width}]")

# %% [markdown]
# For many images, a file: `paul embed IMAGES... -o features.parquet` writes a row per image. Stopped and started again
# it goes on; `paul rank --gallery features.parquet` takes it in place of the images.

# %%
embed(describe, frame, work / "features.parquet")
kept = read_embeddings(work / "features.parquet")
np.testing.assert_allclose(kept.vectors, described["adapted"], atol=1e-3)
# another network's descriptors would be refused
assert kept.model == describe.fingerprint
display(pd.read_parquet(work / "features.parquet").head(3))
ranking = rank(described["adapted"][drawn], queries, kept.vectors, kept.frame, 8)
document = page(ranking, model="models/mine/model.pt")
print(f"the same six queries as a page: {len(document) / 1e3:.0f} kB, "
      "pictures included")

# %% [markdown]
# ## A large gallery
#
# Search compares a query with all images, block by block, and holds no more than a block beside the gallery, which may
# lie on disk. Up to a million images that is the default. Above, and where FAISS is installed, the same call takes its
# inverted lists: the gallery is clustered, and a query looks into a few of the clusters only. That is fast and may miss
# some, so `recall` measures how many it finds. Here, on copies of our descriptors with noise added:

# %% tags=["slide"]
generator = torch.Generator().manual_seed(seed)
copies = torch.randint(N, (min(gallery_size, 100 * N),), generator=generator)
gallery = described["adapted"][copies]
gallery += 0.1 * torch.randn(gallery.shape, generator=generator)
asked = described["adapted"][:200]
lines = []
for method in ("exact", "flat", "ivf"):
    begin = perf_counter()
    index = Index(gallery, method)
    built = perf_counter()
    found = index.search(asked, 10)
    done = perf_counter()
    beside = 0 if method == "exact" else gallery.nbytes / 1e6
    lines.append({"method": method, "build, s": built - begin,
                  f"search of {len(asked)}, s": done - built,
                  "MB beside the gallery": beside,
                  "recall": index.recall(asked, 10)})
    if method == "exact":
        exact = found
    elif method == "flat":
        torch.testing.assert_close(found.similarity, exact.similarity, rtol=0,
                                   atol=1e-5)
pd.DataFrame(lines).style.format(precision=3).hide(axis="index").set_caption(
    f"{len(gallery):,} descriptors of {gallery.shape[1]} numbers, "
    f"{torch.get_num_threads()} threads")

# %% [markdown]
# "flat" is FAISS's own exact search: the same answer, one copy of the gallery. **You should see** the lists be the
# fastest to search and the only ones to build. Building costs as much as some hundreds of exact queries, so for one
# query exact search stays the best choice at any size, and the call knows it.
#
# ## Giving the network away
#
# `paul export models/mine/model.pt -o mine.safetensors` writes weights that hold no code, with a card, `mine.md`;
# `-o mine.onnx` writes a network that runs without PyTorch and takes uint8 images, so that nobody can normalise them
# wrongly. Both must give what we have:

# %%
model.cpu()
save_safetensors(model, work / "mine.safetensors")
again, _ = load_safetensors(work / "mine.safetensors")
few = images[:16]
assert torch.equal(extract(again, few), extract(model, few))

save_onnx(model, work / "mine.onnx")
session = onnxruntime.InferenceSession(work / "mine.onnx",
                                       providers=["CPUExecutionProvider"])
(elsewhere,) = session.run(None, {"images": few.numpy()})
difference = np.abs(elsewhere - extract(model, few).numpy()).max()
assert difference < 1e-4
sizes = {name: (work / name).stat().st_size / 1e6
         for name in ("mine.safetensors", "mine.onnx")}
print({name: f"{size:.2f} MB" for name, size in sizes.items()})
print(f"the ONNX network differs by {difference:.0e} at most")

# %%
card = model_card(model, "mine",
                  trained_on="Rendered people, labels hidden: a chapter's example.")
Markdown(re.sub(r"(?m)^(#+ )", r"###\1", card))

# %% [markdown] tags=["slide"]
# ## Before you trust it
#
# - Look at a contact sheet from other cameras, drawn at random, and count the wrong ones in a hundred by hand.
# - Compare with the source network and with AdaBN alone. If the signs don't move, adaptation had nothing to give.
# - Sort answers by the agreement of their patches, and begin to doubt at the lower end.
# - Label a few dozen people after all. Nothing above replaces it, and chapter 02 says what to compute.
# - Check again when a camera is moved, a lamp is changed, or winter coats come out.
#
# ## Summary
#
# - A folder of crops is enough: `data_prep folder`, `paul adapt`, `paul rank`.
# - Drift, agreement, own-camera share and contact sheets need no labels. How far they go with the truth was measured
#   above, on rendered people and one seed; on yours it is unknown.
# - Descriptors live in a file, search is exact by default, and a model leaves with a card.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* What does agreement become when all patches are one and the same? Why is high agreement alone no merit?
# 2. *Break it.* Neighbours within the own camera: compute purity and agreement without the restriction to other
#    cameras. Which of the two rises more, and what would a reader without labels have believed?
# 3. A descriptor is $M$ unit vectors side by side. Show that its cosine is the mean of the patches' cosines.
# 4. *Extend.* A fifth sign without labels: mirror all images and ask how many of an image's neighbours stay. Compute it
#    for each image, and measure whether it goes with purity.
# 5. *Implement.* Write `interval_over_people`. When is it as wide as the interval that takes images for independent?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# All pairs of patches share everything: agreement is 1, and says nothing about people. Patches that overlap much, or
# that all see the background, come close to it. So agreement can be compared only between networks whose patches see
# equally different things, and best between states of one network.
#
# ```python
# # runs alone
# import torch
# from paul.retrieval.agreement import patch_agreement
# from torch.nn import functional as F
#
# one_patch = F.normalize(torch.randn(40, 8), dim=1)
# assert (patch_agreement(one_patch.repeat(1, 6), 6, 5) == 1).all()
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# Both rise, since frames of one passage are easy for any network, even for one that knows only the street. Without
# labels a reader sees the higher agreement alone, and believes in a better network than there is. Which of the two
# rises more depends on how many frames a passage has, and how much of the camera each patch sees.
#
# ```python
# f = described["adapted"]
# easy = {"agreement": patch_agreement(f, M, k).mean().item(),
#         "purity": purity(neighbours(f, k), person_ids).mean().item()}
# for sign, value in easy.items():
#     print(f"{sign}: {signs.loc['adapted', sign]:.3f} from other cameras, "
#           f"{value:.3f} from all")
# ```
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# The norm of $M$ unit vectors side by side is $\sqrt M$, for either image. So the cosine is $\frac{1}{\sqrt M \sqrt M}
# \sum_m \langle a^m, b^m \rangle$, and each product is the cosine of one patch: their mean.
#
# ```python
# # runs alone
# import torch
# from torch.nn import functional as F
#
# a, b = F.normalize(torch.randn(2, 6, 48), dim=2)
# torch.testing.assert_close(F.cosine_similarity(a.flatten(), b.flatten(), dim=0),
#                            (a * b).sum(1).mean())
# ```
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# The sign is the share of the $k$ nearest that is the same before and after. It asks whether an answer hangs on the
# side a bag is worn on. A network trained on mirrored images keeps nearly all of its neighbours, right or wrong, and
# then the sign can't tell: a sign is only as good as the disturbance is new to the network. Take a crop or a tint for
# comparison.
#
# ```python
# mirrored = extract(model, images.flip(3)).float().cpu()
# plain, flipped = (neighbours(f, k, cameras)
#                   for f in (described["adapted"], mirrored))
# kept = (plain[:, :, None] == flipped[:, None]).any(2).float().mean(1)
# pure = purity(plain, person_ids)
# print(f"{kept.mean():.2f} stay; rank correlation with purity "
#       f"{spearmanr(kept, pure)[0]:.2f}")
# ```
#
# - *full*: the sign for each image, its correlation with purity, and a second disturbance that training hasn't used;
# - *half*: the sign and its correlation;
# - *some*: the mean of the sign, for one network.
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# When images of one person say nothing about each other: then a person's mean over $n$ images has the variance
# $\sigma^2 / n$, and the two agree but for $t$ against 1.96. When all images of a person say the same, the honest
# interval is $\sqrt n$ times as wide. Most often forgotten: people with many images must not count more than others
# here, and the deviation of few means needs `ddof=1`.
#
# ```python
# # runs alone
# import numpy as np
#
# people = np.repeat(np.arange(50), 8)
# alike = np.random.default_rng(0).random(50)[people]  # each person's images agree
# means = alike.reshape(50, 8).mean(1)
# over_people = means.std(ddof=1) / 50**0.5
# as_if_independent = alike.std(ddof=1) / 400**0.5
# assert abs(over_people / as_if_independent - 8**0.5) < 0.05
# ```
#
# </details>

# %%
shutil.rmtree(work)

# %% [markdown]
# ## Next
#
# The pages beside the chapters: from a laptop to a cluster, and what happens when things break.

# %% [markdown]
# # PAUL in three minutes
#
# A network learns from labelled people, adapts to other cameras without labels, and searches their pictures: the whole
# book in small, at the profile `smoke`. People and network are as few and as small as they can be, so nothing here says
# how good the method is; chapters 07 to 09 do that.

# %% tags=["parameters"]
profile: str = "smoke"
data_dir: str = "data"
models_dir: str = "build/models"
target: str = "market"
seed: int = 0

# %% tags=["hide-input"]
from pathlib import Path

import pandas as pd
import torch
from book.start import start
from paul.data.datasets import ReidDataset
from paul.data.passes import extract
from paul.data.pixels import load_images
from paul.experiments.profiles import PROFILES
from paul.experiments.rows import ROWS
from paul.experiments.runner import evaluate_model, trained_model
from paul.plots import draw_on, image_grid, ranked_list
from paul.report.frames import METRICS, target_name

start(data_dir, profile)
chosen = PROFILES[profile]
sets = {name: ReidDataset.load(Path(data_dir) / chosen.folders[name])
        for name in ("source", target)}

# %% [markdown]
# ## Two sets of people who don't exist
#
# Above, people of the labelled source; below, people as the target's cameras see them. Their names are hidden from the
# training and come back only for the scores.

# %%
#| caption: Rendered people, from whom the network learns: above with labels, below
#|   without.
trained_on = [load_images(part.split("train"), chosen.image_size)
              for part in sets.values()]
figure, axes = image_grid(len(trained_on), 10, trained_on[0], gap=0.05)
for images, line in zip(trained_on, axes):
    for axis, image in zip(line, images[:: len(images) // 10]):
        draw_on(axis, image)

# %% [markdown]
# ## Train, adapt
#
# The first line trains PatchNet on the source, and describes the target with it as it is. The second adapts batch norm
# alone (AdaBN). The third adapts by PAUL's two losses, of which chapters 04 and 05 tell. A training that was stopped
# goes on where it was; one that is finished is read.

# %%
rows = ("patch_direct", "patch_adabn", "paul")
models = {row: trained_model(row, target, seed, profile, data_dir, models_dir)
          for row in rows}

# %% [markdown]
# ## Search
#
# Each query of the target looks for its person among the pictures of the *other* cameras. Rank-1 is the share of
# queries whose nearest picture is right; mAP weighs the whole list (chapter 02).

# %%
folder = Path(data_dir) / chosen.folders[target]
scores = {ROWS[row].label: evaluate_model(model, folder, chosen.image_size)
          .percent() for row, model in models.items()}
shown = ["rank1", "map_trapezoid"]
(pd.DataFrame(scores).T[shown].rename(columns=METRICS).style.format("{:.1f} %")
 .set_caption(f"{target_name(target, profile)}, profile {profile}, one seed"))

# %%
#| caption: Three queries, each before the nearest pictures that other cameras took,
#|   by the adapted network. Green and ticked is the same person, red and crossed
#|   somebody else.
sides = {name: sets[target].split(name) for name in ("query", "gallery")}
images = {name: load_images(side, chosen.image_size)
          for name, side in sides.items()}
people, cameras = ({name: torch.as_tensor(getattr(side, ids))
                    for name, side in sides.items()}
                   for ids in ("person_ids", "camera_ids"))
queries = torch.linspace(0, len(images["query"]) - 1, 3).long()
distance = torch.cdist(extract(models["paul"], images["query"][queries]),
                       extract(models["paul"], images["gallery"])).cpu()
own = cameras["query"][queries, None] == cameras["gallery"]
nearest = distance.masked_fill(own, torch.inf).argsort(dim=1)[:, :8]
ranked_list(images["query"][queries], images["gallery"][nearest],
            people["gallery"][nearest] == people["query"][queries, None])

# %% [markdown]
# ## From here
#
# `make book` runs the book itself and makes its pages; `make lab` opens its chapters. Chapter 10 does with a folder of
# your own pictures what was done here with rendered ones.

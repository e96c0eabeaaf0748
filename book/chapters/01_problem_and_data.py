# %% [markdown] tags=["slide"]
# # The problem and the data
#
# **What you will learn**
#
# - what person re-identification asks for, and what "unsupervised" means here: a labelled source, unlabelled targets;
# - the protocol of query and gallery: same-camera exclusion, junk, distractors;
# - who the people in the pictures are, and what makes them hard to tell apart;
# - why whole images mislead and patches inform, measured with plain colours before any network is trained;
# - what this technique can be misused for, and why no real person is in this book.
#
# Paper: Sec. 1 and its Figs. 1 and 3; the data sets of Sec. 4.

# %% tags=["parameters"]
profile: str = "mini"
data_dir: str = "data"
results_dir: str = "results"
target: str = "market"

# %%
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from book.start import start
from IPython.display import Markdown, display
from paul.data.datasets import ReidDataset, Split
from paul.data.pixels import load_images
from paul.experiments.profiles import PROFILES
from paul.metrics import evaluate
from paul.plots import BLUE, GREY, ORANGE, STYLE, close_up, contact_sheet
from paul.report.frames import target_name

start(data_dir, profile)
plt.rcParams.update(STYLE)
folders = PROFILES[profile].folders
sets = {name: ReidDataset.load(Path(data_dir) / folders[name]) for name in folders}
titles = {name: "source" if name == "source" else target_name(name, profile)
          for name in sets}


def pictures(name, frame, size=(128, 64)):
    """The images of these rows of a set's index, uint8 [n, 3, H, W]."""
    return load_images(Split(sets[name].root, frame), size)


# %% [markdown] tags=["slide"]
# ## Finding a person again
#
# > **The paper (Sec. 1).** Given one picture of a person, find that person's pictures among those that *other* cameras
# > took. Cameras differ in light, in colour and in where they look from, so the same person can look less alike than
# > two strangers do.
#
# Nothing is recognised by its face: at this size there is none. A function $f$ turns an image into a descriptor, and
# the gallery is put in the order of its distance to the query, $d(q, g) = \lVert f(q) - f(g) \rVert_2$. All that
# follows is about a good $f$. Before any mathematics, be the function yourself. Who of the seven is the person on the
# left, and what did you look at to decide?

# %% tags=["slide"]
#| caption: One person on the left and seven candidates: who of them is it?
frame = sets[target].frame
asked = frame[frame["split"] == "query"].sample(1, random_state=3)
person, camera = asked["person_id"].item(), asked["camera_id"].item()
gallery = frame[(frame["split"] == "gallery") & (frame["person_id"] > 0)]
own = gallery["person_id"] == person
right = gallery[own & (gallery["camera_id"] != camera)].sample(1, random_state=0)
others = gallery[~own].drop_duplicates("person_id").sample(6, random_state=0)
seven = pd.concat([right, others]).sample(frac=1, random_state=5)
contact_sheet(torch.cat([pictures(target, asked), pictures(target, seven)]), 8,
              ["query", *range(1, 8)])

# %%
place = seven["person_id"].tolist().index(person) + 1
display(Markdown(f"The index says: number **{place}**. Camera {camera} took the "
                 f"query, camera {right['camera_id'].item()} took that picture."))

# %% [markdown] tags=["slide"]
# You looked at clothes, at bags, at hair: at one part after the other. That is what the paper builds on.
#
# ## The setting: one set with names, one without
#
# > **The paper (Sec. 1).** Labels for new cameras are expensive: somebody has to find each person in each of them. So
# > learn from a *source* whose people are labelled, and from the *target*'s images without any labels. The people and
# > the cameras of the two are different ones.
#
# | | images | who is who |
# |---|---|---|
# | source, `train` | used in the first stage only | known |
# | target, `train` | used in the second stage | **never read** |
# | target, `query` and `gallery` | other people than in `train` | known to the evaluation only |
# | target, `val_query` and `val_gallery` | other people again | to choose options by, so that the test stays a test |
#
# The names of the target's training images do carry their person ids, as they do in Market-1501. Ours never read them
# while adapting; a study that did would no longer be unsupervised.

# %%
def count(part):
    """What there is to count in the rows of one split."""
    people = part[part["person_id"] > 0]
    return {"images": len(part), "people": people["person_id"].nunique(),
            "cameras": part["camera_id"].nunique(),
            "junk": (part["person_id"] == -1).sum(),
            "distractors": (part["person_id"] == 0).sum()}


for name, dataset in sets.items():
    in_both = (set(dataset.split("train").person_ids)
               & set(dataset.split("query").person_ids))
    assert not in_both, f"{name}: {len(in_both)} people are in training and test"
pd.DataFrame({(titles[name], split): count(dataset.split(split).frame)
              for name, dataset in sets.items() for split in dataset.splits}).T

# %% [markdown] tags=["slide"]
# ## The protocol
#
# > **The paper (Sec. 4)** follows the protocol of its data sets. Each query is ranked alone against the whole gallery,
# > and the query person's pictures *by the same camera* are left out: to find those again proves nothing.
#
# For a query of person $p$ in camera $c$, a gallery image of person $p'$ in camera $c'$ is
#
# $$
# \begin{cases}
# \text{left out} & \text{if } p' = -1 \text{, or } p' = p \text{ and } c' = c, \\
# \text{right} & \text{if } p' = p \text{ and } c' \neq c, \\
# \text{wrong} & \text{otherwise.}
# \end{cases}
# $$
#
# Two ids are special (ledger 30). **Junk** ($p' = -1$) is a box so far off its person that it would be unfair to call
# it right or wrong. A **distractor** ($p' = 0$) is nobody whom a query asks for: it stays in the gallery, and whoever
# ranks it first is wrong.

# %% tags=["implement", "slide"]
RIGHT, WRONG, LEFT_OUT = 1, 0, -1


def verdict(query_person, query_camera, person, camera):
    """RIGHT, WRONG or LEFT_OUT: what a gallery image counts as for one query."""
    if person == -1 or (person == query_person and camera == query_camera):
        return LEFT_OUT
    return RIGHT if person == query_person else WRONG


# %% [markdown]
# `paul.metrics` counts the right images of each query by itself. Both must come to the same number, whatever the
# features, so random ones do. Who and where can be read off a file's name, in Market-1501's pattern:
# `0002_c1s5_013240_01.jpg` is person 2 in camera 1, sequence 5, frame 13240, first box of that frame.

# %%
def read_name(file):
    """'.../0002_c1s5_013240_01.jpg' -> (person id, camera id)."""
    person, camera = re.match(r"(-?\d+)_c(\d+)", Path(file).name).groups()
    return int(person), int(camera)


query, gallery = sets[target].split("query"), sets[target].split("gallery")
query = query.take(range(min(len(query), 500)))  # enough to see it
asked, offered = (list(zip(part.person_ids.tolist(), part.camera_ids.tolist()))
                  for part in (query, gallery))
if profile != "paper":  # a real set's index may list files of any name
    assert [read_name(file) for file in gallery.frame["file"]] == offered
table = torch.tensor([[verdict(*q, *g) for g in offered] for q in asked])
scores = evaluate(torch.randn(len(query), 8), query.person_ids, query.camera_ids,
                  torch.randn(len(gallery), 8), gallery.person_ids,
                  gallery.camera_ids)
rights = (table == RIGHT).sum(1)
torch.testing.assert_close(rights[rights > 0],
                           torch.tensor(scores.per_query["positives"].to_numpy()))
good, skipped, bad = ((table == value).double().sum(1).mean()
                      for value in (RIGHT, LEFT_OUT, WRONG))
display(Markdown(f"An average query finds {good:.1f} right images, {bad:.1f} wrong "
                 f"ones, and {skipped:.1f} that are left out. A random order has a "
                 f"right one on top in {good / (good + bad):.1%} of the cases."))

# %% [markdown]
# ## A tour through the people
#
# The people of `smoke`, `mini` and `gpu` are rendered: capsules for limbs, clothes with textures and folds, bags, hats,
# hair, a street around them, and a camera with a light, colours, blur, sharpening and noise of its own. Most of them
# wear black, white, grey and denim, as people do, so that tone decides little. Front and back differ: an open jacket, a
# print, a backpack. A share of the people resembles somebody else of their set in all but one or two details; others
# wear the very clothes of somebody else, as twins do, or people in a uniform. And each box is a little off its person,
# as a detector's would be: chapter 03 lets a network place its patches, because fixed stripes then miss.
#
# All of them are one *world*, drawn from one number. This is world 0, in which everything was developed and every
# option chosen; `python -m data_prep synthetic --world 3` draws other people, wardrobes, streets, cameras and gaps. The
# appendix *How the people who don't exist are drawn* takes each of these apart, and sets them beside photographs.

# %% tags=["slide"]
#| caption: Eight people of the source, three pictures of each side by side.
#| caption: Eight people of the Market-like target, three pictures of each.
#| caption: Eight people of the Duke-like target, three pictures of each.
for name, dataset in sets.items():
    once = dataset.split("train").frame.drop_duplicates(["person_id", "camera_id"])
    known = once.groupby("person_id").filter(lambda part: len(part) >= 3)
    chosen = known["person_id"].drop_duplicates().sample(8, random_state=1)
    three = [known[known["person_id"] == person].head(3) for person in chosen]
    display(contact_sheet(pictures(name, pd.concat(three)), 12))

# %% [markdown]
# What stays the same in three pictures of one person? And in what do the sets differ, besides the people?
#
# ## Whole images mislead, patches inform
#
# > **The paper (Sec. 1, Figs. 1 and 3).** Different people in similar clothes look alike as whole images, so an image's
# > nearest neighbours are often the wrong people, and pulling them together ruins the embedding. Their *patches* are
# > another matter: an image that is wrong as a whole may be right in a part, and the gap between matching patches is
# > smaller than between images. So learn from patches.
#
# This can be tested with no learning at all. Describe the middle half of an image by its colours, once as a whole and
# once in $M = 6$ horizontal stripes. The square root of a histogram is a unit vector, so that the Euclidean distance
# compares shares.

# %%
def colour_patches(images, count):
    """Root colour histograms of stripes: [n, 3, H, W] -> [count, n, 64]."""
    width = images.shape[-1]
    middle = images[..., width // 4: -(width // 4)].long() // 64
    bins = 16 * middle[:, 0] + 4 * middle[:, 1] + middle[:, 2]
    bins = bins.reshape(len(images), count, -1)
    counts = torch.zeros(len(images), count, 64, dtype=torch.float64)
    counts.scatter_add_(2, bins, torch.ones(bins.shape, dtype=torch.float64))
    return (counts / bins.shape[2]).sqrt().transpose(0, 1)


known = sets[target].frame
known = known[known["split"].isin(["val_query", "val_gallery"])]
if known.empty:  # a real set has no validation people; these are for looking only
    known = sets[target].split("train").frame.head(1000)
people_images = pictures(target, known, size=(96, 48))  # 96 rows: six stripes
person, camera = (torch.tensor(known[column].to_numpy())
                  for column in ("person_id", "camera_id"))
whole, stripes = colour_patches(people_images, 1), colour_patches(people_images, 6)
# the stripes' shares average to the whole image's: both see exactly the same pixels
torch.testing.assert_close(stripes.square().mean(0), whole[0].square())

# %% [markdown]
# Of how many images is the nearest neighbour the same person? Call it the share of images *found*. With
# $\mathcal{N}(i)$ the images that the protocol leaves to image $i$,
#
# $$\text{found} = \frac1N \sum_{i=1}^{N} \big[\, p_{j(i)} = p_i \,\big], \qquad
# j(i) = \arg\min_{j \in \mathcal{N}(i)} \lVert x_i - x_j \rVert_2 .$$
#
# It is Rank-1 with every image as a query, which chapter 02 takes apart, so `paul.metrics` can check it.

# %% tags=["slide"]
same_person, same_camera = person[:, None] == person, camera[:, None] == camera
protocol = same_person & same_camera  # leaves an image itself out, too


def nearest(x, excluded):
    """Each image's nearest one left: x [n, D], excluded [n, n] -> [n]."""
    return torch.cdist(x, x).masked_fill(excluded, float("inf")).argmin(1)


def found_by(x, excluded):
    return (person[nearest(x, excluded)] == person).double().mean().item()


beside = stripes.transpose(0, 1).flatten(1)  # the six side by side, [n, 6 * 64]
for x in (whole[0], beside):
    library = evaluate(x, person, camera, x, person, camera)
    torch.testing.assert_close(found_by(x, protocol), library.rank(1),
                               atol=2 / len(person), rtol=0)
named = {"whole image": whole[0], "6 stripes side by side": beside}
named |= {f"stripe {m + 1} alone": stripes[m] for m in range(6)}
rules = {"by the protocol": protocol, "in other cameras only": same_camera}
measured = pd.DataFrame({rule: {name: found_by(x, excluded)
                                for name, x in named.items()}
                         for rule, excluded in rules.items()})
right = same_person & ~same_camera
measured.loc["chance"] = [(right.sum(1) / (~excluded).sum(1)).mean().item()
                          for excluded in rules.values()]
(100 * measured).style.format("{:.1f} %")

# %% [markdown]
# Compare the first two lines: both descriptors saw the same pixels and the same colours, and differ only in knowing
# *where* a colour is. Then compare the columns. The second takes away the strangers that the query's own camera took:
# what it wins, the first had lost to the camera, to its street and its light.
#
# Does a patch inform at all when it names the wrong person? Leave the person's own images out, so that *every*
# neighbour is a stranger, and ask whether the stranger wears the same colour where the patch is. Which stripe will know
# the shoes best?

# %% tags=["slide"]
#| caption: How often the nearest stranger in another camera wears the same colour,
#|   stripe by stripe; lines mark the whole image (solid) and chance (dotted).
asked = {"top": "top_colour", "legs": "bottom_colour", "shoes": "shoes"}
has_truth = set(asked.values()) <= set(known)
strangers = same_person | same_camera
figure, axes = plt.subplots(1, 3, figsize=(9.2, 2.8), sharey=True)
for axis, (garment, column) in zip(axes, asked.items() if has_truth else ()):
    values = torch.tensor(known[column].astype("category").cat.codes.to_numpy())
    agree = {name: 100 * (values[nearest(x, strangers)] == values).numpy().mean()
             for name, x in named.items()}
    alike = (values[:, None] == values) & ~strangers
    chance = 100 * (alike.sum() / (~strangers).sum()).item()
    alone = [agree[f"stripe {m + 1} alone"] for m in range(6)]
    axis.barh(range(1, 7), alone, color=BLUE, height=0.75)
    axis.axvline(agree["whole image"], color=ORANGE)
    axis.axvline(chance, color=GREY, linestyle=":")
    axis.set(ylim=(6.6, 0.4), yticks=range(1, 7), title=f"colour of the {garment}",
             xlabel="% of the nearest strangers")
    display(Markdown(f"Colour of the {garment}: best by stripe "
                     f"{np.argmax(alone) + 1}, {max(alone) / chance:.1f} times as "
                     "often as by chance; the whole image "
                     f"{agree['whole image'] / chance:.1f} times."))
plt.show()

# %% [markdown]
# A patch that is wrong about *who* can still be right about *what*: that is the paper's idea. Pulled towards its
# nearest patches it joins others of its garment; a whole image, pulled to its nearest images, joins people who aren't
# the same.
#
# ### One case, up close
#
# An anchor, the same person in another camera, and a stranger: of all such triples, the one in which whole images
# prefer the stranger and stripes the person most clearly. It is picked for show; the table above says how much such
# cases weigh.

# %% tags=["slide"]
#| caption: An anchor, the same person and a stranger, with the distances of both
#|   from the anchor: stripe by stripe, all stripes together, and whole images.
d_whole, d_stripes = torch.cdist(whole, whole)[0], torch.cdist(beside, beside)
best, case = -float("inf"), None
for a, b in torch.nonzero(right).tolist():
    clear = torch.minimum(d_whole[a, b] - d_whole[a],
                          (d_stripes[a] - d_stripes[a, b]) / 6**0.5)
    # the stranger comes from the person's camera, so that no camera is favoured
    clear[(camera != camera[b]) | same_person[a]] = -torch.inf
    if clear.max() > best:
        best, case = clear.max(), {"anchor": a, "same person": b,
                                   "stranger": clear.argmax().item()}
a = case["anchor"]
distances = {other: [*(stripes[:, a] - stripes[:, case[other]]).norm(dim=1),
                     d_stripes[a, case[other]] / 6**0.5, d_whole[a, case[other]]]
             for other in ("same person", "stranger")}
names = [*(f"stripe {m + 1}" for m in range(6)), "6 stripes", "whole image"]
close_up({name: people_images[place] for name, place in case.items()},
         pd.DataFrame(distances, names).astype(float))

# %% [markdown] tags=["slide"]
# ## Ethics
#
# **What it can do to people.** Re-identification joins separate sightings into a path: where somebody came from, where
# they went, whom they met. It needs no name and no consent, works from far away and after the fact, and those it
# follows don't notice. It has been put to use against crowds, workers and minorities. Unsupervised adaptation, this
# book's subject, takes away the one cost that held it back, labelling each new camera. Knowing how it works is needed
# to regulate it, to test it and to defend against it; whoever wants to deploy it owes the people it will see a legal
# basis, a purpose that they would agree with, and an end to what is stored.
#
# **What happened to the data.** The sets of this field are photographs of passersby. DukeMTMC was filmed on a campus;
# in 2019, after reporting on who used it and for what, its authors took it down. It still circulates. This book doesn't
# download it, doesn't link to it and doesn't need it. Chapter 07 prints what the paper published about it, and no more.
#
# **What is shipped.** Nobody. The people are drawn by `data_prep` from random numbers, and no photograph went into
# them; `card.json` of each set says so, with its licence. That has a price: identity is clothing and build here, as it
# largely is in a set filmed within an hour, but skin, age and gait of real people are more than capsules can show. So
# what is measured says which of two methods is better *on them*. Whether an error falls on one group of people more
# often than on another, a question that any deployed system must answer, can't be asked of them at all.
#
# **If you have the right to use a real set**: request it from its authors, read its terms, keep it out of this folder's
# version control, and don't publish pictures of people in it. The profile `paper` looks for three folders inside the
# data folder, which `PROFILES["paper"].folders` names. Each holds the images and an `index.csv` with the columns *file,
# split, person_id, camera_id*, where *file* is relative to the folder and *split* is one of *train, query, gallery*,
# optionally *val_query, val_gallery*.

# %% [markdown] tags=["slide"]
# ## Summary
#
# - Re-identification ranks a gallery by distance to a query. Own person in own camera, and junk, are left out.
# - PAUL may read the source's labels, and of the target the images alone.
# - The shipped people are rendered, deterministic for a world's number, with lookalikes, uniforms, shifted boxes and
#   cameras with colours of their own.
# - A patch can be right about a garment where the whole image is wrong about the person, even without learning.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Without the middle-half crop in `colour_patches`, what happens to the two columns of the table of images
#    found, and why more to the first? (*Hint:* what fills the outer quarters of a box?)
# 2. *Extend.* Cut 1, 2, 3, 6, 12 and 24 stripes and draw the share found. Why do the last stripes win so little?
#    (*Hint:* think of boxes that are off, and of how many pixels are left to a stripe.)
# 3. *Break it.* In `verdict`, count a query's own person in its own camera as right. What does the share found by the
#    whole image become, and what has been measured then? (*Hint:* `protocol` would only exclude the image itself.)
# 4. *Implement.* Close the book and write `verdict` from the three lines of the definition alone. For which gallery
#    image are two of the three conditions true at once if they are read carelessly?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The outer quarters show the street, and all people whom one camera takes share that street. Under the protocol
# strangers from the query's own camera may be the nearest, and now they look more alike: the first column loses most of
# what it had. In the second every candidate stands before another background than the query, right or wrong; it only
# dilutes the clothes, and that costs, too. By how much depends on how different the streets of the cameras are.
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# More stripes say more exactly *where* a colour is, which helps as long as the place can be trusted. A box is off by up
# to a fifth of its height; a stripe of a twenty-fourth then holds another garment than the same stripe of the next
# image. And a histogram of 64 colours over 4 rows of 24 pixels is a noisy one.
#
# ```python
# for count in (1, 2, 3, 6, 12, 24):
#     x = colour_patches(people_images, count).transpose(0, 1).flatten(1)
#     print(count, f"{100 * found_by(x, protocol):.1f} %")
# ```
#
# - *full*: the curve, both reasons, and a test of one of them (such as stripes cut after undoing `box_dy`);
# - *half*: the curve and one reason that its shape supports;
# - *some*: the curve, with "too many don't help" for a reason.
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# Exclude the image alone, `found_by(whole[0], torch.eye(len(person), dtype=torch.bool))`, and the share jumps: the
# nearest image is now mostly another frame of the same passage, with the same street, light and pose. What has been
# measured is whether a camera can find again what it saw a moment ago. That is tracking, and plain colours are good at
# it. The task was to find the person in *another* camera.
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# A junk image has no person, but read carelessly it is "another person", hence wrong: so junk has to be asked for
# first. And the query's own person by its own camera is "the same person": there the camera decides between right and
# left out. A distractor (0) needs no case of its own. `python -m book grade` checks yours.
#
# ```python
# # runs alone
# def verdict(query_person, query_camera, person, camera):
#     own = person == query_person
#     return -1 if person == -1 or (own and camera == query_camera) else int(own)
#
# images = [(-1, 2), (7, 1), (7, 2), (3, 1), (0, 2)]
# assert [verdict(7, 1, *image) for image in images] == [-1, -1, 1, 0, 0]
# ```
#
# </details>

# %% [markdown]
# ## Next
#
# Chapter 02, *Evaluation*: from a ranked list to Rank-1 and mAP, and how sure one may be of such a number.

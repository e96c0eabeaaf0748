# %% [markdown] tags=["slide"]
# # How the people who don't exist are drawn
#
# **What you will learn**
#
# - how near the rendered people come to photographs, in seventeen figures;
# - what makes them hard to tell apart: cameras, viewpoints, boxes, occluders, lookalikes, uniforms, twins;
# - how far apart the three sets are, against a measure of what is far.
#
# Chapter 01 shows who they are; this appendix shows how they vary. The index of a rendered set says more about each
# image than that of a real one could. These truth columns serve for looking: no training ever reads them.

# %% tags=["parameters"]
profile: str = "mini"
data_dir: str = "data"
results_dir: str = "results"
target: str = "market"

# %%
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from book.start import start
from data_prep import statistics
from IPython.display import Markdown, display
from paul.data.datasets import ReidDataset, Split
from paul.data.pixels import load_images
from paul.experiments.profiles import PROFILES
from paul.plots import BLUE, GREY, ORANGE, STYLE, contact_sheet
from paul.report.frames import target_name

start(data_dir, profile)
if profile == "paper":
    raise ValueError("this appendix is about rendered people, and paper has none")
plt.rcParams.update(STYLE)
folders = PROFILES[profile].folders
sets = {name: ReidDataset.load(Path(data_dir) / folders[name]) for name in folders}
titles = {name: "source" if name == "source" else target_name(name, profile)
          for name in sets}
of_set = dict(zip(sets, (GREY, BLUE, ORANGE)))  # one colour per set in every figure
train = sets[target].split("train").frame


def rows_of(frame, count, seed=0):
    """`count` rows drawn without replacement, the same for the same seed."""
    return frame.sample(min(count, len(frame)), random_state=seed)


def pictures(name, frame):
    """The images of these rows of a set's index, uint8 [n, 3, 128, 64]."""
    return load_images(Split(sets[name].root, frame), (128, 64))


# %% [markdown] tags=["slide"]
# ## How near to photographs?
#
# Nobody takes them for photographs, but seventeen figures of an image can be held beside those of 1,500 street
# photographs of people, one public set in two views: how much a person or a background has of edges, colour, light and
# fine detail. Below is a mean over a set's cameras, and a star stands where the photographs' figure lies outside the
# range of these cameras. A set should vary around photographs; it needn't imitate the one place they come from.

# %% tags=["slide"]
near = {name: statistics.compare(statistics.by_camera(dataset.root, count=200))
        for name, dataset in sets.items()}
figures = {"photographs": {of.name: f"{of.theirs:.3f}" for of in near["source"]}}
for name, lines in near.items():
    figures[titles[name]] = {of.name: f"{of.ours:.3f}" + " *" * (not of.inside)
                             for of in lines}
pd.DataFrame(figures)

# %%
every = [(abs(of.ratio - 1), f"{of.name} ({titles[name]}, {of.ratio:.2f} times)")
         for name, lines in near.items() for of in lines]
within = sum(of.near for lines in near.values() for of in lines)
display(Markdown(f"{within} of {len(every)} figures are within a third of the "
                 f"photographs'. The furthest: {max(every)[1]}."))

# %% [markdown]
# Not every star is a fault. Each of our cameras has a cast of its own, which narrows the hues of its images: a mean
# over cameras must lie below the entropy of all cameras' hues together. And people's lightness is that of a place and a
# season. None of it was tuned away: a figure that is right for one campus is no aim by itself. On the command line the
# table is `python -m data_prep statistics data/mini/source`.
#
# ## Cameras
#
# All people who pass one camera share its scene and its light. Each line below is a camera. Look along the lines, then
# down the columns: what would a descriptor of the whole image describe?

# %% tags=["slide"]
#| caption: People of the target by camera: a line for each camera, as many people
#|   in each.
once = train.drop_duplicates(["camera_id", "person_id"])
columns = min(12, once["camera_id"].value_counts().min())
by_camera = [rows_of(part, columns) for _, part in once.groupby("camera_id")][:4]
contact_sheet(pictures(target, pd.concat(by_camera)), columns)

# %% [markdown]
# ## Viewpoints, boxes, occluders
#
# A person passes each camera in a direction of their own; front and back differ (an open jacket, a print, a backpack).
# The box is never quite right either: it is shifted and scaled against the person, as a detector's would be. That is
# why fixed stripes don't cut the same part of every person, and chapter 03 lets a network place them.

# %% tags=["slide"]
#| caption: What the renderer wrote down: the directions in which people are seen,
#|   how far they stand off the middle of their box, and what stands in front.
figure = plt.figure(figsize=(9.2, 3.2))
polar = figure.add_subplot(1, 3, 1, projection="polar")
polar.hist(np.radians(train["yaw"].astype(float)), color=of_set[target],
           bins=np.linspace(0, 2 * np.pi, 25))
polar.set(theta_zero_location="S", yticks=[])
polar.set_xticks(np.radians([0, 90, 180, 270]), ["front", "side", "back", "side"])
polar.set_title("what the camera sees", pad=14)
boxes = figure.add_subplot(1, 3, 2)
boxes.scatter(train["box_dx"], train["box_dy"], s=4, c=of_set[target], alpha=0.5)
boxes.set(xlabel="to the right, box widths", ylabel="down, box heights",
          title="the person's centre", xlim=(-0.25, 0.25), ylim=(0.25, -0.25))
hidden = figure.add_subplot(1, 3, 3)
shares = pd.DataFrame({
    titles[name]: 100 * dataset.split("train").frame["occluder"].value_counts(
        normalize=True) for name, dataset in sets.items()}).fillna(0)
shares.drop("none").plot.barh(ax=hidden, color=list(of_set.values()), width=0.8,
                              legend=False)
hidden.set(xlabel="% of the images", ylabel="", title="what stands in front")
figure.legend(*hidden.get_legend_handles_labels(), ncols=3,
              loc="outside lower right")
plt.show()
covered = 100 - shares.loc["none"].mean()
off = train["box_dy"].abs().max()
display(Markdown(f"In {covered:.0f} % of the images something stands in front; a "
                 f"box is off by up to {off:.0%} of its height."))

# %% [markdown]
# ## Lookalikes, uniforms, twins
#
# A share of the people resemble somebody else of their set in all but one or two details. Others wear the very clothes
# of somebody else: two dressed as twins, three in a uniform, or two of whom one carries another bag in each camera.
# Clothes alone can't tell these apart; build, hair and skin must. Each column below is a pair, pictured in the same
# camera where there is one. Find the difference in each before you read the table.

# %% tags=["slide"]
#| caption: Each column shows two different people, of whom the lower was made after
#|   the upper, in views as like as can be.
def nearest_views(a, b):
    """Files of one image of each of two people: from one camera if they share one,
    and in directions as like as can be."""
    pairs = train[train["person_id"] == a].merge(train[train["person_id"] == b],
                                                 how="cross", suffixes=("", "_b"))
    turn = np.radians(pairs["yaw"].astype(float) - pairs["yaw_b"].astype(float))
    cost = (pairs["camera_id"] != pairs["camera_id_b"]) - np.cos(turn)
    return pairs.loc[cost.idxmin(), ["file", "file_b"]]


people = train.drop_duplicates("person_id").set_index("person_id")
model = pd.to_numeric(people["lookalike"], errors="coerce").dropna().astype(int)
pairs = [(a, b) for b, a in rows_of(model, 10, seed=2).items()]
first, second = zip(*(nearest_views(a, b) for a, b in pairs))
shown = train.set_index("file", drop=False).loc[[*first, *second]]
contact_sheet(pictures(target, shown), len(pairs))

# %%
DETAILS = ["top", "top_texture", "top_second", "print", "bottom", "bottom_colour",
           "shoes", "hair", "hair_colour", "hat", "backpack", "bag", "scarf"]
differing = [", ".join(detail for detail in DETAILS
                       if people.loc[a, detail] != people.loc[b, detail])
             for a, b in pairs]
table = pd.DataFrame({"column": range(1, len(pairs) + 1), "differ in": differing,
                      "clothes": [people.loc[b, "clothes"] for _, b in pairs]})
display(table.replace("_", " ", regex=True).style.hide(axis="index"))
print(f"{len(model) / len(people):.0%} of {len(people)} training people are made "
      "after somebody else")

# %% [markdown] tags=["slide"]
# The difference sits in one place: at the head, the chest, the legs, the bag. A single number for the whole image has
# to find it among everything that agrees.
#
# ## How far apart are the sets?
#
# A network that knows the source meets other colours in the targets. Take all pixels of a set's training images and
# count their colours, four levels for each of red, green and blue, 64 bins in all. Two such histograms $h$ and $h'$,
# each summing to one, differ by their *total variation*,
#
# $$\mathrm{TV}(h, h') = \tfrac12 \sum_b \lvert h_b - h'_b \rvert \in [0, 1],$$
#
# the share of pixels that would have to change colour to turn one set into the other.

# %%
def colour_histogram(images):
    """All pixels of all images, uint8 [n, 3, H, W] -> [64], sums to one."""
    red, green, blue = (images.long() // 64).unbind(1)
    bins = (16 * red + 4 * green + blue).flatten()
    return torch.bincount(bins, minlength=64).double() / len(bins)


def total_variation(h, other):
    return 0.5 * (h - other).abs().sum().item()


white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
half_black = torch.tensor([255, 0], dtype=torch.uint8).expand(1, 3, 2, 2)
assert total_variation(colour_histogram(white), colour_histogram(half_black)) == 0.5

# %% [markdown]
# A distance needs a measure of what is small. The last line of the next table is one: two halves of one set that share
# no camera. Do you expect the sets to lie further apart than that?

# %% tags=["slide"]
samples = {name: rows_of(dataset.split("train").frame, 1500)
           for name, dataset in sets.items()}
images = {name: pictures(name, sample) for name, sample in samples.items()}
histogram = {name: colour_histogram(part) for name, part in images.items()}
odd = torch.tensor(samples["source"]["camera_id"].to_numpy() % 2 == 1)
distance = {f"{titles[a]} to {titles[b]}":
            total_variation(histogram[a], histogram[b])
            for a, b in combinations(sets, 2)}
distance["source: odd to even cameras"] = total_variation(
    *(colour_histogram(images["source"][half]) for half in (odd, ~odd)))
pd.Series(distance, name="total variation").to_frame().style.format(precision=3)

# %% tags=["slide"]
#| caption: Brightness of all pixels of the three sets as curves; mean colour and
#|   brightness of each image as dots, of each camera as circles.
figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.4), width_ratios=(3, 2))
levels = np.arange(0, 257, 4)
for name, part in images.items():
    part = part.float()
    left.stairs(np.histogram(part.mean(1), bins=levels, density=True)[0], levels,
                color=of_set[name], linewidth=1.8, label=titles[name])
    red, _, blue = part.mean((2, 3)).unbind(1)
    points = pd.DataFrame({"warm": red - blue, "bright": part.mean((1, 2, 3))})
    cameras = points.groupby(samples[name]["camera_id"].to_numpy()).mean()
    right.scatter(*points.T.to_numpy(), s=2, color=of_set[name], alpha=0.12)
    right.scatter(*cameras.T.to_numpy(), s=55, color=of_set[name],
                  edgecolor="black", zorder=3)
left.set(xlabel="brightness of a pixel", yticks=[], title="all pixels")
left.legend()
right.set(xlabel="red $-$ blue: warmer to the right", ylabel="mean brightness",
          title="images (dots), cameras (circles)")
plt.show()
furthest = max(list(distance.values())[:3]) / list(distance.values())[3]
display(Markdown(f"The two sets that lie furthest apart do so by {furthest:.1f} "
                 "times what two halves of one set's cameras do."))

# %% [markdown]
# Where that ratio is near one, what is called a gap between sets is for the most part a gap between cameras. Telling
# people apart in spite of it is what the labelled source teaches; the rest is left to the adaptation.
#
# ## What the card says
#
# Nobody was photographed, and the card of each set says so, with its licence, the renderer's version, the world that it
# was drawn from and a fingerprint of its files:

# %%
card = sets[target].card
keys = ("name", "description", "licence", "renderer", "world")
pd.DataFrame({"card.json": {key: str(card.get(key)) for key in keys}}).style

# %% [markdown] tags=["slide"]
# ## Summary
#
# - Seventeen figures of an image are held beside those of street photographs, camera by camera.
# - What makes people hard to tell apart is written down for each image: view, box, occluder, and after whom somebody
#   was made.
# - A distance between sets is read against the distance between cameras of one set.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Turn all images upside down. Which of the seventeen figures change? Try it with
#    `data_prep.statistics.statistics`. What does that say about being near to photographs?
# 2. *Break it.* Swap red and blue when the images of *one* set are read, as happens when two libraries disagree about
#    the order of channels. Does the total variation notice? Does it notice when all sets are read so?
# 3. Total variation is the same for two sets of images whose pixels are shuffled between images. Name a gap between two
#    sets that it can't see, and a statistic that can. (*Hint:* think of resolution, or of where in the box people
#    stand.)
# 4. *Extend.* Name something that photographs of passersby have and these people lack, and make a number of it that can
#    be computed from pixels. How would you know, without photographs in this folder, what it should be?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# None. They are means over places that lie symmetrically in the box, of edges and colours without a direction. So they
# are a necessary condition: far from them, an image looks like no photograph; near to them, it may still stand on its
# head.
#
# ```python
# # runs alone
# import numpy as np
# from data_prep.statistics import statistics
#
# image = np.random.default_rng(0).integers(0, 256, (128, 64, 3)).astype(np.uint8)
# upright, turned = statistics([image]), statistics([image[::-1]])
# assert all(abs(upright[name] - turned[name]) < 1e-9 for name in upright)
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# It notices the first: skin turns blue, and jeans turn brown. It can't notice the second: swapping renames the bins of
# all histograms alike, and the sum over bins doesn't ask for their names. So a mistake that is made everywhere leaves
# distances alone, and shows only against something from outside, such as the photographs.
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# It can't see anything that keeps the set's pixels and moves them: sharpness, noise between neighbours, where in the
# box people stand. The mean difference of neighbouring pixels sees sharpness; a histogram for each row sees the place.
# Two images below have the same pixels and a total variation of zero.
#
# ```python
# # runs alone
# import torch
#
# fine = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2)  # a chessboard
# coarse = fine.flatten().sort().values.view(16, 16)  # the same pixels, two halves
# assert torch.equal(fine.flatten().bincount(), coarse.flatten().bincount())
# roughness = [image.diff(dim=0).abs().float().mean() for image in (fine, coarse)]
# assert roughness[0] == 1 and roughness[1] < 0.1
# ```
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# Other people in the background, motion blur in one direction, the blocks of JPEG, text on clothes. Averages of
# photographs serve as well as photographs: `data_prep/photographs.json` holds seventeen numbers of 1,500 of them, and
# nobody's picture.
#
# - *full*: a number with its code, its value for the three sets camera by camera, and a source for the value wanted;
# - *half*: a number and its value for one set;
# - *some*: something that is missing, described so that a number could be made of it.
#
# </details>

# %% [markdown]
# ## Next
#
# The other appendices; or chapter 02, *Evaluation*, for who came from chapter 01.

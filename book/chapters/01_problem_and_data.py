# %% [markdown] tags=["slide"]
# # The problem and the data
#
# **What you will learn**
#
# - what person re-identification asks for, and what "unsupervised" means here: a labelled source, unlabelled targets;
# - the protocol of query and gallery: same-camera exclusion, junk, distractors;
# - who the people in the pictures are, how near they come to photographs, what makes them hard to tell apart, and how
#   far apart the three sets are;
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
from data_prep import statistics
from IPython.display import Markdown, display
from paul.data.datasets import ReidDataset, Split
from paul.data.pixels import load_images
from paul.experiments.profiles import PROFILES
from paul.metrics import evaluate
from paul.plots import BLUE, GREEN, GREY, ORANGE, RED, draw_on, drawn, image_grid
from paul.report.frames import target_name
from torchvision.utils import make_grid

start(data_dir, profile)
folders = PROFILES[profile].folders
sets = {name: ReidDataset.load(Path(data_dir) / folder)
        for name, folder in folders.items()}
titles = {name: "source" if name == "source" else target_name(name, profile)
          for name in sets}
of_set = dict(zip(sets, (GREY, BLUE, ORANGE)))  # one colour per set in every figure
pd.Series(titles, name=f"the sets of profile {profile}").to_frame()

# %% [markdown] tags=["slide"]
# ## Finding a person again
#
# > **The paper (Sec. 1).** Given one picture of a person, find that person's pictures among those that *other* cameras
# > took. Cameras differ in light, in colour and in where they look from, so the same person can look less alike than
# > two strangers do.
#
# Nothing is recognised by its face: at this size there is none. A function $f$ turns an image into a descriptor, and
# the gallery is put in the order of its distance to the query,
#
# $$
# d(q, g) = \lVert f(q) - f(g) \rVert_2 .
# $$
#
# All that follows is about a good $f$. Before any mathematics, be the function yourself. Who of the seven is the person
# on the left?


# %% tags=["slide"]
#| caption: One person on the left and seven candidates: who of them is it?
def rows_of(frame, count, seed=0):
    """`count` rows drawn without replacement, the same for the same seed."""
    return frame.sample(min(count, len(frame)), random_state=seed)


def pictures(name, frame, size=(128, 64)):
    """The images of these rows of a set's index, uint8 [n, 3, H, W]."""
    return load_images(Split(sets[name].root, frame), size)


frame = sets[target].frame
asked = rows_of(frame[frame["split"] == "query"], 1, seed=3)
person, camera = asked["person_id"].item(), asked["camera_id"].item()
gallery = frame[frame["split"] == "gallery"]
own, by_own_camera = gallery["person_id"] == person, gallery["camera_id"] == camera
right = rows_of(gallery[own & ~by_own_camera], 1)
others = gallery[~own & (gallery["person_id"] > 0)].drop_duplicates("person_id")
seven = pd.concat([right, rows_of(others, 6)]).sample(frac=1, random_state=5)


@drawn
def lineup(images):
    figure, axes = image_grid(1, len(images), images[0], scale=1.1)
    for place, (axis, image) in enumerate(zip(axes[0], images)):
        draw_on(axis, image, BLUE if place == 0 else None,
                str(place) if place else "query")
    return figure


lineup(pictures(target, pd.concat([asked, seven])))

# %%
place = seven["person_id"].tolist().index(person) + 1
display(Markdown(f"The index says: number **{place}**. "
                 f"Camera {camera} took the query, "
                 f"camera {right['camera_id'].item()} took that picture."))

# %% [markdown] tags=["slide"]
# **You should see** that you looked at clothes, at bags, at hair, and at one part after the other. That is what the
# paper builds on.
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
    walks = people.drop_duplicates(["person_id", "camera_id"])
    return {"images": len(part), "people": people["person_id"].nunique(),
            "cameras": part["camera_id"].nunique(),
            "cameras each": len(walks) / people["person_id"].nunique(),
            "junk": (part["person_id"] == -1).sum(),
            "distractors": (part["person_id"] == 0).sum()}


counts = {(titles[name], split): count(dataset.split(split).frame)
          for name, dataset in sets.items() for split in dataset.splits}
pd.DataFrame(counts).T.style.format("{:.0f}").format("{:.1f}",
                                                     subset="cameras each")

# %%
for name, dataset in sets.items():
    in_both = (set(dataset.split("train").person_ids)
               & set(dataset.split("query").person_ids))
    assert not in_both, (f"{titles[name]}: {len(in_both)} people are in the "
                         "training and in the test part")
print("no person is in both the training and the test part of a set")

# %% [markdown]
# ## The protocol
#
# A file's name says who, from where and when, in Market-1501's pattern: `0002_c1s5_013240_01.jpg` is person 2 in camera
# 1, sequence 5, frame 13240, first box of that frame. Reading it takes one line:

# %%
def read_name(file):
    """'.../0002_c1s5_013240_01.jpg' -> (person id, camera id)."""
    person, camera = re.match(r"(-?\d+)_c(\d+)", Path(file).name).groups()
    return int(person), int(camera)


if profile != "paper":  # a real set's index may list files of any name
    for dataset in sets.values():
        read = [read_name(file) for file in dataset.frame["file"]]
        assert read == list(zip(dataset.frame["person_id"],
                                dataset.frame["camera_id"]))
    print("the index of each set says what its files' names say")

# %% [markdown] tags=["slide"]
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


# %%
query, gallery = sets[target].split("query"), sets[target].split("gallery")
query = query.take(range(min(len(query), 500)))  # enough to see it
asked, offered = (list(zip(s.person_ids.tolist(), s.camera_ids.tolist()))
                  for s in (query, gallery))
# [queries, gallery]
table = torch.tensor([[verdict(*q, *g) for g in offered] for q in asked])

# %% [markdown]
# `paul.metrics` counts the right images of each query on its own. Both must come to the same number, whatever the
# features, so random ones do:

# %%
torch.manual_seed(0)
scores = evaluate(torch.randn(len(query), 8), query.person_ids, query.camera_ids,
                  torch.randn(len(gallery), 8), gallery.person_ids,
                  gallery.camera_ids)
rights = (table == RIGHT).sum(1)
torch.testing.assert_close(rights[rights > 0],
                           torch.tensor(scores.per_query["positives"].to_numpy()))
assert scores.left_out == int((rights == 0).sum())
print(f"{scores.queries} queries scored, {scores.left_out} left out for want "
      "of a right image")

# %%
#| caption: What an average query finds in the gallery, as one bar: images of the
#|   same person, of others, and those that the evaluation leaves out.
@drawn
def what_the_gallery_is():
    figure, axis = plt.subplots(figsize=(8, 1.7))
    left = 0
    for name, value, colour in (("right", RIGHT, GREEN),
                                ("left out", LEFT_OUT, GREY),
                                ("wrong", WRONG, RED)):
        mean = (table == value).double().sum(1).mean().item()
        axis.barh(0, mean, left=left, color=colour, label=f"{name}: {mean:.1f}")
        left += mean
    axis.set(yticks=[], xlabel="gallery images",
             title="what an average query finds in the gallery")
    axis.spines["left"].set_visible(False)
    figure.legend(ncols=3, loc="outside lower center")
    return figure


what_the_gallery_is()

# %% [markdown]
# **You should see** a handful of right images in hundreds of wrong ones at `mini` (in dozens at `smoke`). Ranking them
# first is a search for needles, and a random order finds one at the top hardly ever.
#
# ## A tour through the people
#
# The people of `smoke`, `mini` and `gpu` are rendered: capsules for limbs, clothes with textures and folds, bags, hats,
# hair, a street around them, and a camera with a light, colours, blur, sharpening and noise of its own. Most of them
# wear black, white, grey and denim, as people do, so that tone decides little. The index says more about them than a
# real one could. These truth columns serve for looking; no training ever reads them.
#
# All of them are one *world*, drawn from one number. This is world 0, in which everything was developed and every
# option chosen; `python -m data_prep synthetic --world 3` draws other people, wardrobes, streets, cameras and gaps.

# %% tags=["slide"]
#| caption: Eight people of the source, three pictures of each side by side.
#| caption: Eight people of the Market-like target, three pictures of each side by
#|   side.
#| caption: Eight people of the Duke-like target, three pictures of each side by
#|   side.
@drawn
def contact(images, columns, title):
    """Images [n, 3, H, W] in lines of `columns`, on white."""
    sheet = make_grid(images, nrow=columns, padding=3, pad_value=255)
    sheet = sheet.permute(1, 2, 0)
    height = 10 * sheet.shape[0] / sheet.shape[1] + 0.3
    figure, axis = plt.subplots(figsize=(9.2, height))
    axis.imshow(sheet, interpolation="antialiased")
    axis.set_title(title)
    axis.axis("off")
    return figure


def walks(name, people, cameras=3):
    """For some training people, who come side by side: one image in each camera."""
    frame = sets[name].split("train").frame
    frame = frame.drop_duplicates(["person_id", "camera_id"])
    known = frame.groupby("person_id").filter(lambda part: len(part) >= cameras)
    chosen = known["person_id"].drop_duplicates().sample(people, random_state=1)
    return pd.concat([known[known["person_id"] == person].head(cameras)
                      for person in chosen])


for name in sets:
    display(contact(pictures(name, walks(name, people=8)), 12,
                    f"{titles[name]}: eight people, three pictures each"))

# %% [markdown]
# **You should see** triples of the same clothes in changing light and from changing sides, and sets that differ in more
# than their people: in light, in colours, in sharpness.
#
# ### How near to photographs?
#
# Nobody takes them for photographs, but seventeen figures of an image can be held beside those of 1,500 street
# photographs of people, one public set in two views: how much a person or a background has of edges, colour, light and
# fine detail. Here *ours* is a mean over a set's cameras, and a star stands where the photographs' figure lies outside
# the range of these cameras. A set should vary around photographs; it needn't imitate the one place they come from.

# %%
def beside_photographs(folder):
    """A line per figure: ours, the photographs', and how near these are."""
    lines = statistics.compare(statistics.by_camera(folder, count=200))
    return pd.DataFrame({line.name: {key: getattr(line, key) for key in FIGURES}
                         for line in lines}).T


FIGURES = ("ours", "theirs", "ratio", "near", "inside")
if profile == "paper":
    print("the sets of this profile are photographs")
else:
    figures = {titles[name]: beside_photographs(dataset.root)
               for name, dataset in sets.items()}
    shown = {("", "photographs"): figures["source"]["theirs"].map("{:.3f}".format)}
    for name, lines in figures.items():
        stars = lines["inside"].map({True: "", False: " *"})
        shown[name, "ours"] = lines["ours"].map("{:.3f}".format)
        shown[name, "ratio"] = lines["ratio"].map("{:.2f}".format) + stars
    display(pd.DataFrame(shown))
    far = [f"{figure} ({name})" for name, lines in figures.items()
           for figure in lines.index[~lines["near"].astype(bool)]]
    print("further than a third from the photographs:", ", ".join(far) or "none")

# %% [markdown]
# **You should see** (at `mini`) every figure within a third of the photographs', and a star in a few rows:
#
# - *foreground luma*: people are lighter than those photographs' in every camera of the source and of one target, by a
#   twentieth at least: theirs is one place in one season;
# - *hue entropy*: each of our cameras has a cast of its own, which narrows the hues of its images. All the source's
#   together have 4.28 bits, the photographs 4.28;
# - *foreground gradient*: one target's six cameras all draw folds and outlines a little more sharply;
# - *background gradient*: the other target's streets are a little smoother, in the sharpest camera by a hundredth;
# - *background luma*: its streets are a little lighter, too: its darkest is 0.49, the photographs' mean 0.45.
#
# None of it was tuned away: a figure that is right for one campus is no aim by itself. The table is that of
# `python -m data_prep statistics data/mini/source`.
#
# ### Cameras
#
# All people who pass one camera share its scene and its light. A line below is a camera.

# %%
#| caption: People of the target by camera: a line for each camera, twelve people
#|   each.
train = sets[target].split("train").frame
once = train.drop_duplicates(["camera_id", "person_id"])
by_camera = [rows_of(part, 12) for _, part in once.groupby("camera_id")
             if len(part) >= 12][:4]
if by_camera:
    images = pictures(target, pd.concat(by_camera))
    display(contact(images, 12,
                    f"{titles[target]}: a line per camera, twelve people each"))
else:
    print(f"the cameras of profile {profile} see fewer than twelve people each")

# %% [markdown]
# **You should see** the same ground and walls along a line, and another tint from line to line. A descriptor that sums
# up the whole image describes the camera, too. This comes back as a number at the end of this chapter.
#
# ### Viewpoints, boxes, occluders
#
# A person passes each camera in a direction of their own; front and back differ (an open jacket, a print, a backpack).
# The box is never quite right either: it is shifted and scaled against the person, as a detector's would be.

# %%
#| caption: What the renderer wrote down: the directions in which people are seen,
#|   how far they stand off the middle of their box, and what stands in front of
#|   them.
has_truth = all("yaw" in dataset.frame for dataset in sets.values())


@drawn
def views_and_boxes():
    figure = plt.figure(figsize=(9.2, 3.2))
    polar = figure.add_subplot(1, 3, 1, projection="polar")
    polar.hist(np.radians(train["yaw"].astype(float)),
               bins=np.linspace(0, 2 * np.pi, 25), color=of_set[target])
    polar.set(theta_zero_location="S", yticks=[])
    polar.set_xticks(np.radians([0, 90, 180, 270]),
                     ["front", "side", "back", "side"])
    polar.set_title("what the camera sees", pad=14)
    boxes = figure.add_subplot(1, 3, 2)
    boxes.scatter(train["box_dx"], train["box_dy"], s=4, color=of_set[target],
                  alpha=0.5)
    boxes.set(xlabel="to the right, box widths", ylabel="down, box heights",
              title="the person's centre, off the box's", xlim=(-0.25, 0.25),
              ylim=(0.25, -0.25), aspect="equal")
    hidden = figure.add_subplot(1, 3, 3)
    frames = {titles[name]: dataset.split("train").frame["occluder"]
              for name, dataset in sets.items()}
    shares = pd.DataFrame({name: 100 * kinds.value_counts(normalize=True)
                           for name, kinds in frames.items()})
    shares.drop("none").fillna(0).plot.barh(ax=hidden, color=list(of_set.values()),
                                            width=0.8, legend=False)
    hidden.set(xlabel="% of the images", ylabel="", title="what stands in front")
    figure.legend(*hidden.get_legend_handles_labels(), ncols=3,
                  loc="outside lower right")
    return figure


views_and_boxes() if has_truth else print("a real set has no such columns")

# %% [markdown]
# **You should see** all directions, boxes off by up to a fifth of their size, and something in front of the person in
# about one image in sixteen. The shifts are why fixed stripes don't cut the same part of every person: chapter 03 lets
# a network place them.
#
# ### Lookalikes, uniforms, twins
#
# A share of the people resemble somebody else of their set in all but one or two details. Another tenth wear the very
# clothes of somebody else: two dressed as twins, three in a uniform, or two of whom one carries another bag in each
# camera. Clothes alone can't tell these apart; build, hair and skin must. Each column below is a pair, pictured in the
# same camera where there is one.

# %% tags=["slide"]
#| caption: Each column shows two different people, of whom the lower was made after
#|   the upper, in views as like as can be.
def nearest_views(frame, a, b):
    """One image of each of two people: from one camera if they share one, and in
    directions as like as can be."""
    pairs = frame[frame["person_id"] == a].merge(frame[frame["person_id"] == b],
                                                 how="cross", suffixes=("", "_b"))
    turn = np.radians(pairs["yaw"].astype(float) - pairs["yaw_b"].astype(float))
    cost = (pairs["camera_id"] != pairs["camera_id_b"]) - np.cos(turn)
    best = pairs.loc[cost.idxmin()]
    return (frame[frame["file"].isin([best["file"]])],
            frame[frame["file"].isin([best["file_b"]])])


DETAILS = ["top", "top_texture", "top_second", "print", "bottom", "bottom_colour",
           "shoes", "hair", "hair_colour", "hat", "backpack", "bag", "scarf"]
if has_truth:
    people = train.drop_duplicates("person_id").set_index("person_id")
    model = pd.to_numeric(people["lookalike"], errors="coerce").dropna().astype(int)
    shown = model.sample(min(10, len(model)), random_state=2)
    pairs = [(a, b) for b, a in shown.items()]
    first, second = zip(*(nearest_views(train, a, b) for a, b in pairs))
    images = pictures(target, pd.concat([*first, *second]))
    display(contact(images, len(pairs), "each column: two different people"))
    differing = [", ".join(d for d in DETAILS
                           if people.loc[a, d] != people.loc[b, d])
                 for a, b in pairs]
    differing = pd.DataFrame({"column": range(1, len(pairs) + 1),
                              "differ in": differing,
                              "clothes": [people.loc[b, "clothes"]
                                          for _, b in pairs]})
    display(differing.replace("_", " ", regex=True).style.hide(axis="index"))
    print(f"{len(model) / len(people):.0%} of {len(people)} training people are "
          "made after somebody else")

# %% [markdown]
# **You should see** that you have to look for the difference, and that it sits in one place: at the head, the chest,
# the legs, the bag. A single number for the whole image has to find it among everything that agrees. And you should see
# pairs whom only the head tells apart, or nothing that a picture of this size shows.
#
# ## How far apart are the sets?
#
# A network that knows the source meets other colours in the targets. Take all pixels of a set's training images and
# count their colours, four levels for each of red, green and blue, 64 bins in all. Two such histograms $h$ and $h'$,
# each summing to one, differ by their *total variation*,
#
# $$
# \mathrm{TV}(h, h') = \tfrac12 \sum_b \lvert h_b - h'_b \rvert \in [0, 1],
# $$
#
# the share of pixels that would have to change colour to turn one set into the other.

# %%
LEVELS = 4


def colour_bins(images):
    """uint8 [n, 3, H, W] -> which of the 64 colours each pixel has, [n, H, W]."""
    red, green, blue = (images.long() * LEVELS // 256).unbind(1)
    return (red * LEVELS + green) * LEVELS + blue


def colour_histogram(images):
    """All pixels of all images together, [64], sums to one."""
    return torch.bincount(colour_bins(images).flatten(),
                          minlength=LEVELS**3).double() / images[:, 0].numel()


def total_variation(h, other):
    return 0.5 * (h - other).abs().sum().item()


white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
half_black = torch.tensor([255, 0], dtype=torch.uint8).expand(1, 3, 2, 2)
assert total_variation(colour_histogram(white), colour_histogram(half_black)) == 0.5

# %% [markdown]
# A distance needs a measure of what is small. The last line of the next table is one: two halves of one set that share
# no camera.

# %%
samples = {name: rows_of(dataset.split("train").frame, 1500)
           for name, dataset in sets.items()}
images = {name: pictures(name, sample) for name, sample in samples.items()}
histogram = {name: colour_histogram(part) for name, part in images.items()}
odd = torch.tensor(samples["source"]["camera_id"].to_numpy() % 2 == 1)
two_sets = (("source", "market"), ("source", "duke"), ("market", "duke"))
distance = {f"{titles[a]} to {titles[b]}":
            total_variation(histogram[a], histogram[b]) for a, b in two_sets}
distance["source: odd to even cameras"] = total_variation(
    colour_histogram(images["source"][odd]),
    colour_histogram(images["source"][~odd]))
pd.Series(distance, name="total variation").to_frame().style.format(precision=3)


# %% tags=["slide"]
#| caption: Brightness of all pixels of the three sets as curves; mean colour and
#|   brightness of each image as dots, of each camera as circles.
@drawn
def gap():
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.4),
                                         width_ratios=(3, 2))
    levels = np.arange(0, 257, 4)
    for name, part in images.items():
        part = part.float()
        left.stairs(np.histogram(part.mean(1), bins=levels, density=True)[0],
                    levels, color=of_set[name], linewidth=1.8, label=titles[name])
        red, _, blue = part.mean((2, 3)).unbind(1)
        points = pd.DataFrame({"warm": red - blue, "bright": part.mean((1, 2, 3))})
        cameras = points.groupby(samples[name]["camera_id"].to_numpy()).mean()
        right.scatter(points["warm"], points["bright"], s=2, color=of_set[name],
                      alpha=0.12)
        right.scatter(cameras["warm"], cameras["bright"], s=55, color=of_set[name],
                      edgecolor="black", zorder=3)
    left.set(xlabel="brightness of a pixel", yticks=[],
             title="all pixels of the training images")
    left.legend()
    right.set(xlabel="red $-$ blue: warmer to the right", ylabel="mean brightness")
    right.set_title("images (dots), cameras (circles)")
    return figure


gap()

# %% [markdown]
# **You should see** distances below a tenth at `mini`, with the last line no exception: the cameras of one set lie
# about as far from each other as the sets do. Much of what is called a gap between sets is a gap between cameras.
# Telling people apart in spite of it is what the labelled source teaches; the rest is left to the adaptation.
#
# ## Whole images mislead, patches inform
#
# > **The paper (Sec. 1, Figs. 1 and 3).** Different people in similar clothes look alike as whole images, so an image's
# > nearest neighbours are often the wrong people, and pulling them together ruins the embedding. Their *patches* are
# > another matter: an image that is wrong as a whole may be right in a part, and the gap between matching patches is
# > smaller than between images. So learn from patches.
#
# This can be tested with no learning at all. Describe the middle half of an image by its colours, once as a whole and
# once in $M = 6$ horizontal stripes. The square root of a histogram gives a unit vector, so that the Euclidean distance
# compares shares.


# %%
def colour_patches(images, count):
    """Root colour histograms of `count` horizontal stripes, each a unit vector:
    [n, 3, H, W] -> [count, n, 64]."""
    width = images.shape[-1]
    bins = colour_bins(images[..., width // 4: width - width // 4])
    stripes = []
    for stripe in bins.flatten(1).chunk(count, 1):
        counts = torch.zeros(len(images), LEVELS**3, dtype=torch.float64)
        counts.scatter_add_(1, stripe,
                            torch.ones(stripe.shape, dtype=torch.float64))
        stripes.append((counts / stripe.shape[1]).sqrt())
    return torch.stack(stripes)


known = sets[target].frame
known = known[known["split"].isin(["val_query", "val_gallery"])]
if known.empty:  # a real set has no validation people; these are for looking only
    known = sets[target].split("train").frame.head(1000)
known = known.reset_index(drop=True)
# 96 rows divide into six stripes
people_images = pictures(target, known, size=(96, 48))
person, camera = (torch.tensor(known[column].to_numpy())
                  for column in ("person_id", "camera_id"))
whole, stripes = colour_patches(people_images, 1), colour_patches(people_images, 6)
# the stripes' shares average to the whole image's: both see exactly the same pixels
torch.testing.assert_close(stripes.square().mean(0), whole[0].square())

# %% [markdown]
# Of how many images is the nearest neighbour the same person? Call it the share of images *found*. With
# $\mathcal{N}(i)$ the images that the protocol leaves to image $i$,
#
# $$
# \text{found} = \frac1N \sum_{i=1}^{N} \big[\, p_{j(i)} = p_i \,\big], \qquad
# j(i) = \arg\min_{j \in \mathcal{N}(i)} \lVert x_i - x_j \rVert_2 .
# $$
#
# It is Rank-1 with every image as a query, which chapter 02 takes apart, so `paul.metrics` can check it.

# %%
same_person, same_camera = person[:, None] == person, camera[:, None] == camera


def nearest(x, excluded):
    """Position of each image's nearest neighbour among those that aren't excluded:
    x [n, D], excluded [n, n] -> [n]."""
    return torch.cdist(x, x).masked_fill(excluded, float("inf")).argmin(1)


def found_by(x, excluded):
    return (person[nearest(x, excluded)] == person).double().mean().item()


protocol = same_person & same_camera  # leaves an image itself out, too
# the six stripes side by side, [n, 6 * 64]
beside = stripes.transpose(0, 1).flatten(1)
for x in (whole[0], beside):
    library = evaluate(x, person, camera, x, person, camera)
    torch.testing.assert_close(found_by(x, protocol), library.rank(1),
                               atol=2 / len(person), rtol=0)

# %% tags=["slide"]
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
# **You should see** the six stripes above the whole image, although both saw the same pixels and the same colours:
# *where* a colour is tells people apart. And the second column lies far above the first: take away the strangers that
# the query's own camera took, and about three times as many of the neighbours are right. Colours describe the camera
# before they describe the person.
#
# Alone, the stripes of head and feet are poor. So does a patch inform at all when it names the wrong person? Ask
# something else of it. Leave the person's own images out altogether, so that *every* neighbour is a stranger, and ask
# whether the stranger wears the same colour where the patch is.

# %%
if has_truth:
    strangers = same_person | same_camera

    def agreement(x, column):
        """How often the nearest stranger in another camera has the same value in a
        truth column, in percent."""
        values = known[column].to_numpy()
        return 100 * (values[nearest(x, strangers)] == values).mean()

    def chance(column):
        values = known[column].astype("category").cat.codes.to_numpy()
        same = torch.from_numpy(values[:, None] == values)
        return 100 * (same & ~strangers).sum().item() / (~strangers).sum().item()

    asked = {"colour of the top": "top_colour",
             "colour of the legs": "bottom_colour",
             "colour of the shoes": "shoes"}
    found = {title: [*(agreement(x, column) for x in named.values()),
                     chance(column)] for title, column in asked.items()}
    found = pd.DataFrame(found, index=[*named, "chance"])
    display(found.style.format("{:.0f} %"))


# %% tags=["slide"]
#| caption: A person cut into six stripes, and, stripe by stripe, how often the
#|   nearest stranger wears the same garment; lines mark the whole image and chance.
@drawn
def what_stripes_know():
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 3.4),
                                width_ratios=(1.1, 2, 2, 2))
    off = (known["box_dx"].abs() + known["box_dy"].abs()
           + (known["box_scale"] - 1).abs())
    example = people_images[off[known["occluder"] == "none"].idxmin()]
    example = example.permute(1, 2, 0)
    height, width = example.shape[:2]
    axes[0].imshow(example)
    for m in range(6):
        axes[0].axhline(m * height / 6, color="white", linewidth=0.8)
        axes[0].text(1, (m + 0.5) * height / 6, str(m + 1), color="white",
                     va="center", weight="bold")
    axes[0].axvspan(0, width / 4, color="white", alpha=0.35)
    axes[0].axvspan(width * 3 / 4, width, color="white", alpha=0.35)
    axes[0].axis("off")
    for axis, (title, values) in zip(axes[1:], found.items()):
        alone = values[[f"stripe {m + 1} alone" for m in range(6)]]
        axis.barh(range(1, 7), alone, color=BLUE, height=0.75)
        axis.axvline(values["whole image"], color=ORANGE, label="whole image")
        axis.axvline(values["chance"], color=GREY, linestyle=":", label="chance")
        axis.set(ylim=(6.6, 0.4), yticks=range(1, 7),
                 xlabel="% of the nearest strangers")
        axis.set_title(title, fontsize=10)
    axes[1].set_ylabel("stripe")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center",
                  ncols=2)
    return figure


what_stripes_know() if has_truth else print("a real set has no such columns")

# %% [markdown]
# **You should see** (at `mini`) each garment known best by the stripes that it hangs in: tops by stripes 2 and 3,
# trousers and skirts by 4 and 5, about twice as often as by chance, and shoes by 6, half again as often. One stripe, a
# sixth of the pixels, knows its garment better than the whole image does, whose neighbours have to agree on everything
# at once. A patch that is wrong about *who* is more often right about *what*: pulling it towards its nearest patches
# gathers garments, where pulling whole images gathers people who aren't the same.
#
# ### One case, up close
#
# An anchor, the same person in another camera, and a stranger who is nearer to the anchor as a whole image. Stripe by
# stripe the matter looks different.

# %% tags=["slide"]
#| caption: An anchor, the same person and a stranger, with the distances of both
#|   from the anchor: whole images, stripe by stripe, and all stripes together.
def clearest_case():
    """(anchor, same person, stranger): whole images prefer the stranger, stripes
    the person, both clearly.

    The stranger comes from the person's camera, so that no camera favours either.
    """
    d_whole, d_stripes = (torch.cdist(whole[0], whole[0]),
                          torch.cdist(beside, beside) / 6**0.5)
    best, case = -float("inf"), None
    for anchor in range(len(person)):
        for mate in torch.nonzero(right[anchor]).flatten().tolist():
            misled = d_whole[anchor, mate] - d_whole[anchor]
            helped = d_stripes[anchor] - d_stripes[anchor, mate]
            fair = (camera == camera[mate]) & ~same_person[anchor]
            clear = torch.minimum(misled, helped).where(fair, -torch.inf)
            if clear.max() > best:
                best, case = (clear.max().item(),
                              (anchor, mate, clear.argmax().item()))
    return case


anchor, mate, stranger = clearest_case()


@drawn
def close_up():
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 3.4),
                                width_ratios=(1, 1, 1, 2.6))
    for axis, place, name, colour in ((axes[0], mate, "same person", GREEN),
                                      (axes[1], anchor, "anchor", "black"),
                                      (axes[2], stranger, "stranger", RED)):
        draw_on(axis, people_images[place], colour, name)
        for m in range(1, 6):
            axis.axhline(m * people_images.shape[2] / 6, color="white",
                         linewidth=0.8)
    rows = np.arange(8)
    for place, colour, shift in ((mate, GREEN, -0.2), (stranger, RED, 0.2)):
        each = (stripes[:, anchor] - stripes[:, place]).norm(dim=1)
        values = [*each, each.square().mean().sqrt(),
                  (whole[0, anchor] - whole[0, place]).norm()]
        axes[3].barh(rows + shift, values, height=0.38, color=colour)
    names = [*(f"stripe {m + 1}" for m in range(6)), "6 stripes together",
             "whole image"]
    axes[3].set(yticks=rows, yticklabels=names, xlabel="distance to the anchor",
                ylim=(7.6, -0.6))
    axes[3].axhline(5.5, color=GREY, linewidth=0.8)
    return figure


close_up()

# %% [markdown] tags=["slide"]
# **You should see** (at `mini`) a shorter green bar for the six stripes together and a shorter red one for the whole
# image. What the whole image adds up, the stripes keep apart. It is the clearest case of its kind among the validation
# people, picked for show; the tables above say how much such cases weigh.
#
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
# them. The card of each set says so:

# %%
card = sets[target].card
keys = ("name", "description", "licence", "renderer", "world", "fingerprint")
keys = [key for key in keys if key in card]
pd.Series({key: str(card[key]) for key in keys}, name="card.json").to_frame()

# %% [markdown]
# They come at a price. Identity is clothing and build here, as it largely is in a set filmed within an hour, but skin,
# age and gait of real people are more than capsules can show. So what is measured on them says which of two methods is
# better *on them*. Whether an error falls on one group of people more often than on another, a question that any
# deployed system must answer, can't be asked of them at all.
#
# **If you have the right to use a real set**: request it from its authors, read its terms, keep it out of this folder's
# version control, and don't publish pictures of people in it. The profile `paper` looks for the folders below inside
# the data folder. Each holds the images and an `index.csv` with the columns *file, split, person_id, camera_id*, where
# *file* is relative to the folder and *split* is one of *train, query, gallery*, optionally *val_query, val_gallery*.

# %%
pd.Series(PROFILES["paper"].folders, name="folder").to_frame()

# %% [markdown] tags=["slide"]
# ## Summary
#
# - Re-identification ranks a gallery by distance to a query. Own person in own camera and junk are left out;
#   distractors stay.
# - PAUL may read the source's labels, and of the target the images alone.
# - The shipped people are rendered, deterministic for a world's number, with lookalikes, uniforms, shifted boxes and
#   cameras with colours of their own; in seventeen figures they lie near to street photographs.
# - The same colours tell people apart better in six stripes than in one image, and a patch's nearest patch shows the
#   same colour of garment twice as often as chance would have it, even when it shows the wrong person.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Without the middle-half crop in `colour_patches`, what happens to the two columns of the table of images
#    found, and why more to the first? (*Hint:* what fills the outer quarters of a box?)
# 2. *Extend.* Cut 1, 2, 3, 6, 12 and 24 stripes and draw the share found. Why does it stop rising? (*Hint:* look at the
#    box shifts above, and at how many pixels are left to a stripe. 96 rows in 24 stripes leave 4.)
# 3. *Break it.* In `verdict`, count a query's own person in its own camera as right. What does the share found by the
#    whole image become, and what has been measured then? (*Hint:* `protocol` would only exclude the image itself.)
# 4. Total variation is the same for two sets of images whose pixels are shuffled between images. Name a gap between two
#    sets that it can't see, and a statistic that can. (*Hint:* think of resolution, or of where in the box people
#    stand.)
# 5. *Implement.* Close the book and write `verdict` from the three lines of the definition alone. For which gallery
#    image are two of the three conditions true at once if they are read carelessly?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The outer quarters show the street, and all people whom one camera takes share that street. Under the protocol
# strangers from the query's own camera may be the nearest, and now they look more alike: the first column loses most of
# what it had, in proportion far more than the second. In the second column every candidate stands before another
# background than the query, right or wrong, so the background favours nobody; it only dilutes the clothes, and that
# costs, too. By how much either falls depends on how different the streets of the cameras are.
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# More stripes say more exactly *where* a colour is, which helps as long as the place can be trusted. A box is off by up
# to a fifth of its height; a stripe of a twenty-fourth then holds another garment than the same stripe of the next
# image. And a histogram of 64 colours over 4 rows of 24 pixels is a noisy one. Where the turn comes depends on how far
# the boxes are off.
#
# ```python
# for count in (1, 2, 3, 6, 12, 24):
#     x = colour_patches(people_images, count).transpose(0, 1).flatten(1)
#     print(count, f"{100 * found_by(x, protocol):.1f} %")
# ```
#
# - *full*: the curve, both reasons, and a test of one of them (such as stripes cut after undoing `box_dy`);
# - *half*: the curve and one reason that its shape supports;
# - *some*: the curve, with "too many are bad" for a reason.
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
# It can't see anything that keeps the set's pixels and moves them: sharpness, noise between neighbours, where in the
# box people stand. The mean difference of neighbouring pixels sees sharpness; a histogram for each row sees the place.
# Two sets below have the same pixels and a total variation of zero.
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
# <details><summary>Solution 5</summary>
#
# The function stands above; `python -m book grade` checks yours. A junk image has no person, but read carelessly it is
# "another person", hence wrong: so junk has to be asked for first. And the query's own person by its own camera is "the
# same person": there the camera decides between right and left out. A distractor (0) needs no case of its own: no query
# asks for person 0.
#
# </details>

# %% [markdown]
# ## Next
#
# Chapter 02, *Evaluation*: from a ranked list to Rank-1 and mAP, and how sure one may be of such a number.

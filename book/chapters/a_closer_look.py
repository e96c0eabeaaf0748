# %% [markdown] tags=["slide"]
# # A closer look at patches
#
# **What you will learn**
#
# - whether the patches of a trained PGN follow a person in the box, against three controls;
# - at which height of the *body* a patch ends up, and what became of its six numbers;
# - what a memory bank looks like, and how the loss turns its distances into probabilities;
# - whose clothes the wrong neighbours wear;
# - what a random crop leaves, and in which space images of one person are nearer.
#
# An appendix to chapters 03 to 05: what they say in a sentence is measured here, on the target's *validation* people,
# by a network that has seen the source alone. The renderer knows where each person stands and what each one wears.

# %% tags=["parameters"]
profile: str = "mini"
data_dir: str = "data"
results_dir: str = "results"
models_dir: str = "build/models"
target: str = "market"
seed: int = 0

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from book.start import start, validation_people
from IPython.display import display
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Polygon
from paul import plots
from paul.data.transforms import normalize, rotation_and_crop, unit_range
from paul.experiments.profiles import PROFILES
from paul.experiments.runner import source_model
from paul.experiments.specs import Places, Spec
from paul.patches import RandomPatches, stripes
from paul.patchnet import concatenate
from paul.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    add_patch,
    draw_on,
    image_grid,
    quadrilateral,
)

start(data_dir, profile)
plt.rcParams.update(plots.STYLE)
torch.manual_seed(seed)
generator = torch.Generator().manual_seed(seed)
chosen, paper = PROFILES[profile], PROFILES["paper"]
options = chosen.adapt_options(target)

# %%
frame, images = validation_people(data_dir, profile, target)
person_ids, camera_ids = (torch.tensor(frame[column].to_numpy())
                          for column in ("person_id", "camera_id"))
truth_known = "box_dy" in frame  # a real set doesn't come with it
model, _ = source_model(Spec("paul", target, seed, profile),
                        Places(data_dir, models=models_dir))
device = next(model.to_target().eval().parameters()).device
with torch.no_grad():
    parts = [normalize(unit_range(part.to(device))) for part in images.split(256)]
    outputs = [model(part) for part in parts]
    trained_theta = torch.cat([model.theta(part).cpu() for part in parts])
features, embeddings = (
    torch.cat([getattr(output, name).cpu() for output in outputs], dim=1)
    for name in ("features", "embeddings"))
M, N, D = features.shape
print(f"{N} images of {frame['person_id'].nunique()} people, M = {M}, D = {D}")

# %% [markdown] tags=["slide"]
# ## Does it follow the person?
#
# A detector's box is never quite right. If patches follow the person inside of the box, a head patch is compared with a
# head patch even when one box was cut too high. `box_dx` and `box_dy` are how far the person's middle lies off the
# box's, as shares of the box; in the sampler's coordinates, from $-1$ to $1$, that is twice as much. A PGN that follows
# fully would have the mean centre of an image's patches on the diagonal. The controls: equal stripes, random patches,
# and the trained patches held at their mean, the very same but not allowed to move.

# %% tags=["slide"]
#| caption: The mean centre of a person's patches against the person's true place,
#|   across and down; dashed is a network that follows exactly.
schemes = {"PGN, trained": trained_theta,
           "PGN, held at its mean": trained_theta.mean(0).expand_as(trained_theta),
           "equal stripes": stripes(M).expand(N, -1, -1, -1),
           "random": RandomPatches(M).eval()(images)}


def correlation(a, b):
    """Pearson's, and its 95 % interval by Fisher's transform; for what moves."""
    if np.std(a) < 1e-6:
        return "doesn't move"
    r = np.corrcoef(a, b)[0, 1]
    half = 1.96 / np.sqrt(len(a) - 3)
    low, high = np.tanh(np.arctanh(r) + np.array([-half, half]))
    return f"{r:+.2f}  [{low:+.2f}, {high:+.2f}]"


if truth_known:
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.7))
    lines = []
    for axis, (way, column, row) in zip(axes, (("across", "box_dx", 0),
                                               ("down", "box_dy", 1))):
        true = 2 * frame[column].to_numpy()
        axis.plot([-0.4, 0.4], [-0.4, 0.4], "--", color="0.6", linewidth=1)
        for name, theta in schemes.items():
            centre = theta[:, :, row, 2].mean(1).numpy()
            if name in ("PGN, trained", "equal stripes"):
                axis.scatter(true, centre, s=7, alpha=0.5, linewidths=0, label=name)
            lines.append({"direction": way, "patches": name,
                          "slope": np.polyfit(true, centre, 1)[0],
                          "correlation": correlation(centre, true)})
        axis.set(xlabel=f"true place of the person, {way}", aspect="equal",
                 ylabel="mean centre of its patches", title=way)
    axes[0].legend(markerscale=2.5)
    plt.show()
    followed = pd.DataFrame(lines).pivot(index="patches", columns="direction")
    display(followed.reindex(schemes).style.format(precision=2))

# %% [markdown]
# Across there is less to learn: patches as wide as the box see the same person wherever they lie.
#
# The same from the person's side: at which height of the *body* is the centre of patch $m$, in body heights from its
# middle? If that varies from image to image, one image's knees are compared with another's shins.

# %% tags=["slide"]
#| caption: Where on the body the centre of each patch lies over all images, as
#|   violins, for each way of cutting.
if truth_known:
    dy, size = (frame[name].to_numpy()[:, None] for name in ("box_dy", "box_scale"))
    on_body = {name: (theta[:, :, 1, 2].numpy() / 2 - dy) / size
               for name, theta in schemes.items()}
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 3.1), sharey=True)
    for axis, (name, heights) in zip(axes, on_body.items()):
        parts = axis.violinplot(heights, showextrema=False, widths=0.95)
        for m, body in enumerate(parts["bodies"]):
            body.set(facecolor=COLOURS[m % len(COLOURS)], alpha=0.8)
        axis.set(title=name, xticks=range(1, M + 1), xlabel="patch $m$")
    axes[0].set_ylabel("place of its centre on the body\n(0: its middle)")
    axes[0].invert_yaxis()
    plt.show()
    spread = pd.Series({name: on_body[name].std(0).mean() for name in on_body},
                       name="wanders, in body heights")
    display(spread.to_frame().style.format(precision=3))

# %% [markdown]
# Compare the first two rows: the same patches, frozen where they are on average. What they differ by is the following
# alone, not where patches lie. Table 4 asks the same of retrieval.
#
# Overlapping frames are hard to read, so here is one person patch by patch, what lies outside of a patch faded, and
# what the PGN did to each of the six numbers over all images:

# %%
#| caption: One person as six patches: cut by equal stripes above, by the trained
#|   PGN below.
one = N // 2
figure, axes = image_grid(2, M, images[0], scale=1.1)
rows, columns = images.shape[2:]
grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, columns),
                                  torch.linspace(-1, 1, rows), indexing="xy"))
for line, name in zip(axes, ("equal stripes", "PGN, trained")):
    for m, axis in enumerate(line):
        theta = schemes[name][one, m]
        place = torch.linalg.solve(theta[:, :2], grid.flatten(1) - theta[:, 2:])
        inside = (place.abs().amax(0) <= 1).view(rows, columns)
        picture = unit_range(images[one])
        picture = torch.where(inside, picture, 0.75 + 0.25 * picture)
        draw_on(axis, picture, title=f"patch {m + 1}")
        add_patch(axis, picture, theta, COLOURS[m % len(COLOURS)])
plt.show()
numbers = ["width a", "tilt b", "centre x", "tilt c", "height d", "centre y"]
six = trained_theta.flatten(2)  # [N, M, 6]
pd.DataFrame({f"patch {m + 1}": [f"{mean:+.2f} ± {deviation:.2f}"
                                 for mean, deviation in zip(six[:, m].mean(0),
                                                            six[:, m].std(0))]
              for m in range(M)}, numbers)

# %% [markdown] tags=["slide"]
# ## The memory bank, drawn
#
# One patch of all images, each entry the feature itself, from $D$ numbers down to the two directions in which they vary
# most. Lines that look long here can be short in full.

# %% tags=["slide"]
#| caption: Entries of one patch in two dimensions: eight people in colours of their
#|   own with an anchor and its nearest on the left, and some of the images on the
#|   right.
patch, per_person = M // 2, frame["person_id"].value_counts()
centred = features[patch] - features[patch].mean(0)
directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
flat = (centred @ directions.T).numpy()
explained = np.square(flat).sum() / centred.square().sum().item()
anchor = int((frame["person_id"] == per_person.index[0]).argmax())
distances = (features[patch] - features[patch, anchor]).norm(dim=1)
distances[anchor] = torch.inf
order = distances.argsort()
figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 4.9), sharex=True,
                                     sharey=True)
left.scatter(*flat.T, s=8, color="0.8", linewidths=0)
for place, person in enumerate(per_person.index[:8]):
    mine = (frame["person_id"] == person).to_numpy()
    left.scatter(*flat[mine].T, s=34, color=COLOURS[place],
                 marker="osD^v<>P"[place], label=person)
for j in order[: options.k].tolist():
    left.plot(*flat[[anchor, j]].T, color="black", linewidth=0.8)
left.plot(*flat[anchor], "*", color="black", markersize=15)
left.legend(title="person", fontsize=10, title_fontsize=10, loc="best", ncols=2,
            handletextpad=0.2, columnspacing=0.8)
left.set_title(f"patch {patch + 1}: eight people; "
               f"an anchor and its {options.k} nearest")
drawn, room = [], np.ptp(flat, axis=0) / [14, 9]  # thumbnails, as many as find room
for j in torch.randperm(N, generator=generator).tolist():
    if len(drawn) == 70:
        break
    if all((np.abs(flat[j] - flat[i]) > room).any() for i in drawn):
        drawn.append(j)
        picture = OffsetImage(images[j].permute(1, 2, 0).numpy(),
                              zoom=28 / images.shape[2])
        right.add_artist(AnnotationBbox(picture, flat[j].tolist(), frameon=False,
                                        pad=0))
right.set_title("who is where")
for axis in (left, right):
    axis.set(xlabel="first direction", xticks=[], yticks=[],
             ylabel="second direction" if axis is left else "")
plt.show()
print(f"the two directions hold {explained:.0%} of the variance")

# %% [markdown]
# What the loss makes of one patch's distances: the softmax $q$ over the bank, at this profile's scale and the paper's.
# It asks for all of the probability to lie left of the dashed line. At which scale is least left to learn?

# %% tags=["slide"]
#| caption: One patch's distances to the bank in order of rank, and the softmax over
#|   them at several scales; the same person is green.
scales = sorted({options.s} | {paper.adapt_options(name).s
                               for name in ("market", "duke")})
first = order[: min(N - 1, 60)]
colours = np.where(person_ids[first] == person_ids[anchor], GREEN, GREY)
places = np.arange(1, len(first) + 1)
figure, axes = plt.subplots(1, 1 + len(scales), figsize=(9.2, 2.8))
axes[0].scatter(places, distances[first], s=14, c=colours)
axes[0].set(title="distance", xlabel="rank in the bank")
for axis, s in zip(axes[1:], scales):
    q = (-s / 2 * distances.square()).softmax(0)[first]
    axis.bar(places, q, color=colours, width=1)
    axis.set(title=f"$q$ at $s$ = {s:g}: {q[: options.k].sum():.0%} on $K$",
             xlabel="rank in the bank")
for axis in axes:
    axis.axvline(options.k + 0.5, color="black", linewidth=0.9, linestyle="--")
plt.show()

# %% [markdown] tags=["slide"]
# ## Whose clothes do wrong neighbours wear?
#
# How often is a neighbour the same person, and if it isn't, does it at least wear the same? The $k$ nearest over all
# images, without those of the same person from the same camera, which would be too easy:

# %% tags=["slide"]
def labels(*columns):
    return torch.tensor(np.unique(frame[list(columns)].agg(" ".join, axis=1),
                                  return_inverse=True)[1])


truths = {"same person": person_ids}
if "top_colour" in frame:  # only the renderer knows
    truths |= {"same top": labels("top", "top_colour"),
               "same bottom": labels("bottom", "bottom_colour")}
easy = (person_ids[:, None] == person_ids) & (camera_ids[:, None] == camera_ids)
spaces = ({f"patch {m + 1}": features[m] for m in range(M)}
          | {"all patches": concatenate(features)})
agreement = {}
for name, x in spaces.items():
    distance = torch.cdist(x, x).masked_fill(easy, torch.inf)
    near = distance.topk(min(options.k, N - 1), largest=False).indices
    alike = {truth: label[near] == label[:, None]
             for truth, label in truths.items()}
    mates = alike.pop("same person")
    agreement[name] = {"same person": mates.float().mean().item()} | {
        f"{truth}, of the wrong": hit[~mates].float().mean().item()
        for truth, hit in alike.items()}
other = person_ids[:, None] != person_ids
agreement["by chance"] = [
    (label[:, None] == label)[~easy if truth == "same person" else other]
    .float().mean().item() for truth, label in truths.items()]
pd.DataFrame({name: list(shares.values()) if isinstance(shares, dict) else shares
              for name, shares in agreement.items()},
             list(agreement["patch 1"])).T.style.format("{:.0%}")

# %% [markdown]
# Read each column against its last line. Pulled towards somebody in the same trousers, a patch learns what they look
# like from another camera. The line *all patches* says that the wrong neighbours of whole images, too, are people in
# similar clothes; the difference is what a pull does to them, as the toy of chapter 04 shows.

# %% [markdown] tags=["slide"]
# ## What a random crop leaves (ledger 17)
#
# The surrogates of chapter 05 keep "70 to 95 %": by the released code of the *area*, with a free aspect. The width is
# drawn between that share and the whole, and the height follows. As an affine matrix on coordinates from $-1$ to $1$,
# the area that is seen is its determinant, whatever the rotation.

# %% tags=["slide"]
#| caption: Six random crops as frames, the share of the image that each sees, and
#|   the width against the height of the crop.
height, width = images.shape[2:]
looks = rotation_and_crop(2000, height, width, generator, degrees=options.degrees,
                          area=options.crop_area)
area = looks[:, 0, 0] * looks[:, 1, 1] - looks[:, 0, 1] * looks[:, 1, 0]
low, high = options.crop_area
assert low - 1e-5 <= area.min() and area.max() <= high + 1e-5
corners = torch.tensor(np.array([quadrilateral(theta, height, width)
                                 for theta in looks.numpy()]))
# the shoelace formula agrees
crossed = (corners * corners.roll(-1, 1).flip(2)).diff(dim=2)
measured = 0.5 * crossed.sum(dim=(1, 2)).abs() / (height * width)
torch.testing.assert_close(measured.float(), area, atol=1e-4, rtol=1e-4)

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.2, 3.0),
                                             width_ratios=[0.7, 1, 1])
draw_on(left, images[0])
for place, corner in enumerate(corners[:6]):
    left.add_patch(Polygon(corner, fill=False, edgecolor=COLOURS[place],
                           linewidth=1.5, clip_on=False))
left.set_title("six of them")
middle.hist(area, bins=30, color=BLUE)
middle.set(title="share of the image that is seen",
           xlabel="determinant of $\\theta$", yticks=[])
sides = [(corners[:, 1] - corners[:, 0]).norm(dim=1) / width,
         (corners[:, 3] - corners[:, 0]).norm(dim=1) / height]
right.scatter(*sides, s=3, color=BLUE, alpha=0.5, linewidths=0)
for share in (low, high):
    across = np.linspace(share, 1, 50)
    right.plot(across, share / across, color="black", linewidth=1)
right.set(title="free aspect", xlabel="width of the crop",
          ylabel="height of the crop")
plt.show()

# %% [markdown] tags=["slide"]
# ## In which space are images compared? (ledger 9)
#
# By the paper in that of the patch features, by its code in that of their cosines to the source's embedding layer. If
# one of them told people apart much better, the choice would matter more than the loss.

# %% tags=["slide"]
#| caption: Distances of two images of one person and of two people, by patch features
#|   and by embeddings.
rows = torch.randperm(N, generator=generator)[:300]
same = person_ids[rows][:, None] == person_ids[rows]
upper = torch.ones_like(same).triu(1)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.9))
for axis, (name, space) in zip(axes, {"patch features": features,
                                      "embeddings": embeddings}.items()):
    space = concatenate(space)[rows]
    distance = torch.cdist(space, space)
    one, two = distance[upper & same], distance[upper & ~same]
    bins = np.linspace(0, two.max(), 40)
    for d, colour, label in ((two, GREY, "two people"), (one, GREEN, "one person")):
        axis.hist(d, bins, density=True, color=colour, alpha=0.7, label=label)
    axis.set(title=name, xlabel="distance of two images", yticks=[])
    print(f"{name}: one person's images are nearer than two people's in "
          f"{(one[:, None] < two[None]).float().mean():.1%}")
axes[0].legend()
plt.show()

# %% [markdown]
# Where the feet of the hills overlap, it is hard to say who is who, and there are many more pairs of two people than of
# one: a batch's nearest image comes from there.

# %% [markdown] tags=["slide"]
# ## Summary
#
# - Patches that follow a person stay at one height of the body; the same patches held still are the control.
# - The bank of a patch is a cloud of all images; the scale decides how few of them count.
# - What wrong neighbours wear means something only against chance.
# - A crop keeps a share of the area, with a free aspect.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* With unit vectors, leave $\|x\|^2$ out of the squared distances in PEDAL's exponents, then
#    $\|w_j\|^2$. Which one changes the loss once entries get shorter, and which entries are then favoured?
# 2. *Break it.* `pool_patches(x, theta, size=(2, 6))` reads fewer points from each patch. For which is the mean more
#    wrong, a stripe or the tilted frame of chapter 03, and why?
# 3. Give the PGN's convolution a quarter of the channels. How many parameters does PatchNet save at ResNet-50?
# 4. *Extend.* Count the garments again after adaptation (`trained_model("paul", ...)`). Which column would you expect
#    to rise, and what would speak for the losses, what for mere adaptation of the batch norms?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# $e^{-\frac s2 \|x\|^2}$ is a factor of every term, above and below the line: it cancels, and orders nothing.
# $e^{-\frac s2 \|w_j\|^2}$ differs from term to term unless all $w_j$ are equally long. Without it long entries are
# favoured, those of images whose features hardly change from visit to visit.
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# For the tilted frame. A stripe of a sixth of 12 rows covers about two rows, and two rows of points read all of them.
# The frame is about as high as four rows and, being tilted, crosses more; two rows of points at its upper and lower
# edge leave its middle unread.
#
# ```python
# # runs alone
# import torch
# from paul.patches import pool_patches, stripes
#
# torch.manual_seed(0)
# x = torch.rand(64, 16, 12, 6)
# tilted = torch.tensor([[0.7, 0.35, 0.0], [-0.12, 0.3, 0.3]])
# apart = {}
# for name, theta in (("stripe", stripes(6)[1]), ("tilted", tilted)):
#     theta = theta.expand(64, 1, 2, 3)
#     few, all_points = pool_patches(x, theta, size=(2, 6)), pool_patches(x, theta)
#     apart[name] = (few - all_points).square().mean().sqrt().item()
# assert apart["tilted"] > apart["stripe"]
# ```
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# With $C = 2048$, $P = 4096$ and $Q = 512$ the convolution has $9CP + P$ parameters, its batch norm $2P$, and the first
# fully connected layer $PQ + Q$. All but $Q$ are proportional to $P$: three quarters of $9CP + 3P + PQ$ are saved,
# 58,205,184, which is three quarters of nearly the whole PGN.
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# The losses pull a patch to its neighbours, so people in one garment come together: "same top" of the wrong should rise
# in the patches that see it, and "same person" with the image loss. The row `patch_adabn` re-estimates the batch norms
# and trains nothing: what rises there as well isn't the losses' doing.
#
# - *full*: both networks and `patch_adabn`, patch by patch, against chance, with an interval over people;
# - *half*: before and after, without the control;
# - *some*: the change for all patches together.
#
# </details>

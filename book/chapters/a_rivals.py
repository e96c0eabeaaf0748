# %% [markdown] tags=["slide"]
# # Four other methods from the inside
#
# **What you will learn**
#
# - how LOMO and bag of words describe a person without learning from anybody;
# - how PUL turns clusters into labels, and which of them it believes;
# - how a method that came three years after PAUL clusters by company and contrasts with a memory;
# - what their runs on our targets say about how they went.
#
# Beside chapter 07, which sets their results against PAUL's. Paper: the methods of Tables 1 and 2 in Section 4.

# %% tags=["parameters"]
profile: str = "mini"
data_dir: str = "data"
results_dir: str = "results"
seeds: str = "0-2"
adapt_seeds: str = "0-1"
workers: int = 1

# %%
import math

import matplotlib.pyplot as plt
import pandas as pd
import torch
from book.start import start
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.data.transforms import gray, unit_range
from paul.experiments.profiles import profile as profile_named
from paul.experiments.runner import run_table
from paul.plots import BLUE, COLOURS, drawn, show_image
from paul.report.frames import target_name
from paul.rivals.bow import BowOptions
from paul.rivals.bow import descriptor as bow
from paul.rivals.bow.descriptor import Codebook
from paul.rivals.cluster_contrast.memory import cluster_nce
from paul.rivals.cluster_contrast.neighbours import dbscan, jaccard_distances
from paul.rivals.lomo import LomoOptions
from paul.rivals.lomo import descriptor as lomo
from paul.rivals.pul.training import reliable_labels

start(data_dir, profile)
target = "market"
here = target_name(target, profile)
folder = f"{data_dir}/{profile_named(profile).folders[target]}"

# %% [markdown] tags=["slide"]
# ## LOMO: the most of everything along a strip
#
# LOMO (`paul/rivals/lomo/`; Liao et al., CVPR 2015) slides a window of 10x10 pixels over the image in steps of 5. In
# each window it counts colours (8 bins of hue, saturation and value each) and textures. All windows of equal height
# form a strip, and of each count it keeps the largest in the strip:
#
# $$
# h_s(c) = \max_{w \in \text{strip } s} \#\{\text{pixels of } w \text{ with code } c\} .
# $$
#
# A person who turns moves a bag from one side to the other. The maximum over the strip doesn't notice; that is the
# idea. Light is dealt with before: **Retinex** divides each pixel by its surround, and the texture code compares a
# pixel with its neighbours by *ratio*, so that multiplying the image by a number changes nothing.

# %%
gallery = ReidDataset.load(folder).split("gallery")
first = {person: row
         for row, person in reversed(list(enumerate(gallery.person_ids)))
         if person > 0}
people = gallery.take(sorted(first.values())[:4])


def most_in_strip(codes, top, code, window=10, step=5):
    """LOMO's count of one code in the strip that begins at row `top`."""
    lefts = range(0, codes.shape[1] - window + 1, step)
    return max(int((codes[top:top + window, left:left + window] == code).sum())
               for left in lefts)


pictures = unit_range(load_images(people, LomoOptions().size))
without_light = lomo.retinex(pictures, LomoOptions().surrounds)
codes = lomo.colour_codes(without_light, 8)
counts = lomo.maximal_occurrence(codes, 8**3, 10, 5)
for strip, code in [(8, int(codes[0, 45, 24])), (15, int(codes[0, 80, 24])),
                    (0, 0)]:
    assert counts[0, strip, code] == most_in_strip(codes[0], 5 * strip, code)
dark = gray(pictures).squeeze(1)
# half the light, the same texture
assert torch.equal(lomo.siltp(dark / 2, 3, 0.3), lomo.siltp(dark, 3, 0.3))
length = lomo.describe(load_images(people, LomoOptions().size)).shape[1]
print(f"{counts.shape[1]} strips at the first of three scales; "
      f"{length:,} numbers describe an image of 128x48")

# %% tags=["slide"]
#| caption: Three images before and after Retinex, and two strips of the first as
#|   counts of colours, most frequent first.
@drawn
def from_picture_to_strips():
    figure, axes = plt.subplots(1, 7, figsize=(9, 2.9),
                                width_ratios=[1, 1, 1, 1, 1, 1, 2.6])
    for person in range(3):
        show_image(axes[2 * person], pictures[person],
                   title="image" if person == 0 else "")
        show_image(axes[2 * person + 1], without_light[person],
                   title="Retinex" if person == 0 else "")
    for top in (40, 80):
        axes[1].add_patch(plt.Rectangle((0, top), 48, 10, fill=False,
                                        edgecolor="white", linewidth=1.5))
    for place, strip in enumerate((8, 16)):
        values, order = counts[0, strip].sort(descending=True)
        axes[-1].bar(torch.arange(12) + 0.4 * place, values[:12], 0.4,
                     color=COLOURS[place],
                     label=f"rows {5 * strip} to {5 * strip + 9}")
    axes[-1].set(xlabel="colours, most frequent first",
                 title="pixels in the fullest window", xticks=[])
    axes[-1].legend(fontsize=10)
    return figure


from_picture_to_strips()

# %% [markdown]
# Retinex evens out the light and pulls dark cloth up into view. The counts are those of the two strips that are marked
# in white: a few colours fill a window, nearly all of the 512 are absent.
#
# ## BoW: words of colour
#
# Bag of words (`paul/rivals/bow/`; Zheng et al., ICCV 2015) borrows from text retrieval. A patch of 4x4 pixels is
# described by how much of it is *black, blue, brown, ...*, eleven **colour names**. K-means over the patches of the
# unlabelled training images makes a codebook of 350 words; each patch counts for its ten nearest words, weighted by a
# Gaussian that trusts the middle of the image; each of 16 strips has a histogram of its own. Words that stand in every
# image weigh little,
#
# $$
# \mathrm{idf}(w) = \log \frac{N}{\#\{\text{images with } w\}},
# $$
#
# and the mean histogram is subtracted, so that lacking the same word is a likeness as well.
#
# > **A stand-in.** The original looks up colour names in a table learned from web images, which isn't at hand. Here
# > they come from eleven points in CIELAB, where the people of a public survey put each name, and a Gaussian around
# > each. The numbers of this row are those of BoW *with this table*.

# %% tags=["slide"]
#| caption: Images, each drawn by the likeliest colour name of every patch and cut
#|   into 16 strips, and the weight of each patch.
options = BowOptions()
small = load_images(people, options.size)
names = bow.patch_names(small, options)
focal = torch.tensor(list(bow.COLOUR_NAMES.values())) / 255

# one patch by hand: the mean over its 16 pixels of p(name | colour)
patch = small[0, :, 60:64, 28:32].reshape(3, -1).T
level = (patch.long() * 32 // 256).tolist()
table_of_names = bow.name_table(options.name_width)
by_hand = [table_of_names[(r * 32 + g) * 32 + b] for r, g, b in level]
by_hand = sum(by_hand) / len(level)
torch.testing.assert_close(names[0, 15, 7], by_hand)

book = Codebook(torch.eye(11), options)  # eleven words, each of them one pure name
word, weight = book.votes(small)


@drawn
def words_of_colour():
    figure, axes = plt.subplots(1, 9, figsize=(9, 2.6))
    for person in range(4):
        show_image(axes[2 * person], small[person])
        likeliest = focal[names[person].argmax(-1)].permute(2, 0, 1)
        show_image(axes[2 * person + 1],
                   likeliest.repeat_interleave(4, 1).repeat_interleave(4, 2))
        for row in range(8, 128, 8):
            axes[2 * person + 1].axhline(row, color="white", linewidth=0.4)
    axes[-1].imshow(weight[0, ..., 0], cmap="Greys_r", extent=(0, 64, 128, 0))
    axes[-1].set(xticks=[], yticks=[], title="weight")
    return figure


words_of_colour()

# %% [markdown] tags=["slide"]
# What is left of an image is what a witness might say, and as unsure: cloth in the shade is often called black or
# brown, whatever it is in the sun. On the right, how much a patch counts: the middle most, the corners least.
#
# ## PUL: believe what lies near the centre
#
# PUL (`paul/rivals/pul/`; Fan et al., TOMM 2018) starts where PAUL's image-level baseline starts, with a network
# trained on the source. Each round clusters the unit features $x_i$ of the target's images by k-means, takes as centre
# $c_k$ the image nearest to the cluster's mean, and trusts an image when it is near its own centre:
#
# $$
# v_i = \big[\, x_i^\top c_{k(i)} > \lambda \,\big], \qquad \lambda = 0.85 .
# $$
#
# Trusted images are trained on as if their cluster were a person, by cross-entropy, *from the source network again*;
# the next round describes the images with the result. Easy images come first, and should bring the harder ones along.

# %% tags=["slide"]
generator = torch.Generator().manual_seed(0)
x = torch.tensor([[1.0, 0.0]]) + 0.5 * torch.randn(40, 2, generator=generator)
x = torch.nn.functional.normalize(x, dim=1)
mean = x.mean(0, keepdim=True)
centre = x[((x - mean) ** 2).sum(1).argmin()]
trusted = [float(x_i @ centre) > 0.85 for x_i in x]
labels = reliable_labels(x, mean, torch.zeros(40, dtype=torch.long), 0.85)
assert (labels >= 0).tolist() == trusted
print(f"{sum(trusted)} of 40 points lie within {math.degrees(math.acos(0.85)):.0f} "
      "degrees of their cluster's centre")

# %% [markdown] tags=["slide"]
# ## What came since: Cluster-Contrast
#
# The paper could not compare itself with what was not there yet. One later method stands in the tables beside its rows:
# Cluster-Contrast (`paul/rivals/cluster_contrast/`; Dai et al., ACCV 2022), plain as these methods go and strong on the
# real sets. It starts from the same network as PUL, and clusters the target's images anew
# in each epoch, but
#
# - nobody says how many people there are. **DBSCAN** joins images that have enough others within a distance `eps`, and
#   leaves the rest out as outliers;
# - the distance asks about company. Images are near when they have the same *mutual* neighbours (Zhong et al.,
#   CVPR 2017): with $V_i(c)$ the weight of image $c$ among those of $i$,
#   $d(i, j) = 1 - \sum_c \min(V_i, V_j) \,/ \sum_c \max(V_i, V_j)$, a Jaccard distance;
# - there is no classifier to train. The memory holds one unit vector $\phi_k$ per cluster, at first its mean feature,
#   and an image $q$ of cluster $c$ is drawn to its own and away from all others,
#
# $$
# L = -\log \frac{\exp(q^\top \phi_c / \tau)}{\sum_k \exp(q^\top \phi_k / \tau)}, \qquad
# \phi_c \leftarrow \gamma\, \phi_c + (1 - \gamma)\, q, \qquad \tau = 0.05,\; \gamma = 0.1 .
# $$
#
# That is PEDAL's bank of chapter 04 with clusters in it: the neighbours are found once an epoch, and by company.

# %% tags=["slide"]
generator = torch.Generator().manual_seed(0)
people_of = torch.arange(40) % 4  # four people, ten images each, and two strangers
x = torch.eye(6)[people_of] + 0.15 * torch.randn(40, 6, generator=generator)
x = torch.cat([x, -torch.eye(6)[4:]])
x = torch.nn.functional.normalize(x, dim=1)
found = dbscan(jaccard_distances(x, k1=10, k2=3, within=0.5), 0.5, min_samples=4)
assert found.tolist() == people_of.tolist() + [-1, -1]

centroids = torch.stack([x[found == k].mean(0) for k in range(4)])
centroids = torch.nn.functional.normalize(centroids, dim=1)
for temperature in (0.5, 0.05):
    scores = (x[:40] @ centroids.T / temperature).exp()
    by_hand = -(scores[range(40), people_of] / scores.sum(1)).log().mean()
    loss = cluster_nce(x[:40], centroids, people_of, temperature=temperature)
    torch.testing.assert_close(loss, by_hand)
    print(f"{found.max() + 1} clusters, {(found < 0).sum()} outliers; "
          f"the loss at temperature {temperature}: {by_hand:.4f}")

# %% [markdown]
# At the low temperature nearly nothing is left of the loss: people so well apart have nothing to teach. It is the
# images between two clusters that it learns from.

# %% [markdown]
# ## How their trainings went
#
# The records of PUL's runs hold, for each round, the share of the images that were reliable; those of Cluster-Contrast
# how many clusters it found in each epoch, and the share of the images in one.

# %%
records = run_table("table1", profile=profile, seeds=seeds,
                    adapt_seeds=adapt_seeds, targets=[target],
                    data_dir=data_dir, results_dir=results_dir, workers=workers,
                    rows=["pul", "cluster_contrast"])
kept = pd.DataFrame({(record["seed"], record["adapt_seed"]):
                     [line["kept"] for line in record["curve"]]
                     for record in records if record["row"] == "pul"})
kept.index += 1
change = kept.iloc[-1] - kept.iloc[0]
grows = ("more in each run" if (change > 0).all()
         else "fewer in each run" if (change < 0).all() else "runs differ")
print(f"PUL, from the first round to the last: {100 * kept.iloc[0].mean():.0f} % "
      f"to {100 * kept.iloc[-1].mean():.0f} % reliable ({grows})")

# %% tags=["slide"]
#| caption: The share of images that PUL holds for reliable, round by round: each
#|   run thin, the mean thick.
@drawn
def kept_by_round():
    figure, axis = plt.subplots(figsize=(5, 2.6))
    axis.plot(kept.index, 100 * kept, "o-", color=BLUE, alpha=0.5, linewidth=1)
    axis.plot(kept.index, 100 * kept.mean(axis=1), color="black")
    axis.set(xticks=kept.index, ylim=(0, 100), xlabel="round",
             ylabel="reliable images, %", title=f"PUL on {here}")
    return figure


kept_by_round()

# %% [markdown]
# The paper of PUL expects this share to grow, because features get better. A share that falls needn't mean that they
# got worse: a training that spreads images out on the sphere makes the same cosine harder to pass. PUL's $\lambda$ is a
# threshold on a scale that its own training moves.

# %%
epochs = pd.concat([pd.DataFrame(record["curve"]) for record in records
                    if record["row"] == "cluster_contrast"])
epochs = epochs.groupby("epoch")[["clusters", "kept"]].mean()
epochs["kept"] *= 100
epochs.round().astype(int).rename(columns={"kept": "images in a cluster, %"}).T

# %% [markdown] tags=["slide"]
# How many people the training images really show stands in the set's `card.json`; the method never learns that number.
#
# ## Summary
#
# - LOMO keeps the most of each colour and texture along a strip; BoW counts colour words. Neither learns from anybody.
# - PUL trains on clusters and trusts what lies near their centres, on a scale that its own training moves.
# - Cluster-Contrast clusters by shared neighbours and contrasts images with a memory of clusters.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Halve the light: all pixels times one half. Which of LOMO's two codes changes, that of textures or that
#    of colours without Retinex?
# 2. *Break it.* Forget the temperature of Cluster-Contrast ($\tau = 1$). With 200 clusters, how small can the loss get,
#    for the best features there are?
# 3. *Extend.* Leave the Retinex out: `lomo.describe(images, LomoOptions(surrounds=()))` on query and gallery, scored
#    with `paul.metrics.evaluate`. What does that say about how this profile's cameras differ?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The colours. The texture code compares a pixel with its neighbours by ratio, from which the factor cancels (asserted
# above). Hue and saturation don't change either, but the value halves, and with it the bin. Retinex takes the logarithm
# of pixel over surround: there the factor cancels again.
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# No smaller than $\log(1 + 199 e^{-2}) \approx 3.3$: cosines lie between -1 and 1, so the own cluster leads every other
# one by 2 at most. Everything is trained with a loss that can hardly fall, and it looks like a learning rate that is
# too small. The factor is not a detail of tuning: it decides whether the softmax can be sure of anything.
#
# ```python
# # runs alone
# import math
#
# import torch
#
# scores = torch.full((1, 200), -1.0)
# scores[0, 0] = 1.0
# for tau, floor in ((1.0, 3.3), (0.05, 0.0)):
#     loss = torch.nn.functional.cross_entropy(scores / tau, torch.tensor([0]))
#     assert abs(loss - math.log(1 + 199 * math.exp(-2 / tau))) < 1e-5
#     assert abs(loss - floor) < 0.05
# ```
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# Score both ways on the same images. If Rank-1 falls without it, the cameras differ in brightness that varies over the
# image, which Retinex divides out. If it rises, Retinex took more from the clothes' colours than from the light; and
# what a camera does with *tint* or blur it may not undo at all. The rendering decides which of these weighs more.
#
# ```python
# from paul.metrics import evaluate
#
# found = {}
# sides = [ReidDataset.load(folder).split(name) for name in ("query", "gallery")]
# for name, surrounds in (("with", LomoOptions().surrounds), ("without", ())):
#     kind = LomoOptions(surrounds=surrounds)
#     x, y = (lomo.describe(load_images(side, kind.size), kind) for side in sides)
#     q, g = sides
#     found[name] = evaluate(x, q.person_ids, q.camera_ids,
#                            y, g.person_ids, g.camera_ids).percent()
# pd.DataFrame(found).T[["rank1", "map_trapezoid"]]
# ```
#
# - *full*: both scores on both targets, read against what the cameras of each set do (chapter 01's gap);
# - *half*: both scores on one target, with a reason that they support;
# - *some*: one score.
#
# </details>

# %% [markdown]
# ## Next
#
# *Table 3 in detail*: what lies behind the ablation of chapter 08.

# %% [markdown] tags=["slide"]
# # Evaluation
#
# **What you will learn**
#
# - Rank-1, CMC, average precision and mINP, each by hand on a list of ten;
# - why there are *two* average precisions, by how much they differ, and which one the paper printed;
# - what junk, distractors, the query's own camera and ties do to a score;
# - what Rank-1 hides, and how sure one may be of a number.
#
# Paper: the evaluation of Sec. 4; ledger 28, 29 and 30 for what the released code does.

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
from IPython.display import Markdown, display
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.experiments.profiles import PROFILES
from paul.experiments.records import read_records
from paul.metrics import evaluate, evaluate_distances
from paul.plots import BLUE, GREEN, GREY, ORANGE, drawn, per_query_ap, ranked_list
from paul.report.frames import target_name
from paul.report.statistics import mean_interval

start(data_dir, profile)

# %% [markdown] tags=["slide"]
# ## One ranked list
#
# > **The paper (Sec. 4).** Results are given as Rank-1, Rank-5, Rank-10 (the cumulative matching characteristic, CMC)
# > and mean average precision (mAP), for single queries.
#
# A query puts the gallery in order. All that a score can see of it is *where the right images are*. Write an order as
# zeros and ones, nearest first. Its right images stand at the ranks $r_1 < r_2 < \dots < r_n$.

# %%
LISTS = {
    "A": [1, 0, 0, 1, 0, 1, 0, 0, 0, 0],
    "B": [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    "C": [1, 0, 0, 0, 0, 0, 0, 0, 1, 1],
    "D": [0, 1, 1, 1, 0, 0, 0, 0, 0, 0],
}


def ranks_of(order):
    """Ranks, from 1, of the right images in a list of zeros and ones."""
    return [rank for rank, right in enumerate(order, start=1) if right]


def ask_library(order):
    """The same list as `paul.metrics` wants it: one query of person 1, right images
    are person 1, wrong ones 2."""
    ids = torch.where(torch.tensor(order) == 1, 1, 2)
    distances = torch.arange(1.0, len(order) + 1)[None]
    return evaluate_distances(distances, [1], ids, [1], torch.full_like(ids, 2))


{name: ranks_of(order) for name, order in LISTS.items()}

# %% [markdown] tags=["slide"]
# ## Rank-k and the CMC
#
# Rank-$k$ asks for one thing only: is there a right image among the first $k$? Over $Q$ queries,
#
# $$
# \mathrm{CMC}(k) = \frac1Q \sum_{q=1}^{Q} \big[\, r_1^{(q)} \le k \,\big] .
# $$


# %%
def cmc(orders, k):
    """The share of lists with a right image among the first k."""
    return sum(ranks_of(order)[0] <= k for order in orders) / len(orders)


for order in LISTS.values():
    for k in range(1, 11):
        torch.testing.assert_close(cmc([order], k), ask_library(order).rank(k))
print({f"Rank-{k}": cmc(LISTS.values(), k) for k in (1, 2, 5)})

# %% [markdown] tags=["slide"]
# Lists A, B and C all have Rank-1 = 1, although nobody would call them equally good. D finds the same three images as
# B, one place later each, and gets 0.
#
# ## Average precision, twice
#
# *Precision* at a rank is the share of right images so far; *recall* the share of all right ones found so far. Walk
# down the list and note both: that is a curve. Average precision is the area under it, and the two conventions differ
# in how they join its points (ledger 28).
#
# **Step.** Each right image adds a rectangle as high as the precision *at* it:
#
# $$
# \mathrm{AP}_\text{step} = \frac1n \sum_{i=1}^{n} \frac{i}{r_i} .
# $$
#
# **Trapezoid.** The sides of each piece are the precision just *before* the right image and *at* it:
#
# $$
# \mathrm{AP}_\text{trapezoid} = \frac1n \sum_{i=1}^{n} \frac12 \left[ \frac{i-1}{r_i - 1} + \frac{i}{r_i} \right],
# \qquad \text{the first term being 1 where } r_1 = 1 .
# $$
#
# Here is the walk itself, with no closed form in it:


# %%
def walk(order):
    """(recall, precision) before the first image and after each one."""
    points, found = [(0.0, 1.0)], 0
    for rank, right in enumerate(order, start=1):
        found += right
        points.append((found / sum(order), found / rank))
    return points


def area(order, trapezoid):
    """Area under the walk's points, joined by straight lines or by steps."""
    total = 0.0
    points = walk(order)
    for (recall, before), (next_recall, after) in zip(points, points[1:]):
        height = (before + after) / 2 if trapezoid else after
        total += (next_recall - recall) * height
    return total


# %% [markdown]
# And the closed forms. Walk, closed form and library must agree on every list of ten with three right images:

# %%
def step_ap(ranks):
    """AP of a list by rectangles; ranks: where its right images stand, in order."""
    return sum(i / r for i, r in enumerate(ranks, start=1)) / len(ranks)


# %% tags=["implement", "slide"]
def trapezoid_ap(ranks):
    """AP of a list by trapezoids; ranks: where its right images stand, in order."""
    before = [1.0 if r == 1 else (i - 1) / (r - 1)
              for i, r in enumerate(ranks, start=1)]
    at = [i / r for i, r in enumerate(ranks, start=1)]
    return sum((b + a) / 2 for b, a in zip(before, at)) / len(ranks)


# %%
for ranks in combinations(range(1, 11), 3):
    order = [int(rank in ranks) for rank in range(1, 11)]
    library = ask_library(order)
    torch.testing.assert_close([area(order, False), area(order, True)],
                               [step_ap(ranks), trapezoid_ap(ranks)])
    torch.testing.assert_close([library.map_step, library.map_trapezoid],
                               [step_ap(ranks), trapezoid_ap(ranks)])
print("walk, closed form and library agree on all 120 lists")


# %% tags=["slide"]
#| caption: Average precision of one list as the area under steps and under
#|   trapezoids, over recall; right images are green.
@drawn
def two_areas(name):
    order = LISTS[name]
    recall, precision = np.array(walk(order)).T
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), sharey=True)
    for axis, trapezoid, colour in zip(axes, (False, True), (BLUE, ORANGE)):
        if trapezoid:
            axis.fill_between(recall, precision, color=colour, alpha=0.25)
        else:
            axis.fill_between(recall, np.append(precision[1:], precision[-1]),
                              step="post", color=colour, alpha=0.25)
        axis.plot(recall, precision, "o-", color=GREY, markersize=4, linewidth=1)
        hits = ranks_of(order)
        axis.plot(recall[hits], precision[hits], "o", color=GREEN, markersize=8)
        for i, rank in enumerate(hits, start=1):
            axis.annotate(f"{i}/{rank}", (recall[rank], precision[rank]),
                          xytext=(-6, 7), textcoords="offset points", ha="right")
        axis.set(xlabel="recall", ylim=(0, 1.15), xlim=(0, 1.05))
        axis.set_title(f"list {name}, {'trapezoid' if trapezoid else 'step'}: "
                       f"{area(order, trapezoid):.3f}")
    axes[0].set_ylabel("precision")
    return figure


two_areas("A")

# %% [markdown]
# **You should see** the same points in both panels; the grey line drops at each wrong image and rises again at a right
# one (green). The trapezoid cuts off the corners that the steps keep, so it can't be larger. With a single right image
# at rank $r > 1$ it is exactly half: $\frac{1}{2r}$ against $\frac1r$.
#
# The released code of the paper takes the trapezoid, as Market-1501's own evaluation does; most frameworks take the
# step. A published mAP that doesn't say which leaves the difference open. This book prints both and compares with the
# paper on the trapezoid.
#
# ## mINP: the last one counts
#
# Average precision is lenient to a right image that comes very late. The inverse negative penalty asks how far down one
# has to go to find *all* of them,
#
# $$
# \mathrm{INP} = \frac{n}{r_n},
# $$
#
# and mINP is its mean over queries. It isn't in the paper; it is reported because it fails where AP looks fine.


# %% tags=["slide"]
#| caption: The four lists as rows of right (filled) and wrong images, each with its
#|   Rank-1, both average precisions and INP.
def inp(ranks):
    return len(ranks) / ranks[-1]


for order in LISTS.values():
    torch.testing.assert_close(inp(ranks_of(order)), ask_library(order).minp)


@drawn
def four_lists():
    figure, axis = plt.subplots(figsize=(9, 2.6))
    headings = ["Rank-1", "AP, step", "AP, trapezoid", "INP"]
    for line, (name, order) in enumerate(LISTS.items()):
        for rank, right in enumerate(order):
            axis.add_patch(plt.Rectangle((rank, line + 0.1), 0.85, 0.8,
                                         color=GREEN if right else "#DDDDDD"))
            if right:
                axis.text(rank + 0.42, line + 0.5, "\N{CHECK MARK}", color="white",
                          ha="center", va="center")
        ranks = ranks_of(order)
        values = [cmc([order], 1), step_ap(ranks), trapezoid_ap(ranks), inp(ranks)]
        axis.text(-0.3, line + 0.5, name, ha="right", va="center", weight="bold")
        for column, value in enumerate(values):
            axis.text(11.2 + 2.2 * column, line + 0.5, f"{value:.2f}", ha="center",
                      va="center")
    for column, heading in enumerate(headings):
        axis.text(11.2 + 2.2 * column, -0.25, heading, ha="center", va="center",
                  fontsize=10)
    for rank in range(10):
        axis.text(rank + 0.42, -0.25, str(rank + 1), ha="center", va="center",
                  fontsize=10, color=GREY)
    axis.set(xlim=(-0.8, 19), ylim=(4.1, -0.6))
    axis.axis("off")
    return figure


four_lists()

# %% [markdown]
# **You should see** four opinions about four lists. Rank-1 ranks A, B and C alike; both APs put B first; D beats C in
# step AP, though its Rank-1 is 0; in INP, B leads before D before A, and C pays for its last image.
#
# ## Left out: junk and the query's own camera
#
# Chapter 01 has the rule. What matters here is its order: images are left out *before* ranks are counted, so they
# neither help nor take up a place (ledger 30).

# %%
# nearest first; -1 junk, 0 a distractor
people = torch.tensor([7, -1, 7, 0, 7, 3, 7])
cameras = torch.tensor([1, 2, 4, 2, 1, 3, 2])
query_person, query_camera = 7, 1

kept = [(p, c) for p, c in zip(people.tolist(), cameras.tolist())
        if p != -1 and not (p == query_person and c == query_camera)]
order = [int(p == query_person) for p, c in kept]
library = evaluate_distances(torch.arange(7.0)[None], [query_person], people,
                             [query_camera], cameras)
torch.testing.assert_close(step_ap(ranks_of(order)), library.map_step)
print("what is left of seven:", order, "ranks of the right ones:", ranks_of(order))

# %% [markdown]
# The distractor stays and costs a rank. Without the rule the nearest image, by the query's own camera, would have been
# a hit for free.
#
# ## Ties
#
# What if two images are at exactly the same distance? The extreme case is a network that maps *every* image to the same
# point. It knows nothing, and its score depends on nothing but how ties are broken.


# %%
def first_rank(distances, right, wrong_first):
    """Rank of the first right image; among equal distances the wrong ones come
    first, or the right ones."""
    nearest = min(d for d, hit in zip(distances, right) if hit)
    ahead = [d < nearest or (wrong_first and d == nearest)
             for d, hit in zip(distances, right) if not hit]
    return 1 + sum(ahead)


distances, right = [0.5, 0.5, 0.5, 0.9], [0, 1, 0, 1]
library = evaluate_distances(torch.tensor([distances]), [1], torch.tensor(right),
                             [1], torch.full((4,), 2))
assert (library.per_query["first_rank"].item()
        == first_rank(distances, right, wrong_first=True) == 3)
assert first_rank(distances, right, wrong_first=False) == 1

# %% [markdown]
# `paul.metrics` puts the wrong one first. That is harsh on purpose: a sort that happens to keep right images in front
# would report 100 % for a network that has collapsed, and one that keeps the order of the gallery would report whatever
# that order is.
#
# ## The embedded test people
#
# Now for real lists. The descriptor is chapter 01's: colours of six stripes, no learning. It sets the floor that a
# network has to rise above.

# %%
LEVELS = 4


def colour_stripes(images, count=6):
    """Root colour histograms of `count` stripes side by side:
    [n, 3, H, W] -> [n, count * 64]."""
    width = images.shape[-1]
    middle = images[..., width // 4: width - width // 4].long()
    red, green, blue = (middle * LEVELS // 256).unbind(1)
    bins = ((red * LEVELS + green) * LEVELS + blue).flatten(1)
    shares = []
    for stripe in bins.chunk(count, 1):
        counts = torch.zeros(len(images), LEVELS**3, dtype=torch.float64)
        ones = torch.ones(stripe.shape, dtype=torch.float64)
        shares.append(counts.scatter_add_(1, stripe, ones) / stripe.shape[1])
    return torch.cat(shares, 1).sqrt()


dataset = ReidDataset.load(Path(data_dir) / PROFILES[profile].folders[target])
name_here = f"{target_name(target, profile)}, profile {profile}"
query, gallery = dataset.split("query"), dataset.split("gallery")
query_images, gallery_images = (load_images(split, (96, 48))
                                for split in (query, gallery))
query_ids, gallery_ids = (torch.tensor(split.person_ids)
                          for split in (query, gallery))
query_cams, gallery_cams = (torch.tensor(split.camera_ids)
                            for split in (query, gallery))


def score(describe):
    return evaluate(describe(query_images), query_ids, query_cams,
                    describe(gallery_images), gallery_ids, gallery_cams)


# %% tags=["slide"]
torch.manual_seed(0)
descriptors = {
    "nothing: one point for all": lambda images: torch.zeros(len(images), 1),
    "nothing: random": lambda images: torch.randn(len(images), 32),
    "colours of the whole image": lambda images: colour_stripes(images, 1),
    "colours of 6 stripes": colour_stripes,
}
scores = {name: score(describe) for name, describe in descriptors.items()}
shown = ["rank1", "rank5", "rank10", "map_step", "map_trapezoid", "minp"]
table = pd.DataFrame({name: metrics.percent()
                      for name, metrics in scores.items()}).T[shown]
table.style.format("{:.1f} %").set_caption(name_here)

# %% [markdown]
# **You should see** a Rank-1 of zero for the first line, a few percent at most for random features (more at `smoke`,
# whose gallery is small), and at `mini` the stripes above the whole image. The step mAP never lies below the trapezoid.
#
# ### Ranked lists
#
# Four queries from good to hopeless, by average precision. Grey and dotted: left out.

# %% tags=["slide"]
#| caption: Four queries, from a high average precision down to a low one, each
#|   before its nearest gallery images. Green and ticked is right, red and crossed
#|   wrong, grey and dotted left out.
stripes = scores["colours of 6 stripes"]
by_ap = stripes.per_query.sort_values("ap_step", ascending=False)
by_ap = by_ap["query"].to_numpy()
picked = [len(by_ap) // 50, len(by_ap) // 4, len(by_ap) // 2, -1]
picked = torch.tensor(by_ap[picked].copy())
order = torch.cdist(colour_stripes(query_images[picked]),
                    colour_stripes(gallery_images)).argsort(1)[:, :11]
same = gallery_ids[order] == query_ids[picked, None]
skipped = ((same & (gallery_cams[order] == query_cams[picked, None]))
           | (gallery_ids[order] == -1))
aps = stripes.per_query.set_index("query").loc[picked.tolist(), "ap_step"]
ranked_list(query_images[picked], gallery_images[order], same & ~skipped, skipped,
            [f"AP {ap:.2f}" for ap in aps])

# %% [markdown]
# **You should see** right images framed green and ticked, wrong ones red and crossed. Where colours fail, look at what
# the wrong images share with the query: the ground, the light, the same camera more often than not.
#
# ### What the rules are worth
#
# The same descriptor and the same images, under rules that somebody might have chosen by mistake:

# %% tags=["slide"]
def score_under(query_cameras=query_cams, ids=gallery_ids, rows=slice(None)):
    return evaluate(colour_stripes(query_images), query_ids, query_cameras,
                    colour_stripes(gallery_images)[rows], ids[rows],
                    gallery_cams[rows]).percent()


rules = {
    "the protocol": score_under(),
    "own camera counts as right": score_under(
        query_cameras=torch.full_like(query_cams, -1)),
    "junk counts as wrong": score_under(
        ids=torch.where(gallery_ids == -1, 0, gallery_ids)),
    "distractors dropped": score_under(rows=gallery_ids != 0),
}
under = pd.DataFrame(rules).T[["rank1", "map_step", "map_trapezoid"]]
under.style.format("{:.1f} %").set_caption(name_here)

# %% [markdown]
# **You should see** the second line far above all others. Finding a person again in the pictures that the same camera
# took a second later is easy, and this rule alone would make plain colours look like a solved problem. Junk and
# distractors move the scores by little.
#
# ### Query by query

# %%
#| caption: Average precision of every query by two descriptors: sorted, with the
#|   mean dashed, and counted.
per_query_ap({name: scores[name].per_query["ap_step"] for name in list(scores)[2:]})

# %% [markdown]
# **You should see** that a mean is not a typical value: a few queries are answered well, most hardly at all, and mAP
# (dashed) lies where few queries do.
#
# ## What Rank-1 hides
#
# **The rest of the list.** Of the queries whose *first* image is right, here are the two with the highest and the
# lowest average precision among those with at least three right images. A mark is a right image, the axis its rank.

# %%
#| caption: Two queries whose first image is right: a mark at each rank where
#|   another right image stands.
def right_ranks(query_row):
    """Ranks of all right images of one query, left-out images not counted."""
    distances = torch.cdist(colour_stripes(query_images[[query_row]]),
                            colour_stripes(gallery_images))[0]
    own = gallery_ids == query_ids[query_row]
    kept = (gallery_ids != -1) & ~(own & (gallery_cams == query_cams[query_row]))
    return ranks_of(own[kept][distances[kept].argsort()].tolist())


hits = stripes.per_query.query("first_rank == 1 and positives >= 3").sort_values(
    "ap_step")
extremes = (hits.iloc[[-1, 0]] if len(hits) > 1
            else stripes.per_query.sort_values("ap_step").iloc[[-1, 0]])


@drawn
def barcodes():
    figure, axes = plt.subplots(2, 1, figsize=(9, 2.2), sharex=True)
    for axis, (_, line) in zip(axes, extremes.iterrows()):
        axis.vlines(right_ranks(int(line["query"])), 0, 1, color=GREEN,
                    linewidth=2.5)
        axis.set(yticks=[], xlim=(0, len(gallery)))
        axis.set_title(f"first rank {line['first_rank']:.0f}, "
                       f"AP {line['ap_step']:.2f}")
        axis.spines["left"].set_visible(False)
    axes[1].set_xlabel("rank in the gallery")
    return figure


barcodes()

# %%
right_first = stripes.per_query["first_rank"] == 1
weak = (stripes.per_query["ap_step"] < 0.5)[right_first].mean()
display(Markdown(f"Of the {right_first.sum()} queries with a right first image, "
                 f"{weak:.0%} have a step AP below 0.5."))

# %% [markdown]
# **The size of the gallery.** The first place is won against everybody in the gallery. Keep only a share of the wrong
# people and the same descriptor gets better without having learned anything.

# %% tags=["slide"]
#| caption: Rank-1 and mAP when only a share of the people takes part, the mean of
#|   five draws each.
def thinned(share, seed):
    """Scores when only a share of the people, drawn at random, takes part in
    queries and gallery."""
    everybody = gallery_ids.unique()
    everybody = everybody[everybody > 0]
    generator = torch.Generator().manual_seed(seed)
    count = max(2, round(share * len(everybody)))
    present = everybody[torch.randperm(len(everybody), generator=generator)[:count]]
    q, g = torch.isin(query_ids, present), torch.isin(gallery_ids, present)
    x, y = colour_stripes(query_images[q]), colour_stripes(gallery_images[g])
    metrics = evaluate(x, query_ids[q], query_cams[q],
                       y, gallery_ids[g], gallery_cams[g])
    return len(present), metrics.percent()


@drawn
def by_size():
    figure, axis = plt.subplots(figsize=(7, 3.2))
    for metric, colour, label in (("rank1", BLUE, "Rank-1"),
                                  ("map_step", ORANGE, "mAP, step")):
        points = []
        for share in (0.1, 0.2, 0.35, 0.6, 1.0):
            draws = [thinned(share, seed) for seed in range(5)]
            points.append([(people, scores[metric]) for people, scores in draws])
        points = np.array(points)  # [shares, draws, (people, value)]
        axis.plot(points[:, 0, 0], points[..., 1].mean(1), "o-", color=colour,
                  label=label)
        axis.fill_between(points[:, 0, 0], points[..., 1].min(1),
                          points[..., 1].max(1), color=colour, alpha=0.15)
    axis.set(xlabel="people in query and gallery", ylabel="%", ylim=(0, None),
             title=f"five draws each; {name_here}")
    axis.legend()
    return figure


by_size()

# %% [markdown] tags=["slide"]
# **You should see** both fall as people come in, and not level off. So a Rank-1 says little without the set it was
# measured on; values of different sets aren't comparable, not even between the real Market-1501 and another real set.
# This book compares rows on one set.
#
# ## How sure is a number?
#
# Two kinds of chance are in a score, and they answer different questions.
#
# **Which people happened to be in the test?** Resample them. The *bootstrap* draws as many test queries as there are,
# with replacement, scores each draw, and takes the middle 95 % of the scores. But the queries of one person hang
# together: whoever wears a common coat is hard in every camera. So draw *people*, each with all their queries.


# %%
def bootstrap(values, groups, draws=2000, seed=0):
    """Means of resampled groups: values [n], groups [n] (who belongs together) ->
    [draws]."""
    _, group = np.unique(groups, return_inverse=True)
    total, size = np.bincount(group, weights=values), np.bincount(group)
    rng = np.random.default_rng(seed)
    drawn_groups = rng.integers(len(total), size=(draws, len(total)))
    return total[drawn_groups].sum(1) / size[drawn_groups].sum(1)


hit = (stripes.per_query["first_rank"] == 1).to_numpy(float)
each_query = np.arange(len(hit))
person = query_ids[stripes.per_query["query"].to_numpy(copy=True)].numpy()
p, n = hit.mean(), len(hit)
torch.testing.assert_close(bootstrap(hit, each_query).std(),
                           (p * (1 - p) / n) ** 0.5, rtol=0.1, atol=0)
print("over single queries, the bootstrap of Rank-1 agrees with the "
      "binomial's standard error")

# %% [markdown]
# **How much did *this* training differ from another?** Nothing in a test set can tell; only training again with another
# seed can. That interval is a Student-t interval over source seeds (chapter 07 derives it), and it is what every table
# of this book prints. Below, both kinds for mAP: the bootstrap for the colours of this chapter and, where runs of PAUL
# are recorded, its seeds.

# %%
def middle(values):
    return np.quantile(values, [0.025, 0.975])


six = 100 * stripes.per_query["ap_step"].to_numpy()
whole = 100 * scores["colours of the whole image"].per_query["ap_step"].to_numpy()
# as if of two different sets of people
apart = bootstrap(six, person, seed=1) - bootstrap(whole, person, seed=2)
rows = {
    "6 stripes, over queries": (six.mean(), middle(bootstrap(six, each_query))),
    "6 stripes, over people": (six.mean(), middle(bootstrap(six, person))),
    "6 stripes minus whole image, unpaired": ((six - whole).mean(), middle(apart)),
    "6 stripes minus whole image, paired": (
        (six - whole).mean(), middle(bootstrap(six - whole, person))),
}
runs = [run for run in read_records(results_dir, profile)
        if run["row"] == "paul" and run["target"] == target]
if len(runs) > 1:
    over_seeds = mean_interval([run["metrics"]["map_step"] for run in runs])
    ends = over_seeds.low, over_seeds.high
    rows[f"PAUL, over {over_seeds.n} source seeds"] = over_seeds.mean, ends
intervals = pd.DataFrame([(value, *ends) for value, ends in rows.values()], rows,
                         columns=["mAP", "low", "high"])
intervals.style.format("{:.1f}").set_caption(
    f"step mAP in points, 95 % intervals; {name_here}")


# %% tags=["slide"]
#| caption: 95 % intervals of mAP, and of a difference of two descriptors, over
#|   queries and over people; the line marks zero.
@drawn
def how_sure():
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(intervals) + 1))
    places = np.arange(len(intervals))
    ends = intervals[["low", "high"]].T.to_numpy()
    errors = np.abs(ends - intervals["mAP"].to_numpy())
    axis.errorbar(intervals["mAP"], places, xerr=errors, fmt="o", color=BLUE,
                  capsize=4)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set(yticks=places, yticklabels=intervals.index,
             xlabel="mAP, or a difference of two, in points")
    axis.set_ylim(len(intervals) - 0.5, -0.5)
    return figure


how_sure()

# %% [markdown] tags=["slide"]
# **You should see** an interval over people at least about as wide as that over queries, and wider for a descriptor
# that depends more on whom it meets. Taken query by query on the same people, the difference of two descriptors is
# known better than from two separate tests: what makes a person hard is hard for both, and cancels. For the same reason
# this book pairs its rows by seed.
#
# ## Summary
#
# - Scores are closed forms in the ranks of the right images. Rank-1 sees the first, AP weighs them all, INP sees the
#   last.
# - Step AP is never below trapezoid AP, and the paper's figures are trapezoid.
# - Left-out images go before ranks are counted; at equal distance the wrong image comes first.
# - A number belongs to a gallery and a training: intervals over people and over seeds are two different things.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Ten images, two of them right. Which list has the largest difference between the two APs? (*Hint:* the
#    difference is $\frac{1}{2n} \sum_i \left[\frac{i}{r_i} - \frac{i-1}{r_i-1}\right]$. Try the ranks with
#    `combinations`; then explain why the first right image decides.)
# 2. Among the lists of ten with three right images, find all pairs in which the list with the better Rank-1 has the
#    worse step AP *and* the worse INP. Which of the two lists would you want from a search engine, which from a tool
#    that must not miss anybody? (*Hint:* C and D are such a pair; `combinations` gives all 120 lists.)
# 3. `evaluate` ranks by the Euclidean distance. Show that for unit vectors the cosine gives the same order (ledger 29).
#    What if they aren't? (*Hint:* write out $\lVert q - g \rVert^2$ and see which terms depend on $g$.)
# 4. *Extend.* Two networks differ by one point of Rank-1 on the same test people. Bootstrap the difference over people
#    once paired, once with independent draws for each network. Which interval would you print, and why?
# 5. *Break it.* Give all queries a camera that doesn't exist (`query_cameras=torch.full_like(query_cams, -1)`), so that
#    own-camera images count as right, and score the two descriptors that know nothing. Does the mistake help them as it
#    helps colours? What does that say about which descriptors a forgotten rule flatters?
# 6. *Implement.* Write `trapezoid_ap` from the formula. What does yours return for `[1]`, for `[2]`, and for `[1, 2,
#    3]`?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The ranks (2, 3) and (2, 4), with a difference of $\frac16$ each. A right image at rank 1 adds $1 - 1 = 0$. Otherwise
# the first one adds $\frac{1}{r_1} - 0$, at most $\frac12$ at $r_1 = 2$, because precision before it is nothing at all.
# The second one can add no more than $\frac16$: before it, precision was already above zero.
#
# ```python
# # runs alone
# from itertools import combinations
#
#
# def gap(ranks):
#     before = [1 if r == 1 else i / (r - 1) for i, r in enumerate(ranks)]
#     at = [i / r for i, r in enumerate(ranks, start=1)]
#     return sum(a - b for a, b in zip(at, before)) / (2 * len(ranks))
#
#
# gaps = {ranks: gap(ranks) for ranks in combinations(range(1, 11), 2)}
# largest = max(gaps.values())
# best = [ranks for ranks, value in gaps.items() if abs(value - largest) < 1e-12]
# assert best == [(2, 3), (2, 4)] and abs(largest - 1 / 6) < 1e-12
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# There are 46. In all of them the first list has its one early hit and then nothing for a while, the second begins at
# rank 2 and goes on. Whoever reads one result wants the first list. A tool that must not miss anybody wants the second:
# its last right image, which INP measures, comes sooner, and so does the reader who has to look at all of them.
#
# ```python
# # runs alone
# from itertools import combinations
#
# lists = list(combinations(range(1, 11), 3))
# ap = {r: sum(i / rank for i, rank in enumerate(r, start=1)) / 3 for r in lists}
# pairs = [(a, b) for a in lists for b in lists
#          if a[0] == 1 < b[0] and ap[a] < ap[b] and 3 / a[-1] < 3 / b[-1]]
# assert len(pairs) == 46 and ((1, 9, 10), (2, 3, 4)) in pairs  # C and D
# ```
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# $\|q - g\|^2 = \|q\|^2 + \|g\|^2 - 2 \langle q, g \rangle$. For one query $\|q\|$ is fixed; for unit vectors $\|g\|$
# is, too. What is left is $-2 \langle q, g \rangle$: a small distance is a large cosine. With free lengths the distance
# also punishes a $g$ that is much longer or shorter than $q$, and the two orders differ:
#
# ```python
# # runs alone
# import torch
#
# q, g = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.3], [0.8, 0.5]])
# assert torch.cdist(q, g).argmin() == 1  # the short one is nearer ...
# assert torch.cosine_similarity(q, g).argmax() == 0  # ... but turned further away
# ```
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# The paired one. The question is which network is better on these people, and what makes a person hard is hard for
# both: $\mathrm{Var}(a - b) = \mathrm{Var}(a) + \mathrm{Var}(b) - 2\, \mathrm{Cov}(a, b)$. Independent draws throw the
# covariance away. Below, two made-up networks whose hits differ for few queries:
#
# ```python
# # runs alone
# import numpy as np
#
# rng = np.random.default_rng(0)
# hard = rng.random(300)  # of each person, for any network
# a = (rng.random((300, 4)) > hard[:, None]).astype(float)
# b = np.where(rng.random(a.shape) < 0.05, 1 - a, a)
# draw, other = rng.integers(300, size=(2, 2000, 300))  # people, not queries
# paired = (a - b)[draw].mean((1, 2))
# apart = a[draw].mean((1, 2)) - b[other].mean((1, 2))
# assert paired.std() < 0.6 * apart.std()
# ```
#
# - *full*: both intervals over people, the variance formula, and a case in which pairing wins nothing (no covariance);
# - *half*: both intervals, and the right choice with a reason in words;
# - *some*: one interval, or draws over queries in place of people.
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# Hardly. One point for all stays at a Rank-1 of zero, because among equal distances the wrong image goes first. Random
# features gain what chance gives them: own-camera images turn from left out to right, so there are somewhat more to
# hit. Colours gain so much because they describe the *picture*, with its light and street, and the own camera's next
# frame has nearly the same. A forgotten rule flatters most whatever depends on the camera.
#
# </details>
#
# <details><summary>Solution 6</summary>
#
# 1, $\frac14$ and 1: for `[2]` the trapezoid between precision 0 (before) and $\frac12$ (at) is half the step's value.
# The case to get right is $r_1 = 1$, where "before" is 1 by definition and $\frac{i-1}{r_i-1}$ is zero over zero. Later
# right images in an unbroken run need no case: $i = r_i$ makes the fraction 1. `python -m book grade` checks yours.
#
# </details>

# %% [markdown]
# ## Next
#
# Chapter 03, *PatchNet and the patch generation network*: a descriptor that is learned, and patches that find their
# place.

# %% [markdown] tags=["slide"]
# # Evaluation
#
# **What you will learn**
#
# - Rank-1, CMC, average precision and mINP, each by hand on a list of ten;
# - why there are *two* average precisions, and which one the paper printed;
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

import numpy as np
import pandas as pd
import torch
from book.start import start
from IPython.display import Markdown, display
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.experiments.profiles import PROFILES
from paul.metrics import evaluate, evaluate_distances
from paul.plots import mean_and_range, per_query_ap, ranked_list, two_areas
from paul.report.frames import target_name

start(data_dir, profile)

# %% [markdown] tags=["slide"]
# ## One ranked list
#
# > **The paper (Sec. 4).** Results are given as Rank-1, Rank-5, Rank-10 (the cumulative matching characteristic, CMC)
# > and mean average precision (mAP), for single queries.
#
# A query puts the gallery in order. All that a score can see of this order is *where the right images are*: write it as
# zeros and ones, nearest first. The right images stand at the ranks $r_1 < r_2 < \dots < r_n$.
#
# ## Rank-k and the CMC
#
# Rank-$k$ asks one thing only: is there a right image among the first $k$? Over $Q$ queries,
#
# $$\mathrm{CMC}(k) = \frac1Q \sum_{q=1}^{Q} \big[\, r_1^{(q)} \le k \,\big] .$$

# %%
LISTS = {"A": [1, 0, 0, 1, 0, 1, 0, 0, 0, 0], "B": [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
         "C": [1, 0, 0, 0, 0, 0, 0, 0, 1, 1], "D": [0, 1, 1, 1, 0, 0, 0, 0, 0, 0]}


def ranks_of(order):
    """Ranks, from 1, of the right images in a list of zeros and ones."""
    return [rank for rank, right in enumerate(order, start=1) if right]


def cmc(orders, k):
    """The share of lists with a right image among the first k."""
    return sum(ranks_of(order)[0] <= k for order in orders) / len(orders)


# %% [markdown] tags=["slide"]
# A, B and C all have Rank-1 = 1, although nobody would call them equally good. D has B's three, a place later, and 0.
#
# ## Average precision, twice
#
# *Precision* at a rank is the share of right images so far; *recall* is the share of all right images found so far.
# Note both after each image of the list, and you have a curve. Average precision is the area under it; the two
# conventions differ in how they join its points (ledger 28).
#
# **Step.** Each right image adds a rectangle as high as the precision *at* it:
#
# $$\mathrm{AP}_\text{step} = \frac1n \sum_{i=1}^{n} \frac{i}{r_i} .$$
#
# **Trapezoid.** The sides of each piece are the precision just *before* the right image and *at* it:
#
# $$\mathrm{AP}_\text{trapezoid} = \frac1n \sum_{i=1}^{n} \frac12 \left[ \frac{i-1}{r_i - 1} + \frac{i}{r_i} \right],
# \qquad \text{the first term being 1 where } r_1 = 1 .$$
#
# First the walk itself, with no closed form in it; then the two closed forms.

# %%
def walk(order):
    """(recall, precision) before the first image and after each one."""
    found = np.cumsum(order)
    return [(0.0, 1.0), *((n / found[-1], n / rank)
                          for rank, n in enumerate(found, start=1))]


def area(order, trapezoid):
    """Area under the walk's points, joined by straight lines or by steps."""
    points = walk(order)
    return sum((recall - last) * ((before + after) / 2 if trapezoid else after)
               for (last, before), (recall, after) in zip(points, points[1:]))


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


# %% tags=["slide"]
#| caption: Average precision of list A as the area under steps and under
#|   trapezoids, over recall; right images are green.
order = LISTS["A"]
two_areas(walk(order), ranks_of(order), [area(order, False), area(order, True)])

# %% [markdown]
# Both panels have the same points: the grey line drops at each wrong image and rises again at a right one (green). The
# trapezoid cuts off the corners that the steps keep, so it can't be larger. With a single right image at rank $r > 1$
# it is exactly half: $\frac{1}{2r}$ against $\frac1r$.
#
# The paper's released code takes the trapezoid, as Market-1501's own evaluation does; most frameworks take the step. A
# published mAP that doesn't say which is ambiguous by the difference. This book prints both, and compares the trapezoid
# with the paper's.
#
# ## mINP: the last one counts
#
# Average precision forgives a right image that comes very late. The inverse negative penalty asks how far down one has
# to go to find *all* of them: $\mathrm{INP} = n / r_n$, and mINP is its mean over queries. The paper doesn't have it;
# we print it because it fails where AP looks fine. Before you run the cell: which list is best by each score?

# %% tags=["slide"]
def inp(ranks):
    """How many images are right, over how many one looks at to see them all."""
    return len(ranks) / ranks[-1]


pd.DataFrame({(name, "".join("○●"[hit] for hit in order)): {
    "Rank-1": cmc([order], 1), "AP, step": step_ap(ranks_of(order)),
    "AP, trapezoid": trapezoid_ap(ranks_of(order)), "INP": inp(ranks_of(order))}
    for name, order in LISTS.items()}).T.style.format("{:.2f}")

# %% [markdown]
# Four scores, four opinions. Rank-1 can't tell A, B and C apart; both APs put B first; D beats C in step AP, though its
# Rank-1 is 0; in INP, C pays for its last image. Now the check, on *every* list of ten with three right images:

# %%
for ranks in combinations(range(1, 11), 3):
    order = [int(rank in ranks) for rank in range(1, 11)]
    ids = [1 if right else 2 for right in order]  # the query is person 1
    library = evaluate_distances(torch.arange(10.0)[None], [1], ids, [1], [2] * 10)
    closed = [step_ap(ranks), trapezoid_ap(ranks)]
    torch.testing.assert_close([area(order, False), area(order, True)], closed)
    torch.testing.assert_close([library.map_step, library.map_trapezoid], closed)
    torch.testing.assert_close(library.minp, inp(ranks))
    assert all(cmc([order], k) == library.rank(k) for k in range(1, 11))
print("walk, closed forms and library agree on all 120 lists")

# %% [markdown]
# ## Left out, and tied
#
# Chapter 01 says which images are left out: junk, and the query's own person by its own camera. What matters here is
# the order: they go *before* ranks are counted, so they neither help nor take up a place (ledger 30). A distractor
# (person 0) stays, and costs a rank.
#
# And two images at exactly the same distance? Take a network that maps *every* image to the same point. It knows
# nothing, and its score depends only on how ties are broken. `paul.metrics` puts the wrong image first:

# %%
# a query of person 7 in camera 1, its gallery nearest first
people, cameras = [7, -1, 7, 0, 7, 3, 7], [1, 2, 4, 2, 1, 3, 2]
kept = [int(p == 7) for p, c in zip(people, cameras) if p >= 0 and (p, c) != (7, 1)]
library = evaluate_distances(torch.arange(7.0)[None], [7], people, [1], cameras)
torch.testing.assert_close(step_ap(ranks_of(kept)), library.map_step)
print("what is left of seven:", kept, "ranks of the right ones:", ranks_of(kept))

tied = evaluate_distances(torch.zeros(1, 3), [1], [1, 2, 2], [1], [2, 2, 2])
assert tied.per_query["first_rank"].item() == 3  # the right one is last

# %% [markdown]
# That is harsh on purpose: a lucky sort would report 100 % for a network that has collapsed.
#
# ## The rendered test people
#
# Now for real lists. The descriptor is a plain one, without learning: cut the middle half of an image into six stripes
# and count the colours of each. It sets the floor that a network has to rise above.

# %%
def colour_stripes(images, count=6):
    """Root colour histograms of stripes: [n, 3, H, W] -> [n, count * 64]."""
    width = images.shape[-1]
    middle = images[..., width // 4: -(width // 4)].long() // 64
    bins = 16 * middle[:, 0] + 4 * middle[:, 1] + middle[:, 2]
    bins = bins.reshape(len(images), count, -1)
    counts = torch.zeros(len(images), count, 64, dtype=torch.float64)
    counts.scatter_add_(2, bins, torch.ones(bins.shape, dtype=torch.float64))
    return (counts / bins.shape[2]).sqrt().flatten(1)


dataset = ReidDataset.load(Path(data_dir) / PROFILES[profile].folders[target])
parts = dataset.split("query"), dataset.split("gallery")
query_images, gallery_images = (load_images(part, (96, 48)) for part in parts)
query_ids, gallery_ids = (torch.tensor(part.person_ids) for part in parts)
query_cams, gallery_cams = (torch.tensor(part.camera_ids) for part in parts)

# %% tags=["slide"]
torch.manual_seed(0)
descriptors = {"one point for all": lambda images: torch.zeros(len(images), 1),
               "random": lambda images: torch.randn(len(images), 32),
               "colours, whole image": lambda images: colour_stripes(images, 1),
               "colours, 6 stripes": colour_stripes}
scores = {name: evaluate(describe(query_images), query_ids, query_cams,
                         describe(gallery_images), gallery_ids, gallery_cams)
          for name, describe in descriptors.items()}
SHOWN = {"rank1": "Rank-1", "rank10": "Rank-10", "map_step": "mAP, step",
         "map_trapezoid": "mAP, trapezoid", "minp": "mINP"}
caption = f"in %; {target_name(target, profile)}, profile {profile}"
table = pd.DataFrame({name: found.percent() for name, found in scores.items()})
table = table.T[list(SHOWN)].rename(columns=SHOWN)
assert table.iloc[0]["Rank-1"] == 0  # wrong images win ties
assert (table["mAP, step"] >= table["mAP, trapezoid"]).all()
table.loc["what cutting changes"] = table.iloc[3] - table.iloc[2]
table.style.format("{:.1f}").set_caption(caption)

# %% [markdown]
# Four queries: one of the best by average precision, one after a quarter, the middle one, the last. Where colours fail,
# look at what the wrong images share with the query: the ground, the light, and often the camera.

# %% tags=["slide"]
#| caption: Four queries, from a high average precision down to a low one: right
#|   (green, ticked), wrong (red, crossed) and left-out (grey, dotted) images.
x, y = colour_stripes(query_images), colour_stripes(gallery_images)
queries = scores["colours, 6 stripes"].per_query.sort_values("ap_step")[::-1]
picked = queries.iloc[[len(queries) // part for part in (50, 4, 2)] + [-1]]
q = torch.tensor(picked["query"].to_numpy(copy=True))
near = torch.cdist(x[q], y).argsort(1)[:, :8]
own, junk = gallery_ids[near] == query_ids[q, None], gallery_ids[near] == -1
left_out = junk | (own & (gallery_cams[near] == query_cams[q, None]))
ranked_list(query_images[q], gallery_images[near], own & ~left_out, left_out,
            [f"AP {ap:.2f}" for ap in picked["ap_step"]])

# %% [markdown]
# ### What the rules are worth
#
# The same descriptor and the same images, under rules that somebody might have chosen by mistake. Predict first: which
# of the three mistakes changes the scores most?

# %% tags=["slide"]
def score_under(query_cameras=query_cams, ids=gallery_ids, rows=slice(None)):
    return evaluate(x, query_ids, query_cameras, y[rows], ids[rows],
                    gallery_cams[rows]).percent()


junk_as_wrong = torch.where(gallery_ids == -1, 0, gallery_ids)
rules = {"the protocol": score_under(),
         "own camera counts as right": score_under(torch.full_like(query_cams, -1)),
         "junk counts as wrong": score_under(ids=junk_as_wrong),
         "distractors dropped": score_under(rows=gallery_ids != 0)}
under = pd.DataFrame(rules).T.rename(columns=SHOWN)[["Rank-1", "mAP, step"]]
under["change of Rank-1"] = under["Rank-1"] - under["Rank-1"].iloc[0]
under.style.format("{:.1f}").set_caption(caption)

# %% [markdown]
# Whoever looks for the picture that the same camera took a second later needs no person: the street and light will do.
#
# ## What Rank-1 hides
#
# **The other queries, and the rest of the list.** A mean is no typical value: how many queries lie near it (dashed)?

# %%
#| caption: Average precision of every query by two descriptors: sorted, with the
#|   mean dashed, and counted.
right_first = queries[queries["first_rank"] == 1]
display(Markdown(f"Of the {len(right_first)} queries with a right first image, "
                 f"{(right_first['ap_step'] < 0.5).mean():.0%} have a step AP "
                 "below 0.5."))
per_query_ap({name: scores[name].per_query["ap_step"] for name in list(scores)[2:]})

# %% [markdown]
# **The size of the gallery.** The first place is won against everybody in the gallery. Here is the same descriptor,
# which has learned nothing, among a share of the people:

# %% tags=["slide"]
#| caption: Rank-1 and mAP when only a share of the people takes part: the mean of
#|   five draws, and their range.
def thinned(share, seed):
    """Scores when a share of the people, drawn at random, takes part."""
    everybody = np.random.default_rng(seed).permutation(query_ids.unique().numpy())
    present = torch.tensor(everybody[:max(2, round(share * len(everybody)))])
    q, g = torch.isin(query_ids, present), torch.isin(gallery_ids, present)
    found = evaluate(x[q], query_ids[q], query_cams[q], y[g], gallery_ids[g],
                     gallery_cams[g]).percent()
    return {"people": len(present), **{SHOWN[key]: found[key] for key in SHOWN}}


draws = pd.DataFrame([thinned(share, seed) for share in (0.1, 0.2, 0.35, 0.6, 1.0)
                      for seed in range(5)])
mean_and_range(draws, "people", ["Rank-1", "mAP, step"])

# %% [markdown] tags=["slide"]
# So a Rank-1 says little without the set that it was measured on, and values of different sets can't be compared, not
# even those of the real Market-1501 and another real set. This book compares rows on one set.
#
# ## How sure is a number?
#
# **Which people happened to be in the test?** Resample them. The *bootstrap* draws as many test queries as there are,
# with replacement, scores each draw, and takes the middle 95 % of the scores. But the queries of one person hang
# together: whoever wears a common coat is hard in every camera. So draw *people*, each with all their queries.

# %%
def bootstrap(values, groups, draws=2000, seed=0):
    """Means of `draws` resamples of values [n] by whole groups, given as [n]."""
    _, group = np.unique(groups, return_inverse=True)
    total, size = np.bincount(group, weights=values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(len(size), size=(draws, len(size)))
    return total[drawn].sum(1) / size[drawn].sum(1)


whole, six = (scores[name].per_query for name in list(scores)[2:])
person, each_query = query_ids.numpy()[six["query"]], np.arange(len(six))
hit = (six["first_rank"] == 1).to_numpy(float)  # its standard error is known
torch.testing.assert_close(bootstrap(hit, each_query).std(),
                           hit.std() / len(hit) ** 0.5, rtol=0.1, atol=0)

# %% [markdown]
# **How much would *another training* differ?** No test set can tell; only training again with another seed can. That
# interval is Student's $t$ over source seeds: chapter 07 derives it, and the tables of this book print it. Colours need
# no training, so here is the first kind, for a step mAP and for a difference of two:

# %% tags=["slide"]
six, whole = (100 * part["ap_step"].to_numpy() for part in (six, whole))
apart = bootstrap(six, person, seed=1) - bootstrap(whole, person, seed=2)
paired = bootstrap(six - whole, person)
samples = {"stripes, over queries": (six.mean(), bootstrap(six, each_query)),
           "stripes, over people": (six.mean(), bootstrap(six, person)),
           "stripes minus whole, unpaired": ((six - whole).mean(), apart),
           "stripes minus whole, paired": ((six - whole).mean(), paired)}
intervals = pd.DataFrame([[value, *np.quantile(means, (0.025, 0.975))]
                          for value, means in samples.values()], samples,
                         columns=["points", "low", "high"])
intervals["width"] = intervals["high"] - intervals["low"]
intervals.style.format("{:.1f}").set_caption("95 % intervals of the step mAP")

# %% [markdown] tags=["slide"]
# Compare the widths. The more a score depends on whom it meets, the wider it is over people than over queries. Query by
# query on the same people, what makes a person hard is hard for both descriptors, and cancels in the difference. For
# the same reason this book pairs its rows by seed.
#
# ## Summary
#
# - Scores are closed forms in the ranks of the right images: Rank-1 sees the first, AP all of them, INP the last.
# - Step AP is never below trapezoid AP, and the paper's figures are trapezoid.
# - Left-out images go before ranks are counted; at equal distance the wrong image comes first.
# - A number belongs to a gallery and a training: intervals over people and over seeds are two different things.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Ten images, two of them right. Which list has the largest difference between the two APs? Try all with
#    `combinations`, and explain it by $\frac{1}{2n} \sum_i \left[\frac{i}{r_i} - \frac{i-1}{r_i-1}\right]$.
# 2. Among the lists of ten with three right images, find all pairs that are like C and D: the better Rank-1, but the
#    worse step AP *and* INP. Which would you want from a search engine, which from a tool that must not miss anybody?
# 3. Show that for unit vectors the cosine gives the order of the Euclidean distance, which `evaluate` takes (ledger
#    29). What if they aren't unit vectors? (*Hint:* which terms of $\lVert q - g \rVert^2$ depend on $g$?)
# 4. *Extend.* Two networks differ by one point of Rank-1 on the same test people. Bootstrap the difference over people
#    once paired, once with independent draws for each network. Which interval would you print, and why?
# 5. *Break it.* Give all queries a camera that doesn't exist, as in `score_under`, and score the two descriptors that
#    know nothing. Does the mistake help them as it helps colours? Which descriptors does a forgotten rule flatter?
# 6. *Implement.* Write `trapezoid_ap` from the formula. What does yours return for `[1]`, for `[2]`, for `[1, 2, 3]`?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The ranks (2, 3) and (2, 4), with $\frac16$ each. A right image at rank 1 adds $1 - 1 = 0$; elsewhere the first one
# adds $\frac{1}{r_1} - 0$, at most $\frac12$ at $r_1 = 2$; the second no more than $\frac16$.
#
# ```python
# # runs alone
# from itertools import combinations
#
# gaps = {ranks: sum(i / r - (1 if r == 1 else (i - 1) / (r - 1))
#                    for i, r in enumerate(ranks, start=1)) / 4
#         for ranks in combinations(range(1, 11), 2)}
# assert set(sorted(gaps, key=gaps.get)[-2:]) == {(2, 3), (2, 4)}
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# There are 46. The first list has its one early hit and then nothing for a while. Whoever reads one result wants it. A
# tool that must not miss anybody wants the other: its last right image, which INP measures, comes sooner.
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
# also punishes a $g$ that is much longer or shorter than $q$, and the orders differ: of $(3, 0.3)$ and $(0.8, 0.5)$ the
# second is nearer to $q = (1, 0)$, but turned further away.
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# The paired one. What makes a person hard is hard for both networks, and in $\mathrm{Var}(a - b) = \mathrm{Var}(a) +
# \mathrm{Var}(b) - 2\, \mathrm{Cov}(a, b)$ independent draws throw the covariance away: `paired` and `apart` above.
#
# - *full*: both intervals over people, the variance formula, and a case in which pairing wins nothing (no covariance);
# - *half*: both intervals, and the right choice with a reason in words;
# - *some*: one interval, or draws over queries in place of people.
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# Hardly. One point for all stays at a Rank-1 of zero, because the wrong image wins ties. For random features there is
# more to hit by chance. Colours describe the *picture*, with its light and street, and the own camera's next frame has
# nearly the same: the more a descriptor depends on the camera, the more it is flattered.
#
# </details>
#
# <details><summary>Solution 6</summary>
#
# 1, $\frac14$ and 1. The case to get right is $r_1 = 1$, where "before" is 1 by definition and $\frac{i-1}{r_i-1}$ is
# zero over zero. Later images of an unbroken run need no case: $i = r_i$. `python -m book grade` checks yours.
#
# </details>

# %% [markdown]
# ## Next
#
# Chapter 03, *PatchNet and the patch generation network*: a learned descriptor, and patches that find their place.

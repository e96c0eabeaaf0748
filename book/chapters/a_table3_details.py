# %% [markdown] tags=["slide"]
# # Table 3 in detail
#
# **What you will learn**
#
# - every row with both scores, and every pair of rows in the paper's order and in ours;
# - every comparison of C3 to C7 on world 0, score by score and target by target;
# - how pure the neighbourhood of a single patch is, and whether C4 hangs on the scale or on the step size;
# - how far $L_c$ is from saturation, and which queries gain by adaptation.
#
# Beside chapter 08, which says what it comes to. Paper: Table 3 and the ablation in Section 4.

# %% tags=["parameters"]
profile: str = "mini"
data_dir: str = "data"
results_dir: str = "results"
seeds: str = "0-2"
adapt_seeds: str = "0-1"
workers: int = 2

# %%
import json
import math
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from book.start import start
from IPython.display import Markdown, display
from paul.adapt import adapt
from paul.data.datasets import ReidDataset
from paul.data.passes import extract
from paul.data.pixels import load_images
from paul.engine.device import one_thread, pick_device
from paul.experiments.profiles import PROFILES
from paul.experiments.rows import ROWS
from paul.experiments.runner import evaluate_model, run_table, trained_models
from paul.experiments.specs import seeds_of
from paul.plots import (
    claims_panel,
    curves,
    ordering_lines,
    per_query_ap,
    ranked_list,
    save,
    table_bars,
    words,
)
from paul.report.claims import judge_all, load_claims
from paul.report.frames import (
    METRICS,
    paired_differences,
    runs_frame,
    target_name,
    values_by_seed,
)
from paul.report.published import published_value
from paul.report.statistics import mean_interval
from paul.report.tables import (
    ablation_table,
    in_brief,
    is_stale,
    on_the_papers_sets,
    ordered_pairs,
    ordering,
    readable,
)

start(data_dir, profile)
chosen = PROFILES[profile]
targets = chosen.targets
paper = "book/paper"  # the published tables
labels = {name: row.label for name, row in ROWS.items()}

# %% [markdown] tags=["slide"]
# ## Every row
#
# The file `table3.md` in the results folder's `tables` has more columns yet, such as the seconds that a run takes, and
# ends each line with the command that computes it again.

# %%
records = run_table("table3", profile=profile, seeds=seeds,
                    adapt_seeds=adapt_seeds, targets=targets,
                    data_dir=data_dir, results_dir=results_dir, workers=workers)
runs = runs_frame(records, is_stale)
table = ablation_table("table3", runs, profile, paper)
for target in targets:
    display(Markdown(f"### {target_name(target, profile)}"))
    part = in_brief(readable(table[table["target"] == target], profile))
    display(part.drop(columns="n seeds").style.hide(axis="index"))

# %% tags=["slide"]
#| caption: Rank-1 of each row of the ablation, the mean over source seeds with its
#|   95 % interval, on both targets; controls are hatched.
bars = table_bars(table, profile)
save(bars, Path(results_dir) / "figures" / profile / "table3.svg")
bars

# %% [markdown]
# ## The paper's ordering against ours
#
# Fifteen pairs of printed rows for each target and metric: does ours put them in the same order? `same_order` asks the
# means; `agrees` and `disagrees` ask the interval of the paired difference, and what it can't decide is `undecided`.

# %%
order = ordering("table3", runs, paper)
order["target"] = [target_name(target, profile) for target in order["target"]]
order["metric"] = order["metric"].map(METRICS)
order.style.format({"kendall_tau": "{:.2f}"}).hide(axis="index")

# %% tags=["slide"]
#| caption: The paper's order of rows on the left of each panel, ours on the right;
#|   lines that cross are a disagreement.
ordering_lines(table, profile)

# %%
pairs = [ordered_pairs("table3", runs, target, "rank1", paper).assign(target=target)
         for target in targets]
pairs = pd.concat(pairs)
pairs = pairs.replace({"a": labels, "b": labels})
pairs[pairs["outcome"] != "agrees"].style.format(precision=1).hide(axis="index")

# %% [markdown]
# The last table lists what doesn't agree: `a` is above `b` in the paper, by `paper` points; `ours` is our mean
# difference. An undecided pair isn't evidence against the paper. It says that this many seeds can't tell.
#
# ## Every comparison on world 0
#
# A verdict rests on one number a world (appendix *All claims*). Beside it, the development world shows what a mean over
# targets and a single score leave out.

# %% tags=["slide"]
#| caption: Every comparison of C3 to C7 on world 0: mean difference, 95 % interval and
#|   border. Green holds, red points the other way, grey is undecided.
claims = [claim for claim in load_claims("book/claims.toml")
          if claim.id in ("C3", "C4", "C5", "C6", "C7")]
claims_panel(judge_all(claims, runs, profile, paper), labels)

# %% [markdown] tags=["slide"]
# ## Purity, patch by patch
#
# Chapter 08 measures how pure the neighbourhoods of whole descriptors are. Here is each patch by itself.

# %% tags=["slide"]
def purity(features, person_ids, k=10):
    """Share of the k nearest that show the same person: [M, N, D] -> [M]."""
    ids = torch.tensor(person_ids)
    shares = []
    for patch in features:
        distance = torch.cdist(patch, patch).fill_diagonal_(float("inf"))
        nearest = distance.topk(k, largest=False).indices
        shares.append((ids[nearest] == ids[:, None]).float().mean())
    return torch.stack(shares)


def features_of(model, images):
    """Unit patch features [M, N, D] of uint8 images."""
    described = extract(model, images).cpu()
    return described.unflatten(1, (model.options.num_patches, -1)).transpose(0, 1)


target, model_seed = targets[0], seeds_of(seeds)[0]
own_seed = seeds_of(adapt_seeds)[0] if adapt_seeds else model_seed
dataset = ReidDataset.load(Path(data_dir) / chosen.folders[target])
splits = [dataset.split(name)
          for name in ("val_query", "val_gallery") if name in dataset.splits]
images = torch.cat([load_images(split, chosen.image_size) for split in splits])
people = np.concatenate([split.person_ids for split in splits])

rows = ("image_direct", "image_lc", "patch_direct", "patch_lc", "patch_lv", "paul")
models = trained_models(rows, target, model_seed, profile, data_dir,
                        adapt_seed=own_seed, workers=workers)
features = {row: features_of(model, images) for row, model in models.items()}
whole = {row: f.transpose(0, 1).flatten(1)[None] for row, f in features.items()}
counts = np.unique(people, return_inverse=True)[1]
chance = float((np.bincount(counts)[counts] - 1).mean() / (len(people) - 1))
pure = {}
for row in rows:
    on_patches = ROWS[row].level == "patch"
    each = purity(features[row], people).tolist() if on_patches else []
    pure[labels[row]] = {"whole descriptor": float(purity(whole[row], people))}
    pure[labels[row]] |= {f"patch {m}": value for m, value in enumerate(each, 1)}
print(f"source seed {model_seed}, profile {profile}; "
      f"of neighbours drawn at random {chance:.1%} would be right")
pd.DataFrame(pure).T.style.format("{:.0%}", na_rep="")

# %% [markdown]
# Can one patch name a person? Compare the columns of single patches with that of all of them together.
#
# ## Does C4 hang on the scale or on the step size?
#
# How much of direct transfer's Rank-1 is left after each reading of $L_c$; below 100 % a row does harm:

# %%
lines = []
for row in ("image_lc", "image_pull", "patch_lc", "patch_pull"):
    before = f"{ROWS[row].level}_direct"
    for name in targets:
        gain = mean_interval(paired_differences(runs, row, before, name, "rank1"))
        left = (values_by_seed(runs, row, name, "rank1").mean()
                / values_by_seed(runs, before, name, "rank1").mean())
        printed = (published_value("table3", row, name, "rank1", paper)
                   / published_value("table3", before, name, "rank1", paper))
        lines.append({"row": labels[row], "target": target_name(name, profile),
                      "left": left, "left, paper": printed, "points": gain.mean,
                      "low": gain.low, "high": gain.high})
styled = pd.DataFrame(lines).style.format(
    {"left": "{:.0%}", "left, paper": "{:.0%}"}, precision=1, na_rep="-")
styled.hide(axis="index")

# %% [markdown] tags=["slide"]
# The denominator of $L_c$ pushes from everything that isn't among the $k$; pull-only has none, and nothing keeps its
# features from falling together. In the paper the harm on whole images is large, about what a collapse would do. This
# profile is furthest from the paper's in two settings, scale and step size. So adapt
#
# - the same source models with $L_c$ alone as in the table;
# - with the paper's scale for Market-1501, $s = 30$;
# - with steps five times as large.

# %% tags=["slide"]
patch_loss = replace(chosen.adapt_options(target), loss_c="pedal", loss_v=False)
changes = {"s = 30": {"s": 30.0}, "5 x the step size": {"lr": 5 * patch_loss.lr}}
training_images = load_images(dataset.split("train"), chosen.image_size)


def validation_rank1(model):
    """Rank-1 on validation people, in per cent."""
    folder = Path(data_dir) / chosen.folders[target]
    return 100 * evaluate_model(model.eval(), folder, chosen.image_size,
                                "val_query", "val_gallery").rank(1)


def adapted_with(model, change):
    """A copy of a source model after the target stage with some options changed."""
    with tempfile.TemporaryDirectory() as scratch, one_thread(pick_device()):
        adapted, _ = adapt(deepcopy(model), training_images,
                           replace(patch_loss, **change), folder=scratch,
                           seed=model_seed)
    return adapted


lines = {}
for before, after in (("image_direct", "image_lc"), ("patch_direct", "patch_lc")):
    line = {"direct": validation_rank1(models[before]),
            "L_c as in the table": validation_rank1(models[after])}
    line |= {f"L_c, {name}": validation_rank1(adapted_with(models[before], change))
             for name, change in changes.items()}
    lines["whole images" if ROWS[before].level == "image" else "patches"] = line
pd.DataFrame(lines).T.style.format("{:.1f}").set_caption(
    f"Rank-1, one source seed ({model_seed}), profile {profile}")

# %% [markdown]
# Rank-1 on validation people. One seed, so read no more than large differences from it. A sharper softmax trusts fewer
# of the neighbours, and larger steps follow wrong ones further before the bank can answer. Where neither line falls,
# the paper's harm isn't a matter of these two settings; its photographs, its backbone or a detail of its code is left.
#
# ## Is $L_c$ saturated?
#
# If all distances were equal, each of the $N - 1$ others would be as likely, and $L_c = \log \frac{N - 1}{k}$. At the
# other end $L_c = 0$: the neighbours take all of the probability, and no gradient is left. The scale $s$ decides where
# between the two training starts.

# %% tags=["slide"]
length = len(dataset.split("train"))
ceiling = math.log((length - 1) / chosen.adapt.k)
shown = [record for record in records if record["target"] == target
         and record["row"] in ("image_lc", "patch_lc", "patch_lv", "paul")]
saturation = pd.DataFrame(
    {"row": labels[record["row"]], "seed": record["seed"],
     "first epoch": record["curve"][0]["loss_c"] / ceiling,
     "last epoch": record["curve"][-1]["loss_c"] / ceiling}
    for record in shown if "loss_c" in record["curve"][0]
)
here = chosen.adapt_options(target)
print(f"N = {length}, k = {here.k}, s = {here.s:g}: "
      f"equal distances would give L_c = {ceiling:.2f}")
by_row = saturation.groupby("row", sort=False)[["first epoch", "last epoch"]]
by_row.mean().style.format("{:.0%} of it")

# %% tags=["slide"]
#| caption: The losses over the epochs of adaptation, a colour for each row: each
#|   seed thin, the mean thick.
curves(shown, labels=labels)

# %% [markdown]
# Below 100 % the softmax already lies on the neighbours when training starts, and $L_c$ sharpens what is there. $L_v$
# starts from little: at first a centre is the mean of an image and its surrogate of the very same step, later it is a
# memory (ledger 11). If $L_v$ ends no higher with $L_c$ beside it than alone, the two don't compete; if they also end
# at the same purity, they teach the same thing, and their sum has nothing to add to either (C7).
#
# What either reached alone and both together, each at its own best by the same search on validation people, from a
# source seed that no row here uses:

# %%
search = Path(results_dir) / "search" / f"{profile}.json"
if search.is_file():
    arms = json.loads(search.read_text(encoding="utf-8"))["arms"]
    best = [{"row": labels[row], "best": max(t["score"] for t in arm["trials"]),
             **arm["chosen"]}
            for row in ("patch_lc", "patch_lv", "paul")
            for arm in [arms[f"target/{row}"]]]
    styled = pd.DataFrame(best).style.format(precision=3, na_rep="")
    display(styled.hide(axis="index").set_caption(
        "validation people: step mAP, mean of both targets"))
else:
    print(f"no search was made at profile {profile}")

# %% [markdown]
# ## Which queries gain?

# %% tags=["slide"]
#| caption: Average precision of every query, row by row: sorted, with the mean
#|   dashed, and counted.
folder = Path(data_dir) / chosen.folders[target]
scores = {row: evaluate_model(models[row], folder,
                              chosen.image_size).per_query.set_index("query")
          for row in ("patch_direct", "paul")}
per_query_ap({words(labels[row]): frame["ap_trapezoid"]
              for row, frame in scores.items()})

# %%
change = (scores["paul"]["ap_trapezoid"]
          - scores["patch_direct"]["ap_trapezoid"]).sort_values()
print(f"average precision rises for {(change > 0).mean():.0%} of the queries, "
      f"falls for {(change < 0).mean():.0%}")

# %% [markdown]
# The query that lost most and the one that gained most, each before and after adaptation, by the ten nearest of the
# gallery. A grey, dotted frame is an image that the protocol leaves out: junk, or the query's own person at its own
# camera.

# %%
#| caption: The query that lost most and the one that gained most, each before and
#|   after adaptation, with the ten nearest of the gallery.
query, gallery = dataset.split("query"), dataset.split("gallery")
query_images, gallery_images = (load_images(split, chosen.image_size)
                                for split in (query, gallery))
asked = {row: extract(models[row], query_images) for row in scores}
offered = {row: extract(models[row], gallery_images) for row in scores}
picked = [int(change.index[0]), int(change.index[-1])]
captions, ranked, right, skipped = [], [], [], []
for q in picked:
    for row in ("patch_direct", "paul"):
        near = torch.cdist(asked[row][[q]], offered[row])[0].argsort()[:10].cpu()
        same = gallery.person_ids[near] == query.person_ids[q]
        ranked.append(gallery_images[near])
        right.append(same)
        skipped.append((gallery.person_ids[near] == -1)
                       | (same & (gallery.camera_ids[near] == query.camera_ids[q])))
        captions.append("direct" if row == "patch_direct" else "PAUL")
ranked_list(query_images[np.repeat(picked, 2)], torch.stack(ranked),
            np.stack(right), np.stack(skipped), captions)

# %% [markdown]
# Look at what the wrong images share with the query: often it is one garment, or the camera.
#
# ## On the paper's own sets
#
# Records of profile `paper` are shown here where the results folder holds them, whatever the profile of this page.

# %%
text, on_their_sets = on_the_papers_sets("table3", results_dir, profile, paper)
display(Markdown(text))
if on_their_sets is not None:
    display(on_their_sets.style.hide(axis="index"))

# %% [markdown] tags=["slide"]
# ## Summary
#
# - An undecided pair is no evidence against the paper: it says that this many seeds can't tell.
# - A single patch is a weak witness; the descriptor is all of them together.
# - Scale, step size, saturation and single queries are measured, so that a verdict comes with reasons to look at.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Purity counts neighbours at the query's own camera, as $L_c$ does. Leave those out: which patch falls
#    most?
# 2. How many seeds would settle the undecided pair with the smallest mean difference, if its spread stays as it is?
# 3. *Break it.* Take $k = N - 1$ in the saturation cell. What is the ceiling, and what would $L_c$ teach?
# 4. *Extend.* Repeat the table of scale and step size with three source seeds, and pair it. Which cell was luck?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The one that sees most of the camera: patches with much street beside the person, and few clothes. Neighbours at the
# own camera are often right for the wrong reason, the next frame of one passage, so all patches fall. Which falls most
# is decided by where the PGN put its patches, and is best read off pictures of them (chapter 09).
#
# ```python
# from paul.retrieval.agreement import neighbours
#
# cameras = np.concatenate([split.camera_ids for split in splits])
# for m, patch in enumerate(features["paul"], 1):
#     near = {"all": neighbours(patch, 10), "others": neighbours(patch, 10, cameras)}
#     print(m, {name: round((people[n.numpy()] == people[:, None]).mean(), 2)
#               for name, n in near.items()})
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# The smallest $n$ with $t_{0.975,\,n-1}\, s_d / \sqrt n < |\bar d|$. For large $n$ it is $(1.96\, s_d / \bar d)^2$, so
# half the difference takes four times the seeds. And $\bar d$ is itself uncertain: the undecided pair with the
# *smallest* mean may well be one without a difference, which no number of seeds will settle in this way. Take `s` and
# `mean` of the pair from `paired_differences(runs, a, b, target, "rank1")`.
#
# ```python
# # runs alone
# from scipy import stats
#
#
# def seeds_to_settle(mean, s):
#     return next(n for n in range(2, 1_000_000)
#                 if stats.t.ppf(0.975, n - 1) * s / n**0.5 < abs(mean))
#
#
# assert [seeds_to_settle(mean, s=1.0) for mean in (1.0, 0.5, 0.25)] == [7, 18, 64]
# ```
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# $\log \frac{N - 1}{N - 1} = 0$. Everybody is a neighbour, both sums of $L_c$ run over all others, the loss is zero
# whatever the features are, and no gradient is left. The largest $k$ is not the most careful one, but the emptiest.
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# Load `trained_model(row, target, seed, ...)` for each seed, adapt with `seed=seed`, and judge the differences to *as
# in the table* with `mean_interval`. A cell was luck where one seed alone carries it. Two changes on two levels are
# four questions: expect one in twenty intervals to miss the truth.
#
# - *full*: paired intervals for both changes on both levels, and a sentence about four intervals at once;
# - *half*: three seeds, means without pairing;
# - *some*: a second seed, compared in words.
#
# </details>

# %% [markdown]
# ## Next
#
# *All claims, and what each choice is worth*: every verdict on one page.

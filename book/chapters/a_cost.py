# %% [markdown] tags=["slide"]
# # What it costs
#
# **What you will learn**
#
# - how to bound the time of any work from two measured numbers of a device, and how far ours is from that bound;
# - what vectorised losses, memories and scores are worth against versions that walk over samples;
# - how cost grows with the bank, the gallery, the batch and the number of patches;
# - from which training set on $L_c$ costs more than the backbone, and what a bank too large to look at whole allows.
#
# Paper: the memory bank of Section 3.2 and the step of Section 3.4; the paper doesn't report times.

# %% tags=["parameters"]
profile: str = "mini"
results_dir: str = "results"

# %%
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from book.start import start
from IPython.display import Markdown, display
from paul.bench import SUITES
from paul.bench.approximation import candidate_loss
from paul.bench.peaks import count_flops, measure_peaks
from paul.bench.plots import approximation, growth, roofline
from paul.bench.scale import exponent
from paul.bench.timing import compare
from paul.engine.device import one_thread
from paul.experiments.costs import Step, crossing, network_flops
from paul.losses import pedal_loss
from paul.plots import save
from torch.nn import functional as F

start()
cpu = torch.device("cpu")
figures = Path(results_dir) / "figures" / "benchmarks"

# %% [markdown] tags=["slide"]
# ## A bound for any work
#
# A device does at most $P$ floating-point operations a second, and moves at most $\beta$ bytes a second between its
# memory and its units. Work of $F$ operations that has to read and write $Q$ bytes, each input once and each result
# once, can't be done in less than
#
# $$t \;\geq\; \max\left(\frac FP,\; \frac Q\beta\right).$$
#
# Over the ratio $F / Q$ the best possible rate is a slope and then a ceiling: the *roofline* (Williams, Waterman and
# Patterson, 2009). The first step is to measure $P$ and $\beta$, not to look them up: here and now, with one thread.

# %%
with one_thread(cpu):
    peaks = measure_peaks(cpu, quick=True)
print(f"copy {peaks.bytes_per_second / 1e9:.0f} GB/s "
      "(a small array, from the cache)\n"
      f"matrix product {peaks.flops_per_second['float32'] / 1e9:.0f} GFLOP/s")

# %% [markdown]
# Now $L_c$ with its gradient. Per patch there are two products with the bank: $B$ features with $N$ entries of width
# $D$, and back, $4 M B N D$ operations in all. The bank has to be read, $4 M N D$ bytes. The formula, an independent
# count by torch, and `paul.experiments.costs` must agree:

# %% tags=["slide"]
M, B, N, D = 6, 40, 5_000, 48
bank, features = (F.normalize(torch.randn(M, n, D), dim=2) for n in (N, B))
index = torch.arange(B)


def step():
    pedal_loss(features.clone().requires_grad_(), bank, index).backward()


formula = 4 * M * B * N * D
assert formula == Step(N, B, M, D).pedal_flops == count_flops(step)

with one_thread(cpu):
    live = compare({"ours": step}, cpu)
bound = peaks.bound(formula, bank.nbytes + 2 * features.nbytes)
least, taken = bound["bound_seconds"], live["ours_seconds"]
print(f"{formula / 1e6:.0f} MFLOP: at least {1000 * least:.2f} ms "
      f"(by {bound['bound_by']})\n"
      f"measured {1000 * taken:.2f} ms: {least / taken:.0%} of the bound")

# %% [markdown]
# The products are not all: each of the $M B N$ similarities is also exponentiated, summed and searched for the $k$
# nearest, which the bound doesn't know.
#
# ## What was measured
#
# `python -m paul bench` measures the peaks, then times every case: *ours*, then *other* (most often the literal version
# in `paul/bench/literal.py`), taking turns. On a CPU it counts the CPU seconds of one thread, so that waiting for other
# processes doesn't count. `ratio` is other over ours, except where `<=` stands: there it is ours over other. `share` is
# the bound over our time, with what decides the bound; `spread` is the range of our repeats over their median.

# %%
def read(folder):
    """A device's records: peaks, and the rows of each suite by case."""
    files = {name: folder / f"{name}.json" for name in ("peaks", *SUITES)}
    said = {name: json.loads(file.read_text(encoding="utf-8"))
            for name, file in files.items() if file.is_file()}
    return {name: one.get("rows", one) for name, one in said.items()}


def shown(rows):
    """The rows of a suite, readable; each case with its size and its opponent."""
    met = {True: ": yes", False: ": no"}
    table = pd.DataFrame([{
        "case": f"{row['title']}<br><i>{row['size']}; against: {row['other']}</i>",
        "ours, ms": 1000 * row["ours_seconds"],
        "other, ms": 1000 * row["other_seconds"], "ratio": row["ratio"],
        "expected": row.get("expected", "") + met.get(row.get("as_expected"), ""),
        "share": f"{row['share_of_bound']:.0%} ({row['bound_by']})",
        "spread": row["ours_spread"],
    } for row in rows.values()])
    formats = {"ours, ms": "{:,.4g}", "other, ms": "{:,.4g}", "ratio": "{:.2f}",
               "spread": "{:.0%}"}
    return table.style.format(formats).hide(axis="index").set_properties(
        subset=["case"], **{"max-width": "16em", "white-space": "normal"})


benchmarks = Path(results_dir, "benchmarks")
folders = sorted(file.parent for file in benchmarks.glob("*/peaks.json"))
records = {folder.name: read(folder) for folder in folders
           if not folder.name.endswith("-quick")}
cpus, gpus = ({name: record for name, record in records.items()
               if record["peaks"]["device"] == kind} for kind in ("cpu", "cuda"))


def all_rows(record, suites=SUITES):
    """Every row of some suites, named by suite and case."""
    return {f"{suite} {case}": row for suite in suites
            for case, row in record.get(suite, {}).items()}


def origin(record):
    """Where and on what sources a device's rows were measured, in words."""
    rows = all_rows(record).values()
    commits = ", ".join(sorted({row["commit"][:8] for row in rows}))
    rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s"
                      for name, rate in record["peaks"]["flops_per_second"].items())
    return (f"{record['peaks']['machine']}; sources {commits}. Peaks: copy "
            f"{record['peaks']['bytes_per_second'] / 1e9:.0f} GB/s, {rates}.")


def show_device(record):
    display(Markdown(origin(record)))
    for suite in SUITES:
        if suite in record:
            display(Markdown(f"**Suite {suite}**"), shown(record[suite]))


for record in cpus.values():
    show_device(record)
if not cpus:
    print("nothing measured yet on a CPU: python -m paul bench")

# %% [markdown]
# How to read it:
#
# - *ops*: the literal bank is stacked anew for each step, and the literal ranking walks over anchors. That is where
#   ratios are large, and it matters little in a step whose network is far dearer.
# - *step network*: what the losses, memories and surrogates add to the part that no loss can save.
# - *eval features* is the honest ratio for a test: both sides have to make the distances, one and the same matrix
#   product. Hence another goal: of our time the product alone, below, should be 85 % or more.
# - *data surrogates*: batches pay on a device with many units. On one CPU core torchvision's per-image transforms can
#   be the faster ones; beside the network either is small (*data loader*).
#
# Memory and waiting, where a suite measured them; memory is that of a process of its own:

# %%
extras = {"peak_mb": "peak, MB", "imports_mb": "of it imports, MB",
          "gpu_mb": "on the GPU, MB", "images_per_second": "images a second",
          "data_wait_share": "waiting for data", "save_share": "saving",
          "product_share": "the matrix product alone",
          "over_features_mb": "over the features, MB"}
for record in records.values():
    lines = {case: {words: row[key] for key, words in extras.items()
                    if row.get(key)}
             for case, row in all_rows(record).items()}
    frame = pd.DataFrame({case: line for case, line in lines.items() if line}).T
    shares = {words: "{:.2%}" for key, words in extras.items()
              if key.endswith("_share") and words in frame}
    display(Markdown(record["peaks"]["machine"]),
            frame.style.format(shares, precision=0, thousands=",", na_rep=""))

# %% [markdown]
# ## The roofline
#
# Every case whose operations are counted, under the roof of its device. Left of the bend time goes into moving bytes,
# right of it into operations.

# %% tags=["slide"]
#| caption: Rooflines: operations a second over operations a byte, a mark for each
#|   case of the benchmark, under what the device can do at most.
SHOWN = ("ops", "step", "epoch", "eval")
for name, record in cpus.items():
    picture = roofline(all_rows(record, SHOWN), record["peaks"],
                       record["peaks"]["machine"])
    save(picture, figures / name / "roofline.svg")
    display(picture)

# %% [markdown]
# IPFL's ranking takes direct differences, because a matrix product would lose the digits that decide between near-equal
# distances (chapter 05). A network can lie above the roof of the matrix product: for 3x3 kernels Winograd's algorithm
# takes fewer products than are counted, hence a roof of its own.
#
# ## How cost grows
#
# If seconds grow like $n^p$, then $\log t$ is a line of slope $p$ over $\log n$. Small sizes show what a call costs at
# least, so the slope is fitted to the upper half of the sizes. The fit from scratch, on a made-up law:

# %%
sizes = np.array([1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6])
law = 2e-7 * sizes**1.3
slope = np.polyfit(np.log(sizes[3:]), np.log(law[3:]), 1)[0]
assert (abs(slope - 1.3) < 1e-9
        and abs(exponent(list(sizes), list(law)) - slope) < 1e-9)

# %% tags=["slide"]
#| caption: Time over the size of the bank, the gallery, the batch and the number of
#|   patches, both axes logarithmic.
for name, record in cpus.items():
    if "scale" in record:
        picture = growth(record["scale"], record["peaks"]["machine"])
        save(picture, figures / name / "growth.svg")
        display(picture)

# %% [markdown]
# Expect a power of 1 for $L_c$ and the gallery, of 0 for the bank's update (it touches the batch's entries and no
# others, which needn't be so: the literal list, stacked for each step, grows), of 1 for the step in the batch, and
# less than that in the patches, since all of them share one backbone.
#
# ## From which $N$ on does $L_c$ cost more than the network?
#
# The backbone costs $F$ operations an image whatever $N$ is, for $2B$ images a step. $L_c$ costs $4 M B N D$. Both
# grow with $B$, which cancels: they are equal at $N^* = F / (2 M D)$.

# %%
flops = network_flops()
scratch = flops / (2 * 6 * 256)
assert abs(scratch - crossing(flops)) < 1
print(f"ResNet-50 at 384 x 128: {flops / 1e9:.0f} GFLOP an image, "
      f"forward and backward; equal at N = {scratch:,.0f}")
lines = []
for entries in (12_936, 100_000, 1_000_000, 10_000_000):
    sizes_of = Step(entries)
    of_backbone = sizes_of.pedal_flops / (2 * sizes_of.batch * flops)
    lines.append({"N": entries, "L_c, TFLOP a step": sizes_of.pedal_flops / 1e12,
                  "of the backbone's": of_backbone,
                  "bank, GB": sizes_of.bank_bytes / 1e9,
                  "similarities, GB": sizes_of.similarity_bytes / 1e9})
formats = {"N": "{:,}", "of the backbone's": "{:.2%}"}
pd.DataFrame(lines).style.format(formats, precision=2).hide(axis="index")

# %% [markdown] tags=["slide"]
# In *time* they are equal earlier, in the ratio of the rates that both reach (the roofline above); and the bank may be
# too large for one device before that. Then it can be spread over several, each with its own part (*From a laptop to a
# cluster* beside the chapters), or be looked at in part.
#
# ## A bank too large to look at whole
#
# The numerator of $L_c$ needs the $k$ nearest entries, the denominator a sum over all. Three ways to look at $C$
# entries in place of $N$:
#
# - **index**: the $C$ nearest that an inverted file finds; the denominator sums over these alone;
# - **random**: $C$ entries drawn at random; in the denominator each counts $(N - 1) / C$ times, which in a log-sum is a
#   weight of $\log \frac{N - 1}{C}$; the numerator takes the nearest *of these*;
# - **both**: half and half, the random half weighted so that it stands for all that the index didn't find.
#
# With all entries drawn, or all found, the loss must be the exact one:

# %%
exact = pedal_loss(features, bank, index)
everything = torch.arange(N)
found = everything.expand(M, B, N)
for near, drawn in ((None, everything), (found, None)):
    approximate = candidate_loss(features, bank, index, near, drawn)
    torch.testing.assert_close(approximate, exact)

# %% tags=["slide"]
#| caption: How far the loss of a part of the bank lies from the loss of all of it,
#|   for each way of choosing the part.
for name, record in cpus.items():
    row = record.get("scale", {}).get("approximation")
    if row:
        title = f"{row['entries']:,} synthetic clustered features"
        picture = approximation(row, f"{title}; {record['peaks']['machine']}")
        save(picture, figures / name / "approximation.svg")
        display(picture)
        print(f"cheapest with a gradient within 1 %, or the best: {row['size']}; "
              f"{row['ratio']:.1f} times as fast as the exact loss")

# %% [markdown]
# A random subset fails where the softmax sits on near entries: a small sample has none of them, and no weight mends a
# wrong numerator. At a large scale the mass that an index leaves out is small, and random terms add noise; at a small
# one most of the mass lies far away, and the index alone misses it whatever it finds. So: an index for a loss near
# saturation, both for a softer one.
#
# The features are synthetic. And the bank moves: an index has to be built again every so often, which has to pay, too.
#
# ## On a GPU

# %%
#| caption: The roofline of a GPU, a mark for each case of the benchmark.
#| caption: Time over the sizes of the work on a GPU, both axes logarithmic.
for name, record in gpus.items():
    show_device(record)
    machine = record["peaks"]["machine"]
    rows = all_rows(record, SHOWN)
    pictures = {"roofline": roofline(rows, record["peaks"], machine)}
    if "scale" in record:
        pictures["growth"] = growth(record["scale"], machine)
    for file, picture in pictures.items():
        save(picture, figures / name / f"{file}.svg")
        display(picture)
if not gpus:
    print("nothing measured yet on a GPU: python -m paul bench --device cuda")

# %% [markdown] tags=["slide"]
# On a GPU the network runs in bf16 with channels last, the literal step in float32 with its bank on the host and its
# images from 8 worker processes. The goals there: a step within 1.10 times backbone and PGN alone, three times as fast
# as the literal one, and less than 2 % of the time waiting for data.
#
# ## Summary
#
# - Two measured peaks bound any work; a share of the bound says what is left to gain; a ratio to a slow one doesn't.
# - The losses and memories are cheap beside the network. $L_c$ and the evaluation grow linearly, the bank's update not.
# - In operations $L_c$ overtakes the backbone at millions of images; an index gives its gradient from part of the bank.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* A gallery of a million images, 1,536 wide, against 1,000 queries. How many operations are the distances,
#    and how long do they take at the least at the peak measured above? Which is larger: the features or a block of
#    distances for 256 queries?
# 2. The bank's update reads and writes $B$ entries of $M D$ numbers, and reads as many features. What is its bound at
#    $B = 40$, $M = 6$, $D = 256$, and why does no implementation in Python come near it?
# 3. The random subset estimates a sum by a weighted part of it. Show on numbers that this is unbiased for the *sum*
#    and that its logarithm comes out too small on average. (*Hint:* the logarithm is concave.)
# 4. *Break it.* Leave the weight $\log \frac{N - 1}{C}$ out of the random subset's denominator. By how much is the loss
#    wrong, and its gradient? And with *both*, where half of the candidates are the nearest?
# 5. *Extend.* From how many queries $Q$ on is a test against a huge gallery of width $W$ bound by operations rather
#    than by bytes? Derive it from $P$ and $\beta$, with the distances written to memory.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# $2 \cdot 1{,}000 \cdot 10^6 \cdot 1{,}536 \approx 3.07$ TFLOP; divide by `peaks.flops_per_second["float32"]`. The
# features are larger: 6.1 GB against 1.0 GB for the block. That is why distances are made block by block, and the
# gallery may stay on disk.
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# Three times $B M D$ numbers of four bytes: 0.74 MB, at ten GB/s 74 microseconds; divide by `peaks.bytes_per_second`
# for this machine. A single call into torch costs some microseconds whatever it does, and the update takes a dozen of
# them (gather, average, scatter, ...): the faster the memory, the more of the time is theirs.
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# Each term is drawn with probability $C / N$ and counts $N / C$ times, so on average it counts once: unbiased. For the
# logarithm Jensen's inequality says $E[\log S] \le \log E[S]$, and the gap grows with the spread of $S$: a few large
# terms that the sample mostly misses.
#
# ```python
# # runs alone
# import torch
#
# terms = torch.rand(1_000, generator=torch.Generator().manual_seed(0)).pow(8)
# seeded = [torch.Generator().manual_seed(seed) for seed in range(2_000)]
# some = [torch.randperm(1_000, generator=generator)[:20] for generator in seeded]
# draws = torch.stack([terms[drawn].sum() * 50 for drawn in some])
# assert abs(draws.mean() / terms.sum() - 1) < 0.05
# assert draws.log().mean() < terms.sum().log()
# ```
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# The loss is too small by exactly $\log \frac{N-1}{C}$, a constant; so the gradient is the same, and training wouldn't
# notice. With *both* it would: the near half is exact and counts once, the random half stands for all the others, and
# without its weight the far entries hardly push. The mistake that shows in the loss is harmless; the one that matters
# shows only in the gradient.
#
# ```python
# # runs alone
# import math
#
# import torch
#
# torch.manual_seed(0)
# x, w = torch.randn(8, requires_grad=True), torch.randn(500, 8)  # all but the own
# a = (-(x - w).square().sum(1) / 4).sort(descending=True).values
# near, drawn = a[:10], a[10:][torch.randperm(490)[:50]]  # by an index, at random
#
#
# def gradient(weight, some):
#     loss = torch.cat([some, drawn + weight]).logsumexp(0) - near.logsumexp(0)
#     return torch.autograd.grad(loss, x, retain_graph=True)[0]
#
#
# weight = math.log(490 / 50)
# torch.testing.assert_close(gradient(weight, a[:0]), gradient(0, a[:0]))
# right, wrong = gradient(weight, near), gradient(0, near)
# assert (right - wrong).norm() > 0.1 * right.norm()
# ```
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# $2 Q G W$ operations over $4 (QW + GW + QG)$ bytes. For a huge $G$ the intensity is $\frac{QW}{2 (W + Q)}$, which has
# to exceed $I = P / \beta$:
#
# $$
# Q > \frac{2 I W}{W - 2 I} \quad\text{if } W > 2 I, \text{ and never otherwise.}
# $$
#
# The second case is the interesting one: with narrow descriptors it is the writing of distances that costs. Keeping
# only the best $K$ of each block, before they leave the cache, takes the term $QG$ away.
#
# ```python
# # runs alone
# def intensity(Q, W, G=1e12):
#     return 2 * Q * G * W / (4 * (Q * W + G * W + Q * G))
#
#
# for I, W in ((10, 1536), (40, 288)):
#     turn = 2 * I * W / (W - 2 * I)
#     assert intensity(0.99 * turn, W) < I < intensity(1.01 * turn, W)
# assert intensity(1e9, W=64) < 40  # W < 2 I: no number of queries is enough
# ```
#
# - *full*: the turn, both cases, and what changes when distances aren't written;
# - *half*: the turn for the general case;
# - *some*: operations and bytes, compared for one $Q$ in numbers.
#
# </details>

# %% [markdown]
# ## Next
#
# This is the last page; `README.md` says how to go on with data of your own.

# %% [markdown] tags=["slide"]
# # Setup, and how to read this book
#
# **What you will learn**
#
# - whether this machine is ready, and which *profile* suits it;
# - how a chapter is built, on one equation taken from start to end;
# - how long each chapter took where it was last measured;
# - where data, checkpoints and results go, and why no real person is in them.
#
# The book follows one paper: Yang, Yu, Wu and Zheng, *Patch-based Discriminative Feature Learning for Unsupervised
# Person Re-identification*, CVPR 2019, pp. 3633-3642, called "the paper" from here on. Its sections come up in chapters
# 03 (Sec. 3.1, PatchNet), 04 (Sec. 3.2, PEDAL) and 05 (Sec. 3.3, IPFL), its four tables in chapters 07 to 09. What
# would hold up a first reading is in appendices.

# %% [markdown]
# ## Parameters
#
# Every chapter has a cell like the next one. `python -m book run --chapters 00 --profile smoke` puts other values in a
# cell below it, and so does `-p name=value` for any single parameter. A name that no chapter has is refused. Paths
# count from the repository's root, in whichever folder the kernel was started.

# %% tags=["parameters"]
profile: str = "mini"
data_dir: str = "data"
results_dir: str = "results"

# %% [markdown]
# ## Is this machine ready?

# %%
import os
import platform
import shutil

import numpy as np
import pandas as pd
import torch
import torchvision
from book.start import start

start()
# cores this process may use, where known
has_affinity = hasattr(os, "sched_getaffinity")
cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
machine = {
    "Python": platform.python_version(),
    "torch": torch.__version__,
    "torchvision": torchvision.__version__,
    "numpy": np.__version__,
    "pandas": pd.__version__,
    "cores": cores,
    "GPU": ", ".join(gpus) or "none: the profiles smoke and mini don't need one",
    "free disk space": f"{shutil.disk_usage('.').free / 2**30:.0f} GiB",
}
pd.DataFrame({"here": machine})

# %%
major, minor = (int(part) for part in torch.__version__.split(".")[:2])
assert (major, minor) >= (2, 6), "this torch is too old: install 2.6 or newer"
free = shutil.disk_usage(".").free
assert free > 2 * 2**30, "make room: less than 2 GiB are free"
print("ready")

# %% [markdown]
# Two cores and no GPU are enough for everything up to and including the `mini` profile.

# %% [markdown] tags=["slide"]
# ## Four profiles, one book
#
# A profile fixes the data, the network and the schedule. Whatever is measured is printed with its profile, because a
# figure of a small network on rendered people says nothing about the paper's figures on real ones. What a small profile
# *can* show is an order: which loss helps, which way of making patches is better.
#
# | profile | people | network | where it runs | what it is for |
# |---|---|---|---|---|
# | `smoke` | rendered, a handful | small | CPU, seconds per chapter | proves that everything runs, and nothing else |
# | `mini` | rendered | small | CPU with 2 cores, minutes | the default: every idea, every table, three or more seeds |
# | `gpu` | rendered, a thousand and more | ResNet-50 at 384 x 128 | one GPU | the paper's architecture and schedule |
# | `paper` | MSMT17, Market-1501, DukeMTMC-reID | ResNet-50 | one GPU | the paper itself |
#
# Each option of a profile that isn't the paper's is listed with its reason. These are the ones of the profile this page
# ran with, as the library knows them:

# %%
from paul.experiments.profiles import PROFILES

chosen = PROFILES[profile]
rows, columns = chosen.image_size
print(f"{chosen.name}: {chosen.purpose}; images of {rows} x {columns}")
differences = pd.DataFrame(chosen.differences(),
                           columns=["option", "paper", "here", "reason"])
differences.astype(str).style.hide(axis="index")

# %% [markdown] tags=["slide"]
# ## How a chapter takes an idea apart
#
# Every idea goes through the same five steps. Here is the smallest idea of the paper as an example; chapter 04 shows
# what it is for.
#
# **1. What the paper says**, in our words, always set apart like this:
#
# > **The paper (Sec. 3.2).** Comparing a patch with every other patch of the training set would need the features of
# > the whole set at each step. So a memory keeps one feature for each image and patch position. It starts as the
# > feature itself, and each time the image comes up again, the memory moves a tenth of the way towards the new feature.
#
# **2. The equation.** With $w_{j,t}$ the memory of image $j$ after its $t$-th visit, $x_{j,t}$ its feature at that
# visit and $l$ the update rate:
#
# $$
# w_{j,0} = x_{j,0}, \qquad w_{j,t} = (1 - l)\, w_{j,t-1} + l\, x_{j,t} .
# $$
#
# **3. The same from scratch**, in a few lines that can be read next to the equation:

# %% tags=["slide"]
def remember(visits, rate=0.1):
    """visits [T, D], one image's features in order -> its memory [T, D]."""
    memory = [visits[0]]
    for feature in visits[1:]:
        memory.append((1 - rate) * memory[-1] + rate * feature)
    return torch.stack(memory)


# %% [markdown]
# **4. The check.** The library computes the same for all patches of a whole batch at once. The two must agree:

# %% tags=["slide"]
from paul.memory import PatchMemory

torch.manual_seed(0)
visits = torch.randn(30, 5, dtype=torch.float64)
library = PatchMemory(num_images=1, num_patches=1, dim=5, rate=0.1).double()
for visit, expected in zip(visits, remember(visits)):
    library.update(torch.tensor([0]), visit[None, None])  # [M=1, B=1, D=5]
    torch.testing.assert_close(library.bank[0, 0], expected)
print("the library agrees with the equation, visit by visit")

# %% [markdown]
# **5. A picture.** How fast does the memory forget? Start it at 1 and show it nothing but 0 from then on.

# %% tags=["slide"]
#| caption: The share of the first feature that is left in a memory after each visit, for
#|   three rates; the dashed line is one half.
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 3.2))
start_then_zeros = torch.zeros(40, 1)
start_then_zeros[0] = 1
for rate, colour in [(0.05, "#f2b134"), (0.1, "#c8445b"), (0.3, "#2a6f97")]:
    axes.plot(remember(start_then_zeros, rate), color=colour, label=f"$l$ = {rate}")
axes.axhline(0.5, color="0.6", linewidth=0.8, linestyle="--")
axes.set(xlabel="visit $t$", ylabel="share of the first feature")
axes.set_title("What a memory keeps of its start")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# **You should see** the middle curve, the paper's $l = 0.1$, cross one half between visits 6 and 7, since $0.9^{t} =
# \tfrac12$ at $t \approx 6.6$. Some chapters give such a range; where an outcome depends on the run, the cell below a
# figure says in words what *your* run shows, and what it means stands beneath.

# %% [markdown]
# ## What the paper leaves open
#
# Paper and released code don't always say the same, and the code decides much of which the paper is silent. The
# *ledger* lists these places by number: what the paper states, what the code of its authors does, what is done here,
# and which option takes the other reading. "Ledger 6" in a chapter is its entry 6, and on the site a link to it. Of the
# memory above it says:

# %%
from paul.report.ledger import load_ledger

ledger = pd.DataFrame(load_ledger("book/ledger.toml")).set_index("number")
ledger.loc[6, ["item", "paper", "code", "ours", "knobs"]].to_frame("ledger 6").style

# %% [markdown]
# The symbols mean the same in every chapter. They, and the terms of the field, have a page too: *Notation and
# glossary*.

# %% [markdown]
# ## How long it takes
#
# Measured, never estimated: `python -m book costs` writes into `book/book.toml` what the last run took on its machine.

# %% tags=["slide"]
from book.toc import load_book

book = load_book()
costs = pd.DataFrame({"chapter": [chapter.title for chapter in book.chapters]})
costs.index = [chapter.number for chapter in book.chapters]
for name, measured in book.measured.items():
    seconds = measured["seconds"]
    costs[f"{name}, seconds"] = [seconds.get(chapter.slug)
                                 for chapter in book.chapters]
    print(f"{name}: {sum(seconds.values()):.0f} s, added up, {measured['date']}, "
          f"{measured['machine']}")
costs.style.format(precision=0, na_rep="not measured")

# %% [markdown]
# The experiment chapters are cheap to read and costly to make: they load every run that is already recorded and compute
# only those that are missing. On a fresh copy the committed records are there, so `make book` adds one seed of its own
# and sets it beside them.

# %% [markdown] tags=["slide"]
# ## Where things are
#
# | folder | what is in it | deleted, it comes back by |
# |---|---|---|
# | `book/chapters/` | the chapters, plain Python text with `# %%` cells: the only files edited by hand | |
# | `book/notebooks/` | the same chapters as notebooks without output | `python -m book pair` |
# | `paul/` | the library: PatchNet, the two losses, the two stages; below it data, experiments, rivals, reports | |
# | `data_prep/` | makes the people who don't exist, and reads real sets | |
# | `data/` | the rendered people | `python -m data_prep synthetic --profile mini --out data` |
# | `results/runs/` | one small JSON file for each run: what was run, on what, with what result | `paul run` |
# | `results/` otherwise | tables, figures, verdicts, all made from the runs | `make book` |
# | `build/` | executed notebooks and these pages | `make book` |

# %% [markdown]
# ## People who don't exist
#
# Person re-identification can be used to follow people who never agreed to it, and its data sets are photographs of
# passers-by. One of them, DukeMTMC, was withdrawn by its authors in 2019, and nothing here downloads it. The pictures
# of this book are rendered: no camera recorded them and nobody is in them. Chapter 01 shows them, and says what a
# reader who has the right to use a real set has to do.

# %% [markdown] tags=["slide"]
# ## Summary
#
# - The machine was checked; the profile fixes data, network and schedule, and is printed with every figure.
# - An idea is a statement, an equation, a few lines from scratch, a check against the library and a picture.
# - Times are measured, results are recorded as runs, and everything derived can be made again by a command.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* You are about to run this chapter with another profile: `python -m book run --chapters 00 --profile
#    smoke`. Which of its outputs will change, and which can't? Write it down, then look.
# 2. *Predict.* After how many visits is less than a hundredth of the first feature left, at $l = 0.1$? Answer first,
#    then read it off a figure that you have made long enough.
# 3. Give `remember` unit vectors that point into different directions. Is the memory a unit vector, too? (Chapter 04
#    comes back to this.)
# 4. *Break it.* Let the memory start at zero in place of the first feature. What does it hold after $t$ visits with one
#    and the same feature $x$? Which step of the five notices?
# 5. *Extend.* How old is what a memory holds? Derive the mean age of the features in $w_t$, in visits, after many
#    visits. For which $l$ is it as old as the plain mean of the last $n$ features?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# Whatever is read from `PROFILES[profile]` changes: the line with purpose and image size, and the table of differences
# from the paper. The table of the machine can't, nor can the check and the curve of the memory, which know no profile,
# nor the seconds: those are read from `book/book.toml`, where the last measurement stands for each profile.
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# What is left of the start after $t$ further visits is $(1 - l)^t$. From $0.9^t < 0.01$ follows $t > \ln 0.01 / \ln 0.9
# \approx 43.7$, so 44 visits. The figure of this chapter ends at 39, where a little over 1.6 % is left: replace the 40
# in `torch.zeros(40, 1)` by 50.
#
# ```python
# # runs alone
# left = [0.9**t for t in range(50)]
# assert next(t for t, share in enumerate(left) if share < 0.01) == 44
# assert 0.016 < left[39] < 0.017
# ```
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# No, it is shorter. By the triangle inequality $\|(1-l) w + l x\| \le (1-l) \|w\| + l \|x\| \le 1$, and the first sign
# is an equality only where $w$ and $x$ point the same way. For perpendicular ones at $l = 0.1$ the length is
# $\sqrt{0.9^2 + 0.1^2} \approx 0.906$. So the length of an entry says how much its image's features agree over time.
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# $w_0 = 0$ gives $w_t = \big(1 - (1 - l)^t\big)\, x$: the right direction, but too short until the start is forgotten.
# Step 4, the check against the library, fails at the first visit; the picture would not have caught it, since the curve
# keeps its shape. With distances it does harm: a short entry is about equally far from everything. (Adam's moments do
# start at zero, and are divided by just this factor.)
#
# ```python
# # runs alone
# import torch
#
# x, w = torch.tensor([0.6, 0.8]), torch.zeros(2)
# for t in range(1, 31):
#     w = 0.9 * w + 0.1 * x
#     torch.testing.assert_close(w, (1 - 0.9**t) * x)
# ```
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# A feature of age $a$ has the weight $l (1-l)^a$, so the mean age is $\sum_a a\, l (1-l)^a = (1-l)/l$: nine visits at
# $l = 0.1$. A plain mean of the last $n$ has ages $0, \dots, n-1$ and the mean age $(n-1)/2$. They are equal for $l =
# 2/(n+1)$; a tenth corresponds to $n = 19$.
#
# - *full*: both ages derived, and the equation solved for $l$;
# - *half*: one age derived, the other read off a simulation;
# - *some*: says that a larger $l$ forgets faster, with numbers for two values.
#
# </details>

# %% [markdown]
# ## Next
#
# Chapter 01, *The problem and the data*: what it means to find a person again, and who the people in the pictures are.

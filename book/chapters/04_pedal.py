# %% [markdown] tags=["slide"]
# # PEDAL and the patch memory bank
#
# **What you will learn**
#
# - how a memory keeps one feature for each patch of each image, and what it costs;
# - the loss that pulls a patch to its nearest patches and pushes it from all others, from scratch and as a softmax;
# - its gradient in one line, and what the scale $s$ does to it;
# - what the denominator is for, and what happens without it;
# - whose patches the nearest patches are, and why a wrong neighbour may still teach something right.
#
# Paper: Yang et al., CVPR 2019, Sec. 3.2, Fig. 3 and Fig. 6. PEDAL is its *patch-based discriminative feature learning
# loss*, $L_c$.

# %% tags=["parameters"]
profile: str = "mini"
data_dir: str = "data"
results_dir: str = "results"
models_dir: str = "build/models"
target: str = "market"
seed: int = 0

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from book.start import start
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.data.transforms import normalize, random_flip, random_shift, unit_range
from paul.experiments.profiles import PROFILES
from paul.experiments.runner import source_model
from paul.experiments.specs import Places, Spec
from paul.losses import pedal_loss, pull_loss
from paul.memory import PatchMemory
from paul.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    STYLE,
    nearest_patches,
)
from paul.report.frames import target_name
from torch.nn import functional as F

start(data_dir, profile)
plt.rcParams.update(STYLE)
torch.manual_seed(seed)
chosen, paper = PROFILES[profile], PROFILES["paper"]
options = chosen.adapt_options(target)
theirs = {name: paper.adapt_options(name).s for name in ("market", "duke")}
print(f"profile {profile}: s = {options.s}, k = {options.k}, l = {options.rate}; "
      f"the paper's s: {theirs['market']} on Market-1501, "
      f"{theirs['duke']} on DukeMTMC-reID")

# %% [markdown]
# The features of this chapter come from a PatchNet that was trained on the source people and has seen nothing of the
# target: the state in which adaptation begins. It describes the target's *validation* people. Their names are used for
# measuring and for colours, never by the loss.

# %%
people = ReidDataset.load(Path(data_dir) / chosen.folders[target])
names = ([name for name in ("val_query", "val_gallery") if name in people.splits]
         or ["train"])
splits = [people.split(name) for name in names]
frame = pd.concat([split.frame for split in splits], ignore_index=True)
images = torch.cat([load_images(split, chosen.image_size) for split in splits])
person_ids, camera_ids = (torch.tensor(frame[column].to_numpy())
                          for column in ("person_id", "camera_id"))

model, _ = source_model(Spec("paul", target, seed, profile),
                        Places(data_dir, models=models_dir))
model.to_target().eval()
device = next(model.parameters()).device


@torch.no_grad()
def features_of(pictures):
    """Unit patch features [M, N, D] of pictures [N, 3, H, W] in [0, 1]."""
    return torch.cat([model(normalize(part.to(device))).features.cpu()
                      for part in pictures.split(256)], dim=1)


features = features_of(unit_range(images))
with torch.no_grad():
    theta = torch.cat([model.theta(normalize(unit_range(part).to(device))).cpu()
                       for part in images.split(256)])
M, N, D = features.shape
print(f"{target_name(target, profile)}: {N} images of "
      f"{len(set(person_ids.tolist()))} people, M = {M}, D = {D}")

# %% [markdown] tags=["slide"]
# ## A memory for every patch
#
# > **The paper (Sec. 3.2).** To compare a patch with all patches of the training set, keep one feature for each image
# > and patch position in a memory bank. At the start it is the feature itself. Each time an image comes up, its entries
# > move a little towards the new features: $l = 0.1$ of the way.
#
# $$
# w_{j,0}^m = x_{j,0}^m, \qquad w_{j,t}^m = (1 - l)\, w_{j,t-1}^m + l\, x_{j,t}^m .
# $$
#
# $m = 1, \dots, M$ is the patch, $j = 1, \dots, N$ the image, $t$ the epoch. In a loop over the visits, which also says
# what happens when an image stands twice in one batch: it is averaged twice, in order.

# %%
def visit(bank, seen, index, x, rate=0.1):
    """bank [M, N, D] and seen (a set) after the visits index [B], x [M, B, D]."""
    for place, j in enumerate(index.tolist()):
        if j in seen:
            bank[:, j] = (1 - rate) * bank[:, j] + rate * x[:, place]
        else:
            bank[:, j] = x[:, place]
            seen.add(j)


ours, seen = torch.zeros(2, 6, 4, dtype=torch.float64), set()
library = PatchMemory(num_images=6, num_patches=2, dim=4, rate=0.1).double()
for index in ([0, 3, 5], [3, 3, 1], [5, 0, 3]):  # image 3 comes twice in one batch
    index, x = torch.tensor(index), torch.randn(2, 3, 4, dtype=torch.float64)
    visit(ours, seen, index, x)
    library.update(index, x)
    torch.testing.assert_close(library.bank, ours)
print("the bank agrees after every batch; images seen:",
      library.filled.int().tolist())

# %% [markdown]
# ### Entries get shorter (ledger 6)
#
# A feature is a unit vector. The mean of two different unit vectors is shorter than one, and neither the paper nor the
# released code brings entries back to unit length. Here are the same images visited again and again, each time mirrored
# or shifted a little, as they are during training:

# %%
#| caption: The length of a bank entry after each visit: its median, and the range
#|   of 5 to 95 % of entries.
some = unit_range(images[torch.randperm(N)[: min(N, 120)]])
generator = torch.Generator().manual_seed(seed)
memory, index = PatchMemory(len(some), M, D, options.rate), torch.arange(len(some))
lengths = []
for _ in range(12):
    seen_anew = random_shift(random_flip(some, generator), generator, 0.06)
    memory.update(index, features_of(seen_anew))
    lengths.append(memory.bank.norm(dim=2).flatten())
lengths = torch.stack(lengths)

figure, axis = plt.subplots(figsize=(6.4, 2.8))
low, middle, high = lengths.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=1)
axis.fill_between(range(1, 13), low, high, color=BLUE, alpha=0.2, linewidth=0,
                  label="5 to 95 % of entries")
axis.plot(range(1, 13), middle, color=BLUE, marker="o", markersize=4,
          label="median")
axis.set(xlabel="visit", ylabel="length of an entry",
         title="a mean of unit vectors", ylim=(None, 1.005))
axis.legend()
plt.show()

# %% [markdown]
# **You should see** the length begin at one and fall for the first ten or so visits, by a few per cent at `mini`, more
# for the patches that look different each time. In the loss a short entry lies closer to everything on the other side
# of the sphere: $\|x - w\|^2 = 1 + \|w\|^2 - 2 \langle x, w \rangle$. The option `renormalize` takes the other way.
#
# ### What the memory costs
#
# $M \cdot N \cdot D$ numbers of four bytes, and a loss that compares each patch of a batch of $B$ with all of them:

# %%
def cost(name, M, N, D, B):
    return {"training set": name, "bank, MB": 4 * M * N * D / 1e6,
            "products per step, millions": M * B * N * D / 1e6}


paper_M, paper_D = paper.network.num_patches, paper.network.dim
here_N = len(people.split("train"))
table = pd.DataFrame([
    cost(f"{target_name(target, profile)} ({profile})", M, here_N, D,
         options.batch),
    cost("Market-1501", paper_M, 12936, paper_D, 40),
    cost("DukeMTMC-reID", paper_M, 16522, paper_D, 40),
    cost("a million images", paper_M, 1_000_000, paper_D, 40),
])
table.style.hide(axis="index").format(precision=1, thousands=",")

# %% [markdown]
# It grows with the training set and not with its square: that is what makes the loss affordable. From here on the bank
# is the one of a fresh start: each entry is the feature itself.

# %%
bank = features.clone()
index = torch.arange(N)

# %% [markdown]
# ## The bank, drawn
#
# One patch of all images, from $D$ numbers down to the two directions in which they vary most.

# %%
#| caption: Entries of one patch in two dimensions: eight people in colours of their
#|   own with an anchor and its nearest on the left, and some of the images on the
#|   right.
patch = M // 2
centred = bank[patch] - bank[patch].mean(0)
directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
flat = centred @ directions.T
explained = (flat.square().sum() / centred.square().sum()).item()
flat = flat.numpy()

per_person = frame["person_id"].value_counts()
anchor = int(np.flatnonzero(frame["person_id"] == per_person.index[0])[0])
distances = (bank[patch] - features[patch, anchor]).norm(dim=1)
distances[anchor] = float("inf")
nearest = distances.argsort()[: options.k]

figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 4.9), sharex=True,
                                     sharey=True)
left.scatter(*flat.T, s=8, color="0.8", linewidths=0)
for place, person in enumerate(per_person.index[:8]):
    mine = (frame["person_id"] == person).to_numpy()
    left.scatter(*flat[mine].T, s=34, color=COLOURS[place],
                 marker="osD^v<>P"[place], label=person)
for j in nearest.tolist():
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
# **You should see**, at `mini`, images of one colour lie near each other but not on heaps of their own, and on the
# right clothes change gradually over the plane. The two directions hold a fifth to a half of the variance; lines that
# look long here can be short in full. At `smoke` people are mixed: the network is hardly trained.

# %% [markdown] tags=["slide"]
# ## The loss
#
# > **The paper (Sec. 3.2).** For each patch of an image, find its $k$ nearest entries in the bank of that patch
# > position. Pull the patch towards these and push it away from all the rest. The patch's own image takes no part.
#
# With $K_i^m$ the $k$ entries nearest to $x_i^m$,
#
# $$
# L_c^m = -\log \frac{\sum_{w_j^m \in K_i^m} \exp(-\tfrac s2 \|x_i^m - w_j^m\|^2)}
#                    {\sum_{j \ne i} \exp(-\tfrac s2 \|x_i^m - w_j^m\|^2)},
# $$
#
# and $L_c$ is the mean over the $M$ patches and the batch.

# %% tags=["implement", "slide"]
def pedal(features, bank, index, s, k):
    """L_c in loops: features [M, B, D], bank [M, N, D], index [B]."""
    losses = []
    for m in range(len(features)):
        for x, i in zip(features[m], index):
            squared = (x - bank[m]).square().sum(1)
            squared = torch.cat([squared[:i], squared[i + 1 :]])  # j != i
            similarity = torch.exp(-s / 2 * squared)
            near = squared.argsort()[:k]
            losses.append(-torch.log(similarity[near].sum() / similarity.sum()))
    return torch.stack(losses).mean()


# %%
batch = torch.randperm(N, generator=generator)[:12]
x = features[:, batch].double().requires_grad_()
ours = pedal(x, bank.double(), batch, options.s, options.k)
library = pedal_loss(x, bank.double(), batch, s=options.s, k=options.k)
torch.testing.assert_close(library, ours)
print(f"L_c of {len(batch)} images: {ours.item():.6f} from scratch, "
      f"{library.item():.6f} from the library")

# %% [markdown]
# ### The same as a softmax
#
# Call $q_j$ the softmax of $-\tfrac s2 \|x - w_j\|^2$ over all entries but the own. Then $L_c = -\log \sum_{j \in K}
# q_j$: a classification in which every image is a class and each of the $k$ nearest classes counts as right. No label
# says which ones: the features do.

# %% tags=["slide"]
#| caption: One patch's distances to the bank in order of rank, and the softmax over
#|   them at several scales; the same person is marked in green.
def softmax_over_bank(x, bank, index, s):
    """q [M, B, N], zero at the own entry."""
    scores = -s / 2 * torch.cdist(x, bank).square()
    return scores.scatter(2, index.view(1, -1, 1).expand(len(x), -1, 1),
                          -torch.inf).softmax(2)


q = softmax_over_bank(x.detach(), bank.double(), batch, options.s)
torch.testing.assert_close(-q.topk(options.k, dim=2).values.sum(2).log().mean(),
                           ours.detach())

scales = sorted({options.s, *theirs.values()})
order = distances.argsort()[: min(N - 1, 60)]
mates = (person_ids[order] == person_ids[anchor]).numpy()
figure, axes = plt.subplots(1, 1 + len(scales), figsize=(9.2, 3.0))
places = np.arange(1, len(order) + 1)
axes[0].scatter(places[~mates], distances[order][~mates], s=14, color=GREY,
                label="someone else")
axes[0].scatter(places[mates], distances[order][mates], s=22, color=GREEN,
                marker="D", label="same person")
axes[0].set(title="one patch's neighbours", ylabel="distance",
            xlabel="rank in the bank")
figure.legend(*axes[0].get_legend_handles_labels(), ncols=2,
              loc="outside lower center")
for axis, s in zip(axes[1:], scales):
    mass = softmax_over_bank(features[:, [anchor]], bank, torch.tensor([anchor]),
                             s)[patch, 0, order].numpy()
    axis.bar(places, mass, color=np.where(mates, GREEN, GREY), width=1)
    axis.set_title(f"$q$ at $s$ = {s:g}: {mass[: options.k].sum():.0%} on $K$",
                   fontsize=10)
    axis.set_xlabel("rank in the bank")
for axis in axes:
    axis.axvline(options.k + 0.5, color="black", linewidth=0.9, linestyle="--")
plt.show()

# %% [markdown]
# **You should see** the same distances, turned into steeper and steeper probabilities from left to right. Left of the
# dashed line are the $k$ nearest; the loss asks for all of the probability to be there. At the largest scale nearly all
# of it already is: such a patch has nothing to learn any more.

# %% [markdown] tags=["slide"]
# ## The gradient in one line
#
# Let $p$ be the same softmax over the $k$ nearest only. Then $L_c = \log \sum_{j \neq i} e^{a_j} - \log \sum_{j \in K}
# e^{a_j}$ with $a_j = -\tfrac s2 \|x - w_j\|^2$ and $\partial a_j / \partial x = s\,(w_j - x)$, so
#
# $$
# \frac{\partial L_c}{\partial x} = s \sum_j q_j\, (w_j - x) - s \sum_{j \in K} p_j\, (w_j - x)
#  = s \Big( \sum_j q_j w_j - \sum_{j \in K} p_j w_j \Big) .
# $$
#
# $x$ itself drops out, because $p$ and $q$ both sum to one. A step against the gradient goes from where the softmax
# looks on the whole, $\sum q w$, to where its nearest part looks, $\sum p w$.

# %%
p = torch.zeros_like(q).scatter(2, *q.topk(options.k, dim=2)[::-1])
p = p / p.sum(2, keepdim=True)
by_formula = options.s * (q @ bank.double() - p @ bank.double()) / (M * len(batch))

(by_autograd,) = torch.autograd.grad(ours, x)
(by_library,) = torch.autograd.grad(library, x)
torch.testing.assert_close(by_formula, by_autograd)
torch.testing.assert_close(by_library, by_autograd)
print("the formula, autograd through the loops and the library's "
      "hand-written backward agree")

# %% [markdown]
# ### Play with it
#
# One patch with two numbers lives on a circle, as the entries of its bank do. The page
# [PEDAL's circle](../pages/pedals_circle.md) has sliders for $s$ and $k$ and boxes for the questions to come: what if
# its own entry took part, and what if nothing pushed?
#
# <!-- widget: pedal -->
#
# ## What the scale does
#
# For every patch of every image, at scales from 1 to 100: how much probability lies on the $k$ nearest, how many
# entries share the probability ($e$ to the entropy of $q$), and how strong the gradient is.

# %% tags=["slide"]
#| caption: Over the scale $s$, each in a panel: how much of the probability lies on
#|   the $k$ nearest, how many entries share it, and how long the gradient is; the
#|   solid line is the scale used here.
sweep = np.geomspace(1, 100, 13)
rows = torch.randperm(N, generator=generator)[:200]
measured = []
for s in sweep:
    q = softmax_over_bank(features[:, rows], bank, rows, float(s))
    mass, where = q.topk(min(options.k, N - 1), dim=2)
    p = torch.zeros_like(q).scatter(2, where, mass / mass.sum(2, keepdim=True))
    measured.append({
        "mass on the $k$ nearest": mass.sum(2).mean().item(),
        "entries that share $q$": torch.special.entr(q).sum(2).exp().mean().item(),
        "length of the gradient": (s * (q - p) @ bank).norm(dim=2).mean().item(),
    })
measured = pd.DataFrame(measured, index=sweep)

figure, axes = plt.subplots(1, 3, figsize=(9.2, 2.9))
for axis, (name, values), colour in zip(axes, measured.items(),
                                        (BLUE, ORANGE, RED)):
    axis.plot(sweep, values, color=colour, marker="o", markersize=3.5)
    axis.set(xscale="log", title=name, xlabel="scale $s$", ylim=(0, None))
    for s in scales:
        axis.axvline(s, color="0.55", linewidth=0.9,
                     linestyle="-" if s == options.s else ":")
axes[1].set(yscale="log", ylim=(0.9, None))
axes[2].text(options.s, 0, f" $s$ = {options.s:g} here", rotation=90, va="bottom",
             fontsize=10, color="0.4")
plt.show()
strongest = measured["length of the gradient"].idxmax()
print(f"the gradient is strongest near s = {strongest:.1f}; "
      f"at s = {options.s:g} the {options.k} nearest hold "
      f"{np.interp(options.s, sweep, measured.iloc[:, 0]):.0%} of the probability")

# %% [markdown]
# **You should see** the mass rise from almost nothing to almost all, and the gradient rise and fall with a peak in
# between, somewhere from $s = 3$ to $s = 12$ at `mini`. To the left of the peak the softmax can't tell near from far,
# so that it pulls and pushes everything alike. To the right it is *saturated*: the nearest few hold all of the
# probability, $p$ and $q$ coincide, and the loss has nothing to say. The dotted lines are the paper's scales, chosen
# for 256 numbers per patch; the solid one is this profile's, chosen on validation people. A scale belongs to a feature
# space.

# %% [markdown]
# ## Why the own entry is left out (ledger 3)
#
# The bank is brought up to date *before* the loss is taken, so an image's own entry has just moved towards it. The
# paper leaves it out of the denominator; the released code leaves it out of both sums. What if it stayed? Views that
# are mirrored, as in training, against a bank of plain views:

# %% tags=["slide"]
#| caption: The share of the probability that a patch's own entry would take, over
#|   the scale $s$: the median, and 10 to 90 % of patches.
mirrored = features_of(unit_range(images[rows]).flip(3))
own = (1 - options.rate) * bank[:, rows] + options.rate * mirrored
taken = {}
for s in sweep:
    others = (-s / 2 * torch.cdist(mirrored, bank).square()).scatter(
        2, rows.view(1, -1, 1).expand(M, -1, 1), -torch.inf).logsumexp(2)
    mine = -s / 2 * (mirrored - own).square().sum(2)
    taken[s] = (mine - torch.logaddexp(mine, others)).exp().flatten()
low, middle, high = torch.stack(list(taken.values())).quantile(
    torch.tensor([0.1, 0.5, 0.9]), dim=1)

figure, axis = plt.subplots(figsize=(6.4, 2.8))
axis.fill_between(sweep, low, high, color=RED, alpha=0.18, linewidth=0,
                  label="10 to 90 % of patches")
axis.plot(sweep, middle, color=RED, label="median")
for s in scales:
    axis.axvline(s, color="0.55", linewidth=0.9,
                 linestyle="-" if s == options.s else ":")
axis.set(xscale="log", xlabel="scale $s$", ylabel="share of the probability",
         ylim=(0, 1))
axis.set_title("what the own entry would take")
axis.legend(loc="upper left")
plt.show()

# %% [markdown]
# **You should see** the share climb with $s$: at the paper's larger scale a patch would find most of its probability on
# itself. It would be content with being near its own past, and the loss would teach it about nobody else.

# %% [markdown]
# ## What the denominator is for
#
# The numerator alone pulls and never pushes. Is that not enough? A toy, small enough to see through: five people with
# six images each, one patch with two numbers, so that each feature is a point on a circle. No network in between: the
# points themselves move along the gradient, with a bank that follows.

# %% tags=["slide"]
#| caption: Points on a circle, step by step, a colour for each person: with pulling
#|   alone, and with pushing as well.
def on_circle(angle):
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def let_move(x, loss, steps, s, k, rate=0.1, lr=0.5):
    """Unit vectors x [M, N, D] after each step of gradient descent on the loss:
    [steps + 1, M, N, D]."""
    memory = PatchMemory(x.shape[1], len(x), x.shape[2], rate)
    index, path = torch.arange(x.shape[1]), [x]
    for _ in range(steps):
        memory.update(index, x)
        free = x.clone().requires_grad_()
        value = loss(F.normalize(free, dim=2), memory.bank, index, s=s, k=k)
        (gradient,) = torch.autograd.grad(value * x.shape[:2].numel(), free)
        x = F.normalize(x - lr / s * gradient, dim=2)
        path.append(x)
    return torch.stack(path)


generator = torch.Generator().manual_seed(0)
who = torch.arange(5).repeat_interleave(6)
angle = 2 * torch.pi * who / 5 + 0.3 * torch.randn(len(who), generator=generator)
paths = {name: let_move(on_circle(angle)[None], loss, steps=400, s=5.0, k=8)[:, 0]
         for name, loss in (("pull only", pull_loss), ("PEDAL", pedal_loss))}

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True)
for axis, (name, path) in zip(axes, paths.items()):
    turned = np.unwrap(torch.atan2(path[..., 1], path[..., 0]).numpy(), axis=0)
    turned = np.degrees(turned)
    turned = turned - 360 * np.round((turned[0] - np.degrees(angle.numpy())) / 360)
    for i, person in enumerate(who.tolist()):
        axis.plot(np.arange(len(path)) + 1, turned[:, i], color=COLOURS[person],
                  linewidth=1, alpha=0.85)
    axis.set(xscale="log", xlabel="step", title=name)
axes[0].set(ylabel="place on the circle, degrees")
plt.show()


def places_taken(x, gap=0.1):
    """Groups of points with more than `gap` radians between neighbours."""
    turn = torch.atan2(x[:, 1], x[:, 0]).sort().values
    return int(((turn.roll(-1) - turn) % (2 * torch.pi) > gap).sum())


for name, path in paths.items():
    wide = [torch.cdist(x[who == 0], x[who == 0]).mean() for x in path[[0, -1]]]
    print(f"{name}: {places_taken(path[-1])} places taken; "
          f"first person's mean distance {wide[0]:.2f} -> {wide[1]:.3f}")

# %% [markdown]
# **You should see** lines of one colour, a person, run together in both panels. With pulling alone they end in three to
# five points: people who happen to be neighbours fall into one of them, and nothing ever takes them apart again. With a
# network in between, one place for everybody is the easiest way to be near everybody. With PEDAL more places stay
# taken, people next to each other keep apart, and some people end as two groups: the push acts on whoever is not among
# the nearest, mates included. Table 3 of this book has the pull-only loss as a row of its own, which the paper doesn't
# have.

# %% [markdown] tags=["slide"]
# ## Pulling images, or pulling patches?
#
# > **The paper (Fig. 3).** Similar images may show different people; pulling them together makes one person of them.
# > Pull their *patches*: those that are alike come together, those that differ stay apart, and so do the people.
#
# A toy again. Nine people in three garments each (head, top, legs), with three kinds of each garment. So everyone
# shares garments with others and nobody shares all three. Four images each, with noise. A patch is a point on the
# circle of its garment, an image all three side by side. Each is pulled to its eight nearest, more than a person has
# images.

# %% tags=["slide"]
#| caption: Three kinds of patches on circles before (inside) and after (on the
#|   circle) they are pulled, and whole images in two dimensions before and after,
#|   coloured by person.
generator = torch.Generator().manual_seed(1)
outfits = torch.cartesian_prod(*[torch.arange(3)] * 3)
outfits = outfits[torch.randperm(27, generator=generator)[:9]]
who = torch.arange(9).repeat_interleave(4)
patches = on_circle(2 * torch.pi * outfits[who].T / 3
                    + 0.4 * torch.randn(3, len(who), generator=generator))


def as_image(x):
    """Patches [M, N, D] side by side, of unit length: [1, N, M * D]."""
    return x.transpose(0, 1).flatten(1)[None] / len(x) ** 0.5


pulled_patches = let_move(patches, pull_loss, steps=200, s=10.0, k=8)[-1]
pulled_images = let_move(as_image(patches), pull_loss, steps=200, s=10.0, k=8)[-1]
outcomes = {"at the start": as_image(patches)[0],
            "patches pulled": as_image(pulled_patches)[0],
            "images pulled": pulled_images[0]}


def own_neighbours(x, who, count=3):
    """Share of each image's nearest that show the same person."""
    distance = torch.cdist(x, x).fill_diagonal_(torch.inf)
    return (who[distance.topk(count, largest=False).indices]
            == who[:, None]).float().mean().item()


figure, axes = plt.subplots(1, 6, figsize=(9.2, 2.5),
                            width_ratios=[1, 1, 1, 1.35, 1.35, 1.35])
for m, (axis, name) in enumerate(zip(axes, ("head", "top", "legs"))):
    axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.85"))
    for person in range(9):
        style = {"color": plt.cm.tab10(person), "s": 16, "linewidths": 0}
        axis.scatter(*(0.72 * patches[m, who == person]).T, alpha=0.45, **style)
        axis.scatter(*pulled_patches[m, who == person].T, **style)
    axis.set(aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), xticks=[],
             yticks=[], title=f"{name} patches")
    axis.spines[:].set_visible(False)
base = outcomes["at the start"].mean(0)
plane = torch.linalg.svd(outcomes["at the start"] - base,
                         full_matrices=False).Vh[:2]
for axis, (name, x) in zip(axes[3:], outcomes.items()):
    axis.scatter(*((x - base) @ plane.T).T, c=who, cmap="tab10", vmin=0, vmax=9,
                 s=20, linewidths=0)
    axis.set(xticks=[], yticks=[],
             xlabel=f"{own_neighbours(x, who):.0%} own neighbours", title=name)
plt.show()

# %% [markdown]
# **You should see**, on the three circles, patches before (inside, pale) and after (on the circle): they meet at one
# place per kind of garment, whoever wears it, and that is right, because it *is* the same garment. On the right whole
# images in two dimensions, coloured by person. After their patches were pulled, nine separate people remain, tighter
# than before, with 90 to 100 % of the nearest images being the person's own. After the images were pulled, people who
# share two garments are one heap. Both were pulled with the same loss, scale and number of neighbours.

# %% [markdown]
# ## Whose patches are the nearest? (Fig. 6)
#
# > **The paper (Fig. 6)** shows patches beside those that the trained network finds nearest to them: mostly the same
# > person's, and where they are not, they look the same.
#
# The same here, before any adaptation. The frame is the patch that was compared, and a tick marks the same person.

# %% tags=["slide"]
#| caption: Three images, each before the eight whose first patch lies nearest; the
#|   patch is framed, and a tick marks the same person.
three = per_person.index[[0, len(per_person) // 3, -1]]
several = [int(np.flatnonzero(frame["person_id"] == person)[0]) for person in three]
nearest_patches(images, theta, features, several, patch=1, count=8,
                person_ids=person_ids)

# %%
#| caption: The same three images by their last patch.
nearest_patches(images, theta, features, several, patch=M - 1, count=8,
                person_ids=person_ids)

# %% [markdown]
# **You should see**, at `mini`, ticks on a third to three quarters of the images, and others in clothes of the same
# kind or colour where the frame is. The frames of the first and of the last patch overlap, so they have some neighbours
# in common; at `smoke` the ticks are few.
#
# How often is a neighbour the same person, and if it isn't, does it at least wear the same? The $k$ nearest over all
# images, without those of the same person from the same camera, which would be too easy:

# %% tags=["slide"]
#| caption: Patch by patch, how often a neighbour is the same person, or wears the
#|   same top or bottom; on the right the same of neighbours that are somebody else.
#|   Black marks are chance.
def labels(*columns):
    return torch.tensor(np.unique(frame[list(columns)].agg(" ".join, axis=1),
                                  return_inverse=True)[1])


truths = {"same person": person_ids}
if "top_colour" in frame:  # only the renderer knows
    truths |= {"same top": labels("top", "top_colour"),
               "same bottom": labels("bottom", "bottom_colour")}
easy = (person_ids[:, None] == person_ids) & (camera_ids[:, None] == camera_ids)
spaces = ({f"patch {m + 1}": features[m] for m in range(M)}
          | {"all patches": features.transpose(0, 1).flatten(1)})
agreement, of_others = {}, {}
for name, x in spaces.items():
    distance = torch.cdist(x, x).masked_fill(easy, torch.inf)
    neighbours = distance.topk(min(options.k, N - 1), largest=False).indices
    alike = {truth: label[neighbours] == label[:, None]
             for truth, label in truths.items()}
    agreement[name] = {truth: hit.float().mean().item()
                       for truth, hit in alike.items()}
    of_others[name] = {truth: hit[~alike["same person"]].float().mean().item()
                       for truth, hit in alike.items()}
other = person_ids[:, None] != person_ids
chance, chance_of_others = (
    {truth: (label[:, None] == label)[pairs].float().mean().item()
     for truth, label in truths.items()}
    for pairs in (~easy, other))
agreement, of_others = (pd.DataFrame(agreement).T,
                        pd.DataFrame(of_others).T.drop(columns="same person"))

panels = [(agreement, chance, f"all {options.k} nearest")]
if len(truths) > 1:
    panels.append((of_others, chance_of_others,
                   "only those nearest that show somebody else"))
figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.3),
                            sharey=True, squeeze=False)
for axis, (values, expected, title) in zip(axes[0], panels):
    for place, truth in enumerate(values):
        colour = dict(zip(truths, (GREEN, BLUE, ORANGE)))[truth]
        middle = np.arange(len(values)) + 0.27 * (place - (values.shape[1] - 1) / 2)
        axis.bar(middle, values[truth], width=0.25, color=colour, label=truth)
        axis.plot(middle, [expected[truth]] * len(values), "_", color="black",
                  markersize=8)
    axis.set_xticks(range(len(values)),
                    [name.removeprefix("patch ") for name in values.index])
    axis.set(xlabel="patch", title=title)
axes[0, 0].set_ylabel("share of neighbours")
axes[0, 0].legend(ncols=3, fontsize=10, loc="upper left", handlelength=1)
axes[0, 0].set_ylim(0, 1.15 * agreement.to_numpy().max())
plt.show()
agreement.style.format("{:.1%}")

# %% [markdown]
# **You should see**, at `mini`, single patches whose nearest are the right person a little less often than those of all
# patches together, by 0 to 15 points: one patch knows less than the whole image. The panel on the right looks at the
# neighbours that are *wrong*: many times as many as by chance (black marks) wear the same top or bottom. Pulled towards
# these, a patch learns what its garment looks like from another camera, and that is worth learning whoever wears it.
#
# The last group of bars says that the same is true of whole images: their wrong neighbours, too, are people in similar
# clothes. The difference is what a pull does to them, as in the toy. It makes equal what is compared. For an image that
# is the whole person; for a patch it is one part, and the other patches may still tell the two apart.
#
# Patches that overlap as much as the trained PGN's are a weaker case of this than the toy's three garments. Whether it
# works out is a question for chapters 06 and 08; this is only why it may.

# %% [markdown] tags=["slide"]
# ## Summary
#
# - The bank keeps $M$ features per training image as moving averages; it grows linearly with the set.
# - $L_c$ is the negative logarithm of the probability that a softmax over the bank gives to the $k$ nearest entries.
# - Its gradient is $s$ times the difference of two means of the bank; at a large $s$ both means coincide and nothing is
#   learned.
# - Without the denominator features fall together; without leaving out the own entry they look only at themselves.
# - Wrong neighbours tend to wear the same garments. Pulling a patch towards them makes one part alike, pulling the
#   image makes the people alike.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* What is $L_c$ when $k \geq N - 1$? And for a patch at the same distance from all entries? (First put
#    everything into $K$; then count the terms.)
# 2. In `let_move` replace `pull_loss` by `pedal_loss` for the nine people. The patches of one kind of garment are torn
#    apart. How many images share a garment, and how large is $k$? What would a network do that free points can't? (Two
#    inputs that look the same.)
# 3. Derive the gradient with respect to an entry $w_j$ instead of $x$. Why doesn't the method use it? (What would have
#    to be kept for each entry, and how old is it?)
# 4. With unit vectors, show that leaving $\|x\|^2$ out of the squared distances changes nothing, but that leaving
#    $\|w_j\|^2$ out does once entries get shorter. Which entries would then be favoured?
# 5. *Break it.* Keep the own entry: strike the line with `# j != i` from `pedal`. For $k = 1$ and an entry that has
#    just moved towards its image, where does the gradient point now?
# 6. *Extend.* Replace "the $k$ nearest" by "all within a distance $\rho$". Write the loss, say what becomes of a patch
#    with nobody within $\rho$, and what $\rho$ would have to be chosen by.
# 7. *Implement.* Write `pedal` in loops. What are the own entry's place in the bank and its place in the batch called
#    here, and what goes wrong when they are mixed up?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# For $k \ge N - 1$ both sums run over all others: $L_c = -\log 1 = 0$, and there is nothing to learn. At equal
# distances all $N - 1$ terms are the same, $k$ of them stand above the line, and $L_c = \log \frac{N - 1}{k}$, whatever
# $s$ is. Between these two lies all that training can do; *Table 3 in detail* measures the loss in units of the second.
#
# ```python
# # runs alone
# import torch
# from paul.losses import pedal_loss
#
# x, bank = torch.zeros(1, 1, 9), torch.eye(9)[None]  # 0 is as far from all of them
# for k, expected in ((8, 0.0), (9, 0.0), (2, 4.0)):
#     loss = pedal_loss(x, bank, torch.tensor([0]), s=5.0, k=k)
#     wanted = torch.tensor(expected).log() if expected else torch.zeros(())
#     torch.testing.assert_close(loss, wanted, atol=1e-5, rtol=0)
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# Nine people, four images each, in three kinds of each garment: twelve images to a kind on average, from four to twenty
# in this draw (count `outfits` column by column). Where more than nine share a kind, $k = 8$ leaves some of those who
# wear the same to the denominator alone, and they are pushed away. Free points can follow, each by itself. A network
# can't: two inputs that look the same get the same feature, and a push between features that coincide has no direction.
# So a $k$ below the size of the true group costs a network less than it costs this toy.
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# With $a_j = -\frac s2 \|x - w_j\|^2$ we have $\partial a_j / \partial w_j = s (x - w_j)$, and from
# $L_c = \log \sum_j e^{a_j} - \log \sum_{j \in K} e^{a_j}$
#
# $$
# \frac{\partial L_c}{\partial w_j} = s\, (q_j - p_j)\, (x - w_j), \qquad p_j = 0 \text{ for } j \notin K .
# $$
#
# An entry isn't a parameter but a record of what the network said. To pass this gradient on to the weights, the image's
# activations would have to be kept for each entry, computed by weights that are up to an epoch old. And if the entries
# themselves moved along it, the loss would fall without the network having learned anything.
#
# ```python
# # runs alone
# import torch
#
# s, k = 5.0, 3
# x, w = torch.randn(4), torch.randn(10, 4, requires_grad=True)
# a = -s / 2 * (x - w).square().sum(1)
# near = a.topk(k).indices
# (a.logsumexp(0) - a[near].logsumexp(0)).backward()
# with torch.no_grad():
#     q, p = a.softmax(0), torch.zeros(10)
#     p[near] = a[near].softmax(0)
#     torch.testing.assert_close(w.grad, s * (q - p)[:, None] * (x - w),
#                                atol=1e-4, rtol=1e-4)
# ```
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# $e^{-\frac s2 \|x\|^2}$ is a factor of every term, above and below the line: it cancels, and the order of the entries
# doesn't hang on it. $e^{-\frac s2 \|w_j\|^2}$ differs from term to term unless all $w_j$ are equally long. Without it
# the score of entry $j$ is larger by $\frac s2 \|w_j\|^2$: long entries are favoured, those of images whose features
# hardly changed from visit to visit. The short ones, of images that look different each time, lose neighbours.
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# Towards the image's own past. With $k = 1$ the own entry is the nearest, so $K = \{i\}$, $p_i = 1$, and the gradient
# is $s(\sum_j q_j w_j - w_i)$: a step against it pulls the patch to itself and pushes it from everybody else, its
# person's other images included. That can be had without learning anything about others. With larger $k$ one of the $k$
# places is wasted in the same way, and at a large $s$ nearly all of the probability.
#
# ```python
# # runs alone
# import torch
# from torch.nn import functional as F
#
# torch.manual_seed(0)
# bank = F.normalize(torch.randn(50, 8), dim=1)
# x = F.normalize(bank[0] + 0.2 * torch.randn(8), dim=0).requires_grad_()
# to_itself = {}
# for name, first in (("kept", 0), ("left out", 1)):
#     a = -5 * (x - bank[first:]).square().sum(1)
#     (gradient,) = torch.autograd.grad(a.logsumexp(0) - a.max(), x)
#     past = bank[0] - x.detach()
#     to_itself[name] = F.cosine_similarity(-gradient, past, dim=0).item()
# assert to_itself["kept"] > 0.5 > 0 > to_itself["left out"]
# ```
#
# </details>
#
# <details><summary>Solution 6</summary>
#
# Only the line that picks changes. A patch with nobody within $\rho$ has an empty numerator, $-\log 0$: it must be left
# out of the mean, or fall back to its nearest. A fixed $k$ asks everyone for equally many friends; a fixed $\rho$ gives
# many to common clothes and none to rare ones, and as features spread or gather, the same $\rho$ means another thing.
# So it has to be set in units that move along, such as a quantile of the distances of the day.
#
# ```python
# # runs alone
# import torch
#
#
# def pedal_within(x, bank, own, s, radius):
#     """x [D], bank [N, D] -> the loss of one patch, or None: nobody is near."""
#     squared = (x - bank).square().sum(1)
#     others = torch.arange(len(bank)) != own
#     near = others & (squared < radius**2)
#     if not near.any():
#         return None
#     a = -s / 2 * squared
#     return a[others].logsumexp(0) - a[near].logsumexp(0)
#
#
# bank = torch.eye(6)
# assert pedal_within(bank[0], bank, 0, 5.0, radius=1.0) is None
# everybody = pedal_within(bank[0], bank, 0, 5.0, radius=2.0)
# torch.testing.assert_close(everybody, torch.zeros(()))
# ```
#
# - *full*: loss, empty case, a rule for $\rho$, and a comparison with the $k$ nearest at equal mean number of friends;
# - *half*: loss and empty case, with $\rho$ tried by hand;
# - *some*: the loss, which ends in "not a number" for lonely patches.
#
# </details>
#
# <details><summary>Solution 7</summary>
#
# `index[b]` is the place in the bank, `b` the place in the batch. Leaving out entry `b` removes a stranger and keeps
# the own entry, which Exercise 5 is about; as long as `index` is 0, 1, 2, ... nobody notices, so test with a shuffled
# one. Other mistakes that the grader looks for: $s$ without its half, neighbours from the farthest end, one bank for
# all patches, a sum in place of a mean.
#
# </details>

# %% [markdown]
# ## Next
#
# Chapter 05, *IPFL and cyclic ranking*: what all patches of an image together can learn from each other.

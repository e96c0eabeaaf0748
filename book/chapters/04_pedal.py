# %% [markdown] tags=["slide"]
# # PEDAL and the patch memory bank
#
# **What you will learn**
#
# - how a memory keeps one feature for each patch of each image;
# - the loss that pulls a patch to its nearest patches and pushes it from all others, from scratch and as a softmax;
# - its gradient in one line, what the scale $s$ does to it, and what own entry and denominator have to do with it;
# - whose patches the nearest patches are, before and after adaptation.
#
# Paper: Yang et al., CVPR 2019, Sec. 3.2, Figs. 3 and 6. PEDAL, its *patch-based discriminative feature learning loss*.

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
from paul import plots
from paul.data.transforms import normalize, random_flip, random_shift, unit_range
from paul.experiments.profiles import PROFILES
from paul.experiments.runner import source_model
from paul.experiments.specs import Places, Spec
from paul.losses import pedal_loss, pull_loss
from paul.memory import PatchMemory
from paul.plots import BLUE, ORANGE, RED
from torch.nn import functional as F

start(data_dir, profile)
plt.rcParams.update(plots.STYLE)
torch.manual_seed(seed)
generator = torch.Generator().manual_seed(seed)
paper = PROFILES["paper"]
options = PROFILES[profile].adapt_options(target)
theirs = {name: paper.adapt_options(name).s for name in ("market", "duke")}
print(f"s = {options.s}, k = {options.k}, l = {options.rate}; paper's s: {theirs}")

# %% [markdown]
# The features come from a PatchNet that was trained on the source people alone: the state in which adaptation begins.
# It describes the target's *validation* people, whose names serve to measure and to colour, never the loss.

# %%
frame, images = validation_people(data_dir, profile, target)
person_ids = torch.tensor(frame["person_id"].to_numpy())


@torch.no_grad()
def seen_by(network, pictures):
    """Patch features [M, N, D] and places theta [N, M, 2, 3] of [N, 3, H, W]."""
    device = next(network.eval().parameters()).device
    parts = [normalize(part.to(device)) for part in pictures.split(256)]
    return (torch.cat([network(part).features.cpu() for part in parts], dim=1),
            torch.cat([network.theta(part).cpu() for part in parts]))


model, _ = source_model(Spec("paul", target, seed, profile),
                        Places(data_dir, models=models_dir))
features, theta = seen_by(model.to_target(), unit_range(images))
M, N, D = features.shape

# %%
#| caption: PatchNet with this chapter's part lit: patch features, their memory bank
#|   and the loss between them.
plots.network_drawing(model, images[0], lit=("features", "L_c"))

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
# $m = 1, \dots, M$ is the patch, $j = 1, \dots, N$ the image, $t$ the epoch. An image that stands twice in one batch is
# averaged twice, in order:

# %%
def visit(bank, seen, index, x, rate=0.1):
    """bank [M, N, D] and seen (a set) after the visits index [B], x [M, B, D]."""
    for place, j in enumerate(index.tolist()):
        first = j not in seen
        bank[:, j] = x[:, place] if first else (
            (1 - rate) * bank[:, j] + rate * x[:, place])
        seen.add(j)


ours, seen = torch.zeros(2, 6, 4, dtype=torch.float64), set()
library = PatchMemory(num_images=6, num_patches=2, dim=4, rate=0.1).double()
for index in ([0, 3, 5], [3, 3, 1], [5, 0, 3]):  # image 3 comes twice in one batch
    index, x = torch.tensor(index), torch.randn(2, 3, 4, dtype=torch.float64)
    visit(ours, seen, index, x)
    library.update(index, x)
    torch.testing.assert_close(library.bank, ours)

# %% [markdown]
# ### Entries get shorter (ledger 6)
#
# The mean of two different unit vectors is shorter than one, and neither the paper nor the released code brings entries
# back to unit length. How fast do they shrink? The same images, mirrored or shifted at each visit as in training:

# %%
bank = features.clone()  # of a fresh start, for all that follows
some = unit_range(images[torch.randperm(N, generator=generator)[: min(N, 120)]])
memory, index = PatchMemory(len(some), M, D, options.rate), torch.arange(len(some))
print("median length, visit by visit:", end="")
for _ in range(8):
    view = random_shift(random_flip(some, generator), generator, 0.06)
    memory.update(index, seen_by(model, view)[0])
    print(f" {memory.bank.norm(dim=2).median():.3f}", end="")
print(f"\nthe paper's bank on Market-1501: {4 * 6 * 12936 * 256 / 1e6:.0f} MB")

# %% [markdown]
# In the loss a short entry lies nearer to everything on the other side of the sphere: $\|x - w\|^2 = 1 + \|w\|^2 - 2
# \langle x, w \rangle$. The option `renormalize` takes the other way. The bank, $M \cdot N \cdot D$ numbers, grows with
# the training set and not with its square: that makes the loss affordable. The appendix *A closer look at patches*
# draws it, and how the loss turns distances into probabilities.

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


# %% [markdown]
# It is a softmax in disguise. With $q_j$ the softmax of $-\tfrac s2 \|x - w_j\|^2$ over all entries but the own, $L_c =
# -\log \sum_{j \in K} q_j$: a classification in which every image is a class and each of the $k$ nearest classes counts
# as right. No label says which ones: the features do.

# %%
def softmax_over_bank(x, bank, index, s):
    """q [M, B, N], zero at the own entry."""
    scores = -s / 2 * torch.cdist(x, bank).square()
    return scores.scatter(2, index.view(1, -1, 1).expand(len(x), -1, 1),
                          -torch.inf).softmax(2)


batch = torch.randperm(N, generator=generator)[:12]
x = features[:, batch].double().requires_grad_()
ours = pedal(x, bank.double(), batch, options.s, options.k)
library = pedal_loss(x, bank.double(), batch, s=options.s, k=options.k)
torch.testing.assert_close(library, ours)
q = softmax_over_bank(x.detach(), bank.double(), batch, options.s)
torch.testing.assert_close(-q.topk(options.k, dim=2).values.sum(2).log().mean(),
                           ours.detach())
print(f"L_c of 12 images in loops, as a softmax, by the library: {ours:.6f}")

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
mass, where = q.topk(options.k, dim=2)
p = torch.zeros_like(q).scatter(2, where, mass / mass.sum(2, keepdim=True))
by_formula = options.s * (q @ bank.double() - p @ bank.double()) / (M * len(batch))
(by_autograd,) = torch.autograd.grad(ours, x)
torch.testing.assert_close(by_formula, by_autograd)
torch.testing.assert_close(torch.autograd.grad(library, x)[0], by_autograd)

# %% [markdown]
# ## What the scale does
#
# First play: on the page [PEDAL's circle](../pages/pedals_circle.md) a patch and its bank live on a circle, with
# sliders for $s$ and $k$ and boxes for the own entry and the push.
#
# <!-- widget: pedal -->
#
# Then measure how much probability lies on the $k$ nearest, how strong the gradient is, and what the *own* entry would
# take if it were kept. It has just moved towards the image, since the bank is brought up to date first; so the paper
# leaves it out of the denominator, the released code out of both sums (ledger 3). Which shape has the middle curve?

# %% tags=["slide"]
#| caption: Means over the scale $s$: probability on the $k$ nearest, length of the
#|   gradient, what the own entry would take; solid is our scale, dotted the paper's.
sweep, scales = np.geomspace(1, 100, 13), {options.s, *theirs.values()}
rows = torch.randperm(N, generator=generator)[:200]
mirrored, _ = seen_by(model, unit_range(images[rows]).flip(3))
own = (1 - options.rate) * bank[:, rows] + options.rate * mirrored
measured = []
for s in sweep:
    q = softmax_over_bank(mirrored, bank, rows, float(s))
    mass, where = q.topk(min(options.k, N - 1), dim=2)
    p = torch.zeros_like(q).scatter(2, where, mass / mass.sum(2, keepdim=True))
    near = torch.cdist(mirrored, bank).gather(2, where)[..., 0].square()
    odds = s / 2 * (near - (mirrored - own).square().sum(2)) + mass[..., 0].log()
    measured.append({"on the $k$ nearest": mass.sum(2).mean().item(),
                     "gradient": (s * (q - p) @ bank).norm(dim=2).mean().item(),
                     "own entry": odds.sigmoid().mean().item()})
measured = pd.DataFrame(measured, index=sweep)
axes = measured.plot(subplots=True, layout=(1, 3), figsize=(9.2, 2.7), logx=True,
                     color=[BLUE, RED, ORANGE], legend=False, marker="o",
                     title=list(measured), xlabel="scale $s$")
for axis in axes.flat:
    axis.set_ylim(0)
    for s in scales:
        axis.axvline(s, color="0.5", linewidth=0.9,
                     linestyle="-" if s == options.s else ":")
plt.show()

# %% [markdown]
# At a small $s$ the softmax can't tell near from far, and pulls and pushes everything alike. At a large one it is
# *saturated*: the nearest few hold all of the probability, $p$ and $q$ coincide, and the loss has nothing to say; had
# the own entry stayed, a patch would be content with its own past. A scale belongs to a feature space: the paper's were
# chosen for 256 numbers a patch, this profile's on validation people.

# %% [markdown]
# ## What the denominator is for
#
# The numerator alone pulls and never pushes. Is that not enough? A toy: five people with six images each, one patch
# with two numbers, so that each feature is a point on a circle. No network in between: the points themselves move along
# the gradient, and a bank follows.

# %% tags=["slide"]
#| caption: Points at the start (inside) and at the end (on the circle), a colour for
#|   each person: with pulling alone, and with pushing as well.
def on_circle(angle):
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def let_move(x, loss, steps, s, k, rate=0.1, lr=0.5):
    """Unit vectors x [M, N, D] after that many steps of descent on a loss."""
    memory = PatchMemory(x.shape[1], len(x), x.shape[2], rate)
    index = torch.arange(x.shape[1])
    for _ in range(steps):
        memory.update(index, x)
        free = x.clone().requires_grad_()
        value = loss(F.normalize(free, dim=2), memory.bank, index, s=s, k=k)
        (gradient,) = torch.autograd.grad(value * x.shape[:2].numel(), free)
        x = F.normalize(x - lr / s * gradient, dim=2)
    return x


toy = torch.Generator().manual_seed(0)
who = torch.arange(5).repeat_interleave(6)
begin = on_circle(2 * torch.pi * who / 5 + 0.3 * torch.randn(30, generator=toy))
figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.2))
for axis, name, loss in zip(axes, ("pull only", "PEDAL"), (pull_loss, pedal_loss)):
    end = let_move(begin[None], loss, steps=400, s=5.0, k=8)[0]
    axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.85"))
    for x, size in ((0.75 * begin, 12), (end, 60)):
        axis.scatter(*x.T, c=who, cmap="tab10", vmax=9, s=size, alpha=0.7)
    axis.set(xticks=[], yticks=[], aspect="equal", title=name)
plt.show()

# %% [markdown] **You should see** a person's points run together on both circles. With pulling alone, people who happen
# to be neighbours fall into one place, and nothing takes them apart again; with a network in between, one place for
# everybody is the easiest way to be near everybody. PEDAL keeps more of them apart and splits some people: the push
# acts on whoever is not among the nearest, mates included. Our Table 3 has the pull-only loss as a row of its own.

# %% [markdown] tags=["slide"]
# ## Pulling images, or pulling patches?
#
# > **The paper (Fig. 3).** Similar images may show different people; pulling them together makes one person of them.
# > Pull their *patches*: those that are alike come together, those that differ stay apart, and so do the people.
#
# Nine people in three garments each, three kinds of each: everyone shares garments, nobody shares all three. Four
# images each, with noise. A patch is a point on the circle of its garment, an image all three side by side; each is
# pulled to its eight nearest, more than a person has images.

# %% tags=["slide"]
#| caption: Whole images in two dimensions, a colour for each person: at the start,
#|   after their patches were pulled, after whole images were pulled.
toy = torch.Generator().manual_seed(1)
outfits = torch.cartesian_prod(*[torch.arange(3)] * 3)
outfits = outfits[torch.randperm(27, generator=toy)[:9]]
who = torch.arange(9).repeat_interleave(4)
patches = on_circle(2 * torch.pi * outfits[who].T / 3
                    + 0.4 * torch.randn(3, len(who), generator=toy))


def as_image(x):
    """Patches [M, N, D] side by side, of unit length: [1, N, M D]."""
    return x.transpose(0, 1).flatten(1)[None] / len(x) ** 0.5


pull = dict(loss=pull_loss, steps=200, s=10.0, k=8)
outcomes = {"at the start": as_image(patches)[0],
            "patches pulled": as_image(let_move(patches, **pull))[0],
            "images pulled": let_move(as_image(patches), **pull)[0]}
base = outcomes["at the start"].mean(0)
plane = torch.linalg.svd(outcomes["at the start"] - base).Vh[:2]
figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.0))
for axis, (name, x) in zip(axes, outcomes.items()):
    near = torch.cdist(x, x).fill_diagonal_(torch.inf).argsort()[:, :3]
    mine = (who[near] == who[:, None]).float().mean()
    axis.scatter(*((x - base) @ plane.T).T, c=who, cmap="tab10", vmax=9, s=24)
    axis.set(xticks=[], yticks=[], title=name, xlabel=f"{mine:.0%} own neighbours")
plt.show()

# %% [markdown]
# Both were pulled with the same loss, scale and number of neighbours. Patches of one kind of garment meet, whoever
# wears it, and rightly so: it *is* the same garment. The people stay nine. Pull the images, and people who share two
# garments are one heap.

# %% [markdown] tags=["slide"]
# ## Whose patches are the nearest?
#
# Three people, each before the eight whose second patch lies nearest, before any adaptation: the paper's Fig. 6 at its
# start, whose end is in chapter 06. The frame is the patch that was compared, the number its distance, and a tick marks
# the same person. What do the others have in common with the anchor?

# %% tags=["slide"]
#| caption: Before adaptation: three images, each before the eight whose second patch
#|   lies nearest.
three = [0, N // 3, N - 1]
plots.nearest_patches(images, theta, features, three, patch=1, count=8,
                      person_ids=person_ids)

# %% [markdown]
# A wrong neighbour may wear the same garment; the appendix counts how often. Pulled towards it, a patch learns what
# that garment looks like from another camera, and that is worth learning whoever wears it. A pull makes equal what is
# compared: for an image that is the whole person, for a patch one part, and the others may still tell the two apart.
# Whether it works out is a question for chapter 06 and for Table 3; this is only why it may.

# %% [markdown] tags=["slide"]
# ## Summary
#
# - The bank keeps $M$ features per training image as moving averages; it grows linearly with the set.
# - $L_c$ is the negative logarithm of the probability that a softmax over the bank gives to the $k$ nearest entries.
# - Its gradient is $s$ times the difference of two means of the bank; at a large $s$ both coincide.
# - Without the denominator features fall together; with the own entry they look only at themselves.
# - Pulling a patch towards a wrong neighbour makes one part alike, pulling the image makes the people alike.
#
# Next, chapter 05: what all patches of an image together can learn from each other.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* What is $L_c$ when $k \geq N - 1$? And for a patch at the same distance from all entries?
# 2. In `let_move` replace `pull_loss` by `pedal_loss` for the nine people. The patches of one kind of garment are torn
#    apart. How many images share a garment, and how large is $k$? What would a network do that free points can't?
# 3. Derive the gradient with respect to an entry $w_j$ instead of $x$. Why doesn't the method use it?
# 4. *Break it.* Keep the own entry: strike the line with `# j != i` from `pedal`. For $k = 1$ and an entry that has
#    just moved towards its image, where does the gradient point now?
# 5. *Extend.* Replace "the $k$ nearest" by "all within a distance $\rho$". What becomes of a patch with nobody within
#    $\rho$, and what would $\rho$ have to be chosen by?
# 6. *Implement.* Write `pedal` in loops. What goes wrong when places in the bank and in the batch are mixed up?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# For $k \ge N - 1$ both sums run over all others: $L_c = 0$, and there is nothing to learn. At equal distances all
# $N - 1$ terms are the same and $L_c = \log \frac{N - 1}{k}$, whatever $s$ is. Between these two lies all that training
# can do; the chapter of Table 3 measures the loss in units of the second.
#
# ```python
# # runs alone
# import torch
# from paul.losses import pedal_loss
#
# x, bank = torch.zeros(1, 1, 9), torch.eye(9)[None]  # 0 is as far from all of them
# loss = pedal_loss(x, bank, torch.tensor([0]), s=5.0, k=2)
# torch.testing.assert_close(loss, torch.tensor(8 / 2).log())
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# Thirty-six images in three kinds of each garment: twelve to a kind on average. Where more than nine share a kind,
# $k = 8$ leaves some to the denominator alone, and they are pushed away. Free points can follow. A network gives two
# inputs that look the same one feature, and a push between features that coincide has no direction.
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# $\partial L_c / \partial w_j = s\, (q_j - p_j)\, (x - w_j)$, where $p_j = 0$ for $j \notin K$. An entry is no
# parameter but a record: to pass this on to the weights, its activations would have to be kept, up to an epoch old; and
# if the entries themselves moved, the loss would fall without the network having learned anything.
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# Towards the image's own past. With $k = 1$ the own entry is the nearest, so $K = \{i\}$ and a step against the
# gradient $s(\sum_j q_j w_j - w_i)$ pulls the patch to itself and pushes it from everybody else, its person's images
# included.
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# Only the line that picks changes: `near = squared < radius**2`. With nobody within $\rho$ the numerator is empty,
# $-\log 0$: leave the patch out of the mean, or fall back to its nearest. A fixed $\rho$ gives many friends to common
# clothes and none to rare ones, and as features spread or gather it means another thing: take a quantile of distances.
#
# - *full*: loss, empty case, a rule for $\rho$, and a comparison with the $k$ nearest at equal mean number of friends;
# - *half*: loss and empty case, with $\rho$ tried by hand;
# - *some*: the loss, which ends in "not a number" for lonely patches.
#
# </details>
#
# <details><summary>Solution 6</summary>
#
# Leaving out entry `b` in place of `index[b]` removes a stranger and keeps the own entry; as long as `index` is 0, 1,
# 2, ... nobody notices. Others: $s$ without its half, the farthest for the nearest, one bank for all, a sum for a mean.
#
# </details>

# %% [markdown] tags=["slide"]
# # IPFL and cyclic ranking
#
# **What you will learn**
#
# - what a surrogate is, and what two readings of "a random transformation" look like;
# - in which space images are compared, and with what: images, or moving centres of images;
# - how cyclic ranking finds a negative without labels, on a toy and on a real batch;
# - how often that negative is truly another person, against simply taking the nearest;
# - the corners of the loss: no negative found, and a square root at zero.
#
# Paper: Yang et al., CVPR 2019, Sec. 3.3 and Fig. 4. IPFL is its *image-level patch feature learning loss*, $L_v$.

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
from paul.data.transforms import normalize, surrogates, unit_range
from paul.experiments.profiles import PROFILES
from paul.experiments.runner import source_model
from paul.experiments.specs import Places, Spec
from paul.losses import cyclic_ranking, ipfl_loss
from paul.memory import ImageCenters
from paul.patchnet import concatenate
from paul.plots import BLUE, GREY, ORANGE, RED, draw_on, image_grid
from torch.nn import functional as F

start(data_dir, profile)
plt.rcParams.update(plots.STYLE)
torch.manual_seed(seed)
chosen, paper = PROFILES[profile], PROFILES["paper"].adapt
options = chosen.adapt_options(target)
print(f"margin {options.margin}, r = {options.r}, surrogates: "
      f"{options.surrogate}; the paper: margin {paper.margin}, r = {paper.r}")

# %% [markdown]
# As in chapter 04: a PatchNet fresh from the source, and validation people, whose names serve to measure alone.

# %%
frame, images = validation_people(data_dir, profile, target)
person_ids = torch.tensor(frame["person_id"].to_numpy())
N = len(images)
model, _ = source_model(Spec("paul", target, seed, profile),
                        Places(data_dir, models=models_dir))
device = next(model.to_target().eval().parameters()).device

# %%
#| caption: PatchNet with this chapter's part lit: all patch features of an image
#|   together, and the loss between images.
plots.network_drawing(model, images[0], lit=("image feature", "L_v"))

# %% [markdown] tags=["slide"]
# ## Surrogates
#
# > **The paper (Sec. 3.3).** There are no labels, but one thing is sure: an image that has been changed a little still
# > shows the same person. For each image make such a *surrogate* by one transformation drawn at random: cut out 70 to
# > 95 % of it, turn it by up to 10 degrees, or change brightness, contrast and saturation to 80 to 120 %.
#
# The released code applies all in sequence, with the hue as well, and then mirrors every second image (ledger 16): the
# rows `"all"`. Its 70 to 95 % are of the *area* (ledger 17; see the appendix *A closer look at patches*).

# %% tags=["slide"]
#| caption: Two people, each before eight surrogates by one transformation drawn each
#|   time (one) and by all of them together (all).
strengths = {name: getattr(options, name)
             for name in ("jitter", "hue_turn", "degrees", "padding")}
strengths["area"] = options.crop_area
generator = torch.Generator()
figure, axes = image_grid(4, 9, images[0], scale=0.95, gap=0.12)
both = [(row, mode) for row in (0, N - 1) for mode in ("one", "all")]
for line, (row, mode) in zip(axes, both):
    changed = surrogates(unit_range(images[[row] * 8]), generator.manual_seed(seed),
                         mode=mode, **strengths)
    draw_on(line[0], images[row], "black", f"image, \"{mode}\"")
    for axis, picture in zip(line[1:], changed):
        draw_on(axis, picture.clamp(0, 1))
plt.show()

# %% [markdown] tags=["slide"]
# ## In which space? (ledger 9)
#
# > **The paper (Sec. 3.3).** The loss compares images, described by all of their patch features together.
#
# The released code first sends each patch feature through the embedding layer that the source stage has trained, frozen
# from now on: what it compares are the *cosines* of the patch feature to the rows of that layer. With $u_e^m$ the rows
# of patch $m$'s layer,
#
# $$
# e_i^m = \left( \frac{\langle x_i^m, u_1^m \rangle}{\|u_1^m\|}, \dots,
#                \frac{\langle x_i^m, u_E^m \rangle}{\|u_E^m\|} \right), \qquad f_i = (e_i^1, \dots, e_i^M) .
# $$

# %%
@torch.no_grad()
def describe(pictures):
    """Patch features [M, N, D] and embeddings [M, N, E] of [N, 3, H, W]."""
    outputs = [model(normalize(part.to(device))) for part in pictures.split(256)]
    return [torch.cat([getattr(o, name).cpu() for o in outputs], dim=1)
            for name in ("features", "embeddings")]


generator.manual_seed(seed)
changed = torch.cat([
    surrogates(part, generator, mode=options.surrogate, **strengths)
    for part in unit_range(images).split(256)])
features, embeddings = describe(unit_range(images))
u = F.normalize(model.embedding.weight.detach().cpu(), dim=2)  # [M, E, D]
by_hand = torch.stack([torch.stack([features[m] @ row for row in u[m]], dim=1)
                       for m in range(len(u))])
torch.testing.assert_close(by_hand, embeddings, atol=1e-5, rtol=1e-4)
x, f, f_changed = map(concatenate, (features, embeddings, describe(changed)[1]))

# %% [markdown]
# Which space tells people apart better is measured in the appendix. What surely differs is the *unit*: the margin of
# the loss is a length, so the same margin asks for more in the space whose distances are smaller.

# %% [markdown] tags=["slide"]
# ## Compared with what? Image centres (ledger 11)
#
# > **The paper (Sec. 3.3).** Anchor: an image. Positive: its surrogate. Negative: another image of the batch.
#
# In the released code the anchors are all images *and* all surrogates, and what they are compared with are *centres*:
# for each training image the moving average, at rate 0.1, of the mean of its two views.
#
# $$
# c_{j,0} = \tfrac12 (f_j + \tilde f_j), \qquad
# c_{j,t} = (1 - 0.1)\, c_{j,t-1} + 0.1 \cdot \tfrac12 (f_j + \tilde f_j) .
# $$
#
# So an anchor is pulled towards where its image has been for some epochs, not towards one random view.

# %%
by_visits = {}
library = ImageCenters(num_images=6, dim=f.shape[1], rate=options.rate)
for visit in ([0, 2, 5], [2, 4, 0], [5, 2, 2]):
    for j in visit:
        mean = (f[j] + f_changed[j]) / 2
        before = by_visits.get(j, mean)
        by_visits[j] = (1 - options.rate) * before + options.rate * mean
    returned = library.update(torch.tensor(visit), torch.stack(
        [f[visit], f_changed[visit]], dim=1))
    torch.testing.assert_close(returned, torch.stack([by_visits[j] for j in visit]))

# %% [markdown] tags=["slide"]
# ## Cyclic ranking
#
# > **The paper (Sec. 3.3, Fig. 4).** The best negative is a hard one: near the anchor, yet another person. But without
# > labels the nearest image may well be the *same* person. So ask back. Rank the batch by distance to anchor $i$ and
# > walk down the list. For each candidate $j$, rank the batch by distance to $j$. If $i$ is among the first $r$ of that
# > list, the two may be one person: go on. The first candidate that does not have $i$ among its first $r$ is the
# > negative.
#
# Two images of one person tend to be *mutually* near; somebody else near to you may have others who are nearer.

# %% tags=["implement", "slide"]
def ask_back(features, centers, owner, r=3, max_candidates=15):
    """The negatives in centers [n, D] of features [A, D], owner [A]; or -1."""
    negatives = []
    for f, i in zip(features, owner.tolist()):
        walk = [j for j in (centers - f).norm(dim=1).argsort().tolist() if j != i]
        chosen = -1
        for j in walk[:max_candidates]:
            # j itself comes first
            its_nearest = (centers - centers[j]).norm(dim=1).argsort()[:r].tolist()
            if i not in its_nearest:
                chosen = j
                break
        negatives.append(chosen)
    return torch.tensor(negatives)


# %% [markdown]
# A toy: twelve images in the plane, the anchor a star, a line from each candidate to its $r = 3$ nearest; as in the
# released code, it is itself the first of them (ledger 12). Which point will be the negative?

# %% tags=["slide"]
#| caption: Cyclic ranking on points of the plane, candidate by candidate: the star
#|   is the anchor, lines lead to a candidate's nearest points.
spots = torch.tensor([[0.0, 0.0], [0.45, 0.15], [0.2, 0.5], [1.05, 0.1],
                      [1.35, 0.35], [1.45, -0.1], [-1.0, 0.4], [-1.3, 0.1],
                      [-0.9, -0.9], [0.4, -1.2], [0.7, -1.35], [1.6, 1.0]])
steps = plots.walk(spots[:1], spots, [0], anchor=0, r=3)
assert steps[-1][0] == int(ask_back(spots[:1], spots, torch.tensor([0]))[0])
figure, axes = plt.subplots(1, len(steps), figsize=(9.2, 2.7))
for step, (axis, (candidate, near, negative)) in enumerate(zip(axes, steps), 1):
    axis.scatter(*spots.T, color="0.75", s=40)
    axis.plot(0, 0, "*", color=BLUE, markersize=17, zorder=4)
    for j in near:
        axis.plot(*spots[[candidate, j]].T, color=BLUE if j == 0 else "0.4")
    axis.scatter(*spots[candidate], c=RED if negative else ORANGE, s=80, zorder=3)
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.set_title(f"{step}: " + ("the negative" if negative else "go on"))
plt.show()

# %% [markdown]
# The negative is not the nearest point, but the nearest that has better company. On the page
# [*Cyclic ranking with points to move*](../pages/cyclic_ranking.md) the points are yours: from which place is the
# nearest image the negative, and from which is there none at all?
#
# <!-- widget: cyclic -->
#
# ### On a real batch
#
# As many images as the profile takes, drawn at random, and their surrogates. The library works on all anchors at once
# and must pick the same negatives as the loop.

# %% tags=["slide"]
#| caption: Cyclic ranking on a batch: the anchor in blue, a line for each candidate
#|   with its own nearest, and the hard negative in red.
def draw_batch(generator):
    """Images' places [n], features of both views [2 n, D], centres, owners."""
    rows = torch.randperm(N, generator=generator)[: options.batch]
    own = torch.arange(len(rows)).repeat(2)
    return (rows, torch.cat([f[rows], f_changed[rows]]),
            (f[rows] + f_changed[rows]) / 2, own)


rows, anchors, centers, owner = draw_batch(torch.Generator().manual_seed(seed))
picked = cyclic_ranking(anchors.double(), centers.double(), owner, r=options.r)
assert torch.equal(picked,
                   ask_back(anchors.double(), centers.double(), owner, r=options.r))
person = person_ids[rows]  # of short walks one that begins and ends as it should
walks = [plots.walk(anchors, centers, owner, a, options.r)
         for a in range(len(anchors))]
short = [a for a, walk in enumerate(walks) if 2 <= len(walk) <= 4
         and person[walk[0][0]] == person[owner[a]] != person[walk[-1][0]]] or [0]
plots.cyclic_walk(images[rows], anchors, centers, owner, short[0], options.r,
                  person_ids=person)

# %% [markdown]
# ## How often is the negative truly another person?
#
# Not every walk ends so well, and a negative that is the same person pushes a person's images apart. Against the naive
# rule, the nearest of the batch, over many batches (*if it could be*: for anchors whose person is there twice):

# %% tags=["slide"]
def trust(pick, label=""):
    """Means: is it the same person, and where in the list it stands."""
    generator, tally = torch.Generator().manual_seed(1), []
    for _ in range(30):
        rows, anchors, centers, owner = draw_batch(generator)
        person = person_ids[rows]
        distance = torch.cdist(anchors, centers)
        distance = distance.scatter(1, owner[:, None], torch.inf)
        negative = pick(anchors, centers, owner, distance)
        has_mate = (person[:, None] == person).sum(1)[owner] > 1
        found = negative >= 0
        wrong = found & (person[negative.clamp(min=0)] == person[owner])
        nearer = distance < distance.gather(1, negative.clamp(min=0)[:, None])
        tally.append([wrong[has_mate].float().mean(), (~found).float().mean(),
                      1 + nearer.sum(1)[found].float().mean()])
    names = ["same person, if it could be", "none found", "place in the list"]
    return pd.Series(torch.tensor(tally).nanmean(0).tolist(), names, name=label)


def cyclic(r, include_self=True):
    return lambda anchors, centers, owner, distance: cyclic_ranking(
        anchors, centers, owner, r=r, include_self=include_self)


naive = trust(lambda *batch: batch[-1].argmin(1), "the nearest")
ours = trust(cyclic(options.r), f"cyclic, r = {options.r}")
pd.DataFrame([naive, ours]).style.format(
    dict(zip(naive.index, ("{:.1%}", "{:.1%}", "{:.1f}"))), na_rep="nobody")

# %% [markdown]
# What is gained in trust is paid in hardness: the negative is not the first in the list any more. With more people, as
# in training, fewer anchors meet their own person in a batch, and both rules are wrong less often.
#
# ### The list's length $r$, and whether the candidate counts itself (ledger 12)
#
# A longer list trusts less: each $r$ is a bargain between wrong negatives and easy ones. Which rule is $r = 1$, where a
# candidate's list holds only itself?

# %% tags=["slide"]
#| caption: Over the length r of a candidate's list, which counts itself: how often
#|   the negative is the same person, how many walks find none, and its place.
lengths = [r for r in (1, 2, 3, 4, 5, 7, 10, 15, 20) if r < options.batch]
counted, not_counted = (
    pd.DataFrame([trust(cyclic(r, itself)) for r in lengths], lengths)
    for itself in (True, False))
figure, axes = plt.subplots(1, 3, figsize=(9.2, 2.7))
for axis, name, colour in zip(axes, counted, (RED, GREY, BLUE)):
    axis.plot(counted[name], "-o", color=colour, markersize=4)
    axis.set(title=name, xlabel="$r$", ylim=(0, None))
plt.show()
np.testing.assert_allclose(counted.loc[1], naive, atol=1e-6)
np.testing.assert_allclose(counted.loc[[2, 3, 4]], not_counted.loc[[1, 2, 3]])

# %% [markdown]
# At $r = 1$ nobody is ever passed over: it *is* the naive rule. And the code's $r = 3$ is the paper's text with $r = 2$
# and nobody counting themselves, as the last line asserts.

# %% [markdown] tags=["slide"]
# ## The loss
#
# > **The paper (Sec. 3.3).** A triplet loss with margin $\alpha = 2$: the positive must be nearer than the negative, by
# > at least the margin.
#
# $$
# L_v = \frac1A \sum_i \max\bigl(0,\; \alpha + \|f_i - c_i\|_2 - \|f_i - c_{n(i)}\|_2\bigr),
# $$
#
# with $A$ anchors, $c_i$ the anchor's own centre and $c_{n(i)}$ the one that cyclic ranking picked. The paper
# writes $m$ for the margin; in this book $m$ is the patch.

# %%
def ipfl(features, centers, owner, margin, r):
    """L_v, anchor by anchor; without a negative its distance counts as zero."""
    hinges = []
    for f, i, n in zip(features, owner, ask_back(features, centers, owner, r=r)):
        positive = (f - centers[i]).norm()
        negative = (f - centers[n]).norm() if n >= 0 else torch.zeros(())
        hinges.append((margin + positive - negative).clamp(min=0))
    return torch.stack(hinges).mean()


a = anchors.double().requires_grad_()
given = dict(margin=options.margin, r=options.r)
by_hand = ipfl(a, centers.double(), owner, **given)
by_library = ipfl_loss(a, centers.double(), owner, **given)
torch.testing.assert_close(by_library, by_hand)
torch.testing.assert_close(*(torch.autograd.grad(loss, a)[0]
                             for loss in (by_library, by_hand)))
own_distance = (anchors - centers[owner]).norm(dim=1)
slack = ((anchors - centers[picked]).norm(dim=1) - own_distance)[picked >= 0]
print(f"L_v {by_hand:.6f}; open hinges by margin:",
      {m: f"{(slack < m).float().mean():.0%}" for m in (0, 0.5, 1, 2, 3)})

# %% [markdown]
# At a margin of zero only those anchors count whose surrogate is a hard positive: it is the margin that opens hinges.
# Once all are open, a larger one changes the loss but not its gradient, and every anchor is pushed all the time.

# %% [markdown]
# ## Two corners
#
# **No negative (ledger 12).** If the walk gives up, the released code counts the negative's distance as zero: the
# largest hinge of all, which only pulls. `"skip"` leaves such an anchor out of the mean. With $r$ as large as the batch
# it happens to all. **A square root at zero (ledger 13).** $\|v\|$ has the derivative $v / \|v\|$: at $v = 0$, where an
# anchor equals its centre, zero divided by zero, and one such value turns all weights into "not a number". The
# library's norm has the gradient zero there, one of the slopes that a tip may be given.

# %%
everybody = dict(margin=options.margin, r=len(centers))
zero, skip = (ipfl_loss(anchors, centers, owner, no_negative=way, **everybody)
              for way in ("zero", "skip"))
torch.testing.assert_close(zero, (options.margin + own_distance).mean())
torch.testing.assert_close(skip, torch.zeros(()))
tip = torch.zeros(3, requires_grad=True)
(by_root,) = torch.autograd.grad(tip.square().sum().sqrt(), tip)
still = centers.clone().requires_grad_()  # every anchor on its own centre
(by_library,) = torch.autograd.grad(
    ipfl_loss(still, centers, torch.arange(len(centers)), margin=2.0), still)
assert by_root.isnan().all() and by_library.isfinite().all()
print(f"L_v without a negative: {zero:.3f} by zero, {skip:.3f} by skip; "
      f"walks that gave up: {ours['none found']:.2%}")

# %% [markdown] tags=["slide"]
# ## Summary
#
# - A surrogate is the same image seen differently: the only positive that needs no label.
# - The code compares images by cosines to the source's embedding layer, and with moving centres instead of images.
# - Cyclic ranking asks a candidate back and distrusts mutual neighbours: easier negatives, to have fewer wrong ones.
# - The margin, not the negative, decides how many anchors take part.
#
# Next, chapter 06: both losses together, from the source to the adapted network.

# %% [markdown]
# ## Exercises
#
# 1. When are mutual neighbours not one person? Draw six points for which cyclic ranking with $r = 3$ passes over
#    somebody else.
# 2. *Predict.* A batch of 40 is drawn at random from $P$ people with equally many images. About how many anchors meet
#    their own person in it, for $P$ = 60, 140, 751? What does that say about the naive rule on Market-1501?
# 3. Prove the shift by one: why does $r$ with the candidate counted equal $r - 1$ without? When does it not hold?
# 4. *Extend.* Compute `ours` with patch features in place of embeddings (`f = x`, and surrogates described the same
#    way). Are the negatives better? Which margin would open as many hinges as before?
# 5. *Break it.* Set $r = 1$ in `ask_back`, then $r$ to the size of the batch. Which rule is left at either end, and
#    what does $L_v$ still teach with it?
# 6. *Implement.* Write `ask_back`. Four things can be forgotten without an error: which, and how would each show?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# Mutual neighbours lie in one dense spot, as one person's images do; but two look-alikes far from all others have
# nobody else to list. Below, point 1 lists 0 and is passed over; the negative is far away.
#
# ```python
# # runs alone
# import torch
# from paul.losses import cyclic_ranking
#
# spots = torch.tensor([[0.0, 0], [0.1, 0], [5, 5], [5.2, 5], [5, 5.3], [5.3, 5.3]])
# picked = cyclic_ranking(spots[:1], spots, torch.tensor([0]), r=3)
# assert picked.item() == 2  # the nearest that isn't 1
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# $1 - (1 - 1/P)^{39}$: 48 %, 24 % and 5 %. On Market-1501, with 751 training people, even the naive rule is wrong for
# one anchor in twenty at most. The fewer people, and the larger the batch, the more cyclic ranking matters.
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# The candidate's own centre is at distance zero from itself, so it opens its own list of itself and the $r - 1$ nearest
# others, and the anchor's image isn't itself. With exact duplicates the candidate need not come *first*: it may fail.
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# Set `f, f_changed = x, concatenate(describe(changed)[0])`, which `draw_batch` reads, and run `trust` again. A margin
# is a length and has to be translated: hinges open where `slack` is below $\alpha$. Take the share of open hinges at
# the old margin, and as the new margin that quantile of `slack` in the new space.
#
# - *full*: both tables side by side, the margin from the quantile, and a word on why the unit differs;
# - *half*: the table, and a margin scaled by the ratio of mean distances;
# - *some*: the table with the old margin, and what is odd about it.
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# At $r = 1$ nobody is passed over: the naive rule. At the other end every list holds everybody and no negative is
# found: with the released code's zero distance the hinge is $\alpha + \|f_i - c_i\|$, always open, and only pulls.
# $L_v$ then makes an image and its surrogate alike and keeps nothing apart.
#
# </details>
#
# <details><summary>Solution 6</summary>
#
# The own centre in the walk (the anchor becomes its own negative); the anchor's row for its *owner* when asking back
# (surrogates ask for somebody else); distances from the centre, not from the anchor; and -1 where the walk gives up.
#
# </details>

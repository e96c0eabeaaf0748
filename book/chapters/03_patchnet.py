# %% [markdown] tags=["slide"]
# # PatchNet and the patch generation network
#
# **What you will learn**
#
# - the whole network in one picture, and which tensor each part hands on;
# - how six numbers cut a patch out of a feature map, and how the map is read between its pixels and at its corners;
# - how to take the mean of a patch without ever building the patch;
# - what the patch generation network (PGN) is made of, and how much of PatchNet it takes up;
# - what changes between the source stage and the target stage, and what the descriptor of an image is;
# - where a trained PGN puts its patches.
#
# Paper: Yang et al., CVPR 2019, Sec. 3.1 and Fig. 2.

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
from paul.data.transforms import normalize, unit_range
from paul.experiments.profiles import PROFILES
from paul.experiments.runner import trained_models
from paul.patches import RandomPatches, pool_patches, sample_patches, stripes
from paul.patchnet import PatchNet
from paul.plots import COLOURS, add_patch, draw_on, image_grid
from torch.nn import functional as F

start(data_dir, profile)
plt.rcParams.update(plots.STYLE)
torch.manual_seed(seed)
chosen, paper = PROFILES[profile].network, PROFILES["paper"].network
M = chosen.num_patches

# %% [markdown]
# The people are the target's *validation* people: nothing is trained or tested on them, so we may look at what only the
# renderer knows, such as how far a person stands off the middle of the box. The network was trained on the *source*
# people alone, by the next cell or before; beside it, on a second core, its twin on whole images for later chapters.

# %%
frame, images = validation_people(data_dir, profile, target)
both = trained_models(("patch_direct", "image_direct"), target, seed, profile,
                      data_dir, models_dir)
trained = both["patch_direct"]
print(f"{len(images)} images of {frame['person_id'].nunique()} people; "
      f"backbone {chosen.backbone}, M = {M} patches of {chosen.dim} numbers each")

# %% [markdown] tags=["slide"]
# ## The whole network (Fig. 2)
#
# > **The paper (Fig. 2).** One backbone reads the image once. From its feature map the PGN predicts where to cut $M$
# > patches. Each patch goes through a branch of its own, and two losses act at the end: $L_c$ on each patch feature,
# > against a memory bank, and $L_v$ on all of them together, against other images of the batch.

# %% tags=["slide"]
#| caption: The network from an image to the two losses, drawn with the tensors of
#|   one image; below each part the shape of what it hands on.
person = 0
truth_known = "box_dy" in frame  # a real set doesn't come with it
if truth_known:  # somebody who stands in the middle
    off = frame[["box_dx", "box_dy"]].abs().sum(axis=1)
    person = int((off + (frame["box_scale"] - 1).abs()).argmin())
plots.network_drawing(trained, images[person])

# %% [markdown]
# The shapes are those of this profile's network, for one image. This chapter goes from left to right up to the image
# feature; chapter 04 is about $L_c$, chapter 05 about $L_v$, chapter 06 about training it all.

# %% [markdown] tags=["slide"]
# ## A patch is six numbers
#
# > **The paper (Sec. 3.1).** Cut $M$ patches out of the backbone's feature map, each described by an affine matrix. It
# > maps the points of a regular grid, the patch to be made, to points on the feature map, where values are read.
# > Cutting the map instead of the image is cheaper: the backbone runs once.
#
# With coordinates from $-1$ to $1$ in both directions, on the patch $(u, v)$ and on the map $(x, y)$,
#
# $$
# \begin{pmatrix} x \\ y \end{pmatrix} = \theta_m \begin{pmatrix} u \\ v \\ 1 \end{pmatrix}, \qquad
# \theta_m = \begin{pmatrix} a & b & t_x \\ c & d & t_y \end{pmatrix} .
# $$
#
# $a$ and $d$ are width and height of the patch as shares of the map, $t_x$ and $t_y$ its centre, $b$ and $c$ tilt it.
# $M$ equal horizontal stripes, from which the PGN starts, are $a = 1$, $d = 1/M$, $t_y = -1 + (2m - 1)/M$ for
# $m = 1, \dots, M$. Below, five matrices on one image: where each looks, and what it cuts out, stretched to the size of
# the map, as every patch is. Which changes nothing? It is how the image-level network of Table 3 fits into this code.

# %% tags=["slide"]
#| caption: Five frames on one person, and below each what the sampler cuts out of
#|   it.
equal = torch.tensor([[[1, 0, 0], [0, 1 / M, -1 + (2 * m - 1) / M]]
                      for m in range(1, M + 1)])
torch.testing.assert_close(equal, stripes(M))
by_hand = {
    "a stripe": equal[1],
    "moved down": equal[1] + torch.tensor([[0, 0, 0], [0, 0, 0.25]]),
    "a window": torch.tensor([[0.5, 0, 0.1], [0, 0.25, -0.2]]),
    "tilted": torch.tensor([[0.7, 0.35, 0.0], [-0.12, 0.3, 0.3]]),
    "the whole map": stripes(1)[0],
}
hand = torch.stack(list(by_hand.values()))
cut = sample_patches(unit_range(images[person : person + 1]), hand[None])[:, 0]
figure, axes = image_grid(2, len(hand), images[person], scale=1.3)
for place, (name, theta) in enumerate(by_hand.items()):
    draw_on(axes[0, place], images[person], title=name)
    add_patch(axes[0, place], images[person], theta, COLOURS[place], linewidth=2.5)
    draw_on(axes[1, place], cut[place].clamp(0, 1), COLOURS[place])
plt.show()

# %% [markdown] tags=["slide"]
# ## Reading between the pixels
#
# > **The paper (Sec. 3.1).** The points don't fall on pixels, so a value is put together from the pixels around it,
# > bilinearly. This has a derivative with respect to the point, hence to $\theta$: the place of a patch can be learned.
#
# With $U$ a map of $H$ rows and $W$ columns, and a point at column $x$ and row $y$, counted in pixels,
#
# $$
# V(x, y) = \sum_{i=1}^{H} \sum_{j=1}^{W} U_{ij}\, \max(0, 1 - |x - j|)\, \max(0, 1 - |y - i|) .
# $$
#
# Each factor is a tent: one at its own pixel, zero from the next one on. At most four pixels take part, and between the
# first and the last pixel their weights sum to one. Further out a tent is missing: there the sampler reads zeros.

# %%
def cut_patch(U, theta):
    """A patch as large as the map, by pixels: U [H, W], theta [2, 3] -> [H, W]."""
    (H, W), patch = U.shape, torch.empty_like(U)
    for i, v in enumerate(torch.linspace(-1, 1, H, dtype=U.dtype)):
        for j, u in enumerate(torch.linspace(-1, 1, W, dtype=U.dtype)):
            x, y = theta @ torch.stack([u, v, torch.ones_like(u)])
            x, y = (x + 1) * (W - 1) / 2, (y + 1) * (H - 1) / 2  # in pixels
            across = (1 - (x - torch.arange(W)).abs()).clamp(min=0)
            down = (1 - (y - torch.arange(H)).abs()).clamp(min=0)
            patch[i, j] = down @ U @ across
    return patch


U = torch.rand(12, 6, dtype=torch.float64)
ours = torch.stack([cut_patch(U, theta) for theta in hand.double()])
library = sample_patches(U[None, None], hand.double()[None])  # [M, B=1, C=1, H, W]
torch.testing.assert_close(ours, library[:, 0, 0])
print(f"{ours.numel()} points agree with the library")

# %% [markdown] tags=["slide"]
# ## What is a corner? (ledger 20)
#
# > **The paper** is silent. The released code was written for a PyTorch in which $\pm 1$ meant the *centres* of the
# > border pixels, now called `align_corners=True`. Today's default is their *outer edges*, half a pixel further out.
#
# So a coordinate $x$ becomes a pixel position in one of two ways:
#
# $$
# \text{True: } \; (x + 1)\,\frac{W - 1}{2}, \qquad\qquad \text{False: } \; \frac{(x + 1)\,W - 1}{2} .
# $$
#
# The first keeps every point of a stripe between the first and the last pixel. The second puts points of the first
# stripe above the first row of pixels, where a tent is missing. How much of each stripe then lies on the map?

# %% tags=["slide"]
ones = torch.ones(M, 1, 12, 6)
on_the_map = {}
for align in (True, False):
    grid = F.affine_grid(equal, [M, 1, 12, 6], align_corners=align)
    read_values = F.grid_sample(ones, grid, align_corners=align)
    on_the_map[f"align_corners={align}"] = read_values.mean((1, 2, 3)).tolist()
    torch.testing.assert_close(read_values.mean((1, 2, 3)), pool_patches(
        ones[:1], equal[None], align_corners=align).flatten())
columns = [f"patch {m}" for m in range(1, M + 1)]
pd.DataFrame(on_the_map, columns).T.style.format("{:.2%}")

# %% [markdown]
# With `False` the first and the last stripe are darker than the map. Weights trained under one convention and tested
# under the other see heads and feet darken, and nothing raises an error. So the library says `align_corners=True`.

# %% [markdown] tags=["slide"]
# ## The mean of a patch, without the patch
#
# > **The paper (Sec. 3.1).** Each patch goes through a branch of its own, which pools it to one vector.
#
# A patch at the map's resolution is as large as the map, so cutting $M$ of them costs $M$ times its memory; and the
# next thing that happens to each is a mean. Bilinear sampling is *linear* in the map, so the mean over the points $p$
# of a patch is one weighted sum of the map's pixels,
#
# $$
# \frac1P \sum_p V(x_p, y_p) = \sum_{ij} U_{ij}\, A_{ij}, \qquad
# A_{ij} = \frac1P \sum_p \max(0, 1 - |y_p - i|)\, \max(0, 1 - |x_p - j|),
# $$
#
# and $A$ is the product of two matrices of tents: one small weight map for each patch, the same for all channels.

# %% tags=["implement", "slide"]
def weight_map(theta, H, W):
    """A [H, W]: how much each pixel of the map counts in the mean of the patch
    theta [2, 3], read at H x W points."""
    v, u = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W),
                          indexing="ij")
    x, y = theta @ torch.stack([u.flatten(), v.flatten(), torch.ones(H * W)])
    x, y = (x[:, None] + 1) * (W - 1) / 2, (y[:, None] + 1) * (H - 1) / 2
    across = (1 - (x - torch.arange(W)).abs()).clamp(min=0)  # [P, W]
    down = (1 - (y - torch.arange(H)).abs()).clamp(min=0)  # [P, H]
    return down.T @ across / (H * W)


# %% [markdown]
# It agrees with cutting first and taking the mean then, and passes back the same gradient, which is what $\theta$
# learns from:

# %%
feature_map = torch.rand(8, 16, 12, 6)
matrices = hand.repeat(8, 1, 1, 1) + 0.05 * torch.randn(8, len(hand), 2, 3)
A = torch.stack([torch.stack([weight_map(theta, 12, 6) for theta in image])
                 for image in matrices])
pooled = torch.einsum("bchw,bmhw->mbc", feature_map, A)
torch.testing.assert_close(pooled,
                           sample_patches(feature_map, matrices).mean((3, 4)))
torch.testing.assert_close(pooled, pool_patches(feature_map, matrices))
gradients = []
for pool in (pool_patches, lambda x, theta: sample_patches(x, theta).mean((3, 4))):
    theta = matrices.clone().requires_grad_()
    pool(feature_map, theta).square().sum().backward()
    gradients.append(theta.grad)
torch.testing.assert_close(*gradients)
weights = 4 * M * 80 * 24 * 8 / 1e6  # MB, for 80 images at 384 x 128
print(f"a step of the paper's network: weight maps {weights:.1f} MB, "
      f"patches of 2048 channels {weights * 2048:.0f} MB")

# %%
#| caption: The weight map of each of the five frames, bright where a pixel counts
#|   much; it reaches a pixel beyond its frame, and the whole map's is flat.
figure, axes = plt.subplots(1, len(hand), figsize=(6.6, 2.6))
for axis, (name, theta) in zip(axes, by_hand.items()):
    axis.imshow(weight_map(theta, 24, 12), cmap="magma", vmin=0)
    axis.set(title=name, xticks=[], yticks=[])
plt.show()

# %% [markdown] tags=["slide"]
# ## The localisation network
#
# > **The paper (Sec. 3.1).** A localisation network predicts the $M$ matrices from the feature map itself: one
# > convolution and two fully connected layers. What makes the $M$ patches different is where the last layer's bias
# > starts: at equal stripes.
#
# In the released code (ledger 21) the convolution is followed by batch norm, ReLU and pooling, and the mean over all
# places is what the two layers see. From scratch, with the library's weights:

# %%
network = PatchNet(chosen, num_classes=7).eval()  # untrained
x = normalize(unit_range(images[:5]))
with torch.no_grad():
    feature_map = network.backbone(x)
convolution, norm = network.generator.localization[:2]
first, last = network.generator.fc_loc[0], network.generator.fc_loc[2]
z = F.conv2d(feature_map, convolution.weight, convolution.bias)  # 3 x 3
z = F.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias)
z = F.max_pool2d(z.relu(), 3, stride=2, padding=1).mean((2, 3))
z = (z @ first.weight.T + first.bias).relu()
theta = (z @ last.weight.T + last.bias).view(-1, M, 2, 3)
torch.testing.assert_close(theta, network.generator(feature_map))
torch.testing.assert_close(theta, equal.expand(5, -1, -1, -1))
print("the PGN agrees, and before training it cuts equal stripes from any image")

# %% [markdown]
# The second check holds because the last layer's weight starts at zero: the bias alone decides. So the first steps move
# only this layer, for no gradient passes through a weight that is zero. How large is a network that exists to produce
# $6M$ numbers? Counted on torch's "meta" device, where tensors have a shape and nothing in it:

# %% tags=["slide"]
with torch.device("meta"):
    large = PatchNet(paper, num_classes=4101)
parts = {"backbone": [large.backbone], "PGN": [large.generator],
         "branches": [large.branch, large.branch_norm],
         "embeddings": [large.embedding], "classifiers": [large.classifier]}
counts = pd.Series({name: sum(p.numel() for part in modules
                              for p in part.parameters())
                    for name, modules in parts.items()})
C, P, Q = 2048, paper.pgn_channels, paper.pgn_hidden
assert counts["PGN"] == (  # weights, biases and the batch norm's two
    (9 * C * P + P) + 2 * P + (P * Q + Q) + (Q * 6 * M + 6 * M))
print(f"{9 * C * P / counts['PGN']:.1%} of the PGN is one convolution")
pd.DataFrame({"parameters": counts, "share": counts / counts.sum()}).style.format(
    {"parameters": "{:,}", "share": "{:.0%}"})

# %% [markdown] tags=["slide"]
# ## Branches, two stages, one descriptor
#
# > **The paper (Sec. 3.1, 4).** $M$ branches with weights of their own turn patches into features of 256 numbers. On
# > the labelled source each branch also classifies the person; on the target the PGN stays fixed and features are
# > trained without labels. For the test, an image is described by all of its patch features put together.
#
# What happens to a pooled patch $z^m$, from the released code (ledger 8-10, 19); $W^m$ and $b^m$ are its branch, BN is
# a batch norm:
#
# | | feature $x^m$ | embedding $e^m$ | logits |
# |---|---|---|---|
# | source | $\mathrm{ReLU}(\mathrm{BN}(W^m z^m + b^m))$ | linear layer of $x^m$ | linear layer of $x^m$ |
# | target | $\mathrm{BN}(W^m z^m + b^m)$, to unit length | cosines of $x^m$ to the rows of that same layer | none |
#
# Without the ReLU a unit vector may point anywhere, not only into the positive corner. The descriptor is
# $f_i = (x_i^1, \dots, x_i^M)$, with $\|f_i - f_j\|^2 = \sum_m \|x_i^m - x_j^m\|^2 = 2M - 2 \sum_m \langle x_i^m,
# x_j^m \rangle$: sorting by this distance is sorting by the mean cosine of corresponding patches (ledger 29). No patch
# can outvote the others.

# %%
norm, branch, dim = network.branch_norm, network.branch, chosen.dim
with torch.no_grad():
    z = pool_patches(feature_map, network.generator(feature_map))  # [M, B, C]
    y = torch.stack([z[m] @ branch.weight[m].T + branch.bias[m] for m in range(M)])
    y = F.batch_norm(y.transpose(0, 1).flatten(1), norm.running_mean,
                     norm.running_var, norm.weight, norm.bias)
    y = y.view(-1, M, dim).transpose(0, 1)
    source, classifier = network(x), network.classifier
    torch.testing.assert_close(source.features, y.relu())
    torch.testing.assert_close(
        source.logits[2], y[2].relu() @ classifier.weight[2].T + classifier.bias[2])
    on_target, f = network.to_target()(x), network.describe(x)
    features = y / y.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(on_target.features, features)
    torch.testing.assert_close(on_target.embeddings[1], F.cosine_similarity(
        features[1][:, None], network.embedding.weight[1][None], dim=-1))
torch.testing.assert_close(f, torch.cat(list(features), dim=1))
cosines = torch.stack([features[m] @ features[m].T for m in range(M)])
torch.testing.assert_close((f[:, None] - f[None]).square().sum(-1),
                           2 * M - 2 * cosines.sum(0), atol=1e-5, rtol=1e-4)
whole = pool_patches(feature_map, stripes(1).expand(5, -1, -1, -1))[0]
torch.testing.assert_close(whole, feature_map.mean((2, 3)))  # the twin's pooling
print("features [M, B, D]", tuple(on_target.features.shape), "embeddings [M, B, E]",
      tuple(on_target.embeddings.shape), "\ndescriptor [B, M D]", tuple(f.shape))

# %% [markdown]
# Table 3 needs a network that sees whole images. Its *twin* has the same backbone and a descriptor just as wide, but
# one patch that is the whole map. PatchNet sums $M$ cross-entropies where its twin has one, so one learning rate means
# another step for either: each gets a search of its own (chapter 06).

# %% [markdown] tags=["slide"]
# ## Where does a trained PGN look?
#
# Nobody told it what a person looks like or where one stands. Eight people, sorted by how far down in their box they
# stand (above them, as a share of the box): first the stripes that the PGN started from, then where it looks after
# training on the source, then random patches, the last of the paper's Table 4. Before you look: will it follow a
# person who stands low?

# %% tags=["slide"]
#| caption: Patches on people who stand ever lower in their box: equal stripes above,
#|   the trained PGN's in the middle, random ones below.
shown, titles = np.arange(8), None
if truth_known:
    order = frame["box_dy"].argsort().to_numpy()
    shown = order[np.linspace(0.02 * len(order), 0.98 * len(order), 8).astype(int)]
    titles = 3 * [f"{100 * dy:+.0f} %" for dy in frame.loc[shown, "box_dy"]]
eight, device = images[shown], next(trained.parameters()).device
with torch.no_grad():
    theta = trained.eval().theta(normalize(unit_range(eight.to(device)))).cpu()
thetas = equal.expand(8, -1, -1, -1), theta, RandomPatches(M).eval()(eight)
plots.patches_on_people(eight.repeat(3, 1, 1, 1), torch.cat(thetas), titles)

# %% [markdown]
# A trained patch may grow, tilt and overlap the next one: nothing in the loss forbids it. (At `smoke` training lasts
# seconds, and its patches mean nothing.) A PGN that follows the person compares head with head, however badly the
# detector cut. Does it? The appendix *A closer look at patches* measures it, against controls.

# %% [markdown] tags=["slide"]
# ## Summary
#
# - A patch is an affine matrix; the sampler reads the map between its pixels with tents, and $\pm 1$ means the centres
#   of the border pixels.
# - The mean of a patch is one weighted sum over the map, so patches never have to be built.
# - The PGN starts at equal stripes, through its last bias alone, and holds most of the paper's parameters.
# - Source: ReLU, embeddings, logits. Target: unit vectors, and cosines to the frozen embedding layer. The descriptor of
#   an image is its $M$ patch features side by side.
#
# Next, chapter 04: what can be learned from patches when nobody says who is who.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Which $\theta$ mirrors the image left to right, and what happens to its weight map $A$? (Change one
#    sign, then argue with the sum that defines $A$.)
# 2. Suppose the last layer's bias started at the same matrix for all $M$ patches. Could training tell them apart?
# 3. *Break it.* Read equal stripes with `align_corners=False`. Nothing raises an error. For a map of ones with $H = 12$
#    rows and $M = 6$: which patch means aren't 1 any more, and what are they? Derive it, then run it.
# 4. *Extend.* Make a patch soft: weight its points by $\exp(-2 (u^2 + v^2))$. Write it as a weight map, and show that
#    the weights of a patch inside the map still sum to one and that $\theta$ still learns.
# 5. *Implement.* Write `weight_map` with nothing but the formula of $A$. Which mistake keeps all values right and loses
#    the gradient?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# $\theta = \begin{pmatrix} -1 & 0 & 0 \\ 0 & 1 & 0 \end{pmatrix}$. $A$, a sum over the points, doesn't change:
# mirroring renames them, and the grid holds $u$ and $-u$ both. A network that pools its patches can't tell a patch from
# its mirror image.
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# Yes, but slowly. Each patch has a branch and a classifier of its own, drawn at random, through which alone the
# gradient reaches its six numbers, so the matrices part after one step. But they would end close together.
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# The first and the last, each $0.9375$. With `False`, the rows of points are at $v_i = \frac{2i+1}{12} - 1$. The first
# stripe puts them at pixel rows $v_i + \frac12$, of which three lie above the first pixel's centre, by $\frac{5}{12}$,
# $\frac{3}{12}$ and $\frac{1}{12}$. That much of their tents is missing: $\frac{1}{12} \cdot \frac{9}{12} = 0.0625$.
# Across, a full-width stripe hits the pixel centres exactly and loses nothing.
#
# ```python
# # runs alone
# import torch
# from paul.patches import pool_patches, stripes
#
# theta, ones = stripes(6)[None], torch.ones(1, 1, 12, 6)
# torch.testing.assert_close(pool_patches(ones, theta).flatten(), torch.ones(6))
# broken = pool_patches(ones, theta, align_corners=False).flatten()
# torch.testing.assert_close(broken, torch.tensor([0.9375, 1, 1, 1, 1, 0.9375]))
# ```
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# In `weight_map`, each point $p$ gets a weight $g_p$ with $\sum_p g_p = 1$ in place of $\frac1P$:
# `g = torch.exp(-2 * (u**2 + v**2)).flatten()`, and `down.T @ ((g / g.sum())[:, None] * across)` at the end. For a
# point inside the map the tents over all pixels sum to one, so $\sum_{ij} A_{ij} = \sum_p g_p = 1$. $g$ depends on
# $(u, v)$, not on $\theta$, and the tents carry the gradient as before.
#
# - *full*: the map, both properties shown, and what the soft edge does to the overlap of neighbouring patches;
# - *half*: the map, and one property shown;
# - *some*: a Gaussian on the pixels of the map, which doesn't move with $\theta$.
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# Computing the points outside of the graph: `theta.detach()`, `.item()`, or a grid of Python numbers. Others: $\frac
# W2$ in place of $\frac{W-1}{2}$, a forgotten $\frac1P$, rows taken for columns, which a square map would hide.
#
# </details>

# %% [markdown] tags=["slide"]
# # PatchNet and the patch generation network
#
# **What you will learn**
#
# - how six numbers cut a patch out of a feature map, and how its pixels are read between the grid points;
# - why a sampler has to say what it means by a corner;
# - how to take the mean of a patch without ever building the patch;
# - what the patch generation network (PGN) is made of, and how much of PatchNet it takes up;
# - what changes between the source stage and the target stage, and what the descriptor of an image is;
# - where a trained PGN puts its patches on people, and whether they follow a person who stands off centre.
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
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from book.start import start
from IPython.display import display
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.data.transforms import normalize, unit_range
from paul.experiments.profiles import PROFILES
from paul.experiments.runner import source_model
from paul.experiments.specs import Places, Spec
from paul.patches import (
    PatchGenerator,
    RandomPatches,
    pool_patches,
    sample_patches,
    stripes,
)
from paul.patchnet import PatchNet
from paul.plots import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    RED,
    STYLE,
    add_patch,
    draw_on,
    image_grid,
    patches_on_people,
)
from torch.nn import functional as F

start(data_dir, profile)
plt.rcParams.update(STYLE)
torch.manual_seed(seed)
chosen = PROFILES[profile]
M = chosen.network.num_patches
print(f"profile {profile}: backbone {chosen.network.backbone}, "
      f"M = {M} patches of {chosen.network.dim} numbers each")

# %% [markdown]
# The people of this chapter are the target's *validation* people. Where this chapter measures something that only the
# renderer knows, such as how far a person stands off the middle of the box, no network has been trained on these
# images and none will be tested on them.

# %%
people = ReidDataset.load(Path(data_dir) / chosen.folders[target])
names = ([name for name in ("val_query", "val_gallery") if name in people.splits]
         or ["train"])
splits = [people.split(name) for name in names]
frame = pd.concat([split.frame for split in splits], ignore_index=True)
images = torch.cat([load_images(split, chosen.image_size) for split in splits])
truth_known = "box_dy" in frame  # a real set doesn't come with it
print(f"{len(images)} images of {frame['person_id'].nunique()} people, "
      f"{images.shape[2]} x {images.shape[3]} pixels")

# %% [markdown] tags=["slide"]
# ## A patch is six numbers
#
# > **The paper (Sec. 3.1).** Take the feature map of a backbone and cut $M$ patches out of it, each described by an
# > affine matrix. The matrix maps the points of a regular grid, which is the patch to be made, to points on the
# > feature map, where its values are read. Cutting the map instead of the image is cheaper: the backbone runs once.
#
# With coordinates from $-1$ to $1$ in both directions, on the patch $(u, v)$ and on the map $(x, y)$,
#
# $$
# \begin{pmatrix} x \\ y \end{pmatrix} = \theta_m \begin{pmatrix} u \\ v \\ 1 \end{pmatrix}, \qquad
# \theta_m = \begin{pmatrix} a & b & t_x \\ c & d & t_y \end{pmatrix} .
# $$
#
# $a$ and $d$ are width and height of the patch as shares of the map, $t_x$ and $t_y$ its centre, $b$ and $c$ tilt it.
# $M$ equal horizontal stripes are the special case $a = 1$, $d = 1/M$, $t_y = -1 + (2m - 1)/M$ for $m = 1, \dots, M$.
# These stripes matter, because the PGN starts from them.

# %%
equal = torch.tensor([[[1, 0, 0], [0, 1 / M, -1 + (2 * m - 1) / M]]
                      for m in range(1, M + 1)])
torch.testing.assert_close(equal, stripes(M))
print("first stripe:\n", equal[0].numpy().round(3), "\nlast stripe:\n",
      equal[-1].numpy().round(3))

# %% [markdown]
# What else six numbers can say is easiest seen on an image. Above, where each matrix looks; below, what it cuts out,
# stretched to the size of the whole map, as every patch is.

# %% tags=["slide"]
#| caption: Five frames on one person, and below each what the sampler cuts out of
#|   it.
person = 0
if truth_known:  # somebody who stands in the middle
    off = frame[["box_dx", "box_dy"]].abs().sum(axis=1)
    person = int((off + (frame["box_scale"] - 1).abs()).argmin())
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

# %% [markdown]
# **You should see** five frames on the same person, and under each of them its content filling the whole picture. The
# last one, $\theta = \begin{pmatrix} 1 & 0 & 0 \\ 0 & 1 & 0 \end{pmatrix}$, changes nothing: that is how the
# image-level network of Table 3 fits into the same code, as one patch that is the whole map.

# %% [markdown] tags=["slide"]
# ## Reading between the pixels
#
# > **The paper (Sec. 3.1).** The sampling points don't fall on pixels, so the value at a point is put together from
# > the pixels around it, bilinearly. This has a derivative with respect to the point, hence to $\theta$, so that the
# > place of a patch can be learned with everything else.
#
# With $U$ a map of $H$ rows and $W$ columns, and a point at column $x$ and row $y$, counted in pixels,
#
# $$
# V(x, y) = \sum_{i=1}^{H} \sum_{j=1}^{W} U_{ij}\, \max(0, 1 - |x - j|)\, \max(0, 1 - |y - i|) .
# $$
#
# Each factor is a tent: one at its own pixel, zero from the next one on. At most four pixels take part.

# %%
def read(U, x, y):
    """The value of the map U [H, W] at column x and row y, in pixels."""
    across = (1 - (x - torch.arange(U.shape[1])).abs()).clamp(min=0)
    down = (1 - (y - torch.arange(U.shape[0])).abs()).clamp(min=0)
    return down @ U @ across


def cut_patch(U, theta):
    """A patch as large as the map, by pixels: U [H, W], theta [2, 3] -> [H, W]."""
    H, W = U.shape
    patch = torch.empty(H, W, dtype=U.dtype)
    for i, v in enumerate(torch.linspace(-1, 1, H, dtype=U.dtype)):
        for j, u in enumerate(torch.linspace(-1, 1, W, dtype=U.dtype)):
            x, y = theta @ torch.stack([u, v, torch.ones_like(u)])
            patch[i, j] = read(U, (x + 1) * (W - 1) / 2, (y + 1) * (H - 1) / 2)
    return patch


# %%
U = torch.rand(12, 6, dtype=torch.float64)
ours = torch.stack([cut_patch(U, theta) for theta in hand.double()])
library = sample_patches(U[None, None], hand.double()[None])  # [M, B=1, C=1, H, W]
torch.testing.assert_close(ours, library[:, 0, 0])
print(f"{ours.numel()} points of {len(hand)} patches agree with the library")

# %%
#| caption: Left: a point between four pixels, each with a square as large as its
#|   weight. Right: the weights of five columns as tents over the place of the
#|   point.
figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2),
                                     width_ratios=[1, 1.2])
x, y = 2.3, 1.6
columns, rows = np.meshgrid(np.arange(5), np.arange(4))
weights = (np.clip(1 - abs(x - columns), 0, None)
           * np.clip(1 - abs(y - rows), 0, None))
left.scatter(columns, rows, s=18, color="0.75")
left.scatter(columns, rows, s=900 * weights, color=BLUE, alpha=0.55, marker="s")
for i, j in zip(*np.nonzero(weights)):
    side, anchor = (-1, "right") if j < x else (1, "left")
    left.annotate(f"{weights[i, j]:.2f}", (j, i), (16 * side, 0),
                  textcoords="offset points", ha=anchor, va="center")
left.plot(x, y, "x", color=RED, markersize=11, markeredgewidth=2.5)
left.set(title=f"the point ({x}, {y}) and its four pixels", xticks=range(5),
         yticks=range(4), xlabel="column $j$", ylabel="row $i$", xlim=(-0.5, 4.5),
         ylim=(3.6, -0.6), aspect="equal")
positions = np.linspace(-0.5, 4.5, 500)
for j in range(5):
    right.plot(positions, np.clip(1 - abs(positions - j), 0, None),
               color=COLOURS[j])
right.axvline(x, color=RED, linestyle="--", linewidth=1.2)
for j in (2, 3):
    right.plot(x, 1 - abs(x - j), "o", color=COLOURS[j])
right.set(title="the tents of five columns", xlabel="$x$ in pixels",
          ylabel="weight of the column", ylim=(0, 1.05))
plt.show()

# %% [markdown]
# **You should see** the nearest pixel with the largest square, and the four weights adding up to one. On the right,
# at each place between the first and the last column the tents add up to one as well. Outside of them they don't:
# there the sampler reads zeros. That is where the next section comes from.

# %% [markdown] tags=["slide"]
# ## What is a corner? (ledger 20)
#
# > **The paper** is silent. The released code was written for a version of PyTorch in which $\pm 1$ meant the *centres*
# > of the border pixels, called `align_corners=True` today. The default has changed since: now $\pm 1$ means the *outer
# > edges* of the border pixels, half a pixel further out.
#
# A coordinate $x$ becomes a pixel position in one of two ways:
#
# $$
# \text{True: } \; (x + 1)\,\frac{W - 1}{2}, \qquad\qquad \text{False: } \; \frac{(x + 1)\,W - 1}{2} .
# $$
#
# The first keeps every point of a stripe between the first and the last pixel. The second puts points of the first
# stripe above the first row of pixels, where one of the two tents is missing.

# %% tags=["slide"]
#| caption: Where the first stripe reads with and without align_corners, and how
#|   much of each stripe then lies on the map.
H, W = 12, 6
ones = torch.ones(M, 1, H, W)
shares = {}
for align in (True, False):
    grid = F.affine_grid(equal, [M, 1, H, W], align_corners=align)
    # [M, H, W]: weight that falls on the map
    shares[align] = F.grid_sample(ones, grid, align_corners=align)[:, 0]
torch.testing.assert_close(shares[True],
                           sample_patches(ones[:1], equal[None])[:, 0, 0])

figure = plt.figure(figsize=(9.2, 3.4))
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.5])
axis = left.subplots()
axis.axhspan(-0.5, H - 0.5, color="0.93")
for column, (align, colour) in enumerate([(True, BLUE), (False, RED)]):
    v = torch.linspace(-1, 1, H) if align else (2 * torch.arange(H) + 1) / H - 1
    y = equal[0, 1, 1] * v + equal[0, 1, 2]
    y = (y + 1) * (H - 1) / 2 if align else ((y + 1) * H - 1) / 2
    axis.scatter([column] * H, y, marker="_", s=500, color=colour)
axis.scatter([-0.7] * 4, range(4), color="0.55", s=25)
axis.set(title="where the first stripe reads", xlim=(-1.1, 1.5), ylim=(3.4, -0.9),
         xticks=[-0.7, 0, 1], yticks=range(4))
axis.set_xticklabels(["pixel\ncentres", "True", "False"])
axis.set_ylabel("row of the map (the map is grey)")
panels = right.subplots(2, M)
for line, align in zip(panels, (True, False)):
    for m, panel in enumerate(line):
        shown = panel.imshow(shares[align][m], vmin=0.5, vmax=1, cmap="cividis",
                             aspect="auto")
        panel.set(xticks=[], yticks=[])
        panel.set_xlabel(f"{float(shares[align][m].mean()):.2%}", fontsize=10)
    line[0].set_ylabel(str(align))
right.suptitle(f"how much of each of the {M} patches lies on the map; below: "
               "the mean", fontsize=10)
right.colorbar(shown, ax=panels, shrink=0.7, pad=0.02)
plt.show()

# %% [markdown]
# **You should see** two columns of sampling points: the blue ones start at the centre of the first pixel, the red ones
# half above the map. With `True` each stripe reads nothing but the map. With `False` the first and the last stripe, and
# only these, are dimmed towards their outer end. Weights trained under one convention and tested under the other see
# heads and feet darken. So the library says `align_corners=True` wherever it samples patches.

# %% [markdown] tags=["slide"]
# ## The mean of a patch, without the patch
#
# > **The paper (Sec. 3.1).** Each patch goes through a branch of its own, which pools it to one vector.
#
# A patch at the map's resolution is as large as the map itself, so cutting $M$ of them costs $M$ times the memory of
# the map; and the next thing that happens to each is a mean. Bilinear sampling is *linear* in the map. So the mean over
# the points $p$ of a patch is one weighted sum of the map's pixels,
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


# %%
feature_map = torch.rand(8, 16, 12, 6)
matrices = hand.repeat(8, 1, 1, 1) + 0.05 * torch.randn(8, len(hand), 2, 3)
A = torch.stack([torch.stack([weight_map(theta, 12, 6) for theta in image])
                 for image in matrices])
pooled = torch.einsum("bchw,bmhw->mbc", feature_map, A)
torch.testing.assert_close(pooled,
                           sample_patches(feature_map, matrices).mean((3, 4)))
torch.testing.assert_close(pooled, pool_patches(feature_map, matrices))
print("weighted sums, the means of real patches and the library's "
      "pool_patches agree")

# %% [markdown]
# They agree in what they pass back as well, which is what $\theta$ learns from:

# %%
#| caption: The five frames on one person; bright is where a pixel of the map weighs
#|   much in the mean of the patch.
gradients = []
for pool in (pool_patches, lambda x, theta: sample_patches(x, theta).mean((3, 4))):
    theta = matrices.clone().requires_grad_()
    pool(feature_map, theta).square().sum().backward()
    gradients.append(theta.grad)
torch.testing.assert_close(*gradients)

figure, axes = image_grid(1, len(hand), images[person], scale=1.3)
for axis, (name, theta) in zip(axes[0], by_hand.items()):
    draw_on(axis, images[person], title=name)
    weight = weight_map(theta, 12, 6)
    area = (0, images.shape[3], images.shape[2], 0)
    axis.imshow(weight / weight.max(), cmap="magma", alpha=0.62, vmin=0, vmax=1,
                extent=area)
    add_patch(axis, images[person], theta, "white", linewidth=1.2)
plt.show()

# %% [markdown]
# **You should see** the weight maps of the five frames from above over the person, bright where a pixel of the map
# counts much, each against its own largest weight. They reach up to one pixel of the map beyond the frame, since a tent
# is two pixels wide. For the whole map all weights are equal: the plain mean.
#
# What that saves, in numbers to be held at once in one step of the paper's network:

# %%
# the paper's step: 40 images, 40 surrogates, ResNet-50 at 384 x 128
batch, channels, rows, columns = 80, 2048, 24, 8
held = {
    "the map": batch * channels * rows * columns,
    f"{M} patches, cut": M * batch * channels * rows * columns,
    f"{M} weight maps": M * batch * rows * columns,
}
megabytes = {name: 4 * count / 1e6 for name, count in held.items()}
held = pd.DataFrame({"numbers": held, "MB in float32": megabytes})
held.style.format({"numbers": "{:,}", "MB in float32": "{:,.1f}"})

# %% [markdown] tags=["slide"]
# ## The localisation network
#
# > **The paper (Sec. 3.1).** A localisation network predicts the $M$ matrices from the feature map itself: one
# > convolution and two fully connected layers. The layers say nothing about which patch should go where. What makes the
# > $M$ patches different is where the last layer's bias starts: at equal stripes.
#
# In the released code (ledger 21) the convolution is followed by batch norm, ReLU and pooling, and the mean over all
# places is what the two layers see. From scratch, with the library's weights:

# %%
generator = PatchGenerator(in_channels=16, num_patches=M, channels=32,
                           hidden=8).eval()
feature_map = torch.rand(4, 16, 12, 6)
convolution, norm = generator.localization[0], generator.localization[1]
first, last = generator.fc_loc[0], generator.fc_loc[2]

z = F.conv2d(feature_map, convolution.weight, convolution.bias)  # 3x3
deviation = (norm.running_var[:, None, None] + norm.eps).sqrt()
z = (z - norm.running_mean[:, None, None]) / deviation
z = z * norm.weight[:, None, None] + norm.bias[:, None, None]
z = F.max_pool2d(z.relu(), 3, stride=2, padding=1).mean((2, 3))
z = (z @ first.weight.T + first.bias).relu()
theta = (z @ last.weight.T + last.bias).view(-1, M, 2, 3)

torch.testing.assert_close(theta, generator(feature_map))
torch.testing.assert_close(theta, equal.expand(4, -1, -1, -1))
print("the PGN agrees, and before any training it cuts equal stripes "
      "whatever the image")

# %% [markdown]
# The second check holds because the last layer's weight starts at zero: the bias alone decides. It is also why the
# first steps move only this last layer: no gradient passes through a weight that is zero.
#
# How large is this network? The paper's, counted without making it (on torch's "meta" device tensors have a shape and
# nothing in it), beside the one of this profile:

# %%
def count(options, people):
    """Parameters of a PatchNet by part."""
    with torch.device("meta"):
        network = PatchNet(options, num_classes=people)
    parts = {"backbone": [network.backbone], "PGN": [network.generator],
             "branches": [network.branch, network.branch_norm],
             "embeddings": [network.embedding], "classifiers": [network.classifier]}
    return {name: sum(p.numel() for part in modules for p in part.parameters())
            for name, modules in parts.items()}


paper, here = PROFILES["paper"].network, chosen.network
source = ReidDataset.load(Path(data_dir) / chosen.folders["source"])
source_people = source.split("train").frame["person_id"].nunique()
counts = pd.DataFrame({"paper (ResNet-50)": count(paper, 4101),
                       f"{profile}": count(here, source_people)})

# weights, biases and the batch norm's two
C, P, Q = 2048, paper.pgn_channels, paper.pgn_hidden
assert (counts.loc["PGN", "paper (ResNet-50)"]
        == (9 * C * P + P) + 2 * P + (P * Q + Q) + (Q * 6 * M + 6 * M))
table = counts.copy()
table.loc["all"] = counts.sum()
table.style.format("{:,}")

# %%
#| caption: Parts of the network as shares of all its parameters, a bar for each
#|   network.
share = counts / counts.sum()
figure, axis = plt.subplots(figsize=(8.4, 2.3))
start = np.zeros(2)
for part, colour in zip(share.index, COLOURS):
    axis.barh(share.columns, share.loc[part], left=start, color=colour, label=part)
    for place, width in enumerate(share.loc[part]):
        if width > 0.04:
            axis.text(start[place] + width / 2, place, f"{width:.0%}", ha="center",
                      va="center", color="white")
    start += share.loc[part].to_numpy()
axis.set(xlim=(0, 1), xlabel="share of all parameters")
axis.invert_yaxis()
axis.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=10)
plt.show()
print("in the paper's network the PGN has "
      f"{share.loc['PGN', 'paper (ResNet-50)']:.0%} of all parameters; "
      f"{9 * C * P / counts.loc['PGN', 'paper (ResNet-50)']:.1%} of the PGN "
      "is one convolution")

# %% [markdown]
# **You should see** the PGN take the larger part of the paper's network, two to four times what the backbone has. It
# exists to produce $6M$ numbers. The convolution that does it is twice as wide as the widest layer of ResNet-50.

# %% [markdown] tags=["slide"]
# ## Branches, and the two stages
#
# > **The paper (Sec. 3.1).** $M$ branches with weights of their own turn the patches into features of 256 numbers. On
# > the labelled source each branch also classifies the person; on the target the PGN stays fixed and the features are
# > trained without labels.
#
# What happens to a pooled patch $z^m$, from the released code (ledger 8-10, 19), $W^m$ and $b^m$ being its branch and
# BN a batch norm:
#
# | | feature $x^m$ | embedding $e^m$ | logits |
# |---|---|---|---|
# | source | $\mathrm{ReLU}(\mathrm{BN}(W^m z^m + b^m))$ | linear layer of $x^m$ | linear layer of $x^m$ |
# | target | $\mathrm{BN}(W^m z^m + b^m)$, to unit length | cosines of $x^m$ to the rows of that same layer | none |
#
# On the target there is no ReLU: a unit vector may point anywhere, not only into the positive corner of the space.

# %%
network = PatchNet(chosen.network, num_classes=7).eval()
x = normalize(unit_range(images[:5]))
with torch.no_grad():
    feature_map = network.backbone(x)
    z = pool_patches(feature_map, network.generator(feature_map))  # [M, B, C]
    norm, dim = network.branch_norm, chosen.network.dim
    parts = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, variance, scale, shift = (part.view(M, 1, dim) for part in parts)
    y = torch.stack([z[m] @ network.branch.weight[m].T + network.branch.bias[m]
                     for m in range(M)])
    y = (y - mean) / (variance + norm.eps).sqrt() * scale + shift

    source = network(x)
    torch.testing.assert_close(source.features, y.relu())
    classifier = network.classifier
    torch.testing.assert_close(
        source.logits[2], y[2].relu() @ classifier.weight[2].T + classifier.bias[2])
    on_target = network.to_target()(x)
    features = y / y.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(on_target.features, features)
    torch.testing.assert_close(on_target.embeddings[1], F.cosine_similarity(
        features[1][:, None], network.embedding.weight[1][None], dim=-1))
print("features [M, B, D]", tuple(on_target.features.shape),
      " embeddings [M, B, E]", tuple(on_target.embeddings.shape))

# %% [markdown]
# ## The descriptor, and the image-level twin
#
# > **The paper (Sec. 4).** For the test, an image is described by all of its patch features put together.
#
# With unit vectors, $\|f_i - f_j\|^2 = \sum_m \|x_i^m - x_j^m\|^2 = 2M - 2 \sum_m \langle x_i^m, x_j^m \rangle$:
# sorting by this distance is sorting by the mean cosine of corresponding patches (ledger 29). No patch can outvote the
# others.

# %%
with torch.no_grad():
    f = network.describe(x)
torch.testing.assert_close(f, torch.cat(list(features), dim=1))
cosines = torch.stack([features[m] @ features[m].T for m in range(M)])
torch.testing.assert_close((f[:, None] - f[None]).square().sum(-1),
                           2 * M - 2 * cosines.sum(0), atol=1e-5, rtol=1e-4)

twin = chosen.network.image_level()
z = pool_patches(feature_map, stripes(1).expand(5, -1, -1, -1))[0]
torch.testing.assert_close(z, feature_map.mean((2, 3)))
print(f"PatchNet describes an image by {M} x {dim} = {f.shape[1]} numbers, "
      f"its twin by one vector of {twin.dim}")

# %% [markdown]
# Table 3 needs a network that sees whole images. Its *twin* has the same backbone and a descriptor just as wide, but
# one patch that is the whole map, so that pooling becomes the plain mean over the map. More than the patches differs
# between the two: PatchNet has six branches and sums six cross-entropies, its twin has one of each, and so one learning
# rate means another step for either. Each is therefore given a search of its own, with as many trials (chapter 06).

# %% [markdown]
# ## Where does a trained PGN look?
#
# Now the PGN of a trained PatchNet: trained on the *source* people alone, with the loss that tells them apart. Nobody
# told it what a person looks like or where one stands. The next cell trains it, or loads it where an earlier chapter
# has.

# %%
places = Places(data_dir, models=models_dir)
trained, _ = source_model(Spec("paul", target, seed, profile), places)
trained.eval()
untrained = PatchNet(chosen.network)  # for the stripes that it starts from


@torch.no_grad()
def look(network, images):
    """Where the network's patches lie: theta [N, M, 2, 3]."""
    device = next(network.parameters()).device
    parts = [network.theta(normalize(unit_range(part.to(device))))
             for part in images.split(256)]
    return torch.cat(parts).cpu()


trained_theta, start_theta = (look(trained, images),
                              equal.expand(len(images), -1, -1, -1))
torch.testing.assert_close(look(untrained.eval(), images[:8]), start_theta[:8])

# %% [markdown]
# Eight people of the target, sorted by how far down in the box they stand. First where the PGN started, then where it
# looks after training, then random patches, the poorest competitor of Table 4.

# %%
#| caption: Six patches at the start, on people who stand ever lower in their box:
#|   equal stripes.
if truth_known:
    order = frame["box_dy"].argsort().to_numpy()
    shown = order[np.linspace(0.02 * len(order), 0.98 * len(order), 8).astype(int)]
else:
    shown = np.arange(8)
titles = ([f"{100 * dy:+.0f} %" for dy in frame.loc[shown, "box_dy"]]
          if truth_known else None)
random_theta = RandomPatches(M).eval()(images)
patches_on_people(images[shown], start_theta[shown], titles)

# %% tags=["slide"]
#| caption: The patches of the trained PGN on the same people.
patches_on_people(images[shown], trained_theta[shown], titles)

# %%
#| caption: Random patches on the same people.
patches_on_people(images[shown], random_theta[shown], titles)

# %% [markdown]
# **You should see**, in the first row, the same stripes on everybody. In the second, at `mini`, patches that are no
# stripes any more: two to four times as high, somewhat tilted, overlapping, each about as wide as the box; and the
# whole stack sits higher on the people who stand high in their box (left) than on those who stand low (right). In the
# third row patches that lie anywhere: the third patch of one image has nothing to do with the third patch of another.
# At `smoke`, where training lasts seconds, the second row is hardly different from the first.
#
# Overlapping frames are hard to read, so here is one person again, patch by patch, with what lies outside of the patch
# faded.

# %%
#| caption: One person as six patches: cut by equal stripes above, by the trained
#|   PGN below.
one = shown[len(shown) // 2]
figure, axes = image_grid(2, M, images[0], scale=1.1)
rows, columns = images.shape[2:]
grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, columns),
                                  torch.linspace(-1, 1, rows), indexing="xy"))
states = {"before": start_theta, "after": trained_theta}
for line, (name, thetas) in zip(axes, states.items()):
    for m, axis in enumerate(line):
        theta = thetas[one, m]
        place = torch.linalg.solve(theta[:, :2], grid.flatten(1) - theta[:, 2:])
        inside = place.abs().amax(0) <= 1
        picture = unit_range(images[one])
        picture = torch.where(inside.view(rows, columns), picture,
                              0.75 + 0.25 * picture)
        draw_on(axis, picture, title=f"patch {m + 1}, {name}")
        add_patch(axis, picture, theta, COLOURS[m % len(COLOURS)])
plt.show()

# %% [markdown]
# **You should see** the person sliced above, and below, at `mini`, as many views that share much and differ in their
# middle. A taller patch holds more of the person, and is more alike from image to image; overlapping patches say the
# same things more than once. Nothing in the loss forbids either. What the PGN did to each of the six numbers, over all
# images:

# %%
#| caption: The six numbers of every patch over all images as violins; a black mark
#|   is where training began.
pieces = {"height $d$": trained_theta[:, :, 1, 1],
          "width $a$": trained_theta[:, :, 0, 0],
          "tilt $b$": trained_theta[:, :, 0, 1],
          "tilt $c$": trained_theta[:, :, 1, 0],
          "centre $t_x$": trained_theta[:, :, 0, 2],
          "centre $t_y$": trained_theta[:, :, 1, 2]}
start = {"height $d$": 1 / M, "width $a$": 1, "tilt $b$": 0, "tilt $c$": 0,
         "centre $t_x$": 0, "centre $t_y$": None}
figure, axes = plt.subplots(1, 6, figsize=(9.2, 2.6))
for axis, (name, values) in zip(axes, pieces.items()):
    parts = axis.violinplot(values.T.tolist(), showmedians=True, widths=0.9)
    for m, body in enumerate(parts["bodies"]):
        body.set(facecolor=COLOURS[m % len(COLOURS)], alpha=0.75)
    for line in ("cmedians", "cmins", "cmaxes", "cbars"):
        parts[line].set(color="0.3", linewidth=0.8)
    begin = (equal[:, 1, 2] if start[name] is None
             else torch.full((M,), float(start[name])))
    axis.plot(range(1, M + 1), begin, "k_", markersize=9, markeredgewidth=2)
    axis.set_title(name)
    axis.set(xticks=range(1, M + 1), xlabel="patch $m$")
figure.suptitle("the six numbers of every patch over all images; black: "
                "where they started", fontsize=10)
plt.show()

# %% [markdown]
# ## Does it follow the person?
#
# A detector's box is never quite right. If patches follow the person inside of the box, a head patch is compared with a
# head patch even when one box was cut too high. The renderer wrote down where each person really stands: `box_dx` and
# `box_dy` are how far the person's middle lies off the box's middle, as shares of the box. In the sampler's
# coordinates, from $-1$ to $1$, that is twice as much. So compare it with the mean centre of the image's $M$ patches; a
# PGN that follows the person fully would lie on the diagonal.

# %% tags=["slide"]
#| caption: The mean centre of a person's patches against the person's true place,
#|   down and across, for each way of cutting; dashed is a patch that follows
#|   exactly.
# the same patches, not allowed to move
held_still = trained_theta.mean(0).expand_as(trained_theta)
schemes = {"PGN, trained": trained_theta, "PGN, held at its mean": held_still,
           "equal stripes": start_theta, "random": random_theta}
axes_of = {"across": ("box_dx", 0), "down": ("box_dy", 1)}


def correlation(a, b):
    """Pearson's, and its 95 % interval by Fisher's transform; None for what doesn't
    move."""
    if np.std(a) < 1e-6:
        return None
    r = np.corrcoef(a, b)[0, 1]
    half = 1.96 / np.sqrt(len(a) - 3)
    low, high = np.tanh(np.arctanh(r) + np.array([-half, half]))
    return r, low, high


if truth_known:
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.7))
    lines = []
    for axis, (way, (column, row)) in zip(axes, axes_of.items()):
        true = 2 * frame[column].to_numpy()
        centre = {name: theta[:, :, row, 2].mean(1).numpy()
                  for name, theta in schemes.items()}
        axis.plot([-0.4, 0.4], [-0.4, 0.4], color="0.6", linestyle="--",
                  linewidth=1)
        for (name, values), colour in zip(centre.items(),
                                          (BLUE, RED, ORANGE, GREY)):
            if name in ("PGN, trained", "equal stripes"):
                axis.scatter(true, values, s=7, color=colour, alpha=0.5,
                             linewidths=0, label=name)
            measured = correlation(values, true)
            slope = np.polyfit(true, values, 1)[0]
            text = ("{:+.2f}  [{:+.2f}, {:+.2f}]".format(*measured)
                    if measured else "doesn't move")
            lines.append({"direction": way, "patches": name, "slope": slope,
                          "correlation": text})
        axis.set(xlabel=f"true place of the person, {way}",
                 ylabel="mean centre of its patches", xlim=(-0.42, 0.42),
                 ylim=(-0.42, 0.42), aspect="equal", title=way)
    axes[0].legend(loc="upper left", markerscale=2.5, fontsize=10)
    plt.show()
    followed = pd.DataFrame(lines).pivot(index="patches", columns="direction")
    display(followed.reindex(schemes).style.format(precision=2))

# %% [markdown]
# **You should see**, at `mini`, a blue cloud along the diagonal on the right: a correlation between 0.5 and 0.9 with
# the true vertical place, and a slope between 0.4 and 0.9, so the patches go a good part of the way with the person.
# Across there may be anything from nothing to 0.6: patches as wide as the box see the same person wherever they lie, so
# little makes the PGN learn it. Equal stripes don't move, and random patches move without knowing why. At `smoke`
# expect nothing.
#
# ### What that does to a patch
#
# The same said from the person's side: at which height of the *body* is the centre of patch $m$? If that height varies
# from image to image, one image's knees are compared with another's shins. Measured in body heights from the middle of
# the body, downwards, for an image whose person is `box_scale` times the size that fits.

# %% tags=["slide"]
#| caption: Where on the body the centre of each patch lies over all images, as
#|   violins, for each way of cutting.
if truth_known:
    dy, size = (frame["box_dy"].to_numpy()[:, None],
                frame["box_scale"].to_numpy()[:, None])
    on_body = {name: (theta[:, :, 1, 2].numpy() / 2 - dy) / size
               for name, theta in schemes.items()}
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 3.1), sharey=True)
    for axis, (name, heights) in zip(axes, on_body.items()):
        parts = axis.violinplot(heights, showextrema=False, widths=0.95)
        for m, body in enumerate(parts["bodies"]):
            body.set(facecolor=COLOURS[m % len(COLOURS)], alpha=0.8)
        axis.set(title=name, xticks=range(1, M + 1), xlabel="patch $m$")
    axes[0].set_ylabel("place of its centre on the body\n(0: its middle; "
                       "down is down)")
    axes[0].invert_yaxis()
    plt.show()
    spread = pd.DataFrame({name: heights.std(0)
                           for name, heights in on_body.items()})
    spread.index = [f"patch {m + 1}" for m in range(M)]
    spread.loc["mean"] = spread.mean()
    print("standard deviation of that place over images, in body heights:")
    display(spread.style.format(precision=3))
    for other in ("equal stripes", "PGN, held at its mean"):
        gain = 1 - spread.loc["mean", "PGN, trained"] / spread.loc["mean", other]
        print(f"a trained PGN's patches wander {gain:.0%} less over the body than: "
              f"{other}")

# %% [markdown]
# **You should see**, at `mini`, the narrowest violins on the left: the PGN's patches stay at one place of the body,
# with a spread that is 10 to 60 % smaller than that of the stripes. The second panel is the control: the very same
# patches, frozen where they are on average, wander more again. So it is the following that aligns them, and not only
# where they lie. The random ones on the right cover half of the body each. That is the order of Table 4: random, equal,
# PGN. Chapter 09 finds out whether retrieval follows it.

# %% [markdown] tags=["slide"]
# ## Summary
#
# - A patch is an affine matrix; the sampler reads the map between its pixels with tents, and $\pm 1$ means the centres
#   of the border pixels.
# - The mean of a patch is one weighted sum over the map, so patches never have to be built.
# - The PGN starts at equal stripes, through its last bias alone. In the paper's network it holds most of the
#   parameters.
# - Source stage: ReLU, embeddings, logits. Target stage: unit vectors, and cosines to the frozen embedding layer. The
#   descriptor of an image is its $M$ patch features side by side.
# - Trained for nothing but telling people apart, the PGN learns to follow a person up and down in the box.

# %% [markdown]
# ## Exercises
#
# 1. *Predict.* Which $\theta$ mirrors the image left to right, and what happens to its weight map $A$? (Change one
#    sign. Then argue with the sum that defines $A$ before you draw it.)
# 2. `sample_patches(x, theta, size=(2, 6))` reads fewer points from each patch. Compare `pool_patches` with that size
#    and with the default, for a stripe and for the tilted frame: for which is the difference larger, and why? (How many
#    pixels does the patch cover, and how many points read them?)
# 3. Suppose the last layer's bias started at the same matrix for all $M$ patches. Could training tell them apart? (Look
#    at what else is different between the patches: follow the gradient from the branches back to the last layer.)
# 4. Take the PGN's convolution with a quarter of the channels. How many parameters does PatchNet save at ResNet-50?
#    Derive it from the count above, then check it with `count`.
# 5. *Break it.* Read equal stripes with `align_corners=False`. Nothing raises an error and no shape changes. For a map
#    of ones with $H = 12$ rows and $M = 6$: which patch means aren't 1 any more, and what are they? Derive it, then run
#    it.
# 6. *Extend.* Make a patch soft: weight its points by $\exp(-2 (u^2 + v^2))$, so that the middle counts more than the
#    edge. Write it as a weight map, and show that the weights of a patch inside the map still sum to one and that
#    $\theta$ still learns.
# 7. *Implement.* Write `weight_map` with nothing but the formula of $A$. Which mistake keeps all values right and loses
#    the gradient?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# $\theta = \begin{pmatrix} -1 & 0 & 0 \\ 0 & 1 & 0 \end{pmatrix}$. $A$ doesn't change. It is a sum over the patch's
# points $p$, and mirroring only renames them: the point that was at $u$ is now at $-u$, and the grid holds both. So a
# network that pools its patches can't tell a patch from its mirror image.
#
# ```python
# # runs alone
# import torch
# from paul.patches import pool_patches
#
# theta = torch.tensor([[0.5, 0.1, 0.2], [0.1, 0.3, -0.2]])
# mirrored = theta * torch.tensor([-1.0, 1, 1])  # u becomes -u: the first column
# x = torch.rand(4, 8, 12, 6)
# torch.testing.assert_close(*(pool_patches(x, t.expand(4, 1, 2, 3))
#                              for t in (theta, mirrored)))
# ```
#
# </details>
#
# <details><summary>Solution 2</summary>
#
# For the tilted frame. A stripe of a sixth of 12 rows covers about two rows, and two rows of points read all of them,
# though they weight them unlike the default does. The frame is about as high as four rows and, being tilted, crosses
# more; two rows of points at its upper and lower edge leave its middle unread. Fewer points do as long as none of the
# patch's pixels lies more than about one pixel from a point.
#
# ```python
# # runs alone
# import torch
# from paul.patches import pool_patches, stripes
#
# torch.manual_seed(0)
# x = torch.rand(64, 16, 12, 6)
# tilted = torch.tensor([[0.7, 0.35, 0.0], [-0.12, 0.3, 0.3]])
# apart = {}
# for name, theta in (("stripe", stripes(6)[1]), ("tilted", tilted)):
#     theta = theta.expand(64, 1, 2, 3)
#     few, all_points = pool_patches(x, theta, size=(2, 6)), pool_patches(x, theta)
#     apart[name] = (few - all_points).square().mean().sqrt().item()
# assert apart["tilted"] > apart["stripe"]
# ```
#
# </details>
#
# <details><summary>Solution 3</summary>
#
# Yes, but slowly. At the start all patches see the same place, so $z^1 = \dots = z^M$. Each patch has a branch and a
# classifier of its own, drawn at random, and the gradient reaches the $m$-th six numbers of the last bias through the
# $m$-th branch alone. These gradients differ, and so the matrices part after the first step. But the PGN's learning
# rate is tiny and its time short: patches that start together would end close together, and tell the same story $M$
# times. Starting at stripes is what makes them different.
#
# </details>
#
# <details><summary>Solution 4</summary>
#
# With $C = 2048$, $P = 4096$ and $Q = 512$ the convolution has $9CP + P$ parameters, its batch norm $2P$, and the first
# fully connected layer $PQ + Q$. All but $Q$ are proportional to $P$, so a quarter of the channels saves three quarters
# of $9CP + 3P + PQ$: 58,205,184, which is three quarters of nearly the whole PGN.
#
# ```python
# # runs alone
# C, P, Q, M = 2048, 4096, 512, 6
#
#
# def pgn(P):
#     return (9 * C * P + P) + 2 * P + (P * Q + Q) + (Q * 6 * M + 6 * M)
#
#
# assert pgn(P) - pgn(P // 4) == 3 * (9 * C * P + 3 * P + P * Q) // 4 == 58_205_184
# ```
#
# </details>
#
# <details><summary>Solution 5</summary>
#
# The first and the last, each $0.9375$. With `False`, the rows of points are at $v_i = \frac{2i+1}{12} - 1$. The first
# stripe puts them at pixel rows $v_i + \frac12$, of which three lie above the first pixel's centre, by $\frac{5}{12}$,
# $\frac{3}{12}$ and $\frac{1}{12}$. That much of their tents is missing: $\frac{1}{12} \cdot \frac{9}{12} = 0.0625$.
# Across, a full-width stripe hits the pixel centres exactly and loses nothing. No shape gives this away; only a value
# does.
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
# <details><summary>Solution 6</summary>
#
# Each point $p$ gets a weight $g_p$ with $\sum_p g_p = 1$ in place of $\frac1P$; the tents stay as they are. For a
# point inside the map the tents over all pixels sum to one, so $\sum_{ij} A_{ij} = \sum_p g_p = 1$. $g$ depends on
# $(u, v)$, not on $\theta$, and the tents carry the gradient as before.
#
# ```python
# # runs alone
# import torch
#
#
# def soft_weight_map(theta, H, W):
#     v, u = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W),
#                           indexing="ij")
#     g = torch.exp(-2 * (u**2 + v**2)).flatten()
#     points = torch.stack([u.flatten(), v.flatten(), torch.ones(H * W)])
#     x, y = theta @ points
#     x, y = (x[:, None] + 1) * (W - 1) / 2, (y[:, None] + 1) * (H - 1) / 2
#     across = (1 - (x - torch.arange(W)).abs()).clamp(min=0)
#     down = (1 - (y - torch.arange(H)).abs()).clamp(min=0)
#     return down.T @ ((g / g.sum())[:, None] * across)
#
#
# theta = torch.tensor([[0.5, 0, 0.1], [0, 0.25, -0.2]], requires_grad=True)
# A = soft_weight_map(theta, 12, 6)
# torch.testing.assert_close(A.sum(), torch.tensor(1.0))
# (A * torch.rand(12, 6)).sum().backward()
# assert theta.grad.abs().min() > 0
# ```
#
# - *full*: the map, both properties shown, and what the soft edge does to the overlap of neighbouring patches;
# - *half*: the map, and one property shown;
# - *some*: a Gaussian on the pixels of the map, which doesn't move with $\theta$.
#
# </details>
#
# <details><summary>Solution 7</summary>
#
# Computing the points outside of the graph: `theta.detach()`, `.item()`, or a grid of Python numbers. All means agree
# and no patch ever moves, which is why the chapter compares gradients and not only values. Next in frequency:
# $\frac W2$ in place of $\frac{W-1}{2}$ (the other corner convention), a forgotten $\frac1P$, and rows taken for
# columns, which a square map would hide. `python -m book grade` looks for all of them.
#
# </details>

# %% [markdown]
# ## Next
#
# Chapter 04, *PEDAL and the patch memory bank*: what can be learned from patches when nobody says who is who.

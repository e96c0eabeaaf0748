"""Where the patches are cut: the patch generation network and its two baselines, and the sampler behind all three.

A patch is an affine matrix theta in R^{2x3} on the feature map (paper Sec. 3.1). Coordinates run from -1 to 1 between
the *centres* of the border pixels (align_corners=True, the convention of the released code; ledger 20), or between
their outer edges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paul.engine.device import send


def stripes(num_patches: int) -> Tensor:
    """M equal horizontal stripes as affine matrices [M, 2, 3]: x scale 1, y scale 1/M, y shift -1 + (2m - 1)/M.

    Raises:
        ValueError: num_patches < 1.
    """
    if num_patches < 1:
        raise ValueError(f"num_patches must be at least 1, got {num_patches}")
    theta = torch.zeros(num_patches, 2, 3)
    theta[:, 0, 0] = 1
    theta[:, 1, 1] = 1 / num_patches
    theta[:, 1, 2] = -1 + (2 * torch.arange(num_patches) + 1) / num_patches
    return theta


def sample_patches(x: Tensor, theta: Tensor, size: tuple[int, int] | None = None, align_corners: bool = True) -> Tensor:
    """Cut every patch out of a feature map, bilinearly, zeros outside (paper Sec. 3.1).

    Args:
        x: [B, C, H, W].
        theta: [B, M, 2, 3].
        size: rows and columns of a patch; the map's own by default, as released.
        align_corners: where -1 and 1 lie, and the outermost sampling points of a patch.

    Returns:
        [M, B, C, *size].
    """
    batch, patches = theta.shape[:2]
    rows, columns = size or x.shape[2:]
    grid = F.affine_grid(theta.flatten(0, 1), [batch * patches, 1, rows, columns], align_corners=align_corners)
    repeated = x.unsqueeze(1).expand(-1, patches, -1, -1, -1).flatten(0, 1)
    cut = F.grid_sample(repeated, grid, align_corners=align_corners)
    return cut.unflatten(0, (batch, patches)).transpose(0, 1)


def _bilinear(position: Tensor, size: int) -> Tensor:
    """Weight of each of `size` pixels for sampling points at `position` [..., P] (in pixels) -> [..., P, size]."""
    t = position.unsqueeze(-1) - torch.arange(size, dtype=position.dtype, device=position.device)
    inside = ((t >= 0) & (t < 1)), ((t >= -1) & (t < 0))  # half-open, so that the derivative is grid_sample's too
    return (1 - t) * inside[0] + (1 + t) * inside[1]


def _in_pixels(coordinate: Tensor, size: int, align_corners: bool) -> Tensor:
    """From [-1, 1] to positions among `size` pixels, whose centres are whole numbers."""
    return (coordinate + 1) * (size - 1) / 2 if align_corners else ((coordinate + 1) * size - 1) / 2


def _sampling_points(theta: Tensor, rows: int, columns: int, align_corners: bool) -> Tensor:
    """Where affine matrices [n, 2, 3] sample, row by row: [n, rows * columns, 2] as (x, y); n may be 0."""

    def between(count):
        end = 1 if align_corners and count > 1 else 1 - 1 / count
        return torch.linspace(-end, end, count, dtype=theta.dtype, device=theta.device)

    x, y = between(columns).expand(rows, -1), between(rows).unsqueeze(1).expand(-1, columns)
    points = torch.stack([x, y, torch.ones_like(x)], -1).view(1, rows * columns, 3)
    return torch.bmm(points.expand(len(theta), -1, -1), theta.mT)


def pool_patches(x: Tensor, theta: Tensor, size: tuple[int, int] | None = None, align_corners: bool = True) -> Tensor:
    """The mean of every patch of `sample_patches`, without building the patches.

    Bilinear sampling is linear in the map, so the mean of a patch is the map times one weight per pixel: the product
    of two tent functions, summed over the patch's sampling points.

    Args:
        x: [B, C, H, W].
        theta: [B, M, 2, 3]; gradients reach it.
        size, align_corners: as in `sample_patches`.

    Returns:
        [M, B, C].
    """
    batch, patches = theta.shape[:2]
    height, width = x.shape[2:]
    rows, columns = size or (height, width)
    with torch.autocast(x.device.type, enabled=False):
        theta = theta if theta.dtype == torch.float64 else theta.float()
        grid = _sampling_points(theta.flatten(0, 1), rows, columns, align_corners)
        across = _bilinear(_in_pixels(grid[..., 0], width, align_corners), width)
        down = _bilinear(_in_pixels(grid[..., 1], height, align_corners), height)
        weight = torch.bmm(down.mT, across / (rows * columns))
    weight = weight.view(batch, patches, height * width).to(x.dtype)
    return torch.bmm(weight, x.flatten(2).mT).transpose(0, 1)


class PatchGenerator(nn.Module):
    """Patch generation network (PGN): a localisation network predicts M affine matrices (paper Sec. 3.1; ledger 21).

    One 3x3 convolution, batch norm, ReLU and pooling, then two fully connected layers whose last bias starts at equal
    stripes with zero weight: that start is all that makes the M patches differ.

    Args:
        in_channels: C of the feature map.
        num_patches: M.
        channels, hidden: widths of the convolution and of the first fully connected layer (4096 and 512 as released).

    Raises:
        ValueError: num_patches < 1.
    """

    def __init__(self, in_channels: int, num_patches: int = 6, channels: int = 4096, hidden: int = 512):
        super().__init__()
        start = stripes(num_patches)
        self.localization = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.fc_loc = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, start.numel())
        )
        nn.init.kaiming_normal_(self.localization[0].weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc_loc[2].weight)
        self.fc_loc[2].bias.data.copy_(start.flatten())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> theta [B, M, 2, 3]."""
        return self.fc_loc(self.localization(x).mean((2, 3))).unflatten(1, (-1, 2, 3))


class EqualStripes(nn.Module):
    """M equal horizontal stripes, the same for every image (paper Table 4, "equal").

    Raises:
        ValueError: num_patches < 1.
    """

    def __init__(self, num_patches: int = 6):
        super().__init__()
        self.register_buffer("theta", stripes(num_patches), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> theta [B, M, 2, 3]."""
        return self.theta.expand(len(x), -1, -1, -1)


class RandomPatches(nn.Module):
    """M upright rectangles drawn anew for every image (paper Table 4, "random").

    Width and height are uniform between a stripe's height and the whole map, the place uniform inside it. In
    evaluation the draws start from a fixed seed, so that the same batch is described twice alike.

    Raises:
        ValueError: num_patches < 1.
    """

    def __init__(self, num_patches: int = 6):
        super().__init__()
        if num_patches < 1:
            raise ValueError(f"num_patches must be at least 1, got {num_patches}")
        self.num_patches = num_patches

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> theta [B, M, 2, 3]."""
        shape = (2, len(x), self.num_patches, 2)
        generator = None if self.training else torch.Generator().manual_seed(0)
        draw = send(torch.rand(shape, generator=generator), x.device)
        smallest = 1 / self.num_patches
        scale = smallest + (1 - smallest) * draw[0]
        shift = (2 * draw[1] - 1) * (1 - scale)
        theta = torch.diag_embed(scale)
        return torch.cat([theta, shift.unsqueeze(-1)], dim=-1)


class WholeMap(nn.Module):
    """One patch that is the whole map: average pooling, for the image-level twin of PatchNet (paper Table 3)."""

    def __init__(self, num_patches: int = 1):
        super().__init__()
        if num_patches != 1:
            raise ValueError(f"the image-level network has exactly one patch, got num_patches={num_patches}")
        self.register_buffer("theta", stripes(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> theta [B, 1, 2, 3]."""
        return self.theta.expand(len(x), -1, -1, -1)

"""LOMO: colour and texture counted in windows, and the most of each count along a horizontal strip.

After Liao, Hu, Zhu & Li, "Person re-identification by local maximal occurrence representation and metric learning",
CVPR 2015, Sec. 3, with the texture code of Liao et al., "Modeling pixel process with scale invariant local patterns",
CVPR 2010. Nothing is learned: descriptors are compared by Euclidean distance, as the unsupervised rows of re-ID tables
do (the same paper's XQDA is a metric learned with labels, and no part of those rows).

Where the paper leaves room: Retinex is the average over its two scales of log(image) - log(surround), each image
stretched to [0, 1] over all its channels at once; a coarser level of the pyramid averages the picture and takes its
codes again (the authors' code averages the colour codes themselves); each of the three parts, colour and texture at
either radius, is of unit length, as in their code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from paul.data.transforms import gray, unit_range
from paul.rivals.lomo import LomoOptions


def hsv(x: Tensor) -> Tensor:
    """RGB images [B, 3, H, W] in [0, 1] -> hue (a full turn is 1), saturation and value, each in [0, 1]."""
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    safe = chroma.where(chroma > 0, torch.ones_like(chroma))
    red, green, blue = x.unbind(1)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    return torch.stack([(sector / 6) % 1, chroma / value.where(value > 0, torch.ones_like(value)), value], 1)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [B, C, H, W], edges repeated, the kernel cut off at three standard deviations."""
    reach = torch.arange(-round(3 * sigma), round(3 * sigma) + 1, device=x.device, dtype=x.dtype)
    kernel = torch.softmax(-reach.square() / (2 * sigma**2), 0)
    x, planes = x.flatten(0, 1).unsqueeze(1), x.shape[:2]
    for shape, pad in (
        ((1, 1, -1, 1), (0, 0, len(reach) // 2, len(reach) // 2)),
        ((1, 1, 1, -1), (len(reach) // 2, len(reach) // 2, 0, 0)),
    ):
        x = F.conv2d(F.pad(x, pad, mode="replicate"), kernel.view(shape))
    return x.squeeze(1).unflatten(0, planes)


def retinex(x: Tensor, surrounds: tuple[float, ...]) -> Tensor:
    """Multi-scale Retinex (Jobson et al., 1997) of images in [0, 1]: each pixel against its surround, stretched.

    A light that is even over the surround cancels.
    """
    x = 255 * x + 1  # so that the logarithm exists; one grey level
    ratio = sum(x.log() - blurred(x, sigma).log() for sigma in surrounds) / len(surrounds)
    low, high = ratio.amin((1, 2, 3), keepdim=True), ratio.amax((1, 2, 3), keepdim=True)
    return (ratio - low) / (high - low).clamp(min=1e-6)


def colour_codes(x: Tensor, bins: int) -> Tensor:
    """Joint HSV bin of every pixel: [B, 3, H, W] in [0, 1] -> [B, H, W] in 0 .. bins^3 - 1."""
    place = (hsv(x) * bins).long().clamp(max=bins - 1)
    return (place[:, 2] * bins + place[:, 1]) * bins + place[:, 0]


def siltp(x: Tensor, radius: int, tau: float) -> Tensor:
    """Scale invariant local ternary pattern of grey images [B, H, W] -> [B, H, W] in 0 .. 80; edges repeated.

    A digit to base 3 for each neighbour right, above, left and below: 1 for less than (1 - tau) of the pixel, 2 for
    more than (1 + tau) of it, 0 in between. Multiplying the image by a number changes nothing.
    """
    height, width = x.shape[1:]
    wide = F.pad(x.unsqueeze(1), (radius,) * 4, mode="replicate").squeeze(1)
    code = torch.zeros_like(x, dtype=torch.long)
    for place, (down, right) in enumerate(((0, 1), (-1, 0), (0, -1), (1, 0))):
        top, left = radius * (1 + down), radius * (1 + right)
        neighbour = wide[:, top : top + height, left : left + width]
        code += 3**place * ((neighbour < (1 - tau) * x).long() + 2 * (neighbour > (1 + tau) * x).long())
    return code


def maximal_occurrence(codes: Tensor, bins: int, window: int, step: int) -> Tensor:
    """Counts of each code per window, and the largest over the windows side by side.

    [B, H, W] -> [B, strips, bins]; the windows of one strip share their rows, (H - window) // step + 1 strips.
    """
    windows = codes.unfold(1, window, step).unfold(2, window, step).flatten(3)
    counts = torch.zeros(*windows.shape[:3], bins, device=codes.device)
    return counts.scatter_add_(3, windows, torch.ones_like(windows, dtype=counts.dtype)).amax(2)


def _describe(images: Tensor, options: LomoOptions) -> Tensor:
    plain = unit_range(images)
    colour = retinex(plain, options.surrounds) if options.surrounds else plain
    texture, parts = gray(plain), [[] for _ in range(1 + len(options.radii))]
    for level in range(options.levels):
        if level:
            colour, texture = F.avg_pool2d(colour, 2), F.avg_pool2d(texture, 2)
        if min(colour.shape[2:]) < options.window:
            break  # nothing left to slide a window over
        codes = [(colour_codes(colour, options.bins), options.bins**3)]
        codes += [(siltp(texture.squeeze(1), radius, options.tau), 81) for radius in options.radii]
        for part, (code, bins) in zip(parts, codes):
            part.append(maximal_occurrence(code, bins, options.window, options.step).flatten(1))
    return torch.cat([F.normalize(torch.cat(part, 1).log1p(), dim=1) for part in parts], 1)


@torch.inference_mode()
def describe(images: Tensor, options: LomoOptions = LomoOptions(), batch: int = 64) -> Tensor:
    """LOMO of uint8 images [n, 3, H, W] -> [n, d] on their device; d = 26,960 at 128x48.

    Raises:
        ValueError: the images are smaller than one window.
    """
    if min(images.shape[2:]) < options.window:
        raise ValueError(
            f"LOMO's windows of {options.window} pixels do not fit into images of "
            f"{images.shape[2]}x{images.shape[3]}; give larger images or a smaller lomo.window"
        )
    return torch.cat([_describe(part, options) for part in images.split(batch)])

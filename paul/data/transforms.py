"""What happens to a batch between its pixels and the network, on its own device: scaling to [0, 1], flips, surrogates
(paper Sec. 3.3), source-stage shifts, normalisation.

Every image draws its own parameters, on the CPU, from the generator given, so that a seed means the same pictures on
every device; they go there in one copy that nothing waits for, and no shape depends on them. Rotation and crop are one
resampling. Images are float tensors [B, 3, H, W] in [0, 1].
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from paul.engine.device import send

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
# mean and standard deviation of ImageNet, what torchvision's weights were trained with
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a constant first used in inference must do in training, too
def per_channel(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """One number per channel [1, C, 1, 1], made once per device: a constant made anew would stop the host each time."""
    return torch.tensor(values, device=device, dtype=dtype).view(1, -1, 1, 1)


def unit_range(images: Tensor) -> Tensor:
    """uint8 images -> float32 in [0, 1]."""
    return images.float() / 255


def normalize(x: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] -> the backbone's input (zero mean, unit variance on ImageNet)."""
    mean, std = (per_channel(values, x.device, x.dtype) for values in (MEAN, STD))
    return (x - mean) / std


def _uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def random_flip(x: Tensor, generator: torch.Generator, share: tuple[int, slice] | None = None) -> Tensor:
    """Mirror each image with probability one half; `share` as in `surrogates`."""
    count, part = share or (len(x), slice(None))
    flip = send((torch.rand(count, generator=generator) < 0.5)[part], x.device)
    return torch.where(flip.view(-1, 1, 1, 1), x.flip(3), x)


def resample(x: Tensor, theta: Tensor, padding: str = "zeros") -> Tensor:
    """Each image seen through its affine matrix theta [B, 2, 3] (pixel *areas*: align_corners=False)."""
    if not len(x):
        return x
    grid = F.affine_grid(send(theta, x.device).to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=False)


def random_shift(x: Tensor, generator: torch.Generator, amount: float = 0.06) -> Tensor:
    """Shift and scale each image by up to +-`amount` of its size, repeating the border."""
    scale = 1 + _uniform(generator, len(x), -amount, amount)
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = 2 * _uniform(generator, 2 * len(x), -amount, amount).view(-1, 2)
    return resample(x, theta, "border")


def gray(x: Tensor) -> Tensor:
    """Luma of [B, 3, H, W] -> [B, 1, H, W]."""
    return (x * per_channel((0.2989, 0.587, 0.114), x.device, x.dtype)).sum(1, keepdim=True)


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of HSV by `turn` [B], 1 being the full circle."""
    value = x.amax(1)
    chroma = value - x.amin(1)  # value * saturation
    safe = chroma.where(chroma > 0, torch.ones_like(chroma))
    r, g, b = ((value - channel) / safe for channel in x.unbind(1))
    sector = torch.where(value == x[:, 0], b - g, torch.where(value == x[:, 1], 2 + r - b, 4 + g - r))
    angle = (sector / 6 + turn.view(-1, 1, 1)) * 6
    # f(n) = v - v s max(0, min(k, 4 - k, 1)), k = (n + h / 60) mod 6, for n = 5, 3, 1
    k = per_channel((5.0, 3.0, 1.0), x.device, x.dtype) + angle.unsqueeze(1)
    k = k - 6 * (k / 6).floor()  # as `%`, several times as fast
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def draw_jitter(count: int, generator: torch.Generator, jitter: float = 0.2, hue_turn: float = 0.1) -> Tensor:
    """What `color_jitter` does to each image -> [count, 7, 2], on the CPU: (change, factor) of seven slots.

    Hue takes the middle slot; the other three changes stand before or after it, in an order of the image's own. That
    leaves three slots empty: brightness with factor 1, which changes nothing.
    """
    order = torch.rand(count, 4, generator=generator).argsort(dim=1)
    factors = 1 + _uniform(generator, 3 * count, -jitter, jitter).view(3, -1)
    factors = torch.cat([factors, _uniform(generator, count, -hue_turn, hue_turn)[None]]).T
    slot = torch.arange(4) + 3 - (order == HUE).int().argmax(1, keepdim=True)
    slots = torch.tensor([float(BRIGHTNESS), 1.0]).repeat(count, 7, 1)
    slots[..., 0].scatter_(1, slot, order.float())
    slots[..., 1].scatter_(1, slot, factors.gather(1, order))
    return slots


def apply_jitter(x: Tensor, slots: Tensor) -> Tensor:
    """The changes that `draw_jitter` drew, slot by slot, for all images at once; slots [B, 7, 2] on x's device.

    Factor 0 makes an image black (brightness), its mean grey (contrast) or its greys (saturation), 1 leaves it.
    """
    for place, slot in enumerate(slots.to(x.dtype).unbind(1)):
        change, factor = slot.view(-1, 2, 1, 1, 1).unbind(1)
        if place == 3:
            x = hue(x, factor)
            continue
        grey = gray(x)
        towards = torch.where(change == CONTRAST, grey.mean((2, 3), keepdim=True), grey) * (change != BRIGHTNESS)
        x = (factor * x + (1 - factor) * towards).clamp(0, 1)
    return x


def color_jitter(x: Tensor, generator: torch.Generator, jitter: float = 0.2, hue_turn: float = 0.1) -> Tensor:
    """Brightness, contrast, saturation in [1 - jitter, 1 + jitter] and hue in +-hue_turn, in an order of its own for
    each image."""
    return apply_jitter(x, send(draw_jitter(len(x), generator, jitter, hue_turn), x.device))


def rotation_and_crop(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    degrees: float = 10.0,
    area: tuple[float, float] = (0.70, 0.95),
    rotate: Tensor | None = None,
    crop: Tensor | None = None,
    aspect: Tensor | None = None,
) -> Tensor:
    """Affine matrices [count, 2, 3] that rotate about the centre, then crop a share of the *area* of free aspect and
    stretch it to the full image (ledger 16, 17).

    The crop's width is uniform between that share and the whole width, its height follows from the area, its place is
    uniform. `rotate` and `crop` [count] switch either off for single images. `aspect` [count] says of what rows over
    columns an image is the resized copy, and at which it is rotated (ledger 33); by default height over width.
    """
    angle = _uniform(generator, count, -math.radians(degrees), math.radians(degrees))
    share = _uniform(generator, count, *area)
    across = share + (1 - share) * torch.rand(count, generator=generator)
    down = share / across
    place = 2 * torch.rand(2, count, generator=generator) - 1
    if rotate is not None:
        angle = angle * rotate
    if crop is not None:
        across, down = (torch.where(crop.bool(), size, torch.ones(count)) for size in (across, down))
    # output point (u, v) -> crop: (across u + a, down v + b) -> rotation, in pixels so that angles stay angles
    a, b = place[0] * (1 - across), place[1] * (1 - down)
    cos, sin, aspect = angle.cos(), angle.sin(), height / width if aspect is None else aspect
    first = torch.stack([cos * across, -sin * aspect * down, cos * a - sin * aspect * b], 1)
    second = torch.stack([sin / aspect * across, cos * down, sin / aspect * a + cos * b], 1)
    return torch.stack([first, second], 1)


def surrogates(
    x: Tensor,
    generator: torch.Generator,
    *,
    mode: str = "all",
    jitter: float = 0.2,
    hue_turn: float = 0.1,
    degrees: float = 10.0,
    area: tuple[float, float] = (0.70, 0.95),
    padding: str = "zeros",
    aspect: Tensor | None = None,
    share: tuple[int, slice] | None = None,
) -> Tensor:
    """A surrogate of every image (paper Sec. 3.3; ledger 16, 17).

    Args:
        x: [B, 3, H, W] in [0, 1].
        generator: on the CPU; decides everything.
        mode: "all" applies colour jitter, rotation and crop in sequence (as released), "one" draws one of the three
            for each image (as the paper says).
        jitter, hue_turn, degrees, area: strengths.
        padding: what lies outside a rotated image, "zeros" or "border".
        aspect: rows over columns [size of the batch] at which an image is rotated, x's own by default; see
            `rotation_and_crop`.
        share: (size of the batch, which of its images x holds) where several processes share a batch; each draws for
            all of it, and so they draw alike.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in ("all", "one"):
        raise ValueError(f"surrogate mode must be 'all' or 'one', got {mode!r}")
    height, width = x.shape[2:]
    count, part = share or (len(x), slice(None))
    drawn = [draw_jitter(count, generator, jitter, hue_turn)]
    if mode == "all":
        drawn.append(rotation_and_crop(count, height, width, generator, degrees, area, aspect=aspect))
    else:
        choice = torch.randint(3, (count,), generator=generator)
        drawn += [
            rotation_and_crop(count, height, width, generator, degrees, area, choice == 1, choice == 2, aspect),
            choice == 0,
        ]
    together = send(torch.cat([draw.float().view(count, -1) for draw in drawn], 1)[part], x.device)
    slots, theta = together[:, :14].unflatten(1, (7, 2)), together[:, 14:20].unflatten(1, (2, 3))
    jittered = apply_jitter(x, slots)
    if mode == "all":
        return resample(jittered, theta, padding)
    return torch.where(together[:, 20].bool().view(-1, 1, 1, 1), jittered, resample(x, theta, padding))

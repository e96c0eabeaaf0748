"""One image file decoded, and a batch of images turned into what a backbone expects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paul.data.datasets import Split

# mean and standard deviation of ImageNet, what torchvision's weights were trained with
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode one file to RGB, resized bilinearly to size (H, W) -> uint8 [H, W, 3].

    Raises:
        ValueError: the file is missing, truncated or no image; the message names it.
    """
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
            if size is not None and image.size != size[::-1]:
                image = image.resize(size[::-1], Image.Resampling.BILINEAR)
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {path}: {error}. Restore the file, or take it out of index.csv; "
                         "training can leave such images out (skip_unreadable=True)") from error


def readable(split: Split, report=print) -> Split:
    """The split without images that cannot be decoded; each one left out is reported."""
    def check(path):
        try:
            read_image(path)
            return True
        except ValueError as error:
            report(f"left out: {error}")
            return False

    with ThreadPoolExecutor() as pool:
        return split.take(np.flatnonzero(list(pool.map(check, split.files))))


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

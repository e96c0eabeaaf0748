"""Images: decoded once, resized, kept as uint8; turned into what a backbone expects one batch at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from paul.datasets import Split

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
                         "training can leave such images out (--skip-unreadable)") from error


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


def load_images(split: Split, size: tuple[int, int], progress: bool = False) -> Tensor:
    """Decode a whole split, once -> uint8 [n, 3, H, W] on the CPU.

    Raises:
        ValueError: a file that cannot be decoded, named.
    """
    images = torch.empty(len(split), 3, *size, dtype=torch.uint8)

    def fill(row_path):
        row, path = row_path
        images[row] = torch.from_numpy(read_image(path, size).copy()).permute(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        for _ in tqdm(pool.map(fill, enumerate(split.files)), total=len(split), desc="decoding", unit="image",
                      disable=not progress, leave=False):
            pass
    return images


def unit_range(images: Tensor) -> Tensor:
    """uint8 images -> float32 in [0, 1]."""
    return images.float() / 255


def normalize(x: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] -> the backbone's input (zero mean, unit variance on ImageNet)."""
    mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std

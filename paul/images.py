"""Images: decoded once, resized, kept as uint8; turned into what a backbone expects one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from paul import store
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


def load_images(split: Split, size: tuple[int, int], progress: bool = False, place: str | None = None,
                folder: str | Path = store.FOLDER) -> Tensor:
    """Decode a whole split, once -> uint8 [n, 3, H, W] on the CPU.

    Args:
        split: its images.
        size: rows and columns.
        progress: whether a bar shows it.
        place: where training is to read them: the "device", "memory" or "disk" (a memory map, decoded the first time
            only; see `paul.store`). By default, the first of them of which half of what is free holds the set: here
            memory or disk, and `paul.device.on_device` takes them further.
        folder: of the memory maps.

    Raises:
        ValueError: a file that cannot be decoded, named; an unknown place.
        OSError: the disk does not take the memory map.
    """
    store.check_place(place)
    fits = len(split) * 3 * size[0] * size[1] < store.free_memory() / 2

    with tqdm(total=len(split), desc="decoding", unit="image", leave=False,
              **({} if progress else {"disable": True})) as bar:
        def decode(files: Sequence[Path]) -> Iterator[np.ndarray]:
            bar.update(len(split) - len(files) - bar.n)  # what an earlier process has decoded
            with ThreadPoolExecutor() as pool:
                for first in range(0, len(files), store.CHUNK):  # a bound on what waits to be stored
                    for image in pool.map(lambda path: _planes(path, size), files[first:first + store.CHUNK]):
                        bar.update()
                        yield image

        if place == "disk" or (place != "memory" and not fits):
            images = store.mapped(split.files, size, decode, folder)
        else:
            images = torch.empty(len(split), 3, *size, dtype=torch.uint8)
            for row, image in enumerate(decode(split.files)):
                images[row] = torch.from_numpy(image)
    images.place = place
    return images


def _planes(path: Path, size: tuple[int, int]) -> np.ndarray:
    return np.ascontiguousarray(read_image(path, size).transpose(2, 0, 1))


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

"""One image file decoded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from paul.data.datasets import Split


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
        raise ValueError(
            f"cannot read the image {path}: {error}. Restore the file, or take it out of index.csv; "
            "training can leave such images out (skip_unreadable=True)"
        ) from error


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

"""One image file decoded: the only place where one is opened, and where pixels of any kind become RGB."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from paul.data.datasets import Split

# Pillow tries every format it knows unless told otherwise, whatever the name ends in; PostScript starts a program
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
# what Pillow's decoders raise for damaged contents
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
GROUND = 128  # under transparent pixels: nearest to no signal once normalised, where black and white are clothes
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "YCbCr", "CMYK", "LAB", "HSV")
_WITH_ALPHA = {"LA": "LA", "PA": "PA", "RGBA": "RGBA", "La": "LA", "RGBa": "RGBA"}  # as what its alpha is undone
_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a disk"))
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)  # orientations whose rows are stored as columns
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """A PIL image of a regular file in one of FORMATS, whatever its name ends in; its pixels are decoded on demand.

    Raises:
        OSError: no such file, a folder, pipe, socket or device (none of which is opened), or none of these formats.
        Image.DecompressionBombError: it claims more pixels than Pillow allows.
    """
    path = os.fspath(path)
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):  # opening a pipe would wait for a writer
        raise OSError(f"it is {next((name for test, name in _KINDS if test(mode)), 'special')}, no regular file")
    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UnidentifiedImageError(f"it does not begin like a file of {', '.join(FORMATS)}") from error
    with image:
        yield image


def to_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode as RGB of 8 bits, the right way up by its EXIF orientation. Of several frames: this one.

    | Mode | Rule |
    |---|---|
    | 1, L, P, RGB, RGBX, YCbCr, CMYK, LAB, HSV | Pillow's conversion; colour profiles are not looked at |
    | LA, PA, RGBA, La, RGBa; 1, L, P, RGB with a transparent colour | laid upon mid-grey (128) |
    | I;16, I;16L, I;16B, I;16N; I out of PNG or PPM, which hold 16 bits | the upper 8 bits, as Pillow does with 16-bit
      colour; 12-bit TIFF: the upper 8 of 12; a transparent value: mid-grey |
    | F | [0, 1] times 255, rounded; refused where any value lies outside |
    | I otherwise, anything else | refused: no number says what is white |

    TIFF that counts from white (photometric 0) is turned round where Pillow doesn't do so, in 16 bits and in F.

    Raises:
        ValueError: refused; the message says what to do.
        DAMAGED: the image reads its file only now, and it is damaged.
    """
    raw = _raw_mode(image)  # gone once the pixels are there
    image.load()
    turn = _TURNS.get(_orientation(image))
    image = _in_rgb(image, raw)
    return image.transpose(turn) if turn is not None else image


def _in_rgb(image: Image.Image, raw: str) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or mode == "I" and image.format in ("PNG", "PPM"):
        return _from_16_bits(image)
    if mode == "F":
        return _from_floats(image)
    key = image.info.get("transparency") if mode in ("1", "L", "P", "RGB") else None
    if mode in _WITH_ALPHA or key is not None:
        if raw in ("L;2", "L;4", "RGB;16B") and key is not None:  # the key counts in other levels than the pixels
            raise ValueError(f"its transparent colour is given in {raw} and its pixels in {mode}: save it with alpha")
        image = image.convert(_WITH_ALPHA.get(mode, "RGBA")).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (GROUND,) * 3 + (255,)), image).convert("RGB")
    if mode in _PLAIN:
        return image.convert("RGB")
    what = "whole numbers of 32 bits" if mode == "I" else "of a kind that is not known here"
    raise ValueError(f"its pixels are {what} (mode {mode}), and nothing says what is white: save it with 8 bits")


def _from_16_bits(image: Image.Image) -> Image.Image:
    bits, from_white = _tags(image)
    values = np.asarray(image).astype(np.int64)
    grey = ((2**bits - 1 - values if from_white else values) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = GROUND
    return Image.fromarray(grey).convert("RGB")


def _from_floats(image: Image.Image) -> Image.Image:
    values = np.asarray(image, np.float32)
    if not (values.min() >= 0 and values.max() <= 1):  # nor where any is no number
        raise ValueError(
            f"its pixels are floating-point numbers from {values.min():.4g} to {values.max():.4g}, where black is 0 "
            "and white is 1: scale them to [0, 1], or save it with 8 bits"
        )
    _, from_white = _tags(image)
    return Image.fromarray(np.rint((1 - values if from_white else values) * 255).astype(np.uint8)).convert("RGB")


def _tags(image: Image.Image) -> tuple[int, bool]:
    """Bits of a grey value, and whether 0 is white; 16 and False for all but TIFF."""
    tags = getattr(image, "tag_v2", {})
    return (12 if tuple(tags.get(_BITS, ())) == (12,) else 16), tags.get(_PHOTOMETRIC) == 0


def _raw_mode(image: Image.Image) -> str:
    """How the pixels lie in a PNG file that is not decoded yet, "" otherwise."""
    tiles = getattr(image, "tile", None) if image.format == "PNG" else None
    return str(tiles[0][3]) if tiles else ""


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION)
    except DAMAGED:  # the camera's notes are spoilt, the pixels are not
        return None


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Raises ValueError, naming the file, for what is damaged inside."""
    try:
        yield
    except DAMAGED as error:
        raise ValueError(
            f"cannot read the image {path}: {error}. Restore the file, or take it out of index.csv; "
            "training can leave such images out (skip_unreadable=True)"
        ) from error


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode one file (`open_image`) to RGB (`to_rgb`), resized bilinearly to size (H, W) -> uint8 [H, W, 3].

    Raises:
        ValueError: the file is missing, truncated or no image, no regular file, in none of FORMATS, or of pixels that
            `to_rgb` refuses; the message names it.
    """
    with _named(path), open_image(path) as image:
        image = to_rgb(image)
        if size is not None and image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(image)


def read_size(path: str | Path) -> tuple[int, int]:
    """Rows and columns of a file, the right way up by its EXIF orientation; its pixels are not decoded.

    Raises:
        ValueError: as `read_image`, for what shows without decoding.
    """
    with _named(path), open_image(path) as image:
        columns, rows = image.size
        return (columns, rows) if _orientation(image) in _LYING else (rows, columns)


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

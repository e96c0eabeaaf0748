"""Decoded images on disk, for sets that memory does not hold: one file of plain bytes a set, mapped into memory.

The system reads the pages that a batch touches and drops them when memory runs short. The file is written once, under
a temporary name until it is whole; decoding that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

PLACES = ("device", "memory", "disk")
FOLDER = "build/images"
CHUNK = 512  # images between two points at which interrupted decoding can go on


def free_memory() -> int:
    """Bytes that this process may still take, by the system and by its control group (Linux), or half of all memory."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, KeyError):  # another system, or a group without a limit
        pass
    return max(0, min(found)) if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def check_place(place: str | None) -> None:
    """Raises ValueError for a place where images cannot live; None leaves the choice to their size."""
    if place not in (None, *PLACES):
        raise ValueError(f"images can live in {', '.join(PLACES)}, not in {place!r}; None chooses by size")


def key_of(files: Sequence[Path], size: tuple[int, int]) -> str:
    """Hash over what decides the decoded bytes: the index's files, their lengths and times of change, and the size."""
    found = hashlib.sha256(repr(tuple(size)).encode())
    for path in files:
        try:
            status = os.stat(path)
            state = status.st_size, status.st_mtime_ns
        except OSError:  # decoding will name it
            state = None
        found.update(f"{os.path.abspath(path)}\0{state}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()[:16]


def opened(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The file as a uint8 tensor of this shape, of which only what is read takes memory; writing to it is an error."""
    # mode "r" shares the file's pages; a private copy-on-write map would count in full against the memory there is
    array = np.memmap(path, np.uint8, "r", shape=shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)
        images = torch.from_numpy(array)
    images.file = path  # marks the tensor as mapped
    return images


def wanted_place(images: Tensor) -> str | None:
    """Where `paul.images.load_images` was asked to keep these images, None for wherever they fit."""
    return getattr(images, "place", None)


def file_of(images: Tensor) -> Path | None:
    """The file behind a mapped set of images, None for images in memory."""
    return getattr(images, "file", None)


def mapped(files: Sequence[Path], size: tuple[int, int], decode: Callable[[Sequence[Path]], Iterable[np.ndarray]],
           folder: str | Path = FOLDER) -> Tensor:
    """Images as a map of a file below `folder`, decoded only when no earlier call left that file.

    Args:
        files: of the images.
        size: rows and columns.
        decode: from some of the files to their pixels, uint8 [3, H, W] each, in order.
        folder: may be deleted at any time nothing is running; several sets and sizes share it.

    Returns:
        uint8 [n, 3, H, W].

    Raises:
        OSError: the folder cannot be written, or the disk is full; says what to do.
        ValueError: a file that cannot be decoded (from `decode`); what was decoded before it is kept.
    """
    shape = (len(files), 3, *size)
    path = Path(folder) / f"{size[0]}x{size[1]}-{key_of(files, size)}.uint8"
    whole = int(np.prod(shape))
    if not (path.is_file() and path.stat().st_size == whole):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):  # a second process waits, then finds the file
                if not (path.is_file() and path.stat().st_size == whole):
                    _decode_into(path, files, CHUNK * whole // len(files), decode)
        except OSError as error:
            raise OSError(f"could not keep decoded images in {path.parent} ({error.strerror or error}): it takes "
                          f"{gigabytes(whole)}; free some space or name another folder, then run the same command "
                          "again: it goes on where it was") from error
    return opened(path, shape)


def _decode_into(path: Path, files: Sequence[Path], chunk: int, decode) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("ab") as file:
        # the last chunk may not have reached the disk whole when the machine went down: decode it again
        done = max(0, -(-file.tell() // chunk) - 1)
        file.truncate(done * chunk)
        file.seek(0, os.SEEK_END)
        pixels = iter(decode(files[done * CHUNK:]))
        for first in range(done * CHUNK, len(files), CHUNK):
            for _ in files[first:first + CHUNK]:
                file.write(next(pixels).tobytes())
            file.flush()
            os.fsync(file.fileno())
    os.replace(partial, path)


def gigabytes(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2 ** 30:.1f} GiB" if count >= 2 ** 30 / 10 else f"{count / 2 ** 20:.1f} MiB"

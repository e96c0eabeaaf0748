"""A set's decoded images, and where they are kept: in memory, on the device, or on disk.

For sets that memory does not hold, one file of plain bytes is mapped into memory: the system reads the pages that a
batch touches and drops them when memory runs short. The file is written once, under a temporary name until it is whole;
decoding that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

from paul.data.datasets import Split
from paul.data.images import read_image, read_size

PLACES = ("device", "memory", "disk")
FOLDER = "build/images"
CHUNK = 512  # images between two points at which interrupted decoding can go on


@dataclass(frozen=True)
class Pixels:
    """The images of a set.

    Attributes:
        images: uint8 [n, 3, H, W], in memory, on a device, or a map of `file`.
        place: where training is asked to read them, "device", "memory" or "disk"; None for wherever they fit.
        file: behind a map, None for images in memory.
        sources: the files that they were decoded from, none where that is not known.
    """

    images: Tensor
    place: str | None = None
    file: Path | None = None
    sources: Sequence[Path] = ()

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(cls, images: Tensor | Pixels) -> Pixels:
        """Plain images as a set that may be kept wherever it fits."""
        return images if isinstance(images, Pixels) else cls(images)

    def aspects(self) -> Tensor:
        """Rows over columns [n] of the files, as far as they are known, or else of the images themselves.

        Raises:
            ValueError: a file that cannot be read, named.
        """
        if not self.sources:
            rows, columns = self.images.shape[-2:]
            return torch.full((len(self),), rows / columns)
        with ThreadPoolExecutor() as pool:
            return torch.tensor([rows / columns for rows, columns in pool.map(read_size, self.sources)])


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
        return torch.from_numpy(array)


def mapped(
    files: Sequence[Path],
    size: tuple[int, int],
    decode: Callable[[Sequence[Path]], Iterable[np.ndarray]],
    place: str | None = None,
    folder: str | Path = FOLDER,
) -> Pixels:
    """Images as a map of a file below `folder`, decoded only when no earlier call left that file.

    Args:
        files: of the images.
        size: rows and columns.
        decode: from some of the files to their pixels, uint8 [3, H, W] each, in order.
        place: see `Pixels`.
        folder: may be deleted at any time nothing is running; several sets and sizes share it.

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
            raise OSError(
                f"could not keep decoded images in {path.parent} ({error.strerror or error}): it takes "
                f"{gigabytes(whole)}; free some space or name another folder, then run the same command "
                "again: it goes on where it was"
            ) from error
    return Pixels(opened(path, shape), place, path, files)


def _decode_into(path: Path, files: Sequence[Path], chunk: int, decode) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("ab") as file:
        # the last chunk may not have reached the disk whole when the machine went down: decode it again
        done = max(0, -(-file.tell() // chunk) - 1)
        file.truncate(done * chunk)
        file.seek(0, os.SEEK_END)
        pixels = iter(decode(files[done * CHUNK :]))
        for first in range(done * CHUNK, len(files), CHUNK):
            for _ in files[first : first + CHUNK]:
                file.write(next(pixels).tobytes())
            file.flush()
            os.fsync(file.fileno())
    os.replace(partial, path)


def load_pixels(
    split: Split, size: tuple[int, int], progress: bool = False, place: str | None = None, folder: str | Path = FOLDER
) -> Pixels:
    """Decode a whole split, once.

    Args:
        split: its images.
        size: rows and columns.
        progress: whether a bar shows it.
        place: where training is to read them: the "device", "memory" or "disk" (a memory map, decoded the first time
            only). By default, the first of them of which half of what is free holds the set: here memory or disk, and
            `paul.data.batches.on_device` takes them further.
        folder: of the memory maps.

    Raises:
        ValueError: a file that cannot be decoded, named; an unknown place.
        OSError: the disk does not take the memory map.
    """
    check_place(place)
    fits = len(split) * 3 * size[0] * size[1] < free_memory() / 2

    with tqdm(
        total=len(split), desc="decoding", unit="image", leave=False, **({} if progress else {"disable": True})
    ) as bar:

        def decode(files: Sequence[Path]) -> Iterator[np.ndarray]:
            bar.update(len(split) - len(files) - bar.n)  # what an earlier process has decoded
            with ThreadPoolExecutor() as pool:
                for first in range(0, len(files), CHUNK):  # a bound on what waits to be stored
                    for image in pool.map(lambda path: _planes(path, size), files[first : first + CHUNK]):
                        bar.update()
                        yield image

        if place == "disk" or (place != "memory" and not fits):
            return mapped(split.files, size, decode, place, folder)
        images = torch.empty(len(split), 3, *size, dtype=torch.uint8)
        for row, image in enumerate(decode(split.files)):
            images[row] = torch.from_numpy(image)
    return Pixels(images, place, sources=split.files)


def load_images(split: Split, size: tuple[int, int]) -> Tensor:
    """The images of a split decoded, uint8 [n, 3, H, W] on the CPU; errors as `load_pixels`."""
    return load_pixels(split, size).images


def _planes(path: Path, size: tuple[int, int]) -> np.ndarray:
    return np.ascontiguousarray(read_image(path, size).transpose(2, 0, 1))


def gigabytes(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"

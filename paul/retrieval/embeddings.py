"""Which images there are, and their descriptors by a network as one features file."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from paul.data.datasets import ReidDataset
from paul.data.images import read_image
from paul.engine.files import first_line, write_atomically
from paul.engine.regular import check_regular
from paul.retrieval.extractor import Extractor
from paul.retrieval.features import COLUMNS, check_format, read_arrays, stamp_of, write

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
UNKNOWN = -1
PART = 4096  # images described between two saves


def _files_of(name: str, split: str | None, strict: bool) -> list[str]:
    path = Path(name)
    if path.is_dir():
        if (path / "index.csv").is_file():
            dataset = ReidDataset.load(path)
            chosen = split is not None and (strict or split in dataset.splits)
            frame = dataset.split(split).frame if chosen else dataset.frame
            return [str(file) for file in path / frame["file"].to_numpy(object)]
        found = []
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
            found += [
                os.path.join(folder, inner)
                for inner in sorted(names)
                if not inner.startswith(".") and inner.lower().endswith(SUFFIXES)
            ]
        if not found:
            raise ValueError(f"{name}: no images in this folder ({', '.join(SUFFIXES)})")
        return found
    if path.is_file():
        return [name]
    # no folders, but links that lead nowhere and pipes: whoever reads them names them
    found = sorted(file for file in glob.glob(name, recursive=True) if not os.path.isdir(file))
    if not found:
        raise ValueError(f"{name}: no such file or folder, and no file fits it as a pattern")
    return found


def _labels_of(files: list[str]) -> pd.DataFrame:
    """Person and camera of files that lie in a prepared set: the nearest folder above that has an index.csv."""
    sets: dict[Path, tuple[Path, dict] | None] = {}

    def set_of(folder: Path):
        if folder not in sets:
            if (folder / "index.csv").is_file():
                frame = ReidDataset.load(folder).frame
                ids = zip(frame["person_id"].tolist(), frame["camera_id"].tolist())
                sets[folder] = folder, dict(zip(frame["file"], ids))
            else:
                sets[folder] = set_of(folder.parent) if folder.parent != folder else None
        return sets[folder]

    rows = []
    for file in files:
        path = Path(os.path.abspath(file))
        found = set_of(path.parent)
        rows.append(found[1].get(path.relative_to(found[0]).as_posix(), (UNKNOWN,) * 2) if found else (UNKNOWN,) * 2)
    return pd.DataFrame(rows, columns=COLUMNS[1:], dtype=np.int64)


def listed(names, split: str | None = None, strict: bool = True) -> pd.DataFrame:
    """The images that files, folders and patterns (`*`, `**`) name: file, person_id, camera_id; each image once.

    A folder with an index.csv stands for the images of that index, any other for all images below it. Ids come from
    the index of the set that an image lies in, and are -1 elsewhere.

    Args:
        names: of files and folders, and patterns.
        split: of a folder with an index.csv only the images of this split; None takes all.
        strict: refuse an index without that split; otherwise it stands for all its images.

    Raises:
        ValueError: a name that stands for nothing; FileNotFoundError, ValueError: an index that cannot be read, or
            that lacks the split.
    """
    files = list(dict.fromkeys(file for name in names for file in _files_of(str(name), split, strict)))
    for file in files:
        if not file.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in file):
            raise ValueError(f"{file!r}: the file's name is not valid text; rename it")
    return pd.concat([pd.DataFrame({"file": files}), _labels_of(files)], axis=1)


def embed(extractor: Extractor, frame: pd.DataFrame, path: str | Path, skip_unreadable: bool = False) -> int:
    """Describe the images of `frame` (from `listed`) into a .parquet or .npz file; stopped anywhere, call it again.

    Finished parts wait in a hidden folder beside the file, which appears whole at the end. A file that holds these
    descriptors already is left alone; a change of image, list or network begins anew. Memory holds one part of 4,096
    images for Parquet, all descriptors for npz.

    Returns:
        How many images the file holds.

    Raises:
        ValueError: another suffix; an image that cannot be read, named (unless `skip_unreadable`: it is left out, and
            named in a warning).
        RuntimeError: another process is writing this file; pyarrow is wanted and not installed.
    """
    path = Path(path)
    check_format(path)
    try:
        check_regular(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ValueError(f"{path} cannot be a features file: {error}") from error
    made_of = hashlib.sha256(
        json.dumps(
            [extractor.fingerprint, skip_unreadable, frame.to_dict("list"), [_state(file) for file in frame["file"]]]
        ).encode()
    ).hexdigest()[:16]
    waiting = path.with_name(f".{path.name}.partial")
    waiting.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(waiting / ".lock", timeout=0):
            if _made_of(path) != made_of:
                parts = waiting / made_of
                for other in set(waiting.glob("*/")) - {parts}:
                    shutil.rmtree(other)
                parts.mkdir(exist_ok=True)
                rows = _describe(extractor, frame, parts, skip_unreadable)
                blocks = (_part(part, "features") for part in sorted(parts.glob("*.npz")))
                stamp = {"model": extractor.fingerprint, "made_of": made_of}
                write(path, frame.iloc[rows].reset_index(drop=True), blocks, extractor.width, stamp)
            shutil.rmtree(waiting)
    except Timeout:
        raise RuntimeError(f"another process is writing {path}; wait for it, then run the same command again") from None
    return stamp_of(path)["rows"]


def _state(file: str) -> tuple[int, int] | None:
    """What tells a file from a changed one; None where there is none, which reading it will say."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _describe(extractor: Extractor, frame: pd.DataFrame, folder: Path, skip: bool) -> np.ndarray:
    """Write a part for every 4,096 images, unless an earlier try did; the rows of all images described."""
    kept = []
    with tqdm(total=len(frame), desc="embedding", unit="image") as bar:
        for first in range(0, len(frame), PART):
            files, part = frame["file"].iloc[first : first + PART].tolist(), folder / f"{first:09d}.npz"
            if not part.is_file():
                places = [] if skip else range(len(files))
                images = _readable(files, extractor, places) if skip else files
                features = extractor(images, bar).numpy()  # fills `places` as it reads
                rows = first + np.array(places, dtype=np.int64)
                write_atomically(part, lambda file: np.savez(file, rows=rows, features=features))
            kept.append(_part(part, "rows"))
            bar.update(first + len(files) - bar.n)  # parts made before, images left out
    if not sum(map(len, kept)):
        raise ValueError("none of the images can be read")
    return np.concatenate(kept)


def _part(path: Path, name: str) -> np.ndarray:
    try:
        return read_arrays(path, name)[0]
    except Exception as error:  # there is no list of what reading a damaged file can raise
        raise ValueError(
            f"{path} is damaged ({first_line(error)}); delete it and give the same command again"
        ) from error


def _readable(files: list[str], extractor: Extractor, places: list[int]) -> Iterator[np.ndarray]:
    """The images that can be decoded, each read once (it may vanish in between); where they stand goes to `places`."""

    def decode(file):
        try:
            return read_image(file, extractor.image_size)
        except ValueError as error:
            return error

    with ThreadPoolExecutor() as pool:
        for first in range(0, len(files), extractor.batch):  # a bound on what waits
            some = files[first : first + extractor.batch]
            for place, (file, pixels) in enumerate(zip(some, pool.map(decode, some)), first):
                if isinstance(pixels, ValueError):
                    warnings.warn(f"left out {file}: {pixels.__cause__}", stacklevel=2)
                else:
                    places.append(place)
                    yield pixels


def _made_of(path: Path) -> str | None:
    try:
        return stamp_of(path)["made_of"]
    except (FileNotFoundError, ValueError):
        return None  # none, or something else, which the new file replaces

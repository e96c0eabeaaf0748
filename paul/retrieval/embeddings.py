"""Descriptors of many images as one file: which images, described by which network, kept as Parquet or NumPy's npz."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from paul.data.datasets import ReidDataset
from paul.data.images import read_image
from paul.engine.files import write_atomically
from paul.retrieval.extractor import Extractor

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
UNKNOWN = -1
COLUMNS = ("file", "person_id", "camera_id")
PART = 4096  # images described between two saves
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Embeddings:
    """What a features file holds.

    Attributes:
        frame: a row per image: file, person_id, camera_id (-1 where unknown).
        vectors: float32 [N, M*D].
        model: `Extractor.fingerprint` of the network.
    """

    frame: pd.DataFrame
    vectors: np.ndarray
    model: str


def _files_of(name: str) -> list[str]:
    path = Path(name)
    if path.is_dir():
        if (path / "index.csv").is_file():
            return [str(file) for file in path / ReidDataset.load(path).frame["file"].to_numpy(object)]
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


def listed(names) -> pd.DataFrame:
    """The images that files, folders and patterns (`*`, `**`) name: file, person_id, camera_id; each image once.

    A folder with an index.csv stands for the images of that index, any other for all images below it. Ids come from
    the index of the set that an image lies in, and are -1 elsewhere.

    Raises:
        ValueError: a name that stands for nothing; FileNotFoundError, ValueError: an index that cannot be read.
    """
    files = list(dict.fromkeys(file for name in names for file in _files_of(str(name))))
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
    _format_of(path)
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
                _write(
                    path,
                    frame.iloc[rows].reset_index(drop=True),
                    parts,
                    extractor.width,
                    {"model": extractor.fingerprint, "made_of": made_of},
                )
            shutil.rmtree(waiting)
    except Timeout:
        raise RuntimeError(f"another process is writing {path}; wait for it, then run the same command again") from None
    return _stamp(path)["rows"]


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
            with np.load(part, allow_pickle=False) as saved:
                kept.append(saved["rows"])
            bar.update(first + len(files) - bar.n)  # parts made before, images left out
    if not sum(map(len, kept)):
        raise ValueError("none of the images can be read")
    return np.concatenate(kept)


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


def _format_of(path: Path) -> str:
    if path.suffix not in (".parquet", ".npz"):
        raise ValueError(f"{path}: a features file ends in .parquet or .npz")
    return path.suffix


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeError(
            "Parquet files need the package pyarrow: install paul-book[search], or let the file end in .npz"
        ) from error
    return pyarrow


def _write(path: Path, frame: pd.DataFrame, parts: Path, width: int, stamp: dict[str, str]) -> None:
    """Put the parts together, whole or not at all. In Parquet, `features` is a list of M*D float32 per row."""

    def features():
        for part in sorted(parts.glob("*.npz")):
            with np.load(part, allow_pickle=False) as saved:
                yield saved["features"]

    if _format_of(path) == ".npz":
        columns = {name: frame[name].to_numpy() for name in COLUMNS[1:]}
        columns |= {"files": np.array(frame["file"].tolist(), dtype=str), "features": np.concatenate([*features()])}
        write_atomically(path, lambda file: np.savez(file, **columns, **stamp))
        return
    pa = _pyarrow()
    schema = pa.schema(
        [
            ("file", pa.string()),
            ("person_id", pa.int64()),
            ("camera_id", pa.int64()),
            ("features", pa.list_(pa.float32(), width)),
        ],
        metadata=stamp,
    )

    def write(file):
        with pa.parquet.ParquetWriter(file, schema) as writer:
            first = 0
            for block in features():
                rows = frame.iloc[first : first + len(block)]
                columns = [pa.array(rows[name].tolist(), schema.field(name).type) for name in COLUMNS]
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), width)
                writer.write_table(pa.Table.from_arrays([*columns, vectors], schema=schema))
                first += len(block)

    write_atomically(path, write)


def _stamp(path: Path) -> dict[str, str]:
    """What the file says about itself, without its descriptors: model, made_of, rows."""
    try:
        if _format_of(path) == ".npz":
            with np.load(path, allow_pickle=False) as saved:
                return {"model": str(saved["model"]), "made_of": str(saved["made_of"]), "rows": len(saved["camera_id"])}
        about = _pyarrow().parquet.read_metadata(path)
        return {
            "model": about.metadata[b"model"].decode(),
            "made_of": about.metadata[b"made_of"].decode(),
            "rows": about.num_rows,
        }
    except DAMAGED as error:
        raise ValueError(f"{path} is no features file, or damaged ({error}); 'paul embed' makes one") from error


def _made_of(path: Path) -> str | None:
    try:
        return _stamp(path)["made_of"] if path.is_file() else None
    except ValueError:
        return None  # something else, which the new file replaces


def read_embeddings(path: str | Path) -> Embeddings:
    """Read a features file.

    Raises:
        FileNotFoundError: there is none. ValueError: it is damaged, or was not written by `embed`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no features file at {path}; 'paul embed IMAGES -o {path}' makes one")
    stamp = _stamp(path)
    try:
        if _format_of(path) == ".npz":
            with np.load(path, allow_pickle=False) as saved:
                frame = pd.DataFrame({"file": saved["files"], **{name: saved[name] for name in COLUMNS[1:]}})
                vectors = saved["features"]
        else:
            table = _pyarrow().parquet.read_table(path)
            column = table["features"].combine_chunks()
            vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
            frame = table.select(list(COLUMNS)).to_pandas()
        if vectors.ndim != 2 or len(vectors) != len(frame) or vectors.dtype != np.float32:
            raise ValueError(f"features are {vectors.dtype} {vectors.shape} for {len(frame)} files")
    except DAMAGED as error:
        raise ValueError(f"{path} is no features file, or damaged ({error}); 'paul embed' makes one") from error
    return Embeddings(frame, vectors, stamp["model"])

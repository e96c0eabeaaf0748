"""CUHK03, new protocol: the images lie in a MATLAB file, who is in which split in another (Zhong et al., CVPR 2017)."""

import os
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.market_layout import DataError
from data_prep.progress import bar
from data_prep.raw import Found, find_top

IMAGES = "cuhk-03.mat"
SPLIT_FILES = {
    "detected": "cuhk03_new_protocol_config_detected.mat",
    "labelled": "cuhk03_new_protocol_config_labeled.mat",
}
FIELDS = {"detected": "detected", "labelled": "labeled"}


def open_images(path):
    """The MATLAB v7.3 file as an HDF5 mapping, to be closed; raises DataError where h5py is missing."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{path}: reading it needs the package h5py; install the extra for this set "
            "with: pip install '.[cuhk03]' (or h5py alone)"
        ) from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: not a MATLAB v7.3 file, or damaged ({error})") from error


def read_split(path):
    """{split: [(file name, person id, camera id)]} from a file of the new protocol; raises DataError."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise DataError(
            f"{path}: reading it needs the package scipy; install the extra for this set "
            "with: pip install '.[cuhk03]' (or scipy alone)"
        ) from error
    try:
        table = loadmat(path)
        names = [str(cell[0]) for cell in table["filelist"].ravel()]
        people, cameras = (table[key].ravel().astype(int) for key in ("labels", "camId"))
        rows = list(zip(names, people.tolist(), cameras.tolist(), strict=True))
        return {
            split: [rows[number] for number in table[f"{split}_idx"].ravel().astype(int) - 1]
            for split in ("train", "query", "gallery")
        }
    except (
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        OSError,
        NotImplementedError,
        zlib.error,
        MatReadError,
    ) as error:
        raise DataError(
            f"{path}: not a split file of CUHK03's new protocol ({type(error).__name__}: {error})"
        ) from error


def images_of(mat, field):
    """Yield (file name, image uint8 [H, W, 3]) for every image of a field, "detected" or "labeled".

    MATLAB stores a cell per camera pair, in it people x 10 cells, some empty; images 1-5 are the first camera's.
    HDF5 keeps all of it transposed.
    """
    for pair, pair_cell in enumerate(np.asarray(mat[field]).ravel(), 1):
        for person, shots in enumerate(np.asarray(mat[pair_cell]).T, 1):
            for shot, cell in enumerate(shots, 1):
                image = np.asarray(mat[cell])
                if image.ndim == 3 and image.size:  # an empty cell holds its own shape, a vector
                    yield f"{pair}_{person:03d}_{1 if shot <= 5 else 2}_{shot:02d}.png", image.T


def read(raw, work, beside, boxes, splits=None, progress=True):
    """Write the images of one kind of boxes below `work`, once; returns Found.

    Args: raw (folder), work (folder of our own), beside (folder that holds what was given), boxes ("detected" or
    "labelled"), splits (the split file or a folder that holds it; None to look below `raw` and in `beside`), progress.
    Raises DataError where a file or a package is missing.
    """
    top = find_top(raw, lambda folder: (folder / IMAGES).is_file(), IMAGES)
    chosen = read_split(_split_file(raw, top, beside, boxes, splits))
    origin = (top / IMAGES).stat()
    folder = Path(work) / f"{boxes}-{origin.st_size}-{origin.st_mtime_ns}"  # another file's images are not mistaken
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name for rows in chosen.values() for name, _, _ in rows}
    found, written = Found(), set()
    with open_images(top / IMAGES) as mat:
        if FIELDS[boxes] not in mat:
            raise DataError(f"{top / IMAGES}: holds no images called {FIELDS[boxes]!r}")
        for name, pixels in bar(
            images_of(mat, FIELDS[boxes]), progress, desc=f"decoding {boxes}", total=len(wanted), unit="image"
        ):
            if name not in wanted:
                found.extra.append(name)
                continue
            written.add(name)
            if not (folder / name).exists():
                half = folder / f".{name}"
                Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(half, "PNG")
                os.replace(half, folder / name)
    for split, rows in chosen.items():
        for name, person, camera in rows:
            file = f"images/{name}"
            if file in found.files:
                found.extra.append(f"{name} a second time in the split file")
            elif name not in written:
                found.missing.append(name)
            else:
                found.add(file, split, person, camera)
                found.files[file] = folder / name
    return found


def _split_file(raw, top, beside, boxes, splits):
    name = SPLIT_FILES[boxes]
    if splits is not None:
        path = Path(splits)
        path = path / name if path.is_dir() else path
        if not path.is_file():
            raise DataError(f"--splits {splits}: no file {name} there")
        return path
    for folder in (top, top.parent, Path(raw), Path(beside)):
        if (folder / name).is_file():
            return folder / name
    try:
        return find_top(raw, lambda folder: (folder / name).is_file(), name) / name
    except DataError as error:
        raise DataError(
            f"{name}: not found in or beside --raw; it comes apart from the images, with the code of the "
            "CVPR 2017 paper on k-reciprocal re-ranking; say where with --splits"
        ) from error

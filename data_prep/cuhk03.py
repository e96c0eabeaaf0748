"""CUHK03, new protocol: the images lie in a MATLAB file, who is in which split in another (Zhong et al., CVPR 2017).

A MATLAB file is HDF5, which can point into other files and claim any size: all is looked at before it is read.
"""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
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
# ten times what CUHK03 has: five camera pairs, 843 people by ten shots in one of them, pictures below 200 kB
MOST_PAIRS, MOST_SHOTS, MOST_BYTES = 50, 100_000, 2**21
SPLIT_BYTES = 2**22  # its split files have 100 kB
FILTERS = {1, 2, 3}  # HDF5's numbers of deflate, shuffle and checksum: what MATLAB writes
DEFLATE = 1032  # bytes that one byte unpacks to at most


def h5py():
    """The package, which only this set needs; raises DataError where it is missing."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{IMAGES}: reading it needs the package h5py; install the extra for this set "
            "with: pip install '.[cuhk03]' (or h5py alone)"
        ) from error
    return h5py


def open_images(path):
    """The MATLAB v7.3 file as an HDF5 mapping, to be closed."""
    try:
        return h5py().File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: not a MATLAB v7.3 file, or damaged ({error})") from error


def read_split(path):
    """{split: [(file name, person id, camera id)]} from a file of the new protocol; raises DataError.

    SciPy reads it in a process of its own, because a damaged file can end the one that reads it.
    """
    try:
        if path.stat().st_size > SPLIT_BYTES:
            raise ValueError(f"larger than {SPLIT_BYTES:,} bytes")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            return alone.submit(_rows_of_split, path).result()
    except (ValueError, OSError, BrokenProcessPool) as error:
        raise DataError(
            f"{path}: not a split file of CUHK03's new protocol ({type(error).__name__}: {error})"
        ) from error


def _rows_of_split(path):
    from scipy.io import loadmat

    try:
        table = loadmat(path)
        names = [str(cell[0]) for cell in table["filelist"].ravel()]
        people, cameras = (table[key].ravel().astype(int) for key in ("labels", "camId"))
        rows = list(zip(names, people.tolist(), cameras.tolist(), strict=True))
        return {
            split: [rows[number] for number in table[f"{split}_idx"].ravel().astype(int) - 1]
            for split in ("train", "query", "gallery")
        }
    except Exception as error:  # there is no list of what SciPy raises; a plain one travels between processes
        raise ValueError(f"{type(error).__name__}: {error}") from None


def images_of(mat, field):
    """Yield (file name, image uint8 [H, W, 3]) for every image of a field, "detected" or "labeled".

    MATLAB stores a cell per camera pair, in it people x 10 cells, some empty; images 1-5 are the first camera's.
    HDF5 keeps all of it transposed.
    Raises DataError naming what is no cell or no image, lies in another file, or claims more than it holds.
    """
    pairs = _array(mat, field, "cells", repr(field), MOST_PAIRS)
    for pair, pair_cell in enumerate([] if pairs is None else pairs.ravel(), 1):
        shots = _array(mat, pair_cell, "cells", f"camera pair {pair} of {field!r}", MOST_SHOTS)
        for person, row in enumerate([] if shots is None else shots.T, 1):
            for shot, cell in enumerate(row, 1):
                name = f"{pair}_{person:03d}_{1 if shot <= 5 else 2}_{shot:02d}.png"
                image = _array(mat, cell, "image", f"image {name} of {field!r}", MOST_BYTES)
                if image is not None:
                    yield name, image.T


def _array(mat, key, kind, what, most):
    """The array of "cells" or of an "image" that a name or a reference leads to, None for an empty one.

    Raises DataError, before anything is read, for what is neither or has more than `most` entries.
    """
    try:
        found = _found(mat, key)
        if found.dtype == np.uint64 and found.ndim == 1 and found.size <= 4:  # an empty array is stored as its shape
            return None
        shape = tuple(found.shape)
        if kind == "cells":
            fits = h5py().check_ref_dtype(found.dtype) is h5py().Reference and len(shape) == 2
            wanted = "a table of references"
        else:
            fits = found.dtype == np.uint8 and len(shape) == 3 and shape[0] == 3
            wanted = "a picture of three 8-bit colours"
        if not fits:
            raise ValueError(f"holds {found.dtype} of shape {shape[::-1]} where {wanted} should be")
        claimed = max(found.size, math.prod(found.chunks or ()))
        stored = found.id.get_storage_size()
        if claimed > most or found.nbytes > DEFLATE * stored or stored > 2 * claimed * found.dtype.itemsize + 4096:
            raise ValueError(f"claims {found.nbytes:,} bytes of shape {shape[::-1]} in {stored:,} stored ones")
        return found[()] if found.size else None
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, MemoryError) as error:
        raise DataError(f"{mat.filename}: {what} {error or type(error).__name__}; fetch it again") from error


def _found(mat, key):
    """The data set of this very file that a name or a reference leads to; raises ValueError for anything else."""
    if isinstance(key, str):
        links, name = mat.id.links, key.encode()  # `key in mat` would follow a link into another file
        if not links.exists(name):
            raise ValueError("is not there")
        if links.get_info(name).type != h5py().h5l.TYPE_HARD:
            raise ValueError("is a link to elsewhere")
    elif not key:
        raise ValueError("refers to nothing")
    found = mat[key]
    if not isinstance(found, h5py().Dataset) or found.shape is None:
        raise ValueError("is no array")
    if found.external or found.is_virtual:
        raise ValueError("lies in another file")
    options = found.id.get_create_plist()
    filters = [options.get_filter(number)[0] for number in range(options.get_nfilters())]
    if set(filters) - FILTERS or len(set(filters)) < len(filters):
        raise ValueError("is packed in a way that MATLAB does not use")
    return found


def read(raw, work, beside, boxes, splits=None, progress=True):
    """Write the images of one kind of boxes below `work`, once; returns Found.

    Args: raw (folder), work (folder of our own), beside (folder that holds what was given), boxes ("detected" or
    "labelled"), splits (the split file or a folder that holds it; None to look below `raw` and in `beside`), progress.
    Raises DataError where a file or a package is missing.
    """
    top = find_top(raw, lambda folder: (folder / IMAGES).is_file(), IMAGES)
    chosen = read_split(_split_file(raw, top, beside, boxes, splits))
    folder = Path(work) / boxes
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name for rows in chosen.values() for name, _, _ in rows}
    found, written = Found(), set()
    with open_images(top / IMAGES) as mat:
        for name, pixels in bar(
            images_of(mat, FIELDS[boxes]), progress, desc=f"decoding {boxes}", total=len(wanted), unit="image"
        ):
            if name not in wanted:
                found.extra.append(name)
                continue
            written.add(name)
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / name, "PNG")
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

"""Look-alikes of the real sets, as downloaded: their names, layouts and traps, with images of 8x4 pixels."""

import io
import tarfile
import zipfile
from functools import lru_cache

import numpy as np
from PIL import Image

from data_prep.published import Published


@lru_cache(None)
def jpeg(number):
    """An image like no other, as bytes."""
    stream = io.BytesIO()
    colours = np.random.default_rng(number).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    Image.fromarray(colours).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def write(top, names):
    """Write a folder: images get bytes of their own, {name: bytes} what it says."""
    given = names if isinstance(names, dict) else {}
    for number, name in enumerate(names):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(given.get(name, None) or jpeg(number))
    return top


# Market-1501: rows are what the index must say, worked out by hand; the rest is what must not be read.
MARKET = {
    "bounding_box_train/0002_c1s1_000451_03.jpg": ("train", 2, 1, 1, 451),
    "bounding_box_train/0002_c2s3_000076_01.jpg": ("train", 2, 2, 3, 76),
    "bounding_box_train/0007_c3s3_077419_03.jpg": ("train", 7, 3, 3, 77419),
    "query/0001_c1s1_001051_00.jpg": ("query", 1, 1, 1, 1051),
    "query/1501_c2s6_001577_00.jpg": ("query", 1501, 2, 6, 1577),
    "bounding_box_test/-1_c1s1_000401_03.jpg": ("gallery", -1, 1, 1, 401),
    "bounding_box_test/-1_c3s2_000401_00.jpg": ("gallery", -1, 3, 2, 401),
    "bounding_box_test/0000_c2s1_000151_01.jpg": ("gallery", 0, 2, 1, 151),
    "bounding_box_test/0001_c1s1_001101_01.jpg": ("gallery", 1, 1, 1, 1101),
    "bounding_box_test/0001_c2s1_000301_01.jpg": ("gallery", 1, 2, 1, 301),
    "bounding_box_test/1501_c3s6_001577_02.jpg": ("gallery", 1501, 3, 6, 1577),
}
MARKET_TRAPS = [
    "gt_bbox/0001_c1s1_001051_00.jpg",
    "gt_query/0001_c1s1_001051_00_good.mat",
    "readme.txt",
    *(f"{folder}/Thumbs.db" for folder in ("bounding_box_train", "query", "bounding_box_test")),
    "query/.DS_Store",
    "query/._0001_c1s1_001051_00.jpg",
]
DUKE = {
    "bounding_box_train/0001_c2_f0046182.jpg": ("train", 1, 2, "", 46182),
    "bounding_box_train/0001_c1_f0044158.jpg": ("train", 1, 1, "", 44158),
    "query/0005_c2_f0046985.jpg": ("query", 5, 2, "", 46985),
    "bounding_box_test/0005_c1_f0051341.jpg": ("gallery", 5, 1, "", 51341),
    "bounding_box_test/7140_c2_f0170201.jpg": ("gallery", 7140, 2, "", 170201),
}
DUKE_TRAPS = ["LICENSE_DukeMTMC.txt", "LICENSE_DukeMTMC-reID.txt", "CITATION_DukeMTMC.txt", "README.md"]

# MSMT17: list -> (file, number in the list); index ids by hand: train 0, 1 -> 1, 2 and test 0, 1 -> 3, 4
MSMT = {
    "train": [
        ("0000/0000_000_01_0303morning_0008_0_ex.jpg", 0),
        ("0000/0000_001_02_0303noon_0011_1.jpg", 0),
        ("0001/0001_000_03_0113afternoon_0101_2.jpg", 1),
    ],
    "val": [("0001/0001_001_01_0114noon_0102_0_ex.jpg", 1)],
    "query": [("0000/0000_004_01_0303morning_0032_2.jpg", 0), ("0001/0001_002_02_0302noon_0019_0.jpg", 1)],
    "gallery": [("0000/0000_000_02_0303morning_0020_0.jpg", 0), ("0001/0001_000_03_0302noon_0017_1.jpg", 1)],
}
SMALL = {
    "market1501": Published(
        "Market-1501", "s", "c", "l", {"train": 3, "query": 2, "gallery": 4}, {"train": 2, "query": 2}, 2, 3
    ),
    "dukemtmc": Published(
        "DukeMTMC-reID", "s", "c", "l", {"train": 2, "query": 1, "gallery": 2}, {"train": 1, "query": 1}, 0, 2
    ),
    "msmt17": Published(
        "MSMT17", "s", "c", "l", {"train": 4, "query": 2, "gallery": 2}, {"train": 2, "query": 2}, 0, 3
    ),
    "cuhk03_detected": Published(
        "CUHK03", "s", "c", "l", {"train": 2, "query": 1, "gallery": 1}, {"train": 1, "query": 1}, 0, 2
    ),
    "cuhk03_labelled": Published(
        "CUHK03", "s", "c", "l", {"train": 3, "query": 1, "gallery": 1}, {"train": 1, "query": 1}, 0, 2
    ),
}


def market(top):
    return write(top, [*MARKET, *MARKET_TRAPS])


def duke(top):
    return write(top, [*DUKE, *DUKE_TRAPS])


def msmt(top, version="V1"):
    train, test = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}[version]
    folders = {"train": train, "val": train, "query": test, "gallery": test}
    write(top, [f"{folders[name]}/{file}" for name, lines in MSMT.items() for file, _ in lines])
    for name, lines in MSMT.items():
        (top / f"list_{name}.txt").write_text("".join(f"{file} {label}\n" for file, label in lines))
    return top


def packed(folder, archive, top=""):
    """The folder as an archive whose kind its name says, below `top` in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
            for path in files:
                stream.write(path, f"{top}{path.relative_to(folder).as_posix()}")
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as stream:
            for path in files:
                stream.add(path, f"{top}{path.relative_to(folder).as_posix()}")
    return archive


# CUHK03: camera pair -> people -> ten cells, of which images 1-5 are the first camera's
CUHK = {
    "detected": [[{1: 11, 6: 12}, {2: 13, 7: 14}], [{3: 15}]],
    "labeled": [[{1: 21, 6: 22, 7: 25}, {2: 23, 7: 24}], []],
}
CUHK_SPLITS = {
    "detected": {
        "train": ["1_001_1_01.png", "1_001_2_06.png"],
        "query": ["1_002_1_02.png"],
        "gallery": ["1_002_2_07.png"],
    },
    "labelled": {
        "train": ["1_001_1_01.png", "1_001_2_06.png", "1_001_2_07.png"],
        "query": ["1_002_1_02.png"],
        "gallery": ["1_002_2_07.png"],
    },
}


def cuhk_pixels(number):
    return np.random.default_rng(number).integers(0, 256, (8, 4, 3), dtype=np.uint8)


def cuhk_matlab(reference, cells):
    """Fill a MATLAB v7.3 file: `cells[name] = array` stores, `reference(name)` refers.  Everything lies transposed."""
    for field, pairs in CUHK.items():
        outer = np.empty((1, len(pairs)), object)
        for pair, people in enumerate(pairs):
            inner = np.empty((10, len(people)), object)
            for person, shots in enumerate(people):
                for shot in range(1, 11):
                    name = f"{field}-{pair}-{person}-{shot}"
                    cells[name] = cuhk_pixels(shots[shot]).T if shot in shots else np.zeros(2, np.uint64)
                    inner[shot - 1, person] = reference(name)
            cells[f"{field}-{pair}"] = inner
            outer[0, pair] = reference(f"{field}-{pair}")
        cells[field] = outer


def cuhk_file(path):
    """Write that MATLAB file as HDF5, its pictures packed as MATLAB packs them."""
    import h5py

    with h5py.File(path, "w") as file:

        class Cells:
            def __setitem__(self, name, value):
                kind = h5py.ref_dtype if value.dtype == object else value.dtype
                packed = {"compression": "gzip"} if value.ndim == 3 else {}
                file.create_dataset(name, value.shape, kind, **packed)[...] = value

        cuhk_matlab(lambda name: file[name].ref, Cells())
    return path


def cuhk_split_files(folder):
    from scipy.io import savemat

    for boxes, splits in CUHK_SPLITS.items():
        names = [name for names in splits.values() for name in names]
        cells = np.empty((len(names), 1), object)
        cells[:, 0] = names
        places = {split: np.array([[names.index(name) + 1] for name in chosen]) for split, chosen in splits.items()}
        savemat(
            folder / f"cuhk03_new_protocol_config_{boxes.replace('lled', 'led')}.mat",
            {
                "filelist": cells,
                "labels": np.array([[int(name[2:5])] for name in names]),
                "camId": np.array([[int(name[6])] for name in names]),
                **{f"{split}_idx": rows for split, rows in places.items()},
            },
        )


def cuhk_release(top):
    """CUHK03 as downloaded and unpacked, with a true MATLAB file, its split files beside it; needs h5py."""
    (top / "cuhk03_release").mkdir(parents=True)
    cuhk_file(top / "cuhk03_release/cuhk-03.mat")
    cuhk_split_files(top)
    return top

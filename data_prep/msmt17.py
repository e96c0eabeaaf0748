"""MSMT17, V1 and V2: four lists name the files; people of train and of test are both numbered from 0 (ledger 24)."""

import re

from data_prep.market_layout import DataError
from data_prep.raw import Found, find_top, images_below

LAYOUTS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
LISTS = {"train": ("train", 0), "val": ("train", 0), "query": ("query", 1), "gallery": ("gallery", 1)}
_LINE = re.compile(r"((\d+)/\d+_\d+_(\d+)_\S*\.jpg)\s+(\d+)", re.ASCII)


def parse(line):
    """`0005/0005_000_01_0303morning_0008_0.jpg 5` -> (file, person number, camera), None for any other line.

    The folder and the number behind the file must agree on the person.
    """
    match = _LINE.fullmatch(line.strip())
    if not match or int(match[2]) != int(match[4]):
        return None
    return match[1], int(match[4]), int(match[3])


def listed(lists, folders, present):
    """Rows from the lists and the files' names alone.

    Args: lists ({"train", "val", "query", "gallery": lines}), folders (train's and test's), present (files below the
    top folder).
    Returns Found without files, val in train.  People of train become 1, 2, ... and those of test follow.
    """
    found, present, taken = Found(), set(present), set()
    parsed = []
    for name, (split, side) in LISTS.items():
        for line in filter(str.strip, lists[name]):
            image = parse(line)
            if image is None:
                found.extra.append(f"list_{name}.txt: {line.strip()!r}")
                continue
            file, person, camera = f"{folders[side]}/{image[0]}", image[1], image[2]
            if file in taken:
                found.extra.append(f"list_{name}.txt: {image[0]} a second time")
            elif file not in present:
                found.missing.append(file)
            else:
                parsed.append((file, split, side, person, camera))
            taken.add(file)
    found.extra += sorted(present - taken)
    offset = max((person + 1 for _, _, side, person, _ in parsed if side == 0), default=0)
    for file, split, side, person, camera in parsed:
        found.add(file, split, person + 1 + side * offset, camera)
    return found


def all_for_training(rows):
    """The rows with every image in train, people of query and gallery too, as the released code pre-trains."""
    return [{**row, "split": "train"} for row in rows]


def read(raw):
    """Find lists and folders of either version below `raw`; returns Found.

    Raises DataError where they are not there.
    """
    names = [f"list_{name}.txt" for name in LISTS]

    def version_of(folder):
        return next(
            (version for version, folders in LAYOUTS.items() if all((folder / name).is_dir() for name in folders)), None
        )

    top = find_top(
        raw,
        lambda folder: version_of(folder) and all((folder / name).is_file() for name in names),
        f"{', '.join(names)} beside train, test (V1) or mask_train_v2, mask_test_v2 (V2)",
    )
    version = version_of(top)
    lists = {}
    for name in LISTS:
        path = top / f"list_{name}.txt"
        try:
            lists[name] = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not a text file ({error})") from error
    present = [f"{folder}/{file}" for folder in LAYOUTS[version] for file in images_below(top / folder)]
    found = listed(lists, LAYOUTS[version], present)
    found.files = {row["file"]: top / row["file"] for row in found.rows}
    found.notes["version"] = version
    return found

"""Market-1501 and DukeMTMC-reID: three folders of images, and everything else in the file names (ledger 30)."""

import os
import re
from pathlib import Path

from data_prep.market_layout import FOLDERS, DataError, ImageName
from data_prep.raw import Found, find_top, is_image

SPLITS = ("train", "query", "gallery")
_DUKE = re.compile(r"(\d{4})_c(\d)_f(\d{7})\.jpg", re.ASCII)


def parse_market(name):
    """`0002_c1s1_000151_01.jpg` -> (person id, camera, sequence, frame); -1 only stands for the person.

    None for any other name.
    """
    try:
        image = ImageName.parse(name)
    except DataError:
        return None
    return image.person_id, image.camera_id, image.sequence, image.frame


def parse_duke(name):
    """`0001_c2_f0046182.jpg` -> (person id, camera, "", frame), None for any other name."""
    match = _DUKE.fullmatch(name)
    return (int(match[1]), int(match[2]), "", int(match[3])) if match else None


def listed(names, parse):
    """Rows from file names alone.

    Args: names ({split: file names}), parse (name -> person id, camera, sequence, frame, or None).
    Returns Found without files.  Extra are names that do not parse, junk or distractors outside the gallery, and
    images in query or gallery of a person of train.  What is no image by its name (Thumbs.db) is passed over.
    """
    found = Found()
    for split in SPLITS:
        for name in sorted(filter(is_image, names[split])):
            file, parsed = f"{FOLDERS[split]}/{name}", parse(name)
            if parsed is None or (parsed[0] < 1 and split != "gallery"):
                found.extra.append(file)
            else:
                found.add(file, split, *parsed)
    trained = {row["person_id"] for row in found.rows if row["split"] == "train"}
    mixed = {row["file"] for row in found.rows if row["split"] != "train" and row["person_id"] in trained}
    found.extra += sorted(mixed)
    found.drop(mixed)
    return found


def read(raw, parse):
    """Find the three folders below `raw` and list their images; returns Found.

    Raises DataError where they are not there.
    """
    folders = [FOLDERS[split] for split in SPLITS]
    top = find_top(raw, lambda folder: all((folder / name).is_dir() for name in folders), ", ".join(folders))
    found = listed({split: os.listdir(top / FOLDERS[split]) for split in SPLITS}, parse)
    found.files = {row["file"]: Path(top) / row["file"] for row in found.rows}
    return found

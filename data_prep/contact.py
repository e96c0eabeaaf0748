"""A contact sheet: several people by several cameras, for looking at what was rendered."""

from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.market_layout import DataError
from paul.data.datasets import ReidDataset
from paul.data.images import read_image


def contact_sheet(data, people=5, views=4, split="train"):
    """Per set two rows of people, `views` images each from as many cameras as there are; a PIL image.

    Raises DataError where there is no set, one has no such split, or an index or an image cannot be read.
    """
    folders = sorted(p.parent for p in Path(data).glob("*/index.csv"))
    if not folders:
        raise DataError(f"{data}: holds no prepared set; run `python -m data_prep synthetic` first")
    strips = []
    for folder in sorted(
        folders,
        key=lambda f: ("source", "market", "duke").index(f.name) if f.name in ("source", "market", "duke") else 3,
    ):
        try:
            tiles = _tiles(folder, people, views, split)
        except (ValueError, OSError) as error:
            raise DataError(str(error)) from error
        half = (len(tiles) + 1) // 2
        blank = [np.zeros_like(tiles[0])] * (2 * half - len(tiles))
        lines = [np.concatenate(part, 1) for part in (tiles[:half], (tiles + blank)[half:])]
        strips += [*lines, np.full((8, lines[0].shape[1], 3), 255, np.uint8)]
    width = max(strip.shape[1] for strip in strips)
    return Image.fromarray(np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0))) for s in strips[:-1]]))


def _tiles(folder, people, views, split):
    rows, tiles = ReidDataset.load(folder).split(split).frame.to_dict("records"), []
    for person in sorted({row["person_id"] for row in rows})[:people]:
        mine = [row for row in rows if row["person_id"] == person]
        seen, rest = [], []
        for row in mine:
            (rest if row["camera_id"] in {r["camera_id"] for r in seen} else seen).append(row)
        for row in sorted((seen + rest)[:views], key=lambda r: r["camera_id"]):
            tiles.append(read_image(folder / row["file"], tiles[0].shape[:2] if tiles else None))
    return tiles

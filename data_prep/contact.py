"""A contact sheet: several people by several cameras, for looking at what was rendered."""

from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.market_layout import DataError, read_index
from paul.data.images import read_image


def contact_sheet(data, people=5, views=4, split="train"):
    """Per set two rows of people, `views` images each from as many cameras as there are; a PIL image."""
    folders = sorted(p.parent for p in Path(data).glob("*/index.csv"))
    if not folders:
        raise DataError(f"{data}: holds no prepared set; run `python -m data_prep synthetic` first")
    strips = []
    for folder in sorted(
        folders,
        key=lambda f: ("source", "market", "duke").index(f.name) if f.name in ("source", "market", "duke") else 3,
    ):
        rows = [row for row in read_index(folder) if row["split"] == split]
        tiles = []
        for person in sorted({row["person_id"] for row in rows}, key=int)[:people]:
            mine = [row for row in rows if row["person_id"] == person]
            seen, rest = [], []
            for row in mine:
                (rest if row["camera_id"] in {r["camera_id"] for r in seen} else seen).append(row)
            chosen = sorted((seen + rest)[:views], key=lambda r: r["camera_id"])
            tiles += [read_image(folder / row["file"]) for row in chosen]
        half = (len(tiles) + 1) // 2
        blank = [np.zeros_like(tiles[0])] * (2 * half - len(tiles))
        lines = [np.concatenate(part, 1) for part in (tiles[:half], (tiles + blank)[half:])]
        strips += [*lines, np.full((8, lines[0].shape[1], 3), 255, np.uint8)]
    width = max(strip.shape[1] for strip in strips)
    return Image.fromarray(np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0))) for s in strips[:-1]]))

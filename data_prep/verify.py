"""Checks a prepared set, real or rendered: the index against the files, and both against the card."""

import hashlib
import os
from pathlib import Path

from data_prep.archives import safe_parts
from data_prep.market_layout import FOLDERS, INDEX_COLUMNS, DataError, read_card, read_index
from data_prep.progress import bar
from data_prep.published import counts_of
from data_prep.raw import first, images_below
from data_prep.real import readable


def verify(folder, progress=True):
    """Check everything that index.csv and card.json say about a folder.

    Returns the card.  Raises DataError that lists what is wrong: rows, missing or extra images (the first ten names),
    counts, bytes.
    """
    folder = Path(folder)
    card, rows = read_card(folder), read_index(folder)
    if card is None:
        raise DataError(f"{folder / 'card.json'}: missing; prepare the set again")
    _check_rows(folder / "index.csv", rows)
    files = [row["file"] for row in rows]
    wrong = []
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        dangling = os.path.islink(folder / missing[0])
        wrong.append(f"missing: {first(missing)}" + ("; links whose raw set was moved or deleted" if dangling else ""))
    extra = sorted(set(images_below(folder)) - set(files))
    if extra:
        wrong.append(f"not in the index: {first(extra)}")
    counts = counts_of(rows)
    if counts != card.get("counts"):
        wrong.append(f"counts: {counts} in the index, {card.get('counts')} in the card")
    if not missing:
        digest = hashlib.sha256((folder / "index.csv").read_bytes())
        for file in bar(files, progress, desc=f"verifying {folder.name}", unit="image"):
            digest.update((folder / file).read_bytes())
        if digest.hexdigest() != card.get("fingerprint"):
            broken = [file for file in files if not readable(folder / file)]
            wrong.append(
                "fingerprint: index or images changed since the set was prepared"
                + (f"; no longer images: {first(broken)}" if broken else "")
            )
    if wrong:
        raise DataError(f"{folder}: not as prepared:\n  " + "\n  ".join(wrong) + "\nPrepare it again with --overwrite")
    return card


def _check_rows(path, rows):
    if not rows or tuple(rows[0])[: len(INDEX_COLUMNS)] != INDEX_COLUMNS:
        raise DataError(f"{path}: holds no rows, or its columns do not begin with {','.join(INDEX_COLUMNS)}")
    seen = set()
    for line, row in enumerate(rows, 2):
        try:
            int(row["person_id"]), int(row["camera_id"])
            sound = safe_parts(row["file"]) and row["split"] in FOLDERS and row["file"] not in seen
        except (TypeError, ValueError):
            sound = False
        if not sound:
            raise DataError(
                f"{path}, line {line}: a path that leaves the folder or stands there twice, an unknown "
                "split, or an id that is no whole number"
            )
        seen.add(row["file"])

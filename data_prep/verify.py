"""Checks a prepared set, real or rendered: the index against the files, and both against the card."""

import hashlib
import os
from pathlib import Path

from data_prep.market_layout import INDEX_COLUMNS, DataError, read_card
from data_prep.progress import bar
from data_prep.published import counts_of
from data_prep.raw import first, images_below
from data_prep.real import readable
from paul.data.datasets import ReidDataset
from paul.data.files import read_bytes


def verify(folder, progress=True):
    """Check everything that index.csv and card.json say about a folder.

    Returns the card.  Raises DataError that lists what is wrong: rows, missing or extra images (the first ten names),
    counts, bytes.
    """
    folder = Path(folder)
    card, rows = read_card(folder), _rows(folder)
    if card is None:
        raise DataError(f"{folder / 'card.json'}: missing; prepare the set again")
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
        digest = hashlib.sha256(read_bytes(folder / "index.csv"))
        for file in bar(files, progress, desc=f"verifying {folder.name}", unit="image"):
            digest.update(read_bytes(folder / file))
        if digest.hexdigest() != card.get("fingerprint"):
            broken = [file for file in files if not readable(folder / file)]
            wrong.append(
                "fingerprint: index or images changed since the set was prepared"
                + (f"; no longer images: {first(broken)}" if broken else "")
            )
    if wrong:
        raise DataError(f"{folder}: not as prepared:\n  " + "\n  ".join(wrong) + "\nPrepare it again with --overwrite")
    return card


def _rows(folder):
    """The index as paul itself reads it."""
    try:
        frame = ReidDataset.load(folder).frame
    except (ValueError, OSError) as error:
        raise DataError(str(error)) from error
    if tuple(frame.columns[: len(INDEX_COLUMNS)]) != INDEX_COLUMNS:
        raise DataError(f"{folder / 'index.csv'}: its columns do not begin with {','.join(INDEX_COLUMNS)}")
    return frame.to_dict("records")

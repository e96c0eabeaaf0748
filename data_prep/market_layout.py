"""Market-1501's folders and file names, plus the index and the card that every prepared set carries."""

import csv
import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

from paul.data.files import LARGEST_ID, read_bytes, short, unfit_path, unfit_text

FOLDERS = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
    "val_query": "val_query",
    "val_gallery": "val_gallery",
}
INDEX_COLUMNS = ("file", "split", "person_id", "camera_id", "sequence", "frame")
_NAME = re.compile(r"(-1|\d{4})_c(\d)s(\d)_(\d{6})_(\d{2})\.jpg", re.ASCII)


class DataError(Exception):
    """A set on disk, or an option, is not what it should be; the message says which and what to do."""


@dataclass(frozen=True)
class ImageName:
    """What a Market-1501 file name says: `0002_c1s1_000151_01.jpg`; person -1 is junk, 0 a distractor."""

    person_id: int
    camera_id: int
    sequence: int
    frame: int
    box: int

    def __str__(self):
        person = "-1" if self.person_id == -1 else f"{self.person_id:04d}"
        return f"{person}_c{self.camera_id}s{self.sequence}_{self.frame:06d}_{self.box:02d}.jpg"

    @classmethod
    def parse(cls, name):
        """Read a file name; raises DataError where it is not Market-1501's pattern."""
        match = _NAME.fullmatch(Path(name).name)
        if not match:
            raise DataError(f"{name}: not a Market-1501 file name such as 0002_c1s1_000151_01.jpg")
        return cls(*map(int, match.groups()))


def write_index(folder, rows):
    """Write `index.csv`; rows are dictionaries with the same keys, the fixed columns first.

    Raises DataError for a row that nothing could read back: a path that leaves the folder, a text or an id beyond the
    limits of `paul.data.files`, an unknown split, a file for the second time.
    """
    columns = list(rows[0])
    assert tuple(columns[: len(INDEX_COLUMNS)]) == INDEX_COLUMNS
    seen = set()
    for row in rows:
        _check(row, seen)
        seen.add(row["file"])
    with open(Path(folder) / "index.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _check(row, seen):
    for column, value in row.items():
        if column in ("person_id", "camera_id"):
            reason = "" if abs(value) <= LARGEST_ID else "is beyond 2**53"
        elif column == "split":
            reason = "" if value in FOLDERS else f"is none of {', '.join(FOLDERS)}"
        elif column == "file":
            reason = unfit_path(value) or ("is listed twice" if value in seen else "")
        else:
            reason = unfit_text(str(value))
        if reason:
            raise DataError(f"{short(row['file'])} cannot stand in an index: its {column} {short(value)} {reason}")


def read_index(folder):
    """Read `index.csv` back as a list of dictionaries of strings; raises DataError where it cannot be read."""
    path = Path(folder) / "index.csv"
    if not path.exists():
        raise DataError(f"{path}: missing; is {folder} a prepared set?")
    try:
        return list(csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not readable as a table ({error}); prepare the set again with --overwrite") from error


def fingerprint(folder):
    """sha256 over `index.csv` and then every image's bytes in the index's order, as a hexadecimal string.

    Raises OSError for an image that is not there or no regular file, DataError for one outside the folder.
    """
    folder = Path(folder)
    digest = hashlib.sha256(read_bytes(folder / "index.csv"))
    for row in read_index(folder):
        reason = unfit_path(row["file"])
        if reason:
            raise DataError(f"{folder / 'index.csv'}: the file {short(row['file'])} {reason}")
        digest.update(read_bytes(folder / row["file"]))
    return digest.hexdigest()


def count(rows):
    """Images and people per split, with junk and distractors counted apart from people."""
    counts = {}
    for split in FOLDERS:
        people = [int(row["person_id"]) for row in rows if row["split"] == split]
        if people:
            counts[split] = {
                "images": len(people),
                "people": len(set(people) - {-1, 0}),
                "junk": people.count(-1),
                "distractors": people.count(0),
            }
    return counts


def write_card(folder, card):
    """Write `card.json`, the last file of a set: its presence says that the set is complete."""
    text = json.dumps(card, indent=2, sort_keys=True)
    (Path(folder) / "card.json").write_text(text + "\n", encoding="utf-8")


def read_card(folder):
    """The card of a set, or None where there is none; raises DataError where it cannot be read."""
    path = Path(folder) / "card.json"
    if not path.exists():
        return None
    try:
        card = json.loads(read_bytes(path).decode("utf-8"))
        if not isinstance(card, dict):
            raise ValueError("no object")
        return card
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); prepare the set again with --overwrite") from error

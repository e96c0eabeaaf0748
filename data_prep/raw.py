"""What reading a raw set yields, and how its top folder is found wherever it lies."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.market_layout import FOLDERS, DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
DEPTH = 6  # archives nest their top folder once or twice


@dataclass
class Found:
    """A raw set as read: rows of the index, each with the file that holds its image, and what does not belong.

    Attributes:
        rows: dictionaries with the fixed columns of the index.
        files: {row's `file`: path of the image}.
        extra: images that the set should not hold.
        missing: images that its lists name and that are not there.
        notes: more for the card.
    """

    rows: list = field(default_factory=list)
    files: dict = field(default_factory=dict)
    extra: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    notes: dict = field(default_factory=dict)

    def add(self, file, split, person_id, camera_id, sequence="", frame=""):
        """Add a row; sequence and frame stay blank in sets that have none."""
        self.rows.append(
            {
                "file": file,
                "split": split,
                "person_id": person_id,
                "camera_id": camera_id,
                "sequence": sequence,
                "frame": frame,
            }
        )

    def drop(self, unwanted):
        """Take out the rows of these files."""
        self.rows = [row for row in self.rows if row["file"] not in unwanted]

    def sort(self):
        """The index's order: by split, then by file."""
        splits = list(FOLDERS)
        self.rows.sort(key=lambda row: (splits.index(row["split"]), row["file"]))


def is_image(name):
    """Whether a file counts as an image by its name; Thumbs.db, ._copies and read-me files do not."""
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def find_top(raw, is_top, wanted):
    """The one folder at or below `raw` for which `is_top(folder)` holds, the uppermost if they nest.

    Prepared sets (card.json) are passed over.  Raises DataError naming what is `wanted` where there is none, or more.
    """
    level = [Path(raw)]
    for _ in range(DEPTH):
        tops = [folder for folder in level if is_top(folder)]
        if len(tops) > 1:
            raise DataError(f"--raw {raw}: holds {wanted} more than once: {', '.join(map(str, tops[:10]))}; name one")
        if tops:
            return tops[0]
        level = [
            Path(entry.path)
            for folder in level
            for entry in sorted(os.scandir(folder), key=lambda e: e.name)
            if entry.is_dir(follow_symlinks=False)
            and not entry.name.startswith((".", "__MACOSX"))
            and not (Path(entry.path) / "card.json").exists()
        ]
    raise DataError(f"--raw {raw}: no folder in it holds {wanted}")


def images_below(top):
    """Relative paths, with forward slashes, of all images below a folder, sorted.

    Links to folders are not followed, hidden folders and prepared sets (card.json) are passed over.
    """

    def fail(error):
        raise error

    found = []
    for folder, folders, names in os.walk(top, onerror=fail):
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__MACOSX")) and not (Path(folder) / name / "card.json").exists()
        ]
        below = Path(folder).relative_to(top)
        found += [(below / name).as_posix() for name in names if is_image(name)]
    return sorted(found)


def first(names, limit=10):
    """The first names, and how many there are."""
    listed = ", ".join(map(str, names[:limit]))
    return listed if len(names) <= limit else f"{listed}, ... ({len(names):,} in all)"

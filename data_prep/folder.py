"""Your own cameras: images in any folders, and a table, a pattern over names, or nothing that says who is where."""

import csv
import re
from pathlib import Path

from data_prep.archives import safe_parts
from data_prep.market_layout import FOLDERS, DataError
from data_prep.raw import Found, images_below, is_image

FIELDS = ("person_id", "camera_id", "split", "sequence", "frame")
UNLABELLED, NO_CAMERA = -1, -1
# a pattern may take the split from the names of folders, Market-1501's among them
_SPLITS = {**{name: name for name in FOLDERS}, **{folder: name for name, folder in FOLDERS.items()}, "test": "gallery"}


def compiled(pattern):
    """The regular expression; raises DataError where it is none, or has a group that is not one of FIELDS."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--pattern {pattern}: not a regular expression ({error})") from error
    unknown = set(expression.groupindex) - set(FIELDS)
    if unknown:
        raise DataError(f"--pattern {pattern}: unknown group {sorted(unknown)[0]!r}; use {', '.join(FIELDS)}")
    return expression


def named(files, expression, split="train"):
    """[(place, {field: text})] of the files that the expression finds something in, and the other files."""
    matched, extra = [], []
    for file in files:
        match = expression.search(file)
        if match:
            matched.append(
                (file, {"file": file, "split": split, **{key: text or "" for key, text in match.groupdict().items()}})
            )
        else:
            extra.append(file)
    return matched, extra


def tabled(path):
    """[(place, {column: text})] of a table with a header; raises DataError."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = reader.fieldnames or []
            missing = [name for name in ("file", "split") if name not in columns]
            if missing:
                raise DataError(
                    f"{path}: lacks the column {missing[0]!r}; it needs file and split, and person_id and "
                    "camera_id for query and gallery"
                )
            return [
                (
                    f"{path}, line {reader.line_num}",
                    {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)},
                )
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table in UTF-8 ({error})") from error


def numbered(texts):
    """{text: number}.  Whole numbers stay; where any is a name, all but -1 and 0 become 1, 2, ... in sorted order."""
    texts = set(texts)
    kept = {text: int(text) for text in texts if re.fullmatch(r"-1|\d+", text, re.ASCII)}
    if len(kept) == len(texts):
        return kept
    special = {text: number for text, number in kept.items() if number < 1}
    return {**special, **{text: number for number, text in enumerate(sorted(texts - set(special)), 1)}}


def listed(entries):
    """Rows from [(place, fields)]: checked, ids numbered; returns Found without files.

    In train, person and camera may be blank and become -1: unlabelled, which adaptation never looks at.
    In query and gallery they may not; in the gallery person -1 is junk and 0 a distractor.
    Raises DataError naming the place of the first entry at fault.
    """
    found, taken = Found(), set()
    people = numbered(fields.get("person_id", "") for _, fields in entries if fields.get("person_id"))
    cameras = numbered(fields.get("camera_id", "") for _, fields in entries if fields.get("camera_id"))
    for place, fields in entries:
        parts = safe_parts(fields["file"])
        if not parts or not is_image(parts[-1]):
            raise DataError(f"{place}: {fields['file']!r} is not the path of an image inside the folder")
        file, split = "/".join(parts), _SPLITS.get(fields["split"])
        if split is None:
            raise DataError(f"{place}: unknown split {fields['split']!r}; use {', '.join(FOLDERS)}")
        if file in taken:
            raise DataError(f"{place}: {file} is listed twice")
        taken.add(file)
        try:
            file.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{place!r}: the file's name is not valid text; rename it") from error
        person, camera = fields.get("person_id", ""), fields.get("camera_id", "")
        if split != "train" and not (person and camera):
            raise DataError(f"{place}: {split} needs person_id and camera_id; only images of train may go without")
        number = people[person] if person else UNLABELLED
        if person and number < 1 and split not in ("gallery", "val_gallery"):
            raise DataError(
                f"{place}: person {person} stands for {'a distractor' if number == 0 else 'junk'}, which "
                "only a gallery holds; number people from 1, or leave it blank in train"
            )
        found.add(
            file,
            split,
            number,
            cameras[camera] if camera else NO_CAMERA,
            fields.get("sequence", ""),
            fields.get("frame", ""),
        )
    if any(not re.fullmatch(r"\d+", text, re.ASCII) for text in cameras):
        found.notes["cameras"] = {str(number): text for text, number in cameras.items()}
    return found


def read(raw, table=None, pattern="", split="train"):
    """Read a folder of images by a table or a pattern; returns Found.

    Args: raw (folder), table (CSV file: file, split, person_id, camera_id, and sequence, frame if known), pattern
    (regular expression with named groups out of FIELDS, searched in each path below `raw`; without any, every image
    is an unlabelled one for training), split (of all images whose pattern has no such group).
    """
    raw, present = Path(raw), images_below(raw)
    if table is not None:
        entries, extra = tabled(table), []
    else:
        entries, extra = named(present, compiled(pattern), split)
    found = listed(entries)
    found.extra = extra
    on_disk = set(present)
    found.missing = [row["file"] for row in found.rows if row["file"] not in on_disk]
    found.drop(set(found.missing))
    found.files = {row["file"]: raw / row["file"] for row in found.rows}
    return found

"""Your own cameras: images in any folders, and a table, a pattern over names, or nothing that says who is where."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from data_prep.market_layout import FOLDERS, DataError
from data_prep.raw import IMAGE_SUFFIXES, Found, images_below, is_image
from paul.data.files import LARGEST_ID, safe_parts, short, unfit_path, unfit_text
from paul.engine.regular import check_regular

FIELDS = ("person_id", "camera_id", "split", "sequence", "frame")
UNLABELLED, NO_CAMERA = -1, -1
PATIENCE = 60  # seconds that a pattern may search for; a million names took 12 on a busy machine
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


# a process of its own: a search that tries all of endless ways to match heeds no clock, but a process can be ended
_SEARCH = """
import json, re, sys
pattern, files = json.load(sys.stdin)
found = map(re.compile(pattern).search, files)
json.dump([match and match.groupdict("") for match in found], sys.stdout)
"""


def named(files, expression, split="train"):
    """[(place, {field: text})] of the files that the expression finds something in, and the other files.

    Raises DataError where the search does not end.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _SEARCH],
            input=json.dumps([expression.pattern, files]).encode("ascii"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        raise DataError(
            f"--pattern {expression.pattern}: its search through {len(files):,} names did not end within {PATIENCE} s; "
            "a repeat inside a repeat, such as (a+)+, tries endless ways to match"
        ) from error
    found = dict(zip(files, json.loads(done.stdout)))
    matched = [(file, {"file": file, "split": split, **groups}) for file, groups in found.items() if groups is not None]
    return matched, [file for file, groups in found.items() if groups is None]


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
    for place, fields in entries:
        _check(place, fields)
    people = numbered(fields.get("person_id", "") for _, fields in entries if fields.get("person_id"))
    cameras = numbered(fields.get("camera_id", "") for _, fields in entries if fields.get("camera_id"))
    for place, fields in entries:
        file, split = "/".join(safe_parts(fields["file"])), _SPLITS.get(fields["split"])
        if split is None:
            raise DataError(f"{place}: unknown split {fields['split']!r}; use {', '.join(FOLDERS)}")
        if file in taken:
            raise DataError(f"{place}: {file} is listed twice")
        taken.add(file)
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


def _check(place, fields):
    for key, text in fields.items():
        reason = unfit_path(text) if key == "file" else unfit_text(text) if key in FIELDS else ""
        if not reason and key == "file" and not is_image(safe_parts(text)[-1]):
            reason = f"does not end like an image ({', '.join(sorted(IMAGE_SUFFIXES))}), or is hidden"
        if not reason and key in ("person_id", "camera_id") and re.fullmatch(r"\d+", text, re.ASCII):
            digits = text.lstrip("0")
            reason = "is beyond 2**53" if len(digits) > 16 or int(digits or 0) > LARGEST_ID else ""
        if reason:
            raise DataError(f"{repr(place)[1:-1]}: {key} {short(text)} {reason}")


def read(raw, table=None, pattern="", split="train"):
    """Read a folder of images by a table or a pattern; returns Found.

    Args: raw (folder), table (CSV file: file, split, person_id, camera_id, and sequence, frame if known), pattern
    (regular expression with named groups out of FIELDS, searched in each path below `raw`; without any, every image
    is an unlabelled one for training), split (of all images whose pattern has no such group).
    """
    raw = Path(raw)
    if table is not None:  # it names files, wherever below the folder: in prepared sets and behind links, too
        entries, extra = tabled(table), []
    else:
        entries, extra = named(images_below(raw), compiled(pattern), split)
    found = listed(entries)
    found.extra = extra
    missing = {row["file"]: reason for row in found.rows if (reason := _missing(raw / row["file"]))}
    found.missing = [f"{file} ({reason})" for file, reason in missing.items()]
    found.drop(missing)
    found.files = {row["file"]: raw / row["file"] for row in found.rows}
    return found


def _missing(path):
    """Why there is no regular file, "" where there is one."""
    try:
        check_regular(path)
    except OSError as error:
        nowhere = isinstance(error, FileNotFoundError) and os.path.islink(path)
        return "a link that leads nowhere" if nowhere else error.strerror or str(error)
    return ""

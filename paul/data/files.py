"""Files, names and ids of a data set: one set of limits for what writes an index (`data_prep`) and what reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from paul.engine.regular import check_regular

LARGEST_ID = 2**53  # whole numbers beyond are not told apart once a table has read them as floating-point ones
LONGEST = 4096  # letters of a text in an index; no path is longer
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def read_bytes(path: str | Path) -> bytes:
    """What a regular file holds; raises OSError, for anything else without opening it (`check_regular`)."""
    check_regular(path)
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def safe_parts(path: str) -> list[str] | None:
    """The parts of a relative path that stays below its folder; None for any other."""
    parts = path.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or "\0" in path or re.match(r"[A-Za-z]:", path):
        return None
    return [part for part in parts if part not in ("", ".")]


def unfit_text(text: str) -> str:
    """Why a text cannot stand in an index, "" where it can."""
    if len(text) > LONGEST:
        return f"is longer than {LONGEST:,} letters"
    if _CONTROL.search(text):
        return "holds a control character, such as the end of a line"
    return "is not valid text" if any("\ud800" <= letter <= "\udfff" for letter in text) else ""


def unfit_path(path: str) -> str:
    """Why a text cannot stand in an index as the path of an image, "" where it can."""
    return unfit_text(path) or ("" if safe_parts(path) else "is no path of a file inside the folder")


def first_unfit(paths: Sequence[str]) -> int | None:
    """The first of the paths that `unfit_path` finds fault with, None where there is none.

    Ten million take some seconds: all are searched at once for what makes a path suspicious, and only then one by one.
    """
    text = "".join(paths)
    suspicious = (
        ".." in text
        or "\\" in text
        or ":" in text
        or not {path[:1] for path in paths}.isdisjoint(("", "/", "."))
        or not text.isprintable()
        or max(map(len, paths)) > LONGEST
    )
    return next((row for row, path in enumerate(paths) if unfit_path(path)), None) if suspicious else None


def short(value: str | int) -> str:
    """A text or a number for a message, quoted, and cut where it is long."""
    text = value if isinstance(value, str) else hex(value) if abs(value) >= 2**64 else str(value)
    return repr(text if len(text) <= 80 else f"{text[:80]}...")

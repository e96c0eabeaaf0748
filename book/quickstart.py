"""The shortest way through: one notebook that renders people, trains, adapts and searches, and its page."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import nbformat

from .alone import alone
from .dress import dressed
from .manifest import write_text
from .pairs import read_chapter
from .run import execute, from_root, locked, make_data
from .toc import ROOT, Book, BookError


def quickstart(
    book: Book, data: Path = ROOT / "data", out: Path = ROOT / "build" / "quickstart", say: Callable[..., None] = print
) -> Path:
    """Run the notebook and return its page. People that are rendered and trainings that are finished are used again.

    Raises BookError when the people can't be rendered, a cell fails, or another process writes to `out`.
    """
    chapter, (data, out) = book.quickstart, (Path(path).resolve() for path in (data, out))
    clock = time.perf_counter()
    with locked(out):
        if error := make_data(data, "smoke"):
            raise BookError(error)
        say(f"{chapter.title}: running its notebook", flush=True)
        executed, page = out / f"{chapter.slug}.ipynb", out / f"{chapter.slug}.html"
        entry = execute(chapter, read_chapter(chapter), {"data_dir": from_root(data)}, executed, bar=True)
        if entry["status"] != "ran":
            raise BookError(
                f"{entry['error']}; the cell that failed is in {executed}. The same command goes on from here"
            )
        write_text(page, alone(dressed(nbformat.read(executed, as_version=4), "0"), chapter.title))
    say(f"ran in {time.perf_counter() - clock:.0f} s")
    return page

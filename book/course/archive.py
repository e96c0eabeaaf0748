"""All that a course needs in one archive: pages, slides, notebooks for students and for teachers."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from html import escape
from pathlib import Path

from tqdm import tqdm

from paul.engine.files import write_atomically

from ..toc import Book, BookError
from .notebooks import write_course
from .slides import executed_notebooks, write_slides

LARGEST = 150_000_000  # bytes, so that it can be mailed around, or come on any stick
START = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}: a course</title>
<style>body {{ font: 18px/1.6 system-ui, sans-serif; max-width: 40em; margin: 3em auto; padding: 0 1em }}</style></head>
<body><h1>{title}: a course</h1>
<p>Begin with <a href="site/course/plan.html">the plan</a>; <a href="site/index.html">the book</a> is beside it.</p>
<h2>Slides</h2><p>In a deck, S opens the speaker's window.</p>
<ul>
{slides}
</ul>
<h2>Notebooks</h2>
<p><code>student/</code> is to be handed out, <code>teacher/</code> has the solutions.
<a href="site/course/grading.html">Handing out, collecting, grading</a> says how.</p>
</body></html>
"""


def write_archive(book: Book, executed: Path, site: Path, out: Path, largest: int = LARGEST) -> None:
    """Write the archive, whole or not at all.

    Raises:
        BookError: chapters without slides, or no pages, by name and with the command that makes them; an archive that
            would be larger than `largest` bytes.
    """
    missing = []
    try:
        executed_notebooks(list(book.chapters), executed)
    except BookError as error:
        missing.append(str(error))
    if not (site / "course" / "plan.html").is_file():
        missing.append(f"{site} has no pages of the course: 'python -m book build' makes them")
    if missing:
        raise BookError("; ".join(missing))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        folder = Path(name)
        print("slides", flush=True)
        write_slides(book, executed, folder / "slides")
        print("notebooks", flush=True)
        write_course(book, folder / "student", solutions=False)
        write_course(book, folder / "teacher", solutions=True)
        slides = "\n".join(
            f'<li><a href="slides/{chapter.slug}.html">{chapter.number} {escape(chapter.title)}</a></li>'
            for chapter in book.chapters
        )
        (folder / "index.html").write_text(START.format(title=escape(book.title), slides=slides), encoding="utf-8")
        files = [*_files(folder, "course"), *_files(site, "course/site")]

        def pack(file) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for path, inside in tqdm(files, desc="archive", unit="file", leave=False, disable=None):
                    archive.write(path, inside)
            if (size := file.tell()) > largest:
                raise BookError(f"{out} would take {size / 1e6:.0f} MB, more than {largest / 1e6:.0f}")

        write_atomically(out, pack)


def _files(folder: Path, inside: str) -> Iterator[tuple[Path, str]]:
    """Each file below a folder, and its name in the archive."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, f"{inside}/{path.relative_to(folder).as_posix()}"

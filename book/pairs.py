"""Chapters and their notebooks: one file edited by hand (book/chapters/NN_slug.py), one written from it.

A notebook's text depends on nothing but its chapter: no outputs, and cell ids that are hashes of what the cells say.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import jupytext
import nbformat

from .manifest import write_text
from .toc import Book, BookError, Chapter

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def read_chapter(chapter: Chapter) -> nbformat.NotebookNode:
    """A chapter's py:percent text as a notebook.

    Raises BookError when its file doesn't exist.
    """
    if not chapter.source.is_file():
        raise BookError(f"{chapter.source} doesn't exist, but book.toml lists {chapter.slug}: write or unlist it")
    parsed = jupytext.read(chapter.source, fmt="py:percent")
    seen: Counter[str] = Counter()
    cells = []
    for cell in parsed.cells:
        said = "\0".join([cell.cell_type, cell.source, *cell.metadata.get("tags", [])])
        seen[said] += 1
        digest = hashlib.sha256(f"{said}\0{seen[said]}".encode()).hexdigest()[:12]
        kept = {"tags": list(cell.metadata["tags"])} if cell.metadata.get("tags") else {}
        new = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        cells.append(new(cell.source, id=digest, metadata=kept))
    pairing = {"formats": "book/notebooks//ipynb,book/chapters//py:percent"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"jupytext": pairing, "kernelspec": KERNEL})


def said_by(notebook: nbformat.NotebookNode) -> list[tuple[str, str, tuple[str, ...]]]:
    """What two files of a pair must agree on: (type, source, tags) of each cell."""
    return [(cell.cell_type, cell.source, tuple(cell.metadata.get("tags", []))) for cell in notebook.cells]


def write_pair(chapter: Chapter) -> Path:
    """Write the chapter's notebook, without outputs; the same chapter gives the same bytes."""
    write_text(chapter.pair, nbformat.writes(read_chapter(chapter), indent=1) + "\n")
    return chapter.pair


def differing(book: Book) -> list[str]:
    """A line for each chapter whose notebook is missing, says something else, or carries outputs."""
    lines = []
    for chapter in book.paired:
        if not chapter.pair.is_file():
            lines.append(f"{chapter.slug}: no notebook")
            continue
        notebook = nbformat.read(chapter.pair, as_version=4)
        if said_by(notebook) != said_by(read_chapter(chapter)):
            lines.append(f"{chapter.slug}: the notebook says something else than the chapter")
        elif any(cell.get("outputs") for cell in notebook.cells):
            lines.append(f"{chapter.slug}: the notebook carries outputs")
    return lines

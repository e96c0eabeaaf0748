"""A chapter as a student gets it, with functions left to write, and as a teacher does, with the solutions marked.

The chapter is the solution. A cell with the tag `implement` defines a function of `exercises`; the student's copy keeps
its signature and docstring. The cells after it with the tag `check` are the chapter's own checks. Both copies carry
nbgrader's metadata.
"""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat

from ..pairs import read_chapter
from ..toc import Book, BookError, Chapter
from .exercises import EXERCISES, Exercise

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def body_of(source: str, function: str) -> tuple[int, int, int]:
    """(first line after signature and docstring, line after the last, indent) of a top-level function in a cell.

    Raises:
        BookError: no such function, or one without a docstring or a body of its own.
    """
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            if not ast.get_docstring(node) or len(node.body) < 2:
                raise BookError(f"{function} must have a docstring, which says what to write, and a body after it")
            return node.body[0].end_lineno, node.end_lineno, node.col_offset + 4
    raise BookError(f"a cell with the tag 'implement' should define {function}")


def stub(source: str, exercise: Exercise) -> str:
    """The cell with the function's body taken out."""
    first, last, indent = body_of(source, exercise.function)
    lines = source.splitlines()
    missing = f'raise NotImplementedError("{exercise.name}: yours to write")'
    return "\n".join([*lines[:first], " " * indent + missing, *lines[last:]])


def marked(source: str, exercise: Exercise) -> str:
    """The cell with nbgrader's markers around the function's body."""
    first, last, indent = body_of(source, exercise.function)
    lines, pad = source.splitlines(), " " * indent
    return "\n".join([*lines[:first], pad + BEGIN, *lines[first:last], pad + END, *lines[last:]])


def grading(name: str, **flags) -> dict:
    """nbgrader's metadata of a cell."""
    common = {"schema_version": 3, "grade": False, "solution": False, "task": False, "locked": True}
    return {"nbgrader": {"grade_id": name, **common, **flags}}


def course_notebook(chapter: Chapter, solutions: bool) -> nbformat.NotebookNode:
    """The student's notebook, or with `solutions` the teacher's.

    Raises:
        BookError: an exercise without its cell, or a cell with the tag `implement` that no exercise names.
    """
    notebook = read_chapter(chapter)
    here = {exercise.function: exercise for exercise in EXERCISES if exercise.chapter == chapter.slug}
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags and not solutions:
            continue
        if "implement" in tags:
            function = next((name for name in here if f"def {name}(" in cell.source), None)
            if function is None:
                raise BookError(f"{chapter.slug}: a cell has the tag 'implement', but no exercise names its function")
            exercise = here.pop(function)
            hints = "\n".join(f"{number}. {hint}" for number, hint in enumerate(exercise.hints, 1))
            cells.append(
                nbformat.v4.new_markdown_cell(
                    f"**Write `{function}`** ({exercise.points} points). Its docstring says what goes in and what "
                    f"comes out.\n\n<details><summary>Hints</summary>\n\n{hints}\n\n</details>",
                    id=f"hints-{chapter.number}-{function}".replace("_", "-"),
                )
            )
            cell.source = marked(cell.source, exercise) if solutions else stub(cell.source, exercise)
            cell.metadata.update(grading(f"{chapter.number}-{function}", solution=True, locked=False))
        cells.append(cell)
    if here:
        raise BookError(f"{chapter.slug}: no cell with the tag 'implement' defines {', '.join(here)}")
    notebook.cells = cells
    return notebook


def write_course(book: Book, out: Path, solutions: bool) -> list[Path]:
    """All chapters' notebooks in `out`; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for chapter in book.chapters:
        path = out / f"{chapter.slug}.ipynb"
        path.write_text(nbformat.writes(course_notebook(chapter, solutions), indent=1) + "\n", encoding="utf-8")
        paths.append(path)
    return paths

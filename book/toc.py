"""book.toml, read: which chapters there are, in which order, what each needs and how long its cells may take."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
NEEDS = ("data", "gpu")
APPENDIX = re.compile(r"a\d*_")  # what the slug of an appendix begins with


class BookError(Exception):
    """What a reader did or gave that the book can't work with; the message says what to do."""


@dataclass(frozen=True)
class Chapter:
    slug: str
    number: str  # "03"; of an appendix its letter
    title: str
    teaches: str
    source: Path  # chapters/slug.py
    pair: Path  # notebooks/slug.ipynb
    cell_seconds: float
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()  # for what shares networks or files with it, whether that ran through or not
    alone: bool = False  # it measures times, so nothing runs beside it
    parameters: dict = field(default_factory=dict)

    @property
    def appendix(self) -> bool:
        """Whether it stands behind the chapters that are numbered."""
        return bool(APPENDIX.match(self.slug))


@dataclass(frozen=True)
class Book:
    path: Path
    title: str
    subtitle: str
    chapters: tuple[Chapter, ...]
    measured: dict  # profile -> {"machine": ..., "seconds": {slug: seconds}}
    quickstart: Chapter | None = None  # a chapter in form, which no run of the book executes

    @property
    def paired(self) -> tuple[Chapter, ...]:
        """All that has a notebook."""
        return self.chapters + ((self.quickstart,) if self.quickstart else ())

    def select(self, names: str | None) -> list[Chapter]:
        """The chapters named by '03,05' or '03_patchnet', in the book's order; all of them for None.

        Raises BookError for a name that is no chapter's.
        """
        if names is None:
            return list(self.chapters)
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        known = {key: chapter for chapter in self.chapters for key in (chapter.number, chapter.slug)}
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            slugs = ", ".join(chapter.slug for chapter in self.chapters)
            raise BookError(f"--chapters {names}: no chapter {', '.join(unknown) or 'named'}; there are {slugs}")
        chosen = {known[name].slug for name in wanted}
        return [chapter for chapter in self.chapters if chapter.slug in chosen]


def load_book(path: Path = ROOT / "book" / "book.toml") -> Book:
    """Read book.toml.

    Raises BookError when it is no table of chapters, or a chapter is listed twice, needs something unknown or comes
    after one that isn't before it.
    """
    path = Path(path).resolve()
    try:
        return _book(path, tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BookError(f"{path}: not a book's table of chapters ({type(error).__name__}: {error})") from error


def _book(path: Path, table: dict) -> Book:
    chapters, seen, letters = [], set(), iter(ascii_uppercase)
    for entry in table["chapter"]:
        slug = entry["slug"]
        if slug in seen:
            raise BookError(f"{path}: chapter {slug} is listed twice")
        for name in [*entry.get("after", []), *entry.get("waits", [])]:
            if name not in seen:
                raise BookError(f"{path}: {slug} comes after {name}, which is no earlier chapter")
        for name in entry.get("needs", []):
            if name not in NEEDS:
                raise BookError(f"{path}: {slug} needs {name!r}; what can be needed is {', '.join(NEEDS)}")
        seen.add(slug)
        number = next(letters) if APPENDIX.match(slug) else slug.split("_")[0]
        chapters.append(_chapter(path, entry, number, table["book"]["cell_seconds"]))
    book = table["book"]
    quick = _chapter(path, table["quickstart"], "", book["cell_seconds"]) if "quickstart" in table else None
    return Book(path, book["title"], book.get("subtitle", ""), tuple(chapters), table.get("measured", {}), quick)


def _chapter(path: Path, entry: dict, number: str, cell_seconds: float) -> Chapter:
    slug = entry["slug"]
    return Chapter(
        slug=slug,
        number=number,
        title=entry["title"],
        teaches=entry.get("teaches", ""),
        source=path.parent / "chapters" / f"{slug}.py",
        pair=path.parent / "notebooks" / f"{slug}.ipynb",
        cell_seconds=entry.get("cell_seconds", cell_seconds),
        needs=tuple(entry.get("needs", [])),
        after=tuple(entry.get("after", [])),
        waits=tuple(entry.get("waits", [])),
        alone=bool(entry.get("alone", False)),
        parameters=entry.get("parameters", {}),
    )

"""Slides: of an executed chapter, the cells with the tag `slide`; what stands around them is what the lecturer says.

A slide has a title, its own heading or the one that it stands under, and what is to be looked at: equations,
quotations, lists, tables, pictures. Longer paragraphs go to the speaker's notes, but for the sentence next to an
equation, which says what its symbols are; and so does the prose up to the next slide. Of a code cell its pictures are
shown, else its tables, and where it has neither it is about its code.
"""

from __future__ import annotations

import base64
import importlib.util
import re
from html import escape
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from ..dress import captions
from ..manifest import read_manifest, write_text
from ..toc import Book, BookError, Chapter

DECK = Path(__file__).with_name("deck")
SAID = 170  # characters; a longer paragraph is said and not shown, next to an equation one twice as long
PICTURES = ("image/png", "image/svg+xml")
TABLES = ("text/html", "text/markdown")
HEADING = re.compile(r"#{1,3} (.*)")


def blocks(markdown: str) -> list[str]:
    """Its paragraphs, lists, equations and so on: what blank lines separate, outside of fenced code."""
    found, fenced = [[]], False
    for line in markdown.splitlines():
        fenced ^= line.startswith("```")
        if line.strip() or fenced:
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return ["\n".join(lines) for lines in found if lines]


def shown_of(block: str, before: str = "", after: str = "") -> str:
    """What a slide shows of a block that stands between two others: all, a part of a long paragraph, or nothing."""
    if block.startswith("**You should see**") or (not after and block.endswith(":")):  # leads on to the cell below
        return ""
    leads, follows = after.startswith("$$"), before.startswith("$$")
    length = 2 * SAID if leads or follows else SAID
    if block.startswith(("#", ">", "$$", "|", "- ", "1. ", "```", "    ")) or len(block) <= length:
        return block
    if leads or follows:
        sentences = re.split(r"(?<=[.?!])\s+(?=[A-Z$*`])", block)
        return sentences[-1] if leads else sentences[0]
    opening = re.match(r"\*\*[^*]+\*\*", block)
    return opening[0] if opening else ""


class Slide:
    """One slide while it is put together: cells to show, markdown to say."""

    def __init__(self, title: str):
        self.cells = [nbformat.v4.new_markdown_cell(title)]
        self.notes: list[str] = []

    def show(self, block: str) -> None:
        """A block of markdown, below what is there."""
        self.cells.append(nbformat.v4.new_markdown_cell(block))

    def show_code(self, cell: nbformat.NotebookNode) -> None:
        """What is to be looked at of a code cell."""
        data = [(output, output.get("data", {})) for output in cell.get("outputs", [])]
        pictures = [data[kind] for _, data in data for kind in PICTURES if kind in data]
        tables = [output for output, data in data if any(kind in data for kind in TABLES)]
        said, source = captions(cell.source)
        if pictures:
            self.show(_pictures(pictures, " ".join(said) or self.cells[0].source.lstrip("# ")))
            return
        copy = nbformat.v4.new_code_cell(source, outputs=tables or cell.get("outputs", []))
        copy.metadata.tags = ["no-source"] if tables else []
        self.cells.append(copy)

    def finished(self) -> list[nbformat.NotebookNode]:
        """Its cells, with nbconvert's marks; the notes come last."""
        cells = [*self.cells, nbformat.v4.new_markdown_cell("\n\n".join(self.notes) or "All of it is on the slide.")]
        for cell in cells:
            cell.metadata.slideshow = {"slide_type": "-"}
        cells[0].metadata.slideshow.slide_type, cells[-1].metadata.slideshow.slide_type = "slide", "notes"
        return cells


def _pictures(found: list[str], title: str) -> str:
    """HTML that shares the slide's height among the pictures, which stand inside of the file."""
    images = []
    for one in found:
        svg = one.lstrip().startswith("<")
        code = base64.b64encode(one.encode()).decode() if svg else "".join(one.split())
        kind = "svg+xml" if svg else "png"
        images.append(f'<img alt="{escape(title)}" src="data:image/{kind};base64,{code}">')
    return f'<div class="pictures">{"".join(images)}</div>'


def slides_of(notebook: nbformat.NotebookNode) -> list[Slide]:
    """The slides of a chapter's notebook, in its order."""
    slides: list[Slide] = []
    title, homework = "", False
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            if "slide" in tags:
                slides.append(Slide(title))
                slides[-1].show_code(cell)
            continue
        begun = False  # whether this cell has begun a slide
        parts = blocks(cell.source)
        for before, block, after in zip(["", *parts], parts, [*parts[1:], ""]):
            heading = HEADING.match(block)
            if heading:
                title = ("# " if block.startswith("# ") else "## ") + heading[1]
                homework = heading[1] in ("Exercises", "Next")
                begun = "slide" in tags
                if begun:
                    slides.append(Slide(title))
                elif slides and not homework:
                    slides[-1].notes.append(f"**{heading[1]}**")
                continue
            if homework or not slides and "slide" not in tags:
                continue
            if "slide" in tags and not begun and not any(map(HEADING.match, parts)):
                slides.append(Slide(title))
                begun = True
            shown = shown_of(block, before, after) if begun else ""
            if shown:
                slides[-1].show(shown)
            if shown != block:
                slides[-1].notes.append(block)
    for before, slide in zip(reversed(slides[:-1]), reversed(slides[1:])):
        if len(slide.cells) == 1:  # nothing to look at: its notes belong to the slide before
            before.notes += slide.notes
    return [slide for slide in slides if len(slide.cells) > 1]


def deck(notebook: nbformat.NotebookNode, title: str) -> str:
    """A notebook's slides as one HTML file.

    Raises:
        BookError: no cell with the tag `slide`, or a package that ships reveal.js or MathJax isn't installed.
    """
    slides = slides_of(notebook)
    if not slides:
        raise BookError(f"{title}: no cell has the tag 'slide'")
    reveal, mathjax = _package("sphinx_revealjs") / "_static" / "revealjs", _package("sphinx-mathjax-offline")
    files = {
        "reveal": reveal / "dist" / "reveal.js",
        "reveal_css": reveal / "dist" / "reveal.css",
        "notes": reveal / "plugin" / "notes" / "notes.js",
        "mathjax": mathjax / "static" / "mathjax" / "tex-svg.js",
        "css": DECK / "deck.css",
    }
    inside = {name: path.read_text(encoding="utf-8").replace("</script", "<\\/script") for name, path in files.items()}
    inside |= {"title": title, "code_css": HtmlFormatter(style="tango").get_style_defs(".highlight")}
    config = Config(
        TagRemovePreprocessor={"enabled": True, "remove_input_tags": {"no-source"}},
        SlidesExporter={"exclude_input_prompt": True, "exclude_output_prompt": True},
        TemplateExporter={"extra_template_basedirs": [str(DECK.parent)], "template_name": DECK.name},
    )
    cells = [cell for slide in slides for cell in slide.finished()]
    body, _ = SlidesExporter(config=config).from_notebook_node(
        nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata), resources={"deck": inside}
    )
    return body


def _package(name: str) -> Path:
    """Where an installed package's files are."""
    found = importlib.util.find_spec(name)
    if found is None:
        raise BookError(f"slides need the package {name.replace('_', '-')}: pip install '.[book]'")
    return Path(found.submodule_search_locations[0])


def executed_notebooks(chapters: list[Chapter], executed: Path) -> dict[str, nbformat.NotebookNode]:
    """What the last run wrote, by chapter.

    Raises:
        BookError: chapters that didn't run through, or ran before they had slides, by name and with what to do.
    """
    entries = read_manifest(executed / "manifest.json")["chapters"]
    notebooks, missing = {}, []
    for chapter in chapters:
        path = executed / f"{chapter.slug}.ipynb"
        if path.is_file() and entries.get(chapter.slug, {}).get("status") == "ran":
            notebooks[chapter.slug] = nbformat.read(path, as_version=4)
        if chapter.slug not in notebooks or not slides_of(notebooks[chapter.slug]):
            missing.append(chapter.number)
    if missing:
        numbers = ",".join(missing)
        raise BookError(f"{executed} has no slides of {numbers}: 'python -m book run --chapters {numbers}' makes them")
    return notebooks


def write_slides(book: Book, executed: Path, out: Path, chapters: str | None = None, say=print) -> list[Path]:
    """A file of slides for each chapter in `out`; returns their paths. Raises BookError, see `executed_notebooks`."""
    chosen = book.select(chapters)
    notebooks = executed_notebooks(chosen, executed)
    paths = []
    for chapter in chosen:
        paths.append(out / f"{chapter.slug}.html")
        write_text(paths[-1], deck(notebooks[chapter.slug], f"{chapter.number} {chapter.title}"))
        say(f"{chapter.slug}: {paths[-1].stat().st_size / 1e6:.1f} MB", flush=True)
    return paths

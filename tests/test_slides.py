"""Slides: what is shown and what is said, one file that fetches nothing, and chapters whose slides fit."""

import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from book.__main__ import main
from book.course.slides import deck, slides_of
from book.manifest import write_manifest
from book.pairs import read_chapter
from book.toc import BookError, load_book

BOOK = load_book()
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LONG = ("This is a long paragraph, which a lecturer says and nobody reads off a wall. " * 4).strip()
SLIDE = {"tags": ["slide"]}


def shown(kind, data):
    return new_output("display_data", data={kind: data, "text/plain": "words"})


def toy():
    return nbformat.v4.new_notebook(
        cells=[
            new_markdown_cell("# Toy\n\n- one thing\n- another", metadata=SLIDE),
            new_code_cell("import everything"),
            new_markdown_cell(
                "**You should see** a cat.\n\n## Pulling\n\n" + LONG + "\n\n> Quoted.\n\n$$\nx^2 < 1\n$$",
                metadata=SLIDE,
            ),
            new_markdown_cell("Between slides."),
            new_code_cell(
                "plot()", outputs=[shown("image/png", PIXEL), shown("text/html", "<p>no</p>")], metadata=SLIDE
            ),
            new_markdown_cell("**You should see** a pixel."),
            new_code_cell(
                "table()", outputs=[shown("text/html", "<table><tr><td>41.5</td></tr></table>")], metadata=SLIDE
            ),
            new_code_cell("def f():\n    return 1", metadata=SLIDE),
            new_markdown_cell("**A bold opening.** " + LONG + "\n\nThe next cell says more:", metadata=SLIDE),
            new_markdown_cell("## Exercises\n\n1. Do this."),
            new_markdown_cell("Solved.", metadata={"tags": ["solution"]}),
            new_markdown_cell("## Next\n\nAnother chapter."),
        ]
    )


class TestWhatIsShownAndWhatIsSaid:
    def test_a_heading_begins_a_slide_and_a_cell_without_one_stands_under_the_last(self):
        titles = [slide.cells[0].source for slide in slides_of(toy())]
        assert titles == ["# Toy", *["## Pulling"] * 5]

    def test_equations_and_lists_are_shown_long_paragraphs_said(self):
        first, second = slides_of(toy())[:2]
        assert first.cells[1].source == "- one thing\n- another"
        assert [cell.source for cell in second.cells[1:]] == ["> Quoted.", "$$\nx^2 < 1\n$$"]
        assert LONG.strip() in second.notes and "Between slides." in second.notes

    def test_what_stands_before_a_cells_heading_is_said_with_the_slide_before(self):
        assert slides_of(toy())[0].notes == ["**You should see** a cat."]

    def test_of_code_the_picture_is_shown_else_the_table_else_the_code(self):
        picture, table, code = (slide.cells[1] for slide in slides_of(toy())[2:5])
        assert picture.cell_type == "markdown" and picture.source.count("<img") == 1 and PIXEL in picture.source
        assert table.metadata.tags == ["no-source"] and "41.5" in str(table.outputs)
        assert code.source == "def f():\n    return 1" and code.metadata.tags == []

    def test_of_a_long_paragraph_the_bold_opening_is_shown_and_what_leads_on_is_said(self):
        last = slides_of(toy())[-1]
        assert [cell.source for cell in last.cells[1:]] == ["**A bold opening.**"]
        assert len(last.notes) == 2

    def test_a_heading_with_nothing_to_look_at_leaves_its_prose_to_the_slide_before(self):
        cells = [new_markdown_cell(f"# Toy\n\n- one\n\n## Said only\n\n{LONG}\n\n## Seen\n\n- two", metadata=SLIDE)]
        first, second = slides_of(nbformat.v4.new_notebook(cells=cells))
        assert first.notes == [LONG] and second.cells[1].source == "- two"

    def test_of_a_long_paragraph_the_sentence_next_to_an_equation_is_shown(self):
        text = f"# Toy\n\n{LONG} {LONG} With $x$ a number,\n\n$$\nx^2\n$$\n\nwhich is no $y$. {LONG} {LONG}"
        (slide,) = slides_of(nbformat.v4.new_notebook(cells=[new_markdown_cell(text, metadata=SLIDE)]))
        assert [cell.source for cell in slide.cells[1:]] == ["With $x$ a number,", "$$\nx^2\n$$", "which is no $y$."]
        assert slide.notes == [f"{LONG} {LONG} With $x$ a number,", f"which is no $y$. {LONG} {LONG}"]

    def test_exercises_and_solutions_are_neither(self):
        text = str([(slide.cells, slide.notes) for slide in slides_of(toy())])
        assert "Do this" not in text and "Solved" not in text and "Another chapter" not in text


class Loads(HTMLParser):
    """Addresses that a browser fetches by itself."""

    def __init__(self, text):
        super().__init__()
        self.found, self.notes, self.sections = [], 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.notes += (tag, attributes.get("class")) == ("aside", "notes")
        self.sections += tag == "section"
        if tag != "a":
            self.found += [attributes[key] for key in ("src", "href", "data", "srcset") if attributes.get(key)]


def test_a_deck_is_one_file_that_fetches_nothing():
    page = deck(toy(), "00 Toy & more")
    loads = Loads(page)
    assert len(loads.found) == 1 and loads.found[0].startswith("data:image/png;base64,")
    assert (loads.sections, loads.notes) == (12, 6)  # reveal.js nests the slides of a column
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert "@import" not in styles and not re.search(r"url\(\s*['\"]?(?!data:)", styles)
    assert "reveal.js 5" in page and "MathJax" in page and len(page) > 2_000_000
    assert "<title>00 Toy &amp; more</title>" in page
    assert "x^2 &lt; 1" in page and "import everything" not in page and "plot()" not in page


def test_a_notebook_without_slides_is_an_error():
    with pytest.raises(BookError, match="no cell has the tag 'slide'"):
        deck(nbformat.v4.new_notebook(cells=[new_markdown_cell("# Toy")]), "Toy")


def test_chapters_that_did_not_run_are_named_with_the_command_that_runs_them(tmp_path, capsys):
    entries = {}
    for slug, status in (("00_setup", "ran"), ("01_problem_and_data", "failed"), ("02_evaluation", "ran")):
        notebook = toy() if slug != "02_evaluation" else nbformat.v4.new_notebook()  # 02 ran before it had slides
        nbformat.write(notebook, tmp_path / f"{slug}.ipynb")
        entries[slug] = {"status": status, "profile": "smoke", "machine": "m", "at": "now", "seconds": 1.0}
    write_manifest(tmp_path / "manifest.json", {"chapters": entries})
    asked = ["slides", "--executed", str(tmp_path), "--out", str(tmp_path / "out"), "--chapters"]
    assert main([*asked, "00,01,02,03"]) == 2
    assert "'python -m book run --chapters 01,02,03' makes them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*asked, "00"]) == 0
    assert (tmp_path / "out" / "00_setup.html").read_text().count("<aside") == 6


@pytest.mark.parametrize("chapter", BOOK.chapters, ids=lambda chapter: chapter.slug)
def test_a_chapter_has_slides_for_a_lecture_and_each_holds_what_a_slide_can(chapter):
    slides = slides_of(read_chapter(chapter))
    assert 7 <= len(slides) <= 16
    assert slides[0].cells[0].source.startswith("# ") and slides[-1].cells[0].source == "## Summary"
    for slide in slides:
        title, text = slide.cells[0].source, "\n".join(cell.source for cell in slide.cells[1:])
        assert text.strip(), f"{title}: nothing to look at"
        if slide.cells[1].cell_type == "markdown":
            assert len(text) <= 1000, f"{title}: {len(text)} characters"

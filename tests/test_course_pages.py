"""The pages for teachers: what they link to is there, sums add up, answers are right; and the archive is whole."""

import re
import zipfile
from functools import cache

import nbformat
import pytest
from myst_parser.slugs import github_slugify
from nbformat.v4 import new_markdown_cell

from book.__main__ import main
from book.build import COURSE, COURSE_PAGES
from book.course.archive import write_archive
from book.course.exercises import EXERCISES
from book.manifest import write_manifest
from book.pairs import read_chapter
from book.toc import ROOT, BookError, load_book

PAGES = {name: (COURSE / f"{name}.md").read_text(encoding="utf-8") for name in COURSE_PAGES}
CHAPTERS = {chapter.slug: chapter for chapter in load_book().chapters}
LINK = re.compile(r"\]\(([^)]+)\)")


@cache
def sections(slug):
    """{anchor: the code of its cells, those of its subsections left out} of a chapter."""
    found, here = {}, ""
    for cell in read_chapter(CHAPTERS[slug]).cells:
        if cell.cell_type == "code":
            found[here] = found.get(here, "") + cell.source + "\n"
        else:
            for heading in re.findall(r"(?m)^#{1,3} (.*)$", cell.source):
                here = github_slugify(heading)
                found.setdefault(here, "")
    return found


def test_every_page_is_on_the_site():
    assert {path.stem for path in COURSE.glob("*.md")} == set(COURSE_PAGES)


@pytest.mark.parametrize("page", COURSE_PAGES)
def test_every_link_leads_to_a_page_or_a_heading_that_is_there(page):
    links = LINK.findall(PAGES[page])
    for link in links:
        address, _, anchor = link.partition("#")
        if address.endswith(".md"):
            assert address.removesuffix(".md") in PAGES, link
            continue
        slug = re.fullmatch(r"\.\./chapters/(\w+)\.ipynb", address)[1]
        assert slug in CHAPTERS, link
        assert not anchor or anchor in sections(slug), link


def test_every_misconception_names_a_cell_that_cures_it():
    beliefs = re.split(r"(?m)^## ", PAGES["misconceptions"])[1:]
    assert len(beliefs) >= 5
    for belief in beliefs:
        title, text = belief.split("\n", 1)
        cures = re.findall(r"\]\(\.\./chapters/(\w+)\.ipynb#([\w-]+)\),\s+the\s+cell\s+(?:of|with)\s+`(\w+)`", text)
        assert cures and "*Heard as:*" in text and "**The cure:**" in text and "*Ask:*" in text, title
        for slug, anchor, name in cures:
            assert re.search(rf"\b{name}\b", sections(slug)[anchor]), (title, slug, anchor, name)


def tables(text):
    """Of each table that has a row of totals: its rows, and that one."""
    for table in re.findall(r"(?m)(?:^\|.*\n)+", text):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        if any("**Total**" in cell for cell in rows[-1]):
            yield rows[:-1], rows[-1]


def minutes(cell):
    """The number that a cell begins with."""
    return int(re.match(r"\d+", cell)[0])


@pytest.mark.parametrize("page", ["plan", "exam", "ethics", "grading"])
def test_totals_are_sums(page):
    found = list(tables(PAGES[page]))
    assert len(found) == (3 if page == "plan" else 1)
    for rows, totals in found:
        for column, total in enumerate(totals):
            if total.isdigit():
                assert sum(minutes(row[column]) for row in rows) == int(total), (page, rows[0], column)


def test_the_parts_of_a_session_fill_it():
    weeks = [rows for rows, _ in tables(PAGES["plan"]) if len(rows[0]) == 6]
    assert [len(rows) for rows in weeks] == [5, 10]
    for _, _, lecture, lab, talk, whole in sum(weeks, []):
        assert minutes(lecture) + minutes(lab) + minutes(talk) == minutes(whole)


def test_two_weeks_have_every_function_and_grading_its_points():
    two = next(text for text in re.split(r"(?m)^## ", PAGES["plan"]) if text.startswith("Two weeks"))
    assert set(re.findall(r"`(\w+)`", two)) == {exercise.function for exercise in EXERCISES}
    ((rows, _),) = tables(PAGES["grading"])
    told = [(row[0], row[1].strip("`"), int(row[2])) for row in rows]
    assert told == [(exercise.chapter[:2], exercise.function, exercise.points) for exercise in EXERCISES]


class TestExam:
    def test_every_question_has_a_folded_answer_and_stands_in_the_table(self):
        questions = re.split(r"(?m)^## Question ", PAGES["exam"])[1:]
        ((rows, _),) = tables(PAGES["exam"])
        assert [question.split("\n")[0] for question in questions] == [f"{row[0]}: {row[1]}" for row in rows]
        for question in questions:
            assert question.count("<details><summary>Answer</summary>\n\n") == 1
            assert question.rstrip().endswith("\n\n</details>")

    def test_the_points_of_an_answer_add_up(self):
        ((rows, _),) = tables(PAGES["exam"])
        for row, question in zip(rows, re.split(r"(?m)^## Question ", PAGES["exam"])[1:]):
            answer = question.split("Answer</summary>")[1].split("```")[0]
            given = [int(points) for points in re.findall(r"\s\((\d)\)", answer)]
            if len(given) > 1 and "*full*" not in answer:
                assert sum(given) == int(row[2]), row

    def test_answers_compute(self):
        blocks = re.findall(r"(?ms)^```python\n(# runs alone\n.*?)^```$", PAGES["exam"])
        assert len(blocks) == 4 and all("assert" in block for block in blocks)
        for block in blocks:
            exec(block, {})


# --- the archive ----------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path):
    """A book of two chapters that ran, and its pages."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "executed").mkdir()
    toml, entries = '[book]\ntitle = "A small book"\ncell_seconds = 60\n', {}
    for slug in ("00_one", "01_two"):
        text = f'# %% [markdown] tags=["slide"]\n# # Chapter {slug}\n#\n# - a point\n\n# %%\nprint(1)\n'
        (tmp_path / "chapters" / f"{slug}.py").write_text(text)
        toml += f'[[chapter]]\nslug = "{slug}"\ntitle = "Title & {slug}"\n'
        cell = new_markdown_cell(f"# Chapter {slug}\n\n- a point", metadata={"tags": ["slide"]})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "executed" / f"{slug}.ipynb")
        entries[slug] = {"status": "ran", "profile": "smoke", "machine": "m", "at": "now", "seconds": 1.0}
    write_manifest(tmp_path / "executed" / "manifest.json", {"chapters": entries})
    (tmp_path / "book.toml").write_text(toml)
    (tmp_path / "site" / "course").mkdir(parents=True)
    (tmp_path / "site" / "course" / "plan.html").write_text("the plan")
    (tmp_path / "out").mkdir()
    return tmp_path


def archived(toy, **options):
    out = toy / "out" / "course.zip"
    write_archive(load_book(toy / "book.toml"), toy / "executed", toy / "site", out, **options)
    return out


def test_an_archive_has_pages_slides_and_both_kinds_of_notebooks(toy):
    with zipfile.ZipFile(archived(toy)) as archive:
        assert archive.testzip() is None
        folders = {name: [f"course/{name}/{slug}" for slug in ("00_one", "01_two")] for name in ("student", "teacher")}
        expected = [f"{path}.ipynb" for paths in folders.values() for path in paths]
        expected += [f"course/slides/{slug}.html" for slug in ("00_one", "01_two")]
        assert sorted(archive.namelist()) == sorted([*expected, "course/index.html", "course/site/course/plan.html"])
        start = archive.read("course/index.html").decode()
        assert "Title &amp; 00_one" in start
        for link in re.findall(r'href="([^"]+)"', start):
            assert f"course/{link}" in archive.namelist() or link.startswith("site/"), link
    assert [path.name for path in (toy / "out").iterdir()] == ["course.zip"]


def test_an_archive_that_would_be_too_large_leaves_the_old_one(toy):
    (toy / "out" / "course.zip").write_text("the old one")
    with pytest.raises(BookError, match="course.zip would take .* MB, more than 0"):
        archived(toy, largest=1000)
    assert (toy / "out" / "course.zip").read_text() == "the old one"
    assert len(list((toy / "out").iterdir())) == 1


def test_what_is_missing_is_named_with_the_command_that_makes_it(toy, capsys):
    asked = ["course", "--executed", str(toy), "--site", str(toy), "--out", str(toy / "out" / "course.zip")]
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'python -m book run --chapters 00,01" in said and "'python -m book build'" in said
    assert list((toy / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(toy, capsys):
    (toy / "file").write_text("")
    assert main(["student", "--out", str(toy / "file" / "below")]) == 2
    assert str(toy / "file") in capsys.readouterr().err


def test_make_course_makes_the_archive_that_the_plan_and_the_readme_name():
    assert "build/course.zip" in (ROOT / "Makefile").read_text()
    assert "`build/course.zip`" in PAGES["plan"] and "`build/course.zip`" in (ROOT / "README.md").read_text()

"""The course: every solution earns all points, every stub and common mistake doesn't, and pranks are survived."""

import ast
import re
from functools import cache

import nbformat
import pytest
import torch

from book.__main__ import main
from book.course import grade as grading
from book.course.exercises import EXERCISES
from book.course.grade import grade, grade_notebook
from book.course.notebooks import BEGIN, END, course_notebook, stub
from book.course.sandbox import answer
from book.pairs import read_chapter
from book.toc import ROOT, load_book

BOOK = load_book()
CHAPTERS = {chapter.slug: chapter for chapter in BOOK.chapters}


def solution(exercise):
    """The chapter's own cell."""
    cells = course_notebook(CHAPTERS[exercise.chapter], solutions=True).cells
    (source,) = [cell.source for cell in cells if f"def {exercise.function}(" in cell.source and BEGIN in cell.source]
    return "\n".join(line for line in source.splitlines() if line.strip() not in (BEGIN, END))


def here(source, function, calls):
    """As the grader's own process answers, in this one: quick, and only for code that stands in this file."""
    import math

    import numpy as np
    import torch

    names = {"np": np, "torch": torch, "math": math}
    exec(source, names)
    return [answer(names[function], call) for call in calls]


# What students write in place of the solution: (a part of it, what stands there instead), per exercise.
MISTAKES = {
    "verdict": [
        ("person == -1 or ", ""),
        (" and camera == query_camera", ""),
        ("return RIGHT if person == query_person else WRONG", "return RIGHT if person == query_person else LEFT_OUT"),
        ("person == -1 or", "person <= 0 or"),
        ("person == query_person and camera == query_camera", "camera == query_camera"),
    ],
    "trapezoid_ap": [
        ("1.0 if r == 1 else (i - 1) / (r - 1)", "0.0 if r == 1 else (i - 1) / (r - 1)"),
        ("(b + a) / 2", "a"),
        ("(i - 1) / (r - 1)", "i / (r - 1)"),
        ("for b, a in zip(before, at)) / len(ranks)", "for b, a in zip(before, at)) / max(ranks)"),
    ],
    "weight_map": [
        ("/ (H * W)", ""),
        ("down.T @ across", "(across.T @ down).T.flip(0)"),
        ("* (W - 1) / 2, (y", "* W / 2, (y"),
        (".clamp(min=0)  # [P, W]", "  # [P, W]"),
        ("x, y = theta @", "x, y = theta.detach() @"),
        ("x, y = theta @", "y, x = theta @"),
    ],
    "pedal": [
        ("squared = torch.cat([squared[:i], squared[i + 1 :]])  # j != i", ""),
        ("-s / 2 * squared", "-s * squared"),
        ("squared.argsort()[:k]", "squared.argsort()[: k + 1]"),
        ("squared.argsort()[:k]", "squared.argsort(descending=True)[:k]"),
        ("bank[m]", "bank[0]"),
        (".square().sum(1)", ".norm(dim=1)"),
        ("losses.append(-torch.log", "losses.append(torch.log"),
        ("stack(losses).mean()", "stack(losses).sum()"),
        ("(x - bank[m])", "(x.detach() - bank[m])"),
    ],
    "ask_back": [
        ("[:r]", "[: r + 1]"),
        ("chosen = -1", "chosen = walk[0]"),
        ("if i not in its_nearest", "if i in its_nearest"),
        ("walk[:max_candidates]", "walk"),
        ("(centers - f)", "(centers - centers[i])"),
    ],
    "interval_from_scratch": [
        ("/ 2)\n", "/ 3)\n"),
        ("t = 0.95 * math.sqrt(2 / (1 - 0.95**2))", "t = 1.96"),
        ("/ math.sqrt(3), mean", ", mean"),
        ("return mean - t * spread", "return mean + t * spread"),
    ],
    "random_from_scratch": [
        ("1 / len(draw) + (1 - 1 / len(draw)) * draw[:, :2]", "draw[:, :2]"),
        (" * (1 - size)", ""),
        ("(2 * draw[:, 2:] - 1)", "draw[:, 2:]"),
        ("draw[:, :2]", "draw[:, :2].flip(1)"),
    ],
    "interval_over_people": [
        ("means = np.array([values[people == person].mean() for person in everybody])", "means = values"),
        (".std(ddof=1)", ".std()"),
        ("len(means) ** 0.5", "len(values) ** 0.5"),
        ("return means.mean() - half, means.mean() + half", "return values.mean() - half, values.mean() + half"),
    ],
}


def points(results):
    return sum(result.check.points for result in results if result.passed)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.function)
class TestExercise:
    def test_the_chapters_own_function_earns_everything(self, exercise):
        for seed in range(3):
            results = grade(solution(exercise), exercise, seed, here)
            assert [result.why for result in results if not result.passed] == []

    def test_a_stub_fails_only_because_nothing_is_written_yet(self, exercise):
        results = grade(stub(solution(exercise), exercise), exercise, 0, here)
        assert all(result.why.startswith("NotImplementedError") for result in results)

    def test_common_mistakes_lose_points_but_seldom_all(self, exercise):
        right, kept = solution(exercise), []
        assert len(MISTAKES[exercise.function]) >= 3
        for old, new in MISTAKES[exercise.function]:
            wrong = right.replace(old, new)
            assert wrong != right, f"the solution has no {old!r} any more"
            kept.append(points(grade(wrong, exercise, 1, here)))
        assert max(kept) < exercise.points, list(zip(MISTAKES[exercise.function], kept))
        assert any(kept), "partial credit: some mistake leaves some checks right"

    def test_it_says_what_to_write(self, exercise):
        assert exercise.hints and all(check.hint for check in exercise.checks)
        assert len({check.about for check in exercise.checks}) == len(exercise.checks)


def notebook(tmp_path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = tmp_path / "submission.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def of(function):
    return next(exercise for exercise in EXERCISES if exercise.function == function)


class TestGrader:
    """Through the real process; the first of them pay for its imports."""

    def test_a_notebook_with_everything_in_it(self, tmp_path, capsys):
        path = notebook(tmp_path, *[solution(exercise) for exercise in EXERCISES[:2]])
        assert main(["grade", str(path), "--seed", "3"]) == 0
        assert "10 of 10 points" in capsys.readouterr().out

    def test_pranks_earn_nothing_and_harm_nothing(self, tmp_path):
        kept = tmp_path / "kept"
        kept.write_text("here")
        kept.chmod(0o666)
        tmp_path.chmod(0o777)
        pranks = {
            "import paul": "ModuleNotFoundError",
            "sys.modules.pop('paul'); importlib.import_module('paul')": "PermissionError",
            f"open({str(ROOT / 'book/course/exercises.py')!r}).read()": "PermissionError",
            "open('left-behind', 'w')": "PermissionError",
            f"shutil.rmtree({str(tmp_path)!r})": "PermissionError",
            f"os.remove({str(kept)!r})": "PermissionError",
            f"pathlib.Path({str(kept)!r}).write_text('')": "PermissionError",
            "os.fork()": "PermissionError",
            "subprocess.run(['true'])": "PermissionError",
            "socket.socket()": "PermissionError",
            "os.kill(os.getppid(), 9)": "PermissionError",
            "torch.zeros(10**10)": "RuntimeError",
            "result = object()": "TypeError",
            "result = 'pages'": "something else than numbers",
            "torch.allclose = lambda *a, **k: True; result = torch.zeros(3)": "shape",
            "result = 2.0": "2 where 1 is right",
        }
        source = (
            "import importlib, os, pathlib, shutil, socket, subprocess, sys\n"
            "def f(prank):\n    names = dict(globals())\n    exec(prank, names)\n    return names['result']"
        )
        calls = [{"arguments": [prank], "gradient": None} for prank in pranks]
        for (prank, why), given in zip(pranks.items(), grading.run(source, "f", calls)):
            assert why in grading.fault(given, 1.0), (prank, given)
        assert kept.read_text() == "here"

    @pytest.mark.parametrize("prank, why", [("os._exit(0)", "ended before"), ("\n  while True: pass", "within 9 s")])
    def test_one_that_stops_or_never_ends_is_ended(self, monkeypatch, prank, why):
        monkeypatch.setattr(grading, "SECONDS", 9)
        (given,) = grading.run(f"import os\ndef f(): {prank}", "f", [{"arguments": [], "gradient": None}])
        assert why in given["message"]

    def test_a_slip_of_the_pen_is_named(self, tmp_path):
        path = notebook(tmp_path, "def pedal(features, bank, index, s, k):\n    return (")
        assert all("SyntaxError" in result.why for result in grade_notebook(path, 0))

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": 5}', "\x00", '{"cells": [{"cell_type": "code"}]}'])
    def test_what_is_no_notebook_is_named(self, tmp_path, text, capsys):
        path = tmp_path / "x.ipynb"
        path.write_text(text)
        assert main(["grade", str(path)]) == 2
        assert "x.ipynb" in capsys.readouterr().err

    def test_the_last_definition_counts(self, tmp_path):
        exercise = of("verdict")
        path = notebook(tmp_path, stub(solution(exercise), exercise), solution(exercise), "print('done')")
        assert grading.submitted(path)["verdict"] == solution(exercise)


def test_students_get_no_solution_and_teachers_all(tmp_path):
    assert main(["student", "--out", str(tmp_path / "student")]) == 0
    assert main(["student", "--out", str(tmp_path / "teacher"), "--with-solutions"]) == 0
    for exercise in EXERCISES:
        texts = {who: (tmp_path / who / f"{exercise.chapter}.ipynb").read_text() for who in ("student", "teacher")}
        body = solution(exercise).splitlines()[-1].strip()
        assert body not in texts["student"].replace('\\"', '"') and body in texts["teacher"].replace('\\"', '"')
        assert "NotImplementedError" in texts["student"] and BEGIN in texts["teacher"]
    for chapter in BOOK.chapters:
        folds = {}
        for who in ("student", "teacher"):
            copy = nbformat.read(tmp_path / who / f"{chapter.slug}.ipynb", as_version=4)
            nbformat.validate(copy)
            folds[who] = sum(cell.source.count("<summary>Solution") for cell in copy.cells)
        assert folds == {"student": 0, "teacher": len(exercises_of(chapter))}


def numbered(text, mark):
    """Number and text of what begins with `mark`, a pattern whose group is the number."""
    parts = re.split(mark, text)[1:]
    return {int(number): body.strip() for number, body in zip(parts[::2], parts[1::2])}


@cache
def cells_of(slug):
    return read_chapter(CHAPTERS[slug]).cells


def exercises_of(chapter):
    (cell,) = [cell for cell in cells_of(chapter.slug) if "## Exercises" in cell.source]
    return numbered(cell.source, r"(?m)^(\d+)\. ")


def solutions_of(chapter):
    """The folds of the cells with the tag `solution`; each must be closed."""
    cells = [cell for cell in cells_of(chapter.slug) if "solution" in cell.metadata.get("tags", [])]
    text = "\n\n".join(cell.source for cell in cells)
    folds = numbered(text, r"(?m)^<details><summary>Solution (\d+)</summary>\n\n")
    assert all(cell.cell_type == "markdown" for cell in cells)
    assert all(fold.endswith("\n\n</details>") and fold.count("details>") == 1 for fold in folds.values())
    return folds


def blocks_of(chapter):
    """Number of the solution, and code, of each fenced block in the chapter's solutions."""
    fence = re.compile(r"(?ms)^```python\n(.*?)^```$")
    return [(number, code) for number, fold in solutions_of(chapter).items() for code in fence.findall(fold)]


@pytest.mark.parametrize("chapter", BOOK.chapters, ids=lambda chapter: chapter.slug)
class TestSolutions:
    def test_every_exercise_has_one_and_they_are_numbered_alike(self, chapter):
        exercises = exercises_of(chapter)
        assert list(exercises) == list(range(1, len(exercises) + 1)) == list(solutions_of(chapter))

    def test_every_kind_is_there_and_what_is_open_has_a_rubric(self, chapter):
        exercises, solutions = exercises_of(chapter), solutions_of(chapter)
        kinds = {number: re.match(r"\*([\w ]+)\.\*", text) for number, text in exercises.items()}
        kinds = {number: kind[1] for number, kind in kinds.items() if kind}
        assert (
            {"Predict", "Break it", "Extend"} <= set(kinds.values()) <= {"Predict", "Break it", "Extend", "Implement"}
        )
        for number, kind in kinds.items():
            levels = re.findall(r"(?m)^- \*(\w+)\*: ", solutions[number])
            assert levels == (["full", "half", "some"] if kind == "Extend" else []), number
        named = " ".join(exercises[number] for number, kind in kinds.items() if kind == "Implement")
        assert re.findall(r"`(\w+)`", named)[:1] == [e.function for e in EXERCISES if e.chapter == chapter.slug]

    def test_its_code_can_be_read_and_fits_the_page(self, chapter):
        for number, code in blocks_of(chapter):
            ast.parse(code, filename=f"{chapter.slug}, solution {number}")
            assert max(map(len, code.splitlines())) <= 84, number

    def test_what_says_that_it_runs_alone_does(self, chapter, monkeypatch):
        monkeypatch.chdir(ROOT)
        alone = [(number, code) for number, code in blocks_of(chapter) if code.startswith("# runs alone\n")]
        assert alone
        for number, code in alone:
            torch.manual_seed(0)
            exec(compile(code, f"{chapter.slug}, solution {number}", "exec"), {})

"""Grades a submitted notebook: each function that the chapter leaves to write, by checks with hidden seeds.

The submission runs in another process (see `sandbox`), and only numbers come back: nothing in it can change a check.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import torch

from ..toc import ROOT, BookError
from .exercises import EXERCISES, Check, Exercise
from .sandbox import ANSWER_BYTES, decode, encode

SECONDS = 120  # for one function's checks, the imports of its process included
CLOSED = ("paul", "book", "tests", "data_prep")  # folders, and modules, that a graded function doesn't see
NOTEBOOK_BYTES = 50 << 20


@dataclass(frozen=True)
class Result:
    """What became of one check: its points when it passed, else why it didn't."""

    exercise: Exercise
    check: Check
    passed: bool
    why: str = ""


def submitted(path: Path) -> dict[str, str]:
    """The last code cell that defines each exercise's function, by the function's name.

    Raises:
        BookError: no notebook, too large a one, or none that can be read.
    """
    try:
        if path.stat().st_size > NOTEBOOK_BYTES:
            raise BookError(f"{path} is larger than {NOTEBOOK_BYTES >> 20} MB: clear its outputs and hand it in again")
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        cells = [str(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    except BookError:
        raise
    except Exception as error:  # nbformat raises whatever the text made it stumble over
        raise BookError(f"{path} can't be read as a notebook: {type(error).__name__}: {error}") from error
    found = {}
    for source in cells:
        try:
            defined = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            # a slip of the pen in the one cell that counts must be said, not passed over
            defined = [exercise.function for exercise in EXERCISES if f"def {exercise.function}(" in source]
        found |= {exercise.function: source for exercise in EXERCISES if exercise.function in defined}
    return found


def run(source: str, function: str, calls: list[dict]) -> list[dict]:
    """What the submitted cell's function answers to each call: {"value"} or {"error", "message"}."""
    request = json.dumps(
        {
            "source": source,
            "function": function,
            "calls": calls,
            "absent": CLOSED,
            "closed": [str(ROOT / name) for name in CLOSED],
        }
    )
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("sandbox.py")), str(answers.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1"},
            pass_fds=[answers.fileno()],
            start_new_session=True,
        )
        try:
            process.communicate(request.encode(), timeout=SECONDS)
            ended = "the process ended before it answered: out of memory, out of time, or stopped from within"
        except subprocess.TimeoutExpired:
            ended = f"no answer within {SECONDS} s: does a loop never end?"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        answers.seek(0)
        text = answers.read(ANSWER_BYTES)
    try:
        given = json.loads(text)
        if len(given) == len(calls) and all(isinstance(one, dict) for one in given):
            return given
    except (ValueError, TypeError, RecursionError):
        pass
    return [{"error": "no answer", "message": ended}] * len(calls)


def fault(given: dict, expected) -> str:
    """Why an answer is not what was expected, in words; "" when it is."""
    if "value" not in given:
        return f"{given.get('error')}: {given.get('message')}"
    try:
        value = decode(given["value"])
        ours, theirs = (torch.as_tensor(one, dtype=torch.float64) for one in (expected, value))
    except Exception as error:  # whatever stands there, it is no number
        return f"returned something else than numbers ({type(error).__name__})"
    if ours.shape != theirs.shape:
        return f"returned shape {list(theirs.shape)}, expected {list(ours.shape)}"
    if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
        worst = int((ours - theirs).abs().nan_to_num(torch.inf).argmax())
        return f"returned {theirs.flatten()[worst]:.6g} where {ours.flatten()[worst]:.6g} is right"
    return ""


def grade(source: str | None, exercise: Exercise, seed: int, run=run) -> list[Result]:
    """Every check of one exercise on one submitted cell (None when the notebook has none), which `run` runs."""
    if source is None:
        why = f"no cell of the notebook defines {exercise.function}"
        return [Result(exercise, check, False, why) for check in exercise.checks]
    rng = np.random.default_rng(seed)
    asked = [(check, call) for check in exercise.checks for call in check.calls(rng)]
    calls = [{"arguments": [encode(one) for one in call.arguments], "gradient": call.gradient} for _, call in asked]
    faults: dict[str, str] = {}
    for (check, call), given in zip(asked, run(source, exercise.function, calls)):
        faults[check.about] = faults.get(check.about) or fault(given, call.expected)
    return [Result(exercise, check, not faults[check.about], faults[check.about]) for check in exercise.checks]


def grade_notebook(path: Path, seed: int | None = None) -> list[Result]:
    """Every exercise of the chapters whose functions the notebook defines.

    Raises:
        BookError: see `submitted`; or it defines none of the functions.
    """
    seed = secrets.randbits(64) if seed is None else seed
    sources = submitted(path)
    chapters = {exercise.chapter for exercise in EXERCISES if exercise.function in sources}
    if not chapters:
        names = ", ".join(exercise.function for exercise in EXERCISES)
        raise BookError(f"{path} defines none of the functions that are graded: {names}")
    asked = [exercise for exercise in EXERCISES if exercise.chapter in chapters]
    return [result for exercise in asked for result in grade(sources.get(exercise.function), exercise, seed)]


def report(results: list[Result]) -> str:
    """Points, check by check, with a hint where one failed."""
    lines = []
    for result in results:
        check = result.check
        mark = f"{check.points if result.passed else 0}/{check.points}"
        lines.append(f"{mark}  {result.exercise.name}: {check.about}")
        if not result.passed:
            lines += [f"     {result.why}", f"     hint: {check.hint}"]
    got = sum(result.check.points for result in results if result.passed)
    return "\n".join([*lines, f"{got} of {sum(result.check.points for result in results)} points"])

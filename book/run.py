"""Runs chapters through papermill and keeps a manifest of what ran, failed, was skipped and why.

The executed notebooks and manifest.json land in one folder; at the end the manifest is copied to the results folder.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from .jobs import executor, next_to_begin
from .manifest import now, provenance, read_manifest, write_manifest
from .pairs import read_chapter
from .start import RENDERED, rendering
from .toc import ROOT, Book, BookError, Chapter

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ThisPython(AsyncKernelManager):
    """A kernel of the interpreter that runs the driver, whatever kernel specs the machine has installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=50"],
            display_name="Python 3",
            language="python",
            env={
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                "PYDEVD_DISABLE_FILE_VALIDATION": "1",
                "PYTHONWARNINGS": "ignore:IProgress",  # tqdm's remark that there are no widgets
                "TQDM_DISABLE": "1",  # a page has no progress
            },
        )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process. The lock ends with the process, however it ends.

    Raises BookError when another process holds it.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BookError(f"another run of the book writes to {folder}: wait for it, or name another --out") from None
        yield


def choose_parameters(notebooks: dict[str, object], book: Book, common: dict, asked: dict[str, str]) -> dict[str, dict]:
    """What to inject into each chapter.

    `common` goes to the chapters that have such a parameter, a chapter's values from book.toml to that chapter, and
    `asked` (text, as typed) to every chapter that has it. Raises BookError for a name that no chapter takes.
    """
    taken = {slug: papermill.inspect_notebook(notebook) for slug, notebook in notebooks.items()}
    chosen = {}
    for chapter in (chapter for chapter in book.chapters if chapter.slug in notebooks):
        accepted = taken[chapter.slug]
        for name in chapter.parameters:
            if name not in accepted:
                names = ", ".join(accepted) or "none"
                raise BookError(f"{book.path}: {chapter.slug} has no parameter {name!r}; it takes {names}")
        values = {name: value for name, value in common.items() if name in accepted} | chapter.parameters
        for name in asked.keys() & accepted.keys():
            values[name] = _typed(asked[name], accepted[name], f"{chapter.slug}: {name}")
        chosen[chapter.slug] = values
    for name in asked:
        if not any(name in accepted for accepted in taken.values()):
            offers = "; ".join(f"{slug} takes {', '.join(accepted) or 'none'}" for slug, accepted in taken.items())
            raise BookError(f"-p {name}: no chapter that is to run has this parameter. {offers}")
    return chosen


def _typed(text: str, parameter: dict, where: str) -> object:
    """The typed text as a value of the kind that the parameter's annotation, or else its default, asks for."""
    default = ast.literal_eval(parameter["default"])
    kind = {"str": str, "int": int, "float": float, "bool": bool}.get(parameter["inferred_type_name"], type(default))
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise BookError(f"{where} wants {kind.__name__}, not {text!r}")
    return value


def missing_need(chapter: Chapter, data_error: str | None) -> str | None:
    """Why the chapter can't run here, or None."""
    if "data" in chapter.needs and data_error:
        return data_error
    if "gpu" in chapter.needs and not has_gpu():
        return "needs a GPU, and there is none here"
    return None


def has_gpu() -> bool:
    """Whether torch sees one."""
    import torch

    return torch.cuda.is_available()


def make_data(data: Path, profile: str) -> str | None:
    """Render what is missing of the profile's people. Returns what went wrong, or None.

    A set that is there and complete is kept by data_prep; real sets (profile paper) are never made, only looked for by
    the chapters themselves.
    """
    if profile not in RENDERED:
        return None
    command = rendering(data, profile)
    if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode:
        return f"no data: 'python -m {' '.join(command[2:])}' failed, see above"
    return None


def execute(chapter: Chapter, notebook, parameters: dict, output: Path, start: Path = ROOT, bar: bool = False) -> dict:
    """Run one chapter; returns its manifest entry: the status, and of a failure the error and the cell, from 0.

    `bar`: show progress by cells on a terminal, where no other chapter runs beside it.
    """
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    try:
        papermill.execute_notebook(
            notebook,
            output,
            parameters=parameters,
            cwd=start,
            progress_bar={"desc": chapter.slug, "leave": False} if bar and sys.stderr.isatty() else False,
            execution_timeout=chapter.cell_seconds,
            kernel_manager_class=ThisPython,
            coalesce_streams=True,
        )
    except PapermillExecutionError as error:
        return {"status": "failed", "error": ANSI.sub("", f"{error.ename}: {error.evalue}"), "cell": error.cell_index}
    except CellTimeoutError as error:
        limit = f"a cell took longer than {chapter.cell_seconds:g} s, the limit that book.toml sets"
        return {"status": "failed", "error": f"{limit}: {_first_code_line(str(error))}"}
    except DeadKernelError:
        return {"status": "failed", "error": "the kernel died; out of memory is the usual cause"}
    return {"status": "ran"}


def _first_code_line(message: str) -> str:
    """nbclient quotes the cell between dashed lines; its first line is enough to find it."""
    lines = message.splitlines()
    dashed = [number for number, line in enumerate(lines) if line and set(line) == {"-"}]
    return lines[dashed[0] + 1] if dashed else ""


def blocked_by(chapter: Chapter, entries: dict, selected: set[str]) -> str | None:
    """The selected chapter that this one comes after and that didn't run through, or None."""
    for name in chapter.after:
        if name in selected and entries[name]["status"] != "ran":
            return name
    return None


def run_book(
    book: Book,
    *,
    chapters: str | None = None,
    profile: str = "mini",
    data: Path = ROOT / "data",
    results: Path = ROOT / "results",
    out: Path = ROOT / "build" / "executed",
    asked: dict[str, str] | None = None,
    keep_going: bool = False,
    jobs: int = 1,
    command: str = "",
    say: Callable[..., None] = print,
) -> int:
    """Run the chapters in order, `jobs` at once; returns 0 when all ran, 1 when one failed or was skipped, 130 when
    interrupted.

    A failed chapter ends the run, or with `keep_going` only skips the chapters that come after it. The manifest keeps
    the entries of chapters that aren't selected. Raises BookError before anything runs, for a missing chapter, an
    unknown parameter, or an `out` that another run is using.
    """
    data, results, out = (Path(path).resolve() for path in (data, results, out))
    selected = book.select(chapters)
    notebooks = {chapter.slug: read_chapter(chapter) for chapter in selected}
    common = {"profile": profile, "data_dir": from_root(data), "results_dir": from_root(results)}
    parameters = choose_parameters(notebooks, book, common, asked or {})
    if "target" in (asked or {}):
        _check_target(asked["target"], profile)
    if profile not in ("smoke", "mini") and not has_gpu():
        say(
            f"warning: profile {profile} is meant for a GPU, and there is none here. Runs that are recorded in "
            f"{results} are shown; one that is missing would take days."
        )
    with locked(out):
        recorder = Recorder(book, selected, out, results, profile, command, jobs)
        try:
            data_error = None
            if any("data" in chapter.needs for chapter in selected):
                data_error = make_data(data, profile)
            _run_selected(selected, notebooks, parameters, recorder, data_error, keep_going, jobs, say)
        except KeyboardInterrupt:
            recorder.interrupt()
            say(f"\ninterrupted; what ran until now is in {out / 'manifest.json'}")
        return recorder.close()


def _check_target(name: str, profile: str) -> None:
    """Raises BookError for a target that the profile has not: chapters make a folder's name of it."""
    from paul.experiments import profiles
    from paul.options import known

    try:
        known("target", name, profiles.profile(profile).targets)
    except ValueError as error:
        raise BookError(f"-p target={name}: {error}") from error


def _timed(chapter: Chapter, notebook, parameters: dict, output: Path) -> tuple[dict, float]:
    """What `execute` returns, and the seconds that it took."""
    start = time.perf_counter()
    entry = execute(chapter, notebook, parameters, output)
    return entry, round(time.perf_counter() - start, 1)


def _run_selected(selected, notebooks, parameters, recorder, data_error, keep_going, jobs, say) -> None:
    width = max(len(chapter.slug) for chapter in selected)
    names = {chapter.slug for chapter in selected}
    place = {chapter.slug: f"{n:2}/{len(selected)}  {chapter.slug:<{width}}  " for n, chapter in enumerate(selected, 1)}
    waiting, running, ended_by = list(selected), {}, None
    with executor(jobs) as pool:
        while waiting or running:
            chapter = next_to_begin(waiting, list(running.values()), jobs)
            if chapter is None:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    chapter = running.pop(future)
                    entry, seconds = _ended(future)
                    about = {"seconds": seconds, "parameters": parameters[chapter.slug]}
                    recorder.note(chapter, entry | about)
                    line = f"{entry['status']:<7} {seconds:7.1f} s  {entry.get('error', '')}".rstrip()
                    say(place[chapter.slug] + line, flush=True)
                    if entry["status"] == "failed" and not keep_going:
                        ended_by = ended_by or chapter.slug
                continue
            waiting.remove(chapter)
            blocker = blocked_by(chapter, recorder.entries, names)
            why = missing_need(chapter, data_error)
            if ended_by:
                why = f"{ended_by} failed, and --keep-going wasn't given"
            elif blocker:
                what = "failed" if recorder.entries[blocker]["status"] == "failed" else "was skipped"
                why = f"comes after {blocker}, which {what}"
            if why:
                recorder.note(chapter, {"status": "skipped", "why": why})
                say(f"{place[chapter.slug]}skipped           {why}", flush=True)
                continue
            recorder.note(chapter, {"status": "running"})
            say(f"{place[chapter.slug]}begins", flush=True)
            arguments = notebooks[chapter.slug], parameters[chapter.slug], recorder.notebook(chapter)
            running[pool.submit(_timed, chapter, *arguments)] = chapter


def _ended(future) -> tuple[dict, float]:
    try:
        return future.result()
    except BrokenExecutor:
        return {"status": "failed", "error": "its process died; out of memory is the usual cause"}, 0.0


class Recorder:
    """The manifest of one run, written whole after every change; entries of other chapters stay as they were."""

    def __init__(
        self, book: Book, selected: list[Chapter], out: Path, results: Path, profile: str, command: str, jobs: int
    ):
        self.out, self.results = out, results
        self.selected = [chapter.slug for chapter in selected]
        self.about = {"profile": profile, **provenance()}
        if jobs > 1:  # its times are not those of a chapter that has the machine for itself
            self.about["machine"] += f", {jobs} chapters at once"
        earlier = read_manifest(out / "manifest.json")["chapters"]
        order = [chapter.slug for chapter in book.chapters]
        self.entries = {slug: earlier[slug] for slug in order if slug in earlier}
        self.entries |= {slug: {"status": "waiting", **self.about} for slug in self.selected}
        self.entries = {slug: self.entries[slug] for slug in order if slug in self.entries}
        self.manifest = {"book": book.title, "command": command, "status": "running", "started": now()}
        self.clock = time.perf_counter()
        self._write()

    def notebook(self, chapter: Chapter) -> Path:
        return self.out / f"{chapter.slug}.ipynb"

    def note(self, chapter: Chapter, entry: dict) -> None:
        self.entries[chapter.slug] = {**entry, **self.about, "at": now()}
        self._write()

    def interrupt(self) -> None:
        for slug in self.selected:
            if self.entries[slug]["status"] in ("running", "waiting"):
                self.entries[slug] |= {"status": "skipped", "why": "the run was interrupted"}
        self.manifest["status"] = "interrupted"

    def close(self) -> int:
        if self.manifest["status"] == "running":
            fine = all(self.entries[slug]["status"] == "ran" for slug in self.selected)
            self.manifest["status"] = "complete" if fine else "failed"
        self.manifest["finished"] = now()
        self.manifest["seconds"] = round(time.perf_counter() - self.clock, 1)
        self._write()
        write_manifest(self.results / "manifest.json", self._whole())
        return {"complete": 0, "failed": 1, "interrupted": 130}[self.manifest["status"]]

    def _whole(self) -> dict:
        return {**self.manifest, "chapters": self.entries}

    def _write(self) -> None:
        write_manifest(self.out / "manifest.json", self._whole())


def from_root(path: Path) -> str:
    """As a chapter would write it: relative to the repository where it can be."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)

"""Commands killed at random moments and given again: python -m tests.kills [NAME ...] [--kills 20] [--write].

Each command runs undisturbed, then elsewhere with `kill -9` at random moments, then to its end: the results must be the
same bytes, and of tensors and curves the same numbers. A command that ends before it is killed is compared, and begins
again in an empty folder. After each kill no process of the command may be left after GRACE seconds. With --write the
table goes into tests/kills.json and from there into the page *When things break*.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

import data_prep.__main__ as data_prep
from paul import cli
from paul.experiments.provenance import machine
from tests import raw_sets

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "tests/kills.json", ROOT / "book/pages/when_things_break.md"
MARKS = "<!-- kills: written by python -m tests.kills --write -->\n", "<!-- end of kills -->\n"
LIFE = "PAUL_LIFE"  # in the environment of a command and of all that it starts
GRACE = 40.0  # seconds for what a killed command has started to end; a worker finishes its step and saves
CLOCK = ("seconds", "peak_memory_mb", "commit", "code")  # of a record: what no two runs share, or where it was made
SMOKE = "--profile smoke --device cpu"


class Command(NamedTuple):
    """What is killed.

    Attributes:
        words: as typed, after `python -m`; {inputs} is the folder of `make_inputs`.
        result: the files below the command's folder that must come out the same.
        any_process: whether a process that the command started may be the one that is killed.
    """

    words: str
    result: str
    any_process: bool = False


COMMANDS = {
    "pretrain": Command(
        "paul pretrain {smoke} --data {inputs}/data/smoke/source --out out --set pretrain.epochs=4", "out/checkpoint.pt"
    ),
    "adapt": Command(
        "paul adapt {smoke} --data {inputs}/data/smoke/market --init {inputs}/start/checkpoint.pt --out out "
        "--set adapt.epochs=4",
        "out/*.pt",
    ),
    "adapt, 2 ranks": Command(
        "torch.distributed.run --standalone --nproc-per-node 2 -m paul adapt {smoke} "
        "--data {inputs}/data/smoke/market --init {inputs}/start/checkpoint.pt --out out --set adapt.epochs=8",
        "out/*.pt",
        any_process=True,
    ),
    "run, 2 workers": Command(
        "paul run table3 {smoke} --data {inputs}/data --seeds 0 --targets market --workers 2 "
        "--rows patch_adabn,patch_lv,image_pull --book {root}/book",
        "results/runs/smoke/*.json",
    ),
    "embed": Command(
        "paul embed {inputs}/data/smoke --init {inputs}/start/checkpoint.pt --batch 8 -o out.npz", "*.npz"
    ),
    "data_prep synthetic": Command("data_prep synthetic --profile smoke --sets market --workers 2", "data/**/*"),
    "data_prep folder": Command(
        "data_prep folder --raw {inputs}/crops --pattern camera(?P<camera_id>\\d+)/ --copy", "data/**/*"
    ),
    "data_prep market1501": Command("data_prep market1501 --raw {inputs}/market.zip --accept-counts", "data/**/*"),
    "data_prep dukemtmc": Command(
        "data_prep dukemtmc --raw {inputs}/duke --accept-counts --i-have-the-right", "data/**/*"
    ),
    "data_prep msmt17": Command("data_prep msmt17 --raw {inputs}/msmt.tar.gz --accept-counts", "data/**/*"),
    "data_prep cuhk03": Command("data_prep cuhk03 --raw {inputs}/cuhk --accept-counts", "data/**/*"),
    "book run": Command(
        "book run --chapters 00 --profile smoke --data {inputs}/data --results results --out out", "out/*.ipynb"
    ),
}


def make_inputs(folder: Path, words: str) -> None:
    """What commands of these words read: crops and look-alikes of the real sets, and rendered people and a source model
    where they are asked for."""
    raw_sets.write(folder / "crops", [f"camera{number % 3}/{number:04d}.jpg" for number in range(60)])
    raw_sets.packed(raw_sets.market(folder / "market"), folder / "market.zip")
    raw_sets.duke(folder / "duke")
    raw_sets.packed(raw_sets.msmt(folder / "MSMT17_V1"), folder / "msmt.tar.gz")
    raw_sets.cuhk_release(folder / "cuhk")
    for asked, command in {
        "{inputs}/data": f"data_prep synthetic --profile smoke --out {folder}/data --workers 2",
        "{inputs}/start": f"paul pretrain {SMOKE} --data {folder}/data/smoke/source --out {folder}/start",
    }.items():
        if asked in words:
            assert Life(command.split(), folder).wait() == 0, (folder / "said.txt").read_text()


class Life:
    """A command in a process of its own, forked from this one, whose imports it need not repeat."""

    def __init__(self, words: list[str], folder: Path):
        self.token = f"{os.getpid()}-{time.monotonic_ns()}"
        self.begin = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.environ |= {LIFE: self.token, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
                tqdm.set_lock(threading.RLock())  # that of before is shared, and a life killed under it keeps it
                os.chdir(folder)
                with open("said.txt", "w") as said:
                    os.dup2(said.fileno(), 1)
                    os.dup2(said.fileno(), 2)
                torch.set_num_threads(1)
                status = self._run(*words)
            finally:
                sys.stdout.flush()
                os._exit(status)

    @staticmethod
    def _run(module: str, *words: str) -> int:
        if module in ("paul", "data_prep"):
            return {"paul": cli, "data_prep": data_prep}[module].main([*words])
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", module, *words])

    def wait(self) -> int:
        """Its exit status, minus the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def ended(self, seconds: float) -> int | None:
        """Its exit status as soon as it has one, None after so many seconds of life."""
        while time.monotonic() - self.begin < seconds:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        return None

    def others(self) -> list[int]:
        """What it has started, and what that has started, as long as it runs."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"{LIFE}={self.token}".encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:  # another user's, or it has just ended
                continue
        return [pid for pid in found if pid != self.pid]

    def left(self) -> int:
        """Waits for what it has started; how many had to be killed after GRACE seconds."""

        def still(seconds: float) -> list[int]:
            until = time.monotonic() + seconds
            while self.others() and time.monotonic() < until:
                time.sleep(0.05)
            return self.others()

        others = still(GRACE)
        for pid in others:
            os.kill(pid, signal.SIGKILL)
        still(30)  # a killed process takes a moment to end
        return len(others)


def timeless(value):
    """JSON without what the clock says."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in CLOCK}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def content(path: Path) -> object:
    """What of a file must repeat."""
    if path.is_symlink():
        return os.readlink(path)
    if path.suffix == ".pt":
        return plain(torch.load(path, weights_only=True))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: (arrays[name].shape, digest(arrays[name].tobytes())) for name in arrays}
    if path.suffix == ".ipynb":  # texts hold clocks, and the injected parameters the command's folder
        cells = [cell for cell in json.loads(path.read_text())["cells"] if "injected-parameters" not in tags(cell)]
        return [(cell["source"], [part["output_type"] for part in cell.get("outputs", [])]) for cell in cells]
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text()))
    return digest(path.read_bytes())


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def plain(value: object) -> object:
    """Nested dicts and lists with a digest in the place of each tensor, and no clock in any history."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), digest(value.contiguous().view(-1).numpy().tobytes())
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key not in CLOCK}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return plain(json.loads(value)) if isinstance(value, str) and value[:1] in ("[", "{") else value


def result(command: Command, folder: Path) -> dict:
    """Content of each file that the command is for, by its path."""
    found = [path for path in folder.glob(command.result) if path.is_file() and not path.name.startswith(".")]
    return {
        path.relative_to(folder).as_posix(): content(path)
        for path in sorted(found)
        if path.name != "checkpoint.previous.pt"
    }


def tried(command: Command, inputs: Path, folder: Path, kills: int, moments: random.Random) -> dict:
    """One line of the table: how often it was killed and begun, what was unlike, what was left behind, seconds."""
    words = command.words.format(inputs=inputs, root=ROOT, smoke=SMOKE).split()
    begin = time.monotonic()

    def emptied() -> Path:
        shutil.rmtree(folder / "killed", ignore_errors=True)
        (folder / "killed").mkdir(parents=True)
        return folder / "killed"

    def to_the_end(where: Path) -> dict:
        life = Life(words, where)
        status = life.wait()
        assert status == 0, f"{' '.join(words)} ended with {status}:\n{(where / 'said.txt').read_text()[-2000:]}"
        found["left"] += life.left()
        return result(command, where)

    found = {"kills": 0, "runs": 0, "unlike": 0, "left": 0}
    (folder / "whole").mkdir(parents=True)
    whole = to_the_end(folder / "whole")
    assert whole, f"{command.result}: no such file"
    lasts = time.monotonic() - begin
    where = emptied()
    while found["kills"] < kills:
        life = Life(words, where)
        status = life.ended(moments.uniform(0, lasts))
        if status is None:
            victim = moments.choice([life.pid, *life.others()]) if command.any_process else life.pid
            os.kill(victim, signal.SIGKILL)
            life.wait()
            found["kills"] += 1
            found["left"] += life.left()
            continue
        assert status == 0, f"{' '.join(words)} ended with {status}:\n{(where / 'said.txt').read_text()[-2000:]}"
        found["runs"] += 1
        found["unlike"] += result(command, where) != whole
        where = emptied()
    found["runs"] += 1
    found["unlike"] += to_the_end(where) != whole
    return {**found, "seconds": round(time.monotonic() - begin), "date": f"{date.today()}"}


def table(kept: dict) -> str:
    """The outcome as Markdown."""
    heads = ("command", "kills", "runs to the end", "equal", "processes left", "seconds", "on")
    lines = [heads, ["---"] * len(heads)]
    for name, line in kept["commands"].items():
        equal = "all" if not line["unlike"] else f"all but {line['unlike']}"
        lines.append([f"`{name}`", line["kills"], line["runs"], equal, line["left"], line["seconds"], line["date"]])
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines) + f"\nOn {kept['machine']}.\n"


def with_table(page: str, kept: dict) -> str:
    """The page with the outcome between its marks."""
    before, rest = page.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    return before + MARKS[0] + "\n" + table(kept) + "\n" + MARKS[1] + after


def main(arguments: list[str] | None = None) -> int:
    """Try each command; 1 when a result differed or a process was left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(COMMANDS) + "; all by default")
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--write", action="store_true", help=f"keep the outcome in {KEPT.name} and in the page")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.names if name not in COMMANDS]
    if unknown:
        parser.error(f"no command {unknown[0]!r}; there are {'; '.join(COMMANDS)}")
    outcome, moments = {}, random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "inputs").mkdir()
        names = args.names or list(COMMANDS)
        make_inputs(folder / "inputs", " ".join(COMMANDS[name].words for name in names))
        for number, name in enumerate(names):
            line = tried(COMMANDS[name], folder / "inputs", folder / str(number), args.kills, moments)
            outcome[name] = line
            print(name, line, flush=True)
    print(table({"machine": machine(), "commands": outcome}))
    if args.write:  # of the other commands, what is known stays
        known = json.loads(KEPT.read_text(encoding="utf-8"))["commands"] | outcome if KEPT.is_file() else outcome
        kept = {"machine": machine(), "commands": {name: known[name] for name in COMMANDS if name in known}}
        KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), kept), encoding="utf-8")
    return int(any(line["unlike"] or line["left"] for line in outcome.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Fuzzing of what reads files: python -m tests.fuzz [--reader NAME ...] [--minutes M].

Every reader of `tests/hostile.py` gets files of any content, and has to answer with a result or with its documented
error, that error naming the file. Another exception, a hang, memory out of all proportion or code that runs is a find;
it is kept in build/fuzz/READER/finds with its traceback, once for each place where it comes from, and tried first at
the next run. What reached new branches is kept beside it, so that a later run goes on from there. How many contents
were tried, and what was found, goes to results/fuzz.json.

With the package atheris the contents are led by the branches they reach; without it they are plain mutations.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from contextlib import nullcontext
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ |= {"TQDM_DISABLE": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}  # others reserve more than the limit below

import pandas  # noqa: F401
import torch  # noqa: F401
from torch import _weights_only_unpickler as unpickler

try:
    import atheris
except ImportError:
    atheris = None

# the readers and the parsers below them are watched for new branches; other code of the libraries is not
with atheris.instrument_imports(include=["paul", "book", "data_prep", "tomllib"]) if atheris else nullcontext():
    from paul.engine.files import write_text
    from tests.hostile import TARGETS

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build/fuzz"
if atheris:
    unpickler.Unpickler.load = atheris.instrument_func(unpickler.Unpickler.load)
MOST_MEMORY = 2 << 30  # bytes that a reader may claim on top of what the libraries take
MOST_USED = 768 << 10  # KiB by which one content, of 2 MB at most, may raise what the process has ever held
LONGEST = 2_000_000  # bytes of a content
BUSY, WAITING = 10, 60  # seconds that one may compute, and that it may last on a machine that others use, too
DANGER = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.rmdir",
    "os.putenv",
    "pty.spawn",
    "shutil.rmtree",
    "socket.connect",
    "subprocess.Popen",
)


class CodeRan(BaseException):
    """Reading a file ran code that the file named; no reader catches this."""


class TooLong(BaseException):
    """Reading a file took too long."""


def forbid_code(folder: Path) -> None:
    """From here on, whatever would start a process, open a connection or delete a folder raises CodeRan, for good.

    Folders below `folder`, and those that are named relative to an open one, may go: `shutil.rmtree` does it so.
    """

    def hook(event, arguments):
        if event not in DANGER:
            return
        if event in ("os.rmdir", "shutil.rmtree"):
            path, at = arguments[0], arguments[1]
            if (isinstance(at, int) and at >= 0) or os.fspath(path).startswith(f"{folder}{os.sep}"):
                return
        raise CodeRan(f"{event} {arguments}")

    sys.addaudithook(hook)


class Judge:
    """Hands contents to a reader, counts them in memory shared with the parent, and keeps what it did not answer."""

    def __init__(self, read, folder: Path, finds: Path, tally: mmap.mmap):
        self.read, self.folder, self.finds, self.tally, self.tried = read, folder, finds, tally, 0

    def __call__(self, content: bytes) -> None:
        self.tried += 1
        signal.setitimer(signal.ITIMER_PROF, BUSY)
        self.tally[:8] = struct.pack("q", self.tried)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            self.read(content, self.folder)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < MOST_USED, f"{len(content):,} bytes took {grown >> 10:,} MiB"
        except (Exception, CodeRan, TooLong) as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._keep(content, error)

    def _keep(self, content: bytes, error: BaseException) -> None:
        """Once for each kind of error and line of ours that it came through last."""
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(ROOT))]
        name = hashlib.sha256(f"{type(error)}{ours[-1].filename}{ours[-1].line}".encode()).hexdigest()[:12]
        if not (self.finds / name).exists():
            (self.finds / name).write_bytes(content)
            (self.finds / f"{name}.txt").write_text("".join(traceback.format_exception(error))[-8000:])


def mutated(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """A content with some bytes changed, left out, repeated or taken from another."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(content) + 1)
        length = min(chance.choice((1, 1, 2, 4, 8, 64)), len(content) - at)
        kind = chance.randrange(5)
        if kind == 0 and length:
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[at : at + length] = chance.choice((b"\0", b"\xff", b"9" * 20, b"-1", b"[", b"\x7f")) * length
        elif kind == 2:
            del content[at : at + length]
        elif kind == 3:
            content[at:at] = content[at : at + length]
        else:
            start = chance.randrange(len(other) + 1)
            content[at : at + length] = other[start : start + length]
    return bytes(content[:LONGEST])


def stop(*_):
    raise TooLong(f"longer than {BUSY} s of computing, or {WAITING} s")


def plainly(judge: Judge, seeds: list[bytes], seconds: float, seed: int) -> None:
    """Mutations of the seeds, led by nothing."""
    signal.signal(signal.SIGALRM, stop)
    chance, end, waiting = random.Random(seed), time.monotonic() + seconds, list(seeds)
    while waiting or time.monotonic() < end:
        content = waiting.pop() if waiting else mutated(chance.choice(seeds), chance.choice(seeds), chance)
        signal.alarm(WAITING)
        judge(content)


def fuzz(reader: str, seconds: float, seed: int, folder: Path, earlier: list[bytes], tally: mmap.mmap) -> None:
    """Fuzz one reader in a folder; ends the process, with 0 unless it hung or crashed."""
    read, seeds = TARGETS[reader]
    begin, finds, kept = [*seeds(), *earlier], KEPT / reader / "finds", KEPT / reader / "corpus"
    (folder / "seeds").mkdir()
    for number, content in enumerate(begin):
        (folder / f"seeds/{number}").write_bytes(content)
    work = folder / "work"
    work.mkdir()
    tempfile.tempdir = str(work)  # of the libraries, too: `forbid_code` lets go what lies there
    read(begin[0], work)  # whatever is imported late is imported now
    judge = Judge(read, work, finds, tally)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, resource.RLIM_INFINITY))
    forbid_code(work)
    signal.signal(signal.SIGPROF, stop)
    if atheris is None:
        plainly(judge, begin, seconds, seed)
        os._exit(0)
    options = {
        "max_total_time": max(1, round(seconds)),
        "seed": seed,
        "timeout": WAITING,
        "report_slow_units": WAITING,
        "max_len": LONGEST,
        "rss_limit_mb": 0,  # the limit above is the address space's
        "artifact_prefix": f"{finds}/",
        "verbosity": 0,
    }
    places = [str(kept), str(folder / "seeds")]
    atheris.Setup([sys.argv[0], *places, *(f"-{name}={value}" for name, value in options.items())], judge)
    atheris.Fuzz()


def note(path: Path, reader: str, entry: dict) -> None:
    """Put a reader's last outcome among those of the others."""
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    said = {name: said[name] for name in said if name in TARGETS} | {reader: entry}
    write_text(path, json.dumps(dict(sorted(said.items())), indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Fuzz each reader in a process of its own, some at once; 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--reader", action="append", choices=TARGETS, metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=1, help="for each reader")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="another one at each run by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="readers at once")
    parser.add_argument("--outcome", type=Path, default=ROOT / "results/fuzz.json")
    args = parser.parse_args(arguments)
    waiting = [(reader, 60 * args.minutes, mmap.mmap(-1, 8), 0) for reader in args.reader or TARGETS]
    running, found = {}, 0
    while waiting or running:
        while waiting and len(running) < args.jobs:
            reader, seconds, tally, before = waiting.pop(0)
            finds = KEPT / reader / "finds"
            earlier = []
            if not before:  # a find that is mended does not come again
                earlier = [path.read_bytes() for path in finds.glob("*") if path.suffix != ".txt"]
                shutil.rmtree(finds, ignore_errors=True)
            for path in (finds, KEPT / reader / "corpus"):
                path.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
            sys.stdout.flush()
            child = os.fork()  # nothing has been computed yet, and the imports are paid once
            if child == 0:
                fuzz(reader, seconds, args.seed + before, folder, earlier, tally)
            running[child] = reader, seconds, tally, before, folder, time.monotonic()
        child, status = os.wait()
        reader, seconds, tally, before, folder, begin = running.pop(child)
        shutil.rmtree(folder)
        tried, left = before + struct.unpack("q", tally[:8])[0], seconds - (time.monotonic() - begin)
        if status and left > 1 and tried > before:  # it hung or crashed: what it was is kept, the others are still due
            tally[:8] = bytes(8)
            waiting.append((reader, left, tally, tried))
            continue
        finds = [path for path in (KEPT / reader / "finds").glob("*") if path.suffix != ".txt"]
        found += len(finds) + bool(status and not finds)
        words = f"{len(finds)} found, kept in {KEPT / reader / 'finds'}" if finds else "nothing found"
        print(f"{reader}: {tried:,} contents, {words}" + (f" (ended with {status})" if status else ""), flush=True)
        engine = f"atheris {version('atheris')}" if atheris else "plain mutations"
        entry = {"minutes": args.minutes, "contents": tried, "found": len(finds)}
        note(args.outcome, reader, {**entry, "by": engine, "date": date.today().isoformat()})
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Coverage-guided fuzzing of what reads files: python -m tests.fuzz [TARGET ...] [--seconds S].

Every target hands a file of any content to a reader, which has to answer with a result or with the documented error,
that error naming the file. Another exception, a hang, an allocation out of all proportion or code that runs is a find:
its input is kept in build/fuzz/, where it joins the seeds of the next run. Needs the package atheris.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import atheris
import pandas  # noqa: F401
import torch  # noqa: F401
from torch import _weights_only_unpickler as unpickler

# the readers and the parsers below them are watched for new branches; other code of the libraries is not
with atheris.instrument_imports(include=["paul", "book", "data_prep", "tomllib"]):
    from tests.hostile import TARGETS

unpickler.Unpickler.load = atheris.instrument_func(unpickler.Unpickler.load)
KEPT = Path(__file__).resolve().parents[1] / "build/fuzz"
MOST_MEMORY = 2 << 30  # bytes that a reader may claim on top of what the libraries take
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


def forbid_code() -> None:
    """From here on, whatever would start a process, delete a file or open a connection raises CodeRan; for good."""

    def hook(event, arguments):
        if event in DANGER:
            raise CodeRan(f"{event} {arguments}")

    sys.addaudithook(hook)


def fuzz(target: str, seconds: int, seed: int, folder: Path) -> None:
    """Fuzz one target in a folder; ends the process, with 0 when nothing was found."""
    read, seeds = TARGETS[target]
    corpus, kept = folder / "corpus", KEPT / target
    corpus.mkdir()
    kept.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds()):
        (corpus / f"seed{number}").write_bytes(content)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, resource.RLIM_INFINITY))
    forbid_code()
    # a content that takes longer than 10 s hangs
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            str(kept),
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            "-timeout=10",
            "-max_len=2000000",
            f"-artifact_prefix={kept}/",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        lambda content: read(content, folder),
    )
    atheris.Fuzz()


def main(arguments: list[str] | None = None) -> int:
    """Fuzz each target in a process of its own, as many at once as there are processors."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS) + "; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    waiting, running, failed = list(args.targets or TARGETS), {}, []
    unknown = [target for target in waiting if target not in TARGETS]
    if unknown:
        parser.error(f"no target {unknown[0]}; there are {', '.join(TARGETS)}")
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            target = waiting.pop(0)
            sys.stdout.flush()
            memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
            folder = Path(tempfile.mkdtemp(dir=memory))
            child = os.fork()  # nothing has been computed yet, and the imports are paid once
            if child == 0:
                fuzz(target, args.seconds, args.seed, folder)
            running[child] = target, folder
        child, status = os.wait()
        target, folder = running.pop(child)
        shutil.rmtree(folder)
        print(f"{target}: {'nothing found' if status == 0 else f'a find, kept in {KEPT / target}'}", flush=True)
        failed += [target] if status else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Where a number comes from: hash of the sources, commit, versions, machine and memory, as a run record states them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import resource
import subprocess
import tokenize
from functools import cache
from pathlib import Path

KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM")  # they name no repository, and say which ones git may enter
_BREAKS = {tokenize.NEWLINE: "\n", tokenize.INDENT: "\t", tokenize.DEDENT: "\b"}


def _meaning(source: str) -> str:
    """The tokens of a file without comments, layout and docstrings: a better explanation keeps the hash."""
    kept, at_start = [], True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL) or (at_start and token.type == tokenize.STRING):
            continue
        text = _BREAKS.get(token.type, token.string)
        if not (at_start and text == "\n"):  # all that a docstring leaves behind
            kept.append(text)
        at_start = token.type in _BREAKS
    return "".join(kept)


@cache
def code_hash() -> str:
    """Hash over all sources of this package, comments and docstrings apart: says which ones made a number."""
    here = Path(__file__).parents[1]
    files = sorted(path.relative_to(here).as_posix() for path in here.rglob("*.py"))
    text = "\n".join(f"{name}\n{_meaning((here / name).read_text(encoding='utf-8'))}" for name in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def git(folder: Path, *arguments: str) -> str:
    """What git says in a folder; a repository that the environment names does not count.

    Raises:
        OSError, subprocess.CalledProcessError: there is no git, no repository, or it says no.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in KEPT}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


@cache
def commit() -> str:
    """The commit of the sources, with "+" when files of the package differ from it; "" outside version control.

    A repository around the package that does not track it is none of its own.
    """
    here = Path(__file__).resolve()
    folder = here.parents[1]
    try:
        git(folder, "ls-files", "--error-unmatch", "--", str(here))
        changed = git(folder, "status", "--porcelain", "--untracked-files=all", "--", ".")
        return git(folder, "rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


@cache
def machine() -> str:
    """Processor and core count, in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def versions() -> dict[str, str]:
    """Of Python and the libraries that compute."""
    import numpy
    import torch
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
    }


def peak_memory_mb(device) -> float:
    """Highest memory use so far, in MiB: the GPU's allocator, or this process on a CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def digest(data: dict) -> str:
    """Hash of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

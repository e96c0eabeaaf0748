"""The manifest: what of the book ran, failed or was skipped, how long it took, on what, from which commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .toc import ROOT

STATUSES = ("waiting", "running", "ran", "failed", "skipped")
TOLD = {"profile": str, "machine": str, "at": str, "seconds": (int, float)}  # once a chapter ran or failed
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "matplotlib", "papermill", "jupytext")


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a reader never sees half of it, whenever this process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_manifest(path: Path, manifest: dict) -> None:
    write_text(path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def read_manifest(path: Path) -> dict:
    """The manifest at `path`, without entries that are not whole; an empty one when there is none or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        entries = found["chapters"].items()
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return {"chapters": {}}
    return {**found, "chapters": {slug: entry for slug, entry in entries if _is_whole(entry)}}


def _is_whole(entry) -> bool:
    """Whether a chapter's entry has what pages and costs read in it."""
    if not isinstance(entry, dict) or entry.get("status") not in STATUSES:
        return False
    told = TOLD if entry["status"] in ("ran", "failed") else {}
    given = entry.get("parameters", {})
    if not isinstance(given, dict) or not isinstance(given.get("data_dir", ""), str):
        return False
    return all(isinstance(entry.get(key), kind) for key, kind in told.items()) and all(
        isinstance(entry.get(key) or "", str) for key in ("commit", "error", "why")
    )


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def provenance() -> dict:
    """Commit, whether the tree differs from it, versions and machine: what a measured time depends on."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": None if changes is None else bool(changes),
        "machine": describe_machine(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_machine() -> str:
    """Processor, cores this process may use and memory, in words; no host name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = [_processor(), f"{cores} core{'s' if cores != 1 else ''}"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        words.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB")
    return ", ".join(words)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()

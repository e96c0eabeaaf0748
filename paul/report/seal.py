"""An index of the run records' hashes beside them: what was edited, added or lost since it was written has a name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from paul.engine.files import write_text

INDEX = "runs.sha256"  # in the results folder; `sha256sum -c` reads it there too


def hashes(results_dir) -> dict[str, str]:
    """File of each record, relative to the results folder -> SHA-256 of its bytes."""
    results_dir = Path(results_dir)
    found = sorted(path.relative_to(results_dir).as_posix() for path in results_dir.glob("runs/*/*.json"))
    return {name: hashlib.sha256((results_dir / name).read_bytes()).hexdigest() for name in found}


def seal(results_dir) -> Path:
    """Write the index of all records; returns its path."""
    path = Path(results_dir) / INDEX
    write_text(path, "".join(f"{found}  {name}\n" for name, found in hashes(results_dir).items()))
    return path


def differences(results_dir, profile: str | None = None) -> list[str]:
    """A line for each record of a profile, or of all, that has changed since the index was written or is gone, and one
    for all that are new.

    Without an index one line says so, if there are records.
    """
    path, prefix = Path(results_dir) / INDEX, f"runs/{profile}/" if profile else "runs/"
    now = {name: found for name, found in hashes(results_dir).items() if name.startswith(prefix)}
    if not path.is_file():
        return [f"{path} is not there: nothing tells whether records were changed"] if now else []
    then, lines = {}, []
    for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
        entry = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if entry is None:
            lines.append(f"{path}: line {number} names no hash and file")
        elif entry[2].startswith(prefix):
            then[entry[2]] = entry[1]
    for name in sorted(now.keys() | then.keys()):
        if name not in now:
            lines.append(f"{name} is missing: {path} has it")
        elif now[name] != then.get(name, now[name]):
            lines.append(f"{name} has changed since {path} was written")
    new = len(now.keys() - then.keys())
    return lines + ([f"records not in {path}: {new}"] if new else [])

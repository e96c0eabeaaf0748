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


def _index(path: Path) -> tuple[dict[str, str], list[str]]:
    """The index read: file -> hash, and a line for each of its own that is none."""
    then, lines = {}, []
    for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
        entry = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if entry is None:
            lines.append(f"{path}: line {number} names no hash and file")
        else:
            then[entry[2]] = entry[1]
    return then, lines


def unsealed(results_dir) -> list[str]:
    """The records that the index does not name, relative to the results folder; all of them without an index."""
    path = Path(results_dir) / INDEX
    return sorted(hashes(results_dir).keys() - (_index(path)[0].keys() if path.is_file() else set()))


def broken(results_dir, profile: str | None = None) -> list[str]:
    """A line for each record of a profile, or of all, that has changed since the index was written or is gone.

    Without an index one line says so, if there are records.
    """
    path, prefix = Path(results_dir) / INDEX, f"runs/{profile}/" if profile else "runs/"
    now = {name: found for name, found in hashes(results_dir).items() if name.startswith(prefix)}
    if not path.is_file():
        return [f"{path} is not there: nothing tells whether records were changed"] if now else []
    then, lines = _index(path)
    for name in sorted(name for name in then if name.startswith(prefix)):
        if name not in now:
            lines.append(f"{name} is missing: {path} has it")
        elif now[name] != then[name]:
            lines.append(f"{name} has changed since {path} was written")
    return lines


def differences(results_dir, profile: str | None = None) -> list[str]:
    """`broken`, and one line for all records that are new since the index was written."""
    path, prefix = Path(results_dir) / INDEX, f"runs/{profile}/" if profile else "runs/"
    new = [name for name in unsealed(results_dir) if name.startswith(prefix)] if path.is_file() else []
    return broken(results_dir, profile) + ([f"records not in {path}: {len(new)}"] if new else [])

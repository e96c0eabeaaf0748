"""Run records: written whole, read back, and judged current or outdated by one rule."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

from paul.data.datasets import ReidDataset
from paul.engine.files import write_atomically
from paul.experiments.profiles import PROFILES
from paul.experiments.provenance import versions
from paul.experiments.rows import ROWS
from paul.experiments.specs import Places, Spec


def write_record(path: Path, record: dict) -> None:
    """Write a record whole or not at all."""
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_record(path: Path) -> dict | None:
    """A record, None when it is missing or not whole JSON (then it is made again)."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("metrics"), dict) else None


def read_records(results_dir, profile: str) -> list[dict]:
    """Every readable record under results_dir/runs/profile, each with its `file`; the others are named in a warning."""
    records = []
    for path in sorted((Path(results_dir) / "runs" / profile).glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except (OSError, ValueError, RecursionError) as error:
            warnings.warn(f"{path} is not a run record ({error}); left out", stacklevel=2)
            continue
        records.append({**record, "file": str(path)})
    return records


def fingerprints(spec: Spec, places: Places) -> dict[str, str]:
    """Of the source, where there is one, and the target set, as their cards state them.

    Raises:
        FileNotFoundError: a set is not there.
    """
    used = ({"source": "source"} if spec.method.needs_source else {}) | {"target": spec.target}
    return {name: ReidDataset.load(Path(places.data) / spec.at.folders[key]).fingerprint for name, key in used.items()}


def spec_of(record: dict) -> Spec | None:
    """The run that a record says it is of; None when today's code knows no such row, profile or target."""
    row, name, target, seed, weights = (record.get(key) for key in ("row", "profile", "target", "seed", "weights"))
    words = [word for word in (row, name, target, weights) if word is not None]
    if type(seed) is not int or not all(isinstance(word, str) for word in words):
        return None
    if row not in ROWS or name not in PROFILES or target not in PROFILES[name].targets:
        return None
    return Spec(row, target, seed, name, weights)


def outdated(record: dict, places: Places | None = None) -> str:
    """What of a run has changed since its record was written, "" for nothing: the only rule of staleness.

    Arithmetic (a method's `NUMERICS`), options, and the data where `places` has them. The hash of the sources and the
    versions of libraries in a record say where it comes from and make nothing outdated; see `made_with`.
    """
    spec = spec_of(record)
    if spec is None:
        return "a row, profile or target that is no more"
    if record.get("numerics") != spec.numerics:
        return "other arithmetic"
    if record.get("spec_hash") != spec.hash:
        return "other options"
    try:
        return "" if places is None or record.get("data") == fingerprints(spec, places) else "other data"
    except FileNotFoundError:  # records can be read without the data
        return ""


def made_with(records: list[dict]) -> str:
    """A note on records made with another torch (major.minor) than the one at hand, "" where there are none."""

    def minor(version: str) -> str:
        return ".".join(str(version).split(".")[:2])

    here = minor(versions()["torch"])
    others = Counter(
        minor(record["versions"]["torch"])
        for record in records
        if isinstance(record.get("versions"), dict) and "torch" in record["versions"]
    )
    others.pop(here, None)
    counted = ", ".join(f"{count} with {version}" for version, count in sorted(others.items()))
    return (
        f"of {len(records)} records some were made with another torch than the {here} at hand: {counted}"
        if others
        else ""
    )

"""Run records: written whole, read back, and judged current or outdated by one rule."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path

from paul.data.datasets import ReidDataset
from paul.data.worlds import population
from paul.engine.files import write_atomically
from paul.experiments.profiles import PROFILES, profile_in
from paul.experiments.provenance import versions
from paul.experiments.specs import Places, Spec, name_of_run
from paul.options import LARGEST_SEED, known


def write_record(path: Path, record: dict) -> None:
    """Write a record whole or not at all."""
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def numbers_of(record: dict) -> tuple[int, int, int]:
    """Source seed, adaptation seed and world of a record; one that was written before they were told apart has its
    source seed for both, and world 0.

    Raises:
        ValueError: one of them is no number.
    """
    seed = record.get("seed")
    numbers = seed, record.get("adapt_seed", seed), record.get("world", 0)
    if not all(type(number) is int and 0 <= number <= LARGEST_SEED for number in numbers):
        raise ValueError(f"seed, adapt_seed and world must be numbers from 0, got {numbers}")
    return numbers


def name_of(record: dict) -> str:
    """The file below results/runs that a record's own fields name, as `Places.record` gives it for its run.

    Raises:
        ValueError: a field of the name is missing or of another type.
    """
    row, target, profile, found = (record.get(key) for key in ("row", "target", "profile", "spec_hash"))
    seed, adapt_seed, world = numbers_of(record)
    if not all(isinstance(word, str) for word in (row, target, profile, found)):
        raise ValueError("it does not say row, target, seed, profile and spec_hash")
    return f"{population(profile, world)}/{name_of_run(row, target, seed, adapt_seed, found)}.json"


def read_record(path: Path) -> dict | None:
    """A record, None when it is missing or not whole JSON (then it is made again)."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("metrics"), dict) else None


def recorded_profiles(results_dir) -> list[str]:
    """The profiles and worlds with a folder below results_dir/runs; another folder there is named in a warning."""
    folders = sorted(path for path in (Path(results_dir) / "runs").glob("*") if path.is_dir())
    for folder in folders:
        if profile_in(folder.name) not in PROFILES:
            warnings.warn(f"{folder} is of no profile; left out", stacklevel=2)
    return [folder.name for folder in folders if profile_in(folder.name) in PROFILES]


def read_records(results_dir, profile: str) -> list[dict]:
    """Every readable record under results_dir/runs/profile, each with its `file`; the others are named in a warning.

    A world other than 0 or with knobs of its own has a folder of its own, such as mini-w3 (`paul.data.worlds`).

    A record whose file has another name than its fields give (`name_of`) is a copy, or was edited: it is left out too,
    so that no two files can hold the same run.

    Raises:
        ValueError: an unknown profile.
    """
    known("profile", profile_in(profile), PROFILES)
    records = []
    for path in sorted((Path(results_dir) / "runs" / profile).glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(record, dict):
                raise ValueError("not an object")
            if name_of(record) != f"{profile}/{path.name}":
                raise ValueError(f"by its own fields it would be {name_of(record)}")
        except (OSError, ValueError, RecursionError) as error:
            warnings.warn(f"{path} is not a run record ({error}); left out", stacklevel=2)
            continue
        records.append({**record, "file": str(path)})
    return records


@lru_cache(64)
def _fingerprint(folder: Path, state: tuple) -> str:
    """Of a set whose index and card are in that state: a report asks for the same few sets for every record."""
    return ReidDataset.load(folder).fingerprint


def _folders(spec: Spec, places: Places) -> dict[str, Path]:
    used = ({"source": "source"} if spec.method.needs_source else {}) | {"target": spec.target}
    return {name: Path(places.data).absolute() / spec.at.folders[key] for name, key in used.items()}


def _fingerprint_now(folder: Path) -> str:
    files = [folder / name for name in ("index.csv", "card.json")]
    states = [file.stat() if file.exists() else None for file in files]
    return _fingerprint(folder, tuple(found and (found.st_mtime_ns, found.st_size, found.st_ino) for found in states))


def fingerprints(spec: Spec, places: Places) -> dict[str, str]:
    """Of the source, where there is one, and the target set, as their cards state them.

    Raises:
        FileNotFoundError: a set is not there.
    """
    return {name: _fingerprint_now(folder) for name, folder in _folders(spec, places).items()}


def spec_of(record: dict) -> Spec | None:
    """The run that a record says it is of; None when today's code knows no such row, profile, target or world."""
    row, name, target, weights = (record.get(key) for key in ("row", "profile", "target", "weights"))
    words = [word for word in (row, name, target, weights) if word is not None]
    if not all(isinstance(word, str) for word in words):
        return None
    try:
        seed, adapt_seed, world = numbers_of(record)
        return Spec(row, target, seed, name, weights, adapt_seed, world)
    except ValueError:
        return None


def outdated(record: dict, places: Places | None = None) -> str:
    """What of a run has changed since its record was written, "" for nothing: the only rule of staleness.

    Arithmetic (a method's `NUMERICS`), options, and the data where `places` has them. The hash of the sources and the
    versions of libraries in a record say where it comes from and make nothing outdated; see `made_with`.
    """
    spec = spec_of(record)
    if spec is None:
        return "a row, profile, target or world that is no more"
    if record.get("numerics") != spec.numerics:
        return "other arithmetic"
    if record.get("spec_hash") != spec.hash:
        return "other options"
    stated = record.get("data") if isinstance(record.get("data"), dict) else {}
    for name, folder in _folders(spec, places).items() if places is not None else ():
        with contextlib.suppress(FileNotFoundError):  # records can be read without the data, or with one set of two
            if _fingerprint_now(folder) != stated.get(name):
                return "other data"
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

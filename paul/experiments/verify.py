"""Committed records computed anew, from the images to the scores, and held against what they say."""

from __future__ import annotations

import tempfile
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from paul.experiments.records import spec_of
from paul.experiments.runner import run_all
from paul.experiments.specs import Places

# Points of a score, on another kind of machine. Training magnifies a difference in the last bit: between two machines
# scores of the same run have moved by up to as much.
TOLERANCE = 5.0
LIBRARIES = ("torch", "torchvision", "numpy")


def kind_of_machine(record: dict) -> tuple:
    """What has to be the same for equal bits: processor and system (not how many cores), device, threads, libraries."""
    processor, _, rest = str(record.get("machine")).partition(", ")
    versions = record.get("versions") or {}
    libraries = tuple(versions.get(name) for name in LIBRARIES)
    return processor, rest.rpartition(", ")[2], record.get("device"), record.get("threads"), *libraries


def measured(record: dict) -> dict:
    """What a second computation on the same kind of machine gives again, by name: all but clocks and memory."""
    found = {f"metrics.{name}": value for name, value in record["metrics"].items()}
    found |= {name: record.get(name) for name in ("queries", "queries_left_out")}
    for curve in ("curve", "source_curve"):
        for number, line in enumerate(record.get(curve) or [], 1):
            found |= {f"{curve}.{number}.{name}": value for name, value in line.items() if name != "seconds"}
    return found


def differences(recorded: dict, computed: dict, tolerance: float = TOLERANCE) -> list[str]:
    """A line for everything of a record that a second computation did not give again.

    On the same kind of machine that is every bit; elsewhere every score within `tolerance` points, and the numbers of
    queries.
    """
    exact = kind_of_machine(recorded) == kind_of_machine(computed)
    then, now = measured(recorded), measured(computed)
    names = dict.fromkeys([*then, *now]) if exact else [name for name in then if not name.count(".") > 1]
    lines = []
    for name in names:
        a, b = then.get(name), now.get(name)
        close = not exact and name.startswith("metrics.") and None not in (a, b) and abs(a - b) <= tolerance
        if a != b and not close:
            lines.append(f"{name} is {a} in the record, {b} computed anew")
    return lines


def compute_anew(records: list[dict], places: Places = Places(), executor: Executor | None = None) -> list[dict]:
    """The same runs from scratch, source models included, in folders that are gone afterwards; in the same order."""
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        apart = replace(places, results=str(Path(folder, "results")), models=str(Path(folder, "models")))
        return run_all([spec_of(record) for record in records], executor, apart)

"""The records of all worlds of a profile together; each world has a folder of its own below results/runs.

Worlds whose people are drawn with other knobs stand beside them: a run of theirs is of the row "paul@gap2.0", so that
it can be compared with the row "paul" of the same world, and is never taken for one.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from paul.data.worlds import KNOBS, knobs_of, population, turned, world_of
from paul.experiments.records import read_records
from paul.report.tables import current_runs


def row_at(name: str) -> tuple[str, str]:
    """A row's name and its knobs as `runs_of_worlds` joins them: "paul@gap2.0" -> ("paul", "gap2.0"); "" for none.

    Raises:
        ValueError: they are no knobs, or not written as a profile's name has them.
    """
    row, at, knobs = name.partition("@")
    if at and not knobs_of(f"mini-{knobs}")[1]:
        raise ValueError(f"{name!r}: what follows @ must be turned knobs ({', '.join(KNOBS)}), as in paul@gap2.0")
    return row, knobs


def row_of(record: dict) -> str:
    """The row of a record as `runs_of_worlds` has it, the inverse of `row_at`."""
    knobs = turned("", **knobs_of(record["profile"])[1])[1:]
    return record["row"] + (f"@{knobs}" if knobs else "")


def folders_of(results_dir, profile: str) -> dict[str, str]:
    """The folders below results_dir/runs that hold worlds of a profile -> the knobs of each, "" for its own. Its world
    0 is among them whether there or not."""
    found = {population(profile): ""}
    names = [(*world_of(path.name), path.name) for path in (Path(results_dir) / "runs").glob("*")]
    for own, _, name in sorted(names):
        base, knobs = knobs_of(own)
        if own == profile or (knobs and base == profile):
            found[name] = turned("", **knobs)[1:] if own != profile else ""
    return found


def records_of_worlds(results_dir, profile: str) -> list[dict]:
    """`paul.experiments.records.read_records` of every world, whatever its knobs."""
    return [record for name in folders_of(results_dir, profile) for record in read_records(results_dir, name)]


def runs_of_worlds(results_dir, profile: str, data: str | Path | None = None) -> pd.DataFrame:
    """`paul.report.tables.current_runs` of every world; rows of worlds with other knobs are called as `row_at` has
    it."""
    frames = []
    for name, knobs in folders_of(results_dir, profile).items():
        runs = current_runs(results_dir, name, data)
        frames.append(runs.assign(row=runs["row"] + f"@{knobs}") if knobs else runs)
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)

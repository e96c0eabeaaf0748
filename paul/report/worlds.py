"""The records of all worlds of a profile together; each world has a folder of its own below results/runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from paul.data.worlds import population, world_of
from paul.experiments.records import read_records
from paul.report.tables import current_runs


def folders_of(results_dir, profile: str) -> list[str]:
    """The folders below results_dir/runs that hold worlds of a profile, by number; world 0's whether there or not."""
    names = [path.name for path in (Path(results_dir) / "runs").glob("*")]
    worlds = {world for own, world in map(world_of, names) if own == profile}
    return [population(profile, world) for world in sorted({0} | worlds)]


def records_of_worlds(results_dir, profile: str) -> list[dict]:
    """`paul.experiments.records.read_records` of every world."""
    return [record for name in folders_of(results_dir, profile) for record in read_records(results_dir, name)]


def runs_of_worlds(results_dir, profile: str, data: str | Path | None = None) -> pd.DataFrame:
    """`paul.report.tables.current_runs` of every world."""
    frames = [current_runs(results_dir, name, data) for name in folders_of(results_dir, profile)]
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)

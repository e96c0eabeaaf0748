"""Run records as one table: a line per experiment row, target and source seed."""

import json
import math
import os
import warnings
from pathlib import Path

import pandas as pd

from paul.intervals import mean_interval

METRICS = {
    "rank1": "Rank-1",
    "rank5": "Rank-5",
    "rank10": "Rank-10",
    "rank20": "Rank-20",
    "map_trapezoid": "mAP (trapezoid)",
    "map_step": "mAP (step)",
    "minp": "mINP",
}
TARGETS = {"market": "Market-1501", "duke": "DukeMTMC-reID"}
KEYS = ["row", "target", "seed"]


def target_name(target: str, profile: str) -> str:
    """The set's name where it is the real one, and what it imitates in every other profile."""
    name = TARGETS.get(target, target)
    return name if profile == "paper" else f"{name}-like"


def flatten(record: dict) -> dict:
    """One record as one line; raises KeyError, TypeError or ValueError for a record that is not whole."""
    line = {key: record[key] for key in ["row", "target", "seed", "profile", "spec_hash", "code", "queries"]}
    for key, value in line.items():
        kind = int if key in ("seed", "queries") else str
        if type(value) is not kind or (kind is int and not 0 <= value < 2**31):
            raise ValueError(f"{key} is {value!r}")
    for metric in METRICS:
        line[metric] = float(record["metrics"][metric])
        if not math.isfinite(line[metric]):
            raise ValueError(f"{metric} is {line[metric]}")
    seconds = record["seconds"]
    line["pretrain_seconds"] = float(seconds["pretrain"])
    line["run_seconds"] = float(seconds["adapt"]) + float(seconds["evaluate"])
    return line


def runs_frame(records, stale=None) -> pd.DataFrame:
    """Records as a DataFrame: KEYS, the METRICS in per cent, seconds, and `stale`, which `stale(record)` answers.

    A record that is not whole is left out with a warning. Of several records of one row, target and seed those that are
    not stale are kept; ValueError when that still leaves two, because nothing says which one is meant.
    """
    lines = []
    for record in records:
        try:
            lines.append({**flatten(record), "stale": bool(stale and stale(record))})
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            name = record.get("file", record.get("row", "?")) if isinstance(record, dict) else record
            warnings.warn(f"run record {name} is not whole ({error!r}); left out", stacklevel=2)
    columns = KEYS + ["profile", "spec_hash", "code", "queries", *METRICS, "pretrain_seconds", "run_seconds"]
    frame = pd.DataFrame(lines, columns=columns + ["stale"]).astype({"stale": bool})
    current = frame.groupby(KEYS)["stale"].transform("min")
    frame = frame[frame["stale"] == current].drop_duplicates(KEYS + ["spec_hash"])
    doubled = frame[frame.duplicated(KEYS, keep=False)]
    if len(doubled):
        row, target, seed = doubled.iloc[0][KEYS]
        hashes = ", ".join(sorted(doubled[(doubled[KEYS] == [row, target, seed]).all(axis=1)]["spec_hash"]))
        raise ValueError(
            f"row {row}, target {target}, seed {seed} was run with different options (spec hashes {hashes}): "
            "move the records that are not meant out of the results folder"
        )
    return frame.sort_values(KEYS).reset_index(drop=True)


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


def values_by_seed(runs: pd.DataFrame, row: str, target: str, metric: str) -> pd.Series:
    """One row's metric on one target, indexed by source seed."""
    chosen = runs[(runs["row"] == row) & (runs["target"] == target)]
    return chosen.set_index("seed")[metric].sort_index()


def paired_differences(runs: pd.DataFrame, a: str, b: str, target: str, metric: str) -> pd.Series:
    """Metric of row `a` minus that of row `b`, indexed by the source seeds that both have."""
    return (values_by_seed(runs, a, target, metric) - values_by_seed(runs, b, target, metric)).dropna()


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Per row and target: seeds, the mean and 95 % interval of every metric, mean seconds, and whether any is stale."""
    lines = []
    for (row, target), group in runs.groupby(["row", "target"], sort=False):
        line = {"row": row, "target": target, "n": len(group), "seeds": ",".join(map(str, sorted(group["seed"])))}
        for metric in METRICS:
            interval = mean_interval(group[metric])
            line |= {metric: interval.mean, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        line["seconds"] = group["run_seconds"].mean()
        line["pretrain_seconds"] = group["pretrain_seconds"].mean()
        line["stale"] = bool(group["stale"].any())
        lines.append(line)
    columns = ["row", "target", "n", "seeds"]
    columns += [m + end for m in METRICS for end in ("", "_low", "_high")] + ["seconds", "pretrain_seconds", "stale"]
    return pd.DataFrame(lines, columns=columns)


def write_text(path, text: str) -> None:
    """Write a whole file or none of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)

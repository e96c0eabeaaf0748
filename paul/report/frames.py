"""Run records as one table: a line per experiment row, target, world, source seed and adaptation seed."""

from __future__ import annotations

import math
import warnings

import pandas as pd

from paul.experiments.methods import METHODS
from paul.experiments.records import numbers_of
from paul.experiments.rows import ROWS
from paul.options import LARGEST_SEED
from paul.report.statistics import mean_interval

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
KEYS = ["row", "target", "seed", "adapt_seed", "world"]
TOLERANCE = 1e-9  # of sums in floating point
RANKS = ["rank1", "rank5", "rank10", "rank20"]


def metric_labels() -> dict[str, str]:
    """Every metric that a record may hold: retrieval's, and those that methods declare."""
    return METRICS | {name: label for method in METHODS.values() for name, label in method.metrics.items()}


def metrics_of(row: str) -> list[str]:
    """The metrics that a record of this row has to hold; retrieval's alone for a row that is no more."""
    return [*METRICS, *(METHODS[ROWS[row].method].metrics if row in ROWS else ())]


def target_name(target: str, profile: str) -> str:
    """The set's name where it is the real one, and what it imitates in every other profile."""
    name = TARGETS.get(target, target)
    return name if profile == "paper" else f"{name}-like"


def flatten(record: dict) -> dict:
    """One record as one line; raises KeyError, TypeError or ValueError for a record that is not whole.

    A whole record's metrics are finite, those of retrieval within [0, 100] and Rank-k no smaller for a larger k.
    """
    line = {key: record[key] for key in ["row", "target", "profile", "spec_hash", "code", "queries"]}
    for key, value in line.items():
        kind = int if key == "queries" else str
        if type(value) is not kind or (kind is int and not 0 <= value <= LARGEST_SEED):
            raise ValueError(f"{key} is {value!r}")
    line |= dict(zip(("seed", "adapt_seed", "world"), numbers_of(record)))
    for metric in metrics_of(record["row"]):
        line[metric] = float(record["metrics"][metric])
        if not math.isfinite(line[metric]):
            raise ValueError(f"{metric} is {line[metric]}")
        if metric in METRICS and not 0 <= line[metric] <= 100:
            raise ValueError(f"{metric} is {line[metric]}, no percentage")
    for lower, higher in zip(RANKS, RANKS[1:]):
        if line[lower] > line[higher] + TOLERANCE:
            raise ValueError(f"{lower} is {line[lower]} but {higher} only {line[higher]}")
    seconds = record["seconds"]
    line["pretrain_seconds"] = float(seconds["pretrain"])
    line["run_seconds"] = float(seconds["adapt"]) + float(seconds["evaluate"])
    return line


def runs_frame(records, stale=None) -> pd.DataFrame:
    """Records as a DataFrame: KEYS, the metrics (NaN where a row's method does not declare one), seconds, and `stale`,
    which `stale(record)` answers.

    A record that is not whole is left out with a warning. Of several records of one run those that are not stale are
    kept, equal ones once; ValueError when that still leaves two, because nothing says which one is meant.
    """
    lines, files = [], []
    for record in records:
        try:
            lines.append({**flatten(record), "stale": bool(stale and stale(record))})
            files.append(record.get("file", ""))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            name = record.get("file", record.get("row", "?")) if isinstance(record, dict) else record
            warnings.warn(f"run record {name} is not whole ({error!r}); left out", stacklevel=2)
    columns = KEYS + ["profile", "spec_hash", "code", "queries", *metric_labels(), "pretrain_seconds", "run_seconds"]
    frame = pd.DataFrame(lines, columns=columns + ["stale"]).astype({"stale": bool})
    current = frame.groupby(KEYS)["stale"].transform("min")
    frame = frame[frame["stale"] == current].drop_duplicates()
    doubled = frame[frame.duplicated(KEYS, keep=False)]
    if len(doubled):
        run = doubled.iloc[0][KEYS]
        both = doubled[(doubled[KEYS] == run).all(axis=1)]["spec_hash"].sort_values(kind="stable")
        names = ", ".join(f"{name} {files[place]}".strip() for place, name in both.items())
        how = "run with different options" if both.nunique() > 1 else "recorded twice, with different contents"
        raise ValueError(
            f"{', '.join(f'{key} {value}' for key, value in run.items())} was {how} (spec hashes {names}): "
            "move the records that are not meant out of the results folder"
        )
    return frame.sort_values(KEYS).reset_index(drop=True)


def by_seed(runs: pd.DataFrame, metric: str) -> pd.Series:
    """The metric of one row's runs on one target by source seed: runs from one source model are not independent and
    count as one, their mean. Where there are several worlds, by world for the same reason."""
    means = runs.groupby(["world", "seed"])[metric].mean()
    return means.droplevel("world") if runs["world"].nunique() < 2 else means.groupby("world").mean()


def values_by_seed(runs: pd.DataFrame, row: str, target: str, metric: str) -> pd.Series:
    """`by_seed` of one row and target."""
    return by_seed(runs[(runs["row"] == row) & (runs["target"] == target)], metric)


def draws(row: str) -> bool:
    """Whether a row's runs from one source model differ by an adaptation seed; of people drawn otherwise, the row's."""
    of = ROWS.get(row.partition("@")[0])
    return of is not None and METHODS[of.method].needs_source and METHODS[of.method].draws


def alike_adapted(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs of two rows that draw, without those whose adaptation seed the other lacks for the same world and source
    seed, as long as they have one in common: what chance did to both is no difference between them."""
    places, runs = ["world", "seed"], ["world", "seed", "adapt_seed"]
    common = pd.MultiIndex.from_frame(a[runs]).intersection(pd.MultiIndex.from_frame(b[runs]))
    paired = common.droplevel("adapt_seed")

    def kept(side: pd.DataFrame) -> pd.DataFrame:
        free = ~pd.MultiIndex.from_frame(side[places]).isin(paired)
        return side[free | pd.MultiIndex.from_frame(side[runs]).isin(common)]

    return kept(a), kept(b)


def paired_differences(runs: pd.DataFrame, a: str, b: str, target: str, metric: str) -> pd.Series:
    """Metric of row `a` minus that of row `b`, indexed by the source seeds that both have; where both draw, over the
    adaptation seeds that both have (`alike_adapted`)."""
    sides = tuple(runs[(runs["row"] == row) & (runs["target"] == target)] for row in (a, b))
    if draws(a) and draws(b):
        sides = alike_adapted(*sides)
    first, second = (by_seed(side, metric) for side in sides)
    return (first - second).dropna()


def numbers(column: pd.Series) -> str:
    """Seeds or worlds as the command line takes them: "0,1,2"."""
    return ",".join(map(str, sorted(set(column))))


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Per row and target: n (source seeds, or worlds: see `by_seed`), seeds, the mean and 95 % interval of every metric
    that any of them has (NaN where a row's method does not declare it), mean seconds, and whether any is stale."""
    lines = []
    for (row, target), group in runs.groupby(["row", "target"], sort=False):
        line = {"row": row, "target": target, "n": len(by_seed(group, "queries")), "seeds": numbers(group["seed"])}
        for metric in [name for name in metric_labels() if group[name].notna().all()]:
            interval = mean_interval(by_seed(group, metric))
            line |= {metric: interval.mean, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        line["seconds"] = group["run_seconds"].mean()
        line["pretrain_seconds"] = group["pretrain_seconds"].mean()
        line["stale"] = bool(group["stale"].any())
        lines.append(line)
    measured = [m for m in metric_labels() if m in METRICS or any(m in line for line in lines)]
    columns = ["row", "target", "n", "seeds", *(m + end for m in measured for end in ("", "_low", "_high"))]
    return pd.DataFrame(lines, columns=[*columns, "seconds", "pretrain_seconds", "stale"])

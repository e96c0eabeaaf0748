"""The book's ledger: paper, released code and ours side by side, with the effect that run records measure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from paul.report.frames import METRICS, TARGETS, paired_differences, target_name, values_by_seed
from paul.report.statistics import mean_interval

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

FIELDS = {"number", "item", "paper", "code", "ours", "knobs"}


def load_ledger(path) -> list[dict]:
    """The entries in order: number, item, paper, code, ours, knobs and, where one can be measured, effect.

    Raises ValueError naming the file and the entry when one is malformed or out of order.
    """
    try:
        entries = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("entry", [])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not TOML ({error})") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: holds something else than [[entry]]")
    for number, entry in enumerate(entries, 1):
        if entry.get("number") != number or set(entry) - {"effect"} != FIELDS:
            raise ValueError(f"{path}: entry {number} must have its number in order and exactly {sorted(FIELDS)}")
        effect = entry.get("effect", {"row": "", "metrics": []})
        if not isinstance(effect, dict) or set(effect) not in ({"row", "metrics"}, {"rows", "metric"}):
            raise ValueError(f"{path}: entry {number}: effect needs row and metrics, or rows and metric")
    return entries


def effect_differences(effect: dict, runs: pd.DataFrame, target: str) -> tuple[str, pd.Series]:
    """What an entry's effect compares, in words, and the difference in points by source seed."""
    if "rows" in effect:
        (a, b), metric = effect["rows"], effect["metric"]
        return f"{a} - {b}, {METRICS[metric]}", paired_differences(runs, a, b, target, metric)
    row, (a, b) = effect["row"], effect["metrics"]
    return f"{row}, {METRICS[a]} - {METRICS[b]}", values_by_seed(runs, row, target, a) - values_by_seed(
        runs, row, target, b
    )


def effect_text(effect: dict | None, runs: pd.DataFrame, profile: str) -> str:
    """The measured effect with its 95 % interval per target; empty when nothing measures it."""
    texts = []
    for target in TARGETS if effect else ():
        words, differences = effect_differences(effect, runs, target)
        if len(differences):
            value = mean_interval(differences)
            bounds = f" [{value.low:+.1f}, {value.high:+.1f}]" if value.n > 1 else ""
            texts.append(f"{target_name(target, profile)}: {value.mean:+.1f}{bounds} ({words}, n = {value.n})")
    return "; ".join(texts)


def ledger_frame(runs: pd.DataFrame, profile: str, path) -> pd.DataFrame:
    """The ledger in the file `path` as a table to show, with the effect measured by the runs of one profile."""
    lines = [
        {**entry, "knobs": ", ".join(entry["knobs"]), "effect": effect_text(entry.get("effect"), runs, profile)}
        for entry in load_ledger(path)
    ]
    return pd.DataFrame(lines).set_index("number")

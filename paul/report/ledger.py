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
        if not isinstance(effect, dict) or set(effect) not in ({"row", "metrics"}, {"pairs", "metric"}):
            raise ValueError(f"{path}: entry {number}: effect needs row and metrics, or pairs and metric")
    return entries


def effect_differences(effect: dict, runs: pd.DataFrame, target: str) -> list[tuple[str, pd.Series]]:
    """What an entry's effect compares, in words, and the differences in points by source seed, or by world."""
    if "pairs" in effect:
        metric = effect["metric"]
        return [
            (f"{a} - {b}, {METRICS[metric]}", paired_differences(runs, a, b, target, metric))
            for a, b in effect["pairs"]
        ]
    row, (a, b) = effect["row"], effect["metrics"]
    difference = values_by_seed(runs, row, target, a) - values_by_seed(runs, row, target, b)
    return [(f"{row}, {METRICS[a]} - {METRICS[b]}", difference)]


def effects(effect: dict | None, runs: pd.DataFrame, profile: str) -> pd.DataFrame:
    """The measured effects, a line per comparison and target with runs: words, target, mean, low, high (95 %), n."""
    lines = []
    for target in TARGETS if effect else ():
        for words, differences in effect_differences(effect, runs, target):
            if len(differences):
                value = mean_interval(differences)
                lines.append([words, target_name(target, profile), value.mean, value.low, value.high, value.n])
    return pd.DataFrame(lines, columns=["words", "target", "mean", "low", "high", "n"])


def effect_text(found: pd.DataFrame) -> str:
    """`effects` in words; empty when nothing measures them."""
    texts = []
    for line in found.itertuples():
        bounds = f" [{line.low:+.1f}, {line.high:+.1f}]" if line.n > 1 else ""
        texts.append(f"{line.target}: {line.mean:+.1f}{bounds} ({line.words}, n = {line.n})")
    return "; ".join(texts)


def ledger_frame(runs: pd.DataFrame, profile: str, path) -> pd.DataFrame:
    """The ledger in the file `path` as a table to show, with the effects measured by the runs of one profile, and in
    `largest` the size of the largest of an entry's, in points, NaN where none was measured."""
    lines = []
    for entry in load_ledger(path):
        found = effects(entry.get("effect"), runs, profile)
        own = {"knobs": ", ".join(entry["knobs"]), "effect": effect_text(found), "largest": found["mean"].abs().max()}
        lines.append({**entry, **own})
    return pd.DataFrame(lines).set_index("number")

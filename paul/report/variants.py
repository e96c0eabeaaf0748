"""Variants of a row beside it: what changing one option does, paired by source seed or by world."""

from __future__ import annotations

import pandas as pd

from paul.experiments.rows import ROWS, STUDIES
from paul.report.frames import METRICS, paired_differences, target_name, values_by_seed
from paul.report.published import PRINTED
from paul.report.statistics import mean_interval


def variants_table(study: str, runs: pd.DataFrame) -> pd.DataFrame:
    """A line for every variant of the study and every target that both it and its row ran on.

    Columns: row, label, of, target, n (source seeds, or worlds); for Rank-1 and mAP the variant's mean, and the
    difference to its row with its 95 % interval (<metric>_change, _low, _high), in points; stale.
    """
    lines = []
    for row in STUDIES[study].lines:
        for target in dict.fromkeys(runs["target"]):
            line = {"row": row, "label": ROWS[row].label, "of": ROWS[row].of, "target": target}
            for metric in PRINTED:
                differences = paired_differences(runs, row, ROWS[row].of, target, metric)
                if differences.empty:
                    continue
                change = mean_interval(differences)
                line |= {"n": change.n, metric: values_by_seed(runs, row, target, metric).mean()}
                line |= {f"{metric}_change": change.mean, f"{metric}_low": change.low, f"{metric}_high": change.high}
            used = runs["row"].isin([row, ROWS[row].of]) & (runs["target"] == target)
            if "n" in line:
                lines.append({**line, "stale": bool(runs["stale"][used].any())})
    columns = ["row", "label", "of", "target", "n"]
    columns += [metric + end for metric in PRINTED for end in ("", "_change", "_low", "_high")]
    return pd.DataFrame(lines, columns=[*columns, "stale"])


def readable_variants(frame: pd.DataFrame, profile: str) -> pd.DataFrame:
    """`variants_table` as text to read."""
    shown = pd.DataFrame({"row": frame["label"], "target": [target_name(name, profile) for name in frame["target"]]})
    for metric in PRINTED:
        shown[METRICS[metric]] = frame[metric].map("{:.1f}".format)
        ends = zip(*(frame[f"{metric}_{end}"] for end in ("change", "low", "high")))
        shown[f"{METRICS[metric].split()[0]}, change"] = [
            f"{mean:+.1f}" + ("" if pd.isna(low) else f" [{low:+.1f}, {high:+.1f}]") for mean, low, high in ends
        ]
    shown["n"] = frame["n"].astype("string")
    if frame["stale"].any():
        shown["outdated"] = frame["stale"].map({True: "yes", False: ""})
    return shown

"""Where a contrast's variance comes from: world, source seed, adaptation seed, and whatever is nested in those."""

from __future__ import annotations

import math

import pandas as pd

from paul.report.contrasts import PRIMARY, Contrast
from paul.report.statistics import variance_components

LEVELS = ("world", "seed", "adapt_seed")


def _side(runs: pd.DataFrame, row: str, contrast: Contrast, levels: list[str]) -> pd.Series:
    chosen = runs[(runs["row"] == row) & runs["target"].isin(contrast.targets)]
    values = chosen.groupby([*levels, "target"])[PRIMARY].mean().unstack("target")
    return values.reindex(columns=list(contrast.targets)).mean(axis=1, skipna=False).dropna()


def split_variance(runs: pd.DataFrame, contrast: Contrast, levels: tuple[str, ...] = LEVELS) -> dict[str, float]:
    """The variance, in squared points, that each level adds to a contrast; `levels` are columns, the outermost first.

    Within a world and source seed, a row that has one run alone (direct transfer draws nothing after the source stage)
    is set against every run of the other. For the last bits, runs that repeat an adaptation with the last bit perturbed
    make a fourth level.

    Raises:
        ValueError: the runs are no balanced nested design of two entries at least a level.
    """
    names = list(levels)
    a, b = (_side(runs, row, contrast, names) for row in (contrast.a, contrast.b))
    index = max(a.index, b.index, key=len)

    def spread_out(side: pd.Series) -> pd.Series:
        if not side.index.droplevel(names[2:]).is_unique or len(names) < 3:
            return side.reindex(index)
        return pd.Series(side.droplevel(names[2:]).reindex(index.droplevel(names[2:])).to_numpy(), index)

    values = (spread_out(a) - spread_out(b)).sort_index()
    counts = [values.groupby(level=names[: depth + 1]).size() for depth in range(len(names))]
    sizes = [len(counts[0])] + [len(inner) // max(len(one), 1) for one, inner in zip(counts, counts[1:])]
    if math.prod(sizes) != len(values) or any(one.nunique() > 1 for one in counts):
        raise ValueError(f"{contrast.name}: its runs are no balanced design of {', '.join(names)}")
    return dict(zip(names, variance_components(values.to_numpy().reshape(sizes))))

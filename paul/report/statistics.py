"""Intervals for the mean of a few runs, and the likeness of two rankings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """Mean of `n` values and its two-sided confidence interval; `low` and `high` are NaN below two values."""

    n: int
    mean: float
    low: float
    high: float


def mean_interval(values, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of `values` [n] (one per source seed), taken as independent and normal.

    Raises:
        ValueError: no value, or one that is not finite; a level outside (0, 1).
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite values, got {values.tolist()}")
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level}")
    n, mean = values.size, float(values.mean())
    if n < 2:
        return Interval(n, mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(n, mean, mean - half, mean + half)


def kendall_tau(a, b) -> float:
    """Kendall's tau-b between two rankings a, b [n]: 1 same order, -1 reversed; NaN when either is constant."""
    if len(a) < 2:
        return math.nan
    return float(stats.kendalltau(np.asarray(a, dtype=float), np.asarray(b, dtype=float)).statistic)

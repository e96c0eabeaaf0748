"""Intervals and tests for the mean of a few runs, parts of its variance, and the likeness of two rankings.

With `bounds` an interval or a test is Student's t on the logit of where a value lies between them, so that it can't
leave them: for levels (0, 100), for differences of two levels (-100, 100), whose logit is 2 atanh(difference / 100).
Narrow spreads far from the bounds give plain t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

LEVELS, DIFFERENCES = (0.0, 100.0), (-100.0, 100.0)
EDGE = 0.05  # points: a value nearer to a bound counts as one this far from it, where the logit is still finite


@dataclass(frozen=True)
class Interval:
    """Mean of `n` values and its two-sided confidence interval; `low` and `high` are NaN below two values."""

    n: int
    mean: float
    low: float
    high: float


def to_line(values, bounds: tuple[float, float]) -> np.ndarray:
    """The logit of where values [n] lie between the bounds; increasing, and finite at the bounds, too (`EDGE`)."""
    low, high = bounds
    return special.logit((np.clip(np.asarray(values, dtype=float), low + EDGE, high - EDGE) - low) / (high - low))


def from_line(places, bounds: tuple[float, float]) -> np.ndarray:
    """The inverse of `to_line`."""
    low, high = bounds
    return low + (high - low) * special.expit(places)


def _finite(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite values, got {values.tolist()}")
    return values


def mean_interval(values, level: float = 0.95, bounds: tuple[float, float] | None = None) -> Interval:
    """Student's t interval of the mean of `values` [n] (one per seed or world), taken as independent and normal.

    With `bounds` all of it, the mean included, is computed on the logit's line and read back.

    Raises:
        ValueError: no value, or one that is not finite; a level outside (0, 1).
    """
    values = _finite(values)
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level}")
    if bounds is not None:
        found = mean_interval(to_line(values, bounds), level)
        return Interval(found.n, *(float(from_line(end, bounds)) for end in (found.mean, found.low, found.high)))
    n, mean = values.size, float(values.mean())
    if n < 2:
        return Interval(n, mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(n, mean, mean - half, mean + half)


def p_above(values, bound: float, bounds: tuple[float, float] = DIFFERENCES) -> float:
    """One-sided t test that the mean of `values` [n] lies above `bound`: the p-value of the opposite.

    Below alpha exactly when the `mean_interval` of level 1 - 2 alpha lies above `bound`.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    beyond = to_line(_finite(values), bounds) - to_line(bound, bounds)
    if beyond.size < 2:
        raise ValueError("a t test needs two values at least")
    spread = float(beyond.std(ddof=1))
    if spread == 0:
        return 0.0 if beyond[0] > 0 else 1.0
    return float(special.stdtr(beyond.size - 1, -float(beyond.mean()) * math.sqrt(beyond.size) / spread))


def p_below(values, bound: float, bounds: tuple[float, float] = DIFFERENCES) -> float:
    """The same for a mean below `bound`."""
    return p_above(sum(bounds) - np.asarray(values, dtype=float), sum(bounds) - bound, bounds)


def intersection_union(p_values) -> float:
    """The p-value for "all of these hold": the largest; it needs no correction (Berger 1982).

    Raises:
        ValueError: none is given.
    """
    return max(p_values)


def equivalence(values, margin: float) -> float:
    """Two one-sided tests (Schuirmann 1987) that the mean difference lies within (-margin, margin): the p-value."""
    return intersection_union([p_above(values, -margin), p_below(values, margin)])


def holm(p_values) -> np.ndarray:
    """Holm's adjusted p-values [m]: those below alpha are rejected with at most alpha chance of any false one."""
    p_values = np.asarray(p_values, dtype=float)
    order = p_values.argsort(kind="stable")
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(p_values.size, 0, -1)), 1)
    return adjusted


def variance_components(values) -> list[float]:
    """Variances that the levels of a balanced nested design add, from the outermost level to the innermost.

    `values` has one axis a level, such as [world, source seed, adaptation seed, rerun]. Analysis of variance: siblings'
    means vary by their own level and by what is left of the inner ones. Unbiased: one near zero may be negative.

    Raises:
        ValueError: a level has fewer than two entries, or a value is missing.
    """
    values = _finite(values)
    if values.ndim == 0 or min(values.shape) < 2:
        raise ValueError(f"every level needs two entries at least, got {' x '.join(map(str, values.shape)) or 'none'}")
    found, inner = [], 0.0
    while values.ndim:
        variance = float(values.var(axis=-1, ddof=1).mean())
        found.insert(0, variance - inner)
        inner, values = variance / values.shape[-1], values.mean(axis=-1)
    return found


def kendall_tau(a, b) -> float:
    """Kendall's tau-b between two rankings a, b [n]: 1 same order, -1 reversed; NaN when either is constant."""
    if len(a) < 2:
        return math.nan
    return float(stats.kendalltau(np.asarray(a, dtype=float), np.asarray(b, dtype=float)).statistic)

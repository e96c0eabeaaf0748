"""Student-t intervals for the mean of a few runs, without a statistics library."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """Mean of `n` values and its two-sided confidence interval; `low` and `high` are NaN below two values."""

    n: int
    mean: float
    low: float
    high: float


def student_t_mass(theta: float, df: int) -> float:
    """Probability that |T| < sqrt(df) tan(theta) for Student's t: the finite series for a whole number of degrees.

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    sin, cos = math.sin(theta), math.cos(theta)
    odd = df % 2
    term, series = (cos, 0.0) if odd else (1.0, 0.0)
    for power in range(1 + odd, df, 2):
        series += term
        term *= cos * cos * power / (power + 1)
    return 2 / math.pi * (theta + sin * series) if odd else sin * series


def student_t_quantile(level: float, df: int) -> float:
    """The t with P(|T| < t) = `level`, by bisection over the angle atan(t / sqrt(df)).

    Raises ValueError unless 0 < level < 1 and df is a whole number >= 1.
    """
    if not 0 < level < 1 or df < 1 or df != int(df):
        raise ValueError(f"need 0 < level < 1 and a whole number of degrees of freedom >= 1, got {level} and {df}")
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        if student_t_mass(middle, int(df)) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(df) * math.tan(low)


def mean_interval(values, level: float = 0.95) -> Interval:
    """Interval of the mean of `values` [n] (one per source seed), taken as independent and normal.

    Raises ValueError when there is no value or one is not finite.
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite values, got {values.tolist()}")
    n, mean = values.size, float(values.mean())
    if n < 2:
        return Interval(n, mean, math.nan, math.nan)
    half = student_t_quantile(level, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(n, mean, mean - half, mean + half)

"""How many worlds a test needs: the power of one-sided and equivalence t tests, planned before any of them is run."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats


def power(effect: float, spread: float, n: int, alpha: float) -> float:
    """Chance that a one-sided t test at `alpha` finds a true `effect` in n worlds whose values have standard deviation
    `spread`, both in points: the noncentral t distribution.

    Raises:
        ValueError: fewer than two worlds, or a spread that is not positive.
    """
    _check(spread, n)
    found = float(stats.nct.sf(stats.t.ppf(1 - alpha, n - 1), n - 1, effect / spread * math.sqrt(n)))
    return 1.0 if math.isnan(found) and effect > 0 else found  # scipy's series gives up where all of the mass is beyond


def equivalence_power(margin: float, spread: float, n: int, alpha: float) -> float:
    """Chance that two one-sided tests at `alpha` place a true difference of zero within (-margin, margin).

    Mean and standard deviation are independent: the mean's chance, averaged over quantiles of the deviation.

    Raises:
        ValueError: as `power`.
    """
    _check(spread, n)
    quantiles = (np.arange(2000) + 0.5) / 2000
    deviations = spread * np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))
    room = (margin - stats.t.ppf(1 - alpha, n - 1) * deviations / math.sqrt(n)).clip(min=0)
    return float((2 * stats.norm.cdf(room * math.sqrt(n) / spread) - 1).mean())


def smallest_n(power_of: Callable[[int], float], wanted: float = 0.8, most: int = 1000) -> int | None:
    """The smallest n >= 2 with power_of(n) >= wanted; None when `most` are not enough."""
    return next((n for n in range(2, most + 1) if power_of(n) >= wanted), None)


def detectable(power_of: Callable[[float], float], spread: float, wanted: float = 0.8) -> float:
    """The effect (or margin) in points at which power_of(effect) reaches `wanted`; power grows with it."""
    return float(optimize.brentq(lambda effect: power_of(effect) - wanted, 0, 1000 * spread, xtol=1e-6))


def cautious_spread(spread: float, n: int, level: float = 0.8) -> float:
    """The upper limit of a standard deviation that was estimated from n values (Browne 1995: plan with it)."""
    _check(spread, n)
    return spread * math.sqrt((n - 1) / float(stats.chi2.ppf(1 - level, n - 1)))


def _check(spread: float, n: int) -> None:
    if n < 2 or not spread > 0:
        raise ValueError(f"power needs two worlds and a spread above zero, got {n} and {spread}")

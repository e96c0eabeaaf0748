"""Statistics against plain t, loops, closed forms and small simulations whose draws are fixed."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paul.report.power import cautious_spread, equivalence_power, power, smallest_n
from paul.report.statistics import (
    DIFFERENCES,
    LEVELS,
    equivalence,
    from_line,
    holm,
    intersection_union,
    mean_interval,
    p_above,
    p_below,
    to_line,
    variance_components,
)

SCALES = pytest.mark.parametrize("bounds", [LEVELS, DIFFERENCES])
differences = st.lists(st.floats(-99, 99), min_size=2, max_size=9)


def test_the_line_of_differences_is_twice_atanh():
    assert to_line([-80.0, 0.0, 3.0], DIFFERENCES) == pytest.approx([2 * math.atanh(d / 100) for d in (-80, 0, 3)])


@SCALES
@given(shares=st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_an_interval_stays_within_its_bounds_and_holds_its_mean(bounds, shares):
    low, high = bounds
    found = mean_interval([low + (high - low) * share for share in shares], bounds=bounds)
    assert low <= found.low <= found.mean <= found.high <= high


@SCALES
@given(where=st.floats(0.05, 0.95), spread=st.lists(st.floats(-1, 1), min_size=3, max_size=9))
def test_narrow_spreads_give_plain_t(bounds, where, spread):
    low, high = bounds
    values = low + (high - low) * where + 1e-3 * np.array(spread)
    ours, plain = mean_interval(values, bounds=bounds), mean_interval(values)
    assert (ours.mean, ours.low, ours.high) == pytest.approx((plain.mean, plain.low, plain.high), abs=1e-4)


@SCALES
@given(a=st.floats(0.01, 0.99), b=st.floats(0.01, 0.99))
def test_the_line_keeps_order_and_leads_back(bounds, a, b):
    low, high = bounds
    a, b = (low + (high - low) * share for share in (a, b))
    there = to_line([a, b], bounds)
    assert (there[0] < there[1]) == (a < b) or math.isclose(a, b)
    assert from_line(there, bounds) == pytest.approx([a, b])


@given(differences, st.floats(0, 5))
def test_more_of_everything_moves_an_interval_up(values, step):
    before, after = (mean_interval(shifted, bounds=(-200, 200)) for shifted in (values, np.array(values) + step))
    assert after.mean >= before.mean - 1e-9


@given(differences, st.floats(-50, 50))
def test_a_test_rejects_where_the_interval_leaves_the_bound_out(values, bound):
    found = mean_interval(values, bounds=DIFFERENCES)
    above, below = p_above(values, bound), p_below(values, bound)
    if above not in (0.0, 1.0) and min(abs(found.low - bound), abs(found.high - bound)) > 1e-9:
        assert above + below == pytest.approx(1)
        assert (above < 0.025) == (found.low > bound) and (below < 0.025) == (found.high < bound)


def test_one_sided_tests_are_scipys_where_the_scale_is_straight():
    values = np.array([0.011, 0.004, -0.002, 0.007])
    assert p_above(values, 0.001) == pytest.approx(stats.ttest_1samp(values, 0.001, alternative="greater").pvalue, 1e-3)
    assert p_below(values, 0.01) == pytest.approx(stats.ttest_1samp(values, 0.01, alternative="less").pvalue, 1e-3)
    assert (p_above([2.0, 2.0], 1), p_above([2.0, 2.0], 2), p_below([2.0, 2.0], 3)) == (0, 1, 0)
    for bad in ([1.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="two values|finite"):
            p_above(bad, 0)


def test_holm_against_its_definition_step_by_step():
    """Sorted p-values against alpha / m, alpha / (m - 1), ... until the first that is not below."""
    rng = np.random.default_rng(0)
    for alpha in (0.01, 0.05, 0.3):
        values = rng.random(7) ** 4
        rejected, left = set(), sorted(range(7), key=lambda i: values[i])
        while left and values[left[0]] * len(left) < alpha:
            rejected.add(left.pop(0))
        assert {i for i, p in enumerate(holm(values)) if p < alpha} == rejected
    assert holm([]).tolist() == [] and holm([0.9, 0.8]).tolist() == [1, 1]


def draws(mean, spread, n, count=2000):
    return np.random.default_rng(5).normal(mean, spread, (count, n))


def share(outcomes):
    return np.mean(list(outcomes))


def test_coverage_of_a_level_near_its_bound():
    """Values whose logit is normal around 96 of 100: the interval holds the centre 95 times in 100."""
    centre, samples = 3.2, draws(3.2, 0.9, 4)
    found = [mean_interval(from_line(row, LEVELS), bounds=LEVELS) for row in samples]
    truth = float(from_line(centre, LEVELS))
    assert 0.93 < share(interval.low <= truth <= interval.high for interval in found) < 0.97
    assert share(mean_interval(from_line(row, LEVELS)).high > 100 for row in samples) > 0.2


def test_rates_of_false_verdicts():
    none = draws(0.0, 2.0, 8)
    assert 0.015 < share(p_above(row, 0) < 0.025 for row in none) < 0.035
    at_margin = draws(4.0, 2.0, 8)
    assert share(equivalence(row, 4.0) < 0.025 for row in at_margin) < 0.035
    one_of_two = zip(none, draws(5.0, 2.0, 8))  # one contrast holds, the other doesn't: "both" must not be found
    assert share(intersection_union([p_above(a, 0), p_above(b, 0)]) < 0.025 for a, b in one_of_two) < 0.035
    families = np.random.default_rng(6).normal(0, 2, (300, 17, 8))
    assert share(min(holm([p_below(row, 0) for row in family])) < 0.025 for family in families) < 0.045


def test_power_is_the_share_of_simulated_tests_that_find_the_effect():
    for effect, spread, n in ((1.0, 2.0, 8), (2.0, 2.0, 8)):
        found = share(p_above(row, 0) < 0.025 for row in draws(effect, spread, n))
        assert power(effect, spread, n, 0.025) == pytest.approx(found, abs=0.04)
    found = share(equivalence(row, 2.5) < 0.025 for row in draws(0.0, 2.0, 8))
    assert equivalence_power(2.5, 2.0, 8, 0.025) == pytest.approx(found, abs=0.04)
    assert power(0.0, 2.0, 8, 0.025) == pytest.approx(0.025) and power(90.0, 0.01, 500, 0.025) == 1


def test_the_smallest_n_is_the_first_that_reaches():
    n = smallest_n(lambda n: power(1.0, 1.5, n, 0.025))
    assert power(1.0, 1.5, n, 0.025) >= 0.8 > power(1.0, 1.5, n - 1, 0.025)
    assert smallest_n(lambda n: 0.0) is None
    for bad in ((1.0, 0.0, 8, 0.025), (1.0, 1.0, 1, 0.025)):
        with pytest.raises(ValueError, match="two worlds and a spread"):
            power(*bad)


def test_a_cautious_spread_is_rarely_too_small():
    limits = [cautious_spread(row.std(ddof=1), 3) for row in draws(0.0, 2.0, 3)]
    assert 0.77 < share(limit > 2.0 for limit in limits) < 0.83


def components_by_sums(values):
    """Sums of squares by loops over the cells, then the expected mean squares solved level by level."""
    shape = values.shape
    mean_squares = []
    for depth in range(len(shape)):
        squares = 0.0
        for cell in itertools.product(*map(range, shape)):
            squares += (values[cell[: depth + 1]].mean() - values[cell[:depth]].mean()) ** 2
        mean_squares.append(squares / (math.prod(shape[:depth]) * (shape[depth] - 1)))
    inner = mean_squares[1:] + [0.0]
    below = [math.prod(shape[depth + 1 :]) for depth in range(len(shape))]
    return [(own - other) / size for own, other, size in zip(mean_squares, inner, below)]


@pytest.mark.parametrize("shape", [(5,), (3, 2), (3, 2, 2, 2), (2, 3, 4)])
def test_variance_components_by_hand(shape):
    values = np.random.default_rng(1).normal(size=shape)
    assert variance_components(values) == pytest.approx(components_by_sums(values))


def test_variance_components_of_simulated_runs():
    """World, source seed, adaptation seed and rerun with the spreads 3, 2, 1 and 1/2."""
    rng, shape, spreads = np.random.default_rng(2), (300, 4, 3, 2), (3.0, 2.0, 1.0, 0.5)
    values = np.zeros(shape)
    for depth, spread in enumerate(spreads, 1):
        values += rng.normal(0, spread, shape[:depth]).reshape(shape[:depth] + (1,) * (4 - depth))
    assert variance_components(values) == pytest.approx([9, 4, 1, 0.25], rel=0.2)


def test_a_design_with_gaps_is_refused():
    for bad in (np.ones((3, 1)), np.array([[1.0, math.nan], [2.0, 3.0]]), 1.0):
        with pytest.raises(ValueError, match="two entries|finite"):
            variance_components(bad)

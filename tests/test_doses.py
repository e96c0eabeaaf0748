"""What adapting adds under each condition, against sums done by hand."""

import numpy as np
import pandas as pd
import pytest

from paul.experiments.methods import PURITY
from paul.experiments.rows import CONDITIONS, TRAINED, WHEN
from paul.report.doses import START, dose_response, doses, rank_correlations
from paul.report.statistics import mean_interval


def frame(*lines):
    """Runs of (row, score) or (row, score, purity), with world, seed, target and adapt_seed where they are not 0."""
    made = []
    for row, score, *rest in lines:
        purity, place = (rest[0] if rest else np.nan), rest[1] if len(rest) > 1 else {}
        line = {"row": row, "map_trapezoid": score, **dict.fromkeys(PURITY, purity)}
        made.append({**line, "world": 0, "seed": 0, "adapt_seed": 0, "target": "market", **place})
    return pd.DataFrame(made)


def test_every_row_of_a_condition_is_found_by_its_start():
    runs = frame(*((row, 50.0, 10.0) for row in WHEN), *((row, 52.0) for row in TRAINED), ("image_lc", 1.0))
    found = doses(runs)
    names = {f"{what}_x{dose:.2g}" for what, dose in zip(found["what"], found["dose"]) if what}
    assert names == set(CONDITIONS) and len(found) == len(CONDITIONS) + 1
    assert found.loc[found["what"] == "", list(TRAINED)].to_numpy().tolist() == [[2.0] * 3]
    assert found.loc[found["what"] != "", list(TRAINED)].to_numpy().tolist() == [[0.0] * 3] * len(CONDITIONS)


def test_people_drawn_otherwise_are_a_condition_and_several_adaptations_their_mean():
    runs = frame(
        (f"{START}@gap4.0", 40.0, 20.0),
        ("paul@gap4.0", 43.0),
        ("paul@gap4.0", 45.0, np.nan, {"adapt_seed": 1}),
        (f"{START}@size64x32", 9.0, 9.0),
        (f"{START}@shared0.0-alike0.3", 9.0, 9.0),
    )
    (line,) = doses(runs).to_dict("records")
    assert (line["what"], line["dose"], line["start"], line["patch_purity"]) == ("gap", 4.0, 40.0, 20.0)
    assert line["paul"] == 4.0 and np.isnan(line["patch_lc"])
    assert doses(frame(("paul", 1.0), (f"{START}_x", 1.0, 1.0), (f"{START}_people_x9", 1.0, 1.0))).empty


def test_longer_training_starts_from_the_same_neighbourhoods():
    runs = frame((START, 40.0, 20.0), (START, 41.0, 21.0, {"seed": 1}), ("patch_lv_long", 47.0))
    usual, other, longer = doses(runs).to_dict("records")
    assert (longer["what"], longer["dose"], longer["seed"], longer["patch_lv"]) == ("epochs", 4.0, 0, 7.0)
    assert np.isnan([longer["paul"], usual["patch_lv"], other["patch_lv"]]).all()


def test_a_response_is_paired_and_counts_worlds_once():
    lines = []
    for world, seed, base, half in ((0, 0, 3.0, 1.0), (0, 1, 5.0, 3.0), (4, 0, 8.0, -2.0), (5, 0, 100.0, None)):
        place = {"world": world, "seed": seed}
        lines += [(START, 50.0, 30.0, place), ("paul", 50.0 + base, np.nan, place)]
        if half is not None:
            lines += [(f"{START}_people_x0.5", 40.0, 20.0, place), ("paul_people_x0.5", 40.0 + half, np.nan, place)]
    found = dose_response(doses(frame(*lines)), "people").set_index(["dose", "row"])
    for dose, values in ((1.0, [4.0, 8.0]), (0.5, [2.0, -2.0])):  # of world 0 the mean; world 5 never ran the condition
        line, expected = found.loc[(dose, "paul")], mean_interval(values)
        assert (line["mean"], line["low"], line["n"]) == pytest.approx((expected.mean, expected.low, 2))
    assert dose_response(doses(frame(*lines)), "images").empty


def test_rank_correlation_is_over_conditions_within_a_world():
    rows = [START, *(f"{START}_{name}" for name in CONDITIONS)]
    lines = []
    for world, sign in ((0, 1), (1, -1)):
        for number, row in enumerate(rows):
            place = {"world": world}
            lines += [(row, 50.0, float(number**2), place)]
            lines += [(row.replace(START, "paul"), 50.0 + sign * number + 1000 * world, np.nan, place)]
    found = rank_correlations(doses(frame(*lines)), "patch_purity", "paul")
    assert found.to_dict() == pytest.approx({(0, 0): 1.0, (1, 0): -1.0})
    assert rank_correlations(doses(frame(*lines[:6])), "patch_purity", "paul").empty

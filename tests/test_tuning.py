"""One search budget for every arm, on validation people alone; the profile holds what a search chose."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from paul.experiments import tuning
from paul.experiments.methods import METHODS
from paul.experiments.profiles import PROFILES
from paul.experiments.rows import PARTS, ROWS
from paul.experiments.specs import Places, Spec
from paul.experiments.tuning import LIMITS, MOST, SEARCH, SEED, TRIALS, Trial, arm_of, beyond, design, lines, on_edge

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "results/search/mini.json"


def test_every_arm_that_trains_is_searched_with_as_many_trials():
    networks = {row.source_arm for row in ROWS.values() if METHODS[row.method].needs_source}
    trained = {f"target/{name}" for name, row in ROWS.items() if METHODS[row.method].trains and not row.of}
    assert {arm_of(row) for row in SEARCH} == networks | trained and len(SEARCH) == len(networks | trained)
    for row, space in SEARCH.items():
        points = design(arm_of(row), space)
        assert len({tuple(point.items()) for point in points}) == len(points) == TRIALS
        assert points == design(arm_of(row), space)
        for name, values in space.items():  # each as often as any other
            assert Counter(point[name] for point in points) == dict.fromkeys(values, TRIALS // len(values)), (row, name)
            assert list(values) == sorted(values) and name.partition(".")[0] in PARTS
            part = Trial(row, "market", SEED, "mini", changes=((name, values[0]),))
            options = part.pretrain if name.startswith("pretrain.") else part.options
            assert getattr(options, name.partition(".")[2]) == values[0]
    with pytest.raises(ValueError, match="some arm: 6 trials need as many points, and its values make 4"):
        design("some arm", {"adapt.lr": (1.0, 2.0), "adapt.s": (1.0, 2.0)})


def test_a_step_goes_beyond_the_edge_by_the_last_ratio_and_ends_between_two_values_or_at_a_limit():
    tried = [{"adapt.s": s, "adapt.lr": lr} for s, lr in ((1.0, 0.1), (2.0, 0.4), (4.0, 0.2))]
    assert on_edge(tried, tried[1]) == ["adapt.lr"] and beyond(tried, tried[1]) == {"adapt.s": 2.0, "adapt.lr": 0.8}
    assert on_edge(tried, tried[0]) == ["adapt.s", "adapt.lr"]  # one after the other
    assert beyond(tried, tried[0]) == {"adapt.s": 0.5, "adapt.lr": 0.1}
    between = {"adapt.s": 2.0, "adapt.lr": 0.2}
    assert on_edge(tried, between) == [] and beyond(tried, between) is None
    clusters = [{"adapt.clusters": 70}, {"adapt.clusters": 280}]
    assert beyond(clusters, clusters[1]) == {"adapt.clusters": 1100}
    shares = [{"adapt.reliability": 0.5}, {"adapt.reliability": 0.9}]
    last = LIMITS["adapt.reliability"][1]
    assert beyond(shares, shares[1]) == {"adapt.reliability": last}
    assert beyond([*shares, {"adapt.reliability": last}], {"adapt.reliability": last}) is None


@pytest.mark.parametrize("best", [0.06, 0.2, 5.0, 40.0])
def test_a_search_leaves_every_edge_with_trials_of_its_own(monkeypatch, tmp_path, best):
    """Scores are a parabola of the log rate; training and data are left out."""

    started = set()

    def score(spec, places):
        if spec.row == "image_lc":
            started.add(spec.pretrain.peak_rate)
        rate = spec.pretrain.peak_rate if spec.row == "image_direct" else spec.options.s
        return {"map_step": 50 - math.log(rate / best) ** 2 + (spec.target == "duke")}

    monkeypatch.setattr(tuning, "score", score)
    monkeypatch.setattr(tuning, "_trained", lambda spec, places: None)
    monkeypatch.setattr(tuning, "fingerprints", lambda spec, places: {"target": spec.target})
    rate, scale = SEARCH["image_direct"], {"adapt.s": (0.5, 1.0, 2.0)}
    search = {"image_direct": rate, "image_lc": scale}
    found = tuning.tune("mini", Places(results=str(tmp_path)), workers=1, search=search, trials=3)
    assert json.loads((tmp_path / "search/mini.json").read_text(encoding="utf-8")) == found
    assert started == set(found["arms"]["source/image"]["chosen"].values())
    for arm in ("source/image", "target/image_lc"):
        trials = [trial["values"] for trial in found["arms"][arm]["trials"]]
        values = [value for trial in trials for value in trial.values()]
        assert len(values) == len(set(values)) and 3 <= len(values) <= MOST
        chosen = found["arms"][arm]["chosen"]
        (value,) = chosen.values()
        assert value == min(values, key=lambda one: abs(math.log(one / best)))
        assert found["arms"][arm]["on_edge"] == [] and min(values) < value < max(values)
        assert [trial["score"] for trial in found["arms"][arm]["trials"]] == pytest.approx(
            [50.5 - math.log(one / best) ** 2 for one in values]
        )


def test_what_a_search_chose_reaches_the_rows_of_its_arm_and_no_others(monkeypatch):
    monkeypatch.setitem(PROFILES, "mini", replace(PROFILES["mini"], tuned={}))
    before = {name: Spec(name, "market", 0, "mini") for name in ROWS}
    hashes = {name: spec.hash for name, spec in before.items()}
    chosen = {"source/image": {"pretrain.peak_rate": 0.77}, "target/image_lc": {"adapt.s": 77.0}}
    monkeypatch.setitem(PROFILES, "mini", replace(PROFILES["mini"], tuned=chosen))
    for name, spec in before.items():
        assert (spec.hash != hashes[name]) is (ROWS[name].source_arm == "source/image" and spec.method.needs_source)
    assert before["pul"].pretrain.peak_rate == 0.77 and before["paul"].pretrain.peak_rate != 0.77
    assert before["image_lc"].options.s == 77.0 and before["image_pull"].options.s != 77.0


def test_the_profile_holds_the_choice():
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    assert {arm: of["chosen"] for arm, of in found["arms"].items()} == PROFILES["mini"].tuned
    assert [line["on the edge"] for line in lines(found)] == ["-"] * len(SEARCH)
    assert found["seed"] == SEED
    for arm, of in found["arms"].items():  # as drawn, and then one step at a time
        points = [trial["values"] for trial in of["trials"]]
        assert points[:TRIALS] == design(arm, SEARCH[of["row"]]) and len(points) <= MOST
        for place in range(TRIALS, len(points)):
            best = max(of["trials"][:place], key=lambda trial: trial["score"])["values"]
            assert points[place] == beyond(points[:place], best)


def test_no_reported_run_starts_from_the_seed_of_the_search():
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "results/runs/mini").glob("*.json")]
    assert found and SEED not in {record["seed"] for record in found}

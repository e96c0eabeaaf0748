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
from paul.experiments.tuning import LIMITS, MOST, SEARCH, SEED, TRIALS, Arm, Trial, beyond, design, lines, on_edge

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "results/search/mini.json"


def test_every_arm_that_trains_is_searched_with_as_many_trials():
    networks = {row.source_arm for row in ROWS.values() if METHODS[row.method].needs_source}
    trained = {f"target/{name}" for name, row in ROWS.items() if METHODS[row.method].trains and not row.of}
    assert set(SEARCH) == networks | trained
    for arm, of in SEARCH.items():
        points, row, space = design(arm, of.space), of.rows[0], of.space
        assert len({tuple(point.items()) for point in points}) == len(points) == TRIALS
        assert points == design(arm, space)
        for name, values in space.items():  # each as often as any other
            assert Counter(point[name] for point in points) == dict.fromkeys(values, TRIALS // len(values)), (row, name)
            assert list(values) == sorted(values) and name.partition(".")[0] in PARTS
            part = Trial(row, "market", SEED, "mini", changes=((name, values[0]),))
            options = part.pretrain if name.startswith("pretrain.") else part.options
            assert getattr(options, name.partition(".")[2]) == values[0]
        if arm.startswith("target/"):
            assert arm == f"target/{row}" and len(of.rows) == 1
    direct = [(name, row.source_arm) for name, row in ROWS.items() if row.method == "direct" and not row.of]
    sources = {arm: {name for name, of in direct if of == arm} for arm in networks}
    assert {arm: set(SEARCH[arm].rows) for arm in networks} == sources  # every network's direct transfer has its say
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

    started, scored = set(), []

    def score(spec, places):
        scored.append(spec)
        if spec.row == "random":
            started.add(spec.pretrain.peak_rate)
        rate = spec.options.s if spec.row == "random" else spec.pretrain.peak_rate
        return {
            "map_step": 50 - math.log(rate / best) ** 2 + (spec.target == "duke") + 4 * (spec.row == "equal_direct")
        }

    monkeypatch.setattr(tuning, "score", score)
    monkeypatch.setattr(tuning, "_trained", lambda spec, places: None)
    monkeypatch.setattr(tuning, "fingerprints", lambda spec, places: {"target": spec.target})
    rate, scale = SEARCH["source/patch"].space, {"adapt.s": (0.5, 1.0, 2.0)}
    search = {"source/patch": Arm(("random_direct", "equal_direct"), rate), "target/random": Arm(("random",), scale)}
    found = tuning.tune("mini", Places(results=str(tmp_path)), workers=1, search=search, trials=3)
    assert json.loads((tmp_path / "search/mini.json").read_text(encoding="utf-8")) == found
    assert started == set(found["arms"]["source/patch"]["chosen"].values())
    assert {(run["row"], run["target"]) for run in found["arms"]["source/patch"]["trials"][0]["runs"]} == {
        (row, target) for row in ("random_direct", "equal_direct") for target in ("market", "duke")
    }
    for arm, extra in (("source/patch", 2.5), ("target/random", 0.5)):  # the means of what duke and equal stripes add
        trials = [trial["values"] for trial in found["arms"][arm]["trials"]]
        values = [value for trial in trials for value in trial.values()]
        assert len(values) == len(set(values)) and 3 <= len(values) <= MOST
        chosen = found["arms"][arm]["chosen"]
        (value,) = chosen.values()
        assert value == min(values, key=lambda one: abs(math.log(one / best)))
        assert found["arms"][arm]["on_edge"] == [] and min(values) < value < max(values)
        assert [trial["score"] for trial in found["arms"][arm]["trials"]] == pytest.approx(
            [50 + extra - math.log(one / best) ** 2 for one in values]
        )
    assert (
        len(scored)
        == len(set(scored))
        == sum(len(trial["runs"]) for arm in found["arms"].values() for trial in arm["trials"])
    )
    scored.clear()  # what the file has is not trained again, unless other data or arithmetic made it
    assert (
        tuning.tune("mini", Places(results=str(tmp_path)), workers=1, search=search, trials=3) == found and not scored
    )
    monkeypatch.setattr(tuning, "fingerprints", lambda spec, places: {"target": spec.target + "'"})
    tuning.tune("mini", Places(results=str(tmp_path)), workers=1, search=search, trials=3)
    assert len(scored) == len(set(scored)) > 0


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
        assert points[:TRIALS] == design(arm, SEARCH[arm].space) and len(points) <= MOST
        for trial in of["trials"]:
            assert [(run["row"], run["target"]) for run in trial["runs"]] == [
                (row, target) for row in SEARCH[arm].rows for target in PROFILES["mini"].targets
            ]
            assert trial["score"] == pytest.approx(sum(run["map_step"] for run in trial["runs"]) / len(trial["runs"]))
        for place in range(TRIALS, len(points)):
            best = max(of["trials"][:place], key=lambda trial: trial["score"])["values"]
            assert points[place] == beyond(points[:place], best)


def test_no_reported_run_starts_from_the_seed_of_the_search():
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "results/runs/mini").glob("*.json")]
    assert found and SEED not in {record["seed"] for record in found}

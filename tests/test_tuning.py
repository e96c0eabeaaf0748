"""One search budget for every arm, on validation people alone; the profile holds what a search chose."""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from paul.experiments.methods import METHODS
from paul.experiments.profiles import PROFILES
from paul.experiments.rows import PARTS, ROWS
from paul.experiments.specs import Spec
from paul.experiments.tuning import SEARCH, SEED, TRIALS, Trial, arm_of, design, lines, on_edge

ROOT = Path(__file__).parents[1]
EARLIER = ROOT / "results/tuning/mini.json"  # of five options, one after the other, before every arm had its search
RECORD = ROOT / "results/search/mini.json"


def test_every_arm_that_trains_is_searched_with_as_many_trials():
    networks = {row.source_arm for row in ROWS.values() if METHODS[row.method].needs_source}
    trained = {f"target/{name}" for name, row in ROWS.items() if METHODS[row.method].trains}
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
        middle = {name: values[len(values) // 2 - 1] for name, values in space.items()}
        for name, values in space.items():
            assert on_edge(space, middle) == []
            assert on_edge(space, {**middle, name: values[-1]}) == on_edge(space, {**middle, name: values[0]}) == [name]
    with pytest.raises(ValueError, match="some arm: 8 trials need as many points, and its values make 6"):
        design("some arm", {"adapt.lr": (1.0, 2.0), "adapt.s": (1.0, 2.0, 3.0)})


def test_what_a_search_chose_reaches_the_rows_of_its_arm_and_no_others(monkeypatch):
    before = {name: Spec(name, "market", 0, "mini") for name in ROWS}
    hashes = {name: spec.hash for name, spec in before.items()}
    chosen = {"source/image": {"pretrain.peak_rate": 0.77}, "target/image_lc": {"adapt.s": 77.0}}
    monkeypatch.setitem(PROFILES, "mini", replace(PROFILES["mini"], tuned=chosen))
    for name, spec in before.items():
        assert (spec.hash != hashes[name]) is (ROWS[name].source_arm == "source/image" and spec.method.needs_source)
    assert before["pul"].pretrain.peak_rate == 0.77 and before["paul"].pretrain.peak_rate != 0.77
    assert before["image_lc"].options.s == 77.0 and before["image_pull"].options.s != 77.0


def test_the_profile_holds_the_choice():
    if RECORD.is_file():
        found = json.loads(RECORD.read_text(encoding="utf-8"))
        assert {arm: of["chosen"] for arm, of in found["arms"].items()} == PROFILES["mini"].tuned
        assert [line["on the edge"] for line in lines(found)] == ["-"] * len(SEARCH)
        assert found["seed"] == SEED
    else:
        earlier = json.loads(EARLIER.read_text(encoding="utf-8"))["chosen"]
        options = asdict(PROFILES["mini"].adapt)
        assert not PROFILES["mini"].tuned and {name: options[name] for name in earlier} == earlier


def test_no_reported_run_starts_from_the_seed_of_the_search():
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "results/runs/mini").glob("*.json")]
    assert found and SEED not in {record["seed"] for record in found}

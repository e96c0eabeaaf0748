"""The mini profile holds what the search on validation people chose, and the record of that search is whole."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from paul.experiments.profiles import PROFILES
from paul.experiments.tuning import SEARCH, SEED

RECORD = Path("results/tuning/mini.json")


@pytest.fixture(scope="module")
def found():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def test_the_profile_holds_the_choice(found):
    options = asdict(PROFILES["mini"].adapt)
    assert {name: options[name] for name in found["chosen"]} == found["chosen"]


def test_the_choice_is_the_best_of_the_trials(found):
    for option, _, values in SEARCH:
        trials = [trial for trial in found["trials"] if trial["option"] == option]
        assert [trial["value"] for trial in trials] == list(values)
        assert found["chosen"][option] == max(trials, key=lambda trial: trial["score"])["value"]
        for trial in trials:
            scores = [scores["map_step"] for scores in trial["per_target"].values()]
            assert trial["score"] == pytest.approx(sum(scores) / len(scores))


def test_no_reported_run_starts_from_the_seed_of_the_search(found):
    assert found["seed"] == SEED
    seeds = {json.loads(path.read_text(encoding="utf-8"))["seed"] for path in Path("results/runs/mini").glob("*.json")}
    assert seeds and SEED not in seeds

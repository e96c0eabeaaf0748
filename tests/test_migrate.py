"""Records of the earlier layout: rewritten without touching what was measured, or refused by name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from paul.experiments.migrate import migrate
from paul.experiments.records import outdated
from paul.experiments.specs import Places, Spec

ROOT = Path(__file__).parents[1]
RUNS = {
    "paul": lambda data: {**stage(data), "adabn": False, "adapt": data["options"]},
    "patch_adabn": lambda data: {**stage(data), "adabn": True, "adapt": None},
    "patch_direct": lambda data: {**stage(data), "adabn": False, "adapt": None},
    "pul": lambda data: {key: data[key] for key in ("method", "source", "target", "options")},
    "lomo": lambda data: {key: data[key] for key in ("method", "target", "options")},
}


def stage(data):
    return {key: data[key] for key in ("source", "target", "freeze_pgn")}


def earlier(row, **changes):
    """A record as it was written before."""
    return {
        "row": row,
        "tables": ["table3"],
        "target": "market",
        "seed": 0,
        "profile": "mini",
        "spec": RUNS[row](Spec(row, "market", 0, "mini").data()),
        "spec_hash": "0123456789abcdef",
        "metrics": {"rank1": 12.345678901234567},
        "code": "fedcba9876543210",
        "curve": [{"loss": 0.1}],
        "data": {"target": "d"},
        **changes,
    }


@pytest.fixture
def results(tmp_path):
    (tmp_path / "runs/mini").mkdir(parents=True)
    for row in RUNS:
        (tmp_path / f"runs/mini/{row}--market--s0--01234567.json").write_text(json.dumps(earlier(row)))
    return tmp_path


def test_every_kind_of_record_becomes_current_and_keeps_what_was_measured(results):
    written = migrate(str(results))
    assert sorted(written) == sorted((results / "runs/mini").iterdir()) and len(written) == len(RUNS)
    for row in RUNS:
        spec, before = Spec(row, "market", 0, "mini"), earlier(row)
        record = json.loads(Places(results=str(results)).record(spec).read_text())
        assert not outdated(record) and record["spec"] == spec.data()
        assert {name: record[name] for name in ("metrics", "code", "curve", "data")} == {
            name: before[name] for name in ("metrics", "code", "curve", "data")
        }
    before = {path: path.read_bytes() for path in written}
    assert migrate(str(results)) == [] and {path: path.read_bytes() for path in written} == before


def test_one_that_is_of_other_options_stops_all(results):
    before = {path: path.read_bytes() for path in (results / "runs/mini").iterdir()}
    other = earlier("paul")
    other["spec"]["adapt"] = {**other["spec"]["adapt"], "s": 77.0}
    path = results / "runs/mini/paul--market--s0--01234567.json"
    path.write_text(json.dumps(other))
    before[path] = path.read_bytes()
    with pytest.raises(ValueError, match=r"paul--market--s0--01234567.json: its options are not today's"):
        migrate(str(results))
    assert {path: path.read_bytes() for path in (results / "runs/mini").iterdir()} == before
    done = subprocess.run(
        [sys.executable, "-m", "paul.experiments.migrate", str(results)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and "its options are not today's" in done.stderr and "Traceback" not in done.stderr


def test_the_committed_records_are_current():
    for path in (ROOT / "results/runs").glob("*/*.json"):
        assert not outdated(json.loads(path.read_text(encoding="utf-8"))), path.name

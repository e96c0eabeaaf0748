"""Records from before options were added: rewritten without touching what was measured, or refused by name."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest

from paul.experiments import migrate as module
from paul.experiments.migrate import migrate
from paul.experiments.records import outdated
from paul.experiments.specs import Places, Spec

ROOT = Path(__file__).parents[1]
ROWS = ("paul", "patch_adabn", "patch_direct", "pul", "lomo")


@pytest.fixture(autouse=True)
def before(monkeypatch):
    """As if today's values of the options that were added were those from before: defaults may have moved since."""
    network, pretrain = (dict(Spec("paul", "market", 0, "mini").source()[part]) for part in ("network", "pretrain"))
    today = {"network": network, "pretrain": pretrain}
    today |= {
        Spec(row, "market", 0, "mini").data()["method"]: Spec(row, "market", 0, "mini").data()["options"]
        for row in ("paul", "pul")
    }
    values = {part: {name: today[part][name] for name in added} for part, added in module.BEFORE.items()}
    monkeypatch.setattr(module, "BEFORE", values)


def earlier(row):
    """A record as it was written when there was one seed, and fewer options."""
    spec = Spec(row, "market", 0, "mini")
    said = deepcopy(spec.data())
    source = said.get("source", {})
    for part, values in module.BEFORE.items():
        options = said["options"] if part == said["method"] else source.get(part, {})
        for name in set(values) & set(options):
            del options[name]
    return {
        "row": row,
        "target": "market",
        "seed": 0,
        "profile": "mini",
        "weights": None,
        "spec": said,
        "spec_hash": "0123456789abcdef",
        "numerics": spec.numerics,
        "metrics": {"rank1": 12.345678901234567},
        "code": "fedcba9876543210",
        "curve": [{"loss": 0.1}],
        "data": {"target": "d"},
    }


@pytest.fixture
def results(tmp_path):
    (tmp_path / "runs/mini").mkdir(parents=True)
    for row in ROWS:
        (tmp_path / f"runs/mini/{row}--market--s0--01234567.json").write_text(json.dumps(earlier(row)))
    return tmp_path


def test_every_kind_of_record_becomes_current_and_keeps_what_was_measured(results):
    written = migrate(str(results))
    assert sorted(written) == sorted((results / "runs/mini").iterdir()) and len(written) == len(ROWS)
    for row in ROWS:
        spec, before = Spec(row, "market", 0, "mini"), earlier(row)
        record = json.loads(Places(results=str(results)).record(spec).read_text())
        assert not outdated(record) and record["spec"] == spec.data()
        assert (record["adapt_seed"], record["world"]) == (0, 0)
        assert {name: record[name] for name in ("metrics", "code", "curve", "data")} == {
            name: before[name] for name in ("metrics", "code", "curve", "data")
        }
    before = {path: path.read_bytes() for path in written}
    assert migrate(str(results)) == [] and {path: path.read_bytes() for path in written} == before


@pytest.mark.parametrize("change", [{"spec": {"options": {"s": 77.0}}}, {"numerics": {"source": 0}}])
def test_one_that_is_of_another_run_stops_all(results, change):
    before = {path: path.read_bytes() for path in (results / "runs/mini").iterdir()}
    other = earlier("paul")
    if "spec" in change:
        other["spec"]["options"] |= change["spec"]["options"]
    else:
        other |= change
    path = results / "runs/mini/paul--market--s0--01234567.json"
    path.write_text(json.dumps(other))
    before[path] = path.read_bytes()
    with pytest.raises(ValueError, match=r"paul--market--s0--01234567.json: its options are not today's"):
        migrate(str(results))
    assert {path: path.read_bytes() for path in (results / "runs/mini").iterdir()} == before


def test_the_command_refuses_in_one_line(results):
    other = earlier("paul")
    (results / "runs/mini/paul--market--s0--01234567.json").write_text(json.dumps({**other, "numerics": {}}))
    done = subprocess.run(
        [sys.executable, "-m", "paul.experiments.migrate", str(results)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and "its options are not today's" in done.stderr and "Traceback" not in done.stderr


def test_the_committed_records_are_current():
    for path in (ROOT / "results/runs").glob("*/*.json"):
        assert not outdated(json.loads(path.read_text(encoding="utf-8"))), path.name

"""The seam: a method of thirty lines, known to no file of the package, is trained, recorded, tabled and judged."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from paul.experiments.methods import METHODS
from paul.experiments.plan import plan, work_of
from paul.experiments.records import outdated, read_records
from paul.experiments.rows import ROWS, TABLES, Row, Table
from paul.experiments.runner import run_all, run_one
from paul.experiments.specs import Places, Spec, specs_of
from paul.method import Method, Outcome, Task
from paul.report.claims import judge_all, load_claims
from paul.report.tables import ablation_table, current_runs, table_text, write_tables

# --- the method ---


@dataclass(frozen=True)
class ToyOptions:
    """Mean colours of a grid; `cells` a side, after `rounds` of looking at the target's mean."""

    NUMERICS: ClassVar[int] = 3

    cells: int = 2
    rounds: int = 2


def toy(task: Task) -> Outcome:
    images, history = task.images((24, 12)).images.float() / 255, []
    mean = torch.zeros(3, 1, 1)
    for number in range(task.options.rounds):
        mean = mean + (images - mean).mean((0, 2, 3), keepdim=True)[0] * (0.5 + task.seed / 100)
        history.append({"epoch": number + 1, "loss": float(mean.square().sum()), "seconds": 0.5})

    def describe(pixels):
        x = pixels.images.float() / 255 - mean
        return torch.nn.functional.adaptive_avg_pool2d(x, task.options.cells).flatten(1)

    return Outcome(describe, (24, 12), history=history, metrics={"drift": 100 * history[-1]["loss"]})


TOY = Method(ToyOptions, toy, needs_source=False, metrics={"drift": "Drift"})

# --- the study ---

CLAIMS = """
[[claim]]
id = "T1"
text = "a finer grid tells people apart better, and the mean moves"
where = "nowhere"
[[claim.test]]
kind = "within"
pairs = [["toy", "toy4"]]
metrics = ["rank1"]
targets = ["market"]
margin = 100.5
[[claim.test]]
kind = "level"
row = "toy"
metrics = ["drift"]
targets = ["market"]
above = 0.0
"""


@pytest.fixture
def places(data, tmp_path, tiny_smoke, monkeypatch):
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/toys.csv").write_text("method,market_rank1,market_mAP\nfine,30.0,20.0\ncoarse,20.0,10.0\n")
    (tmp_path / "claims.toml").write_text(CLAIMS)
    monkeypatch.setitem(METHODS, "toy", TOY)
    monkeypatch.setitem(ROWS, "toy", Row("toy", "toy"))
    monkeypatch.setitem(ROWS, "toy4", Row("toy, 4 cells", "toy", {"adapt.cells": 4}))
    tables = dict(TABLES)
    TABLES.clear()
    TABLES["toys"] = Table("Toys", "toys.csv", {"toy4": 1, "toy": 2})
    yield Places(str(data), str(tmp_path / "results"), str(tmp_path / "models"), "cpu")
    TABLES.clear()
    TABLES.update(tables)  # in their order


def test_a_method_outside_the_package_goes_all_the_way(places, tmp_path):
    specs = specs_of("toys", "smoke", [0, 1, 2], ["market"])
    assert [spec.name.split("--")[0] for spec in specs[:2]] == ["toy4", "toy"] and len(specs) == 6
    planned = plan(specs, places)
    assert planned.sources == [] and len(planned.lines()) >= 5 and work_of(specs[0], places.data).adapt == 0

    found = run_all(specs, None, places)
    for record, spec in zip(found, specs):
        assert record["numerics"] == {"method": 3, "evaluation": 1} and not outdated(record, places)
        assert record["spec"] == {
            "method": "toy",
            "target": "smoke/market",
            "options": {"cells": 4 if spec.row == "toy4" else 2, "rounds": 2},
        }
        assert {"rank1", "map_step", "drift"} < set(record["metrics"]) and record["metrics"]["drift"] > 0
        assert record["seconds"]["adapt"] == 1.0 and len(record["curve"]) == 2 and record["source_curve"] == []
    assert (
        run_all(specs, None, places, fresh=True) == found == [json.loads(places.record(s).read_text()) for s in specs]
    )

    runs = current_runs(places.results, "smoke")
    frame = ablation_table("toys", runs, "smoke", tmp_path / "paper").set_index("row")
    drift = [record["metrics"]["drift"] for record in found if record["row"] == "toy"]
    assert frame.loc["toy", "drift"] == pytest.approx(sum(drift) / 3) and frame.loc["toy", "n"] == 3
    assert frame.loc["toy4", "paper_rank1"] == 30.0
    assert "toy, 4 cells" in table_text("toys", runs, "smoke", tmp_path / "paper")
    assert [path.name for path in write_tables(places.results, "smoke", tmp_path / "paper")] == ["toys.csv", "toys.md"]

    (verdict,) = judge_all(load_claims(tmp_path / "claims.toml"), runs, "smoke", tmp_path / "paper")
    assert verdict["verdict"] == "supported" and [line["metric"] for line in verdict["evidence"]] == ["rank1", "drift"]


def test_what_a_method_measures_is_what_it_declares(places, monkeypatch):
    for metrics in ({}, {"drift": "Drift", "speed": "Speed"}):
        monkeypatch.setitem(METHODS, "toy", Method(ToyOptions, toy, needs_source=False, metrics=metrics))
        with pytest.raises(ValueError, match=r"row toy declares the metrics .* and measured \['drift'\]"):
            run_one(Spec("toy", "market", 0, "smoke"), places)
    assert read_records(places.results, "smoke") == []


def test_a_record_without_a_declared_metric_is_left_out(places):
    spec = Spec("toy", "market", 0, "smoke")
    record = run_one(spec, places)
    del record["metrics"]["drift"]
    places.record(spec).write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="not whole .*drift"):
        assert current_runs(places.results, "smoke").empty

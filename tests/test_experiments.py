"""Rows, specs and run records: complete, shared, computed once, flagged when old, the same with any executor."""

import csv
import json
import shutil
import socket
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from people import ADAPT, CONTRAST, PUL, TINY, use_tiny_smoke, write_set, write_study

from paul.bench import literal as reference
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.data.transforms import normalize
from paul.data.worlds import population, world_of
from paul.experiments import records, tuning
from paul.experiments import runner as experiments
from paul.experiments.methods import METHODS
from paul.experiments.profiles import PROFILES
from paul.experiments.provenance import digest
from paul.experiments.rows import ROWS, TABLES, Row
from paul.experiments.runner import run_all, run_one
from paul.experiments.specs import Places, Spec, seeds_of, specs_of
from paul.options import AdaptOptions, PretrainOptions
from paul.report.registration import options_hash
from paul.report.worlds import folders_of, records_of_worlds
from paul.retrieval.agreement import neighbours, purity
from paul.rivals.bow import BowOptions
from paul.rivals.cluster_contrast import ClusterContrastOptions
from paul.rivals.lomo import LomoOptions
from paul.rivals.lomo.descriptor import describe
from paul.rivals.pul import PulOptions

pytestmark = pytest.mark.usefixtures("tiny_smoke")
SPEC = Spec("paul", "market", 0, "smoke")
PAPER = Path(__file__).parents[1] / "book/paper"


@pytest.fixture
def places(data, tmp_path):
    return Places(str(data), str(tmp_path / "results"), str(tmp_path / "models"), "cpu")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """One run's record and where everything lies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "smoke", TINY)
        folder = tmp_path_factory.mktemp("run")
        places = Places(str(data), str(folder / "results"), str(folder / "models"), "cpu")
        return run_one(SPEC, places), places


def measured(record):
    """What a second computation must give again: all but clocks and memory."""
    curves = {
        name: [{k: v for k, v in line.items() if k != "seconds"} for line in record[name]]
        for name in ("curve", "source_curve")
    }
    return {**record, **curves, "seconds": None, "peak_memory_mb": None}


# --- rows and specs ---


def test_every_line_of_the_papers_ablations_has_its_row():
    with (PAPER / TABLES["table3"].file).open(encoding="utf-8") as file:
        for number, line in enumerate(csv.DictReader(file), 1):
            (row,) = (row for row, printed in TABLES["table3"].lines.items() if printed == number)
            spec = Spec(row, "market", 0, "paper")
            losses = (getattr(spec.options, "loss_c", None) == "pedal", getattr(spec.options, "loss_v", False))
            assert spec.entry.level == line["level"], line
            assert losses == (line["loss_c"] == "yes", line["loss_v"] == "yes"), line
            assert spec.entry.method == ("paul" if any(losses) else "direct")
    with (PAPER / TABLES["table4"].file).open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            both = [Spec(row, "market", 0, "paper") for row, printed in TABLES["table4"].lines.items() if printed]
            assert all(spec.options == Spec("paul", "market", 0, "paper").options for spec in both)
            assert (line["scheme"].lower(), int(line["num_patches"])) in [
                (spec.network.generator, spec.network.num_patches) for spec in both
            ]


def test_an_option_of_any_part_is_a_row_by_one_line(monkeypatch):
    monkeypatch.setitem(ROWS, "hardest", Row("hardest positives", overrides={"pretrain.positive": "hardest"}))
    monkeypatch.setitem(ROWS, "detached", Row("theta detached", overrides={"network.freeze_pgn": "detach"}))
    monkeypatch.setitem(ROWS, "s3", Row("s = 3", overrides={"adapt.s": 3.0}))
    monkeypatch.setitem(ROWS, "coarse", Row("one level", "lomo", {"adapt.levels": 1}))
    hardest, detached, s3 = (Spec(row, "market", 0, "smoke") for row in ("hardest", "detached", "s3"))
    assert hardest.pretrain.positive == "hardest" and hardest.source() != SPEC.source()
    assert detached.network.freeze_pgn == "detach" and detached.source() == SPEC.source()
    assert s3.options == replace(SPEC.options, s=3.0)
    assert Spec("coarse", "market", 0, "smoke").options.levels == 1
    assert len({spec.hash for spec in (SPEC, hardest, detached, s3)}) == 4
    for wrong in ({"s": 3.0}, {"adapt.": 3.0}, {"pul.rounds": 1}):
        with pytest.raises(ValueError, match="overrides begin with network, pretrain, adapt and a dot"):
            Row("wrong", overrides=wrong)
    monkeypatch.setitem(ROWS, "typo", Row("typo", overrides={"adapt.scale": 3.0}))
    with pytest.raises(TypeError, match="scale"):
        Spec("typo", "market", 0, "smoke").hash


def test_runs_share_their_source_models():
    specs = specs_of("table3", "mini", [0, 1, 2]) + specs_of("table4", "mini", [0, 1, 2])
    sources = {digest(spec.source()) for spec in specs}
    assert len(sources) == 3 * len({"image", "pgn 6", "random", "equal", "pgn 4", "pgn 8"})
    assert len({spec.hash for spec in specs}) < len(specs) and len({spec.name for spec in specs}) == len(set(specs))


def test_a_hash_depends_on_every_option_and_on_no_order(monkeypatch):
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})

    def changed(value):
        return (
            {
                "pedal": "pull",
                "train": "eval",
                "all": "one",
                "zero": "skip",
                "embedding": "patch",
                "centers": "raw",
                "zeros": "border",
                "cosine": "paper",
                "nearest": "hardest",
                "pgn": "equal",
                "small": "resnet18",
                "lr0": "eval",
                "before": "after",
                "image": "network",
                "float32": "bf16",
            }.get(value)
            if isinstance(value, str)
            else (
                not value if isinstance(value, bool) else (0.5, 0.6) if isinstance(value, tuple) else (value or 3) + 1
            )
        )

    direct = Spec("patch_direct", "market", 0, "smoke")
    before, before_direct = SPEC.hash, direct.hash
    parts = ("adapt", "network", "pretrain")
    for part in parts:
        options = getattr(TINY, part)
        for field in fields(options):
            other = replace(options, **{field.name: changed(getattr(options, field.name))})
            monkeypatch.setitem(PROFILES, "smoke", replace(TINY, **{part: other}))
            assert SPEC.hash != before, field.name
            assert (direct.hash != before_direct) is (part != "adapt"), field.name
    monkeypatch.setitem(PROFILES, "smoke", TINY)
    assert SPEC.hash == before
    changes = ({"row": "patch_lc"}, {"target": "duke"}, {"seed": 1}, {"world": 1})
    assert len({before, *(replace(SPEC, **change).hash for change in changes)}) == 5


def test_source_adaptation_and_world_are_three_numbers():
    """A name, a folder and a source model for each; the adaptation's is the source's unless it is given."""
    assert SPEC.adapt_seed == 0 and Spec("paul", "market", 3, "smoke").adapt_seed == 3
    again, other = replace(SPEC, adapt_seed=1), replace(SPEC, world=2)
    assert again.source() == SPEC.source() != other.source() and again.hash == SPEC.hash
    assert again.name == f"paul--market--s0a1--{SPEC.hash[:8]}"
    paths = [Places().record(spec) for spec in (SPEC, again, other)]
    assert len(set(paths)) == 3 and paths[2].parent.name == "smoke-w2"
    assert other.at.folders == {role: f"smoke-w2/{role}" for role in ("source", "market", "duke")}
    with pytest.raises(ValueError, match="profile paper has no world 1: its sets are not rendered"):
        specs_of("table1", "paper", [0], worlds=[1])
    for world in (1, 12):
        assert world_of(population("mini", world)) == ("mini", world)
    assert world_of("mini") == ("mini", 0) and population("mini", 0) == "mini"


def test_a_turned_world_changes_the_people_and_nothing_else(tmp_path):
    plain = Spec("pul", "market", 0, "mini", world=3)
    spec = replace(plain, profile="mini-people600")
    assert spec.options == plain.options and spec.hash != plain.hash and spec.at.image_size == plain.at.image_size
    assert options_hash(spec.data(), spec.numerics) == options_hash(plain.data(), plain.numerics)
    assert Places().record(spec).parent.name == spec.population == "mini-w3-people600"
    record = {"row": "pul", "target": "market", "profile": spec.profile, "seed": 0, "world": 3, "spec_hash": spec.hash}
    assert records.spec_of(record) == spec
    for one in (plain, spec):
        record |= {"profile": one.profile, "spec_hash": one.hash, "metrics": {}}
        path = Places(results=str(tmp_path)).record(one)
        path.parent.mkdir(parents=True)
        records.write_record(path, record)
    assert records.recorded_profiles(tmp_path) == ["mini-w3", "mini-w3-people600"]
    for profile, name in (("mini", "mini-w3"), ("mini-people600", "mini-w3-people600")):
        assert [*folders_of(tmp_path, profile)][:2] == [profile, name]
        assert records_of_worlds(tmp_path, profile)[0]["profile"] == profile


def test_adaptation_seeds_multiply_the_rows_that_draw_after_the_source_stage():
    found = specs_of("table1", "smoke", [0, 1], adapt_seeds=[4, 5], worlds=[0, 1])
    found += specs_of("table3", "smoke", [0, 1], ["market"], ["patch_direct"], adapt_seeds=[4, 5])
    seeds = {spec.row: [] for spec in found}
    for spec in found:
        seeds[spec.row].append((spec.world, spec.seed, spec.adapt_seed))
    trained = [(world, seed, own) for world in (0, 1) for seed in (0, 1) for own in (4, 5)]
    assert seeds["paul"] == seeds["pul"] == seeds["cluster_contrast"] == trained
    assert seeds["bow"] == [(world, seed, seed) for world in (0, 1) for seed in (0, 1)]
    assert seeds["lomo"] == [(0, 0, 0), (1, 0, 0)] and seeds["patch_direct"] == [(0, 0, 0), (0, 1, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table5", "smoke", [0]), "unknown table 'table5'; there are table1, table2, table3, table4"),
        (("table3", "small", [0]), "unknown profile 'small'"),
        (("table3", "smoke", [0], ["msmt"]), "unknown target 'msmt'; there are market, duke"),
        (("table3", "smoke", [0], None, ["pgn9"]), "unknown row 'pgn9'"),
    ],
)
def test_specs_that_do_not_exist(arguments, message):
    with pytest.raises(ValueError, match=message):
        specs_of(*arguments)


def test_seeds():
    assert seeds_of("0-2") == [0, 1, 2] and seeds_of("0,3,5") == [0, 3, 5]
    assert seeds_of("7") == [7] and seeds_of("0-1,4") == [0, 1, 4]
    for text in ("a", "2-0", "", "0-", "0-1-2"):
        with pytest.raises(ValueError, match="seeds"):
            seeds_of(text)


# --- a record ---


def test_a_record_holds_every_field(finished):
    record, places = finished
    assert json.loads(places.record(SPEC).read_text()) == record
    assert places.record(SPEC).name == f"paul--market--s0--{record['spec_hash'][:8]}.json"
    assert set(record) == {
        "row",
        "target",
        "seed",
        "adapt_seed",
        "world",
        "profile",
        "weights",
        "spec",
        "spec_hash",
        "numerics",
        "metrics",
        "queries",
        "queries_left_out",
        "curve",
        "source_curve",
        "data",
        "commit",
        "code",
        "versions",
        "device",
        "machine",
        "threads",
        "seconds",
        "peak_memory_mb",
    }
    assert record["numerics"] == SPEC.numerics and set(record["numerics"]) == {"source", "method", "evaluation"}
    assert record["threads"] == 1 and record["weights"] is None
    assert (record["row"], record["target"], record["seed"], record["profile"]) == ("paul", "market", 0, "smoke")
    assert record["device"] == "cpu"
    assert set(record["metrics"]) == {"rank1", "rank5", "rank10", "rank20", "map_step", "map_trapezoid", "minp"}
    assert (record["queries"], record["queries_left_out"]) == (4, 1)
    assert record["data"] == {"source": "source-1", "target": "market-2"}
    assert set(record["versions"]) == {"python", "torch", "torchvision", "numpy"}
    assert set(record["seconds"]) == {"pretrain", "adapt", "evaluate"} and record["peak_memory_mb"] > 0
    assert [sorted(line) for line in record["curve"]] == [["epoch", "loss", "loss_c", "loss_v", "seconds"]] * 2
    assert record["spec"]["options"]["s"] == ADAPT.s and record["spec_hash"] == digest(record["spec"])


def test_scores_are_those_of_the_trained_network(finished, data):
    record, places = finished
    model = experiments.trained_model("paul", "market", 0, "smoke", places.data, places.models, "cpu")
    assert not model.training
    sides = []
    for name in ("query", "gallery"):
        split = ReidDataset.load(data / "smoke/market").split(name)
        with torch.no_grad():
            features = model.describe(normalize(load_images(split, (40, 24)) / 255))
        sides.append((features, split.person_ids, split.camera_ids))
    (q, q_ids, q_cams), (g, g_ids, g_cams) = sides
    expected = reference.evaluate_distances(reference.squared_distances(q, g), q_ids, g_ids, q_cams, g_cams)
    assert record["metrics"]["map_step"] == pytest.approx(100 * expected["map_step"])
    assert record["metrics"]["rank1"] == pytest.approx(100 * expected["cmc"][0])
    assert record["queries_left_out"] == expected["left_out"]


@pytest.mark.parametrize("workers", [1, 2])
def test_several_networks_are_those_of_one_by_one_and_are_trained_once(finished, tmp_path, monkeypatch, workers):
    _, places = finished
    rows, where = ("image_direct", "image_lc", "paul"), ("market", 0, "smoke", places.data)
    found = experiments.trained_models(rows, *where, tmp_path, "cpu", workers=workers)
    assert list(found) == list(rows)
    for row, model in found.items():
        alone = experiments.trained_model(row, *where, places.models, "cpu")
        assert not model.training
        assert all(torch.equal(value, alone.state_dict()[name]) for name, value in model.state_dict().items())
    monkeypatch.setattr("paul.experiments.runner._train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("paul.experiments.runner._train_source", lambda *_, **__: pytest.fail("trained again"))
    assert list(experiments.trained_models(rows, *where, tmp_path, "cpu", workers=workers)) == list(rows)


def test_adabn_is_not_direct_transfer(finished):
    _, places = finished
    states = [
        experiments.trained_model(row, "market", 0, "smoke", places.data, places.models, "cpu").state_dict()
        for row in ("patch_direct", "patch_adabn")
    ]
    moved = {key for key in states[0] if not torch.equal(states[0][key], states[1][key])}
    assert moved and all(key.endswith(("running_mean", "running_var", "num_batches_tracked")) for key in moved)


# --- computed once, and again when need be ---


def test_a_run_is_not_computed_twice(finished, monkeypatch):
    record, places = finished
    written = places.record(SPEC).stat().st_mtime_ns
    monkeypatch.setattr(experiments, "pretrain", None)  # would fail if called
    assert run_all([SPEC, SPEC], None, places) == [record, record]
    assert run_all([SPEC], None, places, fresh=True) == [record]  # nothing has changed
    assert places.record(SPEC).stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["", "{", '{"row": "paul"}', "[]"])
def test_a_half_written_record_is_made_again(finished, damage):
    record, places = finished
    places.record(SPEC).write_text(damage)
    assert measured(run_one(SPEC, places)) == measured(record)
    assert measured(json.loads(places.record(SPEC).read_text())) == measured(record)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"numerics": {"source": 0}}, "other arithmetic"),
        ({"data": {"source": "other"}}, "other data"),
        ({"numerics": None}, "other arithmetic"),
        ({"spec_hash": "0"}, "other options"),
    ],
)
def test_an_outdated_record_is_flagged_and_made_again_when_asked(finished, change, reason):
    record, places = finished
    path = places.record(SPEC)
    path.write_text(json.dumps({**record, **change, "metrics": {"rank1": -1.0}}))
    with pytest.warns(UserWarning, match=f"{path.name} was measured with {reason}; fresh=True"):
        assert run_one(SPEC, places)["metrics"] == {"rank1": -1.0}
    with pytest.warns(UserWarning, match=f"1 of 1 records are outdated; {path.name} was measured with {reason}"):
        run_all([SPEC], None, places)
    assert measured(run_one(SPEC, places, fresh=True)) == measured(record)


def test_another_runs_record_under_this_ones_name_is_not_believed(finished):
    record, places = finished
    path = places.record(SPEC)
    path.write_text(json.dumps({**record, "seed": 1, "metrics": {**record["metrics"], "rank1": 0.0}}))
    assert experiments.needs_computing(SPEC, places)
    assert measured(run_one(SPEC, places)) == measured(record)


def test_other_data_make_other_models(tmp_path):
    data = write_study(tmp_path / "data")
    places = Places(str(data), str(tmp_path / "results"), str(tmp_path / "models"), "cpu")
    first = run_one(SPEC, places)
    train = {"train": [(person, camera) for person in range(1, 7) for camera in (1, 2)]}
    write_set(data / "smoke/source", train, seed=9)
    experiments._pixels.cache_clear()
    again = run_one(SPEC, places, fresh=True)
    assert again["data"] == {"source": "source-9", "target": "market-2"}
    assert again["source_curve"] != first["source_curve"] and again["curve"] != first["curve"]


# --- methods that PAUL is compared with ---


def test_a_row_without_chance_is_run_once():
    specs = specs_of("table1", "smoke", [1, 2])
    assert [(spec.row, spec.seed) for spec in specs if spec.row == "lomo"] == [("lomo", 0)]
    assert [(spec.row, spec.seed) for spec in specs if spec.row == "bow"] == [("bow", 1), ("bow", 2)]


def test_hand_crafted_rows_need_no_source(data, tmp_path):
    alone = tmp_path / "data/smoke/market"
    shutil.copytree(data / "smoke/market", alone)
    places = Places(str(tmp_path / "data"), str(tmp_path / "results"), str(tmp_path / "models"), "cpu")
    specs = [Spec("lomo", "market", 0, "smoke"), Spec("bow", "market", 0, "smoke"), Spec("bow", "market", 1, "smoke")]
    found = run_all(specs, None, places)
    for record, spec in zip(found, specs):
        assert record["data"] == {"target": "market-2"} and record["curve"] == record["source_curve"] == []
        assert record["queries"] == 4 and record["seconds"]["pretrain"] == 0
        assert json.loads(places.record(spec).read_text()) == record
        assert measured(run_one(spec, places)) == measured(record)
    assert found[1]["spec"] == found[2]["spec"] and not Path(places.models).exists()


def test_a_hand_crafted_record_holds_the_scores_of_its_descriptor(data, tmp_path):
    places = Places(str(data), str(tmp_path / "results"), str(tmp_path / "models"), "cpu")
    record = run_one(Spec("lomo", "market", 0, "smoke"), places)
    sides = []
    for name in ("query", "gallery"):
        split = ReidDataset.load(data / "smoke/market").split(name)
        sides.append((describe(load_images(split, (128, 48))), split.person_ids, split.camera_ids))
    (q, q_ids, q_cams), (g, g_ids, g_cams) = sides
    expected = reference.evaluate_distances(reference.squared_distances(q, g), q_ids, g_ids, q_cams, g_cams)
    assert record["metrics"]["map_step"] == pytest.approx(100 * expected["map_step"])


@pytest.mark.parametrize(
    ("row", "options", "line"),
    [
        ("pul", PUL, ["epoch", "kept", "loss", "seconds"]),
        ("cluster_contrast", CONTRAST, ["clusters", "epoch", "kept", "loss", "seconds"]),
    ],
)
def test_what_clusters_starts_from_the_image_level_source_and_records_what_it_kept(data, tmp_path, row, options, line):
    places = Places(str(data), str(tmp_path / "results"), str(tmp_path / "models"), "cpu")
    spec, direct = Spec(row, "market", 0, "smoke"), Spec("image_direct", "market", 0, "smoke")
    assert spec.source() == direct.source()
    record = run_one(spec, places)
    assert record["source_curve"] == run_one(direct, places)["source_curve"] != []
    assert [sorted(found) for found in record["curve"]] == [line] * 3
    assert record["spec"]["options"] == asdict(options) and record["spec_hash"] == digest(record["spec"])
    assert record["data"] == {"source": "source-1", "target": "market-2"}
    assert measured(run_one(spec, replace(places, results=str(tmp_path / "again")))) == measured(record)


@pytest.mark.parametrize(
    ("options", "stale"),
    [
        (AdaptOptions, {"paul"}),
        (PretrainOptions, {"paul", "pul", "cluster_contrast"}),
        (PulOptions, {"pul"}),
        (ClusterContrastOptions, {"cluster_contrast"}),
        (LomoOptions, {"lomo"}),
        (BowOptions, {"bow"}),
    ],
)
def test_other_arithmetic_makes_its_own_rows_outdated_and_no_others(monkeypatch, options, stale):
    specs = [Spec(row, "market", 0, "smoke") for row in ("paul", "lomo", "bow", "pul", "cluster_contrast")]
    found = [
        {
            "row": spec.row,
            "target": "market",
            "seed": 0,
            "profile": "smoke",
            "spec_hash": spec.hash,
            "numerics": spec.numerics,
        }
        for spec in specs
    ]
    assert not any(map(records.outdated, found))
    monkeypatch.setattr(options, "NUMERICS", options.NUMERICS + 1)
    assert {record["row"] for record in found if records.outdated(record)} == stale


def test_other_arithmetic_trains_in_another_folder(places, monkeypatch):
    before = experiments.source_folder(SPEC, places), experiments.target_folder(SPEC, places)
    monkeypatch.setattr(AdaptOptions, "NUMERICS", 99)
    assert experiments.source_folder(SPEC, places) == before[0] and experiments.target_folder(SPEC, places) != before[1]
    monkeypatch.setattr(PretrainOptions, "NUMERICS", 99)
    assert experiments.source_folder(SPEC, places) != before[0]


def test_other_libraries_and_sources_are_noted_and_make_nothing_outdated(finished):
    record, places = finished
    assert not records.made_with([record, {}])
    other = {**record, "code": "another", "commit": "another", "versions": {**record["versions"], "torch": "1.2.3"}}
    assert not records.outdated(other, places)
    here = ".".join(record["versions"]["torch"].split(".")[:2])
    assert records.made_with([record, other]) == (
        f"of 2 records some were made with another torch than the {here} at hand: 1 with 1.2"
    )


def test_a_record_of_what_is_no_more_is_outdated(finished):
    record, _ = finished
    for change in ({"row": "patch_what"}, {"target": "../../etc"}, {"profile": "maxi"}):
        assert records.outdated({**record, **change}) == "a row, profile, target or world that is no more"


# --- executors and neighbours ---


def test_every_executor_gives_the_same_metrics(data, tmp_path):
    specs = [Spec(row, target, 0, "smoke") for row in ("paul", "random") for target in ("market", "duke")]
    specs.append(Spec("image_direct", "duke", 1, "smoke"))
    executors = {"serial": None, "threads": ThreadPoolExecutor(2)}
    # spawned, as `workers_executor` does it: a fork of a process that has run torch can hang
    executors["processes"] = ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=use_tiny_smoke)
    found = {}
    for name, executor in executors.items():
        places = Places(str(data), str(tmp_path / name), str(tmp_path / f"{name} models"), "cpu")
        found[name] = [measured(record) for record in run_all(specs, executor, places)]
        if executor:
            executor.shutdown()
    assert [(record["row"], record["target"]) for record in found["serial"]] == [(s.row, s.target) for s in specs]
    assert all(other == found["serial"] for other in found.values())


def hold(folder, seconds):
    """Another process that trains in the folder for so long, as far as a run can see."""
    lock = FileLock(folder / ".lock", thread_local=False)
    lock.acquire()
    timer = threading.Timer(seconds, lock.release)
    timer.start()
    return timer


def test_a_model_that_another_run_trains_is_waited_for_then_loaded(places):
    """Also when the other run died half-way: then the waiting one goes on from its last epoch."""
    expected = measured(run_one(SPEC, places))
    (source,) = (Path(places.models) / "smoke").glob("source--s0--*")
    for epochs_left in (0, 2):
        places.record(SPEC).unlink()
        if epochs_left:
            (source / "checkpoint.pt").unlink()
        timer = hold(source, seconds=1)
        if not epochs_left:
            assert measured(run_one(SPEC, places)) == expected  # finished: read under the other's eyes
        else:
            with pytest.warns(UserWarning, match="waiting for .*source--s0.*another process trains"):
                assert measured(run_one(SPEC, places)) == expected
        timer.join()


def test_a_lock_whose_holder_never_writes_is_named_in_the_end(places, monkeypatch):
    run_one(SPEC, places)
    (source,) = (Path(places.models) / "smoke").glob("source--s0--*")
    (source / "checkpoint.pt").unlink()
    places.record(SPEC).unlink()
    monkeypatch.setattr(experiments, "PATIENCE", 0.3)
    with (
        FileLock(source / ".lock"),
        pytest.warns(UserWarning, match="waiting for"),
        pytest.raises(RuntimeError, match=r"source--s0.*\.lock has been held for .* delete it"),
    ):
        run_one(SPEC, places)


def test_a_worker_without_the_data_or_with_other_sources_says_where_it_is(places, tmp_path):
    elsewhere = replace(places, data=str(tmp_path / "nothing"))
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(FileNotFoundError, match=f"worker on {socket.gethostname()} lacks .*nothing/smoke/source"),
    ):
        run_all([SPEC], pool, elsewhere)
    with pytest.raises(ValueError, match=f"worker on {socket.gethostname()} runs another version"):
        experiments._elsewhere(run_one, places, (), (SPEC, SPEC.hash, "other sources"))


def test_a_failed_run_stops_the_others_and_keeps_what_is_done(places, monkeypatch):
    def fail(*_, **__):
        raise FloatingPointError("not finite")

    specs = [Spec(row, "market", 0, "smoke") for row in ("patch_direct", "paul", "patch_lc")]
    monkeypatch.setattr("paul.adapt.adapt", fail)
    with ThreadPoolExecutor(1) as pool, pytest.raises(FloatingPointError):
        run_all(specs, pool, places)
    assert places.record(specs[0]).is_file() and not places.record(specs[1]).is_file()


# --- options chosen on validation people ---


def test_tuning_never_sees_test_people_and_keeps_the_best(tmp_path):
    data = write_study(tmp_path / "data")
    for target in ("market", "duke"):
        index = data / "smoke" / target / "index.csv"
        lines = index.read_text().splitlines()
        index.write_text("\n".join(line for line in lines if ",query," not in line and ",gallery," not in line))
    places = Places(str(data), str(tmp_path / "results"), str(tmp_path / "models"), "cpu")
    search = {
        "target/patch_lc": tuning.Arm(("patch_lc",), {"adapt.lr": (0.001, 0.1)}),
        "source/patch": tuning.Arm(("patch_direct", "equal_direct"), {"pretrain.peak_rate": (0.001, 0.05)}),
    }
    found = tuning.tune("smoke", places, workers=1, search=search, trials=2)
    assert json.loads((tmp_path / "results/search/smoke.json").read_text()) == found
    for arm in found["arms"].values():
        tried = [value for trial in arm["trials"] for value in trial["values"].values()]
        assert len(arm["trials"]) > 2 and len(set(tried)) == len(tried)  # of two values, either is an edge
        best = max(arm["trials"], key=lambda trial: trial["score"])
        assert arm["chosen"] == best["values"] and {run["target"] for run in best["runs"]} == {"market", "duke"}
        assert best["score"] == pytest.approx(sum(run["map_step"] for run in best["runs"]) / len(best["runs"]))
    sources = [
        json.loads((tmp_path / "models/smoke" / path.name / "log.jsonl").read_text().splitlines()[0])
        for path in (tmp_path / "models/smoke").glob("source--*")
    ]
    # one a value and network, shared by targets and by the trials of the other arm
    assert len(sources) == 2 * len(found["arms"]["source/patch"]["trials"])
    assert tuning.tune("smoke", places, workers=1, search=search, trials=2)["arms"] == found["arms"]
    text = tuning.lines(found)
    assert [line["arm"] for line in text] == list(found["arms"])


# --- part of the target ---


def test_a_run_on_part_of_the_target_is_given_that_part_and_no_more(places, monkeypatch):
    rows = {"half": Row("half", people=0.5), "pairs": Row("pairs", "neighbours", images=0.5)}
    for name, row in rows.items():
        monkeypatch.setitem(ROWS, name, replace(row, of="paul"))
    whole = ReidDataset.load(f"{places.data}/smoke/market").split("train")
    given = []
    for name in rows:
        spec = Spec(name, "market", 0, "smoke")
        train = spec.method.train

        def seen(task, train=train):
            given.append(task.images(task.image_size).images)
            return train(task)

        method = replace(spec.method, train=seen)
        monkeypatch.setitem(METHODS, ROWS[name].method, method)
        made = run_one(spec, places)
        assert made["spec"]["given"] == {"people": ROWS[name].people, "images": ROWS[name].images}
        assert spec.hash != replace(spec, row="paul").hash and not records.outdated(made, places)
    images = load_images(whole, PROFILES["smoke"].image_size)
    for found, share in zip(given, ("people", "images")):
        rows_of = [(images == image).flatten(1).all(1).nonzero().item() for image in found]
        people, counts = np.unique(whole.person_ids[rows_of], return_counts=True)
        everybody, all_counts = np.unique(whole.person_ids, return_counts=True)
        assert len(people) == (2 if share == "people" else 5) and len(everybody) == 5
        assert counts.tolist() == (all_counts[: len(people)] / (2 if share == "images" else 1)).tolist()
    assert Row("whole").share == 1 and "given" not in SPEC.data()
    for wrong in ({"people": 0.0}, {"images": 1.5}):
        with pytest.raises(ValueError, match="a share is above 0 and at most 1"):
            Row("wrong", **wrong)


def test_neighbourhoods_are_measured_on_what_adabn_was_given_and_change_no_score(places):
    spec = Spec("patch_neighbours", "market", 0, "smoke")
    made, adabn = run_one(spec, places), run_one(replace(spec, row="patch_adabn"), places)
    assert {name: made["metrics"][name] for name in adabn["metrics"]} == adabn["metrics"]
    model = experiments.outcome_of(spec, experiments.source_model(spec, places)[0], places).model
    split = ReidDataset.load(f"{places.data}/smoke/market").split("train")
    described = experiments.extract(model, load_images(split, PROFILES["smoke"].image_size))
    patches = described.unflatten(1, (model.options.num_patches, -1)).unbind(1)
    for cameras, name in ((None, "purity"), (split.camera_ids, "across")):
        whole, *each = (
            purity(neighbours(part, 10, cameras), split.person_ids).mean().item() for part in (described, *patches)
        )
        assert made["metrics"][f"whole_{name}"] == pytest.approx(100 * whole)
        assert made["metrics"][f"patch_{name}"] == pytest.approx(100 * sum(each) / len(each))

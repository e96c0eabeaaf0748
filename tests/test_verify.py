"""`python -m book verify` on tiny runs: the same bits, an edit that the index shows, and one that only a run shows."""

import json

import pytest
from people import TINY

from book.__main__ import main
from paul.experiments.profiles import PROFILES
from paul.experiments.runner import run_one
from paul.experiments.specs import Places, Spec
from paul.experiments.verify import differences, kind_of_machine
from paul.report.seal import seal

pytestmark = pytest.mark.usefixtures("tiny_smoke")


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """Two records as they were computed, without their models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "smoke", TINY)
        folder = tmp_path_factory.mktemp("made")
        places = Places(str(data), str(folder / "results"), str(folder / "models"), "cpu")
        specs = [Spec("paul", "market", 0, "smoke"), Spec("lomo", "duke", 0, "smoke")]
        return [(places.record(spec).relative_to(folder), run_one(spec, places)) for spec in specs]


@pytest.fixture
def verify(made, data, tmp_path, capsys):
    """Write both records, changed by a function and sealed before or after it; run the command."""

    def run(*arguments, change=None, seal_first=True):
        for name, record in made:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(json.dumps(record))
        path = tmp_path / made[0][0]
        if seal_first:
            seal(tmp_path / "results")
        if change:
            record = json.loads(path.read_text())
            change(record, path)
            if path.exists():
                path.write_text(json.dumps(record))
        if not seal_first:
            seal(tmp_path / "results")
        places = ["--data", str(data), "--results", str(tmp_path / "results"), "--profile", "smoke", "--device", "cpu"]
        code = main(["verify", *places, *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_record_computed_again_has_the_same_bits(verify, tmp_path):
    code, out, _ = verify("--row", "paul")
    assert code == 0 and "paul--market--s0" in out and "the same bits" in out and "--pick" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]  # models and records of its own are gone


def test_one_number_chooses_the_same_record_again(verify):
    chosen = {pick: verify("--pick", pick)[1].split("smoke/")[1].split("--")[0] for pick in ("1", "2", "3")}
    assert chosen["3"] == verify("--pick", "3")[1].split("smoke/")[1].split("--")[0]


def test_an_edited_record_is_noticed_by_the_index_and_after_a_new_seal_by_its_run(verify):
    def better(record, path):
        record["metrics"]["map_step"] += 1e-9

    code, out, _ = verify("--row", "lomo", change=better)
    assert code == 1 and "has changed since" in out and "1 of 1 records computed again agree" in out
    code, out, _ = verify("--row", "paul", change=better, seal_first=False)
    assert code == 1 and "metrics.map_step is" in out and "has changed" not in out and "0 of 1" in out


def test_a_missing_record_is_noticed(verify):
    code, out, _ = verify("--row", "lomo", change=lambda record, path: path.unlink())
    assert code == 1 and "is missing" in out


def test_another_machine_has_a_tolerance(verify):
    def elsewhere(shift):
        def change(record, path):
            record["machine"] = "another processor, 64 cores, Linux"
            record["metrics"]["minp"] += -shift if record["metrics"]["minp"] > 50 else shift

        return change

    code, out, _ = verify("--row", "paul", change=elsewhere(4.9), seal_first=False)
    assert code == 0 and "within 5 points, on another kind of machine" in out
    code, out, _ = verify("--row", "paul", "--tolerance", "4", change=elsewhere(4.9), seal_first=False)
    assert code == 1 and "metrics.minp is" in out


def test_what_can_not_be_computed_again_is_said(verify, tmp_path):
    def older(record, path):
        record["numerics"]["method"] = 0

    code, out, err = verify("--row", "paul", change=older, seal_first=False)
    assert (
        code == 2 and "1 of 1 records are of other options, arithmetic" in out and "no record of profile smoke" in err
    )
    code, _, err = verify("--row", "lomo", "--data", str(tmp_path / "none"))
    assert code == 2 and "python -m data_prep synthetic --profile smoke" in err


def test_cores_and_python_make_no_other_kind_of_machine(made):
    record = made[0][1]
    other = {**record, "machine": record["machine"].replace(" cores", "0 cores"), "seconds": None}
    assert kind_of_machine(other) == kind_of_machine(record) and differences(record, other) == []
    for change in ({"threads": 2}, {"device": "cuda"}, {"versions": {**record["versions"], "torch": "0"}}):
        assert kind_of_machine({**record, **change}) != kind_of_machine(record)
    curve = json.loads(json.dumps(record))
    curve["curve"][0]["loss"] += 1e-12
    assert [line.split(" ")[0] for line in differences(record, curve)] == ["curve.1.loss"]
    assert differences(record, {**curve, "threads": 2}) == []

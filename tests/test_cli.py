"""The command line as a user meets it: every command on tiny data, what it prints, and what it says when told off."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from people import SIZE

from paul import __version__, checkpoint, cli
from paul.commands._shared import overridden
from paul.options import AdaptOptions

pytestmark = pytest.mark.usefixtures("tiny_smoke")
ROOT = Path(__file__).parents[1]
COMMON = ["--profile", "smoke", "--device", "cpu"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def paul(data, work, capsys, monkeypatch):
    """Run a command in a folder whose data/ is the tiny study; returns exit code, output and complaints."""
    monkeypatch.chdir(work)
    if not (work / "data").exists():
        (work / "data").symlink_to(data)
        (work / "book").symlink_to(ROOT / "book")  # the published tables and the claims

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.split("\r")[-1]

    return run


@pytest.fixture
def start(paul, work):
    """A trained source model."""
    if not (work / "source/checkpoint.pt").exists():
        assert paul("pretrain", *COMMON, "--out", "source")[0] == 0
    return "source/checkpoint.pt"


def test_pretrain_says_what_it_wrote_and_resumes(paul, work):
    code, out, _ = paul("pretrain", *COMMON, "--out", "source")
    assert code == 0 and out.startswith("source/checkpoint.pt: 2 epochs, last loss ")
    assert paul("pretrain", *COMMON, "--out", "source")[:2] == (0, out)
    assert len((work / "source/log.jsonl").read_text().splitlines()) == 2


def test_adapt_then_evaluate(paul, work, start):
    code, out, _ = paul("adapt", *COMMON, "--init", start, "--out", "adapted", "--target", "duke")
    assert code == 0 and out.startswith("adapted/model.pt: 2 epochs, last loss ")
    code, out, _ = paul("evaluate", *COMMON, "--init", "adapted/model.pt", "--data", "data/smoke/duke")
    lines = out.splitlines()
    assert code == 0 and [line.split()[0] for line in lines[:-1]] == [
        "rank1",
        "rank5",
        "rank10",
        "rank20",
        "map_step",
        "map_trapezoid",
        "minp",
    ]
    assert all(0 <= float(line.split()[1]) <= 100 and line.split()[2] == "%" for line in lines[:-1])
    # person 40 stands in the query, but in no other camera
    assert lines[-1] == "4 queries; 1 left out: no image of theirs from another camera"
    code, out, _ = paul(
        "evaluate",
        *COMMON,
        "--init",
        "adapted/model.pt",
        "--data",
        "data/smoke/duke",
        "--splits",
        "val_query,val_gallery",
    )
    assert code == 0 and out.endswith("1 queries; 0 left out: no image of theirs from another camera\n")


def test_images_kept_on_disk_train_the_same_network(paul, work, start):
    for place in ("memory", "disk"):
        out = f"from {place}"
        assert paul("adapt", *COMMON, "--init", start, "--out", out, "--images", place)[0] == 0
    files = list((work / "build/images").glob("*.uint8"))
    assert [file.stat().st_size for file in files] == [20 * 3 * SIZE[0] * SIZE[1]]
    one, other = (checkpoint.load(work / f"from {place}/model.pt")[0].state_dict() for place in ("memory", "disk"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_checkpoint_knows_the_size_of_its_images(paul, work, start):
    assert paul("adapt", *COMMON, "--init", start, "--out", "sized")[0] == 0
    assert checkpoint.load(work / start)[0].image_size == checkpoint.load(work / "sized/model.pt")[0].image_size == SIZE
    evaluate = ["evaluate", "--device", "cpu", "--init", "sized/model.pt", "--data", "data/smoke/market"]
    asked, unasked = paul(*evaluate, "--profile", "smoke"), paul(*evaluate)
    assert asked == unasked and asked[0] == 0
    for command in (evaluate, ["adapt", "--device", "cpu", "--init", start, "--out", "other"]):
        code, _, err = paul(*command, "--profile", "mini")
        assert code == 1 and f"--profile mini has images of 96x48, but {command[4]} was trained on 40x24" in err
    assert not (work / "other").exists()


def test_adabn_changes_statistics_only(paul, work, start):
    code, out, _ = paul("adapt", *COMMON, "--init", start, "--data", "data/smoke/duke", "--adabn")
    assert (code, out) == (0, "models/duke-adabn/model.pt: batch-norm statistics of the target\n")
    before, after = (checkpoint.load(work / file)[0] for file in (start, "models/duke-adabn/model.pt"))
    kept = dict(after.named_parameters())
    assert all(torch.equal(value, kept[name]) for name, value in before.named_parameters() if name in kept)
    assert not torch.equal(before.branch_norm.running_mean, after.branch_norm.running_mean)


def test_settings_reach_the_training(paul, work, start):
    settings = ["network.generator=equal", "pretrain.epochs=1", "pretrain.peak_rate=1", "pretrain.positive=hardest"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert paul("pretrain", *COMMON, "--out", "set", *arguments)[0] == 0
    state = checkpoint.read(work / "set/checkpoint.pt")
    spec = json.loads(state["training"]["spec"])
    assert state["options"]["generator"] == "equal" and spec["options"]["peak_rate"] == 1.0
    assert (spec["options"]["epochs"], spec["options"]["positive"]) == (1, "hardest")
    settings = ["adapt.loss_v=false", "adapt.crop_area=[0.5,0.6]", "adapt.epochs=1", "adapt.loss_c=pull"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert paul("adapt", *COMMON, "--init", start, "--out", "set target", *arguments)[0] == 0
    spec = json.loads(checkpoint.read(work / "set target/checkpoint.pt")["training"]["spec"])
    assert (spec["options"]["loss_v"], spec["options"]["crop_area"]) == (False, [0.5, 0.6])
    assert spec["options"]["loss_c"] == "pull"


def test_settings_are_spelled_as_in_json_or_in_python():
    for none, true in (("null", "true"), ("None", "True")):
        options = overridden(AdaptOptions(), "adapt", [f"adapt.loss_c={none}", f"adapt.drop_last={true}"])
        assert options.loss_c is None and options.drop_last is True


def test_run_and_report(paul, work):
    study = ["--results", "results", "--models", "models"]
    run = ["run", "table3", *COMMON, *study, "--seeds", "0", "--targets", "market", "--rows", "patch_direct,patch_lv"]
    code, out, _ = paul(*run, "--plan")
    plan = [line for line in out.splitlines() if not line.startswith(" ")]
    assert code == 0 and plan[0] == "profile smoke: 2 runs, 2 to compute" and not (work / "results").exists()
    code, out, err = paul(*run, "--workers", "1")
    assert code == 0, err
    assert out.startswith(plan[0])
    assert sorted(path.stem for path in (work / "results/runs/smoke").iterdir()) == sorted(plan[1:])
    for line in out.splitlines():
        if line.startswith("results/"):
            assert (work / line).is_file(), line
    assert (work / "results/tables/smoke/table3.csv").is_file()
    assert paul(*run)[1].startswith("profile smoke: 2 runs, 0 to compute\n")
    code, again, _ = paul("report", "--results", "results")
    assert code == 0 and again.splitlines() == [line for line in out.splitlines()[1:] if not line.startswith(" ")]


def test_models_are_named_by_rows_seed_data_and_profile(paul, work):
    code, _, err = paul("models", "--models", "nowhere")
    assert (
        code == 1
        and err == "paul models: --models nowhere: no trained networks below it; 'paul run' puts its own there\n"
    )
    study = ["--results", "named", "--models", "models", "--workers", "1"]
    assert paul("run", "table3", *COMMON, *study, "--seeds", "0", "--targets", "market", "--rows", "patch_lv")[0] == 0
    other = work / "models/smoke/another/checkpoint.pt"
    other.parent.mkdir()
    other.write_bytes(b"no checkpoint")
    code, out, err = paul("models", "--models", "models")
    other.unlink()
    files, said = out.splitlines()[::2], [line.strip() for line in out.splitlines()[1::2]]
    assert code == 0 and all((work / file).is_file() for file in files)
    assert err.startswith("paul models: models/smoke/another/checkpoint.pt is not a checkpoint of the study")
    assert said[0].startswith("source model of patch_direct, ") and ", paul" in said[0].partition(";")[0]
    assert said[0].endswith("PatchNet, 2 patches (small); trained on smoke/source, seed 0, profile smoke")
    assert said[1].startswith("target model of patch_lv; PatchNet") and "trained on smoke/market" in said[1]


def test_an_outdated_record_is_told_in_one_line(paul, work):
    path = next((work / "results/runs/smoke").glob("patch_direct--*"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "numerics": {}}))
    run = [
        "run",
        "table3",
        *COMMON,
        "--results",
        "results",
        "--models",
        "models",
        "--seeds",
        "0",
        "--targets",
        "market",
        "--rows",
        "patch_direct",
        "--workers",
        "1",
    ]
    code, out, err = paul(*run)
    assert code == 0 and out.startswith("profile smoke: 1 runs, 0 to compute")
    assert err.startswith(f"paul run: 1 of 1 records are outdated; {path.name} was measured with other arithmetic; --")
    code, out, _ = paul(*run, "--fresh")
    assert code == 0 and out.startswith("profile smoke: 1 runs, 1 to compute")
    assert json.loads(path.read_text())["numerics"]


def test_skipped_images_are_named(paul, data, tmp_path):
    from people import pairs, write_set

    folder = write_set(tmp_path / "set", {"train": pairs(range(1, 7), 2)})
    broken = next((folder / "bounding_box_train").iterdir())
    broken.write_bytes(broken.read_bytes()[:100])
    arguments = ["pretrain", *COMMON, "--out", tmp_path / "model", "--data", folder]
    code, _, err = paul(*arguments)
    assert code == 1 and broken.name in err and "--skip-unreadable" in err
    code = cli.main([str(argument) for argument in [*arguments, "--skip-unreadable"]])
    assert code == 0


def test_ctrl_c_says_how_to_go_on(paul, work, start, monkeypatch):
    from paul.engine import run as engine

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(engine.Steps, "add", interrupt)
        code, _, err = paul("adapt", *COMMON, "--init", start, "--out", "stopped")
    assert code == 130 and err.endswith("paul adapt: interrupted; the same command goes on where it was\n")
    assert paul("adapt", *COMMON, "--init", start, "--out", "stopped")[0] == 0


def test_python_m_paul():
    done = subprocess.run(
        [sys.executable, "-m", "paul", "--version"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == __version__


@pytest.mark.parametrize("arguments", [[], ["train"], ["pretrain"], ["run"], ["report", "--profiles"]])
def test_usage_errors_show_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2 and "usage: paul" in capsys.readouterr().err


def test_every_command_explains_itself(capsys):
    for command in ("pretrain", "adapt", "evaluate", "run", "report", "tune"):
        with pytest.raises(SystemExit) as left:
            cli.main([command, "--help"])
        assert left.value.code == 0 and "--" in capsys.readouterr().out

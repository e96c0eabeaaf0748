"""Whatever is wrong, the command line ends with 1 and one line that names the file or option; nothing is lost."""

import pickle
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from people import ADAPT, NETWORK, PRETRAIN, adapt, pairs, pretrain, write_set

from paul import checkpoint, cli
from paul.experiments import load_runs, trained_model
from paul.experiments.records import recorded_profiles
from paul.patchnet import PatchNet
from paul.report.tables import write_tables

pytestmark = pytest.mark.usefixtures("tiny_smoke")
ROOT = Path(__file__).parents[1]
COMMON = ["--profile", "smoke", "--device", "cpu"]


@pytest.fixture
def refused(data, tmp_path, capsys, monkeypatch):
    """Run a command that must fail; returns its one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data)
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "start.pt", PatchNet(NETWORK, num_classes=6))

    def run(command, *arguments):
        assert cli.main([command, *(COMMON if command != "report" else []), *map(str, arguments)]) == 1
        lines = capsys.readouterr().err.split("\r")[-1].strip().splitlines()
        message = lines[-1]
        # besides it only a bar that was left standing, or where a training had begun
        assert all("run/s" in line or line.startswith("training on ") for line in lines[:-1])
        assert message.startswith(f"paul {command}: ")
        return message

    return run


def mischief(path):
    path.write_bytes(pickle.dumps(print, protocol=2))


def truncated(path):
    path.write_bytes(path.read_bytes()[:5000])


def other(path):
    torch.save({"conv1.weight": torch.zeros(1)}, path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (mischief, ["start.pt is refused", "run code"]),
        (truncated, ["start.pt is truncated"]),
        (other, ["start.pt was not written by paul.checkpoint.save"]),
        (lambda path: path.unlink(), ["no checkpoint at"]),
    ],
)
@pytest.mark.parametrize(
    "command", [["adapt", "--out", "new"], ["evaluate", "--data", "data/smoke/market"]], ids=["adapt", "evaluate"]
)
def test_checkpoints(refused, tmp_path, command, damage, words):
    damage(tmp_path / "start.pt")
    message = refused(*command, "--init", "start.pt")
    assert all(word in message for word in words)
    assert not (tmp_path / "new").exists()


def test_checkpoints_of_the_authors(refused):
    assert "not a released PAUL checkpoint: new.down.0.0.weight is missing" in refused(
        "adapt", "--released", "start.pt", "--out", "new"
    )
    assert "--init CHECKPOINT or --released FILE" in refused("adapt", "--out", "new")
    assert "--init CHECKPOINT or --released FILE" in refused(
        "adapt", "--init", "start.pt", "--released", "start.pt", "--out", "new"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "adapt.k=0"], "k must be positive, got 10.0 and 0"),
        (["--set", "adapt.s=-1"], "s and k must be positive, got -1.0 and 3"),
        (["--set", "adapt.k=many"], "--set adapt.k=many: k must be int"),
        (["--set", "adapt.loss_v=1"], "--set adapt.loss_v=1: loss_v must be bool"),
        (["--set", "adapt.loss_c=3"], "--set adapt.loss_c=3: loss_c must be str or null"),
        (["--set", "adapt.crop_area=[1]"], "--set adapt.crop_area=[1]: crop_area must be"),
        (["--set", "adapt.batch=21"], "batch 21 is larger than the set of 20 images; lower adapt.batch"),
        (["--set", "adapt.batch=1"], "batch at least 2"),
        (
            ["--set", "adapt.kk=1"],
            "--set adapt.kk=1: write --set adapt.KEY=VALUE with KEY one of bank_init, bank_surrogates",
        ),
        (["--set", "adapt.k"], "--set adapt.k: write --set adapt.KEY=VALUE"),
        (["--set", "pretrain.epochs=1"], "--set pretrain.epochs=1: options of this command begin with adapt"),
        (["--target", "msmt"], "--target msmt: profile smoke has market, duke"),
        (["--device", "cuda:99"], "--device cuda:99: this machine has"),
        (["--device", "gpu"], "--device gpu: no such device"),
        (["--device", "meta"], "--device meta: no such device; it is cpu, cuda or a numbered cuda:1"),
        (["--set", "adapt.lr=NaN"], "--set adapt.lr=NaN: lr must be float"),
        (["--set", "adapt.lr=-1e999"], "--set adapt.lr=-1e999: lr must be float"),
        (["--set", "adapt.k=" + "9" * 5000], "k must be int"),
        (["--set", "adapt.k=" + "[" * 100_000], "k must be int"),
        (["--profile", "huge"], "unknown profile 'huge'; there are smoke, mini, gpu, paper"),
        (["--data", "nowhere"], "nowhere/index.csv does not exist"),
    ],
)
def test_options_of_adapt(refused, arguments, words, tmp_path):
    assert words in refused("adapt", "--init", "start.pt", "--out", "new", *arguments)
    assert not (tmp_path / "new/checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "network.num_patches=0"], "num_patches and dim must be at least 1, got 0"),
        (["--set", "network.generator=grid"], "generator must be one of"),
        (["--set", "network.backbone=resnet51"], "unknown backbone 'resnet51'"),
        (["--set", "pretrain.batch=25"], "batch 25 is larger than the set of 24 images; lower pretrain.batch"),
        (["--set", "pretrain.epochs=0"], "epochs and batch must be at least 1"),
        (["--weights", "none.pth"], "no weight file at none.pth"),
        (["--weights", "start.pt"], "start.pt is not a weight file"),
    ],
)
def test_options_of_pretrain(refused, arguments, words):
    assert words in refused("pretrain", "--out", "new", *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table9"], "unknown table 'table9'"),
        (["table3", "--seeds", "x"], "seeds must look like 0-2"),
        (["table3", "--seeds", "0-1000000000000"], "'0-1000000000000' name 1,000,000,000,001 seeds; one command takes"),
        (["table3", "--seeds", "0-3,5-999999999999999999"], "one command takes 100 at most"),
        (["table3", "--seeds", "9" * 5000], "seeds must look like 0-2 or 0,3,5 in 18 digits at most"),
        (["table3", "--seeds", "2147483648"], "a seed is a whole number from 0 to 2147483647"),
        (["table3", "--rows", "all"], "unknown row 'all'"),
        (["table3", "--targets", "msmt"], "unknown target 'msmt'"),
        (
            ["table3", "--data", "nowhere", "--workers", "1"],
            "nowhere/smoke/source, nowhere/smoke/market, nowhere/smoke/duke: python -m data_prep synthetic",
        ),
    ],
)
def test_options_of_run(refused, arguments, words, tmp_path):
    assert words in refused("run", *arguments, "--results", "results", "--models", "models")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("pretrain", "--seed", str(10**23)),
        ("pretrain", "--seed", "-1"),
        ("adapt", "--seed", "1.5"),
        ("run", "--workers", "0"),
        ("tune", "--workers", "-3"),
        ("run", "--task", "-1"),
        ("embed", "--batch", "0"),
        ("rank", "--batch", "9" * 5000),
    ],
)
def test_numbers_have_ranges(command, option, value, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([command, option, value])
    *_, line = capsys.readouterr().err.splitlines()
    assert left.value.code == 2 and line.startswith(f"paul {command}: error: argument {option}: {value[:40]}")
    assert "must be a whole number from" in line


def test_seeds_that_no_generator_takes(source, trained, target, tmp_path):
    for seed in (-1, 2**31, 10**23):
        with pytest.raises(ValueError, match=f"seed={seed}: a seed is a whole number from 0 to 2147483647"):
            pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "source", seed=seed)
        with pytest.raises(ValueError, match=f"seed={seed}: a seed is a whole number"):
            adapt(trained[0], target, ADAPT, folder=tmp_path / "target", seed=seed)
    assert not list(tmp_path.iterdir())


def test_names_that_become_paths_are_those_there_are(data, tmp_path):
    for wrong in ("../../etc", "/etc", "", "source", None):
        with pytest.raises(ValueError, match="unknown target .*; there are market, duke"):
            trained_model("paul", wrong, 0, "smoke", data, tmp_path / "models")
    with pytest.raises(ValueError, match="unknown row '../paul'"):
        trained_model("../paul", "market", 0, "smoke", data, tmp_path / "models")
    for function in (load_runs, lambda results, profile: write_tables(results, profile, tmp_path)):
        with pytest.raises(ValueError, match="unknown profile '../../..'; there are smoke, mini, gpu, paper"):
            function(tmp_path / "results", "../../..")
    assert not list(tmp_path.iterdir())


def test_a_report_without_records_says_so_and_writes_nothing(refused, tmp_path):
    book = ["--book", ROOT / "book"]
    assert "--results nowhere: there are no run records below nowhere/runs;" in refused(
        "report", "--results", "nowhere", *book
    )
    (tmp_path / "results/runs/smoke").mkdir(parents=True)
    for profile, words in {
        "smoke": "below results/runs/smoke;",
        "../../../etc": "unknown profile '../../../etc'",
    }.items():
        assert words in refused("report", "--profile", profile, *book)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir() and path.parent != tmp_path) == [
        "runs",
        "smoke",
    ]


def test_folders_of_no_profile_are_left_out_of_a_report(tmp_path):
    for name in ("mini", "mini.old"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs/.DS_Store").touch()
    with pytest.warns(UserWarning, match="runs/mini.old is of no profile; left out"):
        assert recorded_profiles(tmp_path) == ["mini"]


def test_splits_of_evaluate(refused):
    base = ["evaluate", "--init", "start.pt", "--data", "data/smoke/market", "--splits"]
    assert "--splits query: name two" in refused(*base, "query")
    assert "no images in split 'test'" in refused(*base, "query,test")


def edited(folder, change):
    index = folder / "index.csv"
    index.write_text(change(index.read_text()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("person_id", "person"), "index.csv lacks the column 'person_id'"),
        (lambda text: text.replace(",train,", ",training,"), "line 2: unknown split 'training'"),
        (lambda text: text + text.splitlines()[1] + "\n", "is listed twice"),
        (lambda text: text.splitlines()[0] + "\n", "lists no images"),
        (lambda text: text.replace(",train,", ",query,"), "no images in split 'train'"),
    ],
)
def test_indexes(refused, tmp_path, change, words):
    folder = write_set(tmp_path / "set", {"train": pairs(range(1, 7), 2)})
    edited(folder, change)
    assert words in refused("pretrain", "--data", folder, "--out", "new")


def test_images_and_folders(refused, tmp_path):
    folder = write_set(tmp_path / "set", {"train": pairs(range(1, 7), 2)})
    image = folder / "bounding_box_train" / sorted(p.name for p in (folder / "bounding_box_train").iterdir())[3]
    image.write_bytes(image.read_bytes()[:200])
    assert f"cannot read the image {image}" in refused("pretrain", "--data", folder, "--out", "new")
    (tmp_path / "empty").mkdir()
    assert "empty/index.csv does not exist" in refused("pretrain", "--data", tmp_path / "empty", "--out", "new")
    (tmp_path / "file").touch()
    assert "file" in refused("pretrain", "--out", "file/new")


def test_queries_without_any_match(refused, tmp_path):
    folder = write_set(tmp_path / "set", {"query": [(1, 1), (2, 1)], "gallery": [(1, 1), (3, 2)]})
    assert "none of the 2 queries has an image of its person from another camera" in refused(
        "evaluate", "--init", "start.pt", "--data", folder
    )


def test_two_runs_and_another_training_in_one_folder(refused, tmp_path):
    (tmp_path / "new").mkdir()
    with FileLock(tmp_path / "new/.lock"):
        assert "another run is writing new; wait for it or choose another folder" in refused("pretrain", "--out", "new")
    arguments = [*COMMON, "--out", "new", "--set", "pretrain.epochs=1"]
    assert cli.main(["pretrain", *arguments]) == 0
    kept = (tmp_path / "new/checkpoint.pt").read_bytes()
    assert "new holds another training (other seed)" in refused("pretrain", *arguments[4:], "--seed", "1")
    assert (tmp_path / "new/checkpoint.pt").read_bytes() == kept


def test_a_full_disk(refused, tmp_path, monkeypatch):
    arguments = ["--out", "new", "--set", "pretrain.epochs=1"]
    assert cli.main(["pretrain", *COMMON, *arguments]) == 0
    kept = (tmp_path / "new/checkpoint.pt").read_bytes()
    (tmp_path / "new/checkpoint.pt").rename(tmp_path / "kept.pt")

    def full(state, file):
        file.write(b"the beginning")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        message = refused("pretrain", *arguments)
    assert "could not write new/checkpoint.next.pt ([Errno 28] No space left on device)" in message
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".lock", "log.jsonl"]
    assert (tmp_path / "kept.pt").read_bytes() == kept

"""Where a backbone's weights come from: torchvision's folder, a download, a file; and that their content is checked."""

import hashlib
import zipfile
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from people import SIZE, TINY, pairs, write_set

from paul import checkpoint, cli, weights
from paul.backbones import build_backbone
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.experiments.profiles import PROFILES
from paul.experiments.specs import specs_of
from paul.pretrain import pretrain
from paul.weights import content_of, hash_in, imagenet_file


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torchvision's folder, empty, and no way to download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def offline(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    return tmp_path / "torch/hub/checkpoints"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(2)
    return torchvision.models.resnet18().state_dict()


def stored(state, folder, name="resnet18-{}.pth"):
    """The file with the beginning of its own hash in its name, as torchvision's are."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    return (folder / "new.pth").rename(folder / name.format(digest[:8]))


def publish(monkeypatch, file):
    """Make torchvision's ResNet-18 weights those of this file."""

    class Published:
        url = f"https://example.org/models/{file.name}"

        @staticmethod
        def get_state_dict(**options):
            from torch.hub import load_state_dict_from_url

            return load_state_dict_from_url(Published.url, **options)

    monkeypatch.setattr(weights, "published", lambda backbone: Published)


def test_the_papers_weights_are_the_ones_of_its_time(hub):
    assert imagenet_file("resnet50") == hub / "resnet50-0676ba61.pth"
    assert PROFILES["paper"].weights == "imagenet" and PROFILES["paper"].network.backbone == "resnet50"


@pytest.mark.parametrize(
    "error",
    [
        URLError("no route"),
        TimeoutError("too slow"),
        IncompleteRead(b"x"),
        RuntimeError('invalid hash value (expected "0676ba61", got "1234")'),
    ],
)
def test_without_a_network_the_message_names_the_file_and_its_place(hub, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(OSError) as refused:
        build_backbone("resnet50", "imagenet")
    for words in (
        "ImageNet weights of resnet50",
        "https://",
        "resnet50-0676ba61.pth",
        "weights=FILE",
        f"put it at {hub / 'resnet50-0676ba61.pth'}",
    ):
        assert words in str(refused.value)
    assert not hub.exists() or not list(hub.iterdir())


def test_a_download_is_checked_kept_and_used_again(hub, tmp_path, state, monkeypatch):
    origin = stored(state, tmp_path / "server")
    publish(monkeypatch, origin)
    fetched = []

    def download(url, target, hash_prefix, progress):
        assert hash_prefix == hash_in(origin.name) and url.endswith(origin.name)
        fetched.append(url)
        Path(target).write_bytes(origin.read_bytes())

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    for _ in range(2):
        body, _ = build_backbone("resnet18", "imagenet")
        assert torch.equal(body.state_dict()["conv1.weight"], state["conv1.weight"])
    assert len(fetched) == 1


def test_a_file_in_torchvisions_folder_is_used_and_a_damaged_one_named(hub, state, monkeypatch):
    file = stored(state, hub)
    publish(monkeypatch, file)
    body, _ = build_backbone("resnet18", "imagenet")
    assert torch.equal(body.state_dict()["conv1.weight"], state["conv1.weight"])
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(
        ValueError, match=f"{file.name} cannot be read as weights: damaged or cut short.*fetch it again"
    ):
        build_backbone("resnet18", "imagenet")


def test_a_hash_in_the_name_is_kept_to(tmp_path, state):
    good = stored(state, tmp_path)
    build_backbone("resnet18", str(good))
    other = tmp_path / "resnet18-f37072fd.pth"
    other.write_bytes(good.read_bytes())
    with pytest.raises(ValueError, match=r"f37072fd.pth cannot be read as weights: .*its name says f37072fd; delete"):
        build_backbone("resnet18", str(other))
    plain = good.rename(tmp_path / "my-weights.pth")
    build_backbone("resnet18", str(plain))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("resnet50-19c8e357.pth", "19c8e357"),
        ("x-0676ba61.pt", "0676ba61"),
        ("resnet50.pth", ""),
        ("model-best.pth", ""),
        ("resnet50-0676ba6.pth", ""),
        ("-deadbeefcafe.pth", "deadbeefcafe"),
    ],
)
def test_hashes_in_names(name, found):
    assert hash_in(name) == found


def test_content_counts_and_not_the_path(tmp_path, state, monkeypatch):
    file = stored(state, tmp_path)
    assert content_of("resnet18", None) is None and content_of("resnet18", "imagenet") == "imagenet"
    said = content_of("resnet18", str(file))
    assert said == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    publish(monkeypatch, file)
    moved = file.rename(tmp_path / "elsewhere.pth")
    assert content_of("resnet18", str(moved)) == "imagenet", "torchvision's file, whatever it is called"
    assert content_of("small", str(moved)) == said
    with pytest.raises(FileNotFoundError, match="no weight file at .*gone.pth"):
        content_of("resnet18", str(tmp_path / "gone.pth"))


def test_other_weights_make_other_runs(tmp_path, state, monkeypatch):
    file = stored(state, tmp_path)
    plain = specs_of("table1", "paper", [0], rows=["paul"])
    other = specs_of("table1", "paper", [0], rows=["paul"], weights=str(file))
    assert plain[0].hash != other[0].hash and other[0].source()["weights"] == content_of("resnet50", str(file))
    publish(monkeypatch, file)
    assert specs_of("table1", "paper", [0], rows=["paul"], weights=str(file)) == plain


@pytest.fixture
def small_weights(tmp_path):
    torch.manual_seed(7)
    body, _ = build_backbone("small")
    torch.save(body.state_dict(), tmp_path / "small.pth")
    return tmp_path / "small.pth"


def test_files_of_torch_before_1_6_are_read(small_weights):
    state = torch.load(small_weights, weights_only=True)
    torch.save(state, small_weights, _use_new_zipfile_serialization=False)
    body, _ = build_backbone("small", str(small_weights))
    assert all(torch.equal(value, state[name]) for name, value in body.state_dict().items())


@pytest.mark.parametrize("kind", ["compressed", "without numbers", "of another layout", "a view", "a number's worth"])
def test_weights_are_whole_tensors(small_weights, kind):
    state = torch.load(small_weights, weights_only=True)
    changes = {
        "without numbers": lambda value: value.to("meta"),
        "of another layout": lambda value: value.to_sparse(),
        "a view": lambda value: torch.zeros(1).expand(value.shape),
    }
    if kind in changes:
        torch.save({**state, "0.weight": changes[kind](state["0.weight"])}, small_weights)
    elif kind == "compressed":
        with zipfile.ZipFile(small_weights) as archive:
            entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        with zipfile.ZipFile(small_weights, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
    else:
        small_weights.write_bytes(b"\x80\x02cbuiltins\nbytearray\n\x8a\x04\x01\x00\x00\x40\x85R.")
    with pytest.raises(ValueError, match="small.pth (is not a weight file|cannot be read as weights)"):
        build_backbone("small", str(small_weights))


def test_weights_reach_the_runs_of_a_table(data, small_weights, tmp_path, capsys, tiny_smoke):
    places = ["--data", str(data), "--results", str(tmp_path / "results"), "--models", str(tmp_path / "models")]
    run = [
        "run",
        "table3",
        "--profile",
        "smoke",
        "--device",
        "cpu",
        "--seeds",
        "0",
        "--targets",
        "market",
        "--rows",
        "patch_direct",
        "--workers",
        "1",
        *places,
    ]
    with pytest.MonkeyPatch.context() as patch:  # at a rate of zero the source model keeps what it started from
        patch.setitem(PROFILES, "smoke", replace(TINY, pretrain=replace(TINY.pretrain, peak_rate=0.0)))
        assert cli.main([*run, "--weights", str(small_weights)]) == 0, capsys.readouterr().err
    (file,) = (tmp_path / "models/smoke").glob("source--*/checkpoint.pt")
    model, training = checkpoint.load(file)
    given = torch.load(small_weights, weights_only=True)
    assert all(torch.equal(value, given[name]) for name, value in model.backbone.named_parameters())
    assert content_of("small", str(small_weights)) in training["spec"] and str(small_weights) not in training["spec"]
    assert cli.main([*run, "--weights", str(tmp_path / "none.pth")]) == 1
    assert "no weight file at" in capsys.readouterr().err


def test_a_training_goes_on_without_loading_what_it_began_with(data, small_weights, tmp_path, monkeypatch):
    """The checkpoint holds more than the first weights: a finished or stopped training needs no download again."""
    split = ReidDataset.load(data / "smoke/source").split("train")
    arguments = (load_images(split, SIZE), split.person_ids, TINY.network, TINY.pretrain)
    built = []
    monkeypatch.setattr(
        "paul.patchnet.build_backbone", lambda name, weights: built.append(weights) or build_backbone(name, weights)
    )
    options = {"folder": tmp_path / "model", "device": "cpu", "weights": str(small_weights)}
    (first, _), (again, _) = pretrain(*arguments, **options), pretrain(*arguments, **options)
    assert built == [str(small_weights), None]
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    moved = small_weights.rename(tmp_path / "moved.pth")
    pretrain(*arguments, **{**options, "weights": str(moved)})
    with pytest.raises(ValueError, match="holds another training .other weights"):
        pretrain(*arguments, **{**options, "weights": None})


@pytest.mark.parametrize(
    "command", [["run", "table1", "--rows", "paul", "--seeds", "0"], ["pretrain", "--out", "model"]]
)
def test_missing_weights_are_told_before_images_are_decoded(command, hub, tmp_path, monkeypatch, capsys):
    def decode(*_, **__):
        raise AssertionError("images were read before the weights were there")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "book").symlink_to(Path(__file__).parents[1] / "book")
    for name in ("msmt17", "market1501", "dukemtmc"):
        write_set(tmp_path / "data" / name, {"train": pairs(range(1, 4)), "query": [(7, 1)], "gallery": [(7, 2)]})
    monkeypatch.setattr("paul.data.pixels.load_pixels", decode)
    monkeypatch.setattr("paul.experiments.runner.load_pixels", decode)
    assert cli.main([*command, "--profile", "paper"]) == 1
    err = capsys.readouterr().err
    assert "ImageNet weights of resnet50 could not be downloaded" in err and "resnet50-0676ba61.pth" in err

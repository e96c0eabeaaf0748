"""Models for others: what is exported gives the same descriptors, and its card says what it is."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from people import NETWORK, SIZE, at_most, same_weights

from paul import checkpoint
from paul.checkpoint import save
from paul.data.passes import extract
from paul.patchnet import PatchNet
from paul.retrieval.export import load_safetensors, model_card, open_model, save_onnx, save_safetensors
from paul.retrieval.extractor import Extractor


def network(generator: str = "pgn", stage: str = "target"):
    """Weights and statistics away from where they start."""
    torch.manual_seed(0)
    options = NETWORK.image_level() if generator == "image" else replace(NETWORK, generator=generator)
    model = PatchNet(options, num_classes=3)
    if generator == "pgn":
        model.generator.fc_loc[2].weight.data.normal_(std=0.05)
    model.train()
    for _ in range(3):
        model(torch.randn(16, 3, *SIZE) + 1)
    model.image_size = SIZE
    model = model.to(memory_format=torch.channels_last)  # as training has it
    return (model.to_target() if stage == "target" else model).eval()


@pytest.mark.parametrize(
    "generator, stage", [("pgn", "target"), ("pgn", "source"), ("image", "target"), ("random", "target")]
)
def test_safetensors_give_back_the_same_network(generator, stage, tmp_path):
    model, path = network(generator, stage), tmp_path / "a folder" / "model.safetensors"
    save_safetensors(model, path, {"spec": json.dumps({"stage": "target", "seed": 7})})
    again, training = load_safetensors(path)
    assert same_weights(again, model) and again.options == model.options
    assert (again.stage, again.num_classes, again.image_size) == (stage, model.num_classes, SIZE)
    assert json.loads(training["spec"]) == {"stage": "target", "seed": 7}
    images = torch.randint(0, 256, (5, 3, *SIZE), dtype=torch.uint8)
    assert torch.equal(extract(again, images), extract(model, images))
    assert torch.equal(Extractor(path)(images), Extractor(model)(images))
    assert open_model(path)[1] == training


def test_safetensors_can_be_read_without_paul(tmp_path):
    from safetensors.torch import load_file

    model = network()
    save_safetensors(model, tmp_path / "m.safetensors")
    found = load_file(tmp_path / "m.safetensors")
    assert found.keys() == model.state_dict().keys()
    assert load_safetensors(tmp_path / "m.safetensors")[1] == {}


def test_damaged_and_foreign_files_are_named(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="m.safetensors"):
        load_safetensors(path)
    save_safetensors(network(), path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="m.safetensors is damaged, or no exported model"):
            load_safetensors(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="'paul export' did not write it"):
        load_safetensors(path)
    with safe_metadata(path, whole) as about:
        about["options"]["dim"] = 9
    with pytest.raises(ValueError, match="m.safetensors does not fit its own options .branch.weight and 6 others"):
        load_safetensors(path)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": [float("inf"), 24]},
        {"image_size": [10**6, 10**6]},
        {"image_size": [40.0, 24]},
        {"image_size": "40"},
        {"stage": "sauce"},
        {"stage": "source", "num_classes": 10**7},
        {"options": {"num_patches": 10**6}},
        {"options": {"dim": 10**6}},
        {"options": {"pgn_hidden": 10**7}},
        {"options": {"backbone": "resnet50"}},
        {"options": {"embedding_dim": 10**30}},
    ],
    ids=str,
)
def test_what_a_file_says_of_its_network_is_held_against_its_tensors_before_one_is_made(change, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_safetensors(network(), path)
    with safe_metadata(path, path.read_bytes()) as about:
        for key, value in change.items():
            about[key] = {**about[key], **value} if isinstance(value, dict) else value
    made = []
    init = PatchNet.__init__

    def counted(self, *given, **named):
        init(self, *given, **named)
        made.append(sum(value.numel() for value in self.state_dict().values() if value.device.type != "meta"))

    monkeypatch.setattr(PatchNet, "__init__", counted)
    with pytest.raises(ValueError, match="m.safetensors does not fit its own options"):
        load_safetensors(path)
    assert sum(made) == 0


def test_a_pipe_is_no_model_and_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "m.safetensors")
    with at_most(20, tmp_path / "m.safetensors"), pytest.raises(ValueError, match="m.safetensors .*it is a pipe"):
        load_safetensors(tmp_path / "m.safetensors")


class safe_metadata:
    """Rewrite the description inside an exported file."""

    def __init__(self, path, whole):
        self.path, self.whole = path, whole

    def __enter__(self):
        length = int.from_bytes(self.whole[:8], "little")
        self.header, self.rest = json.loads(self.whole[8 : 8 + length]), self.whole[8 + length :]
        self.about = json.loads(self.header["__metadata__"]["paul"])
        return self.about

    def __exit__(self, *_):
        self.header["__metadata__"]["paul"] = json.dumps(self.about)
        header = json.dumps(self.header).encode()
        self.path.write_bytes(len(header).to_bytes(8, "little") + header + self.rest)


@pytest.mark.parametrize("generator", ["pgn", "equal", "image"])
def test_onnx_gives_the_same_descriptors_for_any_batch(generator, tmp_path):
    import onnxruntime

    model, path = network(generator), tmp_path / "model.onnx"
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_onnx(model, path)
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [part.name for part in (*session.get_inputs(), *session.get_outputs())] == ["images", "features"]
    rng = np.random.default_rng(0)
    for batch in (1, 2, 3, 9):
        images = rng.integers(0, 256, (batch, 3, *SIZE), dtype=np.uint8)
        (features,) = session.run(None, {"images": images})
        expected = extract(model, torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)
    assert expected.std(0).max() > 1e-2  # the tolerance is far below what tells images apart


def test_onnx_refuses_what_it_cannot_repeat(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="random patches"):
        save_onnx(network("random"), tmp_path / "model.onnx")
    model = network("equal")
    model.image_size = None
    with pytest.raises(ValueError, match="which image size"):
        save_onnx(model, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(RuntimeError, match=r"paul-book\[export\]"):
        save_onnx(network("equal"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_card_says_size_width_data_and_duty():
    spec = {
        "stage": "target",
        "seed": 3,
        "options": {"epochs": 4, "lr": 0.03},
        "data": {"name": "mine", "images": 1234, "licence": "ours alone", "fingerprint": "abcdef1234567890"},
        "from": {"stage": "source", "seed": 0, "images": "0123", "options": {"epochs": 12}, "code": "x"},
    }
    card = model_card(network(), "guard", {"spec": json.dumps(spec)}, trained_on="Crops of our yard, 2026.")
    for words in (
        "40 x 24 (rows x columns)",
        "16 numbers: 2 patches of 8",
        "guard.safetensors",
        "guard.onnx",
        "[0.485, 0.456, 0.406]",
        "Crops of our yard, 2026.",
        "licence ours alone",
        "images 1234",
        "abcdef123456",
        "epochs 4, lr 0.03",
        "surveillance",
    ):
        assert words in card, words
    assert card.index("- source stage") < card.index("- target stage")
    assert "The checkpoint does not say." in model_card(network(), "guard")
    assert "- Starting from `old.pt`." in model_card(network(), "g", {"spec": json.dumps({**spec, "from": "old.pt"})})


@settings(max_examples=40)
@given(
    spec=st.recursive(
        st.none() | st.booleans() | st.text(max_size=5) | st.integers(),
        lambda inner: st.dictionaries(st.sampled_from(["stage", "data", "options", "from", "seed"]), inner),
        max_leaves=6,
    )
)
def test_no_spec_keeps_a_card_from_being_written(card_model, spec):
    assert model_card(card_model, "m", {"spec": json.dumps(spec)}).startswith("# m\n")  # it is for people: no crash


@pytest.fixture(scope="module")
def card_model():
    return network()


@pytest.fixture
def paul(capsys):
    from paul import cli

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.split("\r")[-1]

    return run


@pytest.mark.usefixtures("tiny_smoke")
def test_from_crops_to_a_ranked_page_as_a_user_types_it(paul, trained, tmp_path, monkeypatch):
    """A folder without labels, prepared, adapted, described, ranked and exported; each command once more at will."""
    from people import pairs, write_set

    from data_prep.__main__ import main as data_prep

    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "source of crops", {"train": pairs(range(1, 9), 2)})
    (tmp_path / "source of crops/bounding_box_train").rename(tmp_path / "crops")
    assert data_prep(["folder", "--raw", "crops", "--name", "mine", "--pattern", r"_c(?P<camera_id>\d)"]) == 0
    assert "-1" in (tmp_path / "data/mine/index.csv").read_text()
    adapt = [
        "adapt",
        "--data",
        "data/mine",
        "--init",
        trained[1] / "checkpoint.pt",
        "--device",
        "cpu",
        "--set",
        "adapt.batch=8",
        "--set",
        "adapt.epochs=2",
        "--set",
        "adapt.k=3",
    ]
    code, out, err = paul(*adapt)
    assert code == 0 and out.splitlines()[-1].startswith("models/mine/model.pt: 2 epochs"), err
    epochs = (tmp_path / "models/mine/log.jsonl").read_text()
    assert paul(*adapt)[0] == 0 and (tmp_path / "models/mine/log.jsonl").read_text() == epochs  # nothing left to do
    use = ["--init", "models/mine/model.pt", "--device", "cpu"]
    assert paul("embed", "crops/*.png", *use, "-o", "crops.parquet")[:2] == (
        0,
        f"crops.parquet: 32 images, {NETWORK.num_patches * NETWORK.dim} numbers each\n",
    )
    one = next((tmp_path / "crops").iterdir()).relative_to(tmp_path)
    for gallery, out in (("data/mine", "ranked.png"), ("crops.parquet", "page.html")):
        assert paul("rank", "--query", one, "--gallery", gallery, *use, "-o", out, "-k", 5)[:2] == (
            0,
            f"{out}: 1 queries against 32 images, exact search\n",
        )
    page = (tmp_path / "page.html").read_text()
    assert page.count("<li") == 6 and page.count("data:image/jpeg") == 6
    assert (
        paul("rank", "--query", "data/mine", "--gallery", "data/mine", *use, "-o", "cameras.html", "--other-cameras")[0]
        == 0
    )
    for out in ("deep/mine.safetensors", "deep/mine.onnx"):
        code, text, err = paul("export", "models/mine/model.pt", "-o", out)
        assert code == 0 and text.startswith(f"{out}: ") and text.endswith("described in deep/mine.md\n"), err
    card = (tmp_path / "deep/mine.md").read_text()
    assert "mine (images 32;" in card and "- source stage" in card and "40 x 24" in card
    features = Extractor("deep/mine.safetensors")(one)
    assert torch.equal(features, Extractor("models/mine/model.pt")(one))
    # whose descriptors are these?
    code, _, err = paul(
        "rank",
        "--query",
        one,
        "--gallery",
        "crops.parquet",
        "--init",
        trained[1] / "checkpoint.pt",
        "-o",
        "other.html",
        "--device",
        "cpu",
    )
    assert code == 1 and "was described by another network" in err and not (tmp_path / "other.html").exists()
    asked = ["rank", "--query", one, *use]
    for arguments, message in (
        ((*asked, "--gallery", "gone", "-o", "a.png"), "gone: no such file"),
        ((*asked, "--gallery", "crops", "-o", "a.gif"), ".png or .html"),
        (("export", "models/mine/model.pt", "-o", "model.pt"), ".safetensors or .onnx"),
        (("export", "gone.pt", "-o", "model.onnx"), "gone.pt"),
    ):
        code, _, err = paul(*arguments)
        assert code == 1 and message in err and err.count("\n") == 1, err


def test_a_released_size_of_network_takes_the_paper_s_options():
    from argparse import Namespace

    from paul.commands._shared import network_size

    asked = Namespace(profile=None, init="model.pt", released=None)
    small, large = network(), network()
    large.options = replace(large.options, backbone="resnet50")
    large.image_size = None
    assert network_size(asked, small)[0].name == "mini" and network_size(asked, small)[1] == SIZE
    assert network_size(asked, large)[0].name == "paper" and network_size(asked, large)[1] == (384, 128)


def test_an_adapted_model_of_an_older_file_still_exports(tmp_path):
    model = network()
    save(tmp_path / "model.pt", model)
    assert checkpoint.load(tmp_path / "model.pt")[1] == {} and open_model(tmp_path / "model.pt")[0].image_size == SIZE

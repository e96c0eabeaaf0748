"""Checkpoints: what comes back, what is refused, what a full disk leaves; the authors' own file, evaluated twice."""

import os
import pickle
import shutil
import stat
import zipfile
from dataclasses import replace

import pytest
import torch
import torchvision
from people import at_most
from torch.nn import functional as F

from paul import checkpoint
from paul.bench.literal import sample_patches
from paul.options import PatchNetOptions
from paul.patchnet import PatchNet

OPTIONS = PatchNetOptions(backbone="small", num_patches=2, dim=8, pgn_channels=8, pgn_hidden=8)


def model(options=OPTIONS, num_classes=3):
    torch.manual_seed(0)
    return PatchNet(options, num_classes=num_classes)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def file(tmp_path):
    checkpoint.save(tmp_path / "model.pt", model(), epoch=7)
    return tmp_path / "model.pt"


# --- there and back ---


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        replace(OPTIONS, generator="equal", freeze_pgn="eval"),
        replace(OPTIONS, generator="random"),
        OPTIONS.image_level(),
    ],
)
@pytest.mark.parametrize("stage", ["source", "target"])
def test_network_and_training_state_come_back_bit_for_bit(options, stage, tmp_path):
    network = model(options).to(memory_format=torch.channels_last)  # as training has it
    if stage == "target":
        network.to_target()
    memory = {"bank": torch.randn(2, 5, 8), "filled": torch.ones(5, dtype=torch.bool)}
    checkpoint.save(tmp_path / "a/b/model.pt", network, memory=memory, epoch=3, notes=["x", None, 1.5])
    loaded, training = checkpoint.load(tmp_path / "a/b/model.pt", options)
    assert same(loaded, network) and loaded.options == options and loaded.stage == stage
    assert loaded.embedding.weight.requires_grad is (stage == "source")
    assert torch.equal(training["memory"]["bank"], memory["bank"]) and training["memory"]["filled"].all()
    assert (training["epoch"], training["notes"]) == (3, ["x", None, 1.5])
    x = torch.rand(2, 3, 48, 32)
    with torch.no_grad():
        assert torch.equal(loaded.eval().describe(x), network.eval().describe(x))


def test_the_image_size_comes_back_and_older_files_have_none(tmp_path):
    network = model()
    for size in (None, (40, 24)):
        network.image_size = size
        checkpoint.save(tmp_path / "model.pt", network)
        assert checkpoint.load(tmp_path / "model.pt")[0].image_size == size
    state = checkpoint.read(tmp_path / "model.pt")
    torch.save({**state, "image_size": (40, 0)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt does not fit its own options .*1 to 4096.* got \(40, 0\)"):
        checkpoint.load(tmp_path / "model.pt")
    del state["image_size"]
    torch.save(state, tmp_path / "model.pt")
    assert checkpoint.load(tmp_path / "model.pt")[0].image_size is None


def test_another_architecture_is_refused_and_says_how_it_differs(file):
    with pytest.raises(ValueError, match=r"model.pt holds another architecture \(num_patches: 2 in the file, 6 expec"):
        checkpoint.load(file, replace(OPTIONS, num_patches=6))
    state = checkpoint.read(file)
    for change, message in (
        ({"format": 99}, "was not written by paul.checkpoint.save"),
        ({"options": {**state["options"], "depth": 9}}, "another version of paul .*depth"),
        ({"options": {**state["options"], "dim": 4}}, "does not fit its own options"),
    ):
        torch.save({**state, **change}, file)
        with pytest.raises(ValueError, match=f"model.pt {message}|model.pt comes from {message}"):
            checkpoint.load(file)
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="model.pt was not written by .* use import_released"):
        checkpoint.load(file)


# --- files that are not what they should be ---


class Mischief:
    def __reduce__(self):
        return os.system, ("touch the-code-was-run",)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    place = content.find(model().branch.weight.detach().numpy().tobytes())
    content[place + 50] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": cut,
    "one bit flipped": flip,
    "emptied": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("a page that says 404"),
    "html": lambda path: path.write_text("<html>404</html>"),
    "code": lambda path: path.write_bytes(pickle.dumps(Mischief(), protocol=2)),
    "code in a checkpoint": lambda path: torch.save({"format": 1, "model": Mischief()}, path),
    "a whole module": lambda path: torch.save(torch.nn.Linear(1, 1), path),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_named_and_code_is_not_run(file, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    DAMAGE[name](file)
    with pytest.raises(ValueError, match=r"model.pt is (refused|truncated, damaged or no checkpoint)") as caught:
        checkpoint.load(file)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert not (tmp_path / "the-code-was-run").exists()


@pytest.mark.parametrize(
    "training", [5, [], {"spec": 5}, {"spec": "no JSON"}, {"spec": "[" * 10**5}], ids=lambda it: repr(it)[:20]
)
def test_what_does_not_say_how_it_was_trained_is_refused(file, training):
    torch.save({**checkpoint.read(file), "training": training}, file)
    with pytest.raises(ValueError, match="model.pt does not say how it was trained"):
        checkpoint.load(file)


def test_a_target_network_that_claims_classes_makes_none(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "model.pt", model().to_target())
    torch.save({**checkpoint.read(tmp_path / "model.pt"), "num_classes": 10**7}, tmp_path / "model.pt")
    asked = []
    made = PatchNet.__init__

    def init(self, *given, num_classes=None, **named):
        if torch.empty(0).device.type != "meta":
            asked.append(num_classes)
        made(self, *given, num_classes=num_classes, **named)

    monkeypatch.setattr(PatchNet, "__init__", init)
    assert checkpoint.load(tmp_path / "model.pt")[0].classifier is None and asked == [None]


def call(name, size):
    """A pickle that calls `name` with a number."""
    return b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n\x8a\x04" + size.to_bytes(4, "little") + b"\x85R."


@pytest.mark.parametrize("name", ["builtins bytearray", "__builtin__ bytearray", "torch Tensor", "torch FloatTensor"])
@pytest.mark.parametrize("kind", ["plain", "archive", "archive behind it"])
def test_no_memory_is_made_out_of_a_number(file, name, kind):
    """From some bytes of a file, torch would make gigabytes."""
    content = call(name, 2**30 + 1)
    if kind == "archive":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model/data.pkl", content)
            archive.writestr("model/version", "3\n")
            archive.writestr("model/byteorder", "little")
    else:
        file.write_bytes(content + file.read_bytes() * (kind != "plain"))
    with pytest.raises(ValueError, match="model.pt is refused: it is no checkpoint, or holds more than tensors"):
        checkpoint.load(file)


def test_a_pipe_is_no_checkpoint_and_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "model.pt")
    with (
        at_most(20, tmp_path / "model.pt"),
        pytest.raises(ValueError, match="model.pt is .*no checkpoint .it is a pipe"),
    ):
        checkpoint.load(tmp_path / "model.pt")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*model.pt"):
        checkpoint.load(tmp_path / "model.pt")


# --- writing ---


def full_disk(after):
    """A write that runs out of space once it has written so many bytes."""

    def write(file):
        file.write(b"x" * after)
        raise OSError(28, "No space left on device")

    return write


def test_a_full_disk_leaves_the_old_file_and_nothing_else(file):
    before = file.read_bytes()
    with pytest.raises(OSError, match="could not write .*model.pt .*No space left.*what was there before is untouched"):
        checkpoint.write_atomically(file, full_disk(100_000))
    assert file.read_bytes() == before and os.listdir(file.parent) == ["model.pt"]


def test_a_disk_that_fills_up_while_torch_writes(file, monkeypatch):
    before, save = file.read_bytes(), torch.save

    class Full:
        def __init__(self, inner):
            self.inner, self.room = inner, 20_000

        def write(self, content):
            self.room -= len(content)
            if self.room < 0:
                raise OSError(28, "No space left on device")
            return self.inner.write(content)

    monkeypatch.setattr(torch, "save", lambda state, file: save(state, Full(file)))
    with pytest.raises(OSError, match="could not write .*model.pt .*Free some space"):
        checkpoint.save(file, model(num_classes=5))
    assert file.read_bytes() == before and os.listdir(file.parent) == ["model.pt"]


def test_interrupted_writing_leaves_the_old_file_and_nothing_else(file):
    def interrupted(out):
        out.write(b"half")
        raise KeyboardInterrupt

    before = file.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write_atomically(file, interrupted)
    assert file.read_bytes() == before and os.listdir(file.parent) == ["model.pt"]


def test_files_get_the_usual_permissions(file, tmp_path):
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


# --- the authors' checkpoint ---

DIM, EMBEDDING, HIDDEN, CHANNELS, PATCHES, CLASSES = 256, 128, 32, 64, 3, 5


@pytest.fixture(scope="module")
def released():
    """A state dict of the released code's shape and key names, with a narrow localisation network."""
    torch.manual_seed(0)
    backbone = torchvision.models.resnet50()
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items() if not key.startswith("fc.")}

    def norm(name, width):
        state.update(
            {
                f"{name}.weight": torch.rand(width) + 0.5,
                f"{name}.bias": torch.randn(width),
                f"{name}.running_mean": torch.randn(width),
                f"{name}.running_var": torch.rand(width) + 0.5,
                f"{name}.num_batches_tracked": torch.tensor(9),
            }
        )

    def layer(name, *shape):
        state.update({f"{name}.weight": 0.02 * torch.randn(shape), f"{name}.bias": 0.1 * torch.randn(shape[0])})

    for i in range(PATCHES):
        layer(f"new.down.{i}.0", DIM, 2048, 1, 1)
        norm(f"new.down.{i}.1", DIM)
        layer(f"new.fc_list.{i}", CLASSES, DIM)
        layer(f"new.embedding.{i}", EMBEDDING, DIM)
    layer("patch_proposal.localization.0", CHANNELS, 2048, 3, 3)
    norm("patch_proposal.localization.1", CHANNELS)
    layer("patch_proposal.fc_loc.0", HIDDEN, CHANNELS)
    layer("patch_proposal.fc_loc.2", 6 * PATCHES, HIDDEN)
    state["patch_proposal.fc_loc.2.bias"][::3] += 0.7
    return {f"module.{key}": value for key, value in state.items()}


def from_scratch(state, x):
    """The same equations, written out with the functions of torch and the weights by their released names."""
    backbone = torchvision.models.resnet50()
    backbone.layer4[0].conv2.stride = backbone.layer4[0].downsample[0].stride = (1, 1)
    backbone.load_state_dict(
        {key.removeprefix("module.backbone."): value for key, value in state.items() if "backbone" in key}, strict=False
    )
    b = backbone.eval()
    feature_map = b.layer4(b.layer3(b.layer2(b.layer1(b.maxpool(b.relu(b.bn1(b.conv1(x))))))))

    def get(name, *parts):
        return [state[f"module.{name}.{part}"] for part in parts]

    def norm(y, name):
        weight, bias, mean, var = get(name, "weight", "bias", "running_mean", "running_var")
        return F.batch_norm(y, mean, var, weight, bias)

    p = "patch_proposal"
    y = norm(F.conv2d(feature_map, *get(f"{p}.localization.0", "weight", "bias")), f"{p}.localization.1").relu()
    y = F.max_pool2d(y, 3, 2, 1).mean((2, 3))
    y = F.linear(y, *get(f"{p}.fc_loc.0", "weight", "bias")).relu()
    theta = F.linear(y, *get(f"{p}.fc_loc.2", "weight", "bias")).view(-1, PATCHES, 2, 3)
    features, embeddings, logits = [], [], []
    for i, patch in enumerate(sample_patches(feature_map, theta)):
        y = F.conv2d(patch.mean((2, 3), keepdim=True), *get(f"new.down.{i}.0", "weight", "bias"))
        y = norm(y, f"new.down.{i}.1").flatten(1)
        features.append(y)
        embeddings.append(get(f"new.embedding.{i}", "weight", "bias"))
        logits.append(F.linear(y.relu(), *get(f"new.fc_list.{i}", "weight", "bias")))
    return features, embeddings, logits


def test_released_checkpoint_computes_what_its_equations_say(released, tmp_path):
    x = torch.randn(2, 3, 128, 64)
    torch.save({"state_dict": released, "epoch": 60}, tmp_path / "released.pth")
    with torch.no_grad():
        features, embeddings, logits = from_scratch(released, x)
        target = checkpoint.import_released(tmp_path / "released.pth").eval()
        source = checkpoint.import_released(released, stage="source").eval()
        found, found_source = target(x), source(x)
    assert target.stage == "target" and target.options == source.options == PatchNetOptions(
        num_patches=PATCHES, embedding_dim=EMBEDDING, pgn_channels=CHANNELS, pgn_hidden=HIDDEN
    )
    for i in range(PATCHES):
        unit = F.normalize(features[i])
        torch.testing.assert_close(found.features[i], unit, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.embeddings[i], unit @ F.normalize(embeddings[i][0]).T, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found_source.features[i], features[i].relu(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            found_source.embeddings[i], F.linear(features[i].relu(), *embeddings[i]), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(found_source.logits[i], logits[i], atol=1e-4, rtol=1e-4)


def test_released_checkpoint_of_an_old_torch_has_no_batch_counters(released):
    old = {key: value for key, value in released.items() if not key.endswith("num_batches_tracked")}
    a, b = (checkpoint.import_released(state) for state in (old, released))
    assert torch.equal(a.branch_norm.running_var, b.branch_norm.running_var)


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("module.new.down.0.0.weight", "new.down.0.0.weight is missing"),
        ("module.new.embedding.0.weight", "new.embedding.0.weight is missing"),
        ("module.patch_proposal.localization.0.weight", "localization.0.weight is missing"),
        ("module.patch_proposal.fc_loc.0.weight", "fc_loc.0.weight"),
        ("module.backbone.layer3.0.conv1.weight", "backbone.layer3.0.conv1.weight"),
        ("module.new.down.2.1.running_mean", "down"),
    ],
)
def test_released_checkpoint_that_lacks_a_key(released, key, named):
    with pytest.raises(ValueError, match=f"not a released PAUL checkpoint.*{named}"):
        checkpoint.import_released({name: value for name, value in released.items() if name != key})


def test_released_checkpoint_that_does_not_fit(released, file):
    with pytest.raises(ValueError, match="stage must be 'source' or 'target', got 'both'"):
        checkpoint.import_released(released, stage="both")
    wrong = {**released, "module.backbone.conv1.weight": torch.zeros(64, 1, 7, 7)}
    with pytest.raises(ValueError, match="not a released PAUL checkpoint: .*backbone.conv1.weight"):
        checkpoint.import_released(wrong)
    without = {key: value for key, value in released.items() if "fc_list" not in key}
    with pytest.raises(ValueError, match="new.fc_list.0.weight is missing"):
        checkpoint.import_released(without, stage="source")
    with pytest.raises(ValueError, match="not a released PAUL checkpoint"):
        checkpoint.import_released(file)
    shutil.rmtree(file.parent)
    with pytest.raises(FileNotFoundError):
        checkpoint.import_released(file)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": 5},
        [1, 2],
        "text",
        {"state_dict": {3: torch.zeros(2)}},
        {"state_dict": {"a": "text"}},
        {"new.down.0.0.weight": torch.zeros(()), "new.embedding.0.weight": torch.zeros(())},
        {"new.down.0.0.weight": torch.zeros(1).expand(10**9, 2)},
        {"backbone.conv1.weight": torch.zeros(2).to_sparse()},
    ],
)
def test_what_is_no_released_checkpoint_is_refused_in_words(content, tmp_path):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="file.pth is not a released PAUL checkpoint: "):
        checkpoint.import_released(tmp_path / "file.pth")


def test_rows_of_nothing_make_no_network(released, tmp_path, monkeypatch):
    """A tensor of a million rows without columns takes no byte, and its length is a width of the network."""
    torch.save(
        {**released, "module.patch_proposal.localization.0.weight": torch.zeros(10**6, 0)}, tmp_path / "file.pth"
    )
    made = []
    init = PatchNet.__init__

    def counted(self, *given, **named):
        made.append(torch.empty(0).device.type)
        init(self, *given, **named)

    monkeypatch.setattr(PatchNet, "__init__", counted)
    with pytest.raises(ValueError, match="file.pth is not a released PAUL checkpoint: .*do not fit"):
        checkpoint.import_released(tmp_path / "file.pth")
    assert made == ["meta"]

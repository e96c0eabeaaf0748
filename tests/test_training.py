"""Both training stages on a few tiny images: repeatable, resumed bit for bit, stopped with a name, nothing lost."""

import json
import os
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from filelock import FileLock
from people import ADAPT, NETWORK, PRETRAIN, SIZE, write_study
from torch.nn import functional as F

from paul import adapt as target_stage
from paul import checkpoint, engine
from paul import pretrain as source_stage
from paul.adapt import AdaptOptions, PaulLoss, fill_bank
from paul.datasets import ReidDataset
from paul.images import load_images, normalize, unit_range
from paul.patchnet import PatchNetOutput
from paul.pretrain import Partners, PretrainOptions

# bit for bit holds on a CPU
pretrain = partial(source_stage.pretrain, device="cpu")
adapt = partial(target_stage.adapt, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def source(data):
    split = ReidDataset.load(data / "smoke/source").split("train")
    return load_images(split, SIZE), split.person_ids


@pytest.fixture(scope="module")
def target(data):
    return load_images(ReidDataset.load(data / "smoke/market").split("train"), SIZE)


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    """A source model and the folder it was trained in, never stopped."""
    folder = tmp_path_factory.mktemp("source")
    return pretrain(*source, NETWORK, PRETRAIN, folder=folder), folder


@pytest.fixture(scope="module")
def adapted(trained, target, tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    return adapt(trained[0], target, ADAPT, folder=folder), folder


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def same_weights(a, b):
    return same(a.state_dict(), b.state_dict())


def flat(state, prefix=""):
    """Every tensor of nested dicts and lists, by its path; the rest as it is."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {path: value for key, part in items for path, value in flat(part, f"{prefix}/{key}").items()}
    return {prefix: state}


def same_checkpoints(folder, other):
    """Network, optimiser, memories, random state and curve alike; only the clock may differ."""
    a, b = (flat(checkpoint.read(Path(f) / "checkpoint.pt")) for f in (folder, other))
    for state in (a, b):
        history = json.loads(state.pop("/training/history"))
        state["history"] = [{key: value for key, value in line.items() if key != "seconds"} for line in history]
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a)


def at_step(monkeypatch, number, action):
    """Do something when the losses of the number-th step have been computed."""
    count, add = [0], engine.Progress.add

    def counted(self, **losses):
        count[0] += 1
        if count[0] == number:
            action()
        return add(self, **losses)

    monkeypatch.setattr(engine.Progress, "add", counted)


def interrupt():
    raise KeyboardInterrupt


# --- seeds ---


def test_a_seed_repeats_and_another_differs(source, target, trained, adapted, tmp_path):
    assert same_weights(pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "same"), trained[0])
    assert not same_weights(pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "other", seed=1), trained[0])
    assert same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path / "target"), adapted[0])
    assert same_checkpoints(tmp_path / "target", adapted[1])
    assert not same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path / "target1", seed=1), adapted[0])


def test_a_finished_folder_is_loaded(source, target, trained, adapted, monkeypatch):
    monkeypatch.setattr(engine.Progress, "add", None)  # no step is taken
    again = pretrain(*source, NETWORK, PRETRAIN, folder=trained[1])
    assert same_weights(again, trained[0]) and again.history == trained[0].history
    assert same_weights(adapt(again, target, ADAPT, folder=adapted[1]), adapted[0])


# --- stopped and resumed ---


@pytest.mark.parametrize("step", [1, 2, 5], ids=["first step", "first epoch", "second epoch"])
@pytest.mark.parametrize("generator", ["pgn", "random"])
def test_an_interrupted_cell_run_again_ends_the_same(source, target, generator, step, tmp_path, monkeypatch):
    network = replace(NETWORK, generator=generator)
    stages = {
        "source": lambda folder: pretrain(*source, network, PRETRAIN, folder=folder),
        "target": lambda folder: adapt(start, target, ADAPT, folder=folder),
    }
    for stage, run in stages.items():
        whole, stopped = tmp_path / f"{stage} whole", tmp_path / f"{stage} stopped"
        expected = run(whole)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            at_step(patched, step, interrupt)
            run(stopped)
        assert same_weights(run(stopped), expected)
        assert same_checkpoints(whole, stopped)
        start = expected


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from people import ADAPT, NETWORK, PRETRAIN, SIZE
from paul import checkpoint, engine
from paul.adapt import adapt
from paul.datasets import ReidDataset
from paul.images import load_images
from paul.pretrain import pretrain

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
data, out = Path({data!r}), Path({out!r})
split = ReidDataset.load(data / "smoke/source").split("train")
images = load_images(split, SIZE)
{before}
model = pretrain(images, split.person_ids, NETWORK, PRETRAIN, folder=out / "source")
{between}
adapt(model, load_images(ReidDataset.load(data / "smoke/market").split("train"), SIZE), ADAPT, folder=out / "target")
"""
IN_AN_EPOCH = """
steps, add = [0], engine.Progress.add
def counted(self, **losses):
    steps[0] += 1
    return add(self, **losses) if steps[0] < 5 else die()
engine.Progress.add = counted
"""
IN_A_WRITE = """
saves, save = [0], torch.save
def half(state, file):
    saves[0] += 1
    if saves[0] < 2:
        return save(state, file)
    file.write(b"half of a checkpoint")
    file.flush()
    die()
checkpoint.torch.save = half
"""


@pytest.mark.parametrize(("before", "between", "stage"), [
    (IN_AN_EPOCH, "", "source"), ("", IN_AN_EPOCH, "target"), ("", IN_A_WRITE, "target")],
    ids=["source, in an epoch", "target, in an epoch", "target, in a write"])
def test_killed_and_run_again_ends_the_same(data, source, target, trained, adapted, before, between, stage, tmp_path):
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    script = KILLED.format(tests=str(Path(__file__).parent), data=str(data), out=str(tmp_path), before=before,
                           between=between)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          cwd=Path(__file__).parents[1], env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(json.loads(checkpoint.read(tmp_path / stage / "checkpoint.pt")["training"]["history"])) == 1

    model = pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "source")
    assert same_weights(model, trained[0]) and same_checkpoints(tmp_path / "source", trained[1])
    assert same_weights(adapt(model, target, ADAPT, folder=tmp_path / "target"), adapted[0])
    assert same_checkpoints(tmp_path / "target", adapted[1])
    for name in ("source", "target"):
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [".lock", "checkpoint.pt", "log.jsonl"]
    torch.set_num_threads(torch_threads)


# --- what a folder holds ---


def test_the_log_holds_a_line_per_epoch(trained, adapted):
    for (model, folder), names in ((trained, ["identity", "triplet"]), (adapted, ["loss_v", "loss_c"])):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert lines == model.history
        assert [list(line) for line in lines] == [["epoch", "loss", *names, "seconds"]] * 2
        assert [line["epoch"] for line in lines] == [1, 2]
    for line in trained[0].history:
        assert line["loss"] == pytest.approx(line["identity"] + PRETRAIN.triplet_weight * line["triplet"], rel=1e-5)
    for line in adapted[0].history:
        assert line["loss"] == pytest.approx(line["loss_v"] + ADAPT.lam * line["loss_c"], rel=1e-5)


def test_both_memories_are_in_the_checkpoint(adapted, target):
    training = checkpoint.read(adapted[1] / "checkpoint.pt")["training"]
    assert training["memory"]["bank"].shape == (NETWORK.num_patches, len(target), NETWORK.dim)
    assert training["centers"]["centers"].shape == (len(target), NETWORK.num_patches * NETWORK.dim // 2)
    assert training["memory"]["filled"].all() and training["centers"]["filled"].all()


def test_another_training_in_the_folder_is_refused(source, target, trained, adapted, tmp_path):
    images, ids = source
    model, folder = trained
    other_images = 255 - images
    for what, call in {
        "seed": lambda: pretrain(images, ids, NETWORK, PRETRAIN, folder=folder, seed=1),
        "options": lambda: pretrain(images, ids, NETWORK, replace(PRETRAIN, momentum=0.8), folder=folder),
        "network": lambda: pretrain(images, ids, replace(NETWORK, generator="equal"), PRETRAIN, folder=folder),
        "images": lambda: pretrain(other_images, ids, NETWORK, PRETRAIN, folder=folder),
        "images ": lambda: pretrain(images, ids[::-1].copy(), NETWORK, PRETRAIN, folder=folder),
    }.items():
        with pytest.raises(ValueError, match=rf"holds another training \(other {what.strip()}\); choose another"):
            call()
    other = deepcopy(model)
    other.branch.bias.data[0, 0] += 1
    for what, call in {
        "seed": lambda: adapt(model, target, ADAPT, folder=adapted[1], seed=1),
        "options": lambda: adapt(model, target, replace(ADAPT, s=11.0), folder=adapted[1]),
        "images": lambda: adapt(model, 255 - target, ADAPT, folder=adapted[1]),
        "weights": lambda: adapt(other, target, ADAPT, folder=adapted[1]),
    }.items():
        with pytest.raises(ValueError, match=rf"holds another training \(other {what}\)"):
            call()


def test_two_runs_in_one_folder(source, trained, tmp_path):
    (tmp_path / "new").mkdir()
    with FileLock(tmp_path / "new/.lock"), pytest.raises(RuntimeError, match="another run is writing .*new; wait"):
        pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "new")
    with FileLock(trained[1] / ".lock"):  # a finished training is there for all to read
        assert same_weights(pretrain(*source, NETWORK, PRETRAIN, folder=trained[1]), trained[0])
    pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "new")  # nobody holds the lock any more


# --- numbers that are not finite ---


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_epoch(source, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        calls, flip = [0], source_stage.random_flip

        def poison(x, generator):
            calls[0] += 1
            return flip(x, generator) * (float("nan") if calls[0] == 5 else 1)

        patched.setattr(source_stage, "random_flip", poison)
        with pytest.raises(FloatingPointError, match="source, epoch 2, step 2: not finite: loss, identity, triplet"):
            pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path)
    assert len(json.loads(checkpoint.load(tmp_path / "checkpoint.pt")[1]["history"])) == 1
    assert same_weights(pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path), trained[0])


def test_the_guilty_loss_is_named(trained, target, tmp_path, monkeypatch):
    monkeypatch.setitem(target_stage.PATCH_LOSSES, "pedal", lambda features, *_, **__: features.sum() * float("inf"))
    with pytest.raises(FloatingPointError, match="target, epoch 1, step 1: not finite: loss, loss_c. "):
        adapt(trained[0], target, ADAPT, folder=tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_step_is_exact_when_losses_are_read_rarely():
    bar = engine.tqdm(disable=True)
    progress = engine.Progress("here", bar, every=50)
    for step in range(1, 50):
        progress.add(a=torch.tensor(1.0), b=torch.tensor(float("inf") if step >= 30 else 0.0))
    with pytest.raises(FloatingPointError, match="here, step 30: not finite: b. "):
        progress.add(a=torch.tensor(1.0), b=torch.tensor(0.0))


def test_weights_that_are_not_finite_are_not_saved(source, tmp_path, monkeypatch):
    steps, step = [0], torch.optim.SGD.step

    def poison(self, *arguments):
        steps[0] += 1
        step(self, *arguments)
        if steps[0] == 6:  # the last of two epochs: no further loss would show it
            self.param_groups[0]["params"][0].data[0] = float("nan")

    monkeypatch.setattr(torch.optim.SGD, "step", poison)
    with pytest.raises(FloatingPointError, match="source, epoch 2, step 3: not finite: backbone.0.weight"):
        pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path)
    model, training = checkpoint.load(tmp_path / "checkpoint.pt")
    assert len(json.loads(training["history"])) == 1
    assert all(value.isfinite().all() for value in model.state_dict().values())


# --- source stage ---


def test_source_loss_is_the_sum_of_cross_entropies_and_the_triplet(source, tmp_path, monkeypatch):
    images, ids = source
    seen = []
    monkeypatch.setattr(source_stage, "random_flip", lambda x, generator: x)
    batch_of = source_stage.batch_of
    monkeypatch.setattr(source_stage, "batch_of", lambda images, rows, device: seen.append(rows) or batch_of(
        images, rows, device))
    options = replace(PRETRAIN, epochs=1, batch=len(images), shift=0.0)
    history = pretrain(images, ids, NETWORK, options, folder=tmp_path, seed=3).history
    rows, = seen

    real, partner = rows.chunk(2)
    assert sorted(real.tolist()) == list(range(len(images))) and (real != partner).all()
    assert (ids[real] == ids[partner]).all()
    torch.manual_seed(3)
    model = NETWORK.build(num_classes=6).train()
    output = model(normalize(images[rows].float() / 255))
    labels = torch.tensor(ids[rows]) - 1
    identity = sum(F.cross_entropy(output.logits[m], labels, label_smoothing=0.1) for m in range(2))
    together = torch.cat([output.embeddings[0], output.embeddings[1]], 1)
    triplet = reference.triplet_loss(together / together.norm(dim=1, keepdim=True), labels)
    assert history[0]["identity"] == pytest.approx(identity.item(), rel=1e-4)
    assert history[0]["triplet"] == pytest.approx(triplet.item(), rel=1e-4)
    assert history[0]["loss"] == pytest.approx(identity.item() + 0.1 * triplet.item(), rel=1e-4)


def test_source_stage_learns_its_people(source, tmp_path):
    history = pretrain(*source, NETWORK, replace(PRETRAIN, epochs=10), folder=tmp_path).history
    guessing = NETWORK.num_patches * np.log(6)
    assert history[0]["identity"] > 0.8 * guessing and history[-1]["identity"] < 0.6 * guessing


def test_the_paper_schedule_leaves_the_pgn_alone_at_first(source, tmp_path):
    options = PretrainOptions(epochs=1, batch=8)
    model = pretrain(*source, NETWORK, options, folder=tmp_path)
    torch.manual_seed(0)
    before = NETWORK.build(num_classes=6)
    assert same(dict(model.generator.named_parameters()), dict(before.generator.named_parameters()))
    assert not torch.equal(model.branch.weight, before.branch.weight)


@pytest.mark.parametrize("knob", [
    {"schedule": "paper"}, {"peak_rate": 0.04}, {"momentum": 0.5}, {"weight_decay": 0.1}, {"label_smoothing": 0.0},
    {"triplet_weight": 0.5}, {"triplet_margin": 0.5}, {"positive": "hardest"}, {"shift": 0.0}, {"batch": 7}])
def test_every_source_option_does_something(source, trained, knob, tmp_path):
    model = pretrain(*source, NETWORK, replace(PRETRAIN, **knob), folder=tmp_path)
    assert not torch.equal(model.branch.weight, trained[0].branch.weight)


def test_what_the_source_stage_refuses(source, tmp_path):
    images, ids = source
    for call, message in (
            (lambda: pretrain(images, ids, NETWORK, replace(PRETRAIN, batch=25), folder=tmp_path),
             "batch 25 is larger than the set of 24 images; lower pretrain.batch"),
            (lambda: pretrain(images, np.ones(24), NETWORK, PRETRAIN, folder=tmp_path), "at least two people"),
            (lambda: pretrain(images, ids[:-1], NETWORK, PRETRAIN, folder=tmp_path), "24 images but 23 person ids"),
            (lambda: replace(PRETRAIN, schedule="step"), "schedule must be .*'step'"),
            (lambda: replace(PRETRAIN, epochs=0), "epochs and batch must be at least 1, got 0"),
            (lambda: pretrain(images, ids, NETWORK, replace(PRETRAIN, positive="far"), folder=tmp_path),
             "positive must be .*'far'")):
        with pytest.raises(ValueError, match=message):
            call()


def test_partners_are_never_the_image_itself_and_cover_all_others_alike():
    ids = np.array([5, 3, 5, 9, 5, 3, 5])  # person 9 has a single image
    partners, generator = Partners(ids), torch.Generator().manual_seed(0)
    drawn = partners.draw(torch.arange(7).repeat(6000), generator).view(6000, 7)
    for image, person in enumerate(ids):
        others = [j for j in range(7) if ids[j] == person and j != image] or [image]
        counts = torch.bincount(drawn[:, image], minlength=7)
        assert set(counts.nonzero().flatten().tolist()) == set(others)
        expected = 6000 / len(others)
        assert all(abs(int(counts[j]) - expected) <= 5 * expected ** 0.5 for j in others)


# --- target stage ---


def test_adapting_leaves_the_given_model_and_the_pgn_alone(trained, target, adapted):
    model = trained[0]
    assert model.stage == "source" and model.classifier is not None and adapted[0].stage == "target"
    for part in ("generator", "embedding"):
        assert same(dict(getattr(adapted[0], part).named_parameters()), dict(getattr(model, part).named_parameters()))
    for part in ("backbone", "branch", "branch_norm"):
        assert not same(dict(getattr(adapted[0], part).named_parameters()),
                        dict(getattr(model, part).named_parameters()))


def test_paul_loss_is_the_papers_sum_with_both_memories():
    """Three batches, the last of them with an image that came before, against loops over lists."""
    torch.manual_seed(0)
    model = NETWORK.build().to_target()
    options = replace(ADAPT, s=5.0, k=3, r=2, lam=2.0)
    loss, bank, centers = PaulLoss(model, 12, options), reference.ListMemory(12, 2, 8), reference.CenterList(12)
    everyone = F.normalize(torch.randn(2, 12, 8), dim=-1)
    loss.memory.update(torch.arange(12), everyone)
    bank.update(torch.arange(12), everyone)
    for index in (torch.tensor([3, 1, 4, 0]), torch.tensor([5, 9, 2, 6]), torch.tensor([3, 11, 10, 7])):
        output = PatchNetOutput(F.normalize(torch.randn(2, 8, 8), dim=-1), torch.randn(2, 8, 4), None)
        found = loss(output, index)
        real = output.features[:, :4]
        bank.update(index, real)
        together = torch.cat([output.embeddings[0], output.embeddings[1]], 1)
        own = centers.update(index, torch.stack([together[:4], together[4:]], 1))
        loss_c = reference.pedal_loss(real, bank.bank, index, s=5.0, k=3)
        loss_v = reference.ipfl_loss(together, own, torch.arange(4).repeat(2), r=2)
        torch.testing.assert_close(found["loss_c"], loss_c, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["loss_v"], loss_v, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["loss"], loss_v + 2 * loss_c, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_bank_starts_as_the_features_of_all_images(trained, target, mode, monkeypatch):
    monkeypatch.setattr(target_stage, "random_flip", lambda x, generator: x)
    model = deepcopy(trained[0]).to_target()
    before = deepcopy(model)
    loss = PaulLoss(model, len(target), replace(ADAPT, bank_init=mode, batch=10))  # all 20 images at once
    fill_bank(loss, model, target, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = before.train(mode == "train")(normalize(unit_range(target))).features
    torch.testing.assert_close(loss.memory.bank, expected, atol=1e-5, rtol=1e-4)
    assert loss.memory.filled.all() and model.training
    assert same_weights(model, trained[0].to_target()) is False if mode == "train" else same_weights(model, before)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_last_single_image_enters_the_bank_too(trained, target, mode):
    model = deepcopy(trained[0]).to_target()
    loss = PaulLoss(model, 17, replace(ADAPT, bank_init=mode))
    fill_bank(loss, model, target[:17], torch.Generator().manual_seed(0))
    assert loss.memory.filled.all()
    torch.testing.assert_close(loss.memory.bank.norm(dim=2), torch.ones(2, 17))


def steps_taken(call, monkeypatch):
    sizes = []
    with monkeypatch.context() as patched:
        call_loss = PaulLoss.__call__
        patched.setattr(PaulLoss, "__call__", lambda self, output, index: sizes.append(len(index)) or call_loss(
            self, output, index))
        call()
    return sizes


@pytest.mark.parametrize(("losses", "drop_last", "sizes"), [
    ({}, False, [8, 8, 1]), ({}, True, [8, 8]),
    ({"loss_v": False}, False, [8, 8]),  # batch norm cannot train on a single image that has no surrogate
    ({"loss_c": None}, False, [8, 8, 1])])
def test_the_last_smaller_batch(trained, target, losses, drop_last, sizes, tmp_path, monkeypatch):
    options = replace(ADAPT, epochs=1, drop_last=drop_last, **losses)
    assert steps_taken(lambda: adapt(trained[0], target[:17], options, folder=tmp_path), monkeypatch) == sizes


@pytest.mark.parametrize("knob", [
    {"loss_c": "pull"}, {"loss_c": None}, {"loss_v": False}, {"lam": 1.0}, {"s": 30.0}, {"k": 4}, {"rate": 0.5},
    {"renormalize": True}, {"bank_init": "eval"}, {"margin": 1.0}, {"r": 1}, {"include_self": False},
    {"max_candidates": 1}, {"ipfl_space": "patch"}, {"ipfl_targets": "raw"}, {"epochs": 1}, {"batch": 7},
    {"drop_last": True}, {"lr": 0.02}, {"decay_epoch": 5}, {"momentum": 0.5}, {"weight_decay": 0.1},
    {"surrogate": "one"}, {"jitter": 0.4}, {"hue_turn": 0.0}, {"degrees": 0.0}, {"crop_area": (0.5, 0.6)},
    {"padding": "border"}], ids=lambda knob: "{}={}".format(*next(iter(knob.items()))))
def test_every_target_option_does_something(trained, target, adapted, knob, tmp_path):
    model = adapt(trained[0], target, replace(ADAPT, **knob), folder=tmp_path)
    assert not torch.equal(model.branch.weight, adapted[0].branch.weight)


def test_options_for_anchors_without_a_negative_and_for_testing(trained, target, adapted, tmp_path):
    few = replace(ADAPT, max_candidates=1)  # many anchors find no negative
    zero, skip = (adapt(trained[0], target, replace(few, no_negative=value), folder=tmp_path / value)
                  for value in ("zero", "skip"))
    assert not torch.equal(zero.branch.weight, skip.branch.weight)
    refreshed = adapt(trained[0], target, replace(ADAPT, refresh_statistics=True), folder=tmp_path / "refreshed")
    assert same(dict(refreshed.named_parameters()), dict(adapted[0].named_parameters()))
    assert not torch.equal(refreshed.branch_norm.running_mean, adapted[0].branch_norm.running_mean)
    tested = {field for field in AdaptOptions.__dataclass_fields__} - {"no_negative", "refresh_statistics"}
    knobs = test_every_target_option_does_something.pytestmark[0].args[1]
    assert tested == {name for knob in knobs for name in knob}


def test_what_the_target_stage_refuses(trained, target, tmp_path):
    for options, message in (
            ({"batch": 21}, "batch 21 is larger than the set of 20 images; lower adapt.batch"),):
        with pytest.raises(ValueError, match=message):
            adapt(trained[0], target, replace(ADAPT, **options), folder=tmp_path)
    for options, message in (
            ({"batch": 1}, "batch at least 2, got 2 and 1"), ({"epochs": 0}, "epochs must be at least 1"),
            ({"k": 0}, "s and k must be positive, got 10.0 and 0"), ({"s": -1.0}, "s and k must be positive"),
            ({"loss_c": None, "loss_v": False}, "nothing to train"), ({"loss_c": "push"}, "loss_c must be one of"),
            ({"surrogate": "none"}, "surrogate must be one of 'all', 'one', got 'none'"),
            ({"ipfl_space": "image"}, "ipfl_space must be"), ({"ipfl_targets": "mean"}, "ipfl_targets must be"),
            ({"bank_init": "zero"}, "bank_init must be"), ({"no_negative": "one"}, "no_negative must be")):
        with pytest.raises(ValueError, match=message):
            replace(ADAPT, **options)


# --- statistics and features ---


def test_adabn_averages_over_batches_and_changes_no_weight(trained, target):
    model = deepcopy(trained[0])
    engine.refresh_statistics(model, target, batch=7)
    assert same(dict(model.named_parameters()), dict(trained[0].named_parameters()))
    assert model.training == trained[0].training

    plain = deepcopy(trained[0]).train()
    x = normalize(target.float() / 255)
    first, means, variances = plain.backbone[0], [], []
    for start in range(3):  # 20 images in batches of at most 7, each spread over the set
        y = first(x[start::3]).detach()
        means.append(y.mean((0, 2, 3)))
        variances.append(y.transpose(0, 1).flatten(1).var(1))
    torch.testing.assert_close(model.backbone[1].running_mean, sum(means) / 3, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.backbone[1].running_var, sum(variances) / 3, atol=1e-5, rtol=1e-4)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert all(norm.num_batches_tracked == 3 and norm.momentum == 0.1 for norm in norms)
    with pytest.raises(ValueError, match="at least two images, got 1"):
        engine.refresh_statistics(model, target[:1])


def test_adabn_reaches_a_pgn_that_is_otherwise_fixed(source, target, tmp_path):
    network = replace(NETWORK, freeze_pgn="eval")
    model = pretrain(*source, network, replace(PRETRAIN, epochs=1), folder=tmp_path).to_target()
    before = model.generator.localization[1].running_mean.clone()
    engine.refresh_statistics(model, target)
    assert not torch.equal(model.generator.localization[1].running_mean, before)
    assert not model.generator.training and model.backbone.training


def test_extract_describes_each_image_and_leaves_the_model_as_it_was(trained, target):
    model = deepcopy(trained[0]).train()
    features = engine.extract(model, target, batch=7)
    assert model.training and same_weights(model, trained[0]) and features.shape == (20, 16)
    with torch.no_grad():
        expected = torch.cat([model.eval().describe(normalize(one[None].float() / 255)) for one in target])
    torch.testing.assert_close(features.clone(), expected, atol=1e-5, rtol=1e-4)


def test_device_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="--device cuda: this machine has no usable GPU"):
        engine.pick_device("cuda")

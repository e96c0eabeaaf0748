"""A training stopped anywhere, run again, ends the same bit for bit; a folder is never mixed up or left broken."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from people import ADAPT, NETWORK, PRETRAIN, adapt, pretrain, same_weights, with_history

from paul import adapt as target_stage
from paul import checkpoint, objective
from paul import pretrain as source_stage
from paul.engine import run as engine


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
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a
    )


def at_step(monkeypatch, number, action):
    """Do something when the losses of the number-th step have been computed."""
    count, add = [0], engine.Steps.add

    def counted(self, **losses):
        count[0] += 1
        if count[0] == number:
            action()
        return add(self, **losses)

    monkeypatch.setattr(engine.Steps, "add", counted)


def interrupt():
    raise KeyboardInterrupt


def steps_taken(monkeypatch):
    """Grows by one with every step."""
    taken, add = [], engine.Steps.add

    def noted(self, **losses):
        taken.append(self.done)
        return add(self, **losses)

    monkeypatch.setattr(engine.Steps, "add", noted)
    return taken


# --- seeds ---


def test_a_seed_repeats_and_another_differs(source, target, trained, adapted, tmp_path):
    assert same_weights(pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "same"), trained[0])
    assert not same_weights(pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "other", seed=1), trained[0])
    assert same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path / "target"), adapted[0])
    assert same_checkpoints(tmp_path / "target", adapted[1])
    assert not same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path / "target1", seed=1), adapted[0])


def test_a_finished_folder_is_loaded(source, target, trained, adapted, monkeypatch):
    monkeypatch.setattr(engine.Steps, "add", None)  # no step is taken
    again, again_history = with_history["pretrain"](*source, NETWORK, PRETRAIN, folder=trained[1])
    assert same_weights(again, trained[0]) and again_history == trained[2]
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


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_run_asked_to_stop_loses_no_step(trained, target, adapted, step, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(engine.Stopped) as stopped:
        at_step(patched, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        adapt(trained[0], target, ADAPT, folder=tmp_path)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    taken = steps_taken(monkeypatch)
    again = adapt(trained[0], target, ADAPT, folder=tmp_path)
    assert len(taken) == ADAPT.epochs * 3 - step
    assert same_weights(again, adapted[0]) and same_checkpoints(tmp_path, adapted[1])


def test_asked_twice_it_stops_at_once(trained, target, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)  # a test run in the background ignores it

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt) as stopped:
        adapt(trained[0], target, ADAPT, folder=tmp_path)
    assert not isinstance(stopped.value, engine.Stopped)
    assert signal.getsignal(signal.SIGINT) is before


def test_within_an_epoch_it_is_saved_as_often_as_the_share_allows(trained, target, adapted, tmp_path, monkeypatch):
    saves, save = [], engine.Run.save
    monkeypatch.setattr(engine.Run, "save", lambda run: saves.append(run._steps.done) or save(run))
    monkeypatch.setattr(engine, "SAVE_SHARE", float("inf"))
    assert same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path / "often"), adapted[0])
    assert saves == [1, 2, 3, 1, 2, 3]
    saves.clear()
    monkeypatch.setattr(engine, "SAVE_SHARE", 1e-9)
    assert same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path / "seldom"), adapted[0])
    assert saves == [3, 3]


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(trained, target, adapted, damage, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(engine, "SAVE_SHARE", float("inf"))
        at_step(patched, 5, interrupt)
        adapt(trained[0], target, ADAPT, folder=tmp_path)
    newest = tmp_path / "checkpoint.pt"
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 0x10
        newest.write_bytes(content)
    else:  # killed between two renames
        newest.unlink()
    taken = steps_taken(monkeypatch)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = adapt(trained[0], target, ADAPT, folder=tmp_path)
    assert taken == [0, 1, 2]  # after step 4 the newest was written; the one before it, after step 3
    assert (damage == "gone") != any("checkpoint.previous.pt" in str(warning.message) for warning in said)
    assert same_weights(again, adapted[0]) and same_checkpoints(tmp_path, adapted[1])


@pytest.mark.parametrize("stage", ["source", "target"])
def test_low_memory_ends_with_the_same_weights(source, target, trained, adapted, stage, tmp_path):
    if stage == "source":
        assert same_weights(pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path, low_memory=True), trained[0])
    else:
        assert same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path, low_memory=True), adapted[0])
        assert same_checkpoints(tmp_path, adapted[1])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_helps_and_low_memory_goes_on(trained, target, adapted, error, tmp_path, monkeypatch):
    def full():
        raise error

    calls, flip = [0], target_stage.random_flip  # two a step, and two while the bank is filled

    def at_fifth_step(*arguments):
        calls[0] += 1
        return full() if calls[0] == 12 else flip(*arguments)

    with (
        monkeypatch.context() as patched,
        pytest.raises(RuntimeError, match="epoch 2, step 2: out of memory .*low_memory=True.*adapt.batch"),
    ):
        patched.setattr(target_stage, "random_flip", at_fifth_step)
        adapt(trained[0], target, ADAPT, folder=tmp_path)
    assert same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path, low_memory=True), adapted[0])
    assert same_checkpoints(tmp_path, adapted[1])


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
from people import NETWORK, PRETRAIN, SIZE
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.engine.steps import Steps
from paul.pretrain import pretrain

torch.set_num_threads(1)
steps, add = [0], Steps.add
def counted(self, **losses):
    steps[0] += 1
    return add(self, **losses) if steps[0] < 5 else os.kill(os.getpid(), signal.SIGKILL)
Steps.add = counted
split = ReidDataset.load({data!r}).split("train")
pretrain(load_images(split, SIZE), split.person_ids, NETWORK, PRETRAIN, folder={out!r}, device="cpu")
"""


def test_a_source_stage_that_is_killed_and_run_again_ends_the_same(data, source, trained, tmp_path):
    """The target stage is killed twenty times over in test_breaks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    script = KILLED.format(tests=str(Path(__file__).parent), data=str(data / "smoke/source"), out=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(json.loads(checkpoint.read(tmp_path / "checkpoint.pt")["training"]["history"])) == 1
    model = pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path)
    assert same_weights(model, trained[0]) and same_checkpoints(tmp_path, trained[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "checkpoint.previous.pt",
        "checkpoint.pt",
        "log.jsonl",
    ]
    torch.set_num_threads(threads)


# --- what a folder holds ---


def test_the_log_holds_a_line_per_epoch(trained, adapted):
    for (_, folder, history), names in ((trained, ["identity", "triplet"]), (adapted, ["loss_v", "loss_c"])):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert lines == history
        assert [list(line) for line in lines] == [["epoch", "loss", *names, "seconds"]] * 2
        assert [line["epoch"] for line in lines] == [1, 2]
    for line in trained[2]:
        assert line["loss"] == pytest.approx(line["identity"] + PRETRAIN.triplet_weight * line["triplet"], rel=1e-5)
    for line in adapted[2]:
        assert line["loss"] == pytest.approx(line["loss_v"] + ADAPT.lam * line["loss_c"], rel=1e-5)


def test_both_memories_are_in_the_checkpoint(adapted, target):
    state = checkpoint.read(adapted[1] / "checkpoint.pt")
    assert state["memory"]["bank"].shape == (NETWORK.num_patches, len(target), NETWORK.dim)
    assert state["centers"]["centers"].shape == (len(target), NETWORK.num_patches * NETWORK.dim // 2)
    assert state["memory"]["filled"].all() and state["centers"]["filled"].all()


def test_the_page_says_what_a_checkpoint_holds(adapted):
    page = (Path(__file__).parents[1] / "book/pages/when_things_break.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- `(\w+)`:", page.split("## What a checkpoint holds")[1].split("\n## ")[0], re.MULTILINE)
    state = checkpoint.read(adapted[1] / "checkpoint.pt")
    assert sorted(listed) == sorted(
        {**state, **state["training"]}.keys() - {"training", *checkpoint.describe(adapted[0])}
    )


def test_another_training_in_the_folder_is_refused(source, target, trained, adapted, tmp_path):
    images, ids = source
    model, folder, _ = trained
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


LACKING = [("training", name) for name in ("generator", "torch_rng", "history", "epoch", "spec")]
LACKING += [(name,) for name in ("training", "memory", "centers", "optimizer", "model")]
WRONG = {
    ("training",): 5,
    ("training", "spec"): "[]",
    ("training", "history"): "{}",
    ("training", "epoch"): 3,
    ("training", "generator"): torch.zeros(3),
    ("memory",): {},
    ("optimizer",): [],
    ("model",): {"a": 1},
}


@pytest.mark.parametrize("place, value", [*((place, None) for place in LACKING), *WRONG.items()], ids=str)
def test_a_checkpoint_that_is_not_whole_is_refused_in_words(trained, target, adapted, place, value, tmp_path):
    state = checkpoint.read(adapted[1] / "checkpoint.pt")
    *way, last = place
    part = state[way[0]] if way else state
    if value is None:
        del part[last]
    else:
        part[last] = value
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="last checkpoint in .* is not that of a whole training"):
        adapt(trained[0], target, ADAPT, folder=tmp_path)


def test_two_runs_in_one_folder(source, trained, tmp_path):
    (tmp_path / "new").mkdir()
    with FileLock(tmp_path / "new/.lock"), pytest.raises(RuntimeError, match="another run is writing .*new; wait"):
        pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "new")
    with FileLock(trained[1] / ".lock"):  # a finished training is there for all to read
        assert same_weights(pretrain(*source, NETWORK, PRETRAIN, folder=trained[1]), trained[0])
    pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "new")  # nobody holds the lock any more


def test_a_finished_training_is_read_without_a_lock(source, target, trained, adapted, tmp_path):
    for before, again in (
        (trained, lambda folder: pretrain(*source, NETWORK, PRETRAIN, folder=folder)),
        (adapted, lambda folder: adapt(trained[0], target, ADAPT, folder=folder)),
    ):
        folder = tmp_path / before[1].name
        folder.mkdir()
        shutil.copy(before[1] / "checkpoint.pt", folder)
        assert same_weights(again(folder), before[0])
        assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]


def test_an_unfinished_training_that_cannot_be_written_says_so(source, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(OSError, match=r"new cannot be written \(.*Read-only file system\); choose another folder"):
        pretrain(*source, NETWORK, PRETRAIN, folder=tmp_path / "new")


def test_what_another_process_saved_before_the_lock_was_free_is_taken_up(
    trained, target, adapted, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        at_step(patched, 4, interrupt)
        adapt(trained[0], target, ADAPT, folder=tmp_path)
    shutil.copytree(tmp_path, tmp_path / "first epoch")
    later = tmp_path / "second epoch"
    shutil.copytree(tmp_path / "first epoch", later)
    with monkeypatch.context() as patched, pytest.raises(engine.Stopped):
        at_step(patched, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        adapt(trained[0], target, ADAPT, folder=later)
    lock = engine.TrainingFolder.lock

    def meanwhile(folder):
        shutil.copy(later / "checkpoint.pt", folder.path)
        return lock(folder)

    monkeypatch.setattr(engine.TrainingFolder, "lock", meanwhile)
    taken = steps_taken(monkeypatch)
    assert same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path / "first epoch"), adapted[0])
    assert taken == [2]


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
    monkeypatch.setitem(objective.PATCH_LOSSES, "pedal", lambda features, *_, **__: features.sum() * float("inf"))
    with pytest.raises(FloatingPointError, match="target, epoch 1, step 1: not finite: loss, loss_c. "):
        adapt(trained[0], target, ADAPT, folder=tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_the_step_is_exact_when_losses_are_read_rarely():
    bar = engine.tqdm(disable=True)
    progress = engine.Steps("here", [], bar, every=50)
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

"""Several processes train as one: the same losses, gradients and memories, the bank in parts, any number resumes."""

import os
import signal
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import ranks
import torch
from hypothesis import given
from hypothesis import strategies as st
from people import ADAPT, NETWORK, adapt, with_history
from torch import nn

from paul import checkpoint
from paul import pretrain as source_stage
from paul.engine import distributed
from paul.engine import run as engine
from paul.engine.distributed import World
from paul.losses import pedal_loss, pull_loss
from paul.memory import PatchMemory
from paul.options import PatchNetOptions
from paul.patchnet import PatchNet
from paul.sharded import Shard, _ShardedPatchLoss

# 20 images in batches of 7: the last one has 6; ten steps an epoch would need more images, so seven make 21 steps
OPTIONS = replace(ADAPT, epochs=7, batch=7, decay_epoch=4, lr=0.0001)


@given(st.integers(0, 50), st.integers(1, 9))
def test_parts_cover_everything_once_and_differ_by_one_at_most(count, size):
    parts = [World(rank, size).part(count) for rank in range(size)]
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


# --- the whole target stage ---


def whole_stage(world, model, images, options, folder):
    trained, history = with_history["adapt"](load_model(model), images, options, folder=folder)
    ranks.save(folder, world, weights=trained.state_dict(), history=[line["loss"] for line in history])


def load_model(path):
    return checkpoint.load(path)[0]


@pytest.fixture(scope="module")
def start(trained):
    return str(trained[1] / "checkpoint.pt")


def same_training(a, b, atol=1e-5):
    """Weights, momenta (the gradients so far) and memories of two checkpoints; batches and losses on the way."""
    a, b = (checkpoint.read(Path(folder) / "checkpoint.pt") for folder in (a, b))
    for one, other in ((a[name], b[name]) for name in ("model", "memory", "centers")):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    one, other = (c["optimizer"]["state"] for c in (a, b))
    assert one.keys() == other.keys() and len(one)
    for key in one:  # (1 - momentum) times the buffer is the mean gradient, the newest weighing most
        mean, mean_there = (0.1 * state[key]["momentum_buffer"] for state in (one, other))
        torch.testing.assert_close(mean, mean_there, atol=atol, rtol=1e-4)


VARIANTS = {
    "as the paper, 2": (2, OPTIONS),
    "as the paper, 3": (3, OPTIONS),
    "patch loss alone, pulled": (2, replace(OPTIONS, loss_v=False, loss_c="pull")),
    # with a margin of 2 two activations come within 1e-6 of the ReLU's kink, at steps 5 and 11, where one rounding more
    # or less turns a gradient on or off: 3e-3 of 0.7
    "raw targets in patch space": (
        2,
        replace(OPTIONS, ipfl_targets="raw", ipfl_space="patch", no_negative="skip", margin=1.0),
    ),
    "a bank that follows the loss, idle surrogates, no small batch": (
        2,
        replace(OPTIONS, loss_v=False, bank_update="after", idle_surrogates=True, bank_surrogates=True, min_batch=4),
    ),
    "a last batch smaller than the ranks": (3, replace(OPTIONS, batch=18, epochs=3, renormalize=True)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_ranks_go_through_the_steps_of_one_process(start, target, variant, tmp_path):
    size, options = VARIANTS[variant]
    _, history = with_history["adapt"](load_model(start), target, options, folder=tmp_path / "alone")
    assert ranks.run_ranks(size, whole_stage, start, target, options, tmp_path / "ranks") == [0] * size
    same_training(tmp_path / "alone", tmp_path / "ranks")
    every = [ranks.load(tmp_path / "ranks", rank) for rank in range(size)]
    torch.testing.assert_close(
        torch.tensor(every[0]["history"]), torch.tensor([line["loss"] for line in history]), atol=1e-5, rtol=1e-5
    )
    for other in every[1:]:  # every rank returns the same network
        assert all(torch.equal(value, other["weights"][name]) for name, value in every[0]["weights"].items())


class Killed(Exception):
    pass


def stopped_stage(world, model, images, options, folder, step):
    """Every rank saves after each step and dies in the one of that number."""
    engine.SAVE_SHARE, count, add = float("inf"), [0], engine.Steps.add

    def counted(self, **losses):
        count[0] += 1
        if count[0] == step:
            raise Killed
        return add(self, **losses)

    engine.Steps.add = counted
    with suppress(Killed):
        adapt(load_model(model), images, options, folder=folder)


def test_a_run_started_on_some_ranks_goes_on_on_another_number(start, target, tmp_path):
    """Three ranks, then two, then one process."""
    adapt(load_model(start), target, OPTIONS, folder=tmp_path / "alone")
    ranks.run_ranks(3, stopped_stage, start, target, OPTIONS, tmp_path / "moved", 5)
    saved = checkpoint.read(tmp_path / "moved" / "checkpoint.pt")
    assert saved["training"]["epoch"]["done"] == 1 and saved["memory"]["bank"].shape[1] == len(target)
    assert ranks.run_ranks(2, stopped_stage, start, target, OPTIONS, tmp_path / "moved", 10) == [0, 0]
    assert checkpoint.read(tmp_path / "moved" / "checkpoint.pt")["training"]["epoch"]["done"] == 1
    adapt(load_model(start), target, OPTIONS, folder=tmp_path / "moved")
    same_training(tmp_path / "alone", tmp_path / "moved")


def asked_to_stop(world, model, images, options, folder):
    """One rank is asked, all of them stop after the same step."""
    add = engine.Steps.add

    def asked(self, **losses):
        if world.rank == 1 and self.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return add(self, **losses)

    engine.Steps.add = asked
    try:
        adapt(load_model(model), images, options, folder=folder)
    except engine.Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None


def test_when_one_rank_is_asked_to_stop_all_save_and_stop(start, target, tmp_path):
    assert ranks.run_ranks(2, asked_to_stop, start, target, OPTIONS, tmp_path) == [143, 143]
    assert checkpoint.read(tmp_path / "checkpoint.pt")["training"]["epoch"]["done"] == 2


def test_the_source_stage_refuses_several_processes(source, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process"):
        source_stage.pretrain(*source, NETWORK, source_stage.PretrainOptions(batch=8), folder=tmp_path)


# --- the pieces, in double precision ---

PATCHES, BATCH, IMAGES, DIM = 3, 5, 23, 4


def pieces(world, folder):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # the patch losses, with two equal entries so that a tie has to be settled
    bank, features, index = random(PATCHES, IMAGES, DIM), random(PATCHES, BATCH, DIM), torch.tensor([2, 22, 9, 10, 0])
    bank[:, 20] = bank[:, 4]
    part, here = world.part(IMAGES), world.part(BATCH)
    rows = ((index >= part.start) & (index < part.stop)).nonzero().squeeze(1)
    found = {}
    for name, push in (("pedal", True), ("pull", False)):
        mine = features[:, here].clone().requires_grad_()
        loss = _ShardedPatchLoss.apply(
            world.gather(mine, BATCH, 1), bank[:, part], (rows, index[rows] - part.start), world, IMAGES, 3.0, 4, push
        )
        loss.backward()
        found |= {name: loss.detach(), f"{name}_grad": mine.grad / world.size}  # DDP takes the mean over ranks
    # batch norm
    norm, x = nn.BatchNorm2d(DIM).double(), random(BATCH, DIM, 3, 2)
    with torch.no_grad():
        norm.weight.copy_(random(DIM))
    holder = nn.Sequential(norm)
    synced = distributed.with_synchronised_norms(holder, world)
    mine = x[here].clone().requires_grad_()
    out = synced(mine)
    out.pow(3).sum().backward()
    found |= {
        "out": out.detach(),
        "out_grad": mine.grad,
        "weight_grad": world.sum(synced[0].weight.grad),
        **{f"state_{name}": value for name, value in synced[0].state_dict().items()},
    }
    ranks.save(folder, world, **found)


def test_losses_and_batch_norm_over_ranks_equal_those_of_one_process(tmp_path):
    assert ranks.run_ranks(3, pieces, tmp_path) == [0, 0, 0]
    found = [ranks.load(tmp_path, rank) for rank in range(3)]
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    bank, features, index = random(PATCHES, IMAGES, DIM), random(PATCHES, BATCH, DIM), torch.tensor([2, 22, 9, 10, 0])
    bank[:, 20] = bank[:, 4]
    for name, loss in (("pedal", pedal_loss), ("pull", pull_loss)):
        x = features.clone().requires_grad_()
        expected = loss(x, bank, index, s=3.0, k=4)
        expected.backward()
        for rank in found:
            torch.testing.assert_close(rank[name], expected.detach())
        torch.testing.assert_close(torch.cat([rank[f"{name}_grad"] for rank in found], 1), x.grad)
    norm, x = nn.BatchNorm2d(DIM).double(), random(BATCH, DIM, 3, 2).requires_grad_()
    with torch.no_grad():
        norm.weight.copy_(random(DIM))
    out = norm(x)
    out.pow(3).sum().backward()
    torch.testing.assert_close(torch.cat([rank["out"] for rank in found]), out.detach())
    torch.testing.assert_close(torch.cat([rank["out_grad"] for rank in found]), x.grad)
    for rank in found:
        torch.testing.assert_close(rank["weight_grad"], norm.weight.grad)
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(rank[f"state_{name}"], value)


def test_synchronised_norms_keep_names_freezing_and_the_model_itself():
    model = PatchNet(PatchNetOptions("small", num_patches=2, dim=8, pgn_channels=8, pgn_hidden=8)).to_target()
    before = deepcopy(model.state_dict())
    synced = distributed.with_synchronised_norms(model, World(0, 2))
    assert list(synced.state_dict()) == list(before)
    assert [p.requires_grad for p in synced.parameters()] == [p.requires_grad for p in model.parameters()]
    assert not any(type(m) is nn.BatchNorm2d for m in synced.modules())
    assert any(type(m) is nn.BatchNorm2d for m in model.modules())
    assert distributed.with_synchronised_norms(model, World()) is model


def shard_round_trip(world, folder):
    whole = {"bank": torch.arange(2 * 7 * 3.0).view(2, 7, 3), "filled": torch.arange(7) % 2 == 0}
    part = world.part(7)
    shard = Shard(PatchMemory(part.stop - part.start, 2, 3), world, 7)
    shard.load_state_dict(whole)
    assert torch.equal(shard.memory.bank, whole["bank"][:, part])
    ranks.save(folder, world, **shard.state_dict())


def test_a_memory_in_parts_is_saved_whole(tmp_path):
    assert ranks.run_ranks(3, shard_round_trip, tmp_path) == [0, 0, 0]
    state = ranks.load(tmp_path)
    assert torch.equal(state["bank"], torch.arange(2 * 7 * 3.0).view(2, 7, 3))
    assert state["filled"].tolist() == [True, False, True, False, True, False, True]
    assert ranks.load(tmp_path, 1) == {"bank": None, "filled": None}

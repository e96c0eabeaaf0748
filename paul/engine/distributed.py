"""Several processes that train as one (torchrun): who this one is, what they exchange, batch norm over all of them."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from paul.engine.device import pick_device

SILENCE = timedelta(minutes=5)  # a rank that says nothing for so long counts as dead


@dataclass(frozen=True)
class World:
    """One process among `size`; with size 1 every exchange below returns what it was given."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def part(self, count: int, rank: int | None = None) -> slice:
        """A rank's consecutive share of `count` things: the shares of all ranks cover them exactly, sizes differ by at
        most one."""
        rank = self.rank if rank is None else rank
        return slice(count * rank // self.size, count * (rank + 1) // self.size)

    def sum(self, x: Tensor) -> Tensor:
        """Sum over ranks; on every rank, without gradient."""
        if self.size == 1:
            return x
        x = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    def gather(self, x: Tensor, count: int, dim: int = 0) -> Tensor:
        """The whole of which every rank holds its `part(count)` along `dim`; gradients go back to the part's owner."""
        return x if self.size == 1 else _Gather.apply(x, self, count, dim % x.ndim)

    def stack(self, x: Tensor) -> Tensor:
        """x of all ranks, of equal shape, along a new last dimension; without gradient."""
        if self.size == 1:
            return x.unsqueeze(-1)
        found = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(found, x.detach().contiguous())
        return torch.stack(found, -1)

    def any(self, flags: list[bool], device: torch.device) -> list[bool]:
        """Which flags are up on any rank."""
        if self.size == 1:
            return flags
        return (self.sum(torch.tensor(flags, dtype=torch.float32, device=device)) > 0).tolist()

    def collect(self, x: Tensor, count: int, dim: int = 0) -> Tensor | None:
        """The whole of which every rank holds its part, in the main rank's host memory; None on the others."""
        if self.size == 1:
            return x
        if not self.is_main:
            dist.send(x.detach().contiguous(), 0)
            return None
        parts = [x.cpu()]
        for rank in range(1, self.size):
            share = self.part(count, rank)
            other = x.new_empty(*x.shape[:dim], share.stop - share.start, *x.shape[dim + 1 :])
            dist.recv(other, rank)
            parts.append(other.cpu())
        return torch.cat(parts, dim)

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, world, count, dim):
        ctx.world, ctx.where = world, (slice(None),) * dim + (world.part(count),)
        whole = x.new_zeros(*x.shape[:dim], count, *x.shape[dim + 1 :])
        whole[ctx.where] = x
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx, grad):
        return ctx.world.sum(grad)[ctx.where], None, None, None


class _Sum(torch.autograd.Function):
    """Sum over ranks of something that every rank uses: so do its gradients add up."""

    @staticmethod
    def forward(ctx, x, world):
        ctx.world = world
        return world.sum(x)

    @staticmethod
    def backward(ctx, grad):
        return ctx.world.sum(grad), None


def launched() -> bool:
    """Whether torchrun (or the like) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: str | None = None) -> tuple[World, torch.device]:
    """This process's place among those that torchrun started, and its device; alone without torchrun.

    On GPUs each local rank takes the GPU of its number (NCCL); on a CPU they talk by gloo.

    Raises:
        ValueError: a machine with fewer GPUs than local ranks.
    """
    if not launched():
        return World(), pick_device(device)
    if device in (None, "cuda") and torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"torchrun started more processes than this machine's {torch.cuda.device_count()} GPUs; "
                "start fewer processes (torchrun's --nproc-per-node)"
            )
        device = f"cuda:{local}"
    found = pick_device(device)
    if found.type == "cuda":
        torch.cuda.set_device(found)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if found.type == "cuda" else "gloo", timeout=SILENCE)
    return World(dist.get_rank(), dist.get_world_size()), found


def leave() -> None:
    """Part from the other processes, if there are any."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the images of all ranks, for CPUs, where torch's own does not go."""

    world = World()

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # any number of dimensions

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        others = [0, *range(2, x.ndim)]
        shape = (1, -1) + (1,) * (x.ndim - 2)
        count = self.world.sum(x.new_tensor(x.numel() / x.shape[1]))
        mean = _Sum.apply(x.sum(others), self.world) / count
        centered = x - mean.view(shape)
        variance = _Sum.apply(centered.square().sum(others), self.world) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, rate)
                self.running_var.lerp_(variance * count / (count - 1), rate)
        return centered * (self.weight / (variance + self.eps).sqrt()).view(shape) + self.bias.view(shape)


def _replace_norms(module: nn.Module, world: World) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            synced = _SyncedBatchNorm(child.num_features, child.eps, child.momentum, dtype=child.weight.dtype)
            synced.load_state_dict(child.state_dict())
            for own, theirs in zip(synced.parameters(), child.parameters()):
                own.requires_grad_(theirs.requires_grad)
            synced.world = world
            setattr(module, name, synced.train(child.training))
        else:
            _replace_norms(child, world)


def with_synchronised_norms(model: nn.Module, world: World) -> nn.Module:
    """A copy whose batch norms see the images of all ranks; the model itself for one rank.

    Its state dict has the model's keys.
    """
    if world.size == 1:
        return model
    model = deepcopy(model)
    if next(model.parameters()).device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    _replace_norms(model, world)
    return model


def shared_gradients(model: nn.Module, world: World) -> nn.Module:
    """The model as its ranks train it: gradients are averaged over them."""
    if world.size == 1:
        return model
    device = next(model.parameters()).device
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

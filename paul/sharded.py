"""The target stage's losses over several ranks, each of which keeps a part of both memories (paper Sec. 3.2, 3.3).

The bank of N images lies in R parts of about N / R. Every rank compares the *whole* batch with its own part; top-k and
log-sum-exp are then reduced over ranks, so that nothing of the size of the bank ever travels: a step exchanges features
[M, B, D], k values per patch and image, and gradients [M, B, D]. Losses and gradients are those of one process with the
same batch.

Local losses are scaled so that their *mean* over ranks is the batch's loss: DistributedDataParallel averages gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paul.engine.distributed import World
from paul.losses import ipfl_hinges
from paul.objective import PaulLoss
from paul.options import AdaptOptions
from paul.patchnet import PatchNet, PatchNetOutput, concatenate


class Shard:
    """This rank's part of a memory, as a checkpoint sees it: whole, so that any number of ranks can take it up again.

    Args:
        memory: PatchMemory or ImageCenters with room for this rank's images only.
        world, num_images: who holds what.
    """

    def __init__(self, memory: nn.Module, world: World, num_images: int):
        self.memory, self.world, self.num_images = memory, world, num_images

    def state_dict(self) -> dict[str, Tensor]:
        """The whole memory in the main rank's host memory; nothing but None on the others, who must call it too."""
        return {
            name: self.world.collect(getattr(self.memory, name), self.num_images, dim)
            for name, dim in self.memory.image_dims.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take this rank's part of a whole memory."""
        part = self.world.part(self.num_images)
        self.memory.load_state_dict(
            {
                name: state[name].narrow(dim, part.start, part.stop - part.start)
                for name, dim in self.memory.image_dims.items()
            }
        )


class _ShardedPatchLoss(torch.autograd.Function):
    """As `paul.losses._Pedal`, with the bank in parts; without `push` its numerator alone, as `pull_loss`."""

    @staticmethod
    def forward(ctx, features, bank, own, world, count, s, k, push):
        # features [M, B, D] of the whole batch; own: rows of the batch kept here, and their places
        similarity = torch.baddbmm(bank.square().sum(2).unsqueeze(1), features, bank.mT, beta=-s / 2, alpha=s)
        rows, places = own
        similarity[:, rows, places] = float("-inf")
        entries = bank.shape[1]
        here, where = similarity.topk(min(k, entries), dim=2)
        candidates = here.new_full((*here.shape[:2], k), float("-inf"))
        candidates[..., : here.shape[2]] = here
        everywhere = world.stack(candidates)  # [M, B, k, R]
        nearest, chosen = everywhere.flatten(2).topk(min(k, count - 1), dim=2)
        top = nearest[..., :1]
        near_sum = (nearest - top).exp().sum(2, keepdim=True)
        mine = torch.zeros_like(everywhere).flatten(2).scatter_(2, chosen, 1.0).view_as(everywhere)[..., world.rank]
        pull = ((here - top).exp() / near_sum * mine[..., : here.shape[2]]).to(bank.dtype)
        if push:
            exponential = (similarity - top).exp_()
            all_sum = world.sum(exponential.sum(2, keepdim=True))
            loss = (all_sum / near_sum).log().mean()
            weights = exponential.div_(all_sum).scatter_add_(2, where, -pull)
        else:
            loss = (s / 2 * features.square().sum(2) - top.squeeze(2) - near_sum.log().squeeze(2)).mean()
            weights = torch.zeros_like(similarity).scatter_add_(2, where, -pull)
        gradient = world.sum(torch.bmm(weights, bank))
        if not push:
            gradient = gradient + features
        ctx.save_for_backward(gradient.mul_(s / near_sum.numel()))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None, None, None, None, None


class ShardedPaulLoss(PaulLoss):
    """`PaulLoss` of one batch that lies in parts on all ranks; losses and memories as in one process.

    Args:
        model, num_images, options: as for `PaulLoss`; num_images counts the whole set.
        world: the ranks.
    """

    def __init__(self, model: PatchNet, num_images: int, options: AdaptOptions, world: World):
        part = world.part(num_images)
        super().__init__(model, part.stop - part.start, options)
        self.world, self.num_images, self.start, self.stop = world, num_images, part.start, part.stop

    def memories(self) -> dict[str, Shard]:
        """What a checkpoint keeps: both memories, whole."""
        return {
            "memory": Shard(self.memory, self.world, self.num_images),
            "centers": Shard(self.centers, self.world, self.num_images),
        }

    def _held(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the batch's images this rank keeps, and where in its part."""
        index = index.cpu()  # where the batch was drawn: to look for them on the device would stop it
        rows = ((index >= self.start) & (index < self.stop)).nonzero().squeeze(1)
        device = self.memory.bank.device
        return rows.to(device, non_blocking=True), (index[rows] - self.start).to(device, non_blocking=True)

    def fill(self, features: Tensor, index: Tensor) -> None:
        """As `PaulLoss.fill`; features [M, b, D] of this rank's part of index [B]."""
        features = self.world.gather(features.detach().float(), len(index), 1)
        rows, places = self._held(index)
        new = ~self.memory.filled[places]
        self.memory.update(places[new], features[:, rows[new]])

    def patch_level(self, features: Tensor, index: Tensor) -> Tensor:
        """L_c of the whole batch, index [B]; features [M, b, D] of this rank's part (ledger 1-4)."""
        o = self.options
        with torch.autocast(features.device.type, enabled=False):
            everyone = self.world.gather(features.float(), len(index), 1)
            rows, places = self._held(index)
            bank = self.memory.bank.clone() if o.bank_update == "after" else self.memory.bank
            self.memory.update(places, everyone.detach()[:, rows])
            return _ShardedPatchLoss.apply(
                everyone, bank, (rows, places), self.world, self.num_images, o.s, o.k, o.loss_c == "pedal"
            )

    def image_level(self, output: PatchNetOutput, index: Tensor) -> Tensor:
        """L_v of this rank's b real images and their b surrogates among all B of index [B] (ledger 9-13)."""
        o, world, count = self.options, self.world, len(index)
        f = concatenate(output.embeddings if o.ipfl_space == "embedding" else output.features).float()
        real, surrogate = f.chunk(2)
        everyone = world.gather(real, count)
        part = world.part(count)
        own = torch.arange(part.start, part.stop, device=f.device)
        if o.ipfl_targets == "raw":
            terms = ipfl_hinges(real, everyone, own, positives=surrogate, **self.ranking)
        else:
            views = torch.stack([everyone, world.gather(surrogate, count)], 1).detach()
            rows, places = self._held(index)
            centers = torch.zeros_like(views[:, 0])
            centers[rows] = self.centers.update(places, views[rows])
            terms = ipfl_hinges(f, world.sum(centers), own.repeat(2), **self.ranking)
        hinge, counted = terms
        everyone_counted = world.sum(counted.sum().to(hinge.dtype))
        return (hinge * counted).sum() * world.size / everyone_counted.clamp(min=1)


def objective_of(model: PatchNet, num_images: int, options: AdaptOptions, world: World) -> PaulLoss:
    """The losses for one process, or for one of several that share the memories."""
    return (
        PaulLoss(model, num_images, options) if world.size == 1 else ShardedPaulLoss(model, num_images, options, world)
    )

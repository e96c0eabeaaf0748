"""What the target stage minimises: L = L_v + lambda L_c, and the two memories it keeps (paper Sec. 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paul.engine.device import send
from paul.losses import ipfl_loss, pedal_loss, pull_loss
from paul.memory import ImageCenters, PatchMemory
from paul.options import AdaptOptions
from paul.patchnet import PatchNet, PatchNetOutput, concatenate

PATCH_LOSSES = {"pedal": pedal_loss, "pull": pull_loss}


class PaulLoss(nn.Module):
    """L = L_v + lambda L_c over one batch.

    Args:
        model: whose patches and widths decide the memories' shapes; it is not kept.
        num_images: N, size of the training set.
        options: losses, memories and their knobs.
    """

    def __init__(self, model: PatchNet, num_images: int, options: AdaptOptions):
        super().__init__()
        patches, dim = model.options.num_patches, model.options.dim
        image_dim = patches * (model.embedding.weight.shape[1] if options.ipfl_space == "embedding" else dim)
        self.options = options
        self.memory = PatchMemory(num_images, patches, dim, options.rate, options.renormalize)
        self.centers = ImageCenters(num_images, image_dim, options.rate)
        self.ranking = dict(
            margin=options.margin,
            r=options.r,
            include_self=options.include_self,
            max_candidates=options.max_candidates,
            no_negative=options.no_negative,
        )

    def memories(self) -> dict:
        """What a checkpoint keeps of it."""
        return {"memory": self.memory, "centers": self.centers}

    def fill(self, features: Tensor, index: Tensor) -> None:
        """Put features [M, B, D] into the bank for those of the images `index` [B] that are not there yet."""
        index = index.to(features.device)
        new = ~self.memory.filled[index]
        self.memory.update(index[new], features[:, new])

    def patch_level(self, features: Tensor, index: Tensor) -> Tensor:
        """L_c of real images' features [M, B, D]; the bank takes them up before it is read, or after (ledger 3)."""
        o, index, bank = self.options, send(index, features.device), self.memory.bank
        if o.bank_update == "after":
            bank = bank.clone()  # what the gradient may still read
        self.memory.update(index, features.detach())
        return PATCH_LOSSES[o.loss_c](features, bank, index, s=o.s, k=o.k)

    def image_level(self, output: PatchNetOutput, index: Tensor) -> Tensor:
        """L_v of B real images and then their B surrogates (ledger 9-12)."""
        o = self.options
        f = concatenate(output.embeddings if o.ipfl_space == "embedding" else output.features)
        real, surrogate = f.chunk(2)
        own = torch.arange(len(real), device=f.device)
        if o.ipfl_targets == "raw":
            return ipfl_loss(real, real, own, positives=surrogate, **self.ranking)
        views = torch.stack([real, surrogate], 1).detach()
        centers = self.centers.update(send(index, f.device), views)
        return ipfl_loss(f, centers, own.repeat(2), **self.ranking)

    def forward(self, output: PatchNetOutput, index: Tensor) -> dict[str, Tensor]:
        """Losses of a batch of real images, followed by as many surrogates where the options have them `paired`.

        Args:
            output: of the images that this process holds.
            index: [B] the whole batch's places in the set, on the CPU, where they were drawn.
        """
        losses = {}
        if self.options.loss_v:
            losses["loss_v"] = self.image_level(output, index)
        if self.options.loss_c:
            real = output.features.shape[1] // (2 if self.options.paired else 1)
            losses["loss_c"] = self.patch_level(output.features[:, :real], index)
        total = losses.get("loss_v", 0) + self.options.lam * losses.get("loss_c", 0)
        return {"loss": total, **losses}

"""PatchNet: backbone, patch generation, one branch per patch; with one whole-map patch it is its image-level twin."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paul.backbones import build_backbone
from paul.engine.device import autocast
from paul.engine.recompute import recomputed
from paul.options import PatchNetOptions
from paul.patches import EqualStripes, PatchGenerator, RandomPatches, WholeMap, pool_patches

GENERATORS = {"pgn": PatchGenerator, "equal": EqualStripes, "random": RandomPatches, "image": WholeMap}


class PatchNetOutput(NamedTuple):
    """What a forward pass returns: features [M, B, D], embeddings [M, B, E], logits [M, B, classes] or None."""

    features: Tensor
    embeddings: Tensor
    logits: Tensor | None


class _PerPatch(nn.Module):
    """M linear layers, one per patch, as one batched product: [M, B, in] -> [M, B, out]."""

    def __init__(self, num_patches: int, inside: int, outside: int):
        super().__init__()
        bound = inside**-0.5  # what nn.Linear draws from
        self.weight = nn.Parameter(torch.empty(num_patches, outside, inside).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_patches, outside).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)


class PatchNet(nn.Module):
    """PatchNet (paper Sec. 3.1).

    `stage` is "source" (features after ReLU, embeddings from a linear layer, logits; ledger 19, 23) or "target"
    (features without ReLU on the unit sphere, embeddings as cosines to the rows of that same layer; ledger 8-10, 19).
    `to_target()` switches and freezes what the target stage does not train. `image_size` holds the rows and columns of
    the images it was last trained on, None where that is not known; checkpoints keep it.

    Args:
        options: its shape.
        num_classes: identities of the source; None leaves the classifiers out.
        weights: of the backbone, see `paul.backbones.build_backbone`.
    """

    def __init__(self, options: PatchNetOptions, num_classes: int | None = None, weights: str | None = None):
        super().__init__()
        self.options, self.num_classes, self.stage = options, num_classes, "source"
        self.image_size: tuple[int, int] | None = None
        patches, dim = options.num_patches, options.dim
        self.backbone, channels = build_backbone(options.backbone, weights)
        sizes = (
            dict(in_channels=channels, channels=options.pgn_channels, hidden=options.pgn_hidden)
            if options.generator == "pgn"
            else {}
        )
        self.generator = GENERATORS[options.generator](num_patches=patches, **sizes)
        self.branch = _PerPatch(patches, channels, dim)
        self.branch_norm = nn.BatchNorm1d(patches * dim)
        self.embedding = _PerPatch(patches, dim, options.embedding_dim or dim // 2)
        self.classifier = _PerPatch(patches, dim, num_classes) if num_classes else None

    def to_target(self) -> PatchNet:
        """Switch to the target stage: PGN and embedding layer frozen, no classifier (ledger 10, 18)."""
        self.stage, self.classifier, self.num_classes = "target", None, None
        for module in (self.generator, self.embedding):
            module.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> PatchNet:
        super().train(mode)
        if self.stage == "target" and self.options.freeze_pgn == "eval":
            self.generator.eval()
        return self

    def theta(self, x: Tensor) -> Tensor:
        """Where the patches of images [B, 3, H, W] lie: [B, M, 2, 3]."""
        with autocast(x.device, self.options.precision):
            return self.generator(self.backbone(x))

    def _branches(self, x: Tensor, low_memory: bool = False) -> Tensor:
        if (
            self.training and len(x) < 2 and isinstance(self.branch_norm, nn.BatchNorm1d)
        ):  # else ranks share their norms
            raise ValueError("batch norm cannot train on a batch of one image: use at least two, or model.eval()")
        feature_map = recomputed(self.backbone, x) if low_memory and self.training else self.backbone(x)
        theta = self.generator(feature_map)
        if self.stage == "target" and self.options.freeze_pgn == "detach":
            theta = theta.detach()
        y = self.branch(pool_patches(feature_map, theta, align_corners=self.options.align_corners))
        patches, batch, dim = y.shape
        return self.branch_norm(y.transpose(0, 1).flatten(1)).view(batch, patches, dim).transpose(0, 1)

    def forward(self, x: Tensor, low_memory: bool = False) -> PatchNetOutput:
        """Images [B, 3, H, W] -> features [M, B, D], embeddings [M, B, E], logits [M, B, classes] or None.

        `low_memory` trains with less memory and more time, to the same result (see `paul.engine.recompute`).
        """
        with autocast(x.device, self.options.precision):
            y = self._branches(x, low_memory)
            if self.stage == "source":
                y = y.relu()
                return PatchNetOutput(y, self.embedding(y), self.classifier(y) if self.classifier else None)
            features = _unit(y)
            with torch.autocast(x.device.type, enabled=False):
                cosines = torch.bmm(features, _unit(self.embedding.weight).mT)
            return PatchNetOutput(features, cosines, None)

    def describe(self, x: Tensor) -> Tensor:
        """The descriptor used for retrieval, in either stage: unit patch features side by side, [B, M*D]."""
        with autocast(x.device, self.options.precision):
            return concatenate(_unit(self._branches(x)))


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def concatenate(per_patch: Tensor) -> Tensor:
    """All patches of an image together: [M, B, D] -> [B, M*D]."""
    return per_patch.transpose(0, 1).flatten(1)

"""One pass of a network over a whole set: descriptors out of it, or batch-norm statistics set to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paul.data.batches import batches
from paul.data.pixels import Pixels
from paul.data.transforms import normalize


@torch.inference_mode()
def extract(model: nn.Module, images: Tensor | Pixels, batch: int = 256) -> Tensor:
    """Descriptors of uint8 images [n, 3, H, W] -> [n, d] on the model's device, by its `describe`; the model is left as
    it was."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    parts = [model.describe(normalize(x)) for _, x in batches(images, torch.arange(len(images)).split(batch), device)]
    model.train(was_training)
    return torch.cat(parts)


@torch.no_grad()
def refresh_statistics(model: nn.Module, images: Tensor | Pixels, batch: int = 64) -> None:
    """Set every batch norm's statistics to those of these images, weights untouched (AdaBN: Li et al., 2018).

    Each statistic becomes the plain average over batches, each of them spread over the whole set: neighbours in a set
    often show one person, and batches of a single person would hide how much people differ.

    Raises:
        ValueError: fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"batch-norm statistics need at least two images, got {len(images)}")
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    was_training, device = model.training, next(model.parameters()).device
    model.train()
    for norm in norms:
        norm.train()
    count = -(-len(images) // max(batch, 2))
    for _, x in batches(images, [torch.arange(first, len(images), count) for first in range(count)], device):
        model.describe(normalize(x))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    model.train(was_training)

"""Less memory for more time: forget what lies inside a network's stages and compute it again for the gradient."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def _norms_at_rest(stage: nn.Module):
    # the second pass must not move the running statistics a second time
    norms = [m for m in stage.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
            norm.num_batches_tracked -= 1


def _stages(backbone: nn.Sequential) -> list[nn.Sequential]:
    """The children, an activation that works in place together with what it changes."""
    groups: list[list[nn.Module]] = []
    for child in backbone:
        if groups and getattr(child, "inplace", False):
            groups[-1].append(child)
        else:
            groups.append([child])
    return [nn.Sequential(*group) for group in groups]


def recomputed(backbone: nn.Sequential, x: Tensor) -> Tensor:
    """backbone(x), keeping only what passes between its stages: about the memory of its largest stage.

    The whole batch stays one batch, so batch norm and losses see what they always see; the result is the same.
    """
    if not torch.is_grad_enabled():
        return backbone(x)
    for stage in _stages(backbone):
        x = checkpoint(
            stage,
            x,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda stage=stage: (nullcontext(), _norms_at_rest(stage)),
        )
    return x

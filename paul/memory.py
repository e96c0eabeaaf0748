"""The two memories: one feature per patch and training image (for PEDAL), one centre per training image (for IPFL).

Both are moving averages held as module buffers: they move with `.to()`, and a checkpoint keeps them (ledger 7).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _check(index: Tensor) -> None:
    if index.ndim != 1 or index.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"index must be a vector of whole numbers, got {index.dtype} of shape {tuple(index.shape)}")


def _averaged(old: Tensor, was_filled: Tensor, index: Tensor, new: Tensor, rate: float) -> Tensor:
    """What the entries at `index` become. old, new [..., B, D]; was_filled, index [B].

    An image that stands in the batch several times is averaged in the order in which it stands there, each time as
    w <- (1 - rate) w + rate x, the first time ever as w <- x. All its positions get the same final value.
    """
    same = index[:, None] == index[None]
    later = same.triu(1).sum(1)
    earlier = same.tril(-1).sum(1)
    keep = (1 - rate) ** later.to(new.dtype)
    first_ever = (earlier == 0) & ~was_filled
    share = torch.where(first_ever, keep, rate * keep)
    old_share = torch.where(was_filled, (1 - rate) ** (earlier + later + 1).to(new.dtype), torch.zeros_like(keep))
    with torch.autocast(new.device.type, enabled=False):  # an average in 16 bits forgets small steps
        return old * old_share[:, None] + (same * share) @ new


class PatchMemory(nn.Module):
    """Memory bank W of patch features (paper Sec. 3.2; ledger 3-7).

    .. math:: w_{j,0}^m = x_{j,0}^m, \\qquad w_{j,t}^m = (1 - l)\\, w_{j,t-1}^m + l\\, x_{j,t}^m

    Args:
        num_images: N, size of the training set.
        num_patches: M.
        dim: D of a patch feature.
        rate: l.
        renormalize: bring updated entries back to unit length, once per batch (the released code does not; ledger 6).

    Buffers: `bank` [M, N, D] and `filled` [N], true once an image has been seen.
    """

    image_dims = {"bank": 1, "filled": 0}

    def __init__(self, num_images: int, num_patches: int, dim: int, rate: float = 0.1, renormalize: bool = False):
        super().__init__()
        if min(num_images, num_patches, dim) < 1:
            raise ValueError(
                f"num_images, num_patches and dim must be at least 1, got {num_images}, {num_patches}, {dim}"
            )
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must lie in [0, 1], got {rate}")
        self.rate, self.renormalize = rate, renormalize
        self.register_buffer("bank", torch.zeros(num_patches, num_images, dim))
        self.register_buffer("filled", torch.zeros(num_images, dtype=torch.bool))

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor) -> None:
        """Average a batch in. index [B], features [M, B, D]; a repeated index counts in order.

        Raises:
            ValueError: shapes that do not fit the bank.
        """
        _check(index)
        expected = (self.bank.shape[0], len(index), self.bank.shape[2])
        if tuple(features.shape) != expected:
            raise ValueError(f"features must have shape [M, B, D] = {expected}, got {tuple(features.shape)}")
        new = features.to(self.bank.dtype)
        entry = _averaged(self.bank[:, index], self.filled[index], index, new, self.rate)
        if self.renormalize:
            entry = F.normalize(entry, dim=-1)
        self.bank[:, index] = entry
        self.filled[index] = True


class ImageCenters(nn.Module):
    """Moving average, per training image, of the mean of its views (real and surrogate; ledger 11).

    Args:
        num_images: size of the training set.
        dim: D of an image feature.
        rate: weight of the new mean.

    Buffers: `centers` [N, D] and `filled` [N].
    """

    image_dims = {"centers": 0, "filled": 0}

    def __init__(self, num_images: int, dim: int, rate: float = 0.1):
        super().__init__()
        if min(num_images, dim) < 1:
            raise ValueError(f"num_images and dim must be at least 1, got {num_images}, {dim}")
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must lie in [0, 1], got {rate}")
        self.rate = rate
        self.register_buffer("centers", torch.zeros(num_images, dim))
        self.register_buffer("filled", torch.zeros(num_images, dtype=torch.bool))

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor) -> Tensor:
        """Average the views of a batch in and return its centres. index [B], features [B, V, D] -> [B, D].

        Raises:
            ValueError: shapes that do not fit.
        """
        _check(index)
        if features.ndim != 3 or len(features) != len(index) or features.shape[2] != self.centers.shape[1]:
            raise ValueError(
                f"features must have shape [B, V, D] = ({len(index)}, V, {self.centers.shape[1]}), "
                f"got {tuple(features.shape)}"
            )
        new = features.to(self.centers.dtype).mean(1)
        entry = _averaged(self.centers[index], self.filled[index], index, new, self.rate)
        self.centers[index] = entry
        self.filled[index] = True
        return entry

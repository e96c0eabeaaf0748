"""The losses: PEDAL (L_c), IPFL (L_v) with cyclic ranking, and the triplet loss of the source stage.

Every function takes plain tensors, works on any device, and computes in float32 at least (float64 stays float64),
whatever autocast says: sums of exponentials and differences of near-equal distances lose their meaning in 16 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _check_pedal(features: Tensor, bank: Tensor, index: Tensor, s: float, k: int) -> None:
    if features.ndim != 3 or bank.ndim != 3 or features.shape[::2] != bank.shape[::2]:
        raise ValueError(
            f"features [M, B, D] and bank [M, N, D] must share M and D, got {tuple(features.shape)} "
            f"and {tuple(bank.shape)}"
        )
    if index.shape != features.shape[1:2]:
        raise ValueError(
            f"index must hold one bank position per image, shape ({features.shape[1]},), got {tuple(index.shape)}"
        )
    if bank.shape[1] < 2:
        raise ValueError("the bank needs at least 2 images: an image is never compared with its own entry")
    if not s > 0:
        raise ValueError(f"s must be positive, got {s}")
    if k <= 0:
        raise ValueError(f"k must be at least 1, got {k}")


def _similarities(features: Tensor, bank: Tensor, index: Tensor, s: float) -> Tensor:
    """-s/2 ||x - w||^2 up to the term in ||x||^2, which every quotient below cancels; own entry at -inf. [M, B, N]"""
    similarity = torch.baddbmm(
        torch.linalg.vector_norm(bank, dim=-1).square_().unsqueeze(1), features, bank.mT, beta=-s / 2, alpha=s
    )
    return similarity.scatter_(2, index.view(1, -1, 1).expand(len(features), -1, 1), float("-inf"))


class _Pedal(torch.autograd.Function):
    """L_c with its gradient written out, so that nothing of size [M, B, N] outlives the forward pass.

    With p the softmax over the k nearest entries and q the softmax over all, dL/dx = s (sum_j q_j w_j - sum_j p_j w_j):
    the term in x itself vanishes because p and q both sum to one.
    """

    @staticmethod
    def forward(ctx, features, bank, index, s, k):
        similarity = _similarities(features, bank, index, s)
        nearest, where = similarity.topk(min(k, bank.shape[1] - 1), dim=2)
        top = nearest[..., :1]
        near_sum = (nearest - top).exp_()
        all_sum = similarity.sub_(top).exp_().sum(2, keepdim=True)
        share = near_sum.sum(2, keepdim=True)
        loss = (all_sum / share).log().mean()
        if ctx.needs_input_grad[0]:
            q_minus_p = similarity.div_(all_sum).scatter_add_(2, where, -near_sum / share)
            ctx.save_for_backward(torch.bmm(q_minus_p, bank).mul_(s / share.numel()))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None, None


def pedal_loss(features: Tensor, bank: Tensor, index: Tensor, *, s: float = 30.0, k: int = 10) -> Tensor:
    r"""Patch-based discriminative feature learning loss L_c (paper Sec. 3.2; ledger 1-4).

    .. math:: L_c^m = -\log \frac{\sum_{w_j^m \in K_i^m} \exp(-\frac s2 \|x_i^m - w_j^m\|^2)}
                                 {\sum_{j \ne i} \exp(-\frac s2 \|x_i^m - w_j^m\|^2)}

    averaged over the batch and the M patches. K_i^m holds the k entries of patch m's bank nearest to x_i^m, never the
    image's own. The bank is data: no gradient reaches it.

    Args:
        features: [M, B, D] patch features of a batch (the paper normalises them to unit length).
        bank: [M, N, D], one entry per patch and training image.
        index: [B] position of each image in the bank.
        s: scale, 30 on Market-1501 and 10 on DukeMTMC-reID.
        k: how many nearest entries attract; k >= N - 1 leaves nothing to repel and the loss is 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: shapes that do not fit, s <= 0, k <= 0, a bank of fewer than two images.
    """
    _check_pedal(features, bank, index, s, k)
    with torch.autocast(features.device.type, enabled=False):
        return _Pedal.apply(_full_precision(features), _full_precision(bank.detach()), index, s, k)


def pull_loss(features: Tensor, bank: Tensor, index: Tensor, *, s: float = 30.0, k: int = 10) -> Tensor:
    """The numerator of L_c alone: patches are pulled to their k nearest entries and nothing is pushed away.

    Not in the paper; a control that shows what the denominator of L_c is for. Arguments and errors as `pedal_loss`.
    """
    _check_pedal(features, bank, index, s, k)
    with torch.autocast(features.device.type, enabled=False):
        features, bank = _full_precision(features), _full_precision(bank.detach())
        nearest = _similarities(features, bank, index, s).topk(min(k, bank.shape[1] - 1), dim=2).values
        return (s / 2 * features.square().sum(-1) - nearest.logsumexp(2)).mean()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances [A, n] from direct differences: a Gram matrix loses the digits that decide a ranking."""
    return torch.linalg.vector_norm(a[:, None] - b, dim=2)


@torch.no_grad()
def cyclic_ranking(
    features: Tensor, centers: Tensor, owner: Tensor, *, r: int = 3, include_self: bool = True, max_candidates: int = 15
) -> Tensor:
    """The hard negative that cyclic ranking trusts, for every anchor (paper Sec. 3.3, Fig. 4; ledger 12).

    Walk down the centres by their distance to the anchor. Candidate j may be the anchor's own person if the anchor's
    centre is among the r centres nearest to j: then go on. The first candidate for which it is not is the negative.

    Args:
        features: [A, D] anchors.
        centers: [n, D] one centre per image of the batch.
        owner: [A] which centre is the anchor's own.
        r: length of the candidate's list.
        include_self: whether the candidate's own centre takes one of the r places (it does in the released code).
        max_candidates: how many candidates are walked before giving up.

    Returns:
        [A] positions in `centers`, -1 where no candidate was trusted.

    Raises:
        ValueError: r < 1 or max_candidates < 1.
    """
    if r < 1 or max_candidates < 1:
        raise ValueError(f"r and max_candidates must be at least 1, got {r} and {max_candidates}")
    with torch.autocast(features.device.type, enabled=False):
        features, centers = _full_precision(features), _full_precision(centers)
        n = len(centers)
        to_anchor = _distances(features, centers).scatter_(1, owner[:, None], float("inf"))
        candidates = to_anchor.argsort(dim=1, stable=True)[:, : min(max_candidates, n - 1)]
        between = _distances(centers, centers)
        if not include_self:
            between.fill_diagonal_(float("inf"))
        top_r = between.argsort(dim=1, stable=True)[:, : r if include_self else min(r, n - 1)]
    in_list = torch.zeros(n, n, dtype=torch.bool, device=centers.device).scatter_(1, top_r, True)
    trusted = ~in_list[candidates, owner[:, None]]
    if not trusted.shape[1]:  # a batch of one image has nobody to rank
        return torch.full_like(owner, -1)
    first = trusted.int().argmax(1, keepdim=True)
    return torch.where(trusted.any(1), candidates.gather(1, first).squeeze(1), -1)


def _length(difference: Tensor) -> Tensor:
    # vector_norm has gradient 0 at 0, where the square root alone would give NaN (ledger 13)
    return torch.linalg.vector_norm(difference, dim=-1)


def ipfl_hinges(
    features: Tensor,
    centers: Tensor,
    owner: Tensor,
    *,
    margin: float = 2.0,
    r: int = 3,
    include_self: bool = True,
    max_candidates: int = 15,
    no_negative: str = "zero",
    positives: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The terms of `ipfl_loss`, one per anchor, and which of them count: hinge [A], counted [A] bool."""
    if no_negative not in ("zero", "skip"):
        raise ValueError(f"no_negative must be 'zero' or 'skip', got {no_negative!r}")
    if features.shape[1:] != centers.shape[1:] or owner.shape != features.shape[:1]:
        raise ValueError(
            f"features [A, D], centers [n, D] and owner [A] do not fit: {tuple(features.shape)}, "
            f"{tuple(centers.shape)}, {tuple(owner.shape)}"
        )
    pick = cyclic_ranking(features, centers, owner, r=r, include_self=include_self, max_candidates=max_candidates)
    with torch.autocast(features.device.type, enabled=False):
        features, centers = _full_precision(features), _full_precision(centers)
        positive = centers[owner] if positives is None else _full_precision(positives)
        found = pick >= 0
        to_negative = _length(features - centers[pick.clamp(min=0)]).where(found, torch.zeros_like(features[:, 0]))
        hinge = (margin + _length(features - positive) - to_negative).clamp(min=0)
        return hinge, found if no_negative == "skip" else torch.ones_like(found)


def ipfl_loss(
    features: Tensor,
    centers: Tensor,
    owner: Tensor,
    *,
    margin: float = 2.0,
    r: int = 3,
    include_self: bool = True,
    max_candidates: int = 15,
    no_negative: str = "zero",
    positives: Tensor | None = None,
) -> Tensor:
    r"""Image-level patch feature learning loss L_v (paper Sec. 3.3; ledger 9-13).

    .. math:: L_v = \frac1A \sum_i \max(0,\; \alpha + \|f_i - c_i\|_2 - \|f_i - c_{n(i)}\|_2)

    with c_i the anchor's own centre and c_{n(i)} the centre that `cyclic_ranking` picks.

    Args:
        features: [A, D] anchors: real images and surrogates.
        centers: [n, D] centres of the batch's images; detached by `ImageCenters`.
        owner: [A] each anchor's own centre.
        margin: alpha; the paper's m, which here is the patch.
        r, include_self, max_candidates: see `cyclic_ranking`.
        no_negative: an anchor without a trusted negative counts with negative distance 0, the largest hinge
            ("zero", as released), or is left out of the mean ("skip").
        positives: [A, D] to use in place of the own centres (the paper's reading: the image's surrogate; ledger 11).

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: an unknown `no_negative`, shapes that do not fit.
    """
    hinge, counted = ipfl_hinges(
        features,
        centers,
        owner,
        margin=margin,
        r=r,
        include_self=include_self,
        max_candidates=max_candidates,
        no_negative=no_negative,
        positives=positives,
    )
    return (hinge * counted).sum() / counted.sum().clamp(min=1)


def triplet_loss(
    embeddings: Tensor, person_ids: Tensor, *, margin: float = 1.0, positive: str = "nearest", normalize: bool = True
) -> Tensor:
    """Triplet loss of the source stage on the concatenated embedding (ledger 23).

    The negative is the nearest image of another person. An anchor whose person, or whose negatives, are missing from
    the batch is left out of the mean.

    Args:
        embeddings: [A, E].
        person_ids: [A].
        margin: hinge margin.
        positive: the *nearest* other image of the person (as released) or the *hardest*, that is the farthest.
        normalize: L2-normalise the embeddings first.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: an unknown `positive`.
    """
    if positive not in ("nearest", "hardest"):
        raise ValueError(f"positive must be 'nearest' or 'hardest', got {positive!r}")
    with torch.autocast(embeddings.device.type, enabled=False):
        x = _full_precision(embeddings)
        if normalize:
            x = torch.nn.functional.normalize(x, dim=1)
        with torch.no_grad():
            distance = _distances(x, x)
            same = person_ids[:, None] == person_ids[None]
            other = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
            if positive == "nearest":
                near = distance.masked_fill(~other, float("inf")).argmin(1)
            else:
                near = distance.masked_fill(~other, float("-inf")).argmax(1)
            negative = distance.masked_fill(same, float("inf")).argmin(1)
            usable = other.any(1) & ~same.all(1)
        hinge = (margin + _length(x - x[near]) - _length(x - x[negative])).clamp(min=0)
        return (hinge * usable).sum() / usable.sum().clamp(min=1)

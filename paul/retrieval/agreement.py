"""What can be seen of an adaptation without labels, and the purity that labels would show."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def neighbours(features: Tensor, k: int, cameras=None, chunk: int = 1024) -> Tensor:
    """The k images most similar to each by cosine, never itself: features [N, D] -> positions int64 [N, k].

    Args:
        features: descriptors, or one patch's features.
        k: at most the number of images that may be neighbours.
        cameras: [N]; then only images of other cameras are neighbours. Two images of a camera are often two frames of
            one passage, which any network finds.
        chunk: rows compared at a time.

    Raises:
        ValueError: an image has fewer than k possible neighbours.
    """
    unit = F.normalize(features.float(), dim=1)
    cameras = None if cameras is None else torch.as_tensor(cameras, device=unit.device)
    parts = []
    for rows in torch.arange(len(unit), device=unit.device).split(chunk):
        barred = torch.zeros(len(rows), len(unit), dtype=torch.bool, device=unit.device)
        barred[torch.arange(len(rows), device=unit.device), rows] = True
        if cameras is not None:
            barred |= cameras[rows, None] == cameras
        if (len(unit) - barred.sum(1) < k).any():
            raise ValueError(f"an image has fewer than k = {k} images to be compared with")
        parts.append((unit[rows] @ unit.T).masked_fill(barred, -torch.inf).topk(k, dim=1).indices)
    return torch.cat(parts)


def patch_agreement(features: Tensor, patches: int, k: int = 10, cameras=None) -> Tensor:
    """How far the patches of an image point to the same neighbours: features [N, M*D] -> [N] in [0, 1].

    For every two patches, the share of their k nearest that they have in common; the mean over pairs. Patches that
    point at random share k / (N - 1).

    Raises:
        ValueError: a single patch, which has nothing to agree with; as `neighbours`.
    """
    if patches < 2:
        raise ValueError("agreement is between patches: the network has only one")
    near = [neighbours(part, k, cameras) for part in features.chunk(patches, dim=1)]
    shared = [(a[:, :, None] == b[:, None]).any(2).float().mean(1) for m, a in enumerate(near) for b in near[m + 1 :]]
    return torch.stack(shared).mean(0)


def bank_drift(before: Tensor, after: Tensor) -> float:
    """How far a patch bank [M, N, D] turned between two moments: the mean of 1 - cosine over its entries."""
    return (1 - F.cosine_similarity(before.float(), after.float(), dim=-1)).mean().item()


def purity(near: Tensor, person_ids) -> Tensor:
    """Share of each image's neighbours [N, k] that show its person; needs labels. Returns [N]."""
    person_ids = torch.as_tensor(person_ids, device=near.device)
    return (person_ids[near] == person_ids[:, None]).float().mean(1)

"""k-means by scikit-learn, kept to one thread so that its bits depend on the seed alone."""

from __future__ import annotations

import torch
from torch import Tensor


def kmeans(points: Tensor, clusters: int, seed: int, max_iter: int = 300) -> tuple[Tensor, Tensor]:
    """Means [clusters, d] and each point's cluster [n], on the CPU, of points [n, d].

    Args:
        points: on any device.
        clusters: how many.
        seed: of the first means (k-means++).
        max_iter: steps at most.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: fewer points than clusters.
    """
    try:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError("k-means needs scikit-learn: install paul-book[baselines]") from error
    if len(points) < clusters:
        raise ValueError(f"{len(points)} points make no {clusters} clusters")
    with threadpool_limits(1):
        found = KMeans(clusters, n_init=1, max_iter=max_iter, random_state=seed).fit(points.cpu().numpy())
    return torch.from_numpy(found.cluster_centers_).to(points.dtype), torch.from_numpy(found.labels_).long()

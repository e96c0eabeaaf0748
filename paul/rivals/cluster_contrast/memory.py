"""The cluster memory, one unit vector per cluster, and the loss of an image against all of them.

Dai et al. 2022, Sec. 3: with q an image's feature, c its cluster and K clusters,

    L = -log exp(q . phi_c / tau) / sum_k exp(q . phi_k / tau)       InfoNCE
    phi_c <- gamma phi_c + (1 - gamma) q                             for each image in turn, back to unit length
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cluster_nce(features: Tensor, centroids: Tensor, clusters: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Mean InfoNCE of features [B, D] in the clusters [B] against all centroids [K, D], unit vectors; in float32 at
    least. No gradient reaches the centroids."""
    with torch.autocast(features.device.type, enabled=False):
        features = features if features.dtype == torch.float64 else features.float()
        return F.cross_entropy(features @ centroids.detach().T / temperature, clusters)


class ClusterMemory:
    """The clusters of the epoch at hand.

    Attributes:
        labels: each image's cluster [n], on the CPU; -1 for an outlier, which is not trained on.
        centroids: [K, D], on the device.
    """

    def __init__(self, images: int, device: torch.device):
        self.device = device
        self.labels = torch.full((images,), -1)
        self.centroids = torch.zeros(0, 0, device=device)

    def fill(self, features: Tensor, labels: Tensor) -> None:
        """Begin an epoch: centroids become the mean features [n, D] of the clusters in `labels` [n]."""
        kept = (labels >= 0).nonzero().squeeze(1)
        sums = features.new_zeros(int(labels.max()) + 1, features.shape[1])
        sums.index_add_(0, labels[kept].to(sums.device), features[kept.to(features.device)])
        self.labels, self.centroids = labels, F.normalize(sums, dim=1).to(self.device)

    @torch.no_grad()
    def update(self, clusters: Tensor, features: Tensor, momentum: float) -> None:
        """Average in the features [P, Z, D] of P different clusters [P], the Z of each in turn."""
        centroids = self.centroids[clusters]
        for query in features.unbind(1):
            centroids = F.normalize(momentum * centroids + (1 - momentum) * query, dim=1)
        self.centroids[clusters] = centroids

    @property
    def kept(self) -> float:
        """Share of the images that are in a cluster."""
        return (self.labels >= 0).float().mean().item()

    def state_dict(self) -> dict:
        return {"labels": self.labels, "centroids": self.centroids}

    def load_state_dict(self, state: dict) -> None:
        self.labels, self.centroids = state["labels"], state["centroids"].to(self.device)

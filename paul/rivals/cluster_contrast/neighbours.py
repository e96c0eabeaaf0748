"""Which images show the same person, without labels: k-reciprocal neighbours, their Jaccard distance, and DBSCAN.

After Zhong, Zheng, Cao & Li, "Re-ranking person re-identification with k-reciprocal encoding", CVPR 2017, Sec. 3. With
N(i, k) the k images nearest to image i, itself among them,

    R(i, k) = {j in N(i, k): i in N(j, k)}                                          k-reciprocal neighbours
    R*(i)   = R(i, k1) and each R(j, k1/2), j in R(i, k1), of which R(i, k1) holds two thirds or more
    V(i, j) = exp(-||x_i - x_j||^2) for j in R*(i), 0 elsewhere
    V(i)   <- the mean of V(j) over N(i, k2)                                        local query expansion
    d(i, j) = 1 - sum_c min(V(i, c), V(j, c)) / sum_c max(V(i, c), V(j, c))         Jaccard distance

In between the entries of each V(i) are brought to a sum of one, as in the released code of that paper and of
Cluster-Contrast, whose thresholds go with it; the text does not mention it. Theirs also asks for more than two thirds,
and counts an image among its k1 but not among its k1/2 neighbours.

V is sparse, and so is what is kept of the distances: those up to a bound, which is all that DBSCAN looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import parent_process

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from tqdm.auto import tqdm

ROWS = 256  # images whose neighbours are worked out at a time
ENTRIES = 2**23  # numbers in the largest array held at a time


def shown(blocks: Sequence, label: str) -> tqdm:
    """The blocks behind a progress bar; a worker's parent shows the progress of all."""
    hidden = {"disable": True} if parent_process() is not None else {}
    return tqdm(blocks, desc=label, unit="block", leave=False, **hidden)


def nearest(features: Tensor, k: int) -> np.ndarray:
    """Each image's k nearest by cosine, itself first and then the nearest first: [n, k], of unit vectors [n, d]."""
    found = []
    for index in torch.arange(len(features), device=features.device).split(max(1, ENTRIES // len(features))):
        cosine = features[index] @ features.T
        cosine[torch.arange(len(index), device=index.device), index] = torch.inf
        found.append(cosine.topk(k).indices.cpu())
    return torch.cat(found).numpy()


def reciprocal(near: np.ndarray) -> sparse.csr_matrix:
    """R as a matrix [n, n] of ones where j is in N(i) and i in N(j), of `near` [n, k]."""
    count, k = near.shape
    ones, starts = np.ones(near.size, np.int32), np.arange(0, near.size + 1, k)
    listed = sparse.csr_matrix((ones, near.ravel(), starts), (count, count))
    return listed.multiply(listed.T).tocsr()


def encodings(features: Tensor, k1: int, k2: int) -> sparse.csr_matrix:
    """V [n, n] after local query expansion, each row with a sum of one."""
    near, x = nearest(features, k1), features.cpu().numpy()
    wide, narrow = reciprocal(near), reciprocal(near[:, : max(1, k1 // 2)])
    sizes, parts = narrow.sum(1).A1, []
    for first in shown(range(0, len(x), ROWS), "neighbours"):
        own = wide[first : first + ROWS]
        shared = (own @ narrow.T).multiply(own).tocoo()
        trusted = 3 * shared.data >= 2 * sizes[shared.col]
        joined = sparse.csr_matrix((shared.data[trusted], (shared.row[trusted], shared.col[trusted])), own.shape)
        part = (own + joined @ narrow).tocoo()
        weight = np.exp(-np.square(x[first + part.row] - x[part.col]).sum(1, dtype=np.float64))
        total = np.bincount(part.row, weight)
        parts.append(sparse.csr_matrix((weight / total[part.row], (part.row, part.col)), part.shape))
    mean = (np.full(k2 * len(x), 1 / k2), near[:, :k2].ravel(), np.arange(0, k2 * len(x) + 1, k2))
    return (sparse.csr_matrix(mean, wide.shape) @ sparse.vstack(parts, "csr")).sorted_indices()


def overlaps(encoded: sparse.csr_matrix, columns: sparse.csc_matrix, first: int, last: int) -> np.ndarray:
    """sum_c min(V(i, c), V(j, c)) of the images i = first ... last - 1 with all j: [last - first, n]."""
    rows, counts = encoded[first:last], np.diff(columns.indptr)
    # every entry V(i, c) meets the entries of column c, which lie one after the other
    times = counts[rows.indices]
    met = np.arange(times.sum()) + np.repeat(columns.indptr[rows.indices] - (times.cumsum() - times), times)
    image = np.repeat(np.repeat(np.arange(last - first), np.diff(rows.indptr)), times)
    least = np.minimum(np.repeat(rows.data, times), columns.data[met])
    count = columns.shape[0]
    return np.bincount(image * count + columns.indices[met], least, (last - first) * count).reshape(-1, count)


def jaccard_distances(features: Tensor, k1: int = 30, k2: int = 6, within: float = 1.0) -> sparse.csr_matrix:
    """Jaccard distances of k-reciprocal neighbours: [n, n], entries up to `within`; what is not there is farther.

    Args:
        features: [n, d], unit vectors, on any device; neighbours are found there, all else on the CPU.
        k1, k2: see above; all images where there are no more.
        within: at 1, the distance of images that share nothing, the matrix is full.
    """
    k1, k2 = min(k1, len(features)), min(k2, k1, len(features))
    encoded = encodings(features, k1, k2)
    columns, parts = encoded.tocsc(), []
    # what each image takes: the entries that it meets, and a row of sums
    entries = np.add.reduceat(np.diff(columns.indptr)[encoded.indices], encoded.indptr[:-1]) + len(features)
    block = entries.cumsum() // ENTRIES
    edges = [0, *(np.diff(block).nonzero()[0] + 1).tolist(), len(features)]
    for first, last in shown(list(zip(edges, edges[1:])), "Jaccard distances"):
        shared = overlaps(encoded, columns, first, last)
        distance = np.maximum(1 - shared / (2 - shared), 0)  # V(i) and V(j) have sums of one: max is two less min
        image, other = (distance <= within).nonzero()
        parts.append(sparse.csr_matrix((distance[image, other], (image, other)), distance.shape))
    return sparse.vstack(parts, "csr")


def dbscan(distances: sparse.csr_matrix, eps: float, min_samples: int) -> Tensor:
    """Each image's cluster [n], numbered from 0 in the order of images, -1 for outliers.

    Args:
        distances: at least those up to `eps`.
        eps, min_samples: an image with `min_samples` images within `eps`, itself among them, is inside a cluster.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import DBSCAN
        from sklearn.neighbors import sort_graph_by_row_values
    except ImportError as error:
        raise ImportError("DBSCAN needs scikit-learn: install paul-book[baselines]") from error
    graph = sort_graph_by_row_values(distances, copy=True, warn_when_not_sorted=False)
    return torch.from_numpy(DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(graph)).long()

"""The k most similar images of a gallery, exactly and in blocks, or approximately by FAISS.

Similarity is the cosine of two descriptors: for PatchNet's, the mean over patches of the patches' cosines. It ranks as
`paul.metrics.evaluate` does, by Euclidean distance, since all its descriptors have one norm (ledger 29).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

METHODS = ("auto", "exact", "flat", "ivf")
LARGE = 1_000_000  # above, "auto" takes FAISS's inverted lists
SAMPLES_PER_LIST, ROUNDS = 64, 10  # of k-means


class Found(NamedTuple):
    """The k most similar, best first: similarity float32 [Q, k], position in the gallery int64 [Q, k]; on the CPU."""

    similarity: Tensor
    position: Tensor


class Index:
    """A gallery ready to be searched, as often as you like.

    Args:
        gallery: descriptors [G, D], a tensor or an array; float32 or float16, also a memory map, read block by block.
        method: "exact": every query against every image, in blocks, on the device of a tensor gallery.
            "flat": the same by FAISS. "ivf": FAISS's inverted lists, which look into `probes` of sqrt(G) lists only
            and may miss some: `recall` measures how many are found. "auto": "ivf" over a million images, where FAISS
            is installed and `queries` are enough to pay for the lists; else "exact".
        probes: lists that "ivf" looks into.
        block: rows of the gallery per product.
        queries: how many are going to be searched in all, for "auto"; None stands for many.

    Attributes:
        method: the one taken.

    Cost, for Q queries: "exact" holds nothing but a block, of block * (D + 1024) * 4 bytes, beside the gallery, and
    takes Q * G * D multiplications; "flat" and "ivf" hold a copy of G * D * 4 bytes. "ivf" first clusters 64 sqrt(G)
    samples in some 10 rounds and assigns all: (640 + sqrt(G)) * G * D multiplications, what as many exact queries cost.

    Raises:
        ValueError: no matrix, values that are not finite, an unknown method; the message names it.
        RuntimeError: FAISS is asked for and not installed.
    """

    def __init__(
        self, gallery, method: str = "auto", probes: int = 32, block: int = 16_384, queries: int | None = None
    ):
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        if block < 1 or probes < 1:
            raise ValueError(f"block and probes must be at least 1, got {block} and {probes}")
        self.gallery, self.block = gallery, block
        if len(getattr(gallery, "shape", ())) != 2 or 0 in gallery.shape:
            raise ValueError(
                f"gallery must be a matrix [G, D] with at least one row, got {tuple(getattr(gallery, 'shape', ()))}"
            )
        if method == "auto":
            pays = queries is None or queries > ROUNDS * SAMPLES_PER_LIST + len(gallery) ** 0.5
            method = "ivf" if len(gallery) > LARGE and pays and _faiss(required=False) else "exact"
        self.method = method
        self._faiss = None if method == "exact" else self._build(probes)

    def __len__(self) -> int:
        return len(self.gallery)

    def _blocks(self):
        """(first row, descriptors float32 [b, D], their norms [b]) from the first row to the last."""
        for first in range(0, len(self), self.block):
            part = self.gallery[first : first + self.block]
            # copied: a memory map may be read-only, which torch does not know
            part = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
            yield first, part.float(), _norms("gallery", part, first)

    def _build(self, probes: int):
        faiss = _faiss()
        width, lists = self.gallery.shape[1], max(1, int(len(self) ** 0.5))
        index = faiss.IndexFlatIP(width)
        if self.method == "ivf":
            index = faiss.IndexIVFFlat(index, width, lists, faiss.METRIC_INNER_PRODUCT)
            index.cp.max_points_per_centroid = SAMPLES_PER_LIST
            index.cp.min_points_per_centroid, index.cp.niter = 1, ROUNDS
            chosen = np.linspace(0, len(self) - 1, min(len(self), SAMPLES_PER_LIST * lists)).astype(np.int64)
            sample = self.gallery[torch.from_numpy(chosen) if isinstance(self.gallery, Tensor) else chosen]
            index.train(_unit("gallery", torch.as_tensor(sample)).cpu().numpy())
            index.nprobe = min(probes, lists)
        for _, part, norms in self._blocks():
            index.add((part / norms[:, None]).cpu().numpy())
        return index

    @torch.no_grad()
    def search(self, queries, k: int = 10) -> Found:
        """The k most similar images of the gallery for queries [Q, D]; fewer than k where the gallery is smaller.

        Equal similarities come in the order of the gallery. With "flat" and "ivf" that holds among those found; a
        place that "ivf" could not fill, because the lists held too few, has similarity -inf and position -1.

        Raises:
            ValueError: k < 1, another width than the gallery's, values that are not finite.
        """
        queries = torch.as_tensor(queries)
        if queries.ndim != 2 or queries.shape[1] != self.gallery.shape[1]:
            raise ValueError(
                f"queries must be [Q, D] with D = {self.gallery.shape[1]} as in the gallery, got {tuple(queries.shape)}"
            )
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        k, queries = min(k, len(self)), _unit("queries", queries)
        if self._faiss is None:
            return self._exact(queries, k)
        values, position = map(torch.from_numpy, self._faiss.search(queries.cpu().numpy(), k))
        values = values.masked_fill(position < 0, -torch.inf)
        order = position.argsort(dim=1, stable=True)
        return Found(*_ordered(values.gather(1, order), position.gather(1, order), k))

    def _exact(self, queries: Tensor, k: int) -> Found:
        device = self.gallery.device if isinstance(self.gallery, Tensor) else queries.device
        best = [
            Found(torch.empty(len(part), 0, device=device), torch.empty(len(part), 0, device=device).long())
            for part in queries.split(1024)
        ]
        for first, block, norms in self._blocks():
            for place, part in enumerate(queries.to(device).split(1024)):
                with torch.autocast(device.type, enabled=False):
                    near = _nearest((part @ block.T).div_(norms), k)
                best[place] = _ordered(
                    torch.cat([best[place].similarity, near.similarity], 1),
                    torch.cat([best[place].position, near.position + first], 1),
                    k,
                )
        return (
            Found(*(torch.cat(columns).cpu() for columns in zip(*best)))
            if best
            else Found(torch.empty(0, k), torch.empty(0, k, dtype=torch.long))
        )

    def recall(self, queries, k: int = 10) -> float:
        """Share of the exact k most similar that `search` finds, over these queries."""
        exact = self._exact(_unit("queries", torch.as_tensor(queries)), min(k, len(self))).position
        found = self.search(queries, k).position
        return (exact[:, :, None] == found[:, None]).any(2).double().mean().item()


def search(queries, gallery, k: int = 10, method: str = "auto") -> Found:
    """The k most similar images of `gallery` [G, D] for each of `queries` [Q, D], in one call; see `Index`."""
    return Index(gallery, method, queries=len(queries)).search(queries, k)


def _nearest(similarity: Tensor, k: int) -> Found:
    """The k largest of each row [q, b], equal ones in the order of their columns."""
    k = min(k, similarity.shape[1])
    values, columns = similarity.topk(k, dim=1)
    # topk takes any of several equal values at the border: those rows are sorted whole
    tied = (similarity >= values[:, -1:]).sum(1) > k
    if tied.any():
        whole = similarity[tied].sort(dim=1, descending=True, stable=True)
        values[tied], columns[tied] = whole.values[:, :k], whole.indices[:, :k]
    order = columns.argsort(1)
    return Found(*_ordered(values.gather(1, order), columns.gather(1, order), k))


def _ordered(values: Tensor, positions: Tensor, k: int) -> Found:
    """The k best of candidates, equal ones in the order given."""
    order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
    return Found(values.gather(1, order), positions.gather(1, order))


def _norms(name: str, rows: Tensor, first: int = 0) -> Tensor:
    """Norm of each row, 1 for zeros; `first` is the number of the first row, for the message."""
    norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
    bad = ~norms.isfinite()
    if bad.any():
        raise ValueError(f"{name} are not finite, first in row {first + int(bad.nonzero()[0, 0])}")
    return norms.masked_fill(norms == 0, 1)


def _unit(name: str, rows: Tensor) -> Tensor:
    return rows.float() / _norms(name, rows)[:, None]


def _faiss(required: bool = True):
    try:
        import faiss
    except ImportError as error:
        if required:
            raise RuntimeError(
                "this search needs the package faiss: install paul-book[search], or use method='exact'"
            ) from error
        return None
    return faiss

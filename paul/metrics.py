"""Single-query retrieval scores: CMC, mean average precision in both conventions, mINP (ledger 28-30).

The protocol is Market-1501's. A gallery image of the query's own person *and* camera is removed, a gallery image of
person -1 is junk and removed for every query, person 0 is a distractor and stays: images that share these ids don't
show one person, so a query of an id below 1 can't be scored and is refused. A query without a picture from another
camera can't be scored either: it is left out, and counted.

Ties: a wrong image at exactly the distance of a right one is ranked before it, so neither the order of the gallery nor
a network that maps all images to one point can earn a score by luck. The rule needs no order of equal images, hence
doesn't depend on how queries are cut into chunks.

Only right images are ranked: the i-th, at distance d, has rank
    r_i = i + #{wrong images with distance <= d}
and, for n right images, every score is a closed form in those ranks:
    step AP      = 1/n sum_i i / r_i
    trapezoid AP = 1/n sum_i 1/2 [(i - 1) / (r_i - 1) + i / r_i]     (first term 1 where r_i = 1)
    INP          = n / r_n
A count needs no ranked list: rows of distances are cut into short blocks, each is sorted for itself, and counts add up.
"""

import math
from dataclasses import dataclass

import pandas as pd
import torch

JUNK = -1
MAX_RANK = 50
PERCENT_RANKS = (1, 5, 10, 20)
CHUNK = 256  # queries at a time
# The longest row that numpy sorts by a network of minima and maxima alone: on AVX-512 a twelfth of the time per value
# that a whole gallery takes, and a quarter of what the next longer rows take.
BLOCK = 512
# A matrix product whose rows of results begin on a cache line takes 0.7 of the time on a CPU; the results are the same.
ALIGNED = 16


@dataclass(frozen=True)
class Metrics:
    """Scores of one ranked gallery, each in [0, 1].

    cmc[k - 1] is the share of queries whose first right image has rank k or better, k = 1..50, float64 on the CPU.
    per_query has a row for each scored query: `query` (its position), `first_rank`, `ap_step`, `ap_trapezoid`, `inp`
    and `positives` (right images in the gallery). left_out counts the queries with no right image.
    """

    cmc: torch.Tensor
    map_step: float
    map_trapezoid: float
    minp: float
    per_query: pd.DataFrame
    left_out: int

    @property
    def queries(self) -> int:
        """How many queries were scored."""
        return len(self.per_query)

    def rank(self, k: int) -> float:
        """Rank-k: the share of queries with a right image among the first k."""
        return float(self.cmc[k - 1])

    def percent(self) -> dict[str, float]:
        """The scores in percent under the names that run records use."""
        scores = {f"rank{k}": self.rank(k) for k in PERCENT_RANKS}
        scores |= {"map_step": self.map_step, "map_trapezoid": self.map_trapezoid, "minp": self.minp}
        return {name: 100 * score for name, score in scores.items()}


@torch.no_grad()
def evaluate(
    query_features, query_ids, query_cams, gallery_features, gallery_ids, gallery_cams, chunk=CHUNK
) -> Metrics:
    """Rank the gallery for each query by Euclidean distance of features, and score it.

    Features are [Q, D] and [G, D], used as given: on unit vectors the order is that of the cosine (ledger 29). Ids and
    cameras are integers [Q] and [G]. Anything torch.as_tensor takes will do; the work happens on the device of the
    gallery, `chunk` queries at a time, so that the Q x G distances never exist at once.

    Raises ValueError, naming the argument: not a matrix, empty, unequal widths, a value that is not finite, a length
    that doesn't fit, chunk < 1, a query of an id below 1, or no query with a right image.
    """
    gallery = _matrix("gallery_features", gallery_features)
    query = _matrix("query_features", query_features)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query_features are {query.shape[1]} wide but gallery_features {gallery.shape[1]}")
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    query, gallery = query.to(gallery.device, dtype), gallery.to(dtype)
    with torch.autocast(gallery.device.type, enabled=False):
        _finite("query_features", _squared_norms(query))
        squared_norms = _squared_norms(gallery)
        _finite("gallery_features", squared_norms)

        def write(rows: slice, out: torch.Tensor) -> None:
            # ||q - g||^2 without ||q||^2: that term is one constant per row and changes no rank.
            torch.addmm(squared_norms, query[rows], gallery.T, alpha=-2, out=out)

        return _score(write, len(query), len(gallery), query_ids, query_cams, gallery_ids, gallery_cams, chunk, gallery)


@torch.no_grad()
def evaluate_distances(distances, query_ids, gallery_ids, query_cams, gallery_cams, chunk=CHUNK) -> Metrics:
    """Score a given matrix of distances [Q, G], smaller is nearer (re-ranked distances, say); else as `evaluate`."""
    matrix = _matrix("distances", distances)
    for rows in _chunks(len(matrix), chunk):
        _finite("distances", matrix[rows].amax(1), first_row=rows.start)
        _finite("distances", matrix[rows].amin(1), first_row=rows.start)
    return _score(
        lambda rows, out: out.copy_(matrix[rows]),
        *matrix.shape,
        query_ids,
        query_cams,
        gallery_ids,
        gallery_cams,
        chunk,
        matrix,
    )


def _score(write, num_queries, num_gallery, query_ids, query_cams, gallery_ids, gallery_cams, chunk, like):
    """write(rows, out) puts the distances of those queries into out [q, G], of `like`'s dtype and on its device."""
    query_ids = _labels("query_ids", query_ids, num_queries, like.device)
    if (query_ids < 1).any():
        bad = int((query_ids < 1).nonzero()[0])
        raise ValueError(
            f"query_ids must be 1 or more, not {int(query_ids[bad])} (row {bad}): "
            "-1 is junk and 0 a distractor, no person"
        )
    query_cams = _labels("query_cams", query_cams, num_queries, like.device)
    gallery_ids = _labels("gallery_ids", gallery_ids, num_gallery, like.device)
    gallery_cams = _labels("gallery_cams", gallery_cams, num_gallery, like.device)
    chunks = _chunks(num_queries, chunk)

    # The images of query i's person are by_person[begin[i] : begin[i] + count[i]]: no Q x G comparison of labels.
    ids, by_person = gallery_ids.sort()
    begin = torch.searchsorted(ids, query_ids)
    count = torch.searchsorted(ids, query_ids, right=True) - begin
    slots = torch.arange(max(1, int(count.max())), device=like.device)
    junk = (gallery_ids == JUNK).nonzero().squeeze(1)
    # Sorting short blocks and looking into each of them costs less than sorting the row. They grow with the number of
    # images to look up, so that a copy of these for each block takes about a quarter of the distances' memory at most.
    blocks = math.ceil(num_gallery / max(BLOCK, 4 * len(slots)))
    step = ALIGNED // math.gcd(ALIGNED, blocks)  # a row of blocks must be aligned, not each block
    length = step * math.ceil(num_gallery / blocks / step)
    room = like.new_empty(min(chunk, num_queries), blocks * length)

    def of_own_person(rows, distances):
        images = by_person[(begin[rows, None] + slots).clamp_(max=num_gallery - 1)]
        there = slots < count[rows, None]
        right = there & (gallery_cams[images] != query_cams[rows, None])
        return distances.gather(1, images).masked_fill_(~there, torch.inf), right

    scores = []
    for rows in chunks:
        padded = room[: rows.stop - rows.start]
        write(rows, padded[:, :num_gallery])
        padded[:, num_gallery:] = torch.inf
        own, right = of_own_person(rows, padded)
        padded.index_fill_(1, junk, torch.inf)
        scores.append(_score_rows(own, right, padded.unflatten(1, (blocks, length))))
    columns = [torch.cat(column).cpu() for column in zip(*scores)]

    scored = columns[-1] > 0
    if not scored.any():
        raise ValueError(
            f"none of the {num_queries} queries has an image of its person from another camera in the "
            "gallery: check query_ids, query_cams, gallery_ids and gallery_cams"
        )
    first_rank, ap_step, ap_trapezoid, inp, positives = (column[scored] for column in columns)
    per_query = pd.DataFrame(
        {
            "query": scored.nonzero().squeeze(1),
            "first_rank": first_rank,
            "ap_step": ap_step,
            "ap_trapezoid": ap_trapezoid,
            "inp": inp,
            "positives": positives,
        }
    )
    hits = torch.bincount(first_rank, minlength=MAX_RANK + 1)[1 : MAX_RANK + 1]
    return Metrics(
        hits.cumsum(0).double() / len(first_rank),
        ap_step.mean().item(),
        ap_trapezoid.mean().item(),
        inp.mean().item(),
        per_query,
        int((~scored).sum()),
    )


def _score_rows(own, right, blocks):
    """first_rank, ap_step, ap_trapezoid, inp, positives, each [q].

    own [q, n] holds the distances of all images of the query's person, then inf; right [q, n] marks the right ones;
    blocks [q, b, l] holds the distances of the whole gallery in any order, inf for junk. own and blocks may be
    overwritten.
    """
    positives = right.sum(1)
    width = max(1, int(positives.max()))
    order = torch.arange(1, width + 1, device=own.device)
    present = order <= positives[:, None]
    near = _sort_values(own.masked_fill(~right, torch.inf))[:, :width].contiguous()

    # Wrong is who isn't the person: from all images at distance d or less, those of the person are taken off, removed
    # ones with them.
    wrong = torch.searchsorted(
        _sort_values(blocks), near[:, None].expand(-1, blocks.shape[1], -1).contiguous(), right=True, out_int32=True
    ).sum(1)
    wrong -= torch.searchsorted(_sort_values(own), near, right=True)
    rank = (order + wrong).double()
    step = order / rank
    before = torch.where(rank > 1, (order - 1) / (rank - 1), 1.0)
    last = rank.gather(1, (positives - 1).clamp(min=0)[:, None]).squeeze(1)

    def mean(terms):
        return (terms * present).sum(1) / positives

    return rank[:, 0].long(), mean(step), mean((before + step) / 2), positives / last, positives


def _sort_values(rows: torch.Tensor) -> torch.Tensor:
    """Sort along the last dimension; `rows` itself may be overwritten."""
    if rows.device.type != "cpu":
        return rows.sort().values
    # torch.sort always carries indices along; numpy's sort of bare values is vectorised, some thirty times faster.
    rows.numpy().sort()
    return rows


def _chunks(length: int, chunk: int):
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")
    return (slice(start, min(start + chunk, length)) for start in range(0, length, chunk))


def _squared_norms(features: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nd,nd->n", features, features)


def _matrix(name: str, values) -> torch.Tensor:
    values = torch.as_tensor(values).detach()
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} must be a matrix with at least one row and column, not {tuple(values.shape)}")
    return values if values.dtype == torch.float64 else values.float()


def _labels(name: str, values, length: int, device) -> torch.Tensor:
    values = torch.as_tensor(values, device=device)
    if values.shape != (length,):
        raise ValueError(f"{name} must hold {length} integers, one per image, not {tuple(values.shape)}")
    if values.is_floating_point() or values.is_complex():
        raise ValueError(f"{name} must be integers, not {values.dtype}")
    return values.long()


def _finite(name: str, per_row: torch.Tensor, first_row: int = 0) -> None:
    bad = (~per_row.isfinite()).nonzero()
    if len(bad):
        raise ValueError(f"{name} are not finite, first in row {first_row + int(bad[0])}")

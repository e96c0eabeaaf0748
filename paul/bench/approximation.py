"""PEDAL when the bank is too large to look at whole: from candidates of an index, a random subset, or both.

The numerator of L_c wants the k nearest entries, its denominator a sum over all of them. An index finds the near ones;
a random subset of R entries stands for all n that it was drawn from when each of its terms counts n / R times, which in
a log-sum is a weight of log(n / R). Alone, the first leaves out the far mass and the second finds other nearest ones;
together they don't.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

from paul.bench.case import Bench
from paul.losses import pedal_loss


def candidate_loss(
    features: Tensor,
    bank: Tensor,
    index: Tensor,
    near: Tensor | None,
    drawn: Tensor | None,
    *,
    s: float = 30.0,
    k: int = 10,
) -> Tensor:
    """L_c as `paul.losses.pedal_loss` from some entries of the bank.

    Args:
        features: [M, B, D].
        bank: [M, N, D].
        index: [B] each image's own entry, which never counts.
        near: [M, B, C] entries believed to be nearest, no entry twice; -1 where the index found fewer.
        drawn: [R] different entries drawn at random from all N, the same for each image and patch. Those that are also
            `near` count once, as near.

    Raises:
        ValueError: neither near nor drawn.
    """
    if near is None and drawn is None:
        raise ValueError("give candidates near to the features, drawn at random, or both")
    entries, similar, weight = bank.shape[1], [], []
    own = index.view(1, -1, 1)
    if near is not None:
        picked = bank[torch.arange(len(bank), device=bank.device).view(-1, 1, 1), near.clamp(min=0)]
        likeness = s * torch.einsum("mbd,mbcd->mbc", features, picked) - s / 2 * picked.square().sum(-1)
        left_out = (near == own) | (near < 0)
        similar.append(likeness.masked_fill(left_out, -torch.inf))
        weight.append(torch.zeros_like(likeness))
    if drawn is not None:
        part = bank[:, drawn]
        likeness = s * features @ part.mT - s / 2 * part.square().sum(-1).unsqueeze(1)
        left_out = (drawn == own).expand_as(likeness)
        others = torch.full(likeness.shape[:2], entries - 1.0, device=bank.device)
        if near is not None:
            ordered = near.sort(dim=2).values
            place = torch.searchsorted(ordered, drawn.expand_as(likeness).contiguous()).clamp(max=near.shape[2] - 1)
            left_out = left_out | (ordered.gather(2, place) == drawn)
            others -= ((near >= 0) & (near != own)).sum(2)
        counted = (~left_out).sum(2)
        similar.append(likeness.masked_fill(left_out, -torch.inf))
        weight.append((others / counted.clamp(min=1)).log().unsqueeze(2).expand_as(likeness))
    similar, weight = torch.cat(similar, 2), torch.cat(weight, 2)
    nearest = similar.topk(min(k, similar.shape[2] - 1), dim=2).values
    return ((similar + weight).logsumexp(2) - nearest.logsumexp(2)).mean()


def clustered(bench: Bench, entries: int, dim: int, images_each: int = 20, kinds: int = 200) -> Tensor:
    """Synthetic unit features [entries, dim]: images near their person, persons near one of some kinds of clothes."""

    def around(centers: Tensor, spread: float, count: int) -> Tensor:
        which = torch.arange(count, device=bench.device) % len(centers)
        return unit(centers[which] + spread * unit(bench.randn(count, dim), dim=1), dim=1)

    persons = around(unit(bench.randn(kinds, dim), dim=1), 0.8, max(2, entries // images_each))
    return around(persons, 0.5, entries)


class Index:
    """An inverted file (IVF): entries lie in the lists of their nearest centres, a few lists are searched."""

    def __init__(self, bank: Tensor):
        try:
            import faiss
        except ImportError as error:
            raise RuntimeError(
                "candidates from an index need the package faiss-cpu: install paul-book[search]"
            ) from error
        faiss.omp_set_num_threads(1)
        self.lists = max(4, min(int(2 * math.sqrt(bank.shape[1])), bank.shape[1] // 40))  # 39 entries to train each
        self.indices = []
        for entries in bank.cpu().numpy():
            quantizer = faiss.IndexFlatL2(bank.shape[2])
            index = faiss.IndexIVFFlat(quantizer, bank.shape[2], self.lists)
            index.cp.niter = 8
            index.train(entries)
            index.add(entries)
            self.indices.append((index, quantizer))  # the index doesn't hold on to its quantizer

    def nearest(self, features: Tensor, count: int) -> Tensor:
        """[M, B, count] entries, from so many lists that they hold about four times as many."""
        found = []
        for (index, _), x in zip(self.indices, features.detach().cpu().numpy()):
            index.nprobe = min(self.lists, max(4, math.ceil(4 * count * self.lists / index.ntotal)))
            found.append(torch.from_numpy(index.search(x, count)[1]))
        return torch.stack(found).to(features.device)


def approximation(
    bench: Bench,
    entries=100_000,
    batch=40,
    dim=64,
    candidates=(30, 100, 300, 1_000, 3_000),
    views=2,
    scales=(30.0, 10.0),
    k=10,
    good=0.01,
) -> dict:
    """Errors of loss and gradient by the number of candidates, and their seconds.

    Errors are relative to the exact loss and to the length of its gradient, averaged over batches of features that are
    bank entries moved a little, as an image's features are after a step. The row's own time is that of the cheapest
    way whose gradient at the first scale is off by less than `good`, or else of the best.
    """
    bank = clustered(bench, entries, dim)[None]
    begin = time.perf_counter()
    index = Index(bank)
    build = time.perf_counter() - begin
    generator = torch.Generator().manual_seed(0)
    queries = []
    for _ in range(views):
        rows = torch.randperm(entries, generator=generator)[:batch].to(bench.device)
        queries.append((unit(bank[:, rows] + 0.3 * unit(bench.randn(1, batch, dim), dim=2), dim=2), rows))

    def some(count: int) -> Tensor:
        return torch.randperm(entries, generator=generator)[:count].to(bench.device)

    def candidate(method: str, count: int, x: Tensor, rows: Tensor, s: float) -> Tensor:
        each = count // 2 if method == "both" else count
        near = None if method == "random" else index.nearest(x, each)
        drawn = None if method == "index" else some(each)
        return candidate_loss(x, bank, rows, near, drawn, s=s, k=k)

    def with_gradient(loss, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        value = loss(x)
        value.backward()
        return value.detach(), x.grad

    def error(method: str, count: int, s: float) -> tuple[float, float]:
        errors = []
        for x, rows in queries:
            value, gradient = with_gradient(lambda x: pedal_loss(x, bank, rows, s=s, k=k), x)
            close, direction = with_gradient(lambda x: candidate(method, count, x, rows, s), x)
            errors.append([abs(close / value - 1), (direction - gradient).norm() / gradient.norm()])
        return tuple(torch.tensor(errors).mean(0).tolist())

    points, rows_of_table = [], {}
    x, rows = queries[0]
    for method in ("index", "random", "both"):
        for count in candidates:
            row = bench.compare(
                lambda: with_gradient(lambda x: candidate(method, count, x, rows, scales[0]), x),
                lambda: with_gradient(lambda x: pedal_loss(x, bank, rows, s=scales[0], k=k), x),
                4 * batch * count * dim,
                4 * batch * count * dim,
                repeats=3,
            )
            for s in scales:
                loss_error, gradient_error = error(method, count, s)
                points.append(
                    {
                        "method": method,
                        "candidates": count,
                        "s": s,
                        "loss_error": loss_error,
                        "gradient_error": gradient_error,
                        "seconds": row["ours_seconds"],
                    }
                )
            rows_of_table[method, count] = row
    first = [point for point in points if point["s"] == scales[0]]
    close = [point for point in first if point["gradient_error"] < good]
    best = (
        min(close, key=lambda point: point["seconds"])
        if close
        else min(first, key=lambda point: point["gradient_error"])
    )
    size = (
        f"{best['candidates']:,} candidates ({best['method']}) of {entries:,} synthetic clustered features of width "
        f"{dim}, s = {scales[0]:g}: gradient off by {best['gradient_error']:.1%}"
    )
    return rows_of_table[best["method"], best["candidates"]] | {
        "points": points,
        "build_seconds": build,
        "entries": entries,
        "size": size,
    }

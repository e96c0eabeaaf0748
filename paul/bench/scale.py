"""Suite `scale`: how seconds grow with the bank, the gallery, the batch and the patches, and what a subset costs.

A curve's exponent is the slope of log seconds over log size, fitted to the upper half of its sizes: small sizes show
what a call costs at least. A row's own ratio and bound are those of the largest size that both sides were given.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn.functional import normalize as unit

from paul.bench.approximation import approximation
from paul.bench.case import Bench, Case
from paul.bench.ops import FLOAT
from paul.bench.peaks import count_flops
from paul.bench.step import SMALL, TINY, AdaptationStep, batches, target_network
from paul.experiments.costs import Step
from paul.losses import pedal_loss
from paul.memory import PatchMemory
from paul.metrics import evaluate

BANKS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
FEW = (100, 200, 400)


def exponent(sizes, seconds) -> float:
    """p of seconds ~ size^p, by least squares in logarithms over the upper half of at least two sizes."""
    upper = len(sizes) // 2 if len(sizes) > 3 else 0
    x, y = ([math.log(value) for value in values][upper:] for values in (sizes, seconds))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


def grow(bench: Bench, of: str, sizes, prepare: Callable[[int], dict], most: int) -> dict:
    """The curves of ours and the literal version, the latter up to the size `most`.

    prepare(size) -> what `Bench.compare` takes: ours, other, flops, moved, and perhaps precision.
    """
    rows = {}
    for size in sizes:
        works = prepare(size)
        if size > most:
            works["other"] = works["ours"]  # the same again, and left out below
        rows[size] = bench.compare(**works, repeats=3, other_repeats=3 if size <= most else 1)
    curves = []
    for name, side, limit in (("ours", "ours", max(sizes)), ("literal", "other", most)):
        taken = [size for size in sizes if size <= limit]
        seconds = [rows[size][f"{side}_seconds"] for size in taken]
        curves.append(
            {
                "name": name,
                "of": of,
                "x": taken,
                "seconds": seconds,
                "exponent": exponent(taken, seconds),
                "spread": [rows[size][f"{side}_spread"] for size in taken],
            }
        )
    curves[0]["bound_seconds"] = [rows[size]["bound_seconds"] for size in sizes]
    shared = max(size for size in sizes if size <= most)
    return rows[shared] | {"curves": curves, "size": f"at {of} = {shared:,}"}


def pedal(bench: Bench, sizes=BANKS, most=100_000, patches=2, batch=40, dim=128) -> dict:
    bank = unit(bench.randn(patches, max(sizes), dim), dim=2)
    features = unit(bench.randn(patches, batch, dim), dim=2)

    def prepare(entries: int) -> dict:
        part, index = bank[:, :entries], torch.arange(batch, device=bench.device)

        def step(loss):
            loss(features.clone().requires_grad_(), part, index).backward()

        return {
            "ours": lambda: step(pedal_loss),
            "other": lambda: step(bench.reference.pedal_loss),
            "flops": Step(entries, batch, patches, dim).pedal_flops,
            "moved": FLOAT * entries * patches * dim + 2 * features.nbytes,
        }

    row = grow(bench, "N", sizes, prepare, most)
    return row | {"size": f"{row['size']}, {patches} x {batch} x N x {dim}"}


def bank_update(bench: Bench, sizes=BANKS, most=30_000, patches=2, batch=40, dim=128) -> dict:
    features = bench.randn(patches, batch, dim)

    def prepare(entries: int) -> dict:
        index = torch.randperm(entries)[:batch].to(bench.device)
        ours = PatchMemory(entries, patches, dim).to(bench.device)
        literal = bench.reference.ListMemory(entries if entries <= most else 1, patches, dim)

        def by_list():
            literal.update(index, features)
            return literal.bank.to(bench.device)

        return {
            "ours": lambda: ours.update(index, features),
            "other": by_list,
            "flops": 0,
            "moved": 3 * features.nbytes,
        }

    row = grow(bench, "N", sizes, prepare, most)
    return row | {"size": f"{row['size']}, {patches} x {batch} x N x {dim}"}


def gallery(bench: Bench, sizes=BANKS, most=30_000, queries=16, dim=64, people=400, cameras=6) -> dict:
    features, query = bench.randn(max(sizes), dim), bench.randn(queries, dim)
    ids, cams = torch.arange(max(sizes)) % people, torch.randint(1, cameras + 1, (max(sizes),))
    query_ids, query_cams = torch.arange(queries) + 1, torch.zeros(queries, dtype=torch.int64)

    def prepare(size: int) -> dict:
        def literal():
            distances = bench.reference.squared_distances(query, features[:size]).cpu()
            bench.reference.evaluate_distances(distances, query_ids, ids[:size], query_cams, cams[:size])

        return {
            "ours": lambda: evaluate(query, query_ids, query_cams, features[:size], ids[:size], cams[:size]),
            "other": literal,
            "flops": 2 * queries * size * dim,
            "moved": FLOAT * size * dim,
        }

    row = grow(bench, "gallery", sizes, prepare, most)
    return row | {"size": f"{row['size']}, {queries} queries, {dim} wide"}


def batch(bench: Bench, sizes=(5, 10, 20, 40, 80), most=40, height=96, width=48, entries=2_000, network=SMALL) -> dict:
    row = grow(bench, "B", sizes, lambda real: whole_step(bench, real, height, width, entries, network), most)
    return row | {"size": f"{row['size']}, small network, B + B images of {height} x {width}"}


def patches(
    bench: Bench, sizes=(1, 2, 4, 8, 16), most=16, real=20, height=96, width=48, entries=12_936, network=SMALL
) -> dict:
    row = grow(
        bench,
        "M",
        sizes,
        lambda m: whole_step(bench, real, height, width, entries, {**network, "num_patches": m}),
        most,
    )
    return row | {"size": f"{row['size']}, small network, {real} + {real} images of {height} x {width}"}


def whole_step(bench: Bench, real: int, height: int, width: int, entries: int, network: dict) -> dict:
    step = AdaptationStep(bench, real, height, width, entries, network, images=4 * real)
    literal = bench.reference.ReleasedStep(target_network(bench, network).train(), entries)
    literal.memory.update(torch.arange(entries), step.objective.memory.bank.cpu())
    made = batches(step.on_host, real, workers=0)

    def released():
        plain, changed, index = next(made)
        literal(plain.to(bench.device), changed.to(bench.device), index)

    return {
        "ours": step,
        "other": released,
        "flops": count_flops(step),
        "moved": step.bytes_at_least(),
        "precision": bench.network,
    }


CASES = {
    "pedal": Case("PEDAL over the bank", pedal, quick=dict(sizes=FEW, most=200, dim=8)),
    "bank": Case("bank update over the bank", bank_update, quick=dict(sizes=FEW, most=200, dim=8)),
    "gallery": Case("evaluation over the gallery", gallery, quick=dict(sizes=FEW, most=200, people=20)),
    "batch": Case(
        "whole step over the batch",
        batch,
        other="literal step",
        quick=dict(sizes=(4, 8), most=8, entries=50, network=TINY),
    ),
    "patches": Case(
        "whole step over the patches",
        patches,
        other="literal step",
        quick=dict(sizes=(1, 2), most=2, real=4, entries=50, network=TINY),
    ),
    "approximation": Case(
        "PEDAL from candidates of an index and a random subset",
        approximation,
        other="exact loss",
        quick=dict(entries=2_000, dim=16, candidates=(64, 256), views=1),
    ),
}

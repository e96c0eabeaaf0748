"""Suite `ops`: the losses, the memory and the sampler, each alone.

Bytes are compulsory traffic: every input read once, every result written once, whatever an implementation does in
between. Operations are those of the matrix products.
"""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from paul.bench.case import Bench, Case
from paul.bench.peaks import count_flops
from paul.losses import ipfl_loss, pedal_loss
from paul.memory import PatchMemory
from paul.patches import pool_patches

FLOAT = 4  # bytes


def pedal(bench: Bench, patches=6, batch=40, entries=12_936, dim=256) -> dict:
    features, bank = (normalize(bench.randn(patches, n, dim), dim=2) for n in (batch, entries))
    index = torch.randperm(entries)[:batch].to(bench.device)

    def step(loss):
        loss(features.clone().requires_grad_(), bank, index).backward()

    flops = count_flops(lambda: step(pedal_loss))
    row = bench.compare(
        lambda: step(pedal_loss), lambda: step(bench.reference.pedal_loss), flops, bank.nbytes + 2 * features.nbytes
    )
    return row | {"size": f"{patches} x {batch} x {entries:,} x {dim}"}


def memory(bench: Bench, patches=6, batch=40, entries=12_936, dim=256) -> dict:
    first, features = (bench.randn(patches, n, dim) for n in (entries, batch))
    index = torch.randperm(entries)[:batch].to(bench.device)
    ours = PatchMemory(entries, patches, dim).to(bench.device)
    ours.bank.copy_(first)
    ours.filled.fill_(True)
    literal = bench.reference.ListMemory(entries, patches, dim)
    literal.update(torch.arange(entries), first)

    def step_by_list():
        literal.update(index, features)
        return literal.bank.to(bench.device)  # the loss reads it every step

    row = bench.compare(lambda: ours.update(index, features), step_by_list, 0, 3 * features.nbytes)
    return row | {"size": f"{patches} x {batch} x {entries:,} x {dim}"}


def ipfl(bench: Bench, anchors=80, dim=768, person_images=4) -> dict:
    images = anchors // 2
    person = bench.randn(-(-images // person_images), dim).repeat_interleave(person_images, 0)[:images]
    centers = person + 0.5 * bench.randn(images, dim)
    owner = torch.arange(images, device=bench.device).repeat(2)
    features = centers[owner] + 0.5 * bench.randn(anchors, dim)

    def step(loss):
        loss(features.clone().requires_grad_(), centers, owner).backward()

    # the ranking takes direct differences, no product: subtract, square, add for each pair
    flops = 3 * dim * (anchors * images + images * images)
    row = bench.compare(
        lambda: step(ipfl_loss), lambda: step(bench.reference.ipfl_loss), flops, 2 * features.nbytes + centers.nbytes
    )
    return row | {"size": f"{anchors} x {dim}"}


def pooling(bench: Bench, batch=8, channels=2048, rows=24, columns=8, patches=6) -> dict:
    x = bench.randn(batch, channels, rows, columns)
    theta = 0.2 * bench.randn(batch, patches, 2, 3) + torch.eye(2, 3, device=bench.device)

    def step(pool):
        pool(x.clone().requires_grad_(), theta.clone().requires_grad_()).sum().backward()

    row = bench.compare(
        lambda: step(pool_patches),
        lambda: step(bench.reference.pool_patches),
        count_flops(lambda: step(pool_patches)),
        2 * x.nbytes + patches * batch * channels * FLOAT,
    )
    return row | {"size": f"{patches} of {batch} x {channels} x {rows} x {columns}"}


CASES = {
    "pedal": Case("PEDAL, forward and backward", pedal, expected={"cpu": 3.5}, quick=dict(entries=300)),
    "memory": Case("memory bank, one update", memory, expected={"cpu": 30, "cuda": 30}, quick=dict(entries=300)),
    "ipfl": Case(
        "IPFL with cyclic ranking, forward and backward",
        ipfl,
        expected={"cpu": 8, "cuda": 8},
        quick=dict(anchors=16, dim=64),
        cuda=dict(anchors=84),
    ),
    "pooling": Case(
        "pooled patches, forward and backward",
        pooling,
        expected={"cpu": 8},
        quick=dict(channels=32),
        cuda=dict(batch=84),
    ),
}

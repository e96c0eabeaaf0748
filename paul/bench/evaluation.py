"""Suite `eval`: descriptors of images, CMC and both mAPs, and the memory that takes.

As many people and cameras as Market-1501; features are random, so the ranking is, too.
"""

from __future__ import annotations

import numpy as np
import torch

from paul.bench.case import Bench, Case
from paul.bench.peaks import count_flops
from paul.bench.step import SMALL, describe_size, input_images, target_network
from paul.bench.timing import fresh_peak
from paul.data.passes import extract
from paul.engine.optim import prepare
from paul.metrics import ALIGNED, CHUNK, evaluate, evaluate_distances

PEOPLE, CAMERAS = 751, 6


def labelled(bench: Bench, queries: int, gallery: int) -> tuple:
    """Ids and cameras of the queries, then of the gallery, on the device."""
    return tuple(
        torch.randint(low, high, (count,)).to(bench.device)
        for count, first in ((queries, 1), (gallery, 0))
        for low, high in ((first, PEOPLE), (1, CAMERAS + 1))
    )


def extraction(bench: Bench, images=16, height=384, width=128, network=None) -> dict:
    """The literal version cuts whole patches and takes branch after branch."""
    model = prepare(target_network(bench, network), bench.device).eval()
    pictures = input_images(images, height, width)

    def literal():
        return bench.reference.describe(model, bench.reference.prepared(pictures).to(bench.device))

    weights = sum(p.nbytes for p in model.parameters())
    row = bench.compare(
        lambda: extract(model, pictures),
        literal,
        count_flops(lambda: extract(model, pictures)),
        weights + pictures.nbytes,
        bench.network,
        repeats=3,
    )
    return row | {
        "size": describe_size(model, f"{images} images", height, width),
        "images_per_second": images / row["ours_seconds"],
    }


def from_features(bench: Bench, queries=3_368, gallery=15_913, dim=1_536) -> dict:
    """The honest comparison: both sides begin with features, and both must make the distances.

    No side can take less time than the matrix product that makes them; product_share is its part of ours, measured
    with the same chunks and the same layout. over_features_mb is the memory that ours takes beside the features.
    """
    query, gallery_features = bench.randn(queries, dim), bench.randn(gallery, dim)
    query_ids, query_cams, gallery_ids, gallery_cams = labelled(bench, queries, gallery)

    def ours():
        return evaluate(query, query_ids, query_cams, gallery_features, gallery_ids, gallery_cams)

    def literal():
        distances = bench.reference.squared_distances(query, gallery_features).cpu()
        labels = (each.cpu() for each in (query_ids, gallery_ids, query_cams, gallery_cams))
        return bench.reference.evaluate_distances(distances, *labels)

    norms = gallery_features.square().sum(1)
    room = query.new_empty(CHUNK, gallery + -gallery % ALIGNED)[:, :gallery]

    def product():
        for rows in query.split(CHUNK):
            torch.addmm(norms, rows, gallery_features.T, alpha=-2, out=room[: len(rows)])

    bench.reference.scores_of_list(np.array([True]))  # imports scikit-learn
    moved = query.nbytes + gallery_features.nbytes
    row = bench.compare(ours, literal, count_flops(ours), moved, other_repeats=1, product=product)
    given = f"""
def images(count, first):
    return (torch.randn(count, {dim}).to(device), torch.randint(first, {PEOPLE}, (count,)).to(device),
            torch.randint(1, {CAMERAS + 1}, (count,)).to(device))
both = *images({queries}, 1), *images({gallery}, 0)
"""
    memory = fresh_peak("import torch\nfrom paul.metrics import evaluate", "evaluate(*both)", bench.device, given)
    return row | {
        "size": f"{queries:,} x {gallery:,} x {dim}",
        "features_mb": moved / 2**20,
        "over_features_mb": memory["gpu_work_mb" if bench.on_gpu else "work_mb"],
        "product_share": row["product_seconds"] / row["ours_seconds"],
    }


def from_distances(bench: Bench, queries=3_368, gallery=15_913) -> dict:
    """The scores alone."""
    distances = torch.rand(queries, gallery, device=bench.device)
    query_ids, query_cams, gallery_ids, gallery_cams = labelled(bench, queries, gallery)
    labels = query_ids, gallery_ids, query_cams, gallery_cams
    on_host = [each.cpu() for each in (distances, *labels)]
    bench.reference.scores_of_list(np.array([True]))  # imports scikit-learn
    row = bench.compare(
        lambda: evaluate_distances(distances, *labels),
        lambda: bench.reference.evaluate_distances(*on_host),
        0,
        distances.nbytes,
        other_repeats=1,
    )
    return row | {"size": f"{queries:,} x {gallery:,}"}


CASES = {
    "extraction": Case(
        "descriptors of images",
        extraction,
        quick=dict(images=4, height=96, width=48, network=SMALL),
        cuda=dict(images=512),
    ),
    "features": Case(
        "CMC and both mAPs from features",
        from_features,
        expected={"cpu": 0.85},
        judged="product_share",
        quick=dict(queries=30, gallery=1_500, dim=16),
    ),
    "distances": Case(
        "CMC and both mAPs of given distances",
        from_distances,
        expected={"cpu": 10, "cuda": 10},
        quick=dict(queries=30, gallery=1_500),
    ),
}

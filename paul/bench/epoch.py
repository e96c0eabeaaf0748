"""Suite `epoch`: the target stage on embedded people as `paul adapt` runs it, from first batch to saved epoch."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace

import torch

from paul.adapt import adapt
from paul.bench.case import Bench, Case
from paul.bench.data import people
from paul.bench.peaks import count_flops
from paul.bench.step import SMALL, TINY, WORKERS, AdaptationStep, batches, describe_size, target_network
from paul.bench.timing import seconds_of, spent_in, summary
from paul.data.batches import batch_of, on_device
from paul.engine.run import Run
from paul.experiments.profiles import PROFILES


def epoch(
    bench: Bench, real=40, height=96, width=48, network=SMALL, epochs=3, literal_steps=5, count=None, workers=0
) -> dict:
    """Wall seconds of a step, over whole epochs with their checkpoints; the literal step on the same images.

    Waiting for data is at most what fetching all batches takes on its own.
    """
    images, whose = people(bench, height, width, count)
    model = target_network(bench, network)
    options = replace(PROFILES["mini"].adapt, epochs=epochs, batch=real, refresh_statistics=False)
    steps = -(-len(images) // real)
    with tempfile.TemporaryDirectory() as folder, spent_in(Run, "save", bench.device) as saving:
        begin = time.perf_counter()
        _, history = adapt(model, images, options, folder=folder, device=str(bench.device))
        total = time.perf_counter() - begin

    placed = on_device(images, bench.device)
    order = torch.arange(len(images)).split(real)
    reading = seconds_of(lambda: [batch_of(placed, rows, bench.device) for rows in order], bench.device, wall=True)

    one = AdaptationStep(bench, real, height, width, len(images), network)
    literal = bench.reference.ReleasedStep(target_network(bench, network).train(), len(images), s=options.s)
    literal.memory.update(torch.arange(len(images)), one.objective.memory.bank.cpu())
    made = batches(images, real, workers)

    def released():
        plain, changed, index = next(made)
        literal(plain.to(bench.device), changed.to(bench.device), index)

    released()  # workers start, if there are any
    others = [seconds_of(released, bench.device, wall=True) for _ in range(literal_steps)]
    made.close()
    mean = statistics.mean(each["seconds"] for each in history)
    return {
        **summary([each["seconds"] / steps for each in history], "ours"),
        **summary(others, "other"),
        **bench.peaks.bound(count_flops(one), one.bytes_at_least(), bench.network),
        "size": describe_size(model, f"{len(images):,} {whose}, {steps} steps of {real} + {real}", height, width),
        "data_wait_share": reading / mean,
        "save_share": saving[0] / total,
        "epoch_seconds": mean,
    }


CASES = {
    "adapt": Case(
        "a step within whole epochs, wall time",
        epoch,
        other="literal step",
        quick=dict(real=4, network=TINY, epochs=1, literal_steps=1, count=12),
        cuda=dict(real=42, height=384, width=128, network=None, workers=WORKERS),
    )
}

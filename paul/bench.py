"""`python -m paul bench`: what vectorising the losses, memories, sampler and scores is worth.

Each case times ours against the literal version in tests/reference.py, which walks over samples, keeps the bank in a
list and cuts whole patches. One thread, CPU seconds (waiting doesn't count), median of five, the two sides taking
turns. The expected ratio is printed beside the measured one; nothing fails when a machine is slower.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from paul.adapt import AdaptOptions, PaulLoss
from paul.augment import random_flip, surrogates
from paul.losses import ipfl_loss, pedal_loss
from paul.memory import PatchMemory
from paul.metrics import evaluate, evaluate_distances
from paul.patches import pool_patches
from paul.patchnet import PatchNet
from paul.pretrain import parameter_groups
from paul.records import code_hash, commit, machine, versions, write_record

REPEATS = 5
TURN_SECONDS = 0.1


def repository() -> Path:
    """The folder that holds the package, and in a clone the tests."""
    return Path(__file__).resolve().parents[1]


def load_reference():
    """The module tests/reference.py of the repository this file lies in.

    Raises:
        FileNotFoundError: the package was installed without its repository.
    """
    path = repository() / "tests" / "reference.py"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: the literal versions to compare with come with the repository; clone it "
                                "and run `python -m paul bench` there")
    spec = importlib.util.spec_from_file_location("paul_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cpu_seconds(work: Callable[[], object], calls: int = 1) -> float:
    """CPU seconds of one call, averaged over some."""
    begin = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - begin) / calls


def compare(ours: Callable[[], object], other: Callable[[], object], other_repeats: int = REPEATS) -> dict:
    """Median CPU seconds of both, taking turns; a turn repeats short work for about TURN_SECONDS.

    Each side has an untimed call first, except the other when it is timed only once.
    """
    sides = {"ours": (ours, REPEATS), "other": (other, other_repeats)}
    calls = {name: max(1, int(TURN_SECONDS / max(cpu_seconds(work), 1e-4))) if repeats > 1 else 1
             for name, (work, repeats) in sides.items()}
    seconds = {name: [] for name in sides}
    for turn in range(REPEATS):
        for name, (work, repeats) in sides.items():
            if turn < repeats:
                seconds[name].append(cpu_seconds(work, calls[name]))
    return {f"{name}_seconds": statistics.median(values) for name, values in seconds.items()}


def pedal(reference, patches=6, batch=40, entries=12_936, dim=256) -> dict:
    features, bank = (normalize(torch.randn(patches, n, dim), dim=2) for n in (batch, entries))
    index = torch.randperm(entries)[:batch]

    def step(loss):
        loss(features.clone().requires_grad_(), bank, index).backward()

    return compare(lambda: step(pedal_loss), lambda: step(reference.pedal_loss))


def memory(reference, patches=6, batch=40, entries=12_936, dim=256) -> dict:
    first, features = (torch.randn(patches, n, dim) for n in (entries, batch))
    index = torch.randperm(entries)[:batch]
    memories = PatchMemory(entries, patches, dim), reference.ListMemory(entries, patches, dim)
    for one in memories:
        one.update(torch.arange(entries), first)

    def step(one):
        one.update(index, features)
        return one.bank  # the loss reads it every step

    return compare(*(lambda one=one: step(one) for one in memories))


def ipfl(reference, anchors=80, dim=768, person_images=4) -> dict:
    images = anchors // 2
    person = torch.randn(-(-images // person_images), dim).repeat_interleave(person_images, 0)[:images]
    centers = person + 0.5 * torch.randn(images, dim)
    owner = torch.arange(images).repeat(2)
    features = centers[owner] + 0.5 * torch.randn(anchors, dim)

    def step(loss):
        loss(features.clone().requires_grad_(), centers, owner).backward()

    return compare(lambda: step(ipfl_loss), lambda: step(reference.ipfl_loss))


def pooling(reference, batch=8, channels=2048, rows=24, columns=8, patches=6) -> dict:
    x = torch.randn(batch, channels, rows, columns)
    theta = 0.2 * torch.randn(batch, patches, 2, 3) + torch.eye(2, 3)

    def step(pool):
        pool(x.clone().requires_grad_(), theta.clone().requires_grad_()).sum().backward()

    return compare(lambda: step(pool_patches), lambda: step(reference.pool_patches))


def evaluation(reference, queries=3_368, gallery=15_913, dim=1_536) -> dict:
    # As many people and cameras as Market-1501; the ranking is random.
    query, gallery_features = torch.randn(queries, dim), torch.randn(gallery, dim)
    query_ids, query_cams = torch.randint(1, 751, (queries,)), torch.randint(1, 7, (queries,))
    gallery_ids, gallery_cams = torch.randint(0, 751, (gallery,)), torch.randint(1, 7, (gallery,))

    def from_features():
        evaluate(query, query_ids, query_cams, gallery_features, gallery_ids, gallery_cams)

    from_features_seconds = statistics.median(cpu_seconds(from_features) for _ in range(REPEATS))
    distances = reference.squared_distances(query, gallery_features)
    reference.scores_of_list(np.array([True]))  # imports scikit-learn
    seconds = compare(lambda: evaluate_distances(distances, query_ids, gallery_ids, query_cams, gallery_cams),
                      lambda: reference.evaluate_distances(distances, query_ids, gallery_ids, query_cams, gallery_cams),
                      other_repeats=1)
    script = PEAK_OF_EVALUATION.format(queries=queries, gallery=gallery, dim=dim)
    peak = subprocess.run([sys.executable, "-c", script], cwd=repository(), check=True, stdout=subprocess.PIPE,
                          text=True).stdout
    return seconds | {"from_features_seconds": from_features_seconds} | json.loads(peak)


# In a process of its own, which imports nothing else: memory after the imports, and at most.
PEAK_OF_EVALUATION = """
import json, re, sys
from pathlib import Path
import torch
from paul.metrics import evaluate

def peak_mb():
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where ru_maxrss would start from the parent's
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) / 1024
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 ** 2 if sys.platform == "darwin" else 1024)

torch.set_num_threads(1)
imports = peak_mb()
def images(count, first_id):
    return torch.randn(count, {dim}), torch.randint(first_id, 751, (count,)), torch.randint(1, 7, (count,))
evaluate(*images({queries}, 1), *images({gallery}, 0))
print(json.dumps(dict(imports_mb=imports, peak_mb=peak_mb(), evaluation_mb=peak_mb() - imports)))
"""


def step(_reference, images=8, height=384, width=128, entries=12_936, network=None) -> dict:
    """A step on half as many real images and their surrogates, against the part of it that is the network's alone."""
    torch.manual_seed(0)
    real = images // 2
    model = PatchNet(**network or {}).to_target().train()
    options = AdaptOptions(batch=real)
    loss = PaulLoss(model, entries, options)
    loss.memory.update(torch.arange(entries), normalize(torch.randn_like(loss.memory.bank), dim=2))
    optimizer = torch.optim.SGD(parameter_groups(model), lr=options.lr, momentum=options.momentum,
                                weight_decay=options.weight_decay)
    plain, index = torch.rand(real, 3, height, width), torch.arange(real)
    generator = torch.Generator().manual_seed(0)

    def whole():
        changed = surrogates(plain, generator, mode=options.surrogate, jitter=options.jitter,
                             hue_turn=options.hue_turn, degrees=options.degrees, area=options.crop_area)
        output = model(random_flip(torch.cat([plain, changed]), generator))
        optimizer.zero_grad()
        loss(output, index)["loss"].backward()
        optimizer.step()

    def network_alone():
        feature_map = model.backbone(torch.cat([plain, plain]))
        theta = model.generator(feature_map)
        model.zero_grad()
        (feature_map.mean() + theta.mean()).backward()

    return compare(whole, network_alone)


@dataclass(frozen=True)
class Case:
    """What is measured, and the ratio literal / ours hoped for; `at_most` marks ours / network alone instead."""

    title: str
    size: str
    run: Callable[..., dict]
    expected: float
    quick: dict
    at_most: bool = False

    def measure(self, reference, quick: bool) -> dict:
        torch.manual_seed(0)
        result = self.run(reference, **self.quick if quick else {})
        ratio = result["other_seconds"] / result["ours_seconds"]
        result |= {"title": self.title, "size": "tiny" if quick else self.size,
                   "ratio": 1 / ratio if self.at_most else ratio}
        if not quick:
            result["expected"] = f"{'<=' if self.at_most else '>='} {self.expected:g}"
            result["as_expected"] = bool((result["ratio"] <= self.expected) == self.at_most)
        return result


CASES = {
    "pedal": Case("PEDAL, forward and backward", "6 x 40 x 12,936 x 256", pedal, 3.5, dict(entries=300)),
    "memory": Case("memory bank, one update", "6 x 40 x 12,936 x 256", memory, 30, dict(entries=300)),
    "ipfl": Case("IPFL with cyclic ranking, forward and backward", "80 x 768", ipfl, 8, dict(anchors=16, dim=64)),
    "pooling": Case("pooled patches, forward and backward", "6 of 8 x 2048 x 24 x 8", pooling, 8, dict(channels=32)),
    "evaluation": Case("CMC and both mAPs of given distances", "3,368 x 15,913", evaluation, 10,
                       dict(queries=30, gallery=1_500, dim=16)),
    "step": Case("whole adaptation step, over backbone and PGN alone", "ResNet-50, 8 x 384 x 128", step, 1.1,
                 dict(height=96, width=48, entries=200,
                      network=dict(backbone="small", dim=16, pgn_channels=16, pgn_hidden=16)), at_most=True),
}


@contextmanager
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _line(name, ours, other, ratio, expected="", met="", title="") -> str:
    return f"{name:<12}{ours:>12}{other:>12}{ratio:>9}  {expected:<9}{met:<5}{title}".rstrip()


def _report(name: str, result: dict) -> str:
    milliseconds = (f"{1000 * result[f'{side}_seconds']:.1f} ms" for side in ("ours", "other"))
    met = {True: "yes", False: "no"}.get(result.get("as_expected"), "")
    line = _line(name, *milliseconds, f"{result['ratio']:.2f}", result.get("expected", ""), met,
                 f"{result['title']}, {result['size']}")
    if "peak_mb" in result:
        line += (f"\n{'':14}from features of width 1,536: {result['from_features_seconds']:.2f} s, peak "
                 f"{result['peak_mb']:.0f} MB: {result['imports_mb']:.0f} of imports, {result['evaluation_mb']:.0f} of "
                 "features and evaluation (expected: under 600)")
    return line


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks, print the table, write one JSON file per case; 0 unless something is missing."""
    parser = argparse.ArgumentParser(prog="paul bench", description="Ours against literal versions, one CPU thread.")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the JSON files")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs; ratios mean nothing")
    parser.add_argument("--only", choices=list(CASES), help="one case")
    options = parser.parse_args(argv)
    try:
        reference = load_reference()
    except FileNotFoundError as error:
        print(f"paul bench: {error}", file=sys.stderr)
        return 1

    origin = {"device": "cpu", "threads": 1, "machine": machine(), "versions": versions(), "code": code_hash(),
              "commit": commit()}
    slug = re.sub(r"[^a-z0-9]+", "-", origin["machine"].split(",")[0].lower()).strip("-")
    folder = options.out / (f"{slug}-quick" if options.quick else slug)
    print(f"{origin['machine']}: one thread, CPU time, median of {REPEATS}; the literal evaluation once\n")
    print(_line("case", "ours", "literal", "ratio", "expected", "met"))
    with one_thread():
        for name in [options.only] if options.only else CASES:
            result = CASES[name].measure(reference, options.quick)
            print(_report(name, result), flush=True)
            write_record(folder / f"{name}.json", {"case": name, "quick": options.quick, **result, **origin})
    print(f"\nwritten to {folder}{os.sep}")
    return 0

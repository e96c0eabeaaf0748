"""Golden trajectories: tiny trainings, descriptors and scores whose numbers are kept in goldens.json.

    python -m tests.goldens             measure all of them and print what differs from the file
    python -m tests.goldens --write     write the file
    python -m tests.goldens --margin    shake the weights a little and print how far the numbers follow
    ... --only NAME                     one of them

Of a training are kept: the norm of all gradients at each step, the means of its losses, and two sums over each of the
things that its checkpoint ends with. They are read from torch's hook before a step, log.jsonl and checkpoint.pt, and
the trainings are called as everybody calls them, so that the code in between can be taken apart.

A number may move by TOLERANCE, a checksum by as much of the tensor's length. What would tell one CPU from another by
more is kept away:
- On 40x24 pixels maps are 5x3, and a new PGN's sampling points fall on the kinks of bilinear interpolation exactly.
- A pair of images is never one image twice, unless the triplet loss is off: its gradient has no direction at 0.
- The target stage starts from norms with a bias, so that few activations are near the ReLU's kink; where one was, a
  trajectory has another seed or value.
Chosen so that a CPU that rounds otherwise stays below one tolerance: 0.72 at most in five settings of torch's and its
libraries' instruction sets, and below one with every weight moved by 2.5e-7 of itself before each step.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

# all that is taken from the package, here and nowhere else
from paul.adapt import adapt
from paul.data.passes import extract, refresh_statistics
from paul.data.pixels import Pixels
from paul.data.transforms import random_flip, random_shift, surrogates
from paul.metrics import evaluate
from paul.options import AdaptOptions, PatchNetOptions, PretrainOptions
from paul.patchnet import PatchNet
from paul.pretrain import pretrain
from paul.rivals.bow import BowOptions
from paul.rivals.bow.descriptor import Codebook
from paul.rivals.cluster_contrast import ClusterContrastOptions
from paul.rivals.cluster_contrast.training import cluster_contrast
from paul.rivals.lomo.descriptor import describe as lomo
from paul.rivals.pul import PulOptions
from paul.rivals.pul.training import pul

FILE = Path(__file__).with_name("goldens.json")
TOLERANCE = 1e-5
# Tolerances that a stage is allowed. Adam divides a gradient by its own size: where rounding is all there is of one, a
# weight moves by a whole step all the same, and the next gradient differs by up to a percent on another CPU.
ALLOWED = {"cluster_contrast": 2000.0}
ADVICE = (
    "Undo the change; or, where another method is meant, raise the method's NUMERICS number, write the goldens "
    "again (python -m tests.goldens --write) and compute the affected records again."
)

SIZE = 40, 24
NETWORK = PatchNetOptions("small", num_patches=2, dim=8, pgn_channels=16, pgn_hidden=16)
PRETRAIN = PretrainOptions(epochs=2, batch=8, min_batch=2, schedule="cosine", peak_rate=0.01, shift=0.06)
ADAPT = AdaptOptions(epochs=2, batch=8, min_batch=2, rotation="network", lr=0.001, s=2.0, k=3)
PUL = PulOptions(clusters=3, reliability=0.8, rounds=2, epochs=1, batch=6, min_batch=2, lr=0.005, shift=0.05)
CONTRAST = ClusterContrastOptions(
    k1=6,
    k2=2,
    min_samples=2,
    epochs=2,
    steps=2,
    clusters=3,
    instances=2,
    temperature=0.3,
    lr=0.001,
    decay_every=1,
    shift=0.05,
)

# What each trajectory changes: fields of the options above, its seed, the count of images, arguments of the training.
# A seed of its own keeps one away from kinks. Trajectories of one stage and seed must differ, so such a seed has one
# without further changes, too.
SEEDS = {"source": 23, "target": 5}
SOURCE = (
    {},
    {"seed": 0},
    {"seed": 4},
    {"seed": 6},
    {"seed": 18},
    {"epochs": 1},
    {"batch": 5, "seed": 4},
    {"min_batch": 8},
    {"schedule": "paper"},
    {"peak_rate": 0.015},
    {"momentum": 0.5},
    {"weight_decay": 0.05, "seed": 6},
    {"label_smoothing": 0.1, "seed": 6},
    {"triplet_weight": 0.5, "seed": 6},
    {"triplet_margin": 0.3, "seed": 4},
    {"positive": "hardest", "seed": 6},
    {"shift": 0.1},
    {"shift": 0.0, "triplet_weight": 0.0, "seed": 6},
    {"generator": "equal"},
    {"generator": "random"},
    {"generator": "image", "seed": 0},
    {"num_patches": 4, "seed": 0},
    {"embedding_dim": 5, "seed": 18},
    {"align_corners": False},
    {"low_memory": True},
)
TARGET = (
    {},
    {"seed": 7},
    {"loss_c": None},
    {"loss_c": "pull"},
    {"loss_v": False},
    {"lam": 0.5},
    {"s": 4.0},
    {"k": 2, "seed": 7},
    {"rate": 0.5},
    {"renormalize": True},
    {"bank_init": "eval"},
    {"bank_surrogates": True},
    {"bank_update": "after"},
    {"loss_v": False, "idle_surrogates": True},
    {"margin": 1.0},
    {"r": 1},
    {"include_self": False},
    {"max_candidates": 1},
    {"max_candidates": 1, "no_negative": "skip"},
    {"ipfl_space": "patch", "seed": 7},
    {"ipfl_targets": "raw", "seed": 7},
    {"epochs": 1},
    {"batch": 5},
    {"min_batch": 8},
    {"drop_last": True},
    {"lr": 0.002},
    {"lr": 0.002, "decay_epoch": 1},
    {"momentum": 0.5},
    {"weight_decay": 0.1},
    {"rotation": "image"},
    {"surrogate": "one"},
    {"jitter": 0.4},
    {"hue_turn": 0.0},
    {"degrees": 0.0},
    {"crop_area": (0.5, 0.6)},
    {"padding": "border", "seed": 7},
    {"refresh_statistics": True},
    {"freeze_pgn": "eval", "seed": 7},
    {"freeze_pgn": "detach"},
    {"generator": "equal", "seed": 7},
    {"generator": "random"},
    {"generator": "image"},
    {"num_patches": 4},
    {"embedding_dim": 6, "seed": 7},
    {"align_corners": False},
    {"loss_v": False, "count": 17},
    {"low_memory": True},
)
ROUNDS = ({}, {"min_batch": 6}, {"refresh_statistics": True})
CONTRASTED = (
    {},
    {"eps": 0.3},
    {"k1": 8},
    {"k2": 1},
    {"min_samples": 3},
    {"steps": 3},
    {"clusters": 2},
    {"instances": 3},
    {"temperature": 0.5},
    {"momentum": 0.5},
    {"weight_decay": 0.5},
    {"decay_every": 2},
    {"refresh_statistics": True},
)


def pictures(count: int = 15, people: int = 5, seed: int = 1, size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor]:
    """uint8 images [count, 3, *size], each a top and a bottom in a person's colours, and who it is [count].

    Made of whole numbers only, which are the same on every machine.
    """
    g = torch.Generator().manual_seed(seed)
    person = torch.arange(count) % people
    colours = torch.randint(40, 216, (people, 3, 2), generator=g)[person]
    half = (torch.arange(size[0]) >= size[0] // 2).long()
    light = torch.randint(-20, 21, (count, 3, 1, 1), generator=g)
    noise = torch.randint(-20, 21, (count, 3, *size), generator=g)
    return (colours[:, :, half, None] + light + noise).to(torch.uint8), person


def checksum(*tensors: Tensor) -> dict[str, float]:
    """Length of the tensors, end to end, and their product with a fixed wave."""
    x = torch.cat([tensor.detach().double().flatten() for tensor in tensors])
    wave = torch.cos(math.sqrt(2) * torch.arange(1, len(x) + 1, dtype=torch.float64))
    return {"norm": x.norm().item(), "dot": (x @ wave).item()}


def weights_of(state: dict[str, Tensor]) -> dict[str, float]:
    """Checksum of a network's state by name, counters apart."""
    return checksum(*(state[name] for name in sorted(state) if state[name].is_floating_point()))


def state_of(generator_state: Tensor) -> str:
    """Hash of what `torch.Generator.get_state` returns."""
    return hashlib.sha256(generator_state.numpy().tobytes()).hexdigest()


def find(state: dict, name: str, kind: type = Tensor):
    """What bears the name and is of the kind, however deep in nested dicts; None where nothing is."""
    for key, part in state.items():
        if key == name and isinstance(part, kind):
            return part
        if isinstance(part, dict) and (found := find(part, name, kind)) is not None:
            return found
    return None


@contextmanager
def before_each_step(look) -> Iterator[None]:
    """Call look(weights) when any optimiser is about to step."""
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: look([p for group in optimizer.param_groups for p in group["params"]])
    )
    try:
        yield
    finally:
        handle.remove()


def training(call) -> dict:
    """What is kept of a training; `call` takes folder and device and returns the network, or it and its history."""
    norms = []

    def note(weights: list[Tensor]) -> None:
        norms.append(checksum(*(p.grad for p in weights if p.grad is not None))["norm"])

    with tempfile.TemporaryDirectory() as folder, before_each_step(note):
        result = call(folder=folder, device="cpu")
        state = torch.load(Path(folder, "checkpoint.pt"), weights_only=True)
        log = [json.loads(line) for line in Path(folder, "log.jsonl").read_text(encoding="utf-8").splitlines()]
    model = result[0] if isinstance(result, tuple) else result
    buffers = state["optimizer"]["state"]
    found = {"gradient, step": norms}
    found |= {f"{name}, epoch": [row[name] for row in log] for name in log[0] if name not in ("epoch", "seconds")}
    found |= {"weights": weights_of(state["model"]), "weights returned": weights_of(model.state_dict())}
    for name, kept in (("momentum_buffer", "momentum"), ("exp_avg", "momentum"), ("exp_avg_sq", "squares")):
        if all(name in buffer for buffer in buffers.values()):  # of SGD; of Adam
            found[kept] = checksum(*(buffers[place][name] for place in sorted(buffers)))
    for name in ("bank", "centers", "centroids"):
        memory = find(state, name)
        if memory is not None and memory.any():  # one that nothing was written to may as well not be there
            found[name] = checksum(memory)
    return {**found, "random state": state_of(state["training"]["generator"])}


def changed(options, changes: dict):
    """The options with those of the changes that are theirs."""
    if changes.get("generator") == "image" and isinstance(options, PatchNetOptions):
        return options.image_level()
    own = {field.name for field in fields(options)}
    return replace(options, **{name: value for name, value in changes.items() if name in own})


def start(options: PatchNetOptions):
    """A network as the source stage leaves it, made without one: patches that differ by image, settled statistics."""
    torch.manual_seed(0)
    model = PatchNet(options, num_classes=5)
    for name, weight in model.named_parameters():
        if name == "generator.fc_loc.2.weight":  # zero in a new network
            torch.nn.init.normal_(weight, std=0.1)
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.bias)
    refresh_statistics(model, pictures(20)[0])
    return model


def source(changes: dict) -> dict:
    images, person = pictures()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "backbone.pt")
        torch.save(start(NETWORK).backbone.state_dict(), weights)
        return training(
            partial(
                pretrain,
                images,
                person.numpy(),
                changed(NETWORK, changes),
                changed(PRETRAIN, changes),
                seed=changes.get("seed", SEEDS["source"]),
                weights=changes.get("weights", str(weights)),
                low_memory=changes.get("low_memory", False),
            )
        )


def target(changes: dict) -> dict:
    images, _ = pictures(changes.get("count", 15), people=20, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.png") for number in range(len(images))]
        for number, file in enumerate(files):  # of several aspects, all but the network's own
            Image.new("RGB", (10 + number % 3, 30)).save(file)
        return training(
            partial(
                adapt,
                start(changed(NETWORK, changes)),
                Pixels(images, sources=files),
                changed(ADAPT, changes),
                seed=changes.get("seed", SEEDS["target"]),
                low_memory=changes.get("low_memory", False),
            )
        )


def rounds(changes: dict) -> dict:
    images, _ = pictures(20, seed=2)
    return training(partial(pul, start(NETWORK.image_level()), images, changed(PUL, changes)))


def contrasted(changes: dict) -> dict:
    images, _ = pictures(20, seed=2)
    return training(partial(cluster_contrast, start(NETWORK.image_level()), images, changed(CONTRAST, changes)))


def adabn(_) -> dict:
    model = start(NETWORK)
    refresh_statistics(model, pictures(seed=2)[0], batch=7)
    return {"weights": weights_of(model.state_dict())}


def descriptors(_) -> dict:
    images, model = pictures(seed=2)[0], start(NETWORK)
    return {"source": checksum(extract(model, images, batch=4)), "target": checksum(extract(model.to_target(), images))}


def lomo_descriptors(_) -> dict:
    return {"descriptors": checksum(lomo(pictures(4, seed=4, size=(64, 32))[0]))}


def bag_of_words(_) -> dict:
    images = pictures(6, seed=2, size=(64, 32))[0]
    book = Codebook.fit(images, BowOptions(words=12, assigned=4, strips=8))
    return {
        name: checksum(part)
        for name, part in (
            ("words", book.words),
            ("mean", book.mean),
            ("weight", book.weight),
            ("descriptors", book.describe(images)),
        )
    }


def scores(changes: dict) -> dict:
    """Six people, junk and distractors; the first query's person is not in the gallery."""
    g = torch.Generator().manual_seed(0)
    query, gallery = (torch.randint(-2, 3, (count, 6), generator=g).float() for count in (12, 80))
    if not changes["ties"]:
        query, gallery = (x + torch.rand(x.shape, generator=g) for x in (query, gallery))
    query_ids, gallery_ids = (torch.randint(low, 7, (count,), generator=g) for low, count in ((1, 12), (-1, 80)))
    query_ids[0] = 99
    query_cams, gallery_cams = (torch.randint(1, 4, (count,), generator=g) for count in (12, 80))
    found = evaluate(query, query_ids, query_cams, gallery, gallery_ids, gallery_cams, chunk=5)
    overall = {name: [getattr(found, name)] for name in ("map_step", "map_trapezoid", "minp", "left_out")}
    return {"cmc": found.cmc.tolist(), **overall, **{name: found.per_query[name].tolist() for name in found.per_query}}


def augmented(_) -> dict:
    x, g = pictures(6, seed=2)[0].float() / 255, torch.Generator().manual_seed(0)
    found = {
        "flip": random_flip(x, g),
        "shift": random_shift(x, g),
        "surrogates, all": surrogates(x, g),
        "surrogates, one": surrogates(x, g, mode="one", padding="border"),
    }
    return {**{name: checksum(y) for name, y in found.items()}, "random state": state_of(g.get_state())}


def name_of(stage: str, changes: dict) -> str:
    return f"{stage}/" + (", ".join(f"{name}={value}" for name, value in changes.items()) or "default")


# name -> (how it is measured, what it changes)
TRAJECTORIES = {
    name_of(stage, changes): (measure, changes)
    for stage, measure, several in (
        ("source", source, SOURCE),
        ("target", target, TARGET),
        ("pul", rounds, ROUNDS),
        ("cluster_contrast", contrasted, CONTRASTED),
        ("adabn", adabn, ({},)),
        ("extract", descriptors, ({},)),
        ("lomo", lomo_descriptors, ({},)),
        ("bow", bag_of_words, ({},)),
        ("evaluate", scores, ({"ties": False}, {"ties": True})),
        ("augment", augmented, ({},)),
    )
    for changes in several
}


def measured(name: str) -> dict:
    """What a trajectory comes to, on one thread: quantity -> numbers, a checksum or a hash."""
    measure, changes = TRAJECTORIES[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(changes)
    finally:
        torch.set_num_threads(threads)


def moves(found: dict, kept: dict) -> Iterator[tuple[str, object, object, float]]:
    """(quantity, what was kept, what was found, the move in units of what is allowed) in the order of measuring."""

    def move(now: float, was: float, size: float) -> float:
        return 0.0 if now == was else abs(now - was) / (TOLERANCE * abs(size)) if size else math.inf

    for name in [*found, *(name for name in kept if name not in found)]:
        now, was = found.get(name), kept.get(name)
        if isinstance(now, dict) and isinstance(was, dict):
            for part in now:
                yield f"{part} of {name}", was[part], now[part], move(now[part], was[part], was["norm"])
        elif isinstance(now, list) and isinstance(was, list) and len(now) == len(was):
            for place, (one, before) in enumerate(zip(now, was), 1):
                yield f"{name} {place}", before, one, move(one, before, before)
        else:
            yield name, was, now, 0.0 if now == was else math.inf


def differences(name: str, found: dict, kept: dict) -> list[str]:
    """What of a trajectory moved by more than its stage is allowed, first things first."""
    allowed = ALLOWED.get(name.partition("/")[0], 1.0)
    return [f"{quantity} was {was}, is {now}" for quantity, was, now, by in moves(found, kept) if not by <= allowed]


@contextmanager
def shaken(seed: int, by: float = 2.5e-7) -> Iterator[None]:
    """Move every weight by about `by` of itself before each step: a CPU that rounds otherwise, and worse.

    Round numbers stay: a network starts from some, which are the same everywhere.
    """
    g = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def shake(weights: list[Tensor]) -> None:
        for p in weights:
            noise = by * torch.randn(p.shape, generator=g, dtype=torch.float64)
            p.copy_(torch.where(64 * p == (64 * p).round(), p, p * (1 + noise)))

    with before_each_step(shake):
        yield


def load() -> dict:
    """The goldens by trajectory; none where there is no file."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def write(goldens: dict) -> None:
    """Put the goldens into the file, whole or not at all: a line per quantity, ten digits."""

    def short(value):
        if isinstance(value, dict):
            return {name: short(part) for name, part in value.items()}
        if isinstance(value, list):
            return [short(part) for part in value]
        return float(f"{value:.10g}") if isinstance(value, float) else value

    def entry(name: str) -> str:
        lines = (
            f"  {json.dumps(key)}: {json.dumps(short(value), sort_keys=True)}"
            for key, value in sorted(goldens[name].items())
        )
        return f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}"

    fresh = FILE.with_name(f".{FILE.name}.tmp")
    fresh.write_text("{\n" + ",\n".join(entry(name) for name in sorted(goldens)) + "\n}\n", encoding="utf-8")
    os.replace(fresh, FILE)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.goldens", description="golden trajectories")
    parser.add_argument("--only", metavar="NAME", choices=TRAJECTORIES, help="this trajectory alone")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    what.add_argument("--margin", type=int, metavar="TIMES", help="shake the weights so many times")
    asked = parser.parse_args(arguments)
    names, kept, status = [asked.only] if asked.only else list(TRAJECTORIES), load(), 0
    with redirect_stderr(io.StringIO()):  # what trainings say of their progress
        if asked.margin:
            for name in names:
                plain, largest = measured(name), (0.0, "")
                for seed in range(asked.margin):
                    with shaken(seed):
                        largest = max(largest, *((by, what) for what, _, _, by in moves(measured(name), plain)))
                print(f"{largest[0]:10.3f}  {name}: {largest[1]}", flush=True)
                status |= largest[0] > 1
            return status
        found = {name: measured(name) for name in names}
    if asked.write:
        write({**kept, **found} if asked.only else found)
        return 0
    for name in names:
        for line in differences(name, found[name], kept.get(name, {})):
            print(f"{name}: {line}")
            status = 1
    for name in () if asked.only else kept.keys() - found.keys():
        print(f"{name}: in {FILE.name}, and no trajectory")
        status = 1
    if status:
        print(ADVICE)
    return status


if __name__ == "__main__":
    sys.exit(main())

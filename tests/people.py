"""Tiny data sets in Market-1501's layout: each person a coloured figure, seen by two cameras; random, not rendered."""

import csv
import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from paul import adapt as target_stage
from paul import pretrain as source_stage
from paul.experiments.profiles import PROFILES
from paul.options import AdaptOptions, PatchNetOptions, PretrainOptions
from paul.rivals import cluster_contrast, pul
from paul.rivals.cluster_contrast import ClusterContrastOptions
from paul.rivals.pul import PulOptions

SIZE = (40, 24)  # the small backbone makes maps of 5x3, the least that the PGN takes
NETWORK = PatchNetOptions(backbone="small", num_patches=2, dim=8, pgn_channels=8, pgn_hidden=8)
PRETRAIN = PretrainOptions(
    epochs=2, batch=8, min_batch=2, schedule="cosine", peak_rate=0.05, label_smoothing=0.1, shift=0.05
)
ADAPT = AdaptOptions(epochs=2, batch=8, min_batch=2, lr=0.01, decay_epoch=1, s=10.0, k=3)
PUL = PulOptions(clusters=4, reliability=0.8, rounds=3, epochs=2, batch=4, min_batch=2, lr=0.01, shift=0.05)
CONTRAST = ClusterContrastOptions(
    k1=6, k2=2, min_samples=2, epochs=3, steps=3, clusters=2, instances=3, lr=0.003, decay_every=2, shift=0.05
)
# bit for bit holds on a CPU
with_history = {
    "pretrain": partial(source_stage.pretrain, device="cpu"),
    "adapt": partial(target_stage.adapt, device="cpu"),
}


def pretrain(*given, **named):
    """The network of `paul.pretrain.pretrain`."""
    return with_history["pretrain"](*given, **named)[0]


def adapt(*given, **named):
    """The network of `paul.adapt.adapt`."""
    return with_history["adapt"](*given, **named)[0]


def picture(person: int, camera: int, rng: np.random.Generator, size=SIZE) -> np.ndarray:
    """A top and a bottom in the person's own colours, the camera's tint, and noise: uint8 [H, W, 3]."""
    own = np.random.default_rng(1000 + person)
    rows = np.arange(size[0]) < size[0] // 2
    colours = own.integers(0, 256, (2, 3))
    image = np.where(rows[:, None, None], colours[0], colours[1]) * np.ones((*size, 1))
    image = image * (0.9 + 0.1 * camera) + rng.normal(0, 20, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def write_set(folder: Path, splits: dict[str, list[tuple[int, int]]], seed: int = 0, size=SIZE) -> Path:
    """Write images and index.csv; `splits` maps a split to its (person id, camera id) pairs."""
    folders = {"train": "bounding_box_train", "gallery": "bounding_box_test"}
    rng, lines = np.random.default_rng(seed), []
    for split, people in splits.items():
        for place, (person, camera) in enumerate(people):
            name = f"{folders.get(split, split)}/{person:04d}_c{camera}s1_{place:06d}_01.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(person, camera, rng, size)).save(folder / name)
            lines.append((name, split, person, camera, 1, place))
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "split", "person_id", "camera_id", "sequence", "frame"), *lines])
    (folder / "card.json").write_text(json.dumps({"name": folder.name, "fingerprint": f"{folder.name}-{seed}"}))
    return folder


def pairs(people, per_camera: int = 1) -> list[tuple[int, int]]:
    """Each person from cameras 1 and 2."""
    return [(person, camera) for person in people for camera in (1, 2) for _ in range(per_camera)]


def write_study(data: Path, size=SIZE, profile: str = "smoke") -> Path:
    """Source and both targets of a profile below `data`; query 30 of each target has no match in the gallery."""
    write_set(data / profile / "source", {"train": pairs(range(1, 7), 2)}, seed=1, size=size)
    for seed, target in ((2, "market"), (3, "duke")):
        first = 10 * seed
        test = range(first + 6, first + 10)
        write_set(
            data / profile / target,
            {
                "train": pairs(range(first, first + 5), 2),
                "query": [(p, 1) for p in test] + [(first + 10, 1)],
                "gallery": [(p, 2) for p in test] + [(-1, 1), (0, 2)],
                "val_query": [(first + 5, 1)],
                "val_gallery": [(first + 5, 2), (first + 4, 2)],
            },
            seed=seed,
            size=size,
        )
    return data


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def same_weights(a, b):
    return same(a.state_dict(), b.state_dict())


TINY = replace(PROFILES["smoke"], image_size=SIZE, network=NETWORK, pretrain=PRETRAIN, adapt=ADAPT)


def use_tiny_smoke() -> None:
    """Make the smoke profile the tiny one in a worker process."""
    PROFILES["smoke"] = TINY
    pul.AT["smoke"] = PUL
    cluster_contrast.AT["smoke"] = CONTRAST


@contextmanager
def at_most(seconds, *pipes):
    """Fails what hangs; threads that wait for `pipes` are let go."""

    def ring(*_):
        for pipe in pipes:
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

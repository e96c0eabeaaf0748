"""Suite `data`: from files to batches. Bytes are those of files read and of pixels written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from paul.bench.case import Bench, Case
from paul.bench.literal import ReleasedImages
from paul.bench.step import SMALL, TINY, WORKERS, AdaptationStep, batches, describe_size, input_images
from paul.data.batches import batch_of
from paul.data.datasets import ReidDataset, Split
from paul.data.images import open_image
from paul.data.pixels import load_images, load_pixels
from paul.data.transforms import surrogates, unit_range

SET = "mini/market"


def split_of(bench: Bench, folder: Path, count: int | None) -> tuple[Split, str]:
    """The first `count` training images of the embedded people, or, where they weren't rendered, noise as JPEG."""
    if (bench.data / SET / "index.csv").is_file():
        split = ReidDataset.load(bench.data / SET).split("train")
        return split.take(range(min(count or len(split), len(split)))), f"images of {SET}"
    for number, image in enumerate(input_images(count or 400, 128, 64)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.jpg")
    names = [f"{number}.jpg" for number in range(count or 400)]
    return Split(folder, pd.DataFrame({"file": names})), "images of noise"


def people(bench: Bench, height: int, width: int, count: int | None = None) -> tuple[torch.Tensor, str]:
    """The images of `split_of`, decoded, and what they are."""
    with tempfile.TemporaryDirectory() as folder:
        split, whose = split_of(bench, Path(folder), count)
        return load_images(split, (height, width)), whose


def decode(bench: Bench, count=400, height=96, width=48) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        split, whose = split_of(bench, Path(folder), count)
        moved = sum(file.stat().st_size for file in split.files) + len(split) * 3 * height * width

        def literal():
            pictures = []
            for file in split.files:
                with open_image(file) as image:
                    pictures.append(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
            return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])

        row = bench.compare(lambda: load_images(split, (height, width)), literal, 0, moved, repeats=3)
    return row | {
        "size": f"{len(split)} {whose} to {height} x {width}",
        "images_per_second": len(split) / row["ours_seconds"],
    }


def mapped(bench: Bench, batch=40, count=400, height=384, width=128) -> dict:
    """A batch from the memory map, pages in the system's cache, against decoding its files each time."""
    with tempfile.TemporaryDirectory() as folder:
        split, whose = split_of(bench, Path(folder), count)
        images = load_pixels(split, (height, width), place="disk", folder=folder).images
        index = torch.randperm(len(split))[:batch]
        part = split.take(index.numpy())
        row = bench.compare(
            lambda: batch_of(images, index, bench.device),
            lambda: unit_range(load_images(part, (height, width))).to(bench.device),
            0,
            5 * images[index].nbytes,
        )  # a byte read and a float32 written for each
        images = None  # closes the map before its folder goes
    return row | {"size": f"{batch} {whose} at {height} x {width}", "images_per_second": batch / row["ours_seconds"]}


def surrogate(bench: Bench, batch=40, height=384, width=128, workers=0) -> dict:
    """Jitter, rotation, crop of a batch on the device; torchvision takes image after image."""
    pictures = input_images((64 if workers else 1) * batch, height, width)
    generator = torch.Generator().manual_seed(0)
    placed = pictures.to(bench.device)
    if workers:
        made = batches(pictures, batch, min(workers, os.cpu_count()))
        row = bench.compare(
            lambda: surrogates(unit_range(placed[:batch]), generator), lambda: next(made), 0, 5 * placed[:batch].nbytes
        )
        made.close()
        how = f"{min(workers, os.cpu_count())} worker processes, which also make the plain image"
    else:
        changed = ReleasedImages(pictures).changed
        row = bench.compare(
            lambda: surrogates(unit_range(placed[:batch]), generator),
            lambda: torch.stack([changed(image) for image in pictures[:batch]]),
            0,
            5 * placed[:batch].nbytes,
        )
        how = "in one process"
    return row | {
        "size": f"{batch} images of {height} x {width}, torchvision {how}",
        "images_per_second": batch / row["ours_seconds"],
    }


def loader(bench: Bench, real=40, height=96, width=48, network=SMALL, entries=12_936) -> dict:
    """All that makes a batch, against all that learns from it: the smaller side is never waited for.

    Bytes: an image is read in 8 bits, it and its surrogate are written as float32.
    """
    step = AdaptationStep(bench, real, height, width, entries, network)
    x, index = step.batch()
    row = bench.compare(step.batch, lambda: step.learn(x, index), 0, 9 * x.nbytes // 8, repeats=3)
    return row | {"size": describe_size(step.model, f"{real} + {real} images", height, width)}


CASES = {
    "decode": Case("files decoded and resized", decode, quick=dict(count=12)),
    "map": Case(
        "a batch from the memory map",
        mapped,
        other="from its files",
        quick=dict(batch=4, count=12, height=96, width=48),
    ),
    "surrogates": Case(
        "surrogates of a batch",
        surrogate,
        other="torchvision",
        expected={"cuda": 3},
        quick=dict(batch=4, height=96, width=48),
        cuda=dict(batch=42, workers=WORKERS),
    ),
    "loader": Case(
        "a batch made, over learning from it",
        loader,
        other="learning from it",
        expected={"cpu": 1, "cuda": 1},
        at_most=True,
        quick=dict(real=4, entries=100, network=TINY),
        cuda=dict(real=42, height=384, width=128, network=None),
    ),
}

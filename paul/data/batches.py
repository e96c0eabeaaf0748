"""Batches of a set on the device where a network sees them, fetched ahead of their use where that takes time."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import parent_process

import torch
from torch import Tensor
from tqdm.auto import tqdm

from paul.data.pixels import Pixels, gigabytes
from paul.data.transforms import unit_range
from paul.engine.device import send

AHEAD = 2  # batches that are read while one is used


def split(order: Tensor, batch: int, min_batch: int = 1) -> list[Tensor]:
    """Positions in a set as batches of `batch`; a last one of fewer than `min_batch` joins the one before it.

    Joined and not left out, so that one rule holds wherever batches are made, the pass that fills the memory bank
    included, which has to reach every image; what it costs is a larger batch, by less than `min_batch` (ledger 32).
    """
    parts = list(order.split(batch))
    if len(parts) > 1 and len(parts[-1]) < min(min_batch, batch):
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def on_device(images: Tensor | Pixels, device: torch.device) -> Pixels:
    """A set's images where training reads them: where `load_pixels` was asked to keep them, else on the device if half
    of its free memory holds them, else where they are.

    Batches of images that stay go to the GPU through pinned buffers, ahead of their use (`batches`); pinning the whole
    set would lock as much memory to save nothing that is waited for.
    """
    pixels = Pixels.of(images)
    if device.type == "cpu" or pixels.place in ("memory", "disk"):
        return pixels
    too_large = device.type == "cuda" and pixels.images.nbytes >= torch.cuda.mem_get_info(device)[0] / 2
    if pixels.place is None and too_large:
        return pixels
    return replace(pixels, images=pixels.images.to(device), file=None)


def announce(pixels: Pixels, device: torch.device) -> None:
    """Say in one line of stderr where training runs and its images live; hushed by TQDM_DISABLE=1 and in workers."""
    if os.environ.get("TQDM_DISABLE") or parent_process() is not None:
        return
    images, stays = pixels.images, pixels.images.device.type == "cpu"
    where = "on the device" if not stays else f"mapped from {pixels.file}" if pixels.file else "in memory"
    ahead = ", batches copied ahead through pinned buffers" if stays and device.type != "cpu" else ""
    count, _, height, width = images.shape
    tqdm.write(
        f"training on {device}; {count:,} images of {height}x{width}, {gigabytes(images.nbytes)}, {where}{ahead}",
        file=sys.stderr,
    )


def _fetch(images: Tensor, index: Tensor, device: torch.device) -> Tensor:
    if images.device.type != "cpu":
        return images[send(index, images.device)].to(device)
    if device.type != "cuda":
        return images[index].to(device)
    buffer = torch.empty(len(index), *images.shape[1:], dtype=images.dtype, pin_memory=True)
    return torch.index_select(images, 0, index, out=buffer).to(device, non_blocking=True)


def batch_of(images: Tensor | Pixels, index: Tensor, device: torch.device) -> Tensor:
    """The images at `index` [B] (on the CPU) as float [B, 3, H, W] in [0, 1] on the device."""
    return unit_range(_fetch(Pixels.of(images).images, index, device))


def batches(images: Tensor | Pixels, order: Iterable[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """(index, `batch_of` it) for every `index` in `order`, the next ones being read while one is used.

    `order` is walked ahead of its use: draw it beforehand. Images on the device, or in memory when the device is the
    CPU, need no reading ahead and get none.
    """
    pixels = Pixels.of(images)
    if pixels.images.device.type != "cpu" or (device.type == "cpu" and not pixels.file):
        for index in order:
            yield index, batch_of(pixels, index, device)
        return
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def read(index: Tensor) -> tuple[Tensor, Tensor]:
        with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
            return index, _fetch(pixels.images, index, device)

    order = iter(order)
    with ThreadPoolExecutor(1) as reader:
        waiting = deque()
        while True:
            for index in order:
                waiting.append(reader.submit(read, index))
                if len(waiting) > AHEAD:
                    break
            if not waiting:
                return
            index, x = waiting.popleft().result()
            if stream:
                current = torch.cuda.current_stream(device)
                current.wait_stream(stream)
                x.record_stream(current)
            yield index, unit_range(x)

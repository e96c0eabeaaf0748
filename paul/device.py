"""The device: where a set's images live on it or beside it, and how networks and optimisers are set up for it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import parent_process
from pathlib import Path
from threading import RLock

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from paul import store
from paul.images import unit_range

_TURN = RLock()
AHEAD = 2  # batches that are read while one is used


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, else a GPU when there is one, else the CPU.

    Raises:
        ValueError: the device asked for is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name}: no such device; it is cpu, cuda or a numbered cuda:1") from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise ValueError(f"--device {name}: this machine has {torch.cuda.device_count()} usable GPUs; leave the option "
                         "out to use what there is")
    return device


def precision(device: torch.device, bf16: bool | None = None):
    """bf16 autocast on a GPU, plain float32 on a CPU, or as `bf16` says.

    Losses, norms, distances and averages stay in float32 in either; batch norm reads and writes 16 bits but sums its
    statistics in float32.
    """
    if bf16 is None:
        bf16 = device.type == "cuda"
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def prepare(model: nn.Module, device: torch.device, compile: bool | str = False) -> nn.Module:
    """The network on its device, laid out and set up for training there; returns the same module.

    On a GPU: channels last, which its convolutions in 16 bits want, kernels chosen by trial, and no TF32: what autocast
    leaves in float32 (distances, log-sums, norms) is left there for its digits. These settings hold for the process.

    Args:
        model: in place; its state keeps its names and values.
        device: where to.
        compile: also `torch.compile` the forward pass; a word names a mode, such as "reduce-overhead", which records
            CUDA graphs. Off by default: at the paper's sizes convolutions fill the GPU, and compiling takes minutes.
    """
    model.to(device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        model.to(memory_format=torch.channels_last)
    if compile:
        model.compile(mode=compile if isinstance(compile, str) else None)
    return model


def sgd(groups: Iterable, device: torch.device, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD over parameter groups; on a GPU one fused kernel takes the step."""
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay,
                           fused=True if device.type == "cuda" else None)


def send(x: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; the host goes on at once, since a GPU reads it from pinned memory in its own time."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def on_device(images: Tensor, device: torch.device) -> Tensor:
    """A set's uint8 images where training reads them: where `load_images` was asked to keep them, else on the device
    if half of its free memory holds them, else where they are.

    Batches of images that stay go to the GPU through pinned buffers, ahead of their use (`batches`); pinning the whole
    set would lock as much memory to save nothing that is waited for.
    """
    place = store.wanted_place(images)
    if device.type == "cpu" or place in ("memory", "disk"):
        return images
    if place is None and device.type == "cuda" and images.nbytes >= torch.cuda.mem_get_info(device)[0] / 2:
        return images
    return images.to(device)


def announce(images: Tensor, device: torch.device) -> None:
    """Say in one line of stderr where training runs and its images live; hushed by TQDM_DISABLE=1 and in workers."""
    if os.environ.get("TQDM_DISABLE") or parent_process() is not None:
        return
    file = store.file_of(images)
    where = "on the device" if images.device.type != "cpu" else f"mapped from {file}" if file else "in memory"
    ahead = ", batches copied ahead through pinned buffers" if images.device.type == "cpu" != device.type else ""
    count, _, height, width = images.shape
    tqdm.write(f"training on {device}; {count:,} images of {height}x{width}, {store.gigabytes(images.nbytes)}, "
               f"{where}{ahead}", file=sys.stderr)


def _fetch(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    if images.device.type != "cpu":
        return images[send(rows, images.device)].to(device)
    if device.type != "cuda":
        return images[rows].to(device)
    buffer = torch.empty(len(rows), *images.shape[1:], dtype=images.dtype, pin_memory=True)
    return torch.index_select(images, 0, rows, out=buffer).to(device, non_blocking=True)


def batch_of(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """The images at `rows` (on the CPU) as float in [0, 1] on the device."""
    return unit_range(_fetch(images, rows, device))


def batches(images: Tensor, order: Iterable[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, `batch_of` these rows) for every `rows` in `order`, the next ones being read while one is used.

    `order` is walked ahead of its use: draw it beforehand. Images on the device, or in memory when the device is the
    CPU, need no reading ahead and get none.
    """
    if images.device.type != "cpu" or (device.type == "cpu" and not store.file_of(images)):
        for rows in order:
            yield rows, batch_of(images, rows, device)
        return
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def read(rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
            return rows, _fetch(images, rows, device)

    order = iter(order)
    with ThreadPoolExecutor(1) as reader:
        waiting = deque()
        while True:
            for rows in order:
                waiting.append(reader.submit(read, rows))
                if len(waiting) > AHEAD:
                    break
            if not waiting:
                return
            rows, x = waiting.popleft().result()
            if stream:
                current = torch.cuda.current_stream(device)
                current.wait_stream(stream)
                x.record_stream(current)
            yield rows, unit_range(x)


def usable_cores() -> int:
    """Cores that this process may use: what it is bound to, and what its control group grants (Linux)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no control group, or no limit: "max"
        return cores


def default_threads(backbone: str) -> int:
    """How many threads a single training takes on a CPU; the whole rule for threads is here.

    OMP_NUM_THREADS, where set, is obeyed. Otherwise torch's number, kept within the cores that the process may use:
    more threads than cores wait for each other, 10 to 100 times as long as they work. The small backbone keeps to one
    thread: its operators are so short that a second one costs 1.7 times the core seconds, and on a busy machine
    makes each step slower. Experiments (`paul run`) are one process each, one thread each, whatever the network:
    see `one_thread`.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()
    return 1 if backbone == "small" else min(torch.get_num_threads(), usable_cores())


@contextlib.contextmanager
def one_thread(device: torch.device):
    """On a CPU a run keeps to one thread: its bits then do not depend on how many runs share the machine.

    Runs in several threads of one process take turns, since torch's random state belongs to the process.
    """
    with _TURN:
        threads = torch.get_num_threads()
        if device.type == "cpu":
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

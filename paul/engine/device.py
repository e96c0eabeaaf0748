"""The device asked for or found, its precision and its threads, and how a tensor gets there without waiting."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from threading import RLock

import torch
from torch import Tensor

_TURN = RLock()


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
        raise ValueError(f"device={name!r}: no such device; it is cpu, cuda or a numbered cuda:1") from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise ValueError(
            f"device={name!r}: this machine has {torch.cuda.device_count()} usable GPUs; leave it out to use "
            "what there is"
        )
    return device


def autocast(device: torch.device, precision: str):
    """Products and convolutions in "bf16", or everything in "float32", on whatever device.

    Losses, norms, distances and averages stay in float32 in either; batch norm reads and writes 16 bits but sums its
    statistics in float32.
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def send(x: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; the host goes on at once, since a GPU reads it from pinned memory in its own time."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


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

"""Where tensors live and in which precision: the device, a set's images on it, a batch of them."""

from __future__ import annotations

import contextlib
from threading import RLock

import torch
from torch import Tensor

from paul.images import unit_range

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
        raise ValueError(f"--device {name}: no such device; it is cpu, cuda or a numbered cuda:1") from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise ValueError(f"--device {name}: this machine has {torch.cuda.device_count()} usable GPUs; leave the option "
                         "out to use what there is")
    return device


def precision(device: torch.device):
    """bf16 autocast on a GPU, plain float32 on a CPU; losses, norms and distances stay in float32 in either."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


def on_device(images: Tensor, device: torch.device) -> Tensor:
    """Keep a set's uint8 images on the GPU where half its free memory holds them, else on the CPU."""
    if device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return images.to(device)
    return images


def batch_of(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """The images at `rows` as float in [0, 1] on the device."""
    return unit_range(images[rows.to(images.device)].to(device, non_blocking=True))


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

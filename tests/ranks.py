"""Several processes on one CPU that talk by gloo, as torchrun would start them; the tests' work for them."""

from __future__ import annotations

import os
import socket
from multiprocessing import get_context
from pathlib import Path

import torch

from paul import checkpoint
from paul.engine import distributed


def _rank(work, rank, size, port, arguments):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    world, _ = distributed.join("cpu")
    try:
        work(world, *arguments)
    finally:
        torch.distributed.destroy_process_group()


def run_ranks(size: int, work, *arguments, timeout: float = 120) -> list[int]:
    """work(world, *arguments) in `size` processes; their exit codes."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["paul.adapt", "paul.sharded"])  # imports only: no torch operation before the fork
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=_rank, args=(work, rank, size, port, arguments)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in ranks]


def save(path: Path, world, **values) -> None:
    """One file per rank."""
    checkpoint.write_atomically(Path(path) / f"{world.rank}.pt", lambda file: torch.save(values, file))


def load(path: Path, rank: int = 0) -> dict:
    return torch.load(Path(path) / f"{rank}.pt", weights_only=True)

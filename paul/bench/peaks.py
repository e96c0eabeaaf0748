"""What this device can do at most, measured: bytes copied, floating-point operations of a matrix product a second.

From them follows a bound for any work: it can't take less time than its operations need at the best rate, nor less
than reading its inputs and writing its results once needs at the best bandwidth (the roofline model: Williams,
Waterman and Patterson, 2009).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from paul.bench.timing import seconds_of

ATTEMPTS = 5
# Of 3x3 kernels, counted as if each product were taken; Winograd's algorithm saves some of them, so that a network on a
# CPU can pass the rate of a matrix product.
CONVOLUTION = "float32 convolution"


@dataclass(frozen=True)
class Peaks:
    """Bytes a second (read and written both counted) and FLOP a second by precision."""

    bytes_per_second: float
    flops_per_second: dict[str, float]

    def bound(self, flops: float, moved: float, precision: str = "float32") -> dict:
        """The least seconds for so many operations and bytes, and which of the two decides."""
        by_flops, by_bytes = flops / self.flops_per_second[precision], moved / self.bytes_per_second
        return {
            "flops": flops,
            "bytes": moved,
            "precision": precision,
            "bound_seconds": max(by_flops, by_bytes),
            "bound_by": "flops" if by_flops >= by_bytes else "bytes",
        }

    def as_dict(self) -> dict:
        return asdict(self)


def _best(work: Callable[[], object], device: torch.device) -> float:
    """The fastest of some attempts: a peak is what is possible, not what is usual."""
    work()
    return min(seconds_of(work, device) for _ in range(ATTEMPTS))


@torch.no_grad()
def measure_peaks(device: torch.device, quick: bool = False) -> Peaks:
    """Copy an array larger than any cache; multiply square matrices, on a GPU also in TF32 and bf16.

    On a CPU also a 3x3 convolution, without gradients.
    """
    on_gpu = device.type == "cuda"
    count = 2**22 if quick else 2**28 if on_gpu else 2**26
    source = torch.rand(count, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / _best(lambda: target.copy_(source), device)
    source = target = None

    side = 512 if quick else 8192 if on_gpu else 2048
    rates = {}
    tf32 = torch.backends.cuda.matmul.allow_tf32
    for name in ("float32", "tf32", "bfloat16") if on_gpu else ("float32",):
        a, b = (
            torch.rand(side, side, device=device, dtype=torch.bfloat16 if name == "bfloat16" else torch.float32)
            for _ in range(2)
        )
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        rates[name] = 2 * side**3 / _best(lambda: a @ b, device)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    if not on_gpu:
        channels, rows, columns = (64, 32, 16) if quick else (1024, 48, 32)
        maps, kernel = torch.rand(1, channels, rows, columns), torch.rand(channels, channels, 3, 3)
        operations = 2 * 9 * channels**2 * rows * columns
        rates[CONVOLUTION] = operations / _best(lambda: torch.conv2d(maps, kernel, padding=1), device)
    return Peaks(copied, rates)


def count_flops(work: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions in one call, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()

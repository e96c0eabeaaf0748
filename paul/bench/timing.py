"""How long something takes: CPU seconds in one thread, or a GPU's own clock; sides that are compared take turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch

REPEATS = 5
TURN_SECONDS = 0.1  # short work is repeated for about this long within a turn


def repository() -> Path:
    """The folder that holds the package, and in a clone the tests."""
    return Path(__file__).resolve().parents[2]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device, calls: int = 1, wall: bool = False) -> float:
    """Seconds of one call, averaged over some.

    On a CPU the process's own seconds, so that waiting for other processes doesn't count; `wall` counts it after all,
    where workers of other processes do part of the work. On a GPU the time between two events of its stream.
    """
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        synchronize(device)
        begin.record()
        for _ in range(calls):
            work()
        end.record()
        synchronize(device)
        return begin.elapsed_time(end) / 1000 / calls
    clock = time.perf_counter if wall else time.process_time
    begin = clock()
    for _ in range(calls):
        work()
    return (clock() - begin) / calls


def summary(values: list[float], prefix: str) -> dict[str, float]:
    """Median of some repeats, and how far they lie apart: (largest - smallest) / median."""
    middle = statistics.median(values)
    return {f"{prefix}_seconds": middle, f"{prefix}_spread": (max(values) - min(values)) / middle if middle else 0.0}


def compare(
    works: dict[str, Callable[[], object]],
    device: torch.device,
    repeats: dict[str, int] | int = REPEATS,
    wall: bool = False,
) -> dict[str, float]:
    """NAME_seconds (median) and NAME_spread of each work, taking turns.

    Each has an untimed call first, except one that is timed only once: it would be the longest of all.
    """
    repeats = {name: repeats if isinstance(repeats, int) else repeats.get(name, REPEATS) for name in works}
    calls, seconds = {}, {name: [] for name in works}
    for name, work in works.items():
        calls[name] = 1
        if repeats[name] > 1:
            once = seconds_of(work, device, wall=wall)
            if once < TURN_SECONDS:  # the first call of all took longer than the next ones will
                calls[name] = max(1, int(TURN_SECONDS / max(seconds_of(work, device, wall=wall), 1e-6)))
    for turn in range(max(repeats.values())):
        for name, work in works.items():
            if turn < repeats[name]:
                seconds[name].append(seconds_of(work, device, calls[name], wall))
    return {key: value for name, values in seconds.items() for key, value in summary(values, name).items()}


@contextmanager
def spent_in(owner, name: str, device: torch.device):
    """Wall seconds spent inside owner.name while the block runs, as the only item of a list."""
    original, total = getattr(owner, name), [0.0]

    def timed(*args, **kwargs):
        synchronize(device)
        begin = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            synchronize(device)
            total[0] += time.perf_counter() - begin

    setattr(owner, name, timed)
    try:
        yield total
    finally:
        setattr(owner, name, original)


_FRESH = """
import json, re, sys
from pathlib import Path
{imports}
def peak_mb():
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where ru_maxrss would start from the parent's
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) / 1024
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 ** 2 if sys.platform == "darwin" else 1024)

torch.set_num_threads(1)
device = torch.device({device!r})
{given}
before = peak_mb()
held = torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
{work}
on_gpu = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
print(json.dumps(dict(imports_mb=before, peak_mb=peak_mb(), work_mb=peak_mb() - before, gpu_mb=on_gpu,
                      gpu_work_mb=on_gpu - held)))
"""


def fresh_peak(imports: str, work: str, device: torch.device, given: str = "") -> dict[str, float]:
    """Peak memory in MiB of some statements in a process of their own, which imports nothing else.

    imports_mb after the imports (and what is `given`, statements that make the inputs), peak_mb at most, work_mb the
    difference; gpu_mb the most that torch held on the GPU, gpu_work_mb what the work added there.
    """
    script = _FRESH.format(imports=imports, given=given, work=work, device=str(device))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository(), check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)

"""How fast the renderer is, in images per second of one process without JPEG, and how fast a long index opens."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from data_prep.market_layout import INDEX_COLUMNS
from data_prep.photograph import render, studio
from data_prep.synthetic import batch_size, plan_set

CHUNK = 100_000  # rows written at a time


def images_per_second(size=(128, 64), images=640):
    """Render `images` shots of the Market-like set's plan; scenes are painted before the clock starts."""
    plan = plan_set("market", "mini")
    shots = plan.shots[:: max(1, len(plan.shots) // images)][:images]
    number = batch_size(size)
    for camera in plan.cameras:
        studio(camera, size)
    began = time.process_time()
    for start in range(0, len(shots), number):
        render(shots[start : start + number], plan.cameras, size)
    return len(shots) / (time.process_time() - began)


def long_index(folder, rows):
    """Write an index of so many rows and no images: 20 of each person, names of 45 letters, all in train."""
    with open(Path(folder) / "index.csv", "w", encoding="utf-8") as stream:
        stream.write(",".join(INDEX_COLUMNS) + "\n")
        for first in tqdm(range(0, rows, CHUNK), desc="writing", unit=f"{CHUNK:,} rows"):
            for row in range(first, min(first + CHUNK, rows)):
                person, camera = row // 20 + 1, row % 15 + 1
                stream.write(
                    f"bounding_box_train/{person:07d}_c{camera}s1_{row:09d}_01.jpg,train,{person},{camera},1,{row}\n"
                )


# a process of its own: the peak is of opening, not of writing; ru_maxrss counts kilobytes on Linux, bytes on a Mac
_OPEN = """
import resource, sys, time
from paul.data.datasets import ReidDataset
began, cpu = time.perf_counter(), time.process_time()
rows = len(ReidDataset.load(sys.argv[1]).split("train").person_ids)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(rows, time.perf_counter() - began, time.process_time() - cpu, peak)
"""


def open_long_index(rows):
    """Write an index of so many rows in a temporary folder, and open it in a process of its own.

    Returns seconds, seconds of processor time, and peak bytes of memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        long_index(folder, rows)
        done = subprocess.run(
            [sys.executable, "-c", _OPEN, folder],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).resolve().parents[1],
        )
    found, seconds, cpu, peak = done.stdout.split()
    assert int(found) == rows
    return float(seconds), float(cpu), int(peak)

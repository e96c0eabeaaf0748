"""A case: what is measured, against what, and how its row in the table is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch

from paul.bench import literal
from paul.bench.peaks import CONVOLUTION, Peaks
from paul.bench.timing import REPEATS, compare


@dataclass(frozen=True)
class Bench:
    """What every case is given: the device, what it can do, the literal versions, the folder of the embedded people."""

    device: torch.device
    peaks: Peaks | None = None
    reference: ModuleType = literal
    quick: bool = False
    data: Path = Path("data")

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def network(self) -> str:
        """Which peak bounds a network: that of bf16 on a GPU, of convolutions on a CPU."""
        return "bfloat16" if self.on_gpu else CONVOLUTION

    def compare(
        self,
        ours: Callable[[], object],
        other: Callable[[], object],
        flops: float,
        moved: float,
        precision: str = "float32",
        repeats: int = REPEATS,
        other_repeats: int | None = None,
        wall: bool = False,
        **more: Callable[[], object],
    ) -> dict:
        """Both sides' seconds and spread, and the bound of ours: it needs `flops` and moves `moved` bytes at least.

        `more` names further works, which take their turns with the two.
        """
        repeats = 1 if self.quick else repeats
        times = dict.fromkeys(more, repeats) | {
            "ours": repeats,
            "other": repeats if other_repeats is None else min(repeats, other_repeats),
        }
        row = compare({"ours": ours, "other": other, **more}, self.device, times, wall)
        return row | self.peaks.bound(flops, moved, precision)

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device)


@dataclass(frozen=True)
class Case:
    """One row of a suite.

    Attributes:
        title: what is measured.
        run: (bench, **sizes) -> row with `size`, ours_seconds, other_seconds and the bound; `curves` where it grows.
        other: what ours is measured against.
        expected: the ratio other / ours hoped for, or with `at_most` the ratio ours / other; by device type.
        judged: the figure of the row that `expected` is about, where it isn't the ratio.
        quick, cuda: sizes for a look whether it runs, and for a GPU; the defaults of `run` are a CPU's.
    """

    title: str
    run: Callable[..., dict]
    other: str = "literal"
    expected: dict[str, float] = field(default_factory=dict)
    at_most: bool = False
    judged: str = "ratio"
    quick: dict = field(default_factory=dict)
    cuda: dict = field(default_factory=dict)

    def measure(self, bench: Bench) -> dict:
        """The finished row."""
        torch.manual_seed(0)
        row = self.run(bench, **self.quick if bench.quick else self.cuda if bench.on_gpu else {})
        ratio = row["other_seconds"] / row["ours_seconds"]
        row = {
            "title": self.title,
            "other": self.other,
            **row,
            "ratio": 1 / ratio if self.at_most else ratio,
            "share_of_bound": row["bound_seconds"] / row["ours_seconds"],
        }
        expected = self.expected.get(bench.device.type)
        if expected and not bench.quick:  # a tiny size says nothing about it
            figure = "" if self.judged == "ratio" else f"{self.judged} "
            row["expected"] = f"{figure}{'<=' if self.at_most else '>='} {expected:g}"
            row["as_expected"] = bool((row[self.judged] <= expected) == self.at_most)
        return row

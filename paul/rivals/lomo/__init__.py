"""LOMO (Liao, Hu, Zhu & Li, CVPR 2015), a hand-crafted descriptor: its options, and what the study asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paul.method import Method, Outcome, Task


@dataclass(frozen=True)
class LomoOptions:
    """All of LOMO; the defaults are its paper's.

    Attributes:
        size: rows and columns of the images; other sizes work and give other lengths.
        levels: of the pyramid, each half as high and wide as the one before.
        window, step: side of the square windows and the way from one to the next, in pixels.
        bins: of hue, saturation and value each.
        radii, tau: of the texture code: how far its four neighbours are, and which ratio counts as equal.
        surrounds: standard deviations of the Retinex's Gaussians in pixels; () leaves the Retinex out.
    """

    NUMERICS: ClassVar[int] = 1

    size: tuple[int, int] = (128, 48)
    levels: int = 3
    window: int = 10
    step: int = 5
    bins: int = 8
    radii: tuple[int, ...] = (3, 5)
    tau: float = 0.3
    surrounds: tuple[float, ...] = (5.0, 20.0)


def train(task: Task) -> Outcome:
    """Nothing is learned."""
    from paul.rivals.lomo.descriptor import describe

    return Outcome(lambda pixels: describe(pixels.images, task.options), task.options.size)


METHOD = Method(LomoOptions, train, needs_source=False, draws=False)

"""Bag of words (Zheng et al., ICCV 2015), a hand-crafted descriptor: its options, and what the study asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paul.method import Method, Outcome, Task


@dataclass(frozen=True)
class BowOptions:
    """All of BoW; the defaults are its paper's and its code's, `name_width` apart.

    Attributes:
        size: rows and columns of the images; other sizes work.
        patch: side of the square patches, which lie side by side, in pixels.
        words: of the codebook.
        assigned: nearest words that a patch counts for.
        sigma: of a word's weight, in units of the patch descriptor.
        strips: horizontal strips of equal height.
        mask: standard deviation of the Gaussian mask times the root of two, in half widths and half heights.
        name_width: standard deviation of a colour name in CIELAB, set beforehand.
    """

    NUMERICS: ClassVar[int] = 1

    size: tuple[int, int] = (128, 64)
    patch: int = 4
    words: int = 350
    assigned: int = 10
    sigma: float = 3.0
    strips: int = 16
    mask: float = 1.0
    name_width: float = 20.0


def train(task: Task) -> Outcome:
    """Learns the codebook from the target's images."""
    from paul.rivals.bow.descriptor import Codebook

    book = Codebook.fit(task.images(task.options.size).images, task.options, task.seed)
    return Outcome(lambda pixels: book.describe(pixels.images), task.options.size)


METHOD = Method(BowOptions, train, needs_source=False)

"""The seam between a method and the study: what a method says of itself, what it is given, what it gives back.

A method is a folder (or, for PAUL's own, an entry of `paul.experiments.methods`) that makes one `Method`. Everything
else, from `paul run` and its plan to records, tables and verdicts, goes through it and asks no method for its name.
Importable without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn

    from paul.data.datasets import Split
    from paul.data.pixels import Pixels
    from paul.options import PatchNetOptions
    from paul.patchnet import PatchNet


STEP = 3  # forward passes that a training step of an image counts as: a backward pass is two products for each of its


@dataclass(frozen=True)
class NoOptions:
    """Of a method that has nothing to choose."""

    NUMERICS: ClassVar[int] = 1


@dataclass(frozen=True)
class Task:
    """What a method is asked to do.

    Attributes:
        options: the method's own.
        images: (rows, columns) -> the target's unlabelled training images at that size.
        image_size: rows and columns of the profile's images.
        source: the source model, for the method's own use; None for a method that needs none.
        seed: of the adaptation; decides whatever the method draws.
        folder: for checkpoints of its own; the same task finds the same folder again.
        device: its name, None for a GPU when there is one.
    """

    options: Any
    images: Callable[[tuple[int, int]], Pixels]
    image_size: tuple[int, int]
    source: PatchNet | None
    seed: int
    folder: Path
    device: str | None


@dataclass(frozen=True)
class Outcome:
    """What a method has made.

    Attributes:
        describe: `Pixels` on the device -> descriptors [n, d].
        image_size: rows and columns of the images that it describes.
        model: the network behind it, where there is one.
        history: a line per epoch or round, with its seconds.
        metrics: what else it has measured, under the names that `Method.metrics` declares.
    """

    describe: Callable[[Pixels], Tensor]
    image_size: tuple[int, int]
    model: nn.Module | None = None
    history: list[dict] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


def _nothing(*_) -> int:
    return 0


@dataclass(frozen=True)
class Method:
    """One way of making descriptors for a target.

    Attributes:
        options: a frozen dataclass whose defaults are the method's paper's. Its `NUMERICS` is raised when a golden
            trajectory of the method moves.
        train: does the work; imports torch no earlier than that.
        needs_source: whether it starts from the source model.
        trains: whether it trains the network further, and so keeps checkpoints in its folder.
        draws: whether `train` draws anything itself; without a source either, one run stands for all seeds.
        at: (profile, target) -> its options there, the paper's by default.
        passes: (options, training images) -> forward passes of the network that `train` takes; a training step of an
            image counts as STEP. For plans.
        exact_passes: whether `passes` is what is done, and not a bound.
        memory_bytes: (options, network, training images) -> bytes that training keeps beside the network. For plans.
        measure: (what `train` made, its training images, the same with their labels) -> metrics, once all is trained:
            the labels of a target are for nothing but this.
        metrics: name -> label of what it measures beside retrieval, in `train` or in `measure`.
    """

    options: type
    train: Callable[[Task], Outcome]
    needs_source: bool = True
    trains: bool = False
    draws: bool = True
    at: Callable[[str, str], Any] | None = None
    passes: Callable[[Any, int], float] = _nothing
    exact_passes: bool = True
    memory_bytes: Callable[[Any, PatchNetOptions, int], int] = _nothing
    measure: Callable[[Outcome, Pixels, Split], dict[str, float]] | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)

    @property
    def seeded(self) -> bool:
        """Whether a seed decides anything, the source model's or the method's own."""
        return self.needs_source or self.draws

    def options_at(self, profile: str, target: str) -> Any:
        """The method's options at a profile, on one of its targets."""
        return self.at(profile, target) if self.at else self.options()

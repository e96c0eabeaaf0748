"""PUL (Fan, Zheng, Yan & Yang, 2018), clustering and fine-tuning: its options, and what the study asks of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from paul.method import STEP, Method, Outcome, Task


@dataclass(frozen=True)
class PulOptions:
    """How PUL trains; the defaults are its authors' (for Market-1501).

    Attributes:
        clusters: of k-means, about as many as there are people.
        reliability: lambda, the cosine to the centre from which an image is trained on.
        rounds, epochs: rounds, and epochs of fine-tuning in each.
        batch, lr, momentum: of SGD.
        min_batch: a last batch of fewer images joins the one before it (ledger 32).
        shift: random shift and scale, as a share of the image.
        refresh_statistics: set batch-norm statistics to those of the plain target images after each round.
    """

    NUMERICS: ClassVar[int] = 1

    clusters: int = 750
    reliability: float = 0.85
    rounds: int = 25
    epochs: int = 20
    batch: int = 16
    min_batch: int = 16
    lr: float = 1e-3
    momentum: float = 0.9
    shift: float = 0.2
    refresh_statistics: bool = False

    def __post_init__(self):
        if self.clusters < 2 or self.rounds < 1 or self.epochs < 1 or self.batch < 2:
            raise ValueError(
                f"pul needs at least two clusters, one round, one epoch and a batch of two, got "
                f"{self.clusters}, {self.rounds}, {self.epochs} and {self.batch}"
            )
        if self.min_batch < 2:
            raise ValueError(f"min_batch must be at least 2, which batch norm needs, got {self.min_batch}")


# Outside the paper's own sets set beforehand, not searched: on mini's validation people (source seed 100, two rounds),
# rates of 0.01 and 0.03 and two or four epochs a round were within 0.6 points of mAP of each other, averaged over the
# targets.
_MINI = PulOptions(clusters=140, rounds=4, epochs=2, batch=32, lr=0.01, shift=0.06, refresh_statistics=True)
AT = {
    "smoke": replace(_MINI, clusters=16, rounds=2, epochs=1, batch=16),
    "mini": _MINI,
    "gpu": replace(_MINI, clusters=520),
    "paper": PulOptions(),
}
CLUSTERS = {("paper", "duke"): 700}  # of its paper, for DukeMTMC-reID


def at(profile: str, target: str) -> PulOptions:
    """PUL's options at a profile, on one of its targets."""
    options = AT.get(profile, PulOptions())
    return replace(options, clusters=CLUSTERS.get((profile, target), options.clusters))


def train(task: Task) -> Outcome:
    """Rounds of clustering and fine-tuning, from the source model."""
    from paul.data.passes import extract
    from paul.rivals.pul.training import pul

    model, history = pul(
        task.source, task.images(task.image_size), task.options, folder=task.folder, seed=task.seed, device=task.device
    )
    return Outcome(partial(extract, model), task.image_size, model, history)


def passes(options: PulOptions, images: int) -> float:
    """As if every image were reliable, so a bound."""
    return options.rounds * images * (1 + options.refresh_statistics + STEP * options.epochs)


METHOD = Method(PulOptions, train, trains=True, at=at, passes=passes, exact_passes=False)

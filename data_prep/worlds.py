"""Worlds by a number: the development world (0), others drawn around it, and the knobs that turn one of them.

A world has its own people, wardrobe, cameras, streets and gaps, because every random draw is keyed by its number.
"""

from dataclasses import asdict, dataclass

import numpy as np

from data_prep.market_layout import DataError
from data_prep.seeding import rng_for
from paul.data.worlds import KNOBS, RENDERED, knobs_of, population, turned, world_of


@dataclass(frozen=True)
class Set:
    """One set of a world.  `gap` is its distance from the source: 0 is the source's cameras, 1 the extreme."""

    key: int
    cameras: int
    gap: float
    title: str


# The one place where difficulty is tuned: a larger gap makes direct transfer harder. The two gaps were set by Rank-1 of
# PatchNet's direct transfer at mini on the development world's *validation* people, to land between 45 and 60 %; no
# test person was scored for it. Source seeds 100 and 101, which no reported run uses: market 46 and 48 %, duke 52 and
# 55 %. At this size people weigh more than gaps do: without any, seed 100 gives 49 and 57 %, at 0.1 36 and 49 %.
SETS = {
    "source": Set(1, 9, 0.0, "labelled source"),
    "market": Set(2, 6, 0.04, "unlabelled target, Market-1501-like"),
    "duke": Set(3, 8, 0.05, "unlabelled target, DukeMTMC-reID-like"),
}


@dataclass(frozen=True)
class World:
    """Which world, and its knobs; None leaves a size to the profile and the table above.

    Attributes:
        number: 0 is the development world.
        people: training people of each set.
        images: of a person by each camera that they pass.
        cameras: of each set.
        gap: times the targets' distance from the source.
        shared: share of a target's garments that the source's people wear, too.
        alike: share of people whom clothes alone don't tell apart.
        size: height and width of the images.
    """

    number: int = 0
    people: int | None = None
    images: int | None = None
    cameras: int | None = None
    gap: float = KNOBS["gap"][1]
    shared: float = KNOBS["shared"][1]
    alike: float = KNOBS["alike"][1]
    size: tuple[int, int] | None = None

    def __post_init__(self):
        sound = {
            "--world": (self.number >= 0, "a world's number is 0 or more"),
            "--people": (self.people is None or 2 <= self.people <= 1000, "people of a set are 2 to 1000"),
            "--images": (self.images is None or 2 <= self.images <= 20, "images by a camera are 2 to 20"),
            "--cameras": (self.cameras is None or 3 <= self.cameras <= 9, "cameras of a set are 3 to 9"),
            "--gap": (0 <= self.gap <= 5, "a gap's strength lies between 0 and 5"),
            "--shared": (0 <= self.shared <= 1, "a share lies between 0 and 1"),
            "--alike": (0 <= self.alike <= 1, "a share lies between 0 and 1"),
            "--size": (
                self.size is None or all(32 <= side <= 1024 and side % 2 == 0 for side in self.size),
                "height and width are even and 32 to 1024",
            ),
        }
        for option, (holds, rule) in sound.items():
            if not holds:
                raise DataError(f"{option} {getattr(self, option[2:].replace('world', 'number'))}: {rule}")

    def knobs(self):
        """The knobs by name."""
        return {name: value for name, value in asdict(self).items() if name != "number"}

    def folder(self, profile):
        """The folder's name of all its sets: mini, mini-w3, mini-w3-people600-gap0.5; no two worlds have the same."""
        return population(turned(profile, **self.knobs()), self.number)

    def gap_of(self, name):
        """The gap of one of its sets: the table's in the development world, drawn around that in others."""
        gap = SETS[name].gap * self.gap
        if self.number:
            draw = rng_for(self.number, SETS[name].key, "gap").standard_normal()
            gap *= float(np.exp(0.25 * np.clip(draw, -1.5, 1.5)))
        return round(gap, 4)

    def cameras_of(self, name):
        """How many cameras one of its sets has."""
        return self.cameras or SETS[name].cameras


DEVELOPMENT = World()


def read_folder(name):
    """A folder's name -> (profile, World), the inverse of `World.folder`; None where it is no such name."""
    named, number = world_of(name)
    profile, knobs = knobs_of(named)
    try:
        return (profile, World(number, **knobs)) if profile in RENDERED else None
    except DataError:
        return None

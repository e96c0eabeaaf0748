"""A run named by row, target, profile and three seeds; everything that decides its numbers; and where its files go."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from paul.data.worlds import knobs_of, population, source_population
from paul.experiments.methods import METHODS
from paul.experiments.profiles import Profile, profile
from paul.experiments.provenance import digest
from paul.experiments.rows import ROWS, STUDIES, TABLES, Row, of_part
from paul.method import Method
from paul.options import PatchNetOptions, PretrainOptions, checked_seed, known

MODELS = "build/models"
MOST_SEEDS = 100  # that one command may name
EVALUATION_NUMERICS = 1  # of descriptors and their scores: raised when goldens of theirs move


def plain(options) -> dict:
    """An options dataclass as it reads back from JSON."""
    return json.loads(json.dumps(asdict(options)))


def name_of_run(row: str, target: str, seed: int, adapt_seed: int, hash: str) -> str:
    """For files and folders: "paul--market--s0--<hash>", or s0a1 where source and adaptation have different seeds."""
    own = f"a{adapt_seed}" if adapt_seed != seed else ""
    return f"{row}--{target}--s{seed}{own}--{hash[:8]}"


@dataclass(frozen=True)
class Spec:
    """One run: a row on a target of a world, from a source seed and with one of its own, at a profile.

    Attributes:
        profile: its name, with the knobs of its world where they are turned, as in "mini-people600".
        seed: of the source model.
        adapt_seed: of whatever the method draws; the source seed by default.
        world: the number that the people were drawn with, 0 for development (see `paul.data.worlds`).
        weights: the content of the weights that the backbone starts from, where it isn't the profile's (see
            `paul.weights.content_of`); the file itself is a matter of `Places`.

    Raises:
        ValueError: a row, target, profile or world that is none, or a seed out of range.
    """

    row: str
    target: str
    seed: int
    profile: str
    weights: str | None = None
    adapt_seed: int | None = None
    world: int = 0

    def __post_init__(self):
        if self.adapt_seed is None:
            object.__setattr__(self, "adapt_seed", self.seed)
        known("row", self.row, ROWS)
        known("target", self.target, self.at.targets)
        checked_seed(self.seed)
        checked_seed(self.adapt_seed)

    @property
    def at(self) -> Profile:
        """Its profile, on the people of its world."""
        return profile(self.profile).in_world(self.world)

    @property
    def population(self) -> str:
        """The folder below which everything of its profile and world stands."""
        return population(self.profile, self.world)

    @property
    def source_population(self) -> str:
        """The folder below which the source model stands."""
        return source_population(self.profile, self.world)

    @property
    def entry(self) -> Row:
        """What `ROWS` says of its row."""
        return ROWS[self.row]

    @property
    def method(self) -> Method:
        """What is done."""
        return METHODS[self.entry.method]

    @property
    def network(self) -> PatchNetOptions:
        """Of the source model."""
        return self.entry.changed("network", self.at.network)

    @property
    def pretrain(self) -> PretrainOptions:
        """Of the source stage."""
        return self._chosen("pretrain", self.entry.source_arm, self.at.pretrain)

    @property
    def options(self) -> Any:
        """Of the method."""
        return self._chosen(
            "adapt",
            f"target/{self.entry.of or self.row}",
            self.method.options_at(knobs_of(self.profile)[0], self.target),
        )

    def _chosen(self, part: str, arm: str, base):
        """The options of a part as the profile has them, with what was chosen for the arm, and then the row's own."""
        return self.entry.changed(part, replace(base, **of_part(self.at.tuned.get(arm, {}), part)))

    def source(self) -> dict:
        """What decides the source model, as plain data; rows and targets with equal ones share it; {} without one."""
        if not self.method.needs_source:
            return {}
        network = asdict(self.network)
        network.pop("freeze_pgn")  # acts on the target only
        return {
            "data": self.at.folders["source"],
            "image_size": list(self.at.image_size),
            "network": network,
            "pretrain": plain(self.pretrain),
            "weights": self.weights or self.at.weights,
            "seed": self.seed,
        }

    def data(self) -> dict:
        """All options of the run, as plain data."""
        shared = {"source": self.source(), "freeze_pgn": self.network.freeze_pgn} if self.method.needs_source else {}
        if self.entry.share < 1:
            shared["given"] = {"people": self.entry.people, "images": self.entry.images}
        return {
            "method": self.entry.method,
            "target": self.at.folders[self.target],
            **shared,
            "options": plain(self.options),
        }

    @property
    def hash(self) -> str:
        """Of all options."""
        return digest(self.data())

    @property
    def numerics(self) -> dict[str, int]:
        """The versions of the arithmetic that makes the run's numbers, raised when a golden trajectory moves."""
        source = {"source": PretrainOptions.NUMERICS} if self.method.needs_source else {}
        return {**source, "method": self.method.options.NUMERICS, "evaluation": EVALUATION_NUMERICS}

    @property
    def name(self) -> str:
        """For files and folders."""
        return name_of_run(self.row, self.target, self.seed, self.adapt_seed, self.hash)


@dataclass(frozen=True)
class Places:
    """Folders: data sets, results (records), models (checkpoints, outside version control); a file of backbone weights
    in place of a download; and the device."""

    data: str = "data"
    results: str = "results"
    models: str = MODELS
    device: str | None = None
    weights: str | None = None

    def absolute(self) -> Places:
        """The same folders as a process elsewhere must name them."""
        given = {name: getattr(self, name) for name in ("data", "results", "models", "weights")}
        return replace(self, **{name: str(Path(path).absolute()) for name, path in given.items() if path})

    def record(self, spec: Spec) -> Path:
        """The file of a run's record."""
        return Path(self.results) / "runs" / spec.population / f"{spec.name}.json"


def seeds_of(text: str, what: str = "seeds") -> list[int]:
    """ "0-2" or "0,3,5" -> seeds, or worlds; `what` they are called in an error.

    Raises:
        ValueError: anything else, more than `MOST_SEEDS`, or one that no generator takes.
    """
    parts = [re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part) for part in str(text).split(",")]
    if not all(parts):
        raise ValueError(f"{what} must look like 0-2 or 0,3,5 in 18 digits at most, got {text!r}")
    ranges = [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts]
    count = sum(map(len, ranges))
    if count > MOST_SEEDS:
        raise ValueError(f"{what} {text!r} name {count:,} {what}; one command takes {MOST_SEEDS:,} at most")
    seeds = [checked_seed(seed) for each in ranges for seed in each]
    if not seeds:
        raise ValueError(f"{what} {text!r} name none")
    return seeds


def specs_of(
    table: str,
    profile_name: str,
    seeds: list[int],
    targets: list[str] | None = None,
    rows: list[str] | None = None,
    weights: str | None = None,
    adapt_seeds: list[int] | None = None,
    worlds: Sequence[int] = (0,),
) -> list[Spec]:
    """The runs of one table or study: every world with every source seed, and for a row that trains from a source model
    every adaptation seed, by default the source seed itself. A row without chance has one run a world, filed under seed
    0.

    `weights` is a file for backbones to start from; one with the profile's own content changes no run.

    Raises:
        ValueError: an unknown table, target or row; a world of sets that nobody renders.
    """
    from paul.weights import content_of

    tables = TABLES | STUDIES
    p, of = profile(profile_name), tables[known("table", table, tables)]
    for world in worlds:
        p.in_world(world)
    possible = [target for target in p.targets if of.target in (None, target)]
    for chosen, names, kind in ((targets, p.targets, "target"), (rows, of.lines, "row")):
        for name in chosen or ():
            known(kind, name, names)
    content = content_of(p.network.backbone, weights)
    content = None if content == p.weights else content
    found = []
    for world, seed, row in product(worlds, seeds, (name for name in of.lines if rows is None or name in rows)):
        method = METHODS[ROWS[row].method]
        source_seed = seed if method.seeded else 0
        own = adapt_seeds if adapt_seeds and method.needs_source and method.draws else [source_seed]
        found += [
            Spec(row, target, source_seed, profile_name, content if method.needs_source else None, adapt_seed, world)
            for target in possible
            if targets is None or target in targets
            for adapt_seed in own
        ]
    return list(dict.fromkeys(found))

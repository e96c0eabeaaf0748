"""A run named by its row, target, seed and profile; everything that decides its numbers; and where its files go."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from paul.experiments.methods import METHODS
from paul.experiments.profiles import Profile, profile
from paul.experiments.provenance import digest
from paul.experiments.rows import ROWS, TABLES, Row
from paul.method import Method
from paul.options import PatchNetOptions, PretrainOptions, checked_seed, known

MODELS = "build/models"
MOST_SEEDS = 100  # that one command may name
EVALUATION_NUMERICS = 1  # of descriptors and their scores: raised when goldens of theirs move


def plain(options) -> dict:
    """An options dataclass as it reads back from JSON."""
    return json.loads(json.dumps(asdict(options)))


@dataclass(frozen=True)
class Spec:
    """One run: a row on a target, from a source seed, at a profile.

    Attributes:
        weights: the content of the weights that the backbone starts from, where it isn't the profile's (see
            `paul.weights.content_of`); the file itself is a matter of `Places`.

    Raises:
        ValueError: a row, target or profile that is none, or a seed out of range.
    """

    row: str
    target: str
    seed: int
    profile: str
    weights: str | None = None

    def __post_init__(self):
        known("row", self.row, ROWS)
        known("target", self.target, self.at.targets)
        checked_seed(self.seed)

    @property
    def at(self) -> Profile:
        """Its profile."""
        return profile(self.profile)

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
        return self.entry.changed("pretrain", self.at.pretrain)

    @property
    def options(self) -> Any:
        """Of the method."""
        return self.entry.changed("adapt", self.method.options_at(self.profile, self.target))

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
        return f"{self.row}--{self.target}--s{self.seed}--{self.hash[:8]}"


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
        return Path(self.results) / "runs" / spec.profile / f"{spec.name}.json"


def seeds_of(text: str) -> list[int]:
    """ "0-2" or "0,3,5" -> seeds.

    Raises:
        ValueError: anything else, more than `MOST_SEEDS`, or one that no generator takes.
    """
    parts = [re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part) for part in str(text).split(",")]
    if not all(parts):
        raise ValueError(f"seeds must look like 0-2 or 0,3,5 in 18 digits at most, got {text!r}")
    ranges = [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts]
    count = sum(map(len, ranges))
    if count > MOST_SEEDS:
        raise ValueError(f"seeds {text!r} name {count:,} seeds; one command takes {MOST_SEEDS:,} at most")
    seeds = [checked_seed(seed) for each in ranges for seed in each]
    if not seeds:
        raise ValueError(f"seeds {text!r} name no seed")
    return seeds


def specs_of(
    table: str,
    profile_name: str,
    seeds: list[int],
    targets: list[str] | None = None,
    rows: list[str] | None = None,
    weights: str | None = None,
) -> list[Spec]:
    """The runs of one table; a row without chance has one, filed under seed 0.

    `weights` is a file for backbones to start from; one with the profile's own content changes no run.

    Raises:
        ValueError: an unknown table, target or row.
    """
    from paul.weights import content_of

    p, of = profile(profile_name), TABLES[known("table", table, TABLES)]
    possible = [target for target in p.targets if of.target in (None, target)]
    for chosen, names, kind in ((targets, p.targets, "target"), (rows, of.lines, "row")):
        for name in chosen or ():
            known(kind, name, names)
    content = content_of(p.network.backbone, weights)
    content = None if content == p.weights else content
    found = []
    for seed in seeds:
        for row in (name for name in of.lines if rows is None or name in rows):
            method = METHODS[ROWS[row].method]
            found += [
                Spec(row, target, seed if method.seeded else 0, profile_name, content if method.needs_source else None)
                for target in possible
                if targets is None or target in targets
            ]
    return list(dict.fromkeys(found))

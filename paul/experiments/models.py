"""The trained networks below a folder of models, in the words of the study: rows, seed, data, profile."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from paul.data.worlds import world_of
from paul.engine.files import read
from paul.experiments.profiles import PROFILES, profile, profile_in
from paul.experiments.rows import ROWS
from paul.experiments.specs import Spec


@dataclass(frozen=True)
class TrainedNetwork:
    """What a checkpoint in a folder of models is.

    Attributes:
        file: the checkpoint.
        stage: "source" or "target".
        rows: of a source model those that begin with it, of a target model its own.
        seed, data, profile: of its training; `data` is a folder below the data directory.
        network: in words.
        epochs: done, and to do; a method that trains in rounds counts these.
    """

    file: Path
    stage: str
    rows: tuple[str, ...]
    seed: int
    data: str
    profile: str
    network: str
    epochs: tuple[int, int]

    def __str__(self) -> str:
        done, total = self.epochs
        of = ", ".join(self.rows) or "no row of today's"
        unfinished = "" if done == total else f", unfinished: {done} of {total} epochs"
        return (
            f"{self.stage} model of {of}; {self.network}; trained on {self.data}, seed {self.seed}, "
            f"profile {self.profile}{unfinished}"
        )


def models_in(folder: str | Path) -> list[TrainedNetwork]:
    """The networks in folder/<population>/*/checkpoint.pt, those of source stages first; a file that is no checkpoint
    of a training is named in a warning."""
    found = []
    for file in sorted(Path(folder).glob("*/*/checkpoint.pt")):
        name = file.parent.parent.name
        if profile_in(name) in PROFILES:
            try:
                found.append(_described(file, name))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                warnings.warn(f"{file} is not a checkpoint of the study ({error}); left out", stacklevel=2)
    return sorted(found, key=lambda model: (model.profile, model.stage, model.file))


def _described(file: Path, name: str) -> TrainedNetwork:
    training = read(file)["training"]
    spec = json.loads(training["spec"])
    network, options, seed = spec["network"], spec["options"], int(spec["seed"])
    turned, world = world_of(name)
    p = profile(turned).in_world(world)
    source = spec["stage"] == "source"
    if source:
        rows = tuple(row for row in ROWS if _begins_with(Spec(row, p.targets[0], seed, turned, world=world), spec))
        data = p.folders["source"]
    else:
        row, target, *_ = file.parent.name.split("--")
        rows, data = (row,), p.folders[target]
    patches = {"image": "whole images", "pgn": "PatchNet, {} patches"}.get(network["generator"], "{} patches, {}")
    words = patches.format(network["num_patches"], network["generator"])
    return TrainedNetwork(
        file,
        "source" if source else "target",
        rows,
        seed,
        data,
        name,
        f"{words} ({network['backbone']})",
        (len(json.loads(training["history"])), options.get("rounds", options["epochs"])),
    )


def _begins_with(spec: Spec, trained: dict) -> bool:
    """Whether the run's source model is what was trained, as far as options tell."""
    wanted = spec.source()
    network = {key: value for key, value in trained["network"].items() if key != "freeze_pgn"}
    return bool(wanted) and (wanted["network"], wanted["pretrain"]) == (network, trained["options"])

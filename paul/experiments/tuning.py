"""One search budget for every arm: which options are searched, on whom, and the same number of trials for each.

An arm is a network's source stage (`source/image`) or a row's own training (`target/image_lc`). Its trials are drawn
beforehand, from its name alone: each value of each option stands in as many of them as any other, in an order that
chance decides (a Latin hypercube), so an arm with more options gets no more trials than one with few. The score of a
trial is the step mAP on the targets' validation people (`val_query`, `val_gallery`), averaged over the targets, from a
source seed that no run reports; no test person is looked at. Source stages are scored by direct transfer and come
first: a row's trials start from the source model that was chosen for its network.

The values to be tried do not have as clean a history. They lie around what an earlier search chose, of five options of
the target stage one after the other (`results/tuning/mini.json`, which mini's options still are); and its values were
laid after trials on one source seed, on earlier renderings, that printed test scores beside the validation scores.

`results/search/<profile>.json` holds every trial. What it chose stands in the profile (`Profile.tuned`), to which a
test holds it. LOMO and BoW have nothing to search: they are taken as their papers give them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from paul.engine.device import one_thread, pick_device
from paul.experiments.methods import METHODS
from paul.experiments.profiles import profile
from paul.experiments.provenance import code_hash, commit
from paul.experiments.records import fingerprints, write_record
from paul.experiments.rows import ROWS, Row
from paul.experiments.runner import evaluate_descriptor, outcome_of, source_model, sources_of
from paul.experiments.specs import Places, Spec
from paul.experiments.workers import workers_executor

SEED = 100  # a source model of its own: no reported run starts from it
TRIALS = 8  # of every arm

# Values tried, by the names that a row's overrides have.
PEAK_RATE = {"pretrain.peak_rate": (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)}
LR = {"adapt.lr": (0.003, 0.01, 0.03, 0.1)}
L_C = {"adapt.s": (0.6, 1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)}
L_V = {"adapt.margin": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0), "adapt.jitter": (0.1, 0.2, 0.4, 0.6)}
LAM = {"adapt.lam": (0.5, 1.0, 2.0, 4.0)}
PUL = {"adapt.lr": LR["adapt.lr"], "adapt.reliability": (0.7, 0.8, 0.85, 0.9), "adapt.clusters": (70, 140, 280, 560)}
CONTRAST = {
    "adapt.lr": (0.0003, 0.001, 0.003, 0.01),
    "adapt.eps": (0.3, 0.4, 0.5, 0.6),
    "adapt.temperature": (0.02, 0.05, 0.1, 0.2),
}
BOTH = LR | L_C | L_V | LAM

# Row whose trials these are -> what is searched. A source stage is searched on its network's direct transfer.
SEARCH: dict[str, dict[str, tuple]] = {
    **{f"{name}_direct": PEAK_RATE for name in ("image", "patch", "random", "equal", "pgn4", "pgn8")},
    **dict.fromkeys(("image_lc", "image_pull", "patch_lc", "patch_pull"), LR | L_C),
    "patch_lv": LR | L_V,
    **dict.fromkeys(("paul", "random", "equal", "pgn4", "pgn8"), BOTH),
    "pul": PUL,
    "cluster_contrast": CONTRAST,
}


def arm_of(row: str) -> str:
    """What a row's trials choose: "source/image" for image_direct, "target/paul" for paul."""
    return f"target/{row}" if METHODS[ROWS[row].method].trains else ROWS[row].source_arm


@dataclass(frozen=True)
class Trial(Spec):
    """A run whose row is changed once more.

    Attributes:
        changes: as a row's overrides.
    """

    changes: tuple[tuple[str, object], ...] = ()

    @property
    def entry(self) -> Row:
        row = ROWS[self.row]
        return replace(row, overrides={**row.overrides, **dict(self.changes)})


def design(arm: str, space: dict[str, tuple], trials: int = TRIALS) -> list[dict]:
    """The trials of an arm: option -> value, no two alike.

    Raises:
        ValueError: the space has fewer points than that.
    """
    points = 1
    for values in space.values():
        points *= len(values)
    if points < trials:
        raise ValueError(f"{arm}: {trials} trials need as many points, and its values make {points}")
    draws = random.Random(arm)
    while True:
        columns = []
        for values in space.values():
            column = [values[place * len(values) // trials] for place in range(trials)]
            columns.append(draws.sample(column, trials))
        found = list(dict.fromkeys(zip(*columns)))
        if len(found) == trials:
            return [dict(zip(space, point)) for point in found]


def on_edge(space: dict[str, tuple], chosen: dict) -> list[str]:
    """The options whose chosen value is the smallest or largest of those tried: the best may lie beyond."""
    return [name for name, values in space.items() if chosen[name] in (min(values), max(values))]


def score(spec: Trial, places: Places) -> dict[str, float]:
    """Scores on one target's validation people, in percent."""
    with one_thread(pick_device(places.device)):
        source = source_model(spec, places)[0] if spec.method.needs_source else None
        outcome = outcome_of(spec, source, places)
        folder = Path(places.data) / spec.at.folders[spec.target]
        device = pick_device(places.device)
        found = evaluate_descriptor(outcome.describe, folder, outcome.image_size, device, "val_query", "val_gallery")
        return found.percent()


def _trained(spec: Trial, places: Places) -> None:
    source_model(spec, places)


def _all(executor, work, specs: list[Trial], places: Places) -> list:
    """work(spec, places) of each, in order, by the executor or here."""
    return list((executor.map if executor else map)(partial(work, places=places), specs))


def tune(
    profile_name: str = "mini", places: Places = Places(), workers: int = 2, search=SEARCH, trials: int = TRIALS
) -> dict:
    """Search, write results/search/<profile>.json, and return what it holds. An interrupted search trains again only
    what was not finished.

    Raises:
        FileNotFoundError: the data are missing.
    """
    p = profile(profile_name)
    arms, chosen = {}, {}
    first = sorted(search, key=lambda row: METHODS[ROWS[row].method].trains)  # source stages
    with (
        workers_executor(workers) as executor,
        tqdm(total=len(first) * trials * len(p.targets), unit="trial", desc="search") as bar,
    ):
        for row in first:
            arm, space = arm_of(row), search[row]
            before = chosen.get(ROWS[row].source_arm, {})
            points = design(arm, space, trials)
            specs = [
                Trial(row, target, SEED, profile_name, changes=tuple({**before, **point}.items()))
                for point in points
                for target in p.targets
            ]
            _all(executor, _trained, sources_of(specs), places)
            scores = _all(executor, score, specs, places)
            found = []
            for place, point in enumerate(points):
                each = dict(zip(p.targets, scores[place * len(p.targets) :]))
                mean = sum(one["map_step"] for one in each.values()) / len(each)
                found.append({"values": point, "score": mean, "per_target": each})
            chosen[arm] = max(found, key=lambda one: one["score"])["values"]
            arms[arm] = {
                "row": row,
                "space": {name: list(values) for name, values in space.items()},
                "trials": found,
                "chosen": chosen[arm],
                "on_edge": on_edge(space, chosen[arm]),
                "numerics": specs[0].numerics,
            }
            bar.update(len(specs))
    result = {
        "profile": profile_name,
        "seed": SEED,
        "score": "mean over targets of the validation people's step mAP",
        "arms": arms,
        "code": code_hash(),
        "commit": commit(),
        "data": {t: fingerprints(Spec("paul", t, SEED, profile_name), places)["target"] for t in p.targets},
    }
    write_record(Path(places.results) / "search" / f"{profile_name}.json", result)
    return result


def lines(result: dict) -> list[dict]:
    """A search as a table to show, a line for each arm: what was tried, how often, what was chosen, how it scored and
    how the worst trial did, and which chosen values lie on the edge of those tried."""
    return [
        {
            "arm": arm,
            "searched": "; ".join(
                f"{name} {', '.join(f'{value:g}' for value in values)}" for name, values in found["space"].items()
            ),
            "trials": len(found["trials"]),
            "chosen": ", ".join(f"{name} {value:g}" for name, value in found["chosen"].items()),
            "best": max(trial["score"] for trial in found["trials"]),
            "worst": min(trial["score"] for trial in found["trials"]),
            "on the edge": ", ".join(found["on_edge"]) or "-",
        }
        for arm, found in result["arms"].items()
    ]

"""One search budget for every arm: which options are searched, on whom, and the same number of trials for each.

An arm is a source stage ("source/image", "source/patch") or a row's own training ("target/image_lc"). Its trials are
drawn beforehand, from its name alone: each value of each option stands in as many of them as any other, in an order
that chance decides (a Latin hypercube), so an arm with more options gets no more trials than one with few. There is one
way to more: an option whose best value is the smallest or largest tried goes a step further, one trial at a time, until
the best lies between two others, has come to its limit (`LIMITS`), or the arm has had `MOST`.

The score of a trial is the step mAP on the targets' validation people (`val_query`, `val_gallery`), averaged over the
targets and the arm's rows, from a source seed that no run reports; no test person is looked at. Source stages are
scored by direct transfer and come first: a row's trials start from the source model with the rate that was chosen.

All networks that cut patches share one rate of the source stage, as all networks of the paper do: it is the same
training, whatever cuts the patches, and the mean over five networks is one over five trainings. A network's own best
rate says less. Near the largest rate that works a seed may train far worse than the next: an earlier search, by
network, gave equal stripes 0.32 for 0.9 points of validation mAP, and with it the training losses of two recorded
source models differed by a third. Who made this rule had seen world 0's test scores of that search.

The values to be tried do not have a clean history either. They lie around what an earlier search chose of five options
of the target stage, one after the other, which are still mini's own where no arm has another; and its values were laid
after trials on one source seed, on earlier renderings, that printed test scores beside the validation scores.

`results/search/<profile>.json` holds every trial. What it chose stands in the profile (`Profile.tuned`), to which a
test holds it. LOMO and BoW have nothing to search: they are taken as their papers give them.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from paul.engine.device import one_thread, pick_device
from paul.experiments.profiles import profile
from paul.experiments.provenance import commit, digest
from paul.experiments.records import fingerprints, write_record
from paul.experiments.rows import ROWS, Row
from paul.experiments.runner import evaluate_descriptor, outcome_of, source_model, sources_of
from paul.experiments.specs import Places, Spec
from paul.experiments.workers import workers_executor

SEED = 100  # a source model of its own: no reported run starts from it
TRIALS = 6  # of every arm, drawn
MOST = 16  # of an arm, with the steps beyond an edge

# Values tried, by the names that a row's overrides have.
PEAK_RATE = {"pretrain.peak_rate": (0.04, 0.08, 0.16, 0.32, 0.64, 1.28)}
LR = {"adapt.lr": (0.003, 0.006, 0.012, 0.025, 0.05, 0.1)}
L_C = {"adapt.s": (1.25, 2.5, 5.0, 10.0, 20.0, 40.0)}
L_V = {"adapt.margin": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0), "adapt.jitter": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)}
LAM = {"adapt.lam": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)}
PUL = {**LR, "adapt.reliability": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9), "adapt.clusters": (35, 70, 140, 280, 560, 1120)}
CONTRAST = {
    "adapt.lr": (0.0003, 0.0006, 0.00125, 0.0025, 0.005, 0.01),
    "adapt.eps": (0.3, 0.4, 0.45, 0.5, 0.55, 0.6),
    "adapt.temperature": (0.02, 0.035, 0.05, 0.07, 0.1, 0.2),
}
# Where an option that has an end in sight ends: a cosine, a share and a probability say nothing beyond, no more
# clusters can be made than mini's targets have images, the smallest rate leaves a network as it came but for its
# batch-norm statistics, and at the smallest temperature a cosine's difference of 0.1 is already odds of 22,000 to 1.
LIMITS = {
    "adapt.lr": (1e-5, 1.0),
    "adapt.temperature": (0.01, 1.0),
    "adapt.reliability": (0.0, 0.99),
    "adapt.jitter": (0.0, 1.0),
    "adapt.eps": (0.05, 0.95),
    "adapt.clusters": (2, 1680),
}
BOTH = LR | L_C | L_V | LAM


@dataclass(frozen=True)
class Arm:
    """What is searched together.

    Attributes:
        rows: whose scores are averaged.
        space: option -> the values tried.
    """

    rows: tuple[str, ...]
    space: dict[str, tuple]


def _target(space: dict[str, tuple], *rows: str) -> dict[str, Arm]:
    return {f"target/{row}": Arm((row,), space) for row in rows}


SEARCH: dict[str, Arm] = {
    "source/image": Arm(("image_direct",), PEAK_RATE),
    "source/patch": Arm(("patch_direct", "random_direct", "equal_direct", "pgn4_direct", "pgn8_direct"), PEAK_RATE),
    **_target(LR | L_C, "image_lc", "image_pull", "patch_lc", "patch_pull"),
    **_target(LR | L_V, "patch_lv"),
    **_target(BOTH, "paul", "random", "equal", "pgn4", "pgn8"),
    **_target(PUL, "pul"),
    **_target(CONTRAST, "cluster_contrast"),
}


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


def on_edge(tried: list[dict], chosen: dict) -> list[str]:
    """The options whose chosen value is the smallest or largest of those tried: the best may lie beyond. One that has
    come to its limit is none of them."""
    found = []
    for name, value in chosen.items():
        values = [trial[name] for trial in tried]
        if value in (min(values), max(values)) and value not in LIMITS.get(name, ()):
            found.append(name)
    return found


def beyond(tried: list[dict], chosen: dict) -> dict | None:
    """The next trial of an arm: what was chosen, with its first option on an edge as far again from its neighbour, by
    ratio; None where nothing is on an edge."""
    for name in on_edge(tried, chosen):
        value = chosen[name]
        others = {trial[name] for trial in tried} - {value}
        nearest = min(others, key=lambda other: abs(other - value))
        low, high = LIMITS.get(name, (0, float("inf")))
        further = min(max(float(f"{value * value / nearest:.2g}"), low), high)
        return {**chosen, name: type(value)(further)}
    return None


def score(spec: Trial, places: Places) -> dict[str, float]:
    """Scores on one target's validation people, in percent."""
    with one_thread(pick_device(places.device)):
        source = source_model(spec, places)[0] if spec.method.needs_source else None
        outcome = outcome_of(spec, source, places)
        folder = Path(places.data) / spec.at.folders[spec.target]
        device = pick_device(places.device)
        found = evaluate_descriptor(outcome.describe, folder, outcome.image_size, device, "val_query", "val_gallery")
        return found.percent()


def _key(spec: Trial, places: Places) -> str:
    """Of everything that decides a trial's scores: options, seeds, arithmetic, data."""
    seeds = [spec.seed, spec.adapt_seed]
    return digest({"spec": spec.data(), "seeds": seeds, "numerics": spec.numerics, "data": fingerprints(spec, places)})


def _scored(path: Path) -> dict[str, dict]:
    """Key -> run, of an earlier search; without what is not whole, and {} where there is no file that can be read."""
    try:
        arms = json.loads(path.read_text(encoding="utf-8"))["arms"]
        runs = [run for arm in arms.values() for trial in arm["trials"] for run in trial["runs"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {run["key"]: run for run in runs if _whole(run)}


def _whole(run) -> bool:
    score = run.get("map_step") if isinstance(run, dict) else None
    return type(score) is float and 0 <= score <= 100 and isinstance(run.get("key"), str)


def _trained(spec: Trial, places: Places) -> None:
    source_model(spec, places)


def _all(executor, work, specs: list[Trial], places: Places, bar) -> list:
    """work(spec, places) of each, in order, by the executor or here."""
    bar.total += len(specs)
    bar.refresh()
    found = []
    for outcome in (executor.map if executor else map)(partial(work, places=places), specs):
        found.append(outcome)
        bar.update()
    return found


def _best(trials: list[dict]) -> dict:
    return max(trials, key=lambda trial: trial["score"])["values"]


def tune(
    profile_name: str = "mini",
    places: Places = Places(),
    workers: int = 2,
    search: dict[str, Arm] = SEARCH,
    trials: int = TRIALS,
) -> dict:
    """Search, write results/search/<profile>.json, and return what it holds. Runs that the file has already, with the
    same options, arithmetic and data, are taken from it; an interrupted search trains again only what was not finished.

    Raises:
        FileNotFoundError: the data are missing.
    """
    path, targets = Path(places.results) / "search" / f"{profile_name}.json", profile(profile_name).targets
    known = _scored(path)
    done: dict[str, list[dict]] = {arm: [] for arm in search}

    def specs_at(arm: str, point: dict) -> list[Trial]:
        """A trial's runs, on each target, from the source model that was chosen for their networks."""
        found = []
        for row in search[arm].rows:
            source = done.get(ROWS[row].source_arm) if arm.startswith("target/") else None
            changes = tuple({**(_best(source) if source else {}), **point}.items())
            found += [Trial(row, target, SEED, profile_name, changes=changes) for target in targets]
        return found

    def following(arm: str) -> list[dict]:
        values = [trial["values"] for trial in done[arm]]
        point = beyond(values, _best(done[arm])) if len(values) < max(MOST, trials) else None
        return [point] if point else []

    with workers_executor(workers) as executor, tqdm(total=0, unit="step", desc="search") as bar:
        for stage in ("source/", "target/"):
            asked = {arm: design(arm, of.space, trials) for arm, of in search.items() if arm.startswith(stage)}
            while any(asked.values()):
                planned = [(arm, point, specs_at(arm, point)) for arm, points in asked.items() for point in points]
                missing = [spec for *_, specs in planned for spec in specs if _key(spec, places) not in known]
                _all(executor, _trained, sources_of(missing), places, bar)
                for spec, scores in zip(missing, _all(executor, score, missing, places, bar)):
                    key = _key(spec, places)
                    known[key] = {"row": spec.row, "target": spec.target, **scores, "key": key, "commit": commit()}
                for arm, point, specs in planned:
                    runs = [known[_key(spec, places)] for spec in specs]
                    mean = sum(run["map_step"] for run in runs) / len(runs)
                    done[arm].append({"values": point, "score": mean, "runs": runs})
                asked = {arm: following(arm) for arm in asked}
    result = {
        "profile": profile_name,
        "seed": SEED,
        "score": "mean over rows and targets of the validation people's step mAP",
        "arms": {
            arm: {
                "rows": list(of.rows),
                "space": {name: list(values) for name, values in of.space.items()},
                "trials": done[arm],
                "chosen": _best(done[arm]),
                "on_edge": on_edge([trial["values"] for trial in done[arm]], _best(done[arm])),
            }
            for arm, of in search.items()
        },
        "data": {t: fingerprints(Spec("paul", t, SEED, profile_name), places) for t in targets},
    }
    write_record(path, result)
    return result


def searched(space: dict) -> str:
    """The values tried, as a cell of a table."""
    return "; ".join(f"{name} {', '.join(f'{value:g}' for value in values)}" for name, values in space.items())


def lines(result: dict) -> list[dict]:
    """A search as a table to show, a line for each arm: what was tried, how often, what was chosen, how it scored and
    how the worst trial did, and which chosen values lie on the edge of those tried."""
    return [
        {
            "arm": arm,
            "searched": searched(found["space"]),
            "trials": len(found["trials"]),
            "chosen": ", ".join(f"{name} {value:g}" for name, value in found["chosen"].items()),
            "best": max(trial["score"] for trial in found["trials"]),
            "worst": min(trial["score"] for trial in found["trials"]),
            "on the edge": ", ".join(found["on_edge"]) or "-",
        }
        for arm, found in result["arms"].items()
    ]

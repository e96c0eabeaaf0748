"""Five options of a profile's target stage, chosen on validation people and from a source seed that no run reports.

The choice sees validation scores alone. The grid it chooses from does not have as clean a history: it was laid after
trials on one source seed, on earlier renderings, that printed test scores beside the validation scores.

One option after the other, each on the row that depends on it most, keeping the best before going on. The score is the
step mAP on the validation people, averaged over the targets. `results/tuning/<profile>.json` holds every trial, and a
test holds the profile to the choice.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from paul.adapt import adapt
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.engine.device import one_thread, pick_device
from paul.experiments.profiles import profile
from paul.experiments.provenance import code_hash, commit, digest
from paul.experiments.records import fingerprints, write_record
from paul.experiments.runner import evaluate_model, source_model
from paul.experiments.specs import Places, Spec, plain
from paul.experiments.workers import workers_executor
from paul.options import AdaptOptions

SEED = 100  # a source model of its own: no reported run starts from it
# where the search begins, whatever the profile holds by now: values of earlier trials
START = {"lr": 0.01, "s": 10.0, "margin": 1.0, "jitter": 0.4, "lam": 2.0}
# option, losses switched on while it is chosen, values tried
SEARCH = (
    ("lr", {"loss_c": "pedal", "loss_v": True}, (0.01, 0.03)),
    ("s", {"loss_c": "pedal", "loss_v": False}, (2.5, 5.0, 10.0, 20.0)),
    ("margin", {"loss_c": None, "loss_v": True}, (0.5, 1.0, 2.0)),
    ("jitter", {"loss_c": None, "loss_v": True}, (0.2, 0.4)),
    ("lam", {"loss_c": "pedal", "loss_v": True}, (1.0, 2.0, 4.0)),
)


def trial(options: AdaptOptions, target: str, profile_name: str, places: Places) -> dict[str, float]:
    """Scores on one target's validation people after adapting with these options, in percent."""
    p = profile(profile_name)
    spec = Spec("paul", target, SEED, profile_name)
    model, _ = source_model(spec, places)
    folder = Path(places.data) / p.folders[target]
    key = digest(
        {
            **plain(options),
            "numerics": spec.numerics,
            "image_size": list(p.image_size),
            "target": target,
            "data": fingerprints(spec, places),
        }
    )
    with one_thread(pick_device(places.device)):
        images = load_images(ReidDataset.load(folder).split("train"), p.image_size)
        model, _ = adapt(
            model,
            images,
            options,
            seed=SEED,
            device=places.device,
            folder=Path(places.models) / profile_name / f"tuning--{target}--{key[:8]}",
        )
        return evaluate_model(model, folder, p.image_size, "val_query", "val_gallery").percent()


def tune(profile_name: str = "mini", places: Places = Places(), workers: int = 2, search=SEARCH) -> dict:
    """Search, write results/tuning/<profile>.json, and return what it holds: seed, chosen, trials.

    Raises:
        FileNotFoundError: the data are missing.
    """
    p = profile(profile_name)
    source_model(Spec("paul", p.targets[0], SEED, profile_name), places)
    chosen, trials = {}, []
    with (
        workers_executor(workers) as executor,
        tqdm(total=sum(len(values) for *_, values in search), unit="trial", desc="tuning") as bar,
    ):
        for option, losses, values in search:
            scored = []
            for value in values:
                options = replace(p.adapt, **{**START, **chosen, **losses, option: value})
                jobs = [(options, target, profile_name, places) for target in p.targets]
                if executor is None:
                    scores = [trial(*job) for job in jobs]
                else:
                    scores = [future.result() for future in [executor.submit(trial, *job) for job in jobs]]
                score = sum(s["map_step"] for s in scores) / len(scores)
                scored.append((score, value))
                trials.append(
                    {
                        "option": option,
                        "value": value,
                        "losses": losses,
                        "others": copy.copy(chosen),
                        "score": score,
                        "per_target": dict(zip(p.targets, scores)),
                    }
                )
                bar.update()
            chosen[option] = max(scored)[1]
    result = {
        "profile": profile_name,
        "seed": SEED,
        "score": "mean over targets of the validation people's step mAP",
        "start": START,
        "chosen": chosen,
        "trials": trials,
        "numerics": Spec("paul", p.targets[0], SEED, profile_name).numerics,
        "code": code_hash(),
        "commit": commit(),
        "data": {t: fingerprints(Spec("paul", t, SEED, profile_name), places)["target"] for t in p.targets},
    }
    write_record(Path(places.results) / "tuning" / f"{profile_name}.json", result)
    return result

"""From a row of a table to its run record: train or load the source model, run the method, evaluate, write down."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter

import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from paul import checkpoint, metrics
from paul.data.batches import on_device
from paul.data.datasets import ReidDataset, Split, part_of
from paul.data.passes import extract
from paul.data.pixels import Pixels, load_pixels
from paul.engine.device import one_thread, pick_device
from paul.engine.folder import FolderInUse
from paul.experiments import provenance
from paul.experiments.provenance import digest
from paul.experiments.records import fingerprints, outdated, read_record, read_records, spec_of, write_record
from paul.experiments.specs import MODELS, Places, Spec, seeds_of, specs_of
from paul.experiments.workers import as_they_end, workers_executor
from paul.method import Outcome, Task
from paul.patchnet import PatchNet
from paul.pretrain import pretrain

PATIENCE = 3600.0  # seconds that another process may hold a model's folder without finishing an epoch


def _split(folder: str, name: str, part: tuple = ()) -> Split:
    """A split with its labels, or the part of it that `part_of` takes."""
    split = ReidDataset.load(folder).split(name)
    return split.take(part_of(split.person_ids, *part)) if part else split


@lru_cache(maxsize=8)
def _pixels(folder: str, split: str, size: tuple[int, int], part: tuple = ()) -> Pixels:
    return load_pixels(_split(folder, split, part), size)


def _folder(spec: Spec, name: str, places: Places) -> Path:
    return Path(places.data) / spec.at.folders[name]


def source_folder(spec: Spec, places: Places = Places()) -> Path:
    """Where a run's source model is trained: its options, its arithmetic and the data set decide."""
    dataset = ReidDataset.load(_folder(spec, "source", places))
    key = digest({**spec.source(), "numerics": spec.numerics["source"], "fingerprint": dataset.fingerprint})
    return Path(places.models) / spec.source_population / f"source--s{spec.seed}--{key[:8]}"


def target_folder(spec: Spec, places: Places = Places()) -> Path:
    """Where a run's own method trains."""
    numerics = {name: spec.numerics[name] for name in spec.numerics if name != "evaluation"}
    key = digest({**spec.data(), "seed": spec.adapt_seed, "numerics": numerics, "data": fingerprints(spec, places)})
    return Path(places.models) / spec.population / f"{spec.name}--{key[:8]}"


def _once_free(folder: Path, train):
    """What train() returns; while another process trains in the folder, wait, and then load or go on with its model.

    Raises:
        FolderInUse: held for `PATIENCE` seconds without a new checkpoint; a shared file system may keep the lock of a
            machine that is gone.
    """

    def last_epoch():
        file = folder / "checkpoint.pt"
        return file.stat().st_mtime_ns if file.is_file() else None

    while True:
        try:
            return train()
        except FolderInUse:
            warnings.warn(f"waiting for {folder}, where another process trains", stacklevel=2)
        before = last_epoch()
        try:
            with FileLock(folder / ".lock").acquire(timeout=PATIENCE, poll_interval=0.2):
                pass
        except Timeout:
            if last_epoch() == before:
                raise FolderInUse(
                    f"{folder / '.lock'} has been held for {PATIENCE:.0f} s without a new checkpoint; "
                    "delete it if no process trains there any more, and run the same command "
                    "again"
                ) from None


def source_model(spec: Spec, places: Places = Places()) -> tuple[PatchNet, list[dict]]:
    """The source model of a run, trained or loaded, and a line per epoch of its training."""
    folder = _folder(spec, "source", places)
    pixels = _pixels(str(folder), "train", spec.at.image_size)
    people = ReidDataset.load(folder).split("train").person_ids
    out = source_folder(spec, places)
    with one_thread(pick_device(places.device)):
        return _once_free(
            out,
            lambda: pretrain(
                pixels,
                people,
                spec.network,
                spec.pretrain,
                folder=out,
                seed=spec.seed,
                weights=places.weights or spec.at.weights,
                device=places.device,
            ),
        )


def outcome_of(spec: Spec, source: PatchNet | None, places: Places = Places()) -> Outcome:
    """What the run's method makes of the source model, which it uses up.

    Raises:
        ValueError: the method measures something that it does not declare, or leaves out what it does.
    """
    target = str(_folder(spec, spec.target, places))
    part = (spec.entry.people, spec.entry.images, spec.seed) if spec.entry.share < 1 else ()
    task = Task(
        spec.options,
        lambda size: _pixels(target, "train", tuple(size), part),
        spec.at.image_size,
        source,
        spec.adapt_seed,
        target_folder(spec, places),
        places.device,
    )
    with one_thread(pick_device(places.device)):
        outcome = _once_free(task.folder, lambda: spec.method.train(task))
        if spec.method.measure:
            found = spec.method.measure(outcome, task.images(task.image_size), _split(target, "train", part))
            outcome = replace(outcome, metrics={**outcome.metrics, **found})
    if set(outcome.metrics) != set(spec.method.metrics):
        raise ValueError(
            f"the method of row {spec.row} declares the metrics {sorted(spec.method.metrics)} and "
            f"measured {sorted(outcome.metrics)}"
        )
    return outcome


def evaluate_model(
    model: PatchNet, folder: str | Path, image_size: tuple[int, int], query: str = "query", gallery: str = "gallery"
) -> metrics.Metrics:
    """Retrieval scores of a network on one data set's query and gallery split."""
    device = next(model.parameters()).device
    return evaluate_descriptor(partial(extract, model), folder, image_size, device, query, gallery)


def evaluate_descriptor(
    describe,
    folder: str | Path,
    image_size: tuple[int, int],
    device: torch.device,
    query: str = "query",
    gallery: str = "gallery",
) -> metrics.Metrics:
    """The same of any function from `Pixels` to descriptors [n, d]."""
    dataset, sides = ReidDataset.load(folder), []
    for name in (query, gallery):
        split = dataset.split(name)
        features = describe(on_device(_pixels(str(folder), name, tuple(image_size)), device))
        sides += [features, split.person_ids, split.camera_ids]
    return metrics.evaluate(*sides)


def trained(
    row: str,
    target: str,
    seed: int = 0,
    profile: str = "mini",
    data_dir: str = "data",
    models_dir: str = MODELS,
    device: str | None = None,
    adapt_seed: int | None = None,
) -> Outcome:
    """What is behind one run: its network (in evaluation mode) and history, trained or loaded."""
    spec = Spec(row, target, seed, profile, adapt_seed=adapt_seed)
    places = Places(data_dir, models=models_dir, device=device)
    outcome = outcome_of(spec, source_model(spec, places)[0] if spec.method.needs_source else None, places)
    if outcome.model is not None:
        outcome.model.eval()
    return outcome


def trained_model(*run, **places) -> PatchNet:
    """The network of `trained`."""
    return trained(*run, **places).model


def trained_models(
    rows: Sequence[str],
    target: str,
    seed: int = 0,
    profile: str = "mini",
    data_dir: str = "data",
    models_dir: str = MODELS,
    device: str | None = None,
    adapt_seed: int | None = None,
    workers: int = 2,
) -> dict[str, PatchNet]:
    """The networks of `trained`, by row; those that have not begun are trained by so many processes on a CPU."""
    places = Places(data_dir, models=models_dir, device=device)
    specs = [Spec(row, target, seed, profile, adapt_seed=adapt_seed) for row in rows]

    def new(some: list[Spec], folder) -> list[Spec]:
        return [spec for spec in some if not (folder(spec, places) / "checkpoint.pt").is_file()]

    own = new([spec for spec in specs if spec.method.trains], target_folder)
    sources = new(sources_of(specs), source_folder)
    for work, todo in ((_train_source, sources), (_train, own)):
        if len(todo) > 1:
            with workers_for(todo, workers, device) as executor:
                list((executor.map if executor else map)(partial(work, places=places), todo))
    return {
        spec.row: trained_model(spec.row, target, seed, profile, data_dir, models_dir, device, adapt_seed)
        for spec in specs
    }


def _recorded(spec: Spec, places: Places) -> dict | None:
    """The run's record; None where there is none, or the file by that name holds another run's."""
    found = read_record(places.record(spec))
    return found if found is not None and spec_of(found) == spec else None


def run_one(spec: Spec, places: Places = Places(), fresh: bool = False) -> dict:
    """Compute one run and write its record, or load the record that is there.

    Args:
        spec: what to run.
        places: folders and device.
        fresh: compute again what has changed since its record was written; else such a record is used and a warning
            says so.
    """
    path, found = places.record(spec), _recorded(spec, places)
    if found is not None:
        reason = outdated(found, places)
        if not reason or not fresh:
            if reason:
                warnings.warn(f"{path.name} was measured with {reason}; fresh=True computes it again", stacklevel=2)
            return found
    device = pick_device(places.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with one_thread(device):
        source, source_curve = source_model(spec, places) if spec.method.needs_source else (None, [])
        begin = perf_counter()
        outcome = outcome_of(spec, source, places)
        made = perf_counter()
        scores = evaluate_descriptor(outcome.describe, _folder(spec, spec.target, places), outcome.image_size, device)
        evaluated, threads = perf_counter(), torch.get_num_threads()
    # a resumed run's seconds are those of its epochs, wherever they were spent
    seconds = {
        "pretrain": sum(line["seconds"] for line in source_curve),
        "adapt": sum(line["seconds"] for line in outcome.history) if outcome.history else made - begin,
        "evaluate": evaluated - made,
    }
    record = {
        "row": spec.row,
        "target": spec.target,
        "seed": spec.seed,
        "adapt_seed": spec.adapt_seed,
        "world": spec.world,
        "profile": spec.profile,
        "weights": spec.weights,
        "spec": spec.data(),
        "spec_hash": spec.hash,
        "numerics": spec.numerics,
        "metrics": scores.percent() | outcome.metrics,
        "queries": scores.queries,
        "queries_left_out": scores.left_out,
        "curve": outcome.history,
        "source_curve": source_curve,
        "data": fingerprints(spec, places),
        "commit": provenance.commit(),
        "code": provenance.code_hash(),
        "versions": provenance.versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": provenance.machine(),
        "threads": threads,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_memory_mb": round(provenance.peak_memory_mb(device), 1),
    }
    write_record(path, record)
    return record


def sources_of(specs: list[Spec]) -> list[Spec]:
    """One run for every source model that these runs need: the first."""
    return list({digest(spec.source()): spec for spec in reversed(specs) if spec.method.needs_source}.values())[::-1]


def _train_source(spec: Spec, places: Places) -> None:
    source_model(spec, places)


def _train(spec: Spec, places: Places) -> None:
    outcome_of(spec, source_model(spec, places)[0] if spec.method.needs_source else None, places)


def _elsewhere(work, places: Places, arguments: tuple, expected: tuple[Spec, str, str]):
    """work(spec, places, *arguments) in a worker process; `expected` is the spec and what the asking process takes for
    the hashes of its options and of all sources.

    Raises:
        ValueError: the worker has other options or sources.
        FileNotFoundError: it lacks a file; both messages name the worker's machine.
    """
    spec = expected[0]
    if expected[1:] != (spec.hash, provenance.code_hash()):
        raise ValueError(
            f"the worker on {socket.gethostname()} runs another version of paul than this process; "
            "install the same one there, and start the worker again"
        )
    try:
        return work(spec, places, *arguments)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the worker on {socket.gethostname()} lacks a file: {error}") from error


def needs_computing(spec: Spec, places: Places, fresh: bool = False) -> bool:
    """Whether `run_one` would train."""
    found = _recorded(spec, places)
    return found is None or (fresh and bool(outdated(found, places)))


def run_all(
    specs: list[Spec],
    executor: Executor | None = None,
    places: Places = Places(),
    fresh: bool = False,
    retries: int = 3,
) -> list[dict]:
    """Run what is missing and return all records, in the order of the specs; shows progress.

    First the source models that the runs need, once each; then the runs.

    Args:
        specs: duplicates are computed once.
        executor: any `concurrent.futures.Executor`; in this process, one after the other, by default. Workers on other
            machines must see the folders of `places` under the same names.
        places: folders and device.
        fresh: see `run_one`.
        retries: how often what a broken pool left undone is given to the executor again, where a run goes on from its
            last checkpoint. A run's own error is not retried.

    Raises:
        RuntimeError: worker processes died more often than that.
        ValueError, FileNotFoundError: a worker runs other sources, or lacks the data.
    """
    missing = [spec for spec in dict.fromkeys(specs) if needs_computing(spec, places, fresh)]
    with warnings.catch_warnings(record=True) as old:
        warnings.simplefilter("always")
        results = {spec: run_one(spec, places) for spec in dict.fromkeys(specs) if spec not in missing}
    if old:
        warnings.warn(f"{len(old)} of {len(results)} records are outdated; {old[0].message}", stacklevel=2)
    for work, todo, arguments, label in (
        (_train_source, sources_of(missing), (), "source models"),
        (run_one, missing, (fresh,), "runs"),
    ):
        with tqdm(total=len(todo), desc=label, unit="run", **({} if todo else {"disable": True})) as bar:
            if executor is None:
                ended = ((spec, work(spec, places, *arguments)) for spec in todo)
            else:
                expected = [(spec, spec.hash, provenance.code_hash()) for spec in todo]
                there = partial(_elsewhere, work, places.absolute(), arguments)
                ended = ((item[0], result) for item, result in as_they_end(executor, there, expected, retries))
            for spec, result in ended:
                results[spec] = result
                bar.update()
    return [results[spec] for spec in specs]


def workers_for(todo: list[Spec], workers: int, device: str | None):
    """Executor of as many processes as there are runs at most; a GPU takes one run at a time."""
    return workers_executor(1 if pick_device(device).type == "cuda" else min(workers, len(todo)))


def run_table(
    table: str,
    profile: str = "mini",
    seeds: str = "0-2",
    targets: list[str] | None = None,
    data_dir: str = "data",
    results_dir: str = "results",
    models_dir: str = MODELS,
    workers: int = 2,
    rows: list[str] | None = None,
    device: str | None = None,
    fresh: bool = False,
    weights: str | None = None,
    adapt_seeds: str | None = None,
    worlds: str = "0",
) -> list[dict]:
    """All records of one of the paper's tables: loaded where they are, computed where they are missing.

    Args:
        table: "table1" ... "table4".
        profile, seeds, targets, rows: what to run; seeds as "0-2" or "0,3".
        data_dir, results_dir, models_dir: folders.
        workers: processes on a CPU; a GPU takes one run at a time.
        device, fresh: see `run_one`.
        weights: a file of backbone weights in place of the profile's.
        adapt_seeds: of adaptations from each source model; the source seed by default.
        worlds: whose people, as seeds are given; 0 is for development.

    Raises:
        ValueError: an unknown table, profile, target, row or world.
    """
    own = seeds_of(adapt_seeds, "adapt_seeds") if adapt_seeds else None
    specs = specs_of(table, profile, seeds_of(seeds), targets, rows, weights, own, seeds_of(worlds, "worlds"))
    places = Places(data_dir, results_dir, models_dir, device, weights)
    todo = [spec for spec in specs if needs_computing(spec, places, fresh)]
    with workers_for(todo, workers, device) as executor:
        return run_all(specs, executor, places, fresh)


def load_runs(results_dir: str | Path = "results", profile: str = "mini") -> list[dict]:
    """Every record of a profile, without computing anything."""
    return read_records(results_dir, profile)


def load_model(path: str | Path, device: str | None = None) -> PatchNet:
    """The network of a checkpoint, in evaluation mode on the device."""
    return checkpoint.load(path)[0].to(pick_device(device)).eval()

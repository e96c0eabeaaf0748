"""From a row of a table to its run record: train or load the source model, adapt, evaluate, write down."""

from __future__ import annotations

import socket
import warnings
from concurrent.futures import Executor
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm.auto import tqdm

from paul import bow, checkpoint, lomo, metrics, records
from paul.adapt import adapt
from paul.datasets import ReidDataset
from paul.device import on_device, one_thread, pick_device
from paul.engine import FolderInUse
from paul.executors import as_they_end, workers_executor
from paul.features import extract, refresh_statistics
from paul.images import load_images
from paul.patchnet import PatchNet
from paul.pretrain import pretrain
from paul.profiles import profile
from paul.pul import pul
from paul.rows import HAND_CRAFTED, MODELS, ROWS, Places, Spec, seeds_of, specs_of
from paul.runs import read_records

PATIENCE = 3600.0  # seconds that another process may hold a model's folder without finishing an epoch


@lru_cache(maxsize=8)
def _images(folder: str, split: str, size: tuple[int, int]) -> Tensor:
    return load_images(ReidDataset.load(folder).split(split), size)


def source_folder(spec: Spec, places: Places = Places()) -> Path:
    """Where a run's source model is trained: its options, the sources and the data set decide."""
    dataset = ReidDataset.load(Path(places.data) / profile(spec.profile).folders["source"])
    key = records.digest({**spec.source(), "code": records.code_hash(), "fingerprint": dataset.fingerprint})
    return Path(places.models) / spec.profile / f"source--s{spec.seed}--{key[:8]}"


def _once_free(folder: Path, train) -> PatchNet:
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
                raise FolderInUse(f"{folder / '.lock'} has been held for {PATIENCE:.0f} s without a new checkpoint; "
                                  "delete it if no process trains there any more, and run the same command "
                                  "again") from None


def source_model(spec: Spec, places: Places = Places()) -> PatchNet:
    """The source model of a run, trained or loaded; `history` holds its curve."""
    p = profile(spec.profile)
    folder = Path(places.data) / p.folders["source"]
    images = _images(str(folder), "train", p.image_size)
    people = ReidDataset.load(folder).split("train").person_ids
    out = source_folder(spec, places)
    with one_thread(pick_device(places.device)):
        return _once_free(out, lambda: pretrain(
            images, people, ROWS[spec.row].network(p.network), p.pretrain, folder=out, seed=spec.seed,
            weights=places.weights or p.weights, device=places.device))


def evaluate_model(model: PatchNet, folder: str | Path, image_size: tuple[int, int], query: str = "query",
                   gallery: str = "gallery") -> metrics.Metrics:
    """Retrieval scores of a network on one data set's query and gallery split."""
    device = next(model.parameters()).device
    return evaluate_descriptor(partial(extract, model), folder, image_size, device, query, gallery)


def evaluate_descriptor(describe, folder: str | Path, image_size: tuple[int, int], device: torch.device,
                        query: str = "query", gallery: str = "gallery") -> metrics.Metrics:
    """The same of any function from uint8 images [n, 3, H, W] to descriptors [n, d]."""
    dataset, sides = ReidDataset.load(folder), []
    for name in (query, gallery):
        split = dataset.split(name)
        features = describe(on_device(_images(str(folder), name, tuple(image_size)), device))
        sides += [features, split.person_ids, split.camera_ids]
    return metrics.evaluate(*sides)


def target_model(spec: Spec, model: PatchNet, places: Places = Places()) -> PatchNet:
    """The run's model after the target stage; `history` holds its curve, [] without training.

    The model given is used up: AdaBN changes it in place.
    """
    p, row = profile(spec.profile), ROWS[spec.row]
    train, options = (pul, spec.pul_options()) if row.method == "pul" else (adapt, spec.adapt_options())
    folder = Path(places.data) / p.folders[spec.target]
    model.history = []
    if row.adabn or options:
        images = _images(str(folder), "train", p.image_size)
    if row.adabn:
        refresh_statistics(model, on_device(images, next(model.parameters()).device))
    if options:
        key = records.digest({**spec.data(), "code": spec.code, "data": fingerprints(spec, places)})
        out = Path(places.models) / spec.profile / f"{spec.name}--{key[:8]}"
        with one_thread(pick_device(places.device)):
            return _once_free(out, lambda: train(model, images, options, seed=spec.seed, device=places.device,
                                                 folder=out))
    return model


def hand_crafted(spec: Spec, places: Places = Places()):
    """A row without a network: the function from images to descriptors, and the size of images that it takes."""
    method = ROWS[spec.row].method
    options = HAND_CRAFTED[method]
    if method == "lomo":
        return partial(lomo.describe, options=options), options.size
    folder = Path(places.data) / profile(spec.profile).folders[spec.target]
    return bow.Codebook.fit(_images(str(folder), "train", options.size), options, spec.seed).describe, options.size


def trained_model(row: str, target: str, seed: int = 0, profile: str = "mini", data_dir: str = "data",
                  models_dir: str = MODELS, device: str | None = None) -> PatchNet:
    """The network behind one run, in evaluation mode: trained, or loaded where its checkpoint is kept."""
    spec, places = Spec(row, target, seed, profile), Places(data_dir, models=models_dir, device=device)
    return target_model(spec, source_model(spec, places), places).eval()


def run_one(spec: Spec, places: Places = Places(), fresh: bool = False) -> dict:
    """Compute one run and write its record, or load the record that is there.

    Args:
        spec: what to run.
        places: folders and device.
        fresh: compute again what other sources or other data left behind; else such a record is used and a warning
            says so.
    """
    path = places.record(spec)
    found = records.read_record(path)
    if found is not None:
        outdated = outdated_reason(found, spec, places)
        if not outdated or not fresh:
            if outdated:
                warnings.warn(f"{path.name} was measured with {outdated}; --fresh computes it again", stacklevel=2)
            return found
    device = pick_device(places.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    p, curve, source_curve = profile(spec.profile), [], []
    with one_thread(device):
        if ROWS[spec.row].hand_crafted:
            begin = perf_counter()
            describe, size = hand_crafted(spec, places)
        else:
            model = source_model(spec, places)
            source_curve = model.history
            begin = perf_counter()
            model = target_model(spec, model, places)
            describe, size, curve = partial(extract, model), p.image_size, model.history
        adapted = perf_counter()
        scores = evaluate_descriptor(describe, Path(places.data) / p.folders[spec.target], size, device)
        evaluated = perf_counter()
    # a resumed run's seconds are those of its epochs, wherever they were spent
    seconds = {"pretrain": sum(line["seconds"] for line in source_curve),
               "adapt": sum(line["seconds"] for line in curve) if curve else adapted - begin,
               "evaluate": evaluated - adapted}
    record = {
        "row": spec.row, "tables": list(ROWS[spec.row].tables), "target": spec.target, "seed": spec.seed,
        "profile": spec.profile, "spec": spec.data(), "spec_hash": spec.hash, "metrics": scores.percent(),
        "queries": scores.queries, "queries_left_out": scores.left_out,
        "curve": curve, "source_curve": source_curve, "data": fingerprints(spec, places),
        "commit": records.commit(), "code": spec.code, "versions": records.versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": records.machine(), "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_memory_mb": round(records.peak_memory_mb(device), 1),
    }
    records.write_record(path, record)
    return record


def fingerprints(spec: Spec, places: Places) -> dict[str, str]:
    """Of the source, where there is one, and the target set, as their cards state them."""
    folders = profile(spec.profile).folders
    used = {"target": spec.target} if ROWS[spec.row].hand_crafted else {"source": "source", "target": spec.target}
    return {name: ReidDataset.load(Path(places.data) / folders[key]).fingerprint for name, key in used.items()}


def outdated_reason(record: dict, spec: Spec, places: Places) -> str:
    """What of the run has changed since the record was written, "" for nothing."""
    if record.get("code") != spec.code:
        return "other source code"
    try:
        same_data = record.get("data") == fingerprints(spec, places)
    except FileNotFoundError:  # the records can be read without the data
        return ""
    return "" if same_data else "other data"


def sources_of(specs: list[Spec]) -> list[Spec]:
    """One run for every source model that these runs need: the first."""
    return list({records.digest(spec.source()): spec for spec in reversed(specs) if spec.source()}.values())[::-1]


def _train_source(spec: Spec, places: Places) -> None:
    source_model(spec, places)


def _elsewhere(work, places: Places, arguments: tuple, expected: tuple[Spec, str, str]):
    """work(spec, places, *arguments) in a worker process; `expected` is the spec and what the asking process takes for
    the hashes of its options and sources.

    Raises:
        ValueError: the worker has other options or sources.
        FileNotFoundError: it lacks a file; both messages name the worker's machine.
    """
    spec = expected[0]
    if expected[1:] != (spec.hash, spec.code):
        raise ValueError(f"the worker on {socket.gethostname()} runs another version of paul than this process; "
                         "install the same one there, and start the worker again")
    try:
        return work(spec, places, *arguments)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the worker on {socket.gethostname()} lacks a file: {error}") from error


def needs_computing(spec: Spec, places: Places, fresh: bool = False) -> bool:
    """Whether `run_one` would train."""
    found = records.read_record(places.record(spec))
    return found is None or (fresh and bool(outdated_reason(found, spec, places)))


def run_all(specs: list[Spec], executor: Executor | None = None, places: Places = Places(),
            fresh: bool = False, retries: int = 3) -> list[dict]:
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
    with warnings.catch_warnings(record=True) as outdated:
        warnings.simplefilter("always")
        results = {spec: run_one(spec, places) for spec in dict.fromkeys(specs) if spec not in missing}
    if outdated:
        warnings.warn(f"{len(outdated)} of {len(results)} records are outdated; {outdated[0].message}", stacklevel=2)
    for work, todo, arguments, label in ((_train_source, sources_of(missing), (), "source models"),
                                         (run_one, missing, (fresh,), "runs")):
        with tqdm(total=len(todo), desc=label, unit="run", **({} if todo else {"disable": True})) as bar:
            if executor is None:
                ended = ((spec, work(spec, places, *arguments)) for spec in todo)
            else:
                expected = [(spec, spec.hash, spec.code) for spec in todo]
                there = partial(_elsewhere, work, places.absolute(), arguments)
                ended = ((item[0], result) for item, result in as_they_end(executor, there, expected, retries))
            for spec, result in ended:
                results[spec] = result
                bar.update()
    return [results[spec] for spec in specs]


def workers_for(todo: list[Spec], workers: int, device: str | None):
    """Executor of as many processes as there are runs at most; a GPU takes one run at a time."""
    return workers_executor(1 if pick_device(device).type == "cuda" else min(workers, len(todo)))


def run_table(table: str, profile: str = "mini", seeds: str = "0-2", targets: list[str] | None = None,
              data_dir: str = "data", results_dir: str = "results", models_dir: str = MODELS, workers: int = 2,
              rows: list[str] | None = None, device: str | None = None, fresh: bool = False,
              weights: str | None = None) -> list[dict]:
    """All records of one of the paper's tables: loaded where they are, computed where they are missing.

    Args:
        table: "table1" ... "table4".
        profile, seeds, targets, rows: what to run; seeds as "0-2" or "0,3".
        data_dir, results_dir, models_dir: folders.
        workers: processes on a CPU; a GPU takes one run at a time.
        device, fresh: see `run_one`.
        weights: a file of backbone weights in place of the profile's.

    Raises:
        ValueError: an unknown table, profile, target or row.
    """
    specs = specs_of(table, profile, seeds_of(seeds), targets, rows, weights)
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

"""Every row of Tables 3 and 4 as data, and the one function that turns a row into a run record."""

from __future__ import annotations

import re
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from threading import RLock
from time import perf_counter

import torch
from torch import Tensor
from tqdm.auto import tqdm

from paul import checkpoint, metrics, records
from paul.adapt import AdaptOptions, adapt
from paul.datasets import ReidDataset
from paul.engine import extract, on_device, pick_device, refresh_statistics
from paul.images import load_images
from paul.patchnet import PatchNet, PatchNetOptions
from paul.pretrain import pretrain
from paul.profiles import profile
from paul.runs import read_records

MODELS = "build/models"
_TURN = RLock()


@dataclass(frozen=True)
class Row:
    """One row of a table: what it changes, and what the paper calls it.

    Attributes:
        label: as printed.
        tables: where it stands.
        paper_row: the line of the paper's table it reproduces, "" for controls that the paper does not have.
        level: "patch" or "image".
        generator, num_patches: of the network (ignored at image level).
        loss_c, loss_v: losses of the target stage; neither means no training there.
        adabn: only the batch-norm statistics are set to the target's.
    """

    label: str
    tables: tuple[str, ...]
    paper_row: str = ""
    level: str = "patch"
    generator: str = "pgn"
    num_patches: int = 6
    loss_c: str | None = None
    loss_v: bool = False
    adabn: bool = False

    @property
    def adapts(self) -> bool:
        return self.loss_c is not None or self.loss_v

    def network(self, base: PatchNetOptions) -> PatchNetOptions:
        """The base network with this row's patches."""
        if self.level == "image":
            return base.image_level()
        return replace(base, generator=self.generator, num_patches=self.num_patches)


T3, T4 = ("table3",), ("table4",)
BOTH = {"loss_c": "pedal", "loss_v": True}
ROWS = {
    "image_direct": Row("image level, direct", T3, "ResNet-50", level="image"),
    "image_adabn": Row("image level, AdaBN", T3, level="image", adabn=True),
    "image_pull": Row("image level + L_c, pull-only", T3, level="image", loss_c="pull"),
    "image_lc": Row("image level + L_c", T3, "ResNet-50 + L_c", level="image", loss_c="pedal"),
    "patch_direct": Row("PatchNet, direct", T3 + T4, "PatchNet (baseline)"),
    "patch_adabn": Row("PatchNet, AdaBN", T3, adabn=True),
    "patch_pull": Row("PatchNet + L_c, pull-only", T3, loss_c="pull"),
    "patch_lc": Row("PatchNet + L_c", T3, "PatchNet + L_c", loss_c="pedal"),
    "patch_lv": Row("PatchNet + L_v", T3, "PatchNet + L_v", loss_v=True),
    "paul": Row("PatchNet + L_v + L_c (PAUL)", T3 + T4, "PatchNet + L_v + L_c (PAUL)", **BOTH),
    "random": Row("random patches", T4, "random", generator="random", **BOTH),
    "random_direct": Row("random patches, direct", T4, generator="random"),
    "equal": Row("equal stripes", T4, "equal", generator="equal", **BOTH),
    "equal_direct": Row("equal stripes, direct", T4, generator="equal"),
    "pgn4": Row("PGN, 4 patches", T4, "PGN", num_patches=4, **BOTH),
    "pgn4_direct": Row("PGN, 4 patches, direct", T4, num_patches=4),
    "pgn8": Row("PGN, 8 patches", T4, "PGN", num_patches=8, **BOTH),
    "pgn8_direct": Row("PGN, 8 patches, direct", T4, num_patches=8),
}
# Tables 1 and 2 set PAUL on one target beside the other methods
TABLES = {"table1": (("paul",), ("market",)), "table2": (("paul",), ("duke",)),
          "table3": (tuple(name for name, row in ROWS.items() if "table3" in row.tables), None),
          "table4": (tuple(name for name, row in ROWS.items() if "table4" in row.tables), None)}


@dataclass(frozen=True)
class Spec:
    """One run: a row on a target, from a source seed, at a profile."""

    row: str
    target: str
    seed: int
    profile: str

    def source(self) -> dict:
        """What decides the source model, as plain data; rows and targets with equal ones share it."""
        p = profile(self.profile)
        network = asdict(ROWS[self.row].network(p.network))
        network.pop("freeze_pgn")  # acts on the target only
        return {"data": p.folders["source"], "image_size": list(p.image_size), "network": network,
                "pretrain": asdict(p.pretrain), "weights": p.weights, "seed": self.seed}

    def adapt_options(self) -> AdaptOptions | None:
        """Options of the target stage, None for a row that does not train there."""
        row = ROWS[self.row]
        if not row.adapts:
            return None
        return replace(profile(self.profile).adapt_options(self.target), loss_c=row.loss_c, loss_v=row.loss_v)

    def data(self) -> dict:
        """All options of the run, as plain data."""
        p, options = profile(self.profile), self.adapt_options()
        return {"source": self.source(), "target": p.folders[self.target], "adabn": ROWS[self.row].adabn,
                "freeze_pgn": p.network.freeze_pgn,
                "adapt": {**asdict(options), "crop_area": list(options.crop_area)} if options else None}

    @property
    def hash(self) -> str:
        return records.digest(self.data())

    @property
    def name(self) -> str:
        return f"{self.row}--{self.target}--s{self.seed}--{self.hash[:8]}"


@dataclass(frozen=True)
class Places:
    """Folders: data sets, results (records), models (checkpoints, outside version control); and the device."""

    data: str = "data"
    results: str = "results"
    models: str = MODELS
    device: str | None = None

    def record(self, spec: Spec) -> Path:
        return Path(self.results) / "runs" / spec.profile / f"{spec.name}.json"


def seeds_of(text: str) -> list[int]:
    """"0-2" or "0,3,5" -> seeds.

    Raises:
        ValueError: anything else.
    """
    parts = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in str(text).split(",")]
    if not all(parts):
        raise ValueError(f"seeds must look like 0-2 or 0,3,5, got {text!r}")
    seeds = [seed for part in parts for seed in range(int(part[1]), int(part[2] or part[1]) + 1)]
    if not seeds:
        raise ValueError(f"seeds {text!r} name no seed")
    return seeds


@contextmanager
def one_thread(device: torch.device):
    """On a CPU a run keeps to one thread: its bits then do not depend on how many runs share the machine.

    Runs in several threads of one process take turns, since torch's random state belongs to the process.
    """
    with _TURN:
        threads = torch.get_num_threads()
        if device.type == "cpu":
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@lru_cache(maxsize=8)
def _images(folder: str, split: str, size: tuple[int, int]) -> Tensor:
    return load_images(ReidDataset.load(folder).split(split), size)


def source_model(spec: Spec, places: Places = Places()) -> PatchNet:
    """The source model of a run, trained or loaded; `history` holds its curve."""
    p = profile(spec.profile)
    folder = Path(places.data) / p.folders["source"]
    dataset = ReidDataset.load(folder)
    key = records.digest({**spec.source(), "code": records.code_hash(), "fingerprint": dataset.fingerprint})
    images = _images(str(folder), "train", p.image_size)
    with one_thread(pick_device(places.device)):
        return pretrain(images, dataset.split("train").person_ids, ROWS[spec.row].network(p.network), p.pretrain,
                        folder=Path(places.models) / spec.profile / f"source--s{spec.seed}--{key[:8]}",
                        seed=spec.seed, weights=p.weights, device=places.device)


def evaluate_model(model: PatchNet, folder: str | Path, image_size: tuple[int, int], query: str = "query",
                   gallery: str = "gallery") -> metrics.Metrics:
    """Retrieval scores of a network on one data set's query and gallery split."""
    dataset = ReidDataset.load(folder)
    device = next(model.parameters()).device
    sides = []
    for name in (query, gallery):
        split = dataset.split(name)
        features = extract(model, on_device(_images(str(folder), name, tuple(image_size)), device))
        sides += [features, split.person_ids, split.camera_ids]
    return metrics.evaluate(*sides)


def target_model(spec: Spec, model: PatchNet, places: Places = Places()) -> PatchNet:
    """The run's model after the target stage; `history` holds its curve, [] without training.

    The model given is used up: AdaBN changes it in place.
    """
    p, row, options = profile(spec.profile), ROWS[spec.row], spec.adapt_options()
    folder = Path(places.data) / p.folders[spec.target]
    model.history = []
    if row.adabn or options:
        images = _images(str(folder), "train", p.image_size)
    if row.adabn:
        refresh_statistics(model, on_device(images, next(model.parameters()).device))
    if options:
        key = records.digest({**spec.data(), "code": records.code_hash(), "data": fingerprints(spec, places)})
        with one_thread(pick_device(places.device)):
            return adapt(model, images, options, seed=spec.seed, device=places.device,
                         folder=Path(places.models) / spec.profile / f"{spec.name}--{key[:8]}")
    return model


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
    p = profile(spec.profile)
    with one_thread(device):
        model = source_model(spec, places)
        source_curve = model.history
        begin = perf_counter()
        model = target_model(spec, model, places)
        adapted = perf_counter()
        scores = evaluate_model(model, Path(places.data) / p.folders[spec.target], p.image_size)
        evaluated = perf_counter()
    curve = model.history
    # a resumed run's seconds are those of its epochs, wherever they were spent
    seconds = {"pretrain": sum(line["seconds"] for line in source_curve),
               "adapt": sum(line["seconds"] for line in curve) if curve else adapted - begin,
               "evaluate": evaluated - adapted}
    record = {
        "row": spec.row, "tables": list(ROWS[spec.row].tables), "target": spec.target, "seed": spec.seed,
        "profile": spec.profile, "spec": spec.data(), "spec_hash": spec.hash, "metrics": scores.percent(),
        "queries": scores.queries, "queries_left_out": scores.left_out,
        "curve": curve, "source_curve": source_curve, "data": fingerprints(spec, places),
        "commit": records.commit(), "code": records.code_hash(), "versions": records.versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": records.machine(), "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_memory_mb": round(records.peak_memory_mb(device), 1),
    }
    records.write_record(path, record)
    return record


def fingerprints(spec: Spec, places: Places) -> dict[str, str]:
    """Of the source and the target set, as their cards state them."""
    folders = profile(spec.profile).folders
    return {name: ReidDataset.load(Path(places.data) / folders[key]).fingerprint
            for name, key in (("source", "source"), ("target", spec.target))}


def outdated_reason(record: dict, spec: Spec, places: Places) -> str:
    """What of the run has changed since the record was written, "" for nothing."""
    if record.get("code") != records.code_hash():
        return "other source code"
    try:
        same_data = record.get("data") == fingerprints(spec, places)
    except FileNotFoundError:  # the records can be read without the data
        return ""
    return "" if same_data else "other data"


def specs_of(table: str, profile_name: str, seeds: list[int], targets: list[str] | None = None,
             rows: list[str] | None = None) -> list[Spec]:
    """The runs of one table.

    Raises:
        ValueError: an unknown table, target or row.
    """
    if table not in TABLES:
        raise ValueError(f"unknown table {table!r}; there are {', '.join(TABLES)}")
    table_rows, table_targets = TABLES[table]
    possible = [t for t in profile(profile_name).targets if table_targets is None or t in table_targets]
    for chosen, known, kind in ((targets, profile(profile_name).targets, "target"), (rows, table_rows, "row")):
        unknown = set(chosen or ()) - set(known)
        if unknown:
            raise ValueError(f"unknown {kind} {sorted(unknown)[0]!r}; there are {', '.join(known)}")
    return [Spec(row, target, seed, profile_name) for seed in seeds for row in table_rows for target in possible
            if (rows is None or row in rows) and (targets is None or target in targets)]


def _source_key(spec: Spec) -> str:
    return records.digest(spec.source())


def _train_source(spec: Spec, places: Places) -> None:
    source_model(spec, places)


def _waves(specs: list[Spec], places: Places, fresh: bool):
    """First the source models that these runs need, once each; then the runs."""
    shared = {_source_key(spec): spec for spec in reversed(specs)}
    yield _train_source, [spec for spec in reversed(shared.values())], (places,), "source models"
    yield run_one, specs, (places, fresh), "runs"


def needs_computing(spec: Spec, places: Places, fresh: bool = False) -> bool:
    """Whether `run_one` would train."""
    found = records.read_record(places.record(spec))
    return found is None or (fresh and bool(outdated_reason(found, spec, places)))


def run_all(specs: list[Spec], executor: Executor | None = None, places: Places = Places(),
            fresh: bool = False) -> list[dict]:
    """Run what is missing and return all records, in the order of the specs; shows progress.

    Args:
        specs: duplicates are computed once.
        executor: any `concurrent.futures.Executor`; in this process, one after the other, by default.
        places: folders and device.
        fresh: see `run_one`.
    """
    missing = [spec for spec in dict.fromkeys(specs) if needs_computing(spec, places, fresh)]
    with warnings.catch_warnings(record=True) as outdated:
        warnings.simplefilter("always")
        results = {spec: run_one(spec, places) for spec in dict.fromkeys(specs) if spec not in missing}
    if outdated:
        warnings.warn(f"{len(outdated)} of {len(results)} records are outdated; {outdated[0].message}", stacklevel=2)
    for work, todo, arguments, label in _waves(missing, places, fresh):
        with tqdm(total=len(todo), desc=label, unit="run", **({} if todo else {"disable": True})) as bar:
            if executor is None:
                for spec in todo:
                    results[spec] = work(spec, *arguments)
                    bar.update()
                continue
            futures = {executor.submit(work, spec, *arguments): spec for spec in todo}
            try:
                for future in as_completed(futures):
                    results[futures[future]] = future.result()
                    bar.update()
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
    return [results[spec] for spec in specs]


@contextmanager
def workers_executor(workers: int):
    """Processes, or None for one worker: then everything happens in this process."""
    if workers <= 1:
        yield None
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def run_table(table: str, profile: str = "mini", seeds: str = "0-2", targets: list[str] | None = None,
              data_dir: str = "data", results_dir: str = "results", models_dir: str = MODELS, workers: int = 2,
              rows: list[str] | None = None, device: str | None = None, fresh: bool = False) -> list[dict]:
    """All records of one of the paper's tables: loaded where they are, computed where they are missing.

    Args:
        table: "table1" ... "table4".
        profile, seeds, targets, rows: what to run; seeds as "0-2" or "0,3".
        data_dir, results_dir, models_dir: folders.
        workers: processes on a CPU; a GPU takes one run at a time.
        device, fresh: see `run_one`.

    Raises:
        ValueError: an unknown table, profile, target or row.
    """
    specs = specs_of(table, profile, seeds_of(seeds), targets, rows)
    places = Places(data_dir, results_dir, models_dir, device)
    todo = sum(needs_computing(spec, places, fresh) for spec in specs)
    if pick_device(device).type == "cuda":
        workers = 1
    with workers_executor(min(workers, todo)) as executor:
        return run_all(specs, executor, places, fresh)


def load_runs(results_dir: str | Path = "results", profile: str = "mini") -> list[dict]:
    """Every record of a profile, without computing anything."""
    return read_records(results_dir, profile)


def load_model(path: str | Path, device: str | None = None) -> PatchNet:
    """The network of a checkpoint, in evaluation mode on the device."""
    return checkpoint.load(path)[0].to(pick_device(device)).eval()

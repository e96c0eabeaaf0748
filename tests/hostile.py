"""Files of any content for what reads files: where to begin, and which answers a reader may give."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tempfile
import warnings
import zipfile
from functools import cache, partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn

from book import build, claims, game
from book.course.grade import submitted
from book.manifest import read_manifest
from book.toc import BookError, load_book
from data_prep import cuhk03, msmt17
from data_prep import folder as own_folder
from data_prep.archives import unpack
from data_prep.market_layout import DataError
from data_prep.store import check_kept
from data_prep.verify import verify
from paul import checkpoint, weights
from paul.bench import read_rows
from paul.data.datasets import ReidDataset
from paul.data.images import read_image
from paul.engine.run import Run
from paul.experiments import records, tuning
from paul.options import PatchNetOptions
from paul.patchnet import PatchNet
from paul.report import frames as runs
from paul.report import ledger, published, registration, seal
from paul.report.claims import ClaimsError, load_claims
from paul.report.tables import is_stale
from paul.retrieval import embeddings, export, features
from paul.retrieval.extractor import Extractor
from tests import raw_sets

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "book/claims.toml"
WHOLE_BOOK = load_book()
CHAPTER = WHOLE_BOOK.chapters[0]
INDEX = b"""file,split,person_id,camera_id,sequence,frame
bounding_box_train/0002_c1s1_000151_01.jpg,train,2,1,1,151
query/0003_c2s1_000151_01.jpg,query,3,2,1,151
"bounding_box_test/-1_c2, s1.jpg",gallery,-1,2,1,151
"""
CARD = b'{"name": "market1501", "fingerprint": "8f3a", "counts": {"train": {"images": 1, "people": 1}}}'
RECORD = b"""{"row": "paul", "target": "market", "seed": 0, "profile": "mini", "spec_hash": "ab", "code": "cd",
"queries": 10, "metrics": {"rank1": 50.0, "rank5": 60.0, "rank10": 70.0, "rank20": 80.0, "map_trapezoid": 30.0,
"map_step": 31.0, "minp": 9.0}, "seconds": {"pretrain": 9.0, "adapt": 2.0, "evaluate": 1.0}}"""
BOOK = b"""[book]
title = "PAUL"
cell_seconds = 60
[[chapter]]
slug = "00_setup"
title = "Set-up"
needs = ["data"]
[[chapter]]
slug = "01_data"
title = "Data"
after = ["00_setup"]
parameters = {seeds = "0"}
"""
NETWORK = PatchNetOptions(backbone="small", num_patches=2, dim=8, pgn_channels=8, pgn_hidden=8)


def expect(path: Path, errors, read):
    """Call a reader of `path`, which may refuse it with one of the documented errors, in a message that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except errors as error:
        assert str(path) in str(error), f"the message does not name {path}: {error}"
        return None


def read_index(content: bytes, folder: Path) -> None:
    (folder / "card.json").unlink(missing_ok=True)
    (folder / "index.csv").write_bytes(content)
    dataset = expect(folder / "index.csv", ValueError, lambda: ReidDataset.load(folder))
    if dataset is not None:
        for name in dataset.splits:
            split = dataset.split(name)
            assert len(split.files) == len(split.person_ids) == len(split.camera_ids) == len(split) > 0


def read_card(content: bytes, folder: Path) -> None:
    (folder / "index.csv").write_bytes(INDEX)
    (folder / "card.json").write_bytes(content)
    dataset = expect(folder / "card.json", ValueError, lambda: ReidDataset.load(folder))
    if dataset is not None:
        assert isinstance(dataset.name, str) and isinstance(dataset.fingerprint, str)


def read_prepared(content: bytes, folder: Path) -> None:
    """The index and, after a line of dashes, the card, as `data_prep verify` reads them."""
    index, _, card = content.partition(b"\n----\n")
    (folder / "index.csv").write_bytes(index)
    (folder / "card.json").write_bytes(card)
    expect(folder, DataError, lambda: verify(folder, progress=False))
    assert check_kept(folder, {"name": "market1501"}, overwrite=True) is False
    expect(folder, DataError, lambda: check_kept(folder, {"name": "market1501"}, overwrite=False))


def read_run(content: bytes, folder: Path) -> None:
    path = folder / "runs/mini/paul--market--s0--ab.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    record = records.read_record(path)
    assert record is None or isinstance(record["metrics"], dict)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = records.read_records(folder, "mini")
        frame = runs.runs_frame(found, is_stale)
        runs.summarise(frame)
    assert len(found) <= 1 and len(frame) <= len(found)


def read_claims(content: bytes, folder: Path) -> None:
    (folder / "claims.toml").write_bytes(content)
    claims = expect(folder / "claims.toml", ClaimsError, lambda: load_claims(folder / "claims.toml"))
    assert claims is None or all(claim.tests for claim in claims)


def read_book(content: bytes, folder: Path) -> None:
    (folder / "book.toml").write_bytes(content)
    expect(folder / "book.toml", BookError, lambda: load_book(folder / "book.toml"))


@cache
def archive() -> bytes:
    """A valid checkpoint."""
    torch.manual_seed(0)
    network = PatchNet(NETWORK, num_classes=3)
    network.image_size = (40, 24)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "model.pt", network, epoch=3, memory={"bank": torch.zeros(2, 3, 8)})
        return (Path(folder) / "model.pt").read_bytes()


def with_pickle(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The valid checkpoint with other contents of its pickle, and checksums that fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive())) as source, zipfile.ZipFile(out, "w", compression) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, content if entry.filename.endswith("/data.pkl") else source.read(entry))
    return out.getvalue()


def read_checkpoint(content: bytes, folder: Path) -> None:
    path = folder / "model.pt"
    path.write_bytes(content)
    loaded = expect(path, ValueError, lambda: checkpoint.load(path))
    if loaded is not None:
        loaded[0].to_target()
        assert loaded[0].image_size is None or len(loaded[0].image_size) == 2
    expect(path, ValueError, lambda: checkpoint.read(path))


def read_pickle(content: bytes, folder: Path) -> None:
    read_checkpoint(with_pickle(content), folder)


def hostile_pickles() -> list[bytes]:
    """Pickles that would start a process or delete a file if something unpickled them the usual way."""

    class Run:
        def __init__(self, function, *arguments):
            self.call = function, arguments

        def __reduce__(self):
            return self.call

    calls = [
        Run(os.system, "true"),
        Run(eval, "__import__('os').system('true')"),
        Run(os.rmdir, "/nowhere/at/all"),
        Run(__import__, "antigravity"),
    ]
    return [pickle.dumps(call, protocol) for call in calls for protocol in (0, 2, 4)]


def bombs() -> list[bytes]:
    """Small checkpoints that claim to need more memory than any machine has."""

    def saved(**changes):
        out = io.BytesIO()
        torch.save({**torch.load(io.BytesIO(archive()), weights_only=True), **changes}, out)
        return out.getvalue()

    state = torch.load(io.BytesIO(archive()), weights_only=True)
    wide, view = {**state["options"], "dim": 10**9}, torch.zeros(1).expand(2, 10**9, 96)
    return [
        saved(options=wide),
        saved(options=wide, model={**state["model"], "branch.weight": view}),
        saved(options={**state["options"], "num_patches": 10**12}),
        saved(num_classes=10**10),
        saved(options={**state["options"], "backbone": "vit_h_14"}),
        saved(image_size=(10**12, 10**12)),
        with_pickle(bytes(50_000_000), zipfile.ZIP_DEFLATED),
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + (2**38).to_bytes(5, "little") + b"\x85R.",
    ]


def pickles() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(archive())) as file:
        ours = next(file.read(name) for name in file.namelist() if name.endswith("/data.pkl"))
    return [ours, *hostile_pickles()]


# --- images, weights, trainings, exports, descriptors ---


def read_picture(content: bytes, folder: Path) -> None:
    path = folder / "picture.jpg"
    path.write_bytes(content)
    found = expect(path, ValueError, lambda: read_image(path, (12, 6)))
    assert found is None or (found.shape == (12, 6, 3) and found.dtype == np.uint8)


def pictures() -> list[bytes]:
    """A small image in each format, of the modes in which pixels are kept in different ways."""
    grey = np.arange(8 * 6, dtype=np.uint8).reshape(8, 6) * 5
    plain = Image.fromarray(np.stack([grey, grey.T.reshape(8, 6), 255 - grey], -1))
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    kept = [(plain, name, {}) for name in ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")]
    kept += [(Image.fromarray(grey.astype(np.uint16) << 8), name, {}) for name in ("PNG", "TIFF")]
    kept += [(Image.fromarray(grey.astype(np.float32) / 255), "TIFF", {}), (plain.convert("1"), "PPM", {})]
    kept += [(plain.convert(mode), "PNG", {}) for mode in ("LA", "RGBA", "1")]
    kept += [(plain.convert("P"), "PNG", {"transparency": 3}), (plain, "JPEG", {"exif": upside_down})]
    kept += [(plain.convert("CMYK"), "JPEG", {}), (plain, "TIFF", {"compression": "tiff_lzw"})]

    def saved(image, name, options):
        image.save(out := io.BytesIO(), name, **options)
        return out.getvalue()

    return [saved(*one) for one in kept]


def torch_file(content) -> bytes:
    torch.save(content, out := io.BytesIO())
    return out.getvalue()


def backbone() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def read_weights(content: bytes, folder: Path) -> None:
    path = folder / "weights.pt"
    path.write_bytes(content)
    weights._sha256.cache_clear()
    expect(path, ValueError, lambda: weights.load_file(backbone(), path))


def weight_files() -> list[bytes]:
    state = backbone().state_dict()
    wide = {**state, "0.weight": torch.zeros(1).expand(4, 3, 3, 3), "extra": torch.zeros(1).expand(2**40)}
    return [torch_file(state), torch_file(wide), torch_file(list(state)), *hostile_pickles()]


def read_released(content: bytes, folder: Path) -> None:
    path = folder / "released.pth"
    path.write_bytes(content)
    expect(path, ValueError, lambda: checkpoint.import_released(path))


def released_files() -> list[bytes]:
    """The head of an authors' file, whose backbone alone would be 90 MB."""
    shapes = {"new.down.0.0.weight": (8, 2048, 1, 1), "new.down.0.0.bias": (8,), "new.embedding.0.weight": (8, 8)}
    shapes |= {"new.embedding.0.bias": (8,), "patch_proposal.localization.0.weight": (4, 2048, 1, 1)}
    shapes |= {f"new.down.0.1.{name}": (8,) for name in ("weight", "bias", "running_mean", "running_var")}
    head = {f"module.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    whole = {**head, "module.patch_proposal.fc_loc.0.weight": torch.zeros(4, 4)}
    empty = {**whole, "module.patch_proposal.fc_loc.0.weight": torch.zeros(10**9, 0)}  # no bytes, many rows
    return [torch_file({"state_dict": state, "epoch": 60}) for state in (head, whole, empty)] + hostile_pickles()


def training_in(folder: Path) -> Run:
    torch.manual_seed(0)
    parts = {"model": nn.Linear(2, 1)}
    return Run(folder / "training", parts, {"stage": "source"}, torch.Generator().manual_seed(0), 2)


def half_an_epoch(run: Run):
    """Enter a training and its epoch, and stop there."""
    with run:
        for _, steps in run.epochs(lambda: [torch.arange(2), torch.arange(2, 4)], "fuzzed"):
            return steps


def read_training(content: bytes, folder: Path) -> None:
    shutil.rmtree(folder / "training", ignore_errors=True)
    (folder / "training").mkdir()
    (folder / "training/checkpoint.pt").write_bytes(content)
    steps = expect(folder / "training", ValueError, lambda: half_an_epoch(training_in(folder)))
    assert steps is None or len(steps) >= 0


@cache
def trainings() -> list[bytes]:
    """Checkpoints of a training between two epochs, and in the middle of one."""
    with tempfile.TemporaryDirectory() as folder:
        run = training_in(Path(folder))
        with run:
            for _, steps in run.epochs(lambda: [torch.arange(2), torch.arange(2, 4)], "fuzzed"):
                next(iter(steps))
                run.save()
                break
        inside = (Path(folder) / "training/checkpoint.pt").read_bytes()
    state = torch.load(io.BytesIO(inside), weights_only=True)
    between = torch_file({**state, "training": {**state["training"], "epoch": {}}})
    return [inside, between, torch_file({**state, "training": 5})]


def read_exported(content: bytes, folder: Path) -> None:
    path = folder / "mine.safetensors"
    path.write_bytes(content)
    found = expect(path, ValueError, lambda: export.load_safetensors(path))
    if found is not None:
        size = found[0].image_size
        assert size is None or (len(size) == 2 and min(size) > 0)


@cache
def exported() -> list[bytes]:
    network, _ = of_archive()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.safetensors"
        export.save_safetensors(network, path, {"spec": '{"stage": "source"}'})
        ours = path.read_bytes()
    claim = b'{"a":{"dtype":"F32","shape":[1000000000,1000],"data_offsets":[0,4]}}'
    return [ours, len(claim).to_bytes(8, "little") + claim + bytes(4), ours.replace(b'\\"dim\\": 8', b'\\"dim\\": 9')]


def of_archive():
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.pt").write_bytes(archive())
        return checkpoint.load(Path(folder) / "model.pt")


@cache
def described(suffix: str) -> list[bytes]:
    """A features file by `embed`, of three images."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.png" for number in range(3)]
        for file in files:
            file.write_bytes(pictures()[1])
        path = Path(folder) / f"features{suffix}"
        embeddings.embed(Extractor(of_archive()[0]), embeddings.listed(files), path)
        return [path.read_bytes()]


def npz_bomb() -> bytes:
    """Three kilobytes that unpack to zeros without end, and an array whose header claims more than it holds."""
    claim = io.BytesIO()
    np.lib.format.write_array_header_1_0(claim, {"descr": "<f4", "fortran_order": False, "shape": (2**30, 2**8)})
    with zipfile.ZipFile(out := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("features.npy", claim.getvalue() + bytes(3_000_000))
    return out.getvalue()


def read_features(content: bytes, folder: Path, suffix: str) -> None:
    path = folder / f"features{suffix}"
    path.write_bytes(content)
    found = expect(path, ValueError, lambda: features.read_embeddings(path))
    if found is not None:
        assert found.vectors.ndim == 2 and len(found.vectors) == len(found.frame)


# --- what data_prep is given ---


def read_archive(content: bytes, folder: Path) -> None:
    path, out = folder / "set.zip", folder / "out"
    path.write_bytes(content)
    shutil.rmtree(out, ignore_errors=True)
    before = {file.name for file in folder.iterdir()}
    expect(path, DataError, lambda: unpack(path, out, progress=False))
    assert {file.name for file in folder.iterdir()} <= before | {"out"}
    assert not any(file.is_symlink() for file in out.rglob("*"))


@cache
def archives() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        raw = raw_sets.write(Path(folder) / "raw", ["train/0001.jpg", "query/a b.jpg"])
        return [raw_sets.packed(raw, Path(folder) / f"set{kind}").read_bytes() for kind in (".zip", ".tar", ".tar.gz")]


def read_cuhk03(content: bytes, folder: Path) -> None:
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    (raw / cuhk03.IMAGES).write_bytes(content)
    (folder / cuhk03.SPLIT_FILES["detected"]).write_bytes(cuhk_splits()[0])
    shutil.rmtree(folder / "work", ignore_errors=True)
    place = raw / cuhk03.IMAGES
    with mock.patch.object(cuhk03, "read_split", return_value=detected_split()):  # the same each time
        expect(place, DataError, lambda: cuhk03.read(raw, folder / "work", folder, "detected", progress=False))


@cache
def detected_split() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "split.mat"
        path.write_bytes(cuhk_splits()[0])
        return cuhk03.read_split(path)


@cache
def cuhk_images() -> list[bytes]:
    raw_sets.cuhk_file(out := io.BytesIO())
    return [out.getvalue()]


def read_split(content: bytes, folder: Path) -> None:
    path = folder / "split.mat"
    path.write_bytes(content)
    expect(path, DataError, lambda: cuhk03.read_split(path))


@cache
def cuhk_splits() -> list[bytes]:
    """The split file of the detected boxes, then that of the labelled ones."""
    with tempfile.TemporaryDirectory() as folder:
        raw_sets.cuhk_split_files(Path(folder))
        return [(Path(folder) / name).read_bytes() for name in cuhk03.SPLIT_FILES.values()]


def read_table(content: bytes, folder: Path) -> None:
    path, raw = folder / "who.csv", folder / "crops"
    path.write_bytes(content)
    raw.mkdir(exist_ok=True)
    (raw / "a.jpg").touch()
    found = expect(path, DataError, lambda: own_folder.read(raw, path))
    assert found is None or all(type(row["person_id"]) is int for row in found.rows)


TABLE = b"""file,split,person_id,camera_id,sequence,frame
a.jpg,train,,,,
b/c.jpg,query,1,left,1,2
"d, e.jpg",gallery,-1,right,,
"""


def read_lists(content: bytes, folder: Path) -> None:
    raw = folder / "msmt17"
    if not raw.is_dir():
        raw_sets.msmt(raw)
    (raw / "list_train.txt").write_bytes(content)
    expect(raw / "list_train.txt", DataError, lambda: msmt17.read(raw))


# --- what the book and the report read again ---


def read_the_manifest(content: bytes, folder: Path) -> None:
    """A manifest is what it should be, or none: pages then say that nothing ran."""
    (folder / "manifest.json").write_bytes(content)
    for entry in read_manifest(folder / "manifest.json")["chapters"].values():
        assert isinstance(build._run_line(CHAPTER, entry), str)
        assert isinstance(game.game({"00_setup": entry}), str)


MANIFEST = b"""{"status": "complete", "chapters": {"00_setup": {"status": "ran", "seconds": 3.5, "profile": "mini",
"commit": "0123456789", "changed_since_commit": false, "machine": "2 cores", "at": "2026-01-01T00:00:00+00:00"},
"01_data": {"status": "failed", "error": "x", "seconds": 1, "profile": "mini", "machine": "m", "at": "2026-01-01"},
"02_more": {"status": "skipped", "why": "y", "profile": "mini", "machine": "m", "at": "2026-01-01"}}}"""


def read_verdicts(content: bytes, folder: Path) -> None:
    path = folder / "claims.json"
    path.write_bytes(content)
    ran = {"00_setup": {"status": "ran", "profile": "mini"}}
    read = expect(path, BookError, lambda: claims.read_claims(ran, path))
    if read is not None:
        profile, judged = read
        assert isinstance(claims.verdicts_part(judged, profile) + claims.claims_page(judged, profile, WHOLE_BOOK), str)


def read_fuzzed(content: bytes, folder: Path) -> None:
    path = folder / "fuzz.json"
    path.write_bytes(content)
    said = expect(path, BookError, lambda: build._fuzzed(path))
    assert said is None or said.startswith("| Reader")


def read_search(content: bytes, folder: Path) -> None:
    path = folder / "mini.json"
    path.write_bytes(content)
    for key, run in tuning._scored(path).items():
        assert isinstance(key, str) and 0 <= run["map_step"] <= 100


SEARCHED = b"""{"arms": {"source/patch": {"trials": [{"values": {"pretrain.peak_rate": 0.04}, "score": 38.5, "runs": [{
"row": "patch_direct", "target": "duke", "map_step": 38.5, "key": "ab", "commit": "cd"}]}]}}}"""
OUTCOME = b'{"book": {"minutes": 1.5, "contents": 900, "found": 0, "by": "atheris 3.0.0", "date": "2026-01-01"}}'
VERDICTS = b"""{"mini": [{"id": "C1", "text": "More.", "where": "Table 1", "verdict": "supported",
"sentence": "It holds.", "evidence": [{"a": "paul", "b": "equal", "target": "duke", "metric": "rank1", "n": 3,
"outcome": "holds", "mean": 1.5, "low": 0.5, "high": 2.5}]}]}"""


def read_seal(content: bytes, folder: Path) -> None:
    records_in = folder / "runs/mini"
    records_in.mkdir(parents=True, exist_ok=True)
    (records_in / "paul--market--s0--ab.json").write_bytes(RECORD)
    (folder / seal.INDEX).write_bytes(content)
    assert all(isinstance(line, str) for line in seal.differences(folder))


def read_ledger(content: bytes, folder: Path) -> None:
    path = folder / "ledger.toml"
    path.write_bytes(content)
    expect(path, ValueError, lambda: ledger.load_ledger(path))


def read_printed(content: bytes, folder: Path) -> None:
    path = folder / "table3_ablation.csv"
    path.write_bytes(content)
    published._read.cache_clear()
    expect(path, ValueError, lambda: published.published_value("table3", "paul", "market", "rank1", folder))


def read_measured(content: bytes, folder: Path) -> None:
    path = folder / "losses.json"
    path.write_bytes(content)
    rows = expect(path, ValueError, lambda: read_rows(path))
    assert rows is None or all(isinstance(row, dict) for row in rows.values())


def read_registration(content: bytes, folder: Path) -> None:
    path = folder / "preregistration.toml"
    path.write_bytes(content)
    expect(path, registration.RegistrationError, lambda: registration.load_registration(path))


def registered() -> list[bytes]:
    chosen = [claim for claim in load_claims(CLAIMS) if claim.id in ("C5", "C10")]
    planned = [
        registration.Planned(contrast, 1.0, 3, 0.9, 0.5, 0.8, 8)
        for claim in chosen
        for contrast in registration.contrasts_of(claim)
    ]
    made = registration.Registration(
        "mini", (1, 2), 0, 0, 4, tuple(planned), predicates={"C5": "ab"}, options={"a/b": "c"}
    )
    return [registration.registration_text(made).encode()]


def read_submission(content: bytes, folder: Path) -> None:
    path = folder / "submission.ipynb"
    path.write_bytes(content)
    expect(path, BookError, lambda: submitted(path))


SUBMISSION = b"""{"cells": [{"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [],
"source": ["def verdict(a):\\n", "    return 1"]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}"""

# name -> (what reads a content in a folder, what content to begin with)
TARGETS = {
    "index": (read_index, lambda: [INDEX]),
    "card": (read_card, lambda: [CARD]),
    "prepared": (read_prepared, lambda: [INDEX + b"\n----\n" + CARD, INDEX[:47] + b"\n----\n{}"]),
    "record": (read_run, lambda: [RECORD]),
    "claims": (read_claims, lambda: [CLAIMS.read_bytes()[-3000:], CLAIMS.read_bytes()[1000:2500]]),
    "book": (read_book, lambda: [BOOK]),
    "checkpoint": (read_checkpoint, lambda: [archive(), *hostile_pickles(), *bombs()]),
    "pickle": (read_pickle, pickles),
    "released": (read_released, released_files),
    "training": (read_training, trainings),
    "weights": (read_weights, weight_files),
    "image": (read_picture, pictures),
    "safetensors": (read_exported, exported),
    "npz": (partial(read_features, suffix=".npz"), lambda: [*described(".npz"), npz_bomb()]),
    "parquet": (partial(read_features, suffix=".parquet"), lambda: described(".parquet")),
    "archive": (read_archive, archives),
    "cuhk03": (read_cuhk03, cuhk_images),
    "split": (read_split, cuhk_splits),
    "table": (read_table, lambda: [TABLE]),
    "lists": (read_lists, lambda: [b"0000/0000_000_01_0303morning_0008_0_ex.jpg 0\n"]),
    "manifest": (read_the_manifest, lambda: [MANIFEST]),
    "registration": (read_registration, registered),
    "submission": (read_submission, lambda: [SUBMISSION]),
    "verdicts": (read_verdicts, lambda: [VERDICTS]),
    "fuzzed": (read_fuzzed, lambda: [OUTCOME]),
    "search": (read_search, lambda: [SEARCHED]),
    "seal": (read_seal, lambda: [f"{'0' * 64}  runs/mini/paul--market--s0--ab.json\n".encode()]),
    "ledger": (read_ledger, lambda: [(ROOT / "book/ledger.toml").read_bytes()[-2000:]]),
    "printed": (read_printed, lambda: [(ROOT / "book/paper/table3_ablation.csv").read_bytes()]),
    "measured": (read_measured, lambda: [b'{"suite": "losses", "rows": {"a": {"ours": 1.0, "device": "cpu"}}}']),
}

"""Files of any content for what reads files: where to begin, and which answers a reader may give."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import warnings
import zipfile
from functools import cache
from pathlib import Path

import torch

from book.toc import BookError, load_book
from data_prep.market_layout import DataError
from data_prep.store import check_kept
from data_prep.verify import verify
from paul import checkpoint
from paul.data.datasets import ReidDataset
from paul.experiments import records
from paul.options import PatchNetOptions
from paul.patchnet import PatchNet
from paul.report import frames as runs
from paul.report.claims import ClaimsError, load_claims
from paul.report.tables import is_stale

CLAIMS = Path(__file__).parents[1] / "book/claims.toml"
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
}

"""Real sets, proved on look-alikes: what is read, what is refused, what an interruption leaves, how paul scores it."""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import raw_sets
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people import at_most
from PIL import Image
from raw_sets import DUKE, MARKET, MSMT, SMALL, jpeg, packed

from data_prep import bounding_boxes, folder, market_layout, msmt17, real
from data_prep.__main__ import main
from data_prep.archives import Limits, safe_parts, unpack
from data_prep.cuhk03 import read_split
from data_prep.market_layout import FOLDERS, INDEX_COLUMNS, DataError, fingerprint, write_index
from data_prep.published import PUBLISHED, differences
from data_prep.store import locked
from data_prep.verify import verify
from paul import checkpoint, cli
from paul.data.datasets import SPLITS, ReidDataset
from paul.data.files import unfit_text
from paul.experiments.runner import evaluate_model
from paul.options import PatchNetOptions
from paul.patchnet import PatchNet

NETWORK = PatchNetOptions(backbone="small", dim=8, pgn_channels=8, pgn_hidden=8)


def prepare(plans, raw, out, **options):
    return real.prepare(plans, raw, out, published=SMALL, progress=False, **options)


def prepare_market(raw, out, **options):
    return prepare(real.plan_market1501(), raw, out, **options)


def index(path):
    """{file: the other columns, as texts}."""
    with open(path / "index.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == INDEX_COLUMNS
    return {row["file"]: tuple(row[column] for column in INDEX_COLUMNS[1:]) for row in rows}


def texts(rows):
    return {file: tuple(map(str, row)) for file, row in rows.items()}


def leftovers(out):
    return sorted(path.name for path in out.iterdir() if path.name.startswith(".") and path.name != ".lock")


# ---- every set from a look-alike, to paul's scores


@pytest.mark.parametrize("top", ["", "Market-1501-v15.09.15/", "数据集/Market (1)/Market-1501-v15.09.15/"])
@pytest.mark.parametrize("kind", ["folder", ".zip", ".tar", ".tar.gz"])
def test_market1501(tmp_path, kind, top):
    raw, out = tmp_path / "raw" / top, tmp_path / "data"
    raw_sets.market(raw)
    given = tmp_path / "raw"
    if kind != "folder":
        given = packed(raw, tmp_path / f"Market-1501{kind}", top)
        shutil.rmtree(tmp_path / "raw")
    assert prepare_market(given, out) == {"market1501": "written"}
    found = out / "market1501"
    assert index(found) == texts(MARKET)
    names = list(dict.fromkeys([*MARKET, *raw_sets.MARKET_TRAPS]))
    for file in MARKET:
        assert (found / file).read_bytes() == jpeg(names.index(file))
    assert leftovers(out) == [] and not list(found.rglob("Thumbs.db"))
    card = json.loads((found / "card.json").read_text(encoding="utf-8"))
    assert card["fingerprint"] == fingerprint(found) and card["accepted"] == []
    assert card["counts"]["gallery"] == {"images": 6, "people": 2, "junk": 2, "distractors": 1}
    assert {"name", "source", "citation", "licence", "columns"} <= set(card)
    assert prepare_market(given, out) == {"market1501": "kept"}
    verify(found, progress=False)


@pytest.mark.parametrize("link", [True, False])
def test_images_are_linked_or_copied(tmp_path, link):
    raw = raw_sets.market(tmp_path / "raw")
    prepare_market(raw, tmp_path / "data", link=link)
    file = next(iter(MARKET))
    assert (tmp_path / "data/market1501" / file).samefile(raw / file) is link
    assert raw_sets.market(tmp_path / "again") and (raw / file).is_file(), "the raw set stays"


def test_across_disks_links_are_symbolic(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    raw = raw_sets.market(tmp_path / "raw")
    prepare_market(raw, tmp_path / "data")
    files = [tmp_path / "data/market1501" / file for file in MARKET]
    assert all(
        file.is_symlink() and file.samefile(raw / file.relative_to(tmp_path / "data/market1501")) for file in files
    )
    shutil.rmtree(raw)
    with pytest.raises(DataError, match="missing: .*links whose raw set was moved"):
        verify(tmp_path / "data/market1501", progress=False)
    archive = packed(raw_sets.market(raw), tmp_path / "m.zip")
    prepare_market(archive, tmp_path / "other")
    assert not any(path.is_symlink() for path in (tmp_path / "other/market1501").rglob("*")), "the unpacked go away"


def test_dukemtmc_only_for_those_who_hold_it(tmp_path, capsys, monkeypatch):
    raw = raw_sets.duke(tmp_path / "DukeMTMC-reID")
    monkeypatch.setitem(PUBLISHED, "dukemtmc", SMALL["dukemtmc"])
    command = ["dukemtmc", "--raw", str(tmp_path), "--out", str(tmp_path / "data")]
    assert main(command) == 1
    assert "withdrawn" in capsys.readouterr().err and not (tmp_path / "data").exists()
    assert main([*command, "--i-have-the-right"]) == 0
    assert index(tmp_path / "data/dukemtmc") == texts(DUKE) and raw.is_dir()


@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("train", ["all", "train"])
def test_msmt17(tmp_path, version, train):
    raw_sets.msmt(tmp_path / f"MSMT17_{version}", version)
    prepare(real.plan_msmt17(train), tmp_path, tmp_path / "data")
    people = {
        ("train", 0): 1,
        ("train", 1): 2,
        ("val", 1): 2,
        ("query", 0): 3,
        ("query", 1): 4,
        ("gallery", 0): 3,
        ("gallery", 1): 4,
    }
    folders = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}[version]
    wanted = {}
    for name, lines in MSMT.items():
        for file, label in lines:
            split = "train" if name == "val" or train == "all" else name
            wanted[f"{folders[name in ('query', 'gallery')]}/{file}"] = (
                split,
                people[name, label],
                int(file.split("_")[2]),
                "",
                "",
            )
    assert index(tmp_path / "data/msmt17") == texts(wanted)
    dataset = ReidDataset.load(tmp_path / "data/msmt17")
    assert dataset.splits == (["train"] if train == "all" else ["train", "query", "gallery"])
    assert len(set(dataset.frame["person_id"])) == 4 and dataset.card["version"] == version


def check_cuhk03(tmp_path, raw):
    states = prepare(real.plan_cuhk03(progress=False), raw, tmp_path / "data")
    assert states == {"cuhk03_detected": "written", "cuhk03_labelled": "written"}
    for boxes, field in (("detected", "detected"), ("labelled", "labeled")):
        found = tmp_path / "data" / f"cuhk03_{boxes}"
        wanted = {
            f"images/{name}": (split, int(name[2:5]), int(name[6]), "", "")
            for split, names in raw_sets.CUHK_SPLITS[boxes].items()
            for name in names
        }
        assert index(found) == texts(wanted)
        for file in wanted:
            _, person, _, shot = Path(file).stem.split("_")
            with Image.open(found / file) as image:
                number = raw_sets.CUHK[field][0][int(person) - 1][int(shot)]
                assert np.array_equal(np.asarray(image), raw_sets.cuhk_pixels(number))
        verify(found, progress=False)
    assert leftovers(tmp_path / "data") == []


@pytest.fixture
def cuhk(tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    raw = tmp_path / "cuhk03" / "cuhk03_release"
    raw.mkdir(parents=True)
    raw_sets.cuhk_split_files(raw.parent)
    monkeypatch.setitem(
        raw_sets.CUHK, "detected", [raw_sets.CUHK["detected"][0], []]
    )  # images outside the split are tested apart
    raw_sets.cuhk_file(raw / "cuhk-03.mat")
    return raw.parent


def test_cuhk03(tmp_path, cuhk):
    check_cuhk03(tmp_path, cuhk)
    for boxes in ("detected", "labelled"):  # one query, one other image of that person
        check_evaluation(tmp_path, tmp_path / f"data/cuhk03_{boxes}", 1)


def test_cuhk03_beside_its_archive_and_what_it_lacks(tmp_path, cuhk):
    archive = packed(cuhk / "cuhk03_release", tmp_path / "cuhk03_release.zip", "cuhk03_release/")
    with pytest.raises(DataError, match="config_labeled.mat: not found .*--splits"):
        prepare(real.plan_cuhk03("labelled"), archive, tmp_path / "data")
    with pytest.raises(DataError, match="--splits .*nowhere: no file"):
        prepare(real.plan_cuhk03("labelled", tmp_path / "nowhere"), archive, tmp_path / "data")
    prepare(real.plan_cuhk03("labelled", cuhk, progress=False), archive, tmp_path / "data")
    assert len(index(tmp_path / "data/cuhk03_labelled")) == 5
    for name in cuhk.glob("*.mat"):
        shutil.move(name, tmp_path)
    assert prepare(real.plan_cuhk03("detected", progress=False), archive, tmp_path / "data"), "found beside the archive"
    (tmp_path / "cuhk03_new_protocol_config_labeled.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match="labeled.mat: not a split file"):
        prepare(real.plan_cuhk03("labelled"), archive, tmp_path / "data", overwrite=True)


def test_a_split_file_that_ends_its_reader_ends_nothing_else(tmp_path):
    """SciPy follows a cell of this file to where there is no memory."""
    words = [14, 336, 0, 0, 1, 0, 5, 8, 4, 1, 1, 8, 0, 0, 14, 64, 0, 0, 4, 0, 5, 8, 0, 0, 1, 0, 48, 14, 0, 0, 0, 0, 0]
    path = tmp_path / "split.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + bytes(9) + b"\x01IM" + struct.pack("<33i", *words))
    with pytest.raises(DataError, match="split.mat: not a split file"):
        read_split(path)


def test_cuhk03_without_its_package(tmp_path, cuhk, monkeypatch):
    (cuhk / "cuhk03_release/cuhk-03.mat").write_bytes(b"")
    with pytest.raises(DataError, match="cuhk-03.mat: not a MATLAB v7.3 file"):
        prepare(real.plan_cuhk03("detected"), cuhk, tmp_path / "data")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"cuhk-03.mat: .*h5py.*pip install"):
        prepare(real.plan_cuhk03("detected"), cuhk, tmp_path / "data")


def virtual(mat, name, other):
    import h5py

    with h5py.File(other, "w") as file:
        file["pixels"] = np.zeros((3, 4, 8), np.uint8)
    layout = h5py.VirtualLayout((3, 4, 8), np.uint8)
    layout[...] = h5py.VirtualSource(str(other), "pixels", (3, 4, 8))
    mat.create_virtual_dataset(name, layout)


def linked(kind):
    def harm(mat, other):
        import h5py

        with h5py.File(other, "w") as file:
            file["detected"] = np.zeros((1, 1))
        del mat["detected"]
        mat["detected"] = {"external": h5py.ExternalLink(str(other), "/detected"), "soft": h5py.SoftLink("/detected"),
                           "cycle": mat["/"]}[kind]  # fmt: skip

    return harm


def image(make):
    """Mischief with one image: `make(mat, name, a path outside)` writes what its cell then refers to."""

    def harm(mat, other):
        cells = mat["detected-0"]
        make(mat, "mischief", other)
        cells[0, 0] = mat["mischief"].ref

    return harm


def array(value, **options):
    return image(lambda mat, name, other: mat.create_dataset(name, data=value, **options))


def claimed(shape, dtype=np.uint8, **options):
    return image(lambda mat, name, other: mat.create_dataset(name, shape, dtype, **options))


def external(mat, name, other):
    other.write_bytes(b"secrets of another file, " * 4)
    mat.create_dataset(name, (3, 4, 8), np.uint8, external=[(str(other), 0, 96)])


def reference_to_nothing(mat, other):
    import h5py

    mat["detected-0"][0, 0] = h5py.Reference()


def replaced(field, value):
    def harm(mat, other):
        del mat[field]
        if value is not None:
            mat[field] = value

    return harm


FIRST = "image 1_001_1_01.png of 'detected'"
CHANNELS = {count: np.zeros((count, 4, 8), np.uint8) for count in (1, 4, 5)}
MISCHIEF = {
    "external storage": (image(external), f"{FIRST} lies in another file"),
    "virtual": (image(virtual), f"{FIRST} lies in another file"),
    "external link": (linked("external"), "'detected' is a link to elsewhere"),
    "soft link to itself": (linked("soft"), "'detected' is a link to elsewhere"),
    "hard link to its group": (linked("cycle"), "'detected' is no array"),
    "reference to its own cells": (
        lambda mat, other: mat["detected-0"].__setitem__((0, 0), mat["detected-0"].ref),
        f"{FIRST} holds object of shape",
    ),
    "reference to a group": (image(lambda mat, name, other: mat.create_group(name)), f"{FIRST} is no array"),
    "reference to nothing": (reference_to_nothing, f"{FIRST} refers to nothing"),
    "60 GB": (claimed((3, 10**5, 2 * 10**5)), f"{FIRST} claims 60,000,000,000 bytes"),
    "60 GB in chunks": (claimed((3, 10**5, 2 * 10**5), chunks=(3, 100, 100), compression="gzip"), "claims 60,000,000"),
    "huge chunk": (claimed((3, 4, 8), chunks=(3, 2**14, 2**14), maxshape=(None,) * 3), f"{FIRST} claims 96 bytes"),
    "nothing behind it": (claimed((3, 400, 800)), f"{FIRST} claims 960,000 bytes of shape .* in 0 stored"),
    "packed otherwise": (array(np.zeros((3, 4, 8), np.uint8), compression="lzf"), f"{FIRST} is packed in a way"),
    "numbers": (array(np.zeros((3, 4, 8))), f"{FIRST} holds float64 of shape"),
    "text": (array("a person"), f"{FIRST} holds object of shape"),
    "letters": (array(np.zeros((1, 8), np.uint16)), f"{FIRST} holds uint16 of shape"),
    "greys": (array(np.zeros((4, 8), np.uint8)), f"{FIRST} holds uint8 of shape .8, 4. where a picture of three 8-bit"),
    **{f"{count} channels": (array(value), f"{FIRST} holds uint8 of shape") for count, value in CHANNELS.items()},
    "no field": (replaced("detected", None), "'detected' is not there"),
    "field of numbers": (replaced("detected", np.zeros((1, 2))), "'detected' holds float64 of shape .2, 1. where"),
    "field of text": (replaced("detected", "people"), "'detected' holds object of shape"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISCHIEF)
def test_cuhk03_reads_nothing_but_its_own_pictures(tmp_path, cuhk, kind, monkeypatch, capsys):
    import h5py

    harm, words = MISCHIEF[kind]
    path = cuhk / "cuhk03_release/cuhk-03.mat"
    with h5py.File(path, "a") as mat:
        harm(mat, tmp_path / "other.h5")
    monkeypatch.setitem(PUBLISHED, "cuhk03_detected", SMALL["cuhk03_detected"])
    out = ["--out", str(tmp_path / "data"), "--boxes", "detected"]
    with at_most(10):
        assert main(["cuhk03", "--raw", str(cuhk), *out]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f"error: {path}: .*{words}", line), line
    assert not (tmp_path / "data/cuhk03_detected").exists()


def check_evaluation(tmp_path, data, queries):
    """`paul evaluate` on a prepared set."""
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "model.pt", PatchNet(NETWORK, num_classes=2))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert (
            cli.main(
                [
                    "evaluate",
                    "--init",
                    str(tmp_path / "model.pt"),
                    "--data",
                    str(data),
                    "--profile",
                    "smoke",
                    "--device",
                    "cpu",
                ]
            )
            == 0
        )
    assert f"{queries} queries; 0 left out" in said.getvalue() and "map_trapezoid" in said.getvalue()


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_msmt17_is_a_target_too(tmp_path, version):
    archive = packed(raw_sets.msmt(tmp_path / "raw", version), tmp_path / "msmt.tar.gz", "MSMT17/")
    prepare(real.plan_msmt17("train"), archive, tmp_path / "data")
    check_evaluation(tmp_path, tmp_path / "data/msmt17", 2)


def test_a_prepared_set_is_scored_by_paul(tmp_path, capsys):
    prepare_market(raw_sets.market(tmp_path / "raw"), tmp_path / "data")
    data = tmp_path / "data/market1501"
    dataset = ReidDataset.load(data)
    assert dataset.name == "market1501" and dataset.fingerprint == fingerprint(data)
    assert [len(dataset.split(name)) for name in ("train", "query", "gallery")] == [3, 2, 6]
    torch.manual_seed(0)
    model = PatchNet(NETWORK, num_classes=2).eval()
    scores = evaluate_model(model, data, (96, 48))
    # each query: one right image among what is neither junk nor its own camera's, so its rank is at most 4
    assert scores.queries == 2 and scores.left_out == 0 and scores.rank(4) == 1
    checkpoint.save(tmp_path / "model.pt", model)
    assert (
        cli.main(
            [
                "evaluate",
                "--init",
                str(tmp_path / "model.pt"),
                "--data",
                str(data),
                "--profile",
                "smoke",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert f"{scores.percent()['map_trapezoid']:6.2f}" in capsys.readouterr().out


# ---- your own cameras


def own(top):
    return raw_sets.write(top, ["гараж/один.jpg", "гараж/два.jpg", "入口/三.png", "入口/四.jpg", "notes.txt"])


def table(path, *lines, header="file,person_id,camera_id,split"):
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_own_images_by_a_table_some_unlabelled(tmp_path):
    given = table(
        tmp_path / "my.csv",
        "гараж/один.jpg,,,train",
        "入口/三.png,Åsa,north,query",
        "入口/四.jpg,Åsa,south,gallery",
        "гараж/два.jpg,-1,south,gallery",
    )
    prepare(real.plan_folder("mine", given), own(tmp_path / "raw"), tmp_path / "data")
    assert index(tmp_path / "data/mine") == texts(
        {
            "гараж/один.jpg": ("train", -1, -1, "", ""),
            "入口/三.png": ("query", 1, 1, "", ""),
            "入口/四.jpg": ("gallery", 1, 2, "", ""),
            "гараж/два.jpg": ("gallery", -1, 2, "", ""),
        }
    )
    dataset = ReidDataset.load(tmp_path / "data/mine")
    assert dataset.card["counts"]["train"] == {"images": 1, "people": 0, "junk": 0, "distractors": 0, "unlabelled": 1}
    assert dataset.card["cameras"] == {"1": "north", "2": "south"} and "Åsa" not in json.dumps(dataset.card)
    verify(tmp_path / "data/mine", progress=False)
    check_evaluation(tmp_path, tmp_path / "data/mine", 1)


def test_own_images_by_a_pattern_or_by_nothing(tmp_path):
    raw = raw_sets.write(tmp_path / "raw", ["query/p12_cam3.jpg", "gallery/p12_cam4.jpg", "train/p07_cam3.jpg"])
    pattern = r"(?P<split>\w+)/p(?P<person_id>\d+)_cam(?P<camera_id>\d)"
    prepare(real.plan_folder("mine", pattern=pattern), raw, tmp_path / "data")
    assert index(tmp_path / "data/mine") == texts(
        {
            "query/p12_cam3.jpg": ("query", 12, 3, "", ""),
            "gallery/p12_cam4.jpg": ("gallery", 12, 4, "", ""),
            "train/p07_cam3.jpg": ("train", 7, 3, "", ""),
        }
    )
    prepare(real.plan_folder("crops"), raw, tmp_path / "data")
    assert set(index(tmp_path / "data/crops").values()) == {("train", "-1", "-1", "", "")}
    with pytest.raises(DataError, match="extra: train/p07_cam3.jpg"):
        prepare(real.plan_folder("few", pattern="(?P<camera_id>)p12"), raw, tmp_path / "data")
    with pytest.raises(DataError, match="data/mine, which is about to be written"):
        prepare(real.plan_folder("mine"), tmp_path / "data/mine", tmp_path / "data")


def test_every_option_reaches_its_set_from_the_command_line(tmp_path, monkeypatch, capsys):
    for name, small in SMALL.items():
        monkeypatch.setitem(PUBLISHED, name, small)
    out = ["--out", str(tmp_path / "data")]
    raw = own(tmp_path / "raw")
    given = table(tmp_path / "my.csv", "入口/三.png,1,2,query", "入口/四.jpg,1,3,gallery")
    assert main(["folder", "--raw", str(raw), *out, "--name", "gate", "--csv", str(given), "--copy"]) == 0
    assert index(tmp_path / "data/gate")["入口/三.png"] == ("query", "1", "2", "", "")
    assert not (tmp_path / "data/gate/入口/三.png").samefile(raw / "入口/三.png")
    assert (
        main(
            [
                "folder",
                "--raw",
                str(raw),
                *out,
                "--pattern",
                "(?P<person_id>)(?P<camera_id>入口|гараж)",
                "--split",
                "train",
                "--link",
            ]
        )
        == 0
    )
    assert {row[2] for row in index(tmp_path / "data/mine").values()} == {"1", "2"}
    msmt = packed(raw_sets.msmt(tmp_path / "msmt"), tmp_path / "MSMT17_V1.tar.gz", "MSMT17_V1/")
    assert main(["msmt17", "--raw", str(msmt), *out, "--train", "train"]) == 0
    assert ReidDataset.load(tmp_path / "data/msmt17").splits == ["train", "query", "gallery"]
    assert main(["cuhk03", "--raw", str(tmp_path), *out, "--boxes", "detected", "--splits", "here"]) == 1
    assert "holds cuhk-03.mat" in capsys.readouterr().err
    for refused in (
        ["folder", "--raw", "x", "--link", "--copy"],
        ["cuhk03"],
        ["msmt17", "--raw", "x", "--train", "val"],
    ):
        with pytest.raises(SystemExit) as left:
            main(refused)
        assert left.value.code == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../secret.jpg,1,1,train", "line 2: file '../secret.jpg' is no path of a file inside the folder"),
        ("/etc/passwd.jpg,1,1,train", "line 2: file '/etc/passwd.jpg' is no path of a file inside"),
        ("notes.txt,1,1,train", "line 2: file 'notes.txt' does not end like an image (.bmp,"),
        ("入口/三.png,1,1,test set", "line 2: unknown split 'test set'"),
        ("入口/三.png,,1,query", "line 2: query needs person_id and camera_id"),
        ("入口/三.png,0,1,train", "line 2: person 0 stands for a distractor"),
        ("入口/三.png,-1,1,query", "line 2: person -1 stands for junk"),
        ("入口/none.png,1,1,train\n入口/三.png,1,1,train", "missing: 入口/none.png"),
        ("入口/三.png,1,1,train\n入口/./三.png,1,1,train", "line 3: 入口/三.png is listed twice"),
    ],
)
def test_a_table_at_fault_is_named_with_its_line(tmp_path, line, message):
    given = table(tmp_path / "my.csv", line)
    with pytest.raises(DataError, match=re.escape(message)):
        prepare(real.plan_folder("mine", given), own(tmp_path / "raw"), tmp_path / "data")
    assert not (tmp_path / "data/mine").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "("}, "--pattern (: not a regular expression"),
        ({"pattern": "(?P<who>.)"}, "unknown group 'who'"),
        ({"table": "none.csv"}, "--csv none.csv: no such file"),
        ({"name": "market1501"}, "--name 'market1501'"),
        ({"name": "../up"}, "--name '../up'"),
        ({"table": __file__, "pattern": "x"}, "either --csv or --pattern"),
        ({"split": "training"}, "unknown split 'training'"),
        ({"table": __file__}, "column 'file'"),
    ],
)
def test_an_option_at_fault_is_named(tmp_path, options, message):
    raw = raw_sets.write(tmp_path / "raw", ["a.jpg"])
    with pytest.raises(DataError, match=re.escape(message)):
        prepare(real.plan_folder(**options), raw, tmp_path / "data")


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_is_never_waited_for(tmp_path, kind, monkeypatch, capsys):
    """As --raw, as --csv, and in the place of an image, a list or a lock."""
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    monkeypatch.setitem(PUBLISHED, "market1501", SMALL["market1501"])

    def put(path):
        Path(path).unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as plug:
                plug.bind(str(path))
        else:
            Path(path).symlink_to("/dev/zero")

    def said(*command):
        with at_most(10):
            assert main([*command]) == 1
        return capsys.readouterr().err.splitlines()

    put("raw")
    for command in ("market1501", "msmt17", "cuhk03", "folder"):
        assert said(command, "--raw", "raw") == [
            f"error: --raw raw: it is a {kind}, no regular file; name a folder, or an archive as downloaded"
        ]
    assert said("folder", "--raw", ".", "--csv", "raw") == [f"error: --csv raw: it is a {kind}, no regular file"]
    raw_sets.market(Path("market"))
    put("market/query/0001_c1s1_001051_00.jpg")
    assert "  not images: query/0001_c1s1_001051_00.jpg" in said("market1501", "--raw", "market")
    raw_sets.msmt(Path("msmt"))
    put("msmt/list_val.txt")
    assert "no folder in it holds list_train.txt" in said("msmt17", "--raw", "msmt")[0]
    raw_sets.write(Path("own"), ["a.jpg", "b.jpg"])
    put("own/b.jpg")
    assert f"  missing: b.jpg (it is a {kind}, no regular file)" in said("folder", "--raw", "own")
    assert main(["folder", "--raw", "own", "--accept-counts", "--copy"]) == 0
    put("data/mine/a.jpg")
    assert "no longer match" in said("folder", "--raw", "own", "--accept-counts", "--copy")[-1]
    assert "missing: a.jpg" in "".join(said("verify", "data/mine"))
    for name in ("card.json", "index.csv"):
        put(f"data/mine/{name}")
        assert f"it is a {kind}, no regular file" in said("verify", "data/mine")[0]
    if kind != "socket":
        put("data/.lock")
        with at_most(10):
            assert main(["folder", "--raw", "own", "--accept-counts", "--overwrite"]) == 0


def test_a_pattern_that_tries_endless_ways_ends(tmp_path, monkeypatch):
    raw = raw_sets.write(tmp_path / "raw", ["a" * 60 + ".jpg", "b.jpg"])
    monkeypatch.setattr(folder, "PATIENCE", 0.5)
    with at_most(10), pytest.raises(DataError, match=r"--pattern \(a\+\)\+b: its search through 2 names did not end"):
        prepare(real.plan_folder(pattern="(a+)+b"), raw, tmp_path / "data")


@pytest.mark.parametrize("pattern", ["(?P<person_id>.)", "b|(?P<camera_id>a)?", r"^\w", "", "(?i)A(?P<frame>$)"])
def test_a_pattern_finds_what_a_plain_search_finds(pattern):
    names = ["", "a", "b", "A\n", "\n", "ж a", "\udcff", "\u2028b", '"\\', "xA", "\x00", "𝒳"]
    matched, extra = folder.named(names, folder.compiled(pattern), "query")
    found = {name: re.search(pattern, name) for name in names}
    assert extra == [name for name in names if not found[name]]
    assert matched == [
        (name, {"file": name, "split": "query", **{key: text or "" for key, text in match.groupdict().items()}})
        for name, match in found.items()
        if match
    ]


def test_a_table_gets_what_it_names_wherever_it_lies(tmp_path):
    """In a prepared set, in a hidden folder, and behind links to folders and to files."""
    raw = raw_sets.write(tmp_path / "raw", ["here/a.jpg", ".hidden/b.jpg"])
    raw_sets.write(tmp_path / "away", {"cam/c.jpg": jpeg(7), "d.jpg": jpeg(8)})
    prepare_market(raw_sets.market(tmp_path / "market"), raw)
    (raw / "linked").symlink_to(tmp_path / "away/cam")
    (raw / "d.jpg").symlink_to(tmp_path / "away/d.jpg")
    files = ["here/a.jpg", ".hidden/b.jpg", "linked/c.jpg", "d.jpg", f"market1501/{next(iter(MARKET))}"]
    given = table(tmp_path / "my.csv", *(f"{file},1,1,train" for file in files))
    prepare(real.plan_folder("mine", given), raw, tmp_path / "data")
    assert set(index(tmp_path / "data/mine")) == set(files)
    for file in files:
        assert (tmp_path / "data/mine" / file).read_bytes() == (raw / file).read_bytes()


def test_what_a_table_names_and_cannot_be_taken_is_given_with_its_reason(tmp_path):
    raw = raw_sets.write(tmp_path / "raw", ["a.jpg", "folder.jpg/b.jpg"])
    os.mkfifo(raw / "pipe.jpg")
    (raw / "nowhere.jpg").symlink_to("none")
    (raw / "loop.jpg").symlink_to("loop.jpg")
    names = ["a.jpg", "none.jpg", "a.jpg/c.jpg", "folder.jpg", "pipe.jpg", "nowhere.jpg", "loop.jpg"]
    given = table(tmp_path / "my.csv", *(f"{name},1,1,train" for name in names))
    with pytest.raises(DataError) as refused:
        prepare(real.plan_folder("mine", given), raw, tmp_path / "data")
    assert (
        "missing: none.jpg (No such file or directory), a.jpg/c.jpg (Not a directory), folder.jpg (Is a directory), "
        "pipe.jpg (it is a pipe, no regular file), nowhere.jpg (a link that leads nowhere), loop.jpg (Too many levels"
    ) in str(refused.value)
    prepare(real.plan_folder("mine", given), raw, tmp_path / "data", accept=True)
    assert set(index(tmp_path / "data/mine")) == {"a.jpg"}


# ---- the limits of what is written are those of what is read

ODD = st.text(st.sampled_from("ab/.\\:-\0\n\r\t\u2028\x85\u00a0ж,\"' \ud800\ufeff"), max_size=8)
PATHS = ODD | st.sampled_from(["a.jpg", "b c.jpg", "x" * 4096, "x" * 4097, "ä" * 4096, "..", "NA", "nan", "1", "1e5"])
IDS = st.sampled_from(
    [-(2**53) - 1, -(2**53), -1, 0, 1, 7, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 10**19, 10**20, 10**4300]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(
        st.tuples(PATHS, st.sampled_from([*FOLDERS] * 3 + ["", "test"]), IDS, IDS, ODD, ODD), min_size=1, max_size=3
    )
)
def test_what_is_written_is_read_back_and_what_is_not_read_is_not_written(tmp_path, rows):
    rows = [dict(zip(INDEX_COLUMNS, row)) for row in rows]
    try:
        write_index(tmp_path, rows)
    except DataError as refused:
        assert "cannot stand in an index" in str(refused) and len(str(refused)) < 600
    else:
        assert read_back(tmp_path) == [tuple(row.values())[:4] for row in rows]
        return
    unread = any(
        unfit_text(row[column]) for row in rows for column in ("sequence", "frame")
    )  # paul does not look there
    if not unread and all(abs(row[column]) < 10**100 for row in rows for column in ("person_id", "camera_id")):
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ValueError):
            patch.setattr(market_layout, "_check", lambda *_: None)
            write_index(tmp_path, rows)
            assert read_back(tmp_path) != [tuple(row.values())[:4] for row in rows], "refused for no reason"


def read_back(folder):
    return list(ReidDataset.load(folder).frame[list(INDEX_COLUMNS[:4])].itertuples(index=False, name=None))


@pytest.mark.parametrize("column", ["person_id", "camera_id"])
@pytest.mark.parametrize(("value", "fits"), [("9" * 5000, False), ("9" * 20, False), (str(2**53 + 1), False),
                                             (str(2**53), True), ("0" * 5000 + "7", False)])  # fmt: skip
def test_an_id_that_could_not_be_read_back_is_not_written(tmp_path, column, value, fits):
    row = {"person_id": "1", "camera_id": "2", column: value}
    given = table(tmp_path / "my.csv", f"入口/三.png,{row['person_id']},{row['camera_id']},train")
    plan = real.plan_folder("mine", given)
    if fits:
        prepare(plan, own(tmp_path / "raw"), tmp_path / "data")
        assert ReidDataset.load(tmp_path / "data/mine").frame[column][0] == 2**53
        return
    with pytest.raises(DataError, match=f"my.csv, line 2: {column} .{{1,90}} is ") as refused:
        prepare(plan, own(tmp_path / "raw"), tmp_path / "data")
    assert len(str(refused.value)) < 300 and not (tmp_path / "data/mine").exists()


def test_names_that_no_index_holds_are_refused_by_name(tmp_path):
    raw = raw_sets.write(tmp_path / "raw", ["a\rb.jpg"])
    with pytest.raises(DataError, match=r"file 'a\\rb.jpg' holds a control character"):
        prepare(real.plan_folder(), raw, tmp_path / "data")
    with pytest.raises(DataError, match=r"--name 'a\\nb': choose a plain name"):
        real.plan_folder("a\nb")
    (raw / "a\rb.jpg").rename(raw / ("x" * 251 + ".jpg"))
    prepare(real.plan_folder(), raw, tmp_path / "data", link=False)
    verify(tmp_path / "data/mine", progress=False)


def test_paul_and_its_preparation_know_the_same_splits():
    assert tuple(FOLDERS) == SPLITS


# ---- other than published


def test_what_does_not_belong_is_named_and_left_out_only_when_told(tmp_path, capsys, monkeypatch):
    raw, out = raw_sets.market(tmp_path / "raw"), tmp_path / "data"
    stray = [
        "query/-1_c1s1_000401_03.jpg",
        "query/0002_c1s1_000451_09.jpg",
        "query/0003_c1s1_00045_09.jpg",
        "query/0003_c1s1_000451_09 (1).jpg",
    ]
    raw_sets.write(raw, {name: jpeg(50 + number) for number, name in enumerate(stray)})
    (raw / "query/0001_c1s1_001051_00.jpg").unlink()
    (raw / "bounding_box_train/0007_c3s3_077419_03.jpg").write_bytes(b"<html>not found</html>")
    monkeypatch.setitem(PUBLISHED, "market1501", SMALL["market1501"])
    assert main(["market1501", "--raw", str(raw), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    for words in (
        "query images: 1 found, 2 published (1 too few)",
        "train people: 1 found, 2 published",
        *stray,
        "not images: bounding_box_train/0007_c3s3_077419_03.jpg",
        "--accept-counts",
    ):
        assert words in said
    assert not (out / "market1501").exists() and leftovers(out) == []
    assert main(["market1501", "--raw", str(raw), "--out", str(out), "--accept-counts"]) == 0
    lost = {"query/0001_c1s1_001051_00.jpg", "bounding_box_train/0007_c3s3_077419_03.jpg"}
    assert set(index(out / "market1501")) == set(MARKET) - lost
    assert main(["verify", str(out / "market1501")]) == 0
    assert "accepted when prepared: query images: 1 found" in capsys.readouterr().out


def test_only_the_first_ten_names(tmp_path):
    raw = raw_sets.market(tmp_path / "raw")
    raw_sets.write(raw, {f"query/x{number:02d}.jpg": jpeg(number) for number in range(12)})
    with pytest.raises(DataError, match=r"x09.jpg, \.\.\. \(12 in all\)"):
        prepare_market(raw, tmp_path / "data")


def test_msmt17_names_what_its_lists_miss(tmp_path):
    raw = raw_sets.msmt(tmp_path / "raw")
    (raw / "test" / MSMT["query"][0][0]).unlink()
    (raw / "test" / MSMT["query"][1][0]).rename(raw / "test/0001/0001_009_02_0302noon_0019_0.jpg")
    with open(raw / "list_val.txt", "a") as stream:
        stream.write("0001/0001_001_01_0114noon_0102_0_ex.jpg 1\n0000/0000_000_09_x.jpg 7\n../../x.jpg 0\n")
    with pytest.raises(DataError) as refused:
        prepare(real.plan_msmt17(), raw, tmp_path / "data")
    for words in (
        f"missing: test/{MSMT['query'][0][0]}, test/{MSMT['query'][1][0]}",
        "test/0001/0001_009_02",
        "query images: 0 found, 2 published",
        "0114noon_0102_0_ex.jpg a second time",
        "list_val.txt: '0000/0000_000_09_x.jpg 7'",
        "list_val.txt: '../../x.jpg 0'",
    ):
        assert words in str(refused.value)


def test_another_set_or_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no image of Market-1501"):
        prepare_market(raw_sets.duke(tmp_path / "duke"), tmp_path / "data", accept=True)
    with pytest.raises(DataError, match="no folder in it holds bounding_box_train, query, bounding_box_test"):
        prepare_market(raw_sets.msmt(tmp_path / "msmt"), tmp_path / "data")
    raw_sets.market(tmp_path / "two/a"), raw_sets.market(tmp_path / "two/b")
    with pytest.raises(DataError, match="more than once: .*two/a.*two/b"):
        prepare_market(tmp_path / "two", tmp_path / "data")
    with pytest.raises(DataError, match="--raw .*nothing: no such file or folder"):
        prepare_market(tmp_path / "nothing", tmp_path / "data")


def test_published_sizes_from_names_alone():
    """Names in the published numbers, of every set, pass; one fewer does not.  No file is made."""

    def boxes(name, people, images):
        return [name(people[number % len(people)], number) for number in range(images)]

    def market(person, n):
        return f"{person if person == -1 else f'{person:04d}'}_c{n % 6 + 1}s1_{n:06d}_01.jpg"

    def duke(person, n):
        return f"{person:04d}_c{n % 8 + 1}_f{n:07d}.jpg"

    train, test = list(range(2, 1504, 2)), list(range(1, 1501, 2))
    names = {
        "train": boxes(market, train, 12_936),
        "query": boxes(market, test, 3_368),
        "gallery": boxes(market, [0, *test], 15_913) + boxes(market, [-1], 3_819) + ["Thumbs.db"],
    }
    assert differences(bounding_boxes.listed(names, bounding_boxes.parse_market).rows, PUBLISHED["market1501"]) == []
    rows = bounding_boxes.listed({**names, "query": names["query"][1:]}, bounding_boxes.parse_market).rows
    assert differences(rows, PUBLISHED["market1501"]) == ["query images: 3,367 found, 3,368 published (1 too few)"]

    train, test = list(range(1, 703)), list(range(1000, 1702))
    names = {
        "train": boxes(duke, train, 16_522),
        "query": boxes(duke, test, 2_228),
        "gallery": boxes(duke, [*test, *range(5000, 5408)], 17_661),
    }
    assert differences(bounding_boxes.listed(names, bounding_boxes.parse_duke).rows, PUBLISHED["dukemtmc"]) == []

    def lines(people, images, start):
        return [
            f"{n % people:04d}/{n % people:04d}_{n:06d}_{n % 15 + 1:02d}_0303noon_0001_0.jpg {n % people}"
            for n in range(start, start + images)
        ]

    lists = {
        "train": lines(1041, 30_248, 0),
        "val": lines(1041, 2_373, 30_248),
        "query": lines(3060, 11_659, 0),
        "gallery": lines(3060, 82_161, 11_659),
    }
    files = [
        f"{'train' if name in ('train', 'val') else 'test'}/{line.split()[0]}" for name in lists for line in lists[name]
    ]
    found = msmt17.listed(lists, ("train", "test"), files)
    assert not found.extra and not found.missing and differences(found.rows, PUBLISHED["msmt17"]) == []
    everything = msmt17.all_for_training(found.rows)
    assert len(everything) == 126_441 and {row["split"] for row in everything} == {"train"}
    assert {row["person_id"] for row in everything} == set(range(1, 4_102))


# ---- names


@given(st.integers(-1, 9999), st.integers(0, 9), st.integers(0, 9), st.integers(0, 999999), st.integers(0, 99))
def test_market_names_read_back(person, camera, sequence, frame, box):
    name = f"{person if person == -1 else f'{person:04d}'}_c{camera}s{sequence}_{frame:06d}_{box:02d}.jpg"
    assert bounding_boxes.parse_market(name) == (person, camera, sequence, frame)
    assert bounding_boxes.parse_market(f"{name} ") is bounding_boxes.parse_duke(name) is None


@given(st.integers(0, 9999), st.integers(0, 9), st.integers(0, 9999999))
def test_duke_names_read_back(person, camera, frame):
    name = f"{person:04d}_c{camera}_f{frame:07d}.jpg"
    assert bounding_boxes.parse_duke(name) == (person, camera, "", frame)
    assert bounding_boxes.parse_market(name) is None


@given(
    st.integers(0, 9999), st.integers(0, 999), st.integers(1, 15), st.sampled_from(["", "_ex"]), st.integers(0, 9999)
)
def test_msmt_lines_read_back(person, number, camera, ending, other):
    file = f"{person:04d}/{person:04d}_{number:03d}_{camera:02d}_0302afternoon_0912_1{ending}.jpg"
    assert msmt17.parse(f"{file} {person}\r\n") == (file, person, camera)
    assert (msmt17.parse(f"{file} {other}") is None) == (other != person)


@given(st.text() | st.from_regex(r"[-\d]+_c\d+s?\d*_f?\d+(_\d+)?\.jpg", fullmatch=True))
def test_any_other_text_is_no_name_and_no_crash(text):
    for parse in (bounding_boxes.parse_market, bounding_boxes.parse_duke, msmt17.parse):
        parsed = parse(text)
        assert parsed is None or text.isascii()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_numbers_tell_names_apart(names):
    numbers = folder.numbered(names)
    ints = [re.fullmatch(r"-1|[0-9]+", name) for name in names]
    if all(ints):
        assert all(numbers[name] == int(name) for name in names)
    else:
        assert len(set(numbers.values())) >= len(set(names)) - sum(bool(match) for match in ints)
        assert all(re.fullmatch("-1|0+", name) for name, number in numbers.items() if number < 1)


@given(
    st.lists(st.sampled_from(["..", ".", "", "a", "b c", "C:", "ж", "/", "\\", "a\\..", "\0"]), min_size=1, max_size=6)
)
def test_no_path_leaves_its_folder(parts):
    name = "/".join(parts)
    safe = safe_parts(name)
    if safe is not None:
        top = Path("/top/folder")
        assert Path(os.path.normpath(top.joinpath(*safe))).is_relative_to(top) and ".." not in safe
        assert not name.startswith(("/", "\\"))


# ---- archives that mean harm, or are broken


def hostile_zip(path, name, data=b"x", mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = mode << 16, 3
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("bounding_box_train/0002_c1s1_000451_03.jpg", jpeg(0))
        stream.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def hostile_tar(path, name, kind=tarfile.REGTYPE, link="", data=b"x"):
    with tarfile.open(path, "w:gz") as stream:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        stream.addfile(info, io.BytesIO(data))
    return path


def sparse_tar(path, **headers):
    """A member with holes, as the headers of PAX or, without any, of GNU say where."""
    kind = tarfile.PAX_FORMAT if headers else tarfile.GNU_FORMAT
    with gzip.open(path, "wb") as stream, tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        info = tarfile.TarInfo("query/a.jpg")
        info.type = tarfile.REGTYPE if headers else tarfile.GNUTYPE_SPARSE
        info.pax_headers, info.size = {f"GNU.sparse.{key}": value for key, value in headers.items()}, 4
        archive.addfile(info, io.BytesIO(b"1\n0\n"))
    return path


HOSTILE = {
    "sparse": lambda path: sparse_tar(path, map="0,4", size="4"),
    "old sparse": sparse_tar,
    "up": lambda path: hostile_zip(path, "../../evil.jpg"),
    "absolute": lambda path: hostile_zip(path, "/tmp/evil.jpg"),
    "drive": lambda path: hostile_zip(path, "C:/evil.jpg"),
    "backslash": lambda path: hostile_zip(path, "a\\..\\..\\evil.jpg"),
    "zip link": lambda path: hostile_zip(path, "query", b"/etc", 0o120777),
    "tar up": lambda path: hostile_tar(path, "query/../../evil.jpg"),
    "tar absolute": lambda path: hostile_tar(path, "/tmp/evil.jpg"),
    "symbolic link": lambda path: hostile_tar(path, "query", tarfile.SYMTYPE, "/etc"),
    "hard link": lambda path: hostile_tar(path, "evil.jpg", tarfile.LNKTYPE, "/etc/passwd"),
    "device": lambda path: hostile_tar(path, "evil", tarfile.CHRTYPE),
    "pipe": lambda path: hostile_tar(path, "evil", tarfile.FIFOTYPE),
    "zip bomb": lambda path: hostile_zip(path, "query/a.jpg", bytes(3_000_000)),
    "tar bomb": lambda path: hostile_tar(path, "query/a.jpg", data=bytes(3_000_000)),
    "name bomb": lambda path: hostile_tar(path, "n" * 2**21),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_stays(tmp_path, kind):
    archive = HOSTILE[kind](tmp_path / "Market.download")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"Market\.download: .*(do not trust it|unpacks to more than|header of)"):
        prepare_market(archive, tmp_path / "data")
    after = [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and path.name != ".lock"]
    assert after == before, "neither the folder nor anything around it was written to"
    assert not Path("/tmp/evil.jpg").exists()


def test_member_count_and_doubles_are_limited(tmp_path):
    archive = packed(raw_sets.market(tmp_path / "raw"), tmp_path / "m.tar")
    with pytest.raises(DataError, match="more than 5 members"):
        unpack(archive, tmp_path / "out", Limits(members=5), progress=False)
    with pytest.raises(DataError, match="more than .* members or 1,000 bytes"):
        unpack(archive, tmp_path / "out", Limits(bytes=1000), progress=False)
    with tarfile.open(archive, "a") as stream:
        stream.add(tmp_path / "raw/readme.txt", "readme.txt")
    with pytest.raises(DataError, match="holds 'readme.txt' twice"):
        unpack(archive, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz", "text", "empty", "bits"])
def test_a_broken_archive_is_named(tmp_path, kind):
    path = packed(raw_sets.market(tmp_path / "raw"), tmp_path / f"market{kind if kind[0] == '.' else '.zip'}")
    data = path.read_bytes()
    cut = {"text": b"<html>please sign the agreement</html>", "empty": b""}.get(kind, data[: len(data) * 2 // 3 - 100])
    if kind == "bits":
        place = data.index(jpeg(0)[:20]) + 300 if jpeg(0)[:20] in data else 200
        cut = data[:place] + bytes(byte ^ 255 for byte in data[place : place + 40]) + data[place + 40 :]
    path.write_bytes(cut)
    with pytest.raises(DataError, match=rf"{path.name}: no zip or tar archive, or damaged or cut short"):
        prepare_market(path, tmp_path / "data")
    assert leftovers(tmp_path / "data") == []


NEGATIVE = bytes([255] * 12)  # -1, as tar writes numbers that are too long for its field


@pytest.mark.parametrize("headers", [{"map": "0,x", "size": "4"}, {"map": "0", "size": "4"},
                                     {"size": "x", "map": "0,4"},
                                     {"major": "1", "minor": "0", "name": "a", "realsize": "4"},
                                     {"major": "1", "minor": "0"}, {"size": "9" * 5000, "map": "0,4"}])  # fmt: skip
def test_a_member_whose_holes_make_no_sense_is_named(tmp_path, headers):
    path = sparse_tar(tmp_path / "x.tar.gz", **headers)
    with pytest.raises(DataError, match=r"x.tar.gz: .*(damaged or cut short|is a sparse file|more than)"):
        unpack(path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_member_of_less_than_no_bytes_is_named_at_once(tmp_path, kind):
    info = tarfile.TarInfo("a.jpg")
    info.type = kind
    header = bytearray(info.tobuf())
    header[124:136] = NEGATIVE
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.tar").write_bytes(bytes(header) + bytes(10240))
    with at_most(10), pytest.raises(DataError, match="x.tar: no zip or tar archive, or damaged or cut short"):
        unpack(tmp_path / "x.tar", tmp_path / "out", progress=False)


def test_a_directory_before_the_beginning_is_named(tmp_path):
    path = packed(raw_sets.market(tmp_path / "raw"), tmp_path / "m.zip")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x05\x06") + 16
    data[at : at + 4] = (len(data) + 1000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"m.zip: no zip or tar archive, or damaged or cut short"):
        unpack(path, tmp_path / "out", progress=False)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_damage_inside_of_a_packed_archive_is_named(tmp_path, kind):
    path = tmp_path / f"market.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as stream:
        stream.add(raw_sets.write(tmp_path / "raw", [f"query/{number}.jpg" for number in range(200)]), "top")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"market.tar.*: no zip or tar archive, or damaged or cut short"):
        unpack(path, tmp_path / "out", progress=False)


def test_an_encrypted_archive_is_named(tmp_path):
    path = packed(raw_sets.duke(tmp_path / "raw"), tmp_path / "duke.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    path.write_bytes(data)
    with pytest.raises(DataError, match="duke.zip: .* is encrypted"):
        prepare(real.plan_dukemtmc(right=True), path, tmp_path / "data")


def test_a_file_that_is_a_folder_too_is_refused(tmp_path):
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a", "a/b"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match="'a/b' is a file and a folder at once"):
        unpack(path, tmp_path / "out", progress=False)


# ---- interruptions, locks, disks


@pytest.mark.parametrize("kind", ["folder", ".zip", ".tar.gz"])
@pytest.mark.parametrize("stop", [1, 5, 9])
def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch, kind, stop):
    raw, out = raw_sets.market(tmp_path / "raw"), tmp_path / "data"
    given = raw if kind == "folder" else packed(raw, tmp_path / f"m{kind}")
    copied = []

    def copy(*arguments, **options):
        copied.append(arguments[0])
        if len(copied) == stop:
            raise KeyboardInterrupt
        return keep(*arguments, **options)

    name = "copy2" if kind == "folder" else "copyfileobj"
    keep = getattr(shutil, name)
    monkeypatch.setattr(shutil, name, copy)
    with pytest.raises(KeyboardInterrupt):
        prepare_market(given, out, link=False)
    assert not (out / "market1501").exists()
    assert prepare_market(given, out, link=False) == {"market1501": "written"}
    total = len(MARKET) if kind == "folder" else len(MARKET) + len(raw_sets.MARKET_TRAPS)
    assert len(copied) == total + 1, "what was done was not done again"
    monkeypatch.undo()
    clean = tmp_path / "clean"
    prepare_market(given, clean)
    assert (out / "market1501/index.csv").read_bytes() == (clean / "market1501/index.csv").read_bytes()
    assert fingerprint(out / "market1501") == fingerprint(clean / "market1501")
    assert leftovers(out) == [] and {path.name for path in (out / "market1501").rglob("*.*")} == {
        path.name for path in (clean / "market1501").rglob("*.*")
    }


def test_leftovers_of_another_set_do_not_get_in(tmp_path, monkeypatch):
    raw, out = raw_sets.market(tmp_path / "raw"), tmp_path / "data"
    monkeypatch.setattr(real, "write_card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare_market(raw, out)
    monkeypatch.undo()
    file = "bounding_box_train/0002_c1s1_000451_03.jpg"
    other = raw_sets.market(tmp_path / "other")
    (other / file).unlink()
    (other / "bounding_box_train/0002_c2s3_000076_01.jpg").write_bytes(jpeg(99))
    (other / "bounding_box_train/0002_c1s1_000452_03.jpg").write_bytes(jpeg(98))
    prepare_market(other, out)
    assert not (out / "market1501" / file).exists()
    assert (out / "market1501/bounding_box_train/0002_c2s3_000076_01.jpg").read_bytes() == jpeg(99)
    verify(out / "market1501", progress=False)


def test_killed_and_started_again(tmp_path):
    """A process that is killed outright leaves a set that the same command finishes."""
    raw = raw_sets.market(tmp_path / "raw")
    code = (
        "import sys, time; from data_prep import real\nsys.path.append('tests'); from raw_sets import SMALL\n"
        "keep = real.place\n"
        "def slow(*arguments):\n    keep(*arguments); print('placed', flush=True); time.sleep(60)\n"
        "real.place = slow\n"
        f"real.prepare(real.plan_market1501(), {str(raw)!r}, {str(tmp_path / 'data')!r}, published=SMALL)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdout.readline() == b"placed\n"
    with pytest.raises(DataError, match="another preparation is writing here"):
        prepare_market(raw, tmp_path / "data")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "data/market1501").exists()
    assert prepare_market(raw, tmp_path / "data") == {"market1501": "written"}
    assert index(tmp_path / "data/market1501") == texts(MARKET)


def test_two_at_once_are_refused(tmp_path):
    raw = raw_sets.market(tmp_path / "raw")
    with locked(tmp_path / "data/.lock"), pytest.raises(DataError, match="another preparation"):
        prepare_market(raw, tmp_path / "data")


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "data"), OSError(30, "Read-only file system", "data")]
)
def test_a_target_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys, error):
    raw = raw_sets.duke(tmp_path / "raw")
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(error))
    assert main(["dukemtmc", "--raw", str(raw), "--out", str(tmp_path / "data"), "--i-have-the-right"]) == 1
    assert f"data: {error.strerror}; --out must be a folder that can be written" in capsys.readouterr().err


def test_a_full_disk_is_said_and_what_was_placed_is_kept(tmp_path, monkeypatch):
    raw = raw_sets.market(tmp_path / "raw")
    keep, calls = shutil.copy2, []

    def copy(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return keep(*arguments)

    monkeypatch.setattr(shutil, "copy2", copy)
    with pytest.raises(DataError, match="no space left on the disk; what was placed is kept"):
        prepare_market(raw, tmp_path / "data", link=False)
    prepare_market(raw, tmp_path / "data", link=False)
    assert len(calls) == len(MARKET) + 1


def test_another_folder_is_never_replaced_unasked(tmp_path):
    raw = raw_sets.market(tmp_path / "raw")
    (tmp_path / "data/market1501").mkdir(parents=True)
    (tmp_path / "data/market1501/mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not written here"):
        prepare_market(raw, tmp_path / "data")
    assert (tmp_path / "data/market1501/mine.txt").read_text() == "mine"
    raw = raw_sets.msmt(tmp_path / "msmt")
    prepare(real.plan_msmt17("train"), raw, tmp_path / "data")
    with pytest.raises(DataError, match="holds another set .*'train': 'train'.*--overwrite"):
        prepare(real.plan_msmt17("all"), raw, tmp_path / "data")
    prepare(real.plan_msmt17("all"), raw, tmp_path / "data", overwrite=True)
    assert ReidDataset.load(tmp_path / "data/msmt17").splits == ["train"]


# ---- verify


@pytest.fixture
def prepared(tmp_path):
    prepare_market(raw_sets.market(tmp_path / "raw"), tmp_path / "data", link=False)
    return tmp_path / "data/market1501"


def edit(path, old, new):
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda top: (top / "query/0001_c1s1_001051_00.jpg").unlink(), "missing: query/0001_c1s1_001051_00.jpg"),
        (lambda top: (top / "query/0009_c1s1_001051_00.jpg").write_bytes(jpeg(1)), "not in the index: query/0009_c1"),
        (lambda top: (top / "query/0001_c1s1_001051_00.jpg").write_bytes(jpeg(77)), "fingerprint: .* changed"),
        (lambda top: (top / "query/0001_c1s1_001051_00.jpg").write_bytes(b"?"), "no longer images: query/0001_c1"),
        (lambda top: edit(top / "index.csv", "query,1,1", "query,2,1"), "fingerprint: index"),
        (lambda top: edit(top / "index.csv", "query,1,1", "train,1,1"), "counts: "),
        (
            lambda top: edit(top / "index.csv", "query/0001", "../query/0001"),
            "index.csv, line 5: the file '../query/.* is no path of a file",
        ),
        (
            lambda top: edit(top / "index.csv", "query,1,1", "query,one,1"),
            "index.csv, line 5: person_id 'one' is not a whole number",
        ),
        (lambda top: edit(top / "index.csv", "file,split", "split,file"), "index.csv, line 2: unknown split 'bounding"),
        (
            lambda top: edit(top / "index.csv", "sequence,frame", "frame,sequence"),
            "columns do not begin with file,split",
        ),
        (lambda top: (top / "card.json").unlink(), "card.json: missing"),
        (lambda top: (top / "index.csv").unlink(), "index.csv does not exist. Make it"),
    ],
)
def test_verify_says_what_changed(prepared, damage, message, capsys):
    assert main(["verify", str(prepared)]) == 0
    damage(prepared)
    capsys.readouterr()
    assert main(["verify", str(prepared)]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_the_fingerprint_is_over_index_and_bytes(prepared):
    digest = hashlib.sha256((prepared / "index.csv").read_bytes())
    for file in index(prepared):
        digest.update((prepared / file).read_bytes())
    assert json.loads((prepared / "card.json").read_text())["fingerprint"] == digest.hexdigest()

"""From raw sets to the paper's tables: one command a set, one for the runs, and the chapters that show them.

The raw sets are look-alikes, and a tiny network stands in for profile `paper`; folders, commands and code are the real
ones.
"""

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import papermill
import pytest
from people import CONTRAST, PUL, SIZE, TINY, picture
from PIL import Image
from raw_sets import packed

from book.run import run_book
from book.toc import load_book
from data_prep.__main__ import main as data_prep
from paul import cli
from paul.experiments.profiles import PROFILES
from paul.report.tables import on_the_papers_sets
from paul.rivals import cluster_contrast, pul

BOOK = Path(__file__).parents[1] / "book"
STAND_IN = replace(TINY, name="paper", folders=PROFILES["paper"].folders, weights=None)
# the chapter runs in a kernel of its own, which takes this file from the path
SITE = """
import sys
if any("ipykernel" in word for word in sys.orig_argv):
    sys.path.append({tests!r})
    from dataclasses import replace
    from people import CONTRAST, PUL, TINY
    from paul.experiments.profiles import PROFILES
    from paul.rivals import cluster_contrast, pul
    PROFILES["paper"] = replace(TINY, name="paper", folders=PROFILES["paper"].folders, weights=None)
    pul.AT["paper"] = PUL
    cluster_contrast.AT["paper"] = CONTRAST
    pul.CLUSTERS.clear()
"""


def raw(top, names):
    """Images of coloured figures under these names: {name: (person, camera)}."""
    rng = np.random.default_rng(0)
    for name, (person, camera) in names.items():
        stream = io.BytesIO()
        Image.fromarray(picture(person, camera, rng, SIZE)).save(stream, "JPEG")
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(stream.getvalue())
    return top


def views(people, per_camera=2):
    return [(person, camera, shot) for person in people for camera in (1, 2) for shot in range(per_camera)]


def market_like(top):
    names = {f"bounding_box_train/{p:04d}_c{c}s1_{s:06d}_01.jpg": (p, c) for p, c, s in views(range(2, 10, 2))}
    names |= {f"query/{p:04d}_c1s1_000000_00.jpg": (p, 1) for p in range(1, 9, 2)}
    names |= {f"bounding_box_test/{p:04d}_c2s1_{s:06d}_01.jpg": (p, 2) for p in range(1, 9, 2) for s in (1, 2)}
    names |= {"bounding_box_test/-1_c1s1_000001_01.jpg": (90, 1), "bounding_box_test/0000_c2s1_000001_01.jpg": (91, 2)}
    raw(top, names)
    (top / "query/Thumbs.db").write_bytes(b"no image")
    return top


def duke_like(top):
    return raw(
        top,
        {f"bounding_box_train/{p:04d}_c{c}_f{s:07d}.jpg": (p, c) for p, c, s in views(range(21, 26))}
        | {f"query/{p:04d}_c1_f0000000.jpg": (p, 1) for p in range(31, 35)}
        | {f"bounding_box_test/{p:04d}_c2_f0000001.jpg": (p, 2) for p in range(31, 36)},
    )


def msmt_like(top):
    lists = {
        "train": (range(0, 4), "train"),
        "val": (range(4, 5), "train"),
        "query": (range(0, 2), "test"),
        "gallery": (range(2, 4), "test"),
    }
    for name, (people, folder) in lists.items():
        lines = {f"{p:04d}/{p:04d}_{s:03d}_{c:02d}_0303morning_0008_0.jpg": (p, c) for p, c, s in views(people)}
        shift = 50 if folder == "train" else 60
        raw(top / folder, {line: (p + shift, c) for line, (p, c) in lines.items()})
        (top / f"list_{name}.txt").write_text("".join(f"{line} {p}\n" for line, (p, _) in lines.items()))
    return top


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Data sets, records and tables of the stand-in, each made by the command that a user would type."""
    top = tmp_path_factory.mktemp("study")
    out = ["--out", str(top / "data"), "--accept-counts"]  # a look-alike has fewer images than published
    market = packed(market_like(top / "m"), top / "Market-1501-v15.09.15.zip", "Market-1501-v15.09.15/")
    msmt = packed(msmt_like(top / "s"), top / "MSMT17_V1.tar.gz", "MSMT17_V1/")
    assert data_prep(["market1501", "--raw", str(market), *out]) == 0
    assert data_prep(["msmt17", "--raw", str(msmt), *out]) == 0
    assert data_prep(["dukemtmc", "--raw", str(duke_like(top / "DukeMTMC-reID")), *out, "--i-have-the-right"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "paper", STAND_IN)
        patch.setitem(pul.AT, "paper", PUL)
        patch.setitem(cluster_contrast.AT, "paper", CONTRAST)
        patch.delitem(pul.CLUSTERS, ("paper", "duke"))
        assert (
            cli.main(
                [
                    "run",
                    "table1",
                    "table2",
                    "--profile",
                    "paper",
                    "--seeds",
                    "0-1",
                    "--workers",
                    "1",
                    "--device",
                    "cpu",
                    "--data",
                    str(top / "data"),
                    "--results",
                    str(top / "results"),
                    "--models",
                    str(top / "models"),
                    "--book",
                    str(BOOK),
                ]
            )
            == 0
        )
    return top


def test_raw_sets_become_records_and_tables(study):
    records = [json.loads(path.read_text()) for path in (study / "results/runs/paper").iterdir()]
    ours = [record for record in records if record["row"] == "paul"]
    assert {(record["target"], record["seed"]) for record in ours} == {
        (t, s) for t in ("market", "duke") for s in (0, 1)
    }
    cards = {
        name: json.loads((study / "data" / name / "card.json").read_text())["fingerprint"]
        for name in ("msmt17", "market1501", "dukemtmc")
    }
    for record in ours:
        target = {"market": "market1501", "duke": "dukemtmc"}[record["target"]]
        assert record["data"] == {"source": cards["msmt17"], "target": cards[target]}
        assert (
            record["queries"] == 4 and 0 <= record["metrics"]["map_trapezoid"] <= record["metrics"]["map_step"] <= 100
        )
    for table in ("table1", "table2"):
        assert "ours (paper)" in (study / f"results/tables/paper/{table}.md").read_text()


def text_of(notebook):
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            parts += [
                output.get("text", ""),
                data.get("text/plain", ""),
                data.get("text/html", ""),
                data.get("text/markdown", ""),
            ]
    return "\n".join(parts)


def test_chapter_07_shows_them(study, monkeypatch, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE.format(tests=str(Path(__file__).parent)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(Path(__file__).parents[1])]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = []
    code = run_book(
        load_book(),
        chapters="07",
        profile="paper",
        data=study / "data",
        results=study / "results",
        out=tmp_path / "executed",
        asked={"seeds": "0-1", "adapt_seeds": ""},
        say=lambda *words, **_: said.append(words),
    )
    assert code == 0, said
    assert "profile paper is meant for a GPU, and there is none here" in "\n".join(" ".join(words) for words in said)
    text = text_of(papermill.iorw.load_notebook_node(str(tmp_path / "executed/07_tables_1_and_2.ipynb")))
    assert "PAUL, ours (paper)" in text and "its values may be compared" in text
    assert "The runs above are those on the paper's own sets" in text
    assert re.search(r"\bC1\b.*(supported|contradicted|inconclusive)", text, re.S) and "not run" not in text
    ours = json.loads(next((study / "results/runs/paper").glob("paul--market--s0--*")).read_text())
    assert f"{ours['metrics']['rank1']:.2f}"[:4] in text


def test_a_page_of_another_profile_shows_them_too(study, monkeypatch, tmp_path):
    monkeypatch.setitem(PROFILES, "paper", STAND_IN)
    text, shown = on_the_papers_sets("table1", study / "results", "mini", BOOK / "paper")
    assert "values may be compared" in text and shown["method"].tolist().count("PAUL, ours (paper)") == 1
    text, shown = on_the_papers_sets("table3", study / "results", "mini", BOOK / "paper")
    assert set(shown["target"]) == {"Market-1501", "DukeMTMC-reID"} and len(shown) == 2
    text, shown = on_the_papers_sets("table1", tmp_path, "mini", BOOK / "paper")
    assert shown is None and "paul run table1 --profile paper --seeds 0-2" in text
    assert on_the_papers_sets("table1", study / "results", "paper", BOOK / "paper")[1] is None

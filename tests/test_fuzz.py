"""What reads files answers to any content with a result or a clear error: never a hang, a crash or code that runs."""

import ast
import io
import json
import os
import pickle
import re
import subprocess
import sys
import time
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hostile import BOOK, CARD, CLAIMS, INDEX, RECORD, TARGETS, archive, bombs, expect, hostile_pickles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from book import build
from book.toc import BookError
from paul import checkpoint
from paul.experiments import records
from paul.report import frames as runs
from paul.report.tables import write_tables

anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
ROOT = Path(__file__).parents[1]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [10**400, -1, 0, 2**63, float("nan"), float("inf"), "", "nan", "../..", "\0", "pgn", "target", "market"]
    )
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are set as Linux does it")
def test_fuzzing_finds_nothing(tmp_path):
    """A second for each reader; python -m tests.fuzz looks for longer."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--minutes", "0.01", "--seed", "1", "--outcome", tmp_path / "fuzz.json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    said = dict(re.findall(r"(\w+): ([\d,]+) contents, nothing found", done.stdout))
    assert sorted(said) == sorted(TARGETS)
    few = {name for name, count in said.items() if int(count.replace(",", "")) <= 10}
    assert few <= {"split"}, "only what starts a process for each content is as slow as that"
    noted = json.loads((tmp_path / "fuzz.json").read_text())
    assert {name: f"{entry['contents']:,}" for name, entry in noted.items()} == said


CARELESS = """
import sys
from pathlib import Path
from tests import fuzz

def careless(content, folder):
    if content[:1] == b"x":
        raise KeyError(content)
    if content[:1] == b"y":
        bytes([1]) * (900 << 20)
    if content[:1] == b"z":
        __import__("os").system("true")
    while content[:1] == b"w":
        pass

fuzz.KEPT, fuzz.BUSY = Path(sys.argv[1]), 2
for reader, fuzz.atheris in ("card", None), ("index", fuzz.atheris):
    fuzz.TARGETS[reader] = careless, lambda: [b"0", b"x", b"y", b"z", b"w"]
    found = fuzz.main(["--reader", reader, "--minutes", "0.001", "--outcome", sys.argv[1] + "/fuzz.json"])
    assert found == 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are set as Linux does it")
def test_fuzzing_finds_what_a_reader_does_wrong(tmp_path):
    """An error that is not the documented one, memory, code that runs, a hang: kept with its traceback, and counted.

    By plain mutations, and by branches where atheris is there.
    """
    subprocess.run([sys.executable, "-c", CARELESS, tmp_path], cwd=ROOT, check=True, timeout=240)
    for reader in ("card", "index"):
        finds = [path for path in (tmp_path / reader / "finds").iterdir() if path.suffix != ".txt"]
        assert {path.read_bytes()[:1] for path in finds} == {b"x", b"y", b"z", b"w"}
        said = "".join(path.read_text() for path in (tmp_path / reader / "finds").glob("*.txt"))
        for words in ("KeyError: b'x", "bytes took [89].. MiB", "CodeRan: os.system", "TooLong: "):
            assert re.search(words, said), words
        assert json.loads((tmp_path / "fuzz.json").read_text())[reader]["found"] == len(finds)


def test_a_page_shows_what_the_last_fuzzing_of_each_reader_came_to(tmp_path):
    noted = json.loads((ROOT / "results/fuzz.json").read_text())
    assert noted.keys() == TARGETS.keys()
    assert build.FUZZED in (build.PAGES / "when_things_break.md").read_text(encoding="utf-8").splitlines()
    lines = build._fuzzed(ROOT / "results/fuzz.json").splitlines()[2:]
    for line, (reader, last) in zip(lines, noted.items(), strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:2] == [reader, f"{last['contents']:,}"] and cells[3] == str(last["found"])
    assert "No run" in build._fuzzed(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"book": 5}')
    with pytest.raises(BookError, match="bad.json: no outcome"):
        build._fuzzed(tmp_path / "bad.json")


# --- every opener is fuzzed, or named here with the reason why its file is trusted ---

SYSTEM = "what the system says of itself"
CHAPTERS = "chapters are code that whoever runs the book trusts, and read what they or committed runs have written"
TRUSTED = {
    "paul/commands/register.py run": "a registration that has just been read as one, printed as it stands",
    "paul/data/pixels.py free_memory": SYSTEM,
    "paul/data/pixels.py key_of.digests": "takes the hash of its bytes",
    "paul/data/pixels.py _decode_into": "our own decoded pixels, written on",
    "paul/data/pixels.py _to_decode": "our own checksums of decoded pixels: any bytes are some",
    "data_prep/store.py locked": "a lock, whose content nobody reads",
    "paul/data/pixels.py opened": "our own decoded pixels: any bytes of that length are pixels",
    "paul/engine/device.py usable_cores": SYSTEM,
    "paul/experiments/plan.py _trained": "counts line ends, which any file has",
    "paul/experiments/provenance.py code_hash": "the package's own sources",
    "paul/experiments/provenance.py machine": SYSTEM,
    "paul/weights.py load_imagenet": "torchvision downloads it and checks its hash",
    "data_prep/real.py plan_folder": "takes the hash of its bytes; reading it is fuzzed as the table",
    "data_prep/real.py _Writing.__call__": "takes the hash of bytes that it has just put there",
    "data_prep/statistics.py": "figures that lie beside it in the package",
    "data_prep/cuhk03.py _rows_of_split": "fuzzed as the split, in a process of its own",
    "book/course/sandbox.py limit": SYSTEM,
    "book/course/sandbox.py main": "the grader's own request",
    "book/alone.py _mathjax": "a script of an installed package",
    "book/alone.py as_webp": "a picture that an executed chapter made, opened as PNG alone",
    "book/build.py build_site": "the book's own pages",
    "book/build.py _lighten": "pages and pictures that Sphinx has just written",
    "book/course/archive.py write_archive.pack": "the book's own pages, slides and notebooks",
    "book/course/slides.py deck": "style and scripts of the book and of an installed package",
    "book/course/slides.py executed_notebooks": "notebooks that this book has executed",
    "book/pack.py pack.write": "the book's own pages, taken as bytes",
    "book/quickstart.py quickstart": "a notebook that it has just executed",
    "book/build.py _write_page": "a notebook that this book has executed",
    "book/game.py _inline": "a picture of the rendered people, shown as it is",
    "book/widgets/__init__.py fragment": "the book's own scripts",
    "book/costs.py write_costs": "book.toml, which has been read as the book by then",
    "book/manifest.py _processor": SYSTEM,
    "book/pairs.py read_chapter": CHAPTERS,
    "book/pairs.py differing": CHAPTERS,
}
READS = (
    *("open", "read_text", "read_bytes", "safe_open", "memmap", "fromfile", "loadtxt", "genfromtxt", "loadmat"),
    *("read_csv", "read_table", "read_json", "read_pickle", "read_parquet", "read_metadata", "ParquetFile", "ZipFile"),
    *("read_excel", "read_hdf", "read_feather", "is_zipfile", "imread", "decode_image", "get_state_dict", "load_file"),
    *("np.load", "torch.load", "torch.jit.load", "json.load", "tomllib.load", "pickle.load", "onnx.load", "yaml.load"),
    *("joblib.load", "h5py.File", "jupytext.read", "nbformat.read", "csv.reader", "csv.DictReader", "sqlite3.connect"),
    *("configparser.read", "ElementTree.parse", "yaml.safe_load", "mmap.mmap", "os.open", "io.open"),
)


def openers(path):
    """{(file, line): "file function"} of the functions of a file that read another one."""
    found = {}

    def walk(node, names, line):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [*names, node.name]
            line = min([node.lineno, *(part.lineno for part in node.decorator_list)])
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            modes = [*node.args[called == "open" :], *(word.value for word in node.keywords)]  # of a path: its first
            writes = called.endswith("open") and any(is_text(mode) and mode.value[:1] in "wxa" for mode in modes)
            local = called == "load_file"  # our own readers, defined beside their callers
            if any(f".{called}".endswith(f".{name}") for name in READS) and not writes and not local:
                where = path.relative_to(ROOT).as_posix()
                found[str(path), line] = f"{where} {'.'.join(names)}".rstrip()
        for child in ast.iter_child_nodes(node):
            walk(child, names, line)

    walk(ast.parse(path.read_text(encoding="utf-8")), [], 0)
    return found


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_openers_are_found_where_they_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "some.py").write_text(
        "import numpy as np\nopen('a')\ndef f(path):\n    path.open('wb')\nclass A:\n    @property\n"
        "    def g(self):\n        def h():\n            return np.load('a')\n        return lambda: h()\n"
        "def w():\n    return Path().read_text()\n"
    )
    assert sorted(openers(tmp_path / "some.py").values()) == ["some.py", "some.py A.g.h", "some.py w"]


def test_every_function_that_reads_a_file_is_fuzzed_or_named_as_trusted(tmp_path):
    found = {}
    for folder in ("paul", "data_prep", "book"):
        for path in (ROOT / folder).rglob("*.py"):
            if not path.is_relative_to(ROOT / "book/chapters"):  # see CHAPTERS
                found |= openers(path)
    reached = set()

    def note(frame, event, _):
        if event == "call":
            reached.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    for name, (read, seeds) in TARGETS.items():
        (tmp_path / name).mkdir()
        some = seeds()[:1]
        sys.setprofile(note)
        try:
            for content in some:
                read(content, tmp_path / name)
        finally:
            sys.setprofile(None)
    fuzzed = {found[place] for place in reached & found.keys()}
    assert len(fuzzed) > 20
    assert set(found.values()) - fuzzed == set(TRUSTED), "fuzz it in tests/hostile.py, or say here why it is trusted"
    assert all(len(reason) > 10 for reason in TRUSTED.values())


def test_the_judge_of_answers_can_say_no(tmp_path):
    def refuse(error):
        raise error

    with pytest.raises(AssertionError, match="does not name"):
        expect(tmp_path / "a.csv", ValueError, lambda: refuse(ValueError("something is wrong")))
    with pytest.raises(KeyError):
        expect(tmp_path / "a.csv", ValueError, lambda: refuse(KeyError(str(tmp_path / "a.csv"))))
    assert expect(tmp_path / "a.csv", ValueError, lambda: refuse(ValueError(f"{tmp_path / 'a.csv'} is bad"))) is None


def replaced(data, draw):
    """A copy of nested data in which one value, drawn from all, is another, or is missing."""
    data = deepcopy(data)
    places = []

    def walk(part):
        for key in part if isinstance(part, dict) else range(len(part)):
            places.append((part, key))
            if isinstance(part[key], dict | list):
                walk(part[key])

    walk(data)
    part, key = draw(st.sampled_from(places))
    if draw(st.booleans()):
        part[key] = draw(anything)
    else:
        del part[key]
    return data


# --- texts ---


@anywhere
@given(st.data())
def test_any_table_as_an_index(tmp_path, data):
    odd = ["train", "query", "1", "-1", "0.5", "1e300", "inf", "9" * 30, '"', "\0"]
    cell = st.text(max_size=6) | st.sampled_from(odd)
    header = data.draw(st.permutations(INDEX.decode().splitlines()[0].split(",")))
    rows = data.draw(st.lists(st.lists(cell, min_size=1, max_size=8), max_size=4))
    lines = [",".join(header), *INDEX.decode().splitlines()[1:], *(",".join(row) for row in rows)]
    TARGETS["index"][0]("\n".join(lines).encode("utf-8", "surrogatepass"), tmp_path)


@anywhere
@given(st.data())
def test_any_card(tmp_path, data):
    TARGETS["card"][0](json.dumps(replaced(json.loads(CARD), data.draw)).encode(), tmp_path)
    TARGETS["card"][0](json.dumps(data.draw(anything)).encode(), tmp_path)


@anywhere
@given(st.data())
def test_any_run_record_and_the_tables_over_it(tmp_path, data):
    content = json.dumps(replaced(json.loads(RECORD), data.draw)).encode()
    TARGETS["record"][0](content, tmp_path)


@settings(anywhere, max_examples=10)
@given(st.data())
def test_tables_are_written_whatever_a_record_says(tmp_path, data):
    folder = tmp_path / "runs/mini"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "paul--market--s0--ab.json").write_text(json.dumps(replaced(json.loads(RECORD), data.draw)))
    (folder / "paul--market--s1--ab.json").write_bytes(RECORD.replace(b'"seed": 0', b'"seed": 1'))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert all(path.is_file() for path in write_tables(tmp_path, "mini", CLAIMS.parent / "paper"))
        assert 1 in runs.runs_frame(records.read_records(tmp_path, "mini"))["seed"].tolist()


@anywhere
@given(st.data())
def test_any_value_in_the_claims(tmp_path, data):
    values = [
        "1",
        "-1.5",
        "nan",
        "inf",
        '""',
        "[]",
        "[[]]",
        "[1, 2]",
        "{a = 1}",
        "true",
        "1979-05-27",
        "'paul'",
        "[['a']]",
        "[['paul', 1]]",
        "[{}]",
        "9" * 5000,
    ]
    lines = CLAIMS.read_text(encoding="utf-8").splitlines()
    place = data.draw(st.sampled_from([n for n, line in enumerate(lines) if " = " in line and '"""' not in line]))
    name = lines[place].partition(" = ")[0]
    lines[place] = f"{name} = {data.draw(st.sampled_from(values))}"
    TARGETS["claims"][0]("\n".join(lines).encode(), tmp_path)


@pytest.mark.parametrize("target", ["card", "record", "claims", "book"])
def test_what_nests_too_deeply_is_refused(target, tmp_path):
    deep = b"[" * 100_000
    TARGETS[target][0](deep if target in ("card", "record") else b"claim = " + deep, tmp_path)


@pytest.mark.parametrize("target", list(TARGETS))
def test_empty_files_and_the_wrong_ones(target, tmp_path):
    for content in (b"", b"\0" * 1000, b"\xff\xfe\xfa", INDEX, CARD, RECORD, BOOK, archive()):
        TARGETS[target][0](content, tmp_path)


# --- checkpoints ---


@settings(anywhere, max_examples=60)
@given(st.data())
def test_any_value_in_a_checkpoint(tmp_path, data):
    odd = (
        st.sampled_from(
            [
                torch.zeros(1).expand(2, 8, 96),
                torch.zeros(2, 8, 96, device="meta"),
                torch.zeros(0),
                torch.zeros(2, 8, 96).to_sparse(),
                torch.zeros(2, 8, 96, dtype=torch.complex64),
                torch.zeros(2, 8, 96, dtype=torch.long),
                torch.full((2, 8, 96), float("nan")),
            ]
        )
        | anything
    )
    state = torch.load(io.BytesIO(archive()), weights_only=True)
    place = data.draw(st.sampled_from(["", "options", "model"]))
    part = state[place] if place else state
    part[data.draw(st.sampled_from(list(part)))] = data.draw(odd)
    content = io.BytesIO()
    torch.save(state, content)
    TARGETS["checkpoint"][0](content.getvalue(), tmp_path)


@settings(anywhere, max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path, place, bit):
    content = bytearray(archive())
    content[int(place * len(content))] ^= 1 << bit
    (tmp_path / "model.pt").write_bytes(content)
    try:
        network, training = checkpoint.load(tmp_path / "model.pt")
    except ValueError as error:
        assert str(tmp_path / "model.pt") in str(error)
        return
    state = torch.load(io.BytesIO(archive()), weights_only=True)  # a bit of what fills the gaps between tensors
    assert all(torch.equal(value, state["model"][name]) for name, value in network.state_dict().items())
    assert torch.equal(training["memory"]["bank"], state["training"]["memory"]["bank"]) and training["epoch"] == 3


@settings(anywhere, max_examples=30)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    (tmp_path / "model.pt").write_bytes(archive()[: int(share * len(archive()))])
    with pytest.raises(ValueError, match="model.pt is (refused|truncated, damaged)"):
        checkpoint.load(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path):
    class Touch:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"format": 1, "model": Touch()}, protocol=2))
        file.writestr("archive/version", "3\n")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Touch()))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(ValueError, match=f"{name} is (refused|truncated)"):
            checkpoint.load(tmp_path / name)
    for content in hostile_pickles():
        TARGETS["pickle"][0](content, tmp_path)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("number", range(len(bombs())))
def test_a_checkpoint_that_claims_more_memory_than_there_is(number, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(bombs()[number])
    begin = time.monotonic()
    with pytest.raises(ValueError, match="model.pt "):
        checkpoint.load(path)
    assert time.monotonic() - begin < 5

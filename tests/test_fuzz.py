"""What reads files answers to any content with a result or a clear error: never a hang, a crash or code that runs."""

import io
import json
import os
import pickle
import platform
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

from paul import checkpoint
from paul.experiments import records
from paul.report import frames as runs
from paul.report.tables import write_tables

anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
LINUX = sys.platform == "linux" and platform.machine() == "x86_64"  # what atheris is made for
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


@pytest.mark.skipif(not LINUX, reason="atheris is there for Linux on x86-64 only")
def test_fuzzing_finds_nothing(tmp_path):
    """A few seconds and thousands of contents for each target; python -m tests.fuzz looks for longer."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seconds", "3"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert sorted(done.stdout.split("\n")[:-1]) == sorted(f"{target}: nothing found" for target in TARGETS)
    tried = [int(number) for number in re.findall(r"number_of_executed_units: (\d+)", done.stderr)]
    assert len(tried) == len(TARGETS) and min(tried) > 20


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

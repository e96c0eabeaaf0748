"""Reading an index: what comes out, and every way in which it can be wrong, named by file and line."""

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from people import at_most, pairs, write_set

from data_prep.__main__ import build_parser
from data_prep.bench import open_long_index
from paul.data.datasets import ReidDataset, first_repeated
from paul.data.files import first_unfit, unfit_path


@pytest.fixture
def folder(tmp_path):
    splits = {"train": pairs([3, 1]), "query": [(7, 1)], "gallery": [(7, 2), (-1, 1), (0, 3)]}
    return write_set(tmp_path / "set", splits)


def rewrite(folder, change):
    index = folder / "index.csv"
    lines = index.read_text().splitlines()
    index.write_text("\n".join(change(lines)) + "\n")


def test_a_set_is_read_in_the_order_of_its_index(folder):
    dataset = ReidDataset.load(str(folder))
    assert (dataset.name, dataset.fingerprint, dataset.root) == ("set", "set-0", folder)
    assert dataset.splits == ["train", "query", "gallery"]
    train, gallery = dataset.split("train"), dataset.split("gallery")
    assert train.person_ids.tolist() == [3, 3, 1, 1] and train.camera_ids.tolist() == [1, 2, 1, 2]
    assert gallery.person_ids.tolist() == [7, -1, 0] and gallery.person_ids.dtype == np.int64
    assert len(gallery) == len(gallery.files) == 3 and all(path.is_file() for path in train.files + gallery.files)
    assert train.files[0].parent == folder / "bounding_box_train"
    assert list(gallery.frame.columns) == ["file", "split", "person_id", "camera_id", "sequence", "frame"]
    few = train.take([3, 0])
    assert few.person_ids.tolist() == [1, 3] and few.files == [train.files[3], train.files[0]]


def test_a_set_without_a_card_bears_its_folders_name(folder):
    (folder / "card.json").unlink()
    dataset = ReidDataset.load(folder)
    assert (dataset.name, dataset.card, dataset.fingerprint) == ("set", {}, "")


def test_an_index_saved_by_a_spreadsheet_is_read(folder):
    index = folder / "index.csv"
    index.write_text(index.read_text(), encoding="utf-8-sig")
    assert ReidDataset.load(folder).split("train").person_ids.tolist() == [3, 3, 1, 1]


def test_a_split_that_is_not_there(folder):
    dataset = ReidDataset.load(folder)
    for name in ("val_query", "test"):
        with pytest.raises(ValueError, match=rf"index.csv has no images in split '{name}'; it has \['train', 'query'"):
            dataset.split(name)


def test_a_missing_and_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        with pytest.raises(FileNotFoundError, match=f"{name}/index.csv does not exist.*data_prep.*or name a folder"):
            ReidDataset.load(tmp_path / name)


def cell(line, column, value):
    """Put a value into a column of a line counted as an editor does, the header being line 1."""

    def change(lines):
        cells = lines[line - 1].split(",")
        cells[column] = value
        return [*lines[: line - 1], ",".join(cells), *lines[line:]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: [line.partition(",")[2] for line in lines],
            "lacks the column 'file'; it needs file, split, person",
        ),
        (lambda lines: [line.replace("camera_id", "camera") for line in lines], "lacks the column 'camera_id'"),
        (cell(3, 1, "trian"), "line 3: unknown split 'trian'; use train, query, gallery"),
        (cell(3, 1, ""), "line 3: unknown split ''"),
        (cell(4, 2, "p7"), "line 4: person_id 'p7' is not a whole number"),
        (cell(4, 2, ""), "line 4: person_id '' is not a whole number"),
        (cell(5, 2, "1.5"), "line 5: person_id '1.5' is not a whole number"),
        (cell(5, 3, "inf"), "line 5: camera_id 'inf' is not a whole number"),
        (cell(5, 3, str(2**53 + 1)), "line 5: camera_id '9007199254740993' is not a whole number of at most 2[*]{2}53"),
        (cell(5, 3, "9" * 20), "line 5: camera_id '9{20}' is not a whole number of at most 2[*]{2}53"),
        (cell(5, 3, "9" * 5000), "line 5: camera_id .{1,90} is not a whole number"),
        (cell(6, 0, "../a.png"), "line 6: the file '../a.png' is no path of a file inside the folder"),
        (cell(6, 0, "/dev/zero"), "line 6: the file '/dev/zero' is no path of a file inside the folder"),
        (cell(6, 0, "query\\..\\..\\a.png"), "line 6: the file .* is no path of a file inside the folder"),
        (cell(6, 0, "."), "line 6: the file '.' is no path of a file inside the folder"),
        (cell(6, 0, "a\tb.png"), r"line 6: the file 'a\\tb.png' holds a control character"),
        (cell(6, 0, "a" * 5000), "line 6: the file .{1,90} is longer than 4,096 letters"),
        (lambda lines: [*lines, lines[2]], "line 10: bounding_box_train/.* is listed twice"),
        (lambda lines: lines[:1], "lists no images"),
        (lambda lines: [*lines, "a,b,c,d,e,f,g,h"], "cannot be read as a table"),
    ],
)
def test_what_can_be_wrong_with_an_index(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=f"set/index.csv,? {message}"):
        ReidDataset.load(folder)


def test_files_that_are_no_index_and_no_card(folder):
    index = folder / "index.csv"
    for content in (b"", b"\xff\xfe\x00\x01"):
        index.write_bytes(content)
        with pytest.raises(ValueError, match="index.csv (cannot be read as a table|lacks the column)"):
            ReidDataset.load(folder)
    write_set(folder, {"train": [(1, 1)]})
    for content in ("{", "[1]"):
        (folder / "card.json").write_text(content)
        with pytest.raises(ValueError, match="card.json is not"):
            ReidDataset.load(folder)


def test_ten_million_rows_open_in_half_a_minute_and_four_gigabytes():
    """From two short indexes, by what each further row takes; `data_prep bench --index 10000000` opens a real one."""
    few, many = (open_long_index(rows) for rows in (1_000, 400_000))
    cpu, peak = ((many[i] - few[i]) / 399_000 * 10_000_000 + few[i] for i in (1, 2))
    assert cpu < 30 and peak < 4e9, (cpu, peak)


@pytest.mark.parametrize("name", ["index.csv", "card.json"])
def test_an_index_or_a_card_that_is_a_pipe_is_never_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with at_most(5), pytest.raises(ValueError, match=f"set/{name} .*it is a pipe, no regular file"):
        ReidDataset.load(folder)


@given(st.lists(st.text(st.sampled_from("a/.\\: \0\nC\u00a0ж\ud800"), max_size=6) | st.just("x" * 4097), min_size=1))
def test_the_first_path_that_does_not_fit_is_what_a_walk_finds(paths):
    assert first_unfit(paths) == next((row for row, path in enumerate(paths) if unfit_path(path)), None)


@pytest.mark.parametrize("storage", ["python", "pyarrow"])
def test_a_file_listed_twice_is_found_however_texts_are_stored(folder, storage):
    with pd.option_context("mode.string_storage", storage):
        file = ReidDataset.load(folder).frame["file"][2]
        rewrite(folder, lambda lines: [*lines, lines[3], lines[2]])
        with pytest.raises(ValueError, match=f"line 10: {file} is listed twice"):
            ReidDataset.load(folder)


@given(st.lists(st.text(max_size=2), min_size=1, max_size=12))
def test_the_first_repeated_text_is_what_a_walk_finds(texts):
    seen, expected = set(), None
    for row, text in enumerate(texts):
        if text in seen and expected is None:
            expected = row
        seen.add(text)
    assert first_repeated(pd.Series(texts, dtype=str)) == expected


def test_texts_of_equal_hashes_are_compared(monkeypatch):
    monkeypatch.setattr(pd.util, "hash_array", lambda values, **_: np.zeros(len(values), np.uint64))
    assert first_repeated(pd.Series(["a", "b", "c"])) is None
    assert first_repeated(pd.Series(["a", "b", "a", "b"])) == 2


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("data/market1501", "market1501 --raw ARCHIVE_OR_FOLDER --out data"),
        ("sets/msmt17", "msmt17 --raw ARCHIVE_OR_FOLDER --out sets"),
        ("dukemtmc", "dukemtmc --raw ARCHIVE_OR_FOLDER --out . --i-have-the-right"),
        ("data/cuhk03_detected", "cuhk03 --raw ARCHIVE_OR_FOLDER --splits FOLDER_OF_SPLIT_FILES --out data"),
        ("data/mini/duke", "synthetic --profile mini --out data"),
        ("data/mine", "folder --raw FOLDER_OF_IMAGES --name mine --out data"),
    ],
)
def test_a_missing_set_is_named_with_the_command_that_makes_it(folder, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{folder}/index.csv does not exist. Make it with") as refused:
        ReidDataset.load(folder)
    assert f"'python -m data_prep {command}'" in str(refused.value)
    build_parser().parse_args(command.split())  # it is one that there is

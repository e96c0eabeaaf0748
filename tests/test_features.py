"""Features files of any content: what was written comes back, and nothing is read that a file does not hold."""

import io
import json
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from people import at_most

from paul.retrieval.features import read_embeddings, stamp_of, write

FRAME = pd.DataFrame({"file": ["a.png", "b b.png", "ü.png"], "person_id": [7, -1, 0], "camera_id": [1, 2, -1]})
VECTORS = np.arange(24, dtype=np.float32).reshape(3, 8)
STAMP = {"model": "0123", "made_of": "4567"}


@pytest.fixture(params=[".npz", ".parquet"])
def file(request, tmp_path):
    path = tmp_path / f"features{request.param}"
    write(path, FRAME, [VECTORS[:2], VECTORS[2:]], 8, STAMP)
    return path


def refused(path, words=""):
    """Reading it says which file is wrong, and takes no memory to speak of beyond the file's own bytes."""
    tracemalloc.start()
    before = pa.default_memory_pool().bytes_allocated()  # of others, which it returns when it likes
    try:
        with pytest.raises(ValueError, match=f"^{path} is no features file, or damaged .*{words}"):
            read_embeddings(path)
        allowed = path.stat().st_size + 2**23
        assert tracemalloc.get_traced_memory()[1] < allowed
        assert pa.default_memory_pool().bytes_allocated() < before + allowed
    finally:
        tracemalloc.stop()


def test_what_was_written_comes_back(file):
    found = read_embeddings(file)
    pd.testing.assert_frame_equal(found.frame, FRAME)
    assert np.array_equal(found.vectors, VECTORS) and found.vectors.dtype == np.float32
    assert found.model == "0123" and stamp_of(file) == {**STAMP, "rows": 3}


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_pipe_a_folder_or_a_device_is_named_and_not_opened(suffix, tmp_path):
    pipe, folder, device = (tmp_path / f"{name}{suffix}" for name in ("pipe", "folder", "device"))
    os.mkfifo(pipe)
    folder.mkdir()
    device.symlink_to("/dev/zero")
    with at_most(20, pipe):
        refused(pipe, "it is a pipe")
        refused(folder, "Is a directory")
        refused(device, "it is a device")


def test_a_flipped_bit_is_refused_or_changes_nothing(file):
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 150):
        content = bytearray(whole)
        content[place] ^= 1 << rng.integers(8)
        file.write_bytes(content)
        try:
            found = read_embeddings(file)
        except ValueError as error:
            assert str(file) in str(error) and "\n" not in str(error)
            continue
        pd.testing.assert_frame_equal(found.frame, FRAME)
        assert np.array_equal(found.vectors, VECTORS)


# --- npz ---


def arrays(**changes):
    same = {name: FRAME[name].to_numpy() for name in ("person_id", "camera_id")}
    files = np.array(FRAME["file"].tolist(), dtype=str)
    return {"files": files, **same, "features": VECTORS, **STAMP, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"person_id": np.array(["a", "b", "c"])},
        {"camera_id": np.array([1.0, 2.0, 3.0])},
        {"camera_id": np.array([1, 2])},
        {"person_id": np.array([[1, 2, 3]])},
        {"features": VECTORS.astype(np.float64)},
        {"features": VECTORS.astype(">f4")},
        {"features": VECTORS[:, :0]},
        {"features": VECTORS.reshape(3, 2, 4)},
        {"features": np.full_like(VECTORS, np.nan)},
        {"features": np.full_like(VECTORS, -np.inf)},
        {"files": np.array(["a", "b", "\ud800"])},
        {"files": np.array(["a", "b\0b", "c"])},
        {"files": np.array([b"a", b"b", b"c"])},
        {"model": np.array(["a", "b"])},
        {"model": 5},
    ],
    ids=str,
)
def test_arrays_of_other_kinds_are_refused(changes, tmp_path):
    np.savez(tmp_path / "f.npz", **arrays(**changes))
    refused(tmp_path / "f.npz")


def with_header(shape, kind="<f4", data=b"\0" * 32):
    """An array that claims a shape."""
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    "name, content",
    [
        ("features", with_header((3, 2**28))),
        ("features", with_header((10**12, 0), data=b"")),
        ("features", with_header((-2, -4))),
        ("features", with_header((2**62, 2**62))),
        ("features", with_header((3, "'x'"))),
        ("features", with_header("(" * 2000)),
        ("features", with_header((3, 8), "|O")),
        ("files", with_header((10**12,), "<U0", b"")),
        ("files", with_header((1,), "<U500000000")),
        ("camera_id", with_header((2**30,), "<i8")),
        ("camera_id", b"\x93NUMPY\x09\0"),
        ("camera_id", b""),
    ],
    ids=lambda part: str(part[:60]) if isinstance(part, bytes) else part,
)
def test_an_array_that_claims_more_than_is_stored(name, content, tmp_path):
    np.savez(tmp_path / "whole.npz", **arrays())
    with zipfile.ZipFile(tmp_path / "whole.npz") as source, zipfile.ZipFile(tmp_path / "f.npz", "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, content if entry.filename == f"{name}.npy" else source.read(entry))
    refused(tmp_path / "f.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_compressed_is_not_unpacked(method, tmp_path):
    zeros = io.BytesIO()
    np.save(zeros, np.zeros((3, 2**20), np.float32))
    with zipfile.ZipFile(tmp_path / "f.npz", "w", method) as archive:
        for name, array in arrays().items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.save(entry, array) if name != "features" else entry.write(zeros.getvalue())
    del zeros
    refused(tmp_path / "f.npz", "its entries are compressed")


def test_entries_that_overlap_are_not_read(tmp_path):
    """One stored array under many names, as in a zip of zips that all share their bytes."""
    np.savez(tmp_path / "f.npz", **arrays())
    content = (tmp_path / "f.npz").read_bytes()
    start = content.index(b"PK\1\2")
    end = content.index(b"PK\5\6")
    directory = content[start:end]
    count = struct.unpack("<H", content[end + 10 : end + 12])[0]
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9 * count, 9 * count, 9 * len(directory), start, 0)
    (tmp_path / "f.npz").write_bytes(content[:start] + 9 * directory + tail)
    refused(tmp_path / "f.npz", "more than it holds")


# --- Parquet ---


def table(**changes):
    columns = {
        "file": pa.array(FRAME["file"].tolist(), pa.string()),
        "person_id": pa.array(FRAME["person_id"]),
        "camera_id": pa.array(FRAME["camera_id"]),
        "features": pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), 8),
        **changes,
    }
    return pa.table(columns).replace_schema_metadata(STAMP)


@pytest.mark.parametrize(
    "changes",
    [
        {"person_id": pa.array(["a", "b", "c"])},
        {"person_id": pa.array([1, None, 3])},
        {"camera_id": pa.array([1.0, 2.0, 3.0])},
        {"camera_id": pa.array([1, 2, 3], pa.int32())},
        {"file": pa.array([b"a", b"\xff", b"c"])},
        {"file": pa.array(["a", None, "c"])},
        {"file": pa.array(["a", "b\0", "c"])},
        {"features": pa.array(VECTORS.tolist(), pa.list_(pa.float32()))},
        {"features": pa.array(VECTORS.tolist(), pa.list_(pa.float64(), 8))},
        {"features": pa.array([[1.0] * 8, None, [1.0] * 8], pa.list_(pa.float32(), 8))},
        {"features": pa.array([[None] + [1.0] * 7] * 3, pa.list_(pa.float32(), 8))},
        {"features": pa.array([[float("nan")] * 8] * 3, pa.list_(pa.float32(), 8))},
        {"more": pa.array([1, 2, 3])},
    ],
    ids=lambda changes: f"{next(iter(changes))} {next(iter(changes.values())).type}",
)
def test_columns_of_other_kinds_are_refused(changes, tmp_path):
    pq.write_table(table(**changes), tmp_path / "f.parquet", compression="none", use_dictionary=False)
    refused(tmp_path / "f.parquet")


def test_the_words_of_a_foreign_writer_decide_nothing(tmp_path):
    """pandas leaves notes in a table that would turn columns into an index or other types."""
    notes = {"index_columns": ["file"], "columns": [{"name": "person_id", "numpy_type": "object"}]}
    whole = table().replace_schema_metadata({**STAMP, "pandas": json.dumps(notes)})
    pq.write_table(whole, tmp_path / "f.parquet", compression="none")
    pd.testing.assert_frame_equal(read_embeddings(tmp_path / "f.parquet").frame, FRAME)


@pytest.mark.parametrize("codec", ["snappy", "gzip", "zstd", "brotli", "lz4"])
def test_compressed_columns_are_not_unpacked(codec, tmp_path):
    pq.write_table(table(), tmp_path / "f.parquet", compression=codec)
    refused(tmp_path / "f.parquet", "its columns are compressed")


@pytest.mark.parametrize("encoding", ["RLE_DICTIONARY", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_a_name_that_is_stored_once_and_repeated_without_end(encoding, tmp_path):
    rows, name = 1000, "a" * 50_000
    many = pa.table(
        {
            "file": pa.array([name] * rows),
            "person_id": pa.array([1] * rows),
            "camera_id": pa.array([1] * rows),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows, np.float32)), 1),
        }
    ).replace_schema_metadata(STAMP)
    how = {"use_dictionary": ["file"]} if "RLE" in encoding else {"column_encoding": {"file": encoding}}
    how = {"use_dictionary": False, "compression": "none", "write_statistics": False, **how}
    pq.write_table(many, tmp_path / "f.parquet", **how)
    del many
    if encoding != "DELTA_LENGTH_BYTE_ARRAY":  # which stores every byte
        assert (tmp_path / "f.parquet").stat().st_size < 2**19
    refused(tmp_path / "f.parquet")


def test_descriptors_that_are_stored_once_and_repeated_without_end(tmp_path):
    rows = 100_000
    many = pa.table(
        {
            "file": pa.array(["a"] * rows),
            "person_id": pa.array([1] * rows),
            "camera_id": pa.array([1] * rows),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(64 * rows, np.float32)), 64),
        }
    ).replace_schema_metadata(STAMP)
    pq.write_table(many, tmp_path / "f.parquet", compression="none")
    del many
    assert (tmp_path / "f.parquet").stat().st_size < 2**22
    refused(tmp_path / "f.parquet", "it claims 100000 rows of 64 numbers")


def test_a_damaged_footer_does_not_end_the_process(tmp_path):
    """pyarrow's own view of such metadata aborts Python."""
    write(tmp_path / "f.parquet", FRAME, [VECTORS], 8, STAMP)
    whole = (tmp_path / "f.parquet").read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    for place in range(len(whole) - 8 - length, len(whole), 7):
        content = bytearray(whole)
        content[place] = 0xFF
        (tmp_path / "f.parquet").write_bytes(content)
        try:
            assert len(read_embeddings(tmp_path / "f.parquet").vectors) == stamp_of(tmp_path / "f.parquet")["rows"] == 3
        except ValueError as error:
            assert "f.parquet is no features file, or damaged" in str(error)

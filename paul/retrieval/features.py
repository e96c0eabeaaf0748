"""A features file: descriptors of many images and which images they are, as Parquet or NumPy's npz.

Both are written without compression, and files with compression are refused: so no file takes memory beyond its own
bytes, whatever it claims. Shapes are held against those bytes before anything is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from paul.engine.files import first_line, open_archive, write_atomically
from paul.engine.regular import check_regular
from paul.retrieval.footer import Footer, read_footer

COLUMNS = ("file", "person_id", "camera_id")
# arrays in .npz: of which type, of how many axes
ARRAYS = {"files": (np.str_, 1), "person_id": (np.int64, 1), "camera_id": (np.int64, 1), "features": (np.float32, 2)}
ARRAYS |= {"model": (np.str_, 0), "made_of": (np.str_, 0), "rows": (np.int64, 1)}
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Embeddings:
    """What a features file holds.

    Attributes:
        frame: a row per image: file, person_id, camera_id (-1 where unknown).
        vectors: float32 [N, M*D].
        model: `Extractor.fingerprint` of the network.
    """

    frame: pd.DataFrame
    vectors: np.ndarray
    model: str


def check_format(path: Path) -> None:
    """Raises ValueError: another suffix than .parquet and .npz; RuntimeError: Parquet is wanted without pyarrow."""
    if path.suffix not in (".parquet", ".npz"):
        raise ValueError(f"{path}: a features file ends in .parquet or .npz")
    if path.suffix == ".parquet":
        _pyarrow()


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeError(
            "Parquet files need the package pyarrow: install paul-book[search], or let the file end in .npz"
        ) from error
    return pyarrow


def _schema(width: int):
    pa = _pyarrow()
    features = pa.list_(pa.float32(), width)
    return pa.schema(
        [("file", pa.string()), ("person_id", pa.int64()), ("camera_id", pa.int64()), ("features", features)]
    )


# -------------------------------------------------------------------------------------------------------------- writing


def write(path: Path, frame: pd.DataFrame, blocks: Iterable[np.ndarray], width: int, stamp: dict[str, str]) -> None:
    """Write descriptors that come in blocks [n, width], in the order of `frame`; whole or not at all.

    In Parquet, `features` is a list of M*D float32 per row.
    """
    if path.suffix == ".npz":
        columns = {name: frame[name].to_numpy() for name in COLUMNS[1:]}
        columns |= {"files": np.array(frame["file"].tolist(), dtype=str), "features": np.concatenate([*blocks])}
        write_atomically(path, lambda file: np.savez(file, **columns, **stamp))
        return
    pa = _pyarrow()
    schema = _schema(width).with_metadata(stamp)

    def write_parquet(file):
        plain = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
        with pa.parquet.ParquetWriter(file, schema, **plain) as writer:
            first = 0
            for block in blocks:
                rows = frame.iloc[first : first + len(block)]
                columns = [pa.array(rows[name].tolist(), schema.field(name).type) for name in COLUMNS]
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), width)
                writer.write_table(pa.Table.from_arrays([*columns, vectors], schema=schema))
                first += len(block)

    write_atomically(path, write_parquet)


# -------------------------------------------------------------------------------------------------------------- reading


@contextmanager
def _named(path: Path):
    """Whatever reading a damaged file raises, of which there is no list, in words that name the file."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"no features file at {path}; 'paul embed IMAGES -o {path}' makes one") from None
    except Exception as error:
        raise ValueError(
            f"{path} is no features file, or damaged ({first_line(error)}); 'paul embed' makes one"
        ) from error


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz file, each of the kind that ARRAYS says. Raises anything at all for a damaged file."""
    found = []
    with open_archive(path) as archive:
        for name in names:
            entry = archive.getinfo(f"{name}.npy")
            with archive.open(entry) as file:
                shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
                stored = entry.file_size - file.tell()
            fits = (dtype.type, len(shape)) == ARRAYS[name] and dtype.isnative
            if not fits or math.prod(shape) * dtype.itemsize != stored:
                raise ValueError(f"{name}: {dtype} {shape} in {stored} bytes")
            with archive.open(entry) as file:
                found.append(np.lib.format.read_array(file, allow_pickle=False))
    return found


def _claims(path: Path) -> Footer:
    """What a Parquet file of ours says of itself; of others, and where rows and values disagree, ValueError."""
    check_regular(path)
    claims = read_footer(path)
    for columns in claims.values:
        values, rows = columns[-1]
        width = values // rows
        if columns != [(rows, rows)] * len(COLUMNS) + [(width * rows, rows)]:
            raise ValueError(f"it claims {', '.join(str(count) for count, _ in columns)} values in {rows} rows")
        if 4 * width * claims.rows > path.stat().st_size:
            raise ValueError(f"it claims {claims.rows} rows of {width} numbers in {path.stat().st_size} bytes")
    return claims


def _read_parquet(path: Path) -> list:
    """Names, person ids, camera ids and features."""
    pa, claims = _pyarrow(), _claims(path)
    # as a dictionary: a name is held once, however often a damaged file repeats it
    file = pa.parquet.ParquetFile(path, read_dictionary=["file"], page_checksum_verification=True)
    schema, width = file.metadata.schema.to_arrow_schema(), claims.values[0][-1][0] // claims.values[0][-1][1]
    if not schema.equals(_schema(width)):
        raise ValueError("its columns are " + ", ".join(f"{field.name} {field.type}" for field in schema))
    table = file.read()
    table.validate(full=True)
    if any(column.null_count for column in table.itercolumns()):
        raise ValueError("values are missing")
    written = [pa.compute.binary_length(part.dictionary).take(part.indices) for part in table["file"].chunks]
    if sum(pa.compute.sum(lengths).as_py() for lengths in written) > path.stat().st_size:
        raise ValueError("its names are longer than itself")
    features = table["features"].combine_chunks()
    vectors = features.flatten().to_numpy(zero_copy_only=False).reshape(len(features), -1)
    return [table["file"].to_pylist(), *(table[name].to_numpy() for name in COLUMNS[1:]), vectors]


def stamp_of(path: Path) -> dict:
    """What a features file says about itself, without its descriptors: model, made_of, rows.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: as `read_embeddings`.
    """
    check_format(path)
    with _named(path):
        if path.suffix == ".npz":
            model, made_of, cameras = read_arrays(path, "model", "made_of", "camera_id")
            return {"model": str(model), "made_of": str(made_of), "rows": len(cameras)}
        claims = _claims(path)
        return {**{name: claims.notes[name] for name in ("model", "made_of")}, "rows": claims.rows}


def read_embeddings(path: str | Path) -> Embeddings:
    """Read a features file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, claims more than it holds, or was not written by `embed`; it is a pipe or a device.
        RuntimeError: Parquet files need pyarrow, which is not installed.
    """
    path = Path(path)
    model = stamp_of(path)["model"]
    with _named(path):
        wanted = ("files", *COLUMNS[1:], "features")
        columns = read_arrays(path, *wanted) if path.suffix == ".npz" else _read_parquet(path)
        *about, vectors = columns
        if {len(column) for column in columns} != {len(vectors)} or 0 in vectors.shape:
            raise ValueError(f"{[len(column) for column in columns]} names, people, cameras, descriptors")
        if not (np.isfinite(vectors.min()) and np.isfinite(vectors.max())):
            raise ValueError("descriptors are not finite")
        names = list(map(str, about[0]))
        "\n".join(names).encode()  # half a letter cannot be the name of a file, nor can a zero byte be in it
        if any("\0" in name for name in names):
            raise ValueError("a name holds a zero byte")
        frame = pd.DataFrame({"file": names, **dict(zip(COLUMNS[1:], about[1:]))})
    return Embeddings(frame, vectors, model)

"""What a Parquet file claims, from its footer alone: pyarrow ends the process over some that are damaged.

It is written in Thrift's compact protocol (Apache Thrift, thrift-compact-protocol.md), its fields are those of
Apache Parquet's parquet.thrift.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"PAR1"


@dataclass(frozen=True)
class Footer:
    """Of a file that is not compressed.

    Attributes:
        rows: of all groups.
        notes: what the writer noted, key by key.
        values: for each column of each group, how many values of it there are for how many rows.
    """

    rows: int
    notes: dict[str, str]
    values: list[list[tuple[int, int]]]


def read_footer(path: Path) -> Footer:
    """The claims of a file.

    Raises:
        ValueError: the footer is damaged, columns are compressed or larger than the file, or rows do not add up.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 8))
        tail = file.read()
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length > size - 12:
            raise ValueError("it does not end as a Parquet file does")
        file.seek(size - 8 - length)
        content = io.BytesIO(file.read(length))
    try:
        # FileMetaData: 3 rows, 4 groups, 5 notes; RowGroup: 1 columns, 3 rows; ColumnChunk: 3 its metadata;
        # ColumnMetaData: 4 codec, 5 values, 7 bytes
        about = _struct(content)
        groups = [(group[3], [column[3] for column in group[1]]) for group in about[4]]
        every = [column for _, columns in groups for column in columns]
        codecs, stored = {column[4] for column in every}, sum(column[7] for column in every)
        notes = {note[1].decode(): note[2].decode() for note in about[5]}
        values = [[(column[5], rows) for column in columns] for rows, columns in groups]
    except Exception as error:
        raise ValueError("its footer is damaged") from error
    if codecs != {0}:
        raise ValueError("its columns are compressed")
    if stored > size:
        raise ValueError("its columns are larger than itself")
    if min(rows for rows, _ in groups) < 1 or about[3] != sum(rows for rows, _ in groups):
        raise ValueError("its rows do not add up")
    return Footer(about[3], notes, values)


def _bytes(data: io.BytesIO, count: int) -> bytes:
    found = data.read(count)
    if len(found) < count:
        raise EOFError
    return found


def _byte(data: io.BytesIO) -> int:
    return _bytes(data, 1)[0]


def _varint(data: io.BytesIO) -> int:
    number = shift = 0
    while (byte := _byte(data)) & 0x80:
        number, shift = number | (byte & 0x7F) << shift, shift + 7
        if shift > 63:
            raise ValueError("a number has no end")
    return number | byte << shift


def _struct(data: io.BytesIO) -> dict:
    """Values by their field's number."""
    found, number = {}, 0
    while head := _byte(data):
        step, kind = head >> 4, head & 0x0F
        number = number + step if step else _signed(data)
        found[number] = kind == 1 if kind in (1, 2) else _value(data, kind)
    return found


def _signed(data: io.BytesIO) -> int:
    number = _varint(data)
    return (number >> 1) ^ -(number & 1)


def _list(data: io.BytesIO) -> list:
    head = _byte(data)
    count = head >> 4 if head >> 4 < 15 else _varint(data)
    return [_value(data, head & 0x0F) for _ in range(count)]


# by the type that the protocol gives it; in lists a truth value takes a byte, too
_KINDS = {
    **dict.fromkeys((1, 2, 3), _byte),
    **dict.fromkeys((4, 5, 6), _signed),
    7: lambda data: _bytes(data, 8),
    8: lambda data: _bytes(data, _varint(data)),
    9: _list,
    10: _list,
    12: _struct,
}


def _value(data: io.BytesIO, kind: int):
    return _KINDS[kind](data)

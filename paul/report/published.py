"""The figures that the paper prints in Tables 1 to 4, read from the folder that holds them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pandas as pd

from paul.experiments.rows import TABLES
from paul.report.frames import TARGETS

# What each metric of ours is called in the published tables; their mAP is the trapezoid's (ledger 28).
PRINTED = {"rank1": "rank1", "map_trapezoid": "mAP"}


@lru_cache
def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name the folder that holds the published tables")
    try:
        return pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} is not a published table: {error}") from error


def published(table: str, paper: str | Path) -> pd.DataFrame:
    """A published table as the paper prints it, in per cent; `paper` is the folder of the published tables.

    Raises:
        FileNotFoundError: names the file that is not there.
    """
    return _read(Path(paper) / TABLES[table].file).copy()


def published_value(table: str, row: str, target: str, metric: str, paper: str | Path) -> float:
    """What Table 3 or 4 prints for an experiment row; NaN for a row, target or metric that it doesn't print."""
    line = TABLES[table].lines.get(row)
    if line is None or metric not in PRINTED or target not in TARGETS:
        return float("nan")
    try:
        return float(published(table, paper).loc[line - 1, f"{target}_{PRINTED[metric]}"])
    except (KeyError, ValueError, TypeError) as error:
        path = Path(paper) / TABLES[table].file
        raise ValueError(f"{path} has no number in line {line}, column {target}_{PRINTED[metric]}") from error


def printed_rows(table: str) -> list[str]:
    """The experiment rows of a table that stand for a published line."""
    return [row for row, line in TABLES[table].lines.items() if line is not None]

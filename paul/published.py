"""The figures that the paper prints in Tables 1 to 4, and which experiment row stands for which of its lines."""

from functools import lru_cache
from pathlib import Path

import pandas as pd

from paul.runs import TARGETS

PAPER = Path(__file__).resolve().parents[1] / "book" / "paper"
FILES = {
    "table1": "table1_market1501.csv",
    "table2": "table2_dukemtmc.csv",
    "table3": "table3_ablation.csv",
    "table4": "table4_patch_generation.csv",
}
TITLES = {
    "table1": "Table 1: Market-1501 against other methods",
    "table2": "Table 2: DukeMTMC-reID against other methods",
    "table3": "Table 3: what each part contributes",
    "table4": "Table 4: how patches are made, and how many",
}
COMPARED = {"table1": "market", "table2": "duke"}
# What each metric of ours is called in the published tables; their mAP is the trapezoid's (ledger 28).
METRICS = {"rank1": "rank1", "map_trapezoid": "mAP"}
# Experiment rows in the order in which a table shows them, each with the published line (from 1) that it stands for;
# None: a control that the paper doesn't print. Table 4 prints six patches twice.
LINES = {
    "table3": {
        "image_direct": 1,
        "image_adabn": None,
        "image_lc": 2,
        "image_pull": None,
        "patch_direct": 3,
        "patch_adabn": None,
        "patch_lc": 4,
        "patch_pull": None,
        "patch_lv": 5,
        "paul": 6,
    },
    "table4": {
        "random": 1,
        "random_direct": None,
        "equal": 2,
        "equal_direct": None,
        "pgn4": 4,
        "pgn4_direct": None,
        "paul": 5,
        "patch_direct": None,
        "pgn8": 6,
        "pgn8_direct": None,
    },
}


@lru_cache
def read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the published tables live in {PAPER}")
    return pd.read_csv(path)


def published(table: str, paper_dir=PAPER) -> pd.DataFrame:
    """A published table as the paper prints it, in per cent; FileNotFoundError names the file."""
    return read(Path(paper_dir) / FILES[table]).copy()


def published_value(table: str, row: str, target: str, metric: str, paper_dir=PAPER) -> float:
    """What Table 3 or 4 prints for an experiment row; NaN for a row, target or metric that it doesn't print."""
    line = LINES[table].get(row)
    if line is None or metric not in METRICS or target not in TARGETS:
        return float("nan")
    return float(published(table, paper_dir).loc[line - 1, f"{target}_{METRICS[metric]}"])


def printed_rows(table: str) -> list[str]:
    """The experiment rows of Table 3 or 4 that stand for a published line."""
    return [row for row, line in LINES[table].items() if line is not None]

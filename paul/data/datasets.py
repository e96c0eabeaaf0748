"""A re-ID data set: a folder with an index.csv that says which file shows whom, from which camera, in which split."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from paul.data.files import LARGEST_ID, first_unfit, read_bytes, short, unfit_path
from paul.data.worlds import RENDERED, knobs_of, world_of
from paul.engine.regular import check_regular

COLUMNS = ("file", "split", "person_id", "camera_id")
SPLITS = ("train", "query", "gallery", "val_query", "val_gallery")
JUNK, DISTRACTOR = -1, 0
CHUNK = 2**16  # rows at a time where each becomes a Python object
REAL = ("market1501", "dukemtmc", "msmt17")


def how_to_make(folder: str | Path) -> str:
    """The command that prepares a set, by its folder's name: data/market1501, data/mini/duke, data/my_crops."""
    folder = Path(folder)
    out, name = folder.parent, folder.name
    turned, world = world_of(out.name)
    profile, knobs = knobs_of(turned)
    if name in ("source", "market", "duke") and profile in RENDERED:
        words = {"profile": profile, **({"world": world} if world else {}), **knobs}
        values = {word: " ".join(map(str, value)) if word == "size" else value for word, value in words.items()}
        said = " ".join(f"--{word} {value}" for word, value in values.items())
        return f"python -m data_prep synthetic {said} --out {out.parent}"
    if name.startswith("cuhk03"):
        return f"python -m data_prep cuhk03 --raw ARCHIVE_OR_FOLDER --splits FOLDER_OF_SPLIT_FILES --out {out}"
    if name in REAL:
        right = " --i-have-the-right" if name == "dukemtmc" else ""
        return f"python -m data_prep {name} --raw ARCHIVE_OR_FOLDER --out {out}{right}"
    return f"python -m data_prep folder --raw FOLDER_OF_IMAGES --name {name} --out {out}"


def first_repeated(texts: pd.Series) -> int | None:
    """The first row whose text stands in an earlier row, None where all differ.

    Compared by 64-bit hashes, which take 8 bytes a row; the few rows of equal hashes are compared in full.
    """
    hashes = np.concatenate(
        [
            pd.util.hash_array(texts.iloc[first : first + CHUNK].to_numpy(object), categorize=False)
            for first in range(0, len(texts), CHUNK)
        ]
    )
    ordered = np.sort(hashes)
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(shared):
        return None
    rows = np.flatnonzero(np.isin(hashes, shared))
    again = texts.iloc[rows].duplicated().to_numpy()
    return int(rows[again.argmax()]) if again.any() else None


@dataclass(frozen=True)
class Split:
    """The images of one split, in the order of the index.

    Attributes:
        root: the data set's folder.
        frame: the rows of the index, all columns.
    """

    root: Path
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def files(self) -> list[Path]:
        """Paths of the image files."""
        return [self.root / name for name in self.frame["file"]]

    @cached_property
    def person_ids(self) -> np.ndarray:
        """[n] int64; -1 is junk, 0 a distractor (ledger 30)."""
        return self.frame["person_id"].to_numpy(np.int64, copy=True)

    @cached_property
    def camera_ids(self) -> np.ndarray:
        """[n] int64."""
        return self.frame["camera_id"].to_numpy(np.int64, copy=True)

    def take(self, rows) -> Split:
        """The images at these positions."""
        return Split(self.root, self.frame.iloc[np.asarray(rows)].reset_index(drop=True))


def part_of(person_ids: np.ndarray, people: float = 1.0, images: float = 1.0, seed: int = 0) -> np.ndarray:
    """The positions of a share of the people (two at least) and of a share of each one's images (one at least), drawn
    by the seed: person_ids int [n] -> int [m], ascending."""
    rng = np.random.default_rng(seed)
    everybody = rng.permutation(np.unique(person_ids))
    chosen = everybody[: max(2, round(people * len(everybody)))]
    order = rng.permutation(len(person_ids))
    by_person = pd.Series(order).groupby(person_ids[order])
    wanted = (images * by_person.transform("size")).round().clip(lower=1)
    kept = (by_person.cumcount() < wanted) & np.isin(person_ids[order], chosen)
    return np.sort(order[kept])


@dataclass(frozen=True)
class ReidDataset:
    """A data set as `load` read it.

    Attributes:
        root: its folder.
        frame: the whole index: file, split, person_id, camera_id and whatever else stands there.
        card: card.json (licence, counts, fingerprint), {} where there is none.
    """

    root: Path
    frame: pd.DataFrame
    card: dict

    @property
    def name(self) -> str:
        return self.card.get("name", self.root.name)

    @property
    def fingerprint(self) -> str:
        """Hash over index and images as the card states it, "" where there is no card."""
        return self.card.get("fingerprint", "")

    @property
    def splits(self) -> list[str]:
        return [name for name in SPLITS if (self.frame["split"] == name).any()]

    def split(self, name: str) -> Split:
        """The images of "train", "query", "gallery", "val_query" or "val_gallery".

        Raises:
            ValueError: the data set has no such split.
        """
        if name not in self.splits:
            raise ValueError(f"{self.root / 'index.csv'} has no images in split {name!r}; it has {self.splits}")
        return Split(self.root, self.frame[self.frame["split"] == name].reset_index(drop=True))

    @classmethod
    def load(cls, folder: str | Path) -> ReidDataset:
        """Read and check folder/index.csv.

        Raises:
            FileNotFoundError: no such folder, or no index in it.
            ValueError: a missing column, an unknown split, a file listed twice or not inside the folder, an id that is
                no whole number, no rows; an index or a card that is no regular file, or cannot be read.
        """
        root = Path(folder)
        index = root / "index.csv"
        if not index.exists():
            raise FileNotFoundError(
                f"{index} does not exist. Make it with '{how_to_make(root)}', or name a folder that holds an index.csv"
            )
        try:
            check_regular(index)
            # spreadsheets put a mark in front of UTF-8, which utf-8-sig takes off
            frame = pd.read_csv(
                index,
                dtype={"file": str, "split": "category"},
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
            )
        except (ValueError, OverflowError, OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueError(f"{index} cannot be read as a table: {error}") from error
        missing = [column for column in COLUMNS if column not in frame]
        if missing:
            raise ValueError(f"{index} lacks the column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
        if frame.empty:
            raise ValueError(f"{index} lists no images")
        unknown = ~frame["split"].isin(SPLITS)
        if unknown.any():
            row = int(unknown.to_numpy().argmax())
            raise ValueError(f"{index}, line {row + 2}: unknown split {frame['split'][row]!r}; use {', '.join(SPLITS)}")
        row = first_repeated(frame["file"])
        if row is not None:
            raise ValueError(f"{index}, line {row + 2}: {frame['file'][row]} is listed twice")
        for first in range(0, len(frame), CHUNK):
            names = frame["file"].iloc[first : first + CHUNK].tolist()
            row = first_unfit(names)
            if row is not None:
                raise ValueError(
                    f"{index}, line {first + row + 2}: the file {short(names[row])} {unfit_path(names[row])}"
                )
        if sys.getfilesystemencoding() != "utf-8":
            for row, name in enumerate(frame["file"]):
                try:
                    os.fsencode(name)
                except UnicodeEncodeError as error:
                    raise ValueError(
                        f"{index}, line {row + 2}: no file can be called {name!r} in this locale, whose encoding is "
                        f"{error.encoding}; set PYTHONUTF8=1 and run the same command again"
                    ) from error
        for column in ("person_id", "camera_id"):
            numbers = pd.to_numeric(frame[column], errors="coerce")
            bad = numbers.isna() | (numbers % 1 != 0) | (numbers.abs() > LARGEST_ID)
            if bad.any():
                row = int(bad.to_numpy().argmax())
                raise ValueError(
                    f"{index}, line {row + 2}: {column} {short(str(frame[column][row]))} is not a whole number of at "
                    "most 2**53"
                )
            frame[column] = numbers.astype(np.int64)
        card = root / "card.json"
        try:
            described = json.loads(read_bytes(card).decode("utf-8")) if card.exists() else {}
            if not isinstance(described, dict):
                raise ValueError("no object")
            for key in ("name", "fingerprint"):
                if not isinstance(described.get(key, ""), str):
                    raise ValueError(f"{key} is not text")
        except (ValueError, OSError, RecursionError) as error:
            raise ValueError(f"{card} is not valid JSON: {error}") from error
        return cls(root, frame, described)

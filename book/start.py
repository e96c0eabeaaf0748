"""Where a chapter begins: in the repository's root, whichever folder its kernel was started in, and with its people."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import zlib
from pathlib import Path

from .toc import ROOT

RENDERED = ("smoke", "mini", "gpu")  # profiles whose people data_prep can make


def rendering(data: Path | str, profile: str, world: int = 0) -> list[str]:
    """The command that renders what is missing of a profile's people, of a world, into the folder `data`."""
    command = [sys.executable, "-m", "data_prep", "synthetic", "--profile", profile, "--out", str(data)]
    return [*command, "--world", str(world)] if world else command


def own_world() -> int:
    """A world's number from this machine's name: the same each time, of few others, and none that is registered."""
    return 1000 + zlib.crc32(platform.node().encode()) % 999_000


def start(data_dir: str | None = None, profile: str | None = None) -> None:
    """Go to the repository's root, from which relative paths of a chapter count, and see that its people are there.

    Only rendered people are looked for: what of the real sets is needed depends on what is recorded.

    Raises FileNotFoundError, with the line to run, where a set of the profile is missing in `data_dir`.
    """
    os.chdir(ROOT)
    if data_dir is None or profile not in RENDERED:
        return
    from paul.experiments.profiles import PROFILES

    folders = [Path(data_dir) / folder for folder in PROFILES[profile].folders.values()]
    missing = [str(folder) for folder in folders if not (folder / "index.csv").is_file()]
    if missing:
        raise FileNotFoundError(
            f"no people in {', '.join(missing)}. To render them, run this in a cell, then this cell again:\n\n"
            f"!{shlex.join(rendering(data_dir, profile))}\n"
        )


def validation_people(data_dir: str, profile: str, target: str):
    """A target's validation people, or its training people where it has none: their table, images [N, 3, H, W]."""
    import pandas as pd
    import torch

    from paul.data.datasets import ReidDataset
    from paul.data.pixels import load_images
    from paul.experiments.profiles import PROFILES

    chosen = PROFILES[profile]
    people = ReidDataset.load(Path(data_dir) / chosen.folders[target])
    names = [name for name in ("val_query", "val_gallery") if name in people.splits] or ["train"]
    splits = [people.split(name) for name in names]
    images = torch.cat([load_images(split, chosen.image_size) for split in splits])
    return pd.concat([split.frame for split in splits], ignore_index=True), images

"""Rendered worlds by number: one profile's people, cameras and places, drawn anew; world 0 is for development."""

from __future__ import annotations

import re

RENDERED = ("smoke", "mini", "gpu")  # profiles whose sets `data_prep synthetic` makes


def population(profile: str, world: int = 0) -> str:
    """The folder of a world's sets, records and models: "mini" for world 0, "mini-w3" for world 3.

    Raises:
        ValueError: a negative number.
    """
    if world < 0:
        raise ValueError(f"worlds are numbered from 0, got {world}")
    return f"{profile}-w{world}" if world else profile


def world_of(folder: str) -> tuple[str, int]:
    """Profile and world of a folder's name, as `population` makes it: "mini-w3" -> ("mini", 3)."""
    found = re.fullmatch(r"(.+)-w([1-9][0-9]*)", folder)
    return (found[1], int(found[2])) if found else (folder, 0)

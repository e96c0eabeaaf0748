"""Rendered worlds by number and knobs: a profile's people, cameras and places, drawn anew; world 0 is for development.

A profile whose people are drawn otherwise is named by it and the knobs that are turned: "mini-people600-gap0.5". Its
world 3 has sets, records and models in folders called "mini-w3-people600-gap0.5", as `data_prep synthetic` has it.
"""

from __future__ import annotations

import re

RENDERED = ("smoke", "mini", "gpu")  # profiles whose sets `data_prep synthetic` makes


def _sides(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split("x"))


# in the order of a name: how a knob's value is read, and where it stands unless turned; `data_prep.worlds.World` says
# what each is, and None leaves it to the profile
KNOBS = {
    "people": (int, None),
    "images": (int, None),
    "cameras": (int, None),
    "gap": (float, 1.0),
    "shared": (float, 0.5),
    "alike": (float, 0.1),
    "size": (_sides, None),
}
OF_TARGETS = ("gap", "shared")  # knobs that change no image of the source


def _text(value) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else repr(value)


def turned(profile: str, **knobs) -> str:
    """A profile's name with these knobs: ("mini", people=600) -> "mini-people600"; those that are not turned stay out.

    Raises:
        KeyError: a knob that is none.
    """
    changed = {name for name, value in knobs.items() if value != KNOBS[name][1]}
    return "-".join([profile, *(f"{name}{_text(knobs[name])}" for name in KNOBS if name in changed)])


def knobs_of(profile: str) -> tuple[str, dict]:
    """A name as `turned` makes it -> the rendered profile and its turned knobs; any other name -> itself and {}."""
    base, *parts = profile.split("-")
    found = [re.fullmatch(r"([a-z]+?)(\d[\d.x]*)", part) for part in parts]
    if base not in RENDERED or not all(found):
        return profile, {}
    try:
        knobs = {match[1]: KNOBS[match[1]][0](match[2]) for match in found}
    except (KeyError, ValueError):
        return profile, {}
    return (base, knobs) if turned(base, **knobs) == profile else (profile, {})  # one name for each


def population(profile: str, world: int = 0) -> str:
    """The folder of a world's sets, records and models: "mini" for world 0, "mini-w3" for world 3.

    Raises:
        ValueError: a negative number.
    """
    if world < 0:
        raise ValueError(f"worlds are numbered from 0, got {world}")
    base, *knobs = profile.split("-")
    return "-".join([base, *([f"w{world}"] if world else []), *knobs])


def source_population(profile: str, world: int = 0) -> str:
    """The folder of a world's source set and source models: its targets' own knobs change neither, and share them.

    Raises:
        ValueError: a negative number.
    """
    base, knobs = knobs_of(profile)
    return population(turned(base, **{name: knobs[name] for name in knobs if name not in OF_TARGETS}), world)


def world_of(folder: str) -> tuple[str, int]:
    """Profile and world of a folder's name, as `population` makes it: "mini-w3-gap2.0" -> ("mini-gap2.0", 3)."""
    base, *parts = folder.split("-")
    found = re.fullmatch(r"w([1-9][0-9]{0,17})", parts[0]) if parts else None
    return ("-".join([base, *parts[1:]]), int(found[1])) if found else (folder, 0)

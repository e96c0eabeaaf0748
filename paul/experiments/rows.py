"""Every row of the paper's tables as data: the method, what it changes, and the printed line it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

PARTS = ("network", "pretrain", "adapt")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        label: as printed.
        method: of `paul.experiments.methods.METHODS`.
        overrides: options that the row changes, by the names that `--set` takes: `network.*` of PatchNet, `pretrain.*`
            of the source stage, `adapt.*` of the method's own. `network.generator` "image" stands for the whole
            image-level twin (`PatchNetOptions.image_level`).

    Raises:
        ValueError: an override of no part.
    """

    label: str
    method: str = "paul"
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for key in self.overrides:
            if key.partition(".")[0] not in PARTS or not key.partition(".")[2]:
                raise ValueError(f"row {self.label!r}: overrides begin with {', '.join(PARTS)} and a dot, got {key!r}")

    @property
    def level(self) -> str:
        """What is compared, "image" or "patch"."""
        return "image" if self.overrides.get("network.generator") == "image" else "patch"

    @property
    def source_arm(self) -> str:
        """Whose source stage it shares, in the search for options: "source/image", "source/pgn8"."""
        generator = self.overrides.get("network.generator", "pgn")
        patches = self.overrides.get("network.num_patches", "") if generator == "pgn" else ""
        return f"source/{generator}{patches}"

    def changed(self, part: str, base):
        """The options `base` of a part with the row's overrides."""
        own = of_part(self.overrides, part)
        return replace(base.image_level() if own.get("generator") == "image" else base, **own)


def of_part(overrides: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Those of a part, without its name: "adapt.s" -> s."""
    return {key.partition(".")[2]: value for key, value in overrides.items() if key.startswith(f"{part}.")}


IMAGE, RANDOM, EQUAL = ({"network.generator": name} for name in ("image", "random", "equal"))
FOUR, EIGHT = ({"network.num_patches": count} for count in (4, 8))
L_C, L_V = {"adapt.loss_v": False}, {"adapt.loss_c": None}
PULL = {"adapt.loss_c": "pull", "adapt.loss_v": False}
ROWS = {
    "image_direct": Row("image level, direct", "direct", IMAGE),
    "image_adabn": Row("image level, AdaBN", "adabn", IMAGE),
    "image_pull": Row("image level + L_c, pull-only", overrides=IMAGE | PULL),
    "image_lc": Row("image level + L_c", overrides=IMAGE | L_C),
    "patch_direct": Row("PatchNet, direct", "direct"),
    "patch_adabn": Row("PatchNet, AdaBN", "adabn"),
    "patch_pull": Row("PatchNet + L_c, pull-only", overrides=PULL),
    "patch_lc": Row("PatchNet + L_c", overrides=L_C),
    "patch_lv": Row("PatchNet + L_v", overrides=L_V),
    "paul": Row("PatchNet + L_v + L_c (PAUL)"),
    "random": Row("random patches", overrides=RANDOM),
    "random_direct": Row("random patches, direct", "direct", RANDOM),
    "equal": Row("equal stripes", overrides=EQUAL),
    "equal_direct": Row("equal stripes, direct", "direct", EQUAL),
    "pgn4": Row("PGN, 4 patches", overrides=FOUR),
    "pgn4_direct": Row("PGN, 4 patches, direct", "direct", FOUR),
    "pgn8": Row("PGN, 8 patches", overrides=EIGHT),
    "pgn8_direct": Row("PGN, 8 patches, direct", "direct", EIGHT),
    "lomo": Row("LOMO", "lomo"),
    "bow": Row("BoW", "bow"),
    "pul": Row("PUL", "pul", IMAGE),
    "cluster_contrast": Row("Cluster-Contrast", "cluster_contrast", IMAGE),
}


@dataclass(frozen=True)
class Table:
    """One of the paper's tables.

    Attributes:
        title: in words.
        file: its published figures.
        lines: the rows run for it, in the order in which they are shown, each with what it stands for: a method's name
            where the table compares methods on one target, a line's number (from 1) elsewhere; None for a control or a
            later method that the paper doesn't print.
        target: the only one, None where it shows all.
    """

    title: str
    file: str
    lines: Mapping[str, str | int | None]
    target: str | None = None


_METHODS = {"lomo": "LOMO", "bow": "BoW", "pul": "PUL", "cluster_contrast": None, "paul": "PAUL"}
TABLES = {
    "table1": Table("Table 1: Market-1501 against other methods", "table1_market1501.csv", _METHODS, "market"),
    "table2": Table("Table 2: DukeMTMC-reID against other methods", "table2_dukemtmc.csv", _METHODS, "duke"),
    "table3": Table(
        "Table 3: what each part contributes",
        "table3_ablation.csv",
        {
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
    ),
    "table4": Table(
        "Table 4: how patches are made, and how many",
        "table4_patch_generation.csv",
        {
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
    ),  # it prints six patches twice, as 3 and 5
}

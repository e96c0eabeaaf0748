"""Every row of the paper's tables as data: the method, what it changes, and the printed line it stands for; and the
variants of them that the paper's Figure 5 and the ledger ask for."""

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
        scaled: options that the row multiplies, by the same names; a whole number stays one, and at least 1.
        of: the row that it is a variant of, whose search for options it shares; "" for a row of its own.
        people, images: the share of the target's training people, and of the images of each, that it is given
            (`paul.data.datasets.part_of`); its source seed draws them.

    Raises:
        ValueError: an override of no part; a share that is none.
    """

    label: str
    method: str = "paul"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    scaled: Mapping[str, float] = field(default_factory=dict)
    of: str = ""
    people: float = 1.0
    images: float = 1.0

    def __post_init__(self):
        if not (0 < self.people <= 1 and 0 < self.images <= 1):
            raise ValueError(f"row {self.label!r}: a share is above 0 and at most 1, got {self.people}, {self.images}")
        for key in (*self.overrides, *self.scaled):
            if key.partition(".")[0] not in PARTS or not key.partition(".")[2]:
                raise ValueError(f"row {self.label!r}: overrides begin with {', '.join(PARTS)} and a dot, got {key!r}")

    @property
    def level(self) -> str:
        """What is compared, "image" or "patch"."""
        return "image" if self.overrides.get("network.generator") == "image" else "patch"

    @property
    def share(self) -> float:
        """Of the target's training images, that it is given."""
        return self.people * self.images

    @property
    def source_arm(self) -> str:
        """Whose rate its source stage has, in the search for options: "source/image", "source/patch"."""
        return f"source/{self.level}"

    def changed(self, part: str, base):
        """The options `base` of a part with the row's overrides, and then scaled."""
        own = of_part(self.overrides, part)
        changed = replace(base.image_level() if own.get("generator") == "image" else base, **own)
        factors = of_part(self.scaled, part)
        return replace(changed, **{name: _times(getattr(changed, name), factor) for name, factor in factors.items()})


def of_part(overrides: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Those of a part, without its name: "adapt.s" -> s."""
    return {key.partition(".")[2]: value for key, value in overrides.items() if key.startswith(f"{part}.")}


def _times(value: float, factor: float) -> float:
    """value * factor, to six digits; a whole number stays one, and at least 1."""
    return max(1, round(value * factor)) if isinstance(value, int) else float(f"{value * factor:.6g}")


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


def _variant(of: str, label: str, overrides: Mapping[str, Any] = {}, scaled: Mapping[str, float] = {}) -> Row:
    """A row with some options changed."""
    row = ROWS[of]
    return Row(f"{row.label}, {label}", row.method, {**row.overrides, **overrides}, scaled, of)


# The paper's Figure 5 turns k, s and l; these are all of PAUL's that have a size, one at a time, times so much.
FACTORS = {
    "k": (0.2, 0.5, 2, 4),
    "s": (0.25, 0.5, 2, 4),
    "rate": (0.25, 0.5, 2, 4),
    "r": (1 / 3, 2 / 3, 2, 4),
    "margin": (0.25, 0.5, 2, 4),
    "lam": (0.25, 0.5, 2, 4),
    "jitter": (0, 0.25, 0.5, 1.5),
}
SWEEP = {
    f"{option}_x{factor:.2g}": _variant("paul", f"{option} x {factor:.2g}", scaled={f"adapt.{option}": factor})
    for option, factors in FACTORS.items()
    for factor in factors
}
# Row -> the ledger's other readings: entry, row that is changed, options. Those of a last batch (15, 32) are
# missing: the rendered sets leave none.
READINGS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "bank_after": (3, "paul", {"adapt.bank_update": "after"}),
    "bank_eval": (5, "paul", {"adapt.bank_init": "eval"}),
    "bank_unit": (6, "paul", {"adapt.renormalize": True}),
    "ipfl_patch": (9, "paul", {"adapt.ipfl_space": "patch"}),
    "ipfl_raw": (11, "paul", {"adapt.ipfl_targets": "raw"}),
    "ranking_others": (12, "paul", {"adapt.include_self": False}),
    "ranking_all": (12, "paul", {"adapt.max_candidates": 10**6}),
    "ranking_skip": (12, "paul", {"adapt.no_negative": "skip"}),
    "surrogate_one": (16, "paul", {"adapt.surrogate": "one"}),
    "crop_wide": (17, "paul", {"adapt.crop_area": (0.49, 0.9)}),  # the squares: 70 to 95 per cent of either side
    "pgn_eval": (18, "paul", {"network.freeze_pgn": "eval"}),
    "pgn_detach": (18, "paul", {"network.freeze_pgn": "detach"}),
    "corners": (20, "paul", {"network.align_corners": False}),
    "hardest": (23, "patch_direct", {"pretrain.positive": "hardest"}),
    "no_decay": (27, "paul", {"adapt.decay_epoch": 10**6}),
    "rotation": (33, "paul", {"adapt.rotation": "network"}),
    "bank_surrogates": (34, "paul", {"adapt.bank_surrogates": True}),
    "idle_surrogates": (35, "patch_lc", {"adapt.idle_surrogates": True}),
    "bf16": (36, "paul", {"network.precision": "bf16"}),
}
# Four times as long, for the question whether the profile's own length is enough.
LONGER = {
    f"{of}_long": _variant(of, "four times as long", scaled={"adapt.epochs": 4, "adapt.decay_epoch": 4})
    for of in ("image_lc", "patch_lc", "patch_lv", "paul")
}
# When does it work? What each loss adds to AdaBN on a share of the people, on a share of each person's images (in as
# many steps), and in other widths, beside the purity of the neighbourhoods that it starts from.
STARTS = {
    f"{level}_neighbours": replace(ROWS[f"{level}_adabn"], method="neighbours", of=f"{level}_adabn")
    for level in ("image", "patch")
}
TRAINED = ("patch_lc", "patch_lv", "paul")
CONDITIONS: dict[str, dict[str, Any]] = {
    f"{what}_x{share:.2g}": {what: share}
    for what, shares in {"people": (0.25, 0.5), "images": (1 / 3, 2 / 3)}.items()
    for share in shares
} | {f"dim_x{factor:.2g}": {"scaled": {"network.dim": factor}} for factor in (0.5, 2)}


def _under(of: str, condition: str) -> Row:
    """A row under one of these conditions."""
    row, change = (ROWS | STARTS)[of], CONDITIONS[condition]
    longer = 1 / (change.get("people", 1) * change.get("images", 1))
    steps = {"adapt.epochs": longer, "adapt.decay_epoch": longer} if of in TRAINED and longer > 1 else {}
    label = f"{row.label}, {condition.replace('_x', ' x ')}"
    return replace(row, **{"label": label, "of": row.of or of, "scaled": steps} | change)


WHEN = STARTS | {
    f"{of}_{condition}": _under(of, condition) for condition in CONDITIONS for of in ("patch_neighbours", *TRAINED)
}
# The paper has one setting for all lines of its tables; here each arm has what a search chose for it. These are the
# arms with what was chosen for PAUL, as far as the target stage goes: source stages keep their own rate.
ALIKE = {
    row: f"{row}_alike"
    for row in ("image_lc", "image_pull", "patch_lc", "patch_pull", "patch_lv", "random", "equal", "pgn4", "pgn8")
}
ROWS |= {
    alike: replace(ROWS[row], label=f"{ROWS[row].label}, PAUL's setting", of="paul") for row, alike in ALIKE.items()
}
ROWS |= SWEEP | LONGER | WHEN
ROWS |= {
    name: _variant(of, ", ".join(f"{key.partition('.')[2]} {value}" for key, value in options.items()), options)
    for name, (_, of, options) in READINGS.items()
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


@dataclass(frozen=True)
class Study:
    """Variants of rows, each to be compared with its row; the paper prints no table of them.

    Attributes:
        title: in words.
        lines: the variants, in the order in which they are shown.
        target: None, since it shows all.
    """

    title: str
    lines: tuple[str, ...]
    target: None = None


STUDIES = {
    "figure5": Study("Figure 5: how far one option of PAUL moves the result", tuple(SWEEP)),
    "ledger": Study("The ledger: what each other reading changes", tuple(READINGS)),
    "alike": Study("One setting for all: Tables 3 and 4 with what was chosen for PAUL", tuple(ALIKE.values())),
    "longer": Study("Target stages of four times the length", tuple(LONGER)),
    "when": Study("When it works: less of the target, other widths, and how pure neighbourhoods are", tuple(WHEN)),
}

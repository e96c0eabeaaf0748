"""Every row of the paper's tables as data: what it changes, and the runs that a table asks for."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from paul import records
from paul.adapt import AdaptOptions
from paul.bow import BowOptions
from paul.lomo import LomoOptions
from paul.patchnet import PatchNetOptions
from paul.profiles import profile
from paul.pul import PulOptions
from paul.weights import content_of

MODELS = "build/models"


@dataclass(frozen=True)
class Row:
    """One row of a table: what it changes, and what the paper calls it.

    Attributes:
        label: as printed.
        tables: where it stands.
        paper_row: the line of the paper's table it reproduces, "" for controls that the paper does not have.
        level: "patch" or "image".
        generator, num_patches: of the network (ignored at image level).
        loss_c, loss_v: losses of the target stage; neither means no training there.
        adabn: only the batch-norm statistics are set to the target's.
        method: "paul" for all of PAUL's own rows, else the module of `paul` that holds a method it is compared with.
    """

    label: str
    tables: tuple[str, ...]
    paper_row: str = ""
    level: str = "patch"
    generator: str = "pgn"
    num_patches: int = 6
    loss_c: str | None = None
    loss_v: bool = False
    adabn: bool = False
    method: str = "paul"

    @property
    def adapts(self) -> bool:
        return self.loss_c is not None or self.loss_v

    @property
    def hand_crafted(self) -> bool:
        """No network, hence no source stage."""
        return self.method in HAND_CRAFTED

    @property
    def drawn(self) -> bool:
        """Whether a seed decides anything."""
        return self.method != "lomo"

    def network(self, base: PatchNetOptions) -> PatchNetOptions:
        """The base network with this row's patches."""
        if self.level == "image":
            return base.image_level()
        return replace(base, generator=self.generator, num_patches=self.num_patches)


HAND_CRAFTED = {"lomo": LomoOptions(), "bow": BowOptions()}  # the same at every profile
# what decides a method's numbers beside the sources that decide every run's
MODULES = {"paul": (), "lomo": ("lomo",), "bow": ("bow", "clustering"), "pul": ("pul", "clustering")}
T3, T4 = ("table3",), ("table4",)
COMPARED = ("table1", "table2")
BOTH = {"loss_c": "pedal", "loss_v": True}
ROWS = {
    "image_direct": Row("image level, direct", T3, "ResNet-50", level="image"),
    "image_adabn": Row("image level, AdaBN", T3, level="image", adabn=True),
    "image_pull": Row("image level + L_c, pull-only", T3, level="image", loss_c="pull"),
    "image_lc": Row("image level + L_c", T3, "ResNet-50 + L_c", level="image", loss_c="pedal"),
    "patch_direct": Row("PatchNet, direct", T3 + T4, "PatchNet (baseline)"),
    "patch_adabn": Row("PatchNet, AdaBN", T3, adabn=True),
    "patch_pull": Row("PatchNet + L_c, pull-only", T3, loss_c="pull"),
    "patch_lc": Row("PatchNet + L_c", T3, "PatchNet + L_c", loss_c="pedal"),
    "patch_lv": Row("PatchNet + L_v", T3, "PatchNet + L_v", loss_v=True),
    "paul": Row("PatchNet + L_v + L_c (PAUL)", T3 + T4, "PatchNet + L_v + L_c (PAUL)", **BOTH),
    "random": Row("random patches", T4, "random", generator="random", **BOTH),
    "random_direct": Row("random patches, direct", T4, generator="random"),
    "equal": Row("equal stripes", T4, "equal", generator="equal", **BOTH),
    "equal_direct": Row("equal stripes, direct", T4, generator="equal"),
    "pgn4": Row("PGN, 4 patches", T4, "PGN", num_patches=4, **BOTH),
    "pgn4_direct": Row("PGN, 4 patches, direct", T4, num_patches=4),
    "pgn8": Row("PGN, 8 patches", T4, "PGN", num_patches=8, **BOTH),
    "pgn8_direct": Row("PGN, 8 patches, direct", T4, num_patches=8),
    "lomo": Row("LOMO", COMPARED, "LOMO", level="image", method="lomo"),
    "bow": Row("BoW", COMPARED, "BoW", level="image", method="bow"),
    "pul": Row("PUL", COMPARED, "PUL", level="image", method="pul"),
}
# Tables 1 and 2 set PAUL on one target beside the other methods; these of them are run here
RIVALS = tuple(name for name, row in ROWS.items() if row.method != "paul")
TABLES = {"table1": ((*RIVALS, "paul"), ("market",)), "table2": ((*RIVALS, "paul"), ("duke",)),
          "table3": (tuple(name for name, row in ROWS.items() if "table3" in row.tables), None),
          "table4": (tuple(name for name, row in ROWS.items() if "table4" in row.tables), None)}


@dataclass(frozen=True)
class Spec:
    """One run: a row on a target, from a source seed, at a profile.

    Attributes:
        weights: the content of the weights that the backbone starts from, where it isn't the profile's (see
            `paul.weights.content_of`); the file itself is a matter of `Places`.
    """

    row: str
    target: str
    seed: int
    profile: str
    weights: str | None = None

    def source(self) -> dict:
        """What decides the source model, as plain data; rows and targets with equal ones share it; {} without one."""
        if ROWS[self.row].hand_crafted:
            return {}
        p = profile(self.profile)
        network = asdict(ROWS[self.row].network(p.network))
        network.pop("freeze_pgn")  # acts on the target only
        return {"data": p.folders["source"], "image_size": list(p.image_size), "network": network,
                "pretrain": asdict(p.pretrain), "weights": self.weights or p.weights, "seed": self.seed}

    def adapt_options(self) -> AdaptOptions | None:
        """Options of the target stage, None for a row that does not train there."""
        row = ROWS[self.row]
        if not row.adapts:
            return None
        return replace(profile(self.profile).adapt_options(self.target), loss_c=row.loss_c, loss_v=row.loss_v)

    def pul_options(self) -> PulOptions | None:
        """Options of PUL's target stage, None for every other row."""
        return profile(self.profile).pul_options(self.target) if ROWS[self.row].method == "pul" else None

    def data(self) -> dict:
        """All options of the run, as plain data."""
        row = ROWS[self.row]
        if row.hand_crafted:
            return {"method": row.method, "target": profile(self.profile).folders[self.target],
                    "options": json.loads(json.dumps(asdict(HAND_CRAFTED[row.method])))}
        if row.method == "pul":
            return {"method": "pul", "source": self.source(), "target": profile(self.profile).folders[self.target],
                    "options": asdict(self.pul_options())}
        p, options = profile(self.profile), self.adapt_options()
        return {"source": self.source(), "target": p.folders[self.target], "adabn": ROWS[self.row].adabn,
                "freeze_pgn": p.network.freeze_pgn,
                "adapt": {**asdict(options), "crop_area": list(options.crop_area)} if options else None}

    @property
    def hash(self) -> str:
        return records.digest(self.data())

    @property
    def code(self) -> str:
        """Hash of the sources that decide the run: those of every run, and the row's own module."""
        return records.code_hash(*MODULES[ROWS[self.row].method])

    @property
    def name(self) -> str:
        return f"{self.row}--{self.target}--s{self.seed}--{self.hash[:8]}"


@dataclass(frozen=True)
class Places:
    """Folders: data sets, results (records), models (checkpoints, outside version control); a file of backbone weights
    in place of a download; and the device."""

    data: str = "data"
    results: str = "results"
    models: str = MODELS
    device: str | None = None
    weights: str | None = None

    def absolute(self) -> Places:
        """The same folders as a process elsewhere must name them."""
        given = {name: getattr(self, name) for name in ("data", "results", "models", "weights")}
        return replace(self, **{name: str(Path(path).absolute()) for name, path in given.items() if path})

    def record(self, spec: Spec) -> Path:
        return Path(self.results) / "runs" / spec.profile / f"{spec.name}.json"


def seeds_of(text: str) -> list[int]:
    """"0-2" or "0,3,5" -> seeds.

    Raises:
        ValueError: anything else.
    """
    parts = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in str(text).split(",")]
    if not all(parts):
        raise ValueError(f"seeds must look like 0-2 or 0,3,5, got {text!r}")
    seeds = [seed for part in parts for seed in range(int(part[1]), int(part[2] or part[1]) + 1)]
    if not seeds:
        raise ValueError(f"seeds {text!r} name no seed")
    return seeds


def specs_of(table: str, profile_name: str, seeds: list[int], targets: list[str] | None = None,
             rows: list[str] | None = None, weights: str | None = None) -> list[Spec]:
    """The runs of one table; a row without chance has one, filed under seed 0.

    `weights` is a file for backbones to start from; one with the profile's own content changes no run.

    Raises:
        ValueError: an unknown table, target or row.
    """
    if table not in TABLES:
        raise ValueError(f"unknown table {table!r}; there are {', '.join(TABLES)}")
    table_rows, table_targets = TABLES[table]
    possible = [t for t in profile(profile_name).targets if table_targets is None or t in table_targets]
    for chosen, known, kind in ((targets, profile(profile_name).targets, "target"), (rows, table_rows, "row")):
        unknown = set(chosen or ()) - set(known)
        if unknown:
            raise ValueError(f"unknown {kind} {sorted(unknown)[0]!r}; there are {', '.join(known)}")
    p = profile(profile_name)
    content = content_of(p.network.backbone, weights)
    content = None if content == p.weights else content
    found = [Spec(row, target, seed if ROWS[row].drawn else 0, profile_name,
                  None if ROWS[row].hand_crafted else content)
             for seed in seeds for row in table_rows for target in possible
             if (rows is None or row in rows) and (targets is None or target in targets)]
    return list(dict.fromkeys(found))

"""What decides the network and its two trainings, as plain data: importable without torch.

The defaults are the paper's, with the released code's where the paper is silent. `NUMERICS` is raised by one whenever
a golden trajectory of the stage moves: what was trained or recorded under another number is then out of date.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import ClassVar

LARGEST_SEED = 2**31 - 1  # every generator takes it, and every table holds it
LARGEST_SIDE = 4096  # pixels; a crop of a person has hundreds


def image_size(size) -> tuple[int, int]:
    """Rows and columns of a network's images, as a file or a caller states them.

    Raises:
        ValueError: no two whole numbers from 1 to LARGEST_SIDE.
    """
    sides = tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) and 1 <= side <= LARGEST_SIDE for side in sides):
        raise ValueError(f"image_size must be two whole numbers from 1 to {LARGEST_SIDE}, rows and columns, got {size}")
    return int(sides[0]), int(sides[1])


def checked_seed(seed: int) -> int:
    """The seed, where a generator takes it.

    Raises:
        ValueError: it is below 0 or above `LARGEST_SEED`.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed={seed}: a seed is a whole number from 0 to {LARGEST_SEED}")
    return seed


def known(kind: str, name: str, names) -> str:
    """The name, where it is one of those there are: whatever becomes part of a path has passed here.

    Raises:
        ValueError: it is none of them.
    """
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(names)}")
    return name


@dataclass(frozen=True)
class PretrainOptions:
    """How the source stage trains; the defaults are the paper's and the released code's.

    Attributes:
        epochs, batch: a batch is `batch` images and as many partners of the same people (48 pairs; ledger 22).
        min_batch: a last batch of fewer images joins the one before it (ledger 32).
        schedule: "paper" (steps at fixed epochs, see `schedules`) or "cosine" (one cycle up to `peak_rate`).
        peak_rate: for "cosine".
        momentum, weight_decay: of SGD.
        label_smoothing: of the cross-entropy.
        triplet_weight, triplet_margin, positive: the triplet term (ledger 23).
        shift: random shift and scale, as a share of the image; flips are always on.
    """

    NUMERICS: ClassVar[int] = 1

    epochs: int = 60
    batch: int = 48
    min_batch: int = 16
    schedule: str = "paper"
    peak_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    triplet_weight: float = 0.1
    triplet_margin: float = 1.0
    positive: str = "nearest"
    shift: float = 0.0

    def __post_init__(self):
        if self.schedule not in ("paper", "cosine"):
            raise ValueError(f"schedule must be 'paper' or 'cosine', got {self.schedule!r}")
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(f"epochs and batch must be at least 1, got {self.epochs} and {self.batch}")
        if self.min_batch < 2:
            raise ValueError(f"min_batch must be at least 2, which batch norm needs, got {self.min_batch}")


@dataclass(frozen=True)
class AdaptOptions:
    """How the target stage trains; the defaults are the paper's, with the released code's where the paper is silent.

    Attributes:
        loss_c: "pedal" (L_c), "pull" (its numerator alone) or None.
        loss_v: whether L_v takes part.
        lam: weight of L_c in L = L_v + lambda L_c (ledger 14).
        s, k: of PEDAL (ledger 1, 2).
        rate: l, of both memories (ledger 6, 11).
        renormalize: bring bank entries back to unit length (ledger 6).
        bank_init: "train" or "eval", the network's mode in the pass that fills the bank (ledger 5).
        bank_surrogates: whether surrogates go through the network beside the real images in that pass, too, where batch
            norm sees them (as released; ledger 34).
        bank_update: whether the bank takes up a batch "before" or "after" L_c is taken of it (ledger 3).
        idle_surrogates: whether surrogates go through the network, where batch norm sees them, in training by L_c
            alone, too, which does not read them (as released; ledger 35).
        margin, r, include_self, max_candidates, no_negative: of IPFL (ledger 12-14).
        ipfl_space: "embedding" (cosines to the embedding layer's rows) or "patch" (patch features; ledger 9).
        ipfl_targets: "centers" or "raw" (the image's surrogate and the other images themselves; ledger 11).
        epochs, batch, lr, decay_epoch, momentum, weight_decay: of SGD; `batch` real images go with as many surrogates
            (ledger 15, 27).
        min_batch: a last batch of fewer real images joins the one before it, in the pass that fills the bank, too
            (ledger 32).
        drop_last: leave a smaller last batch out instead (ledger 15).
        rotation: the aspect at which surrogates are rotated, the "network" input's or that of the "image" as it is
            stored (as released; ledger 33).
        surrogate, jitter, hue_turn, degrees, crop_area, padding: see `paul.data.transforms.surrogates` (ledger 16, 17).
        refresh_statistics: set batch-norm statistics to those of the plain target images before testing.
    """

    NUMERICS: ClassVar[int] = 2

    loss_c: str | None = "pedal"
    loss_v: bool = True
    lam: float = 2.0
    s: float = 30.0
    k: int = 10
    rate: float = 0.1
    renormalize: bool = False
    bank_init: str = "train"
    bank_surrogates: bool = False
    bank_update: str = "before"
    idle_surrogates: bool = False
    margin: float = 2.0
    r: int = 3
    include_self: bool = True
    max_candidates: int = 15
    no_negative: str = "zero"
    ipfl_space: str = "embedding"
    ipfl_targets: str = "centers"
    epochs: int = 60
    batch: int = 42
    min_batch: int = 16
    drop_last: bool = False
    lr: float = 1e-4
    decay_epoch: int = 50
    momentum: float = 0.9
    weight_decay: float = 1e-4
    rotation: str = "image"
    surrogate: str = "all"
    jitter: float = 0.2
    hue_turn: float = 0.1
    degrees: float = 10.0
    crop_area: tuple[float, float] = (0.70, 0.95)
    padding: str = "zeros"
    refresh_statistics: bool = False

    def __post_init__(self):
        object.__setattr__(self, "crop_area", tuple(self.crop_area))  # a list when read back from JSON
        for name, allowed in (
            ("loss_c", ("pedal", "pull", None)),
            ("bank_init", ("train", "eval")),
            ("bank_update", ("before", "after")),
            ("rotation", ("network", "image")),
            ("ipfl_space", ("embedding", "patch")),
            ("ipfl_targets", ("centers", "raw")),
            ("surrogate", ("all", "one")),
            ("no_negative", ("zero", "skip")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {getattr(self, name)!r}")
        if self.loss_c is None and not self.loss_v:
            raise ValueError("nothing to train: switch on loss_c or loss_v (for statistics alone use `adabn`)")
        if self.epochs < 1 or self.batch < 2:
            raise ValueError(f"epochs must be at least 1 and batch at least 2, got {self.epochs} and {self.batch}")
        if self.min_batch < 2:
            raise ValueError(f"min_batch must be at least 2, which batch norm needs, got {self.min_batch}")
        if not self.s > 0 or self.k <= 0:
            raise ValueError(f"s and k must be positive, got {self.s} and {self.k}")

    @property
    def paired(self) -> bool:
        """Whether a training batch holds a surrogate of every image."""
        return self.loss_v or self.idle_surrogates


@dataclass(frozen=True)
class PatchNetOptions:
    """Everything that decides a PatchNet's shape and arithmetic; records and checkpoints carry it.

    Attributes:
        backbone: see `paul.backbones.build_backbone`.
        num_patches: M.
        dim: D of a patch feature.
        generator: "pgn", "equal", "random" (paper Table 4) or "image" (one patch, the whole map).
        embedding_dim: E per patch, half of `dim` by default (256 -> 128; ledger 9).
        align_corners: whether a patch's outermost sampling points are the centres of the outermost pixels, or lie as
            far from the patch's border as a pixel's centre does from its own (ledger 20).
        precision: of what autocast covers, "float32" (as released) or "bf16"; see `paul.engine.device` (ledger 36).
        pgn_channels, pgn_hidden: widths of the localisation network (ledger 21).
        freeze_pgn: on the target the PGN takes no weight update; "lr0": its batch norm still follows the batches and
            theta's gradient reaches the backbone (as released), "eval": its batch norm is fixed too, "detach": no
            gradient through theta (ledger 18).
    """

    backbone: str = "resnet50"
    num_patches: int = 6
    dim: int = 256
    generator: str = "pgn"
    embedding_dim: int | None = None
    align_corners: bool = True
    precision: str = "float32"
    pgn_channels: int = 4096
    pgn_hidden: int = 512
    freeze_pgn: str = "lr0"

    def __post_init__(self):
        if self.generator not in ("pgn", "equal", "random", "image"):
            raise ValueError(f"generator must be one of 'equal', 'image', 'pgn', 'random', got {self.generator!r}")
        if self.freeze_pgn not in ("lr0", "eval", "detach"):
            raise ValueError(f"freeze_pgn must be 'lr0', 'eval' or 'detach', got {self.freeze_pgn!r}")
        if self.precision not in ("float32", "bf16"):
            raise ValueError(f"precision must be 'float32' or 'bf16', got {self.precision!r}")
        if self.num_patches < 1 or self.dim < 1:
            raise ValueError(f"num_patches and dim must be at least 1, got {self.num_patches} and {self.dim}")

    def image_level(self) -> PatchNetOptions:
        """The twin that compares whole images: one patch, features as wide as all patches together (paper Table 3)."""
        embedding = self.num_patches * (self.embedding_dim or self.dim // 2)
        return replace(self, generator="image", num_patches=1, dim=self.num_patches * self.dim, embedding_dim=embedding)

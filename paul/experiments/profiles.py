"""The four profiles: which data, which network, which schedule. `paper` is the paper; others say what they change."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from paul.data.worlds import RENDERED, knobs_of, population, source_population, world_of
from paul.options import AdaptOptions, PatchNetOptions, PretrainOptions, known


@dataclass(frozen=True)
class Profile:
    """One scale of the whole study.

    Attributes:
        name: smoke, mini, gpu or paper.
        purpose: what it is for, one line.
        folders: "source" and every target -> folder below the data directory.
        image_size: rows and columns the network sees.
        network, pretrain, adapt: options; `by_target` overrides some of `adapt` per target. Options of other methods
            stand with the methods.
        tuned: options that a search on validation people chose (`paul.experiments.tuning`), by arm: "source/image" for
            every row on whole images, "source/patch" for every other, "target/paul" for that row.
        weights: of the backbone.
        reasons: why an option differs from the paper's, by option name.
    """

    name: str
    purpose: str
    folders: dict[str, str]
    image_size: tuple[int, int]
    network: PatchNetOptions
    pretrain: PretrainOptions
    adapt: AdaptOptions
    by_target: dict[str, dict] = field(default_factory=dict)
    tuned: dict[str, dict] = field(default_factory=dict)
    weights: str | None = None
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def targets(self) -> list[str]:
        return [name for name in self.folders if name != "source"]

    def in_world(self, world: int) -> Profile:
        """The same study on another world's people.

        Raises:
            ValueError: a world other than 0 of sets that nobody renders; a negative number.
        """
        if not world:
            return self
        if knobs_of(self.name)[0] not in RENDERED:
            raise ValueError(f"profile {self.name} has no world {world}: its sets are not rendered")
        return replace(self, folders=_embedded(self.name, world))

    def adapt_options(self, target: str) -> AdaptOptions:
        """The target stage's options on one target."""
        return replace(self.adapt, **self.by_target.get(target, {}))

    def differences(self) -> list[dict]:
        """Every option that is not the paper's: option, paper, this profile, reason.

        Raises:
            KeyError: an option differs without a stated reason.
        """
        paper, rows = PROFILES["paper"], []
        for part in ("network", "pretrain", "adapt"):
            theirs, ours = asdict(getattr(paper, part)), asdict(getattr(self, part))
            rows += [
                {"option": f"{part}.{key}", "paper": theirs[key], "here": value, "reason": self.reasons[key]}
                for key, value in ours.items()
                if value != theirs[key]
            ]
        for target in self.targets:
            for key in ("s", "batch"):
                theirs = getattr(paper.adapt_options(target), key)
                ours = getattr(self.adapt_options(target), key)
                named = f"adapt.{key} ({target})"
                if ours != theirs and not any(row["option"] == f"adapt.{key}" for row in rows):
                    rows.append({"option": named, "paper": theirs, "here": ours, "reason": self.reasons[key]})
        return rows


def _embedded(name: str, world: int = 0) -> dict[str, str]:
    own = population(name, world)
    return {"source": f"{source_population(name, world)}/source", "market": f"{own}/market", "duke": f"{own}/duke"}


PAPER = Profile(
    name="paper",
    purpose="the paper itself: MSMT17 to Market-1501 and DukeMTMC-reID",
    folders={"source": "msmt17", "market": "market1501", "duke": "dukemtmc"},
    image_size=(384, 128),
    network=PatchNetOptions(),
    pretrain=PretrainOptions(),
    adapt=AdaptOptions(),
    by_target={"market": {"s": 30.0, "batch": 42}, "duke": {"s": 10.0, "batch": 40}},
    weights="imagenet",
)

SMALL = {
    "backbone": "two CPU cores",
    "dim": "narrower branches for a narrower backbone",
    "pgn_channels": "twice the backbone's channels, as in the paper",
    "pgn_hidden": "scaled down with pgn_channels",
    "epochs": "minutes on a CPU; the small network trains from scratch",
    "batch": "few images",
    "schedule": "training from scratch wants one warm cycle, not steps after ImageNet weights",
    "peak_rate": "training from scratch; where arms were searched, each has its own",
    "weight_decay": "a small network on few people overfits; set beforehand",
    "label_smoothing": "few people: the classifiers grow too sure",
    "shift": "stands in for what ImageNet weights already know about misplaced boxes",
    "s": "chosen on validation people; a narrow network's features lie further apart, and a large scale saturates",
    "lr": "chosen on validation people: few epochs need larger steps",
    "decay_epoch": "the last epoch of a short schedule",
    "jitter": "chosen on validation people: rendered people need stronger surrogates than photographs",
    "padding": "black corners of rotated 96x48 images are a cue of their own",
    "refresh_statistics": "few steps leave the running statistics behind the weights",
}

MINI = Profile(
    name="mini",
    purpose="the embedded people on two CPU cores, in minutes",
    folders=_embedded("mini"),
    image_size=(96, 48),
    network=PatchNetOptions(backbone="small", dim=48, pgn_channels=192, pgn_hidden=64),
    pretrain=PretrainOptions(
        epochs=12, batch=32, schedule="cosine", peak_rate=0.08, weight_decay=5e-4, label_smoothing=0.1, shift=0.06
    ),
    adapt=AdaptOptions(
        epochs=4, batch=40, lr=0.03, decay_epoch=3, s=5.0, jitter=0.4, padding="border", refresh_statistics=True
    ),
    tuned={
        "source/image": {"pretrain.peak_rate": 0.02},
        "source/patch": {"pretrain.peak_rate": 0.04},
        "target/image_lc": {"adapt.lr": 1e-05, "adapt.s": 2.5},
        "target/image_pull": {"adapt.lr": 1e-05, "adapt.s": 2.5},
        "target/patch_lc": {"adapt.lr": 0.012, "adapt.s": 5.0},
        "target/patch_pull": {"adapt.lr": 0.006, "adapt.s": 2.5},
        "target/patch_lv": {"adapt.lr": 0.003, "adapt.margin": 8.0, "adapt.jitter": 0.4},
        "target/paul": {"adapt.lr": 0.025, "adapt.s": 1.25, "adapt.margin": 2.0, "adapt.jitter": 0.6, "adapt.lam": 2.0},
        "target/random": {
            "adapt.lr": 0.012,
            "adapt.s": 1.25,
            "adapt.margin": 16.0,
            "adapt.jitter": 0.5,
            "adapt.lam": 0.25,
        },
        "target/equal": {
            "adapt.lr": 0.003,
            "adapt.s": 10.0,
            "adapt.margin": 1.0,
            "adapt.jitter": 0.6,
            "adapt.lam": 0.5,
        },
        "target/pgn4": {
            "adapt.lr": 0.012,
            "adapt.s": 1.25,
            "adapt.margin": 16.0,
            "adapt.jitter": 0.4,
            "adapt.lam": 0.5,
        },
        "target/pgn8": {
            "adapt.lr": 0.012,
            "adapt.s": 1.25,
            "adapt.margin": 1.0,
            "adapt.jitter": 0.5,
            "adapt.lam": 0.25,
        },
        "target/pul": {"adapt.lr": 0.003, "adapt.reliability": 0.8, "adapt.clusters": 1120},
        "target/cluster_contrast": {"adapt.lr": 1e-05, "adapt.eps": 0.5, "adapt.temperature": 0.011},
    },
    reasons=SMALL,
)

SMOKE = replace(
    MINI,
    name="smoke",
    purpose="does it run at all: seconds, for tests",
    folders=_embedded("smoke"),
    tuned={},
    pretrain=replace(MINI.pretrain, epochs=2, batch=16),
    adapt=replace(MINI.adapt, epochs=2, decay_epoch=1, batch=16),
)

GPU = Profile(
    name="gpu",
    purpose="the paper's architecture and schedule on embedded people, one GPU",
    folders=_embedded("gpu"),
    image_size=(384, 128),
    network=PatchNetOptions(precision="bf16"),
    pretrain=PretrainOptions(epochs=24, schedule="cosine", peak_rate=0.05, label_smoothing=0.1, shift=0.06),
    adapt=replace(PAPER.adapt, epochs=8, decay_epoch=6, lr=1e-3, padding="border"),
    by_target=PAPER.by_target,
    reasons={
        **SMALL,
        "precision": "half the memory and time of float32 on a GPU",
        "epochs": "under 30 minutes on one GPU",
        "lr": "few epochs need larger steps",
        "peak_rate": "no ImageNet weights without a download, so training from scratch",
        "padding": "black corners of rotated images are a cue of their own on rendered scenes",
    },
)

PROFILES = {profile.name: profile for profile in (SMOKE, MINI, GPU, PAPER)}


def profile_in(folder: str) -> str:
    """The profile that the name of a folder of runs or models begins with, without its world and knobs."""
    return knobs_of(world_of(folder)[0])[0]


def profile(name: str) -> Profile:
    """A profile by name; one whose people are drawn with knobs of their own by both, as in "mini-people600-gap0.5" (see
    `paul.data.worlds`). All but its sets is the profile's without knobs.

    Raises:
        ValueError: there is none of that name.
    """
    base, knobs = knobs_of(name)
    found = PROFILES[known("profile", base, PROFILES)]
    return replace(found, name=name, folders=_embedded(name)) if knobs else found

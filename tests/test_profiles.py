"""The paper profile against the paper, value by value; and the others against what they say of themselves."""

from dataclasses import fields, replace
from itertools import product

import pytest

from paul.experiments.profiles import PROFILES, profile
from paul.experiments.rows import ALIKE, ROWS, STARTS, WHEN
from paul.experiments.specs import Spec
from paul.schedules import source_learning_rates, target_learning_rates

# What the paper states (sections of the CVPR 2019 text), and what the released code does where the paper is silent
# (ledger numbers). Typed here from the page, not taken from the sources.
NETWORK = {
    "backbone": "resnet50",  # Sec. 4: ImageNet weights, last stride 1
    "num_patches": 6,  # Sec. 4
    "dim": 256,  # Sec. 4: of each patch feature
    "generator": "pgn",  # Sec. 3.1
    "embedding_dim": None,  # ledger 9: half of dim, 128
    "align_corners": True,  # ledger 20
    "precision": "float32",  # ledger 36
    "pgn_channels": 4096,  # ledger 21
    "pgn_hidden": 512,  # ledger 21
    "freeze_pgn": "lr0",  # Sec. 3.1: fixed on the target; how: ledger 18
}
PRETRAIN = {
    "epochs": 60,
    "batch": 48,
    "min_batch": 16,  # ledger 32
    "schedule": "paper",  # ledger 22
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
    "triplet_weight": 0.1,
    "triplet_margin": 1.0,
    "positive": "nearest",  # ledger 23
    "shift": 0.0,
}
ADAPT = {
    "loss_c": "pedal",
    "loss_v": True,  # Sec. 3.4: L = L_v + lambda L_c
    "lam": 2.0,  # Sec. 4
    "k": 10,  # Sec. 4
    "rate": 0.1,  # Sec. 4: l
    "renormalize": False,
    "bank_init": "train",  # ledger 5, 6
    "bank_surrogates": False,  # ledger 34
    "bank_update": "before",  # ledger 3
    "idle_surrogates": False,  # ledger 35
    "margin": 2.0,
    "r": 3,  # Sec. 4
    "include_self": True,
    "max_candidates": 15,
    "no_negative": "zero",  # ledger 12
    "ipfl_space": "embedding",
    "ipfl_targets": "centers",  # ledger 9, 11
    "epochs": 60,
    "lr": 1e-4,
    "decay_epoch": 50,
    "momentum": 0.9,
    "weight_decay": 1e-4,  # Sec. 4
    "drop_last": False,  # ledger 15
    "min_batch": 16,  # ledger 32
    "rotation": "image",  # ledger 33
    "surrogate": "all",
    "jitter": 0.2,
    "hue_turn": 0.1,
    "degrees": 10.0,
    "crop_area": (0.70, 0.95),  # ledger 16, 17
    "padding": "zeros",
    "refresh_statistics": False,
}
BY_TARGET = {"market": {"s": 30.0, "batch": 42}, "duke": {"s": 10.0, "batch": 40}}  # Sec. 4; ledger 15
NOT_USED = {"peak_rate"}  # of the other schedule


def values(options, left_out=()):
    return {field.name: getattr(options, field.name) for field in fields(options) if field.name not in left_out}


def test_the_network_and_the_source_stage_are_the_papers():
    paper = profile("paper")
    assert values(paper.network) == NETWORK
    assert values(paper.pretrain, NOT_USED) == PRETRAIN
    assert (paper.image_size, paper.weights) == ((384, 128), "imagenet")
    assert paper.folders == {"source": "msmt17", "market": "market1501", "duke": "dukemtmc"}


@pytest.mark.parametrize("target", BY_TARGET)
def test_the_target_stage_is_the_papers(target):
    assert values(profile("paper").adapt_options(target)) == {**ADAPT, **BY_TARGET[target]}


def test_the_rates_are_the_papers_epoch_by_epoch():
    """Ledger 22 and 27."""
    for epoch in range(60):
        rates = source_learning_rates(epoch)
        early = epoch < 40
        assert rates["new"] == pytest.approx(0.1 if early else 0.01)
        assert rates["backbone"] == pytest.approx(0.01 if early else 0.001)
        assert rates["patch_generator"] == pytest.approx(1e-5 if 25 <= epoch < 40 else 0)
        rates = target_learning_rates(epoch, 1e-4, 50)
        assert rates["backbone"] == rates["new"] == pytest.approx(1e-4 if epoch < 50 else 1e-5)
        assert rates["patch_generator"] == 0


def test_each_row_of_the_ablation_changes_what_the_paper_says_and_nothing_else():
    base = profile("paper").network
    for name, row in ROWS.items():
        if row.of:  # a variant: see below
            continue
        network = row.changed("network", base)
        if row.level == "image":
            assert (network.num_patches, network.backbone) == (1, "resnet50"), name
        else:
            own = {key.partition(".")[2]: value for key, value in row.overrides.items() if key.startswith("network.")}
            assert network == replace(base, **own) and set(own) <= {"num_patches", "generator"}, name


def test_each_variant_changes_one_option_of_its_row_and_has_a_value_of_its_own():
    seen = {}
    for name in (name for name, row in ROWS.items() if row.of and name not in {*ALIKE.values(), *WHEN}):
        for profile_name in PROFILES:
            own, other = (Spec(row, "market", 0, profile_name) for row in (name, ROWS[name].of))
            parts = [(getattr(own, part), getattr(other, part)) for part in ("network", "pretrain", "options")]
            changed = [
                (field.name, getattr(a, field.name), getattr(b, field.name))
                for a, b in parts
                for field in fields(a)
                if getattr(a, field.name) != getattr(b, field.name)
            ]
            if name.endswith("_long"):
                assert [(option, new / old) for option, new, old in changed] == [("epochs", 4), ("decay_epoch", 4)]
                continue
            if (profile_name, name) == ("gpu", "bf16"):  # which it takes anyway
                assert not changed
                continue
            ((option, new, old),) = changed
            assert own.hash != other.hash and seen.setdefault((profile_name, option, new), name) == name
            if "_x" in name:
                factor = float(name.split("_x")[1])
                assert option == name.split("_x")[0] and type(new) is type(old)
                assert new == pytest.approx(old * factor, rel=0.02, abs=0.01)


def test_a_condition_changes_what_is_given_or_one_width_and_keeps_the_number_of_steps():
    for profile_name, name in product(PROFILES, WHEN):
        own, other = (Spec(row, "market", 0, profile_name) for row in (name, ROWS[name].of))
        wide = own.network.dim / other.network.dim
        assert replace(own.network, dim=other.network.dim) == other.network and own.pretrain == other.pretrain
        changed = {
            field.name
            for field in fields(own.options)
            if vars(own.options)[field.name] != vars(other.options)[field.name]
        }
        share = own.entry.people * own.entry.images
        condition = name.partition("_x")[0].rpartition("_")[2]
        if condition in ("people", "images"):
            dose = float(name.partition("_x")[2])
            assert (getattr(own.entry, condition), share) == pytest.approx((dose, dose), abs=0.01)
            assert changed <= {"epochs", "decay_epoch"} and wide == 1
            if changed:
                assert own.options.epochs * share == pytest.approx(other.options.epochs, abs=0.5)
        else:
            assert not changed and share == 1
            assert wide == (float(name.partition("_x")[2]) if condition == "dim" else 1)
    assert set(STARTS) == {name for name in WHEN if "_x" not in name}


def test_the_papers_profile_differs_from_itself_in_nothing():
    assert profile("paper").differences() == []


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "paper"])
def test_every_difference_has_a_reason(name):
    rows = profile(name).differences()
    assert rows and all(row["reason"] and row["paper"] != row["here"] for row in rows)
    assert len({row["option"] for row in rows}) == len(rows)

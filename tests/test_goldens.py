"""Golden trajectories against their file; every option has one, and none is another's double."""

import importlib
import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from paul.options import AdaptOptions, PatchNetOptions, PretrainOptions
from paul.report.ledger import load_ledger
from tests.goldens import ADVICE, TRAJECTORIES, differences, load, measured
from tests.mutations import MUTATIONS, ROOT

KEPT = load()


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_no_number_has_moved(name):
    moved = differences(name, measured(name), KEPT.get(name, {}))
    assert not moved, f"{name}: {moved[0]} (and {len(moved) - 1} more). {ADVICE}"


def test_the_file_holds_the_trajectories_and_nothing_else():
    assert set(KEPT) == set(TRAJECTORIES)


def options_of(stage):
    return {option for name, (_, changes) in TRAJECTORIES.items() if name.startswith(f"{stage}/") for option in changes}


def test_every_option_has_a_trajectory():
    """What makes a network larger and nothing else, and what names one, is in the defaults. Of bf16 there is none: two
    CPUs round to 16 bits in places of their own."""
    shape = {field.name for field in fields(PatchNetOptions)}
    shape -= {"backbone", "dim", "pgn_channels", "pgn_hidden", "precision"}
    assert {field.name for field in fields(PretrainOptions)} | (shape - {"freeze_pgn"}) <= options_of("source")
    assert {field.name for field in fields(AdaptOptions)} | shape <= options_of("target")


def test_every_knob_of_the_ledger_has_a_trajectory():
    """But those of the data's preparation, which are named function:argument, and precision, for the reason above."""
    knobs = {knob for entry in load_ledger(ROOT / "book/ledger.toml") for knob in entry["knobs"]}
    options = {knob for knob in knobs if ":" not in knob} - {"precision"}
    assert len(options) > 20 and options <= options_of("source") | options_of("target")
    for module, _, argument in (knob.rpartition(":") for knob in knobs - options - {"precision"}):
        module, _, function = module.rpartition(".")
        assert argument in inspect.signature(getattr(importlib.import_module(module), function)).parameters


@pytest.mark.parametrize("stage", ["source", "target", "pul", "cluster_contrast"])
def test_every_option_does_something(stage):
    """No two trajectories of a stage are alike, but the one with low memory and the one with all of it."""
    seen = {}
    for name in (name for name in KEPT if name.startswith(f"{stage}/")):
        seen.setdefault(str(sorted(KEPT[name].items())), []).append(name)
    doubled = [names for names in seen.values() if len(names) > 1]
    assert doubled == ([[f"{stage}/default", f"{stage}/low_memory=True"]] if stage in ("source", "target") else [])


def test_what_the_mutations_change_is_there():
    """`python -m tests.mutations` plants them; this keeps them in step with the sources."""
    for name, mutation in MUTATIONS.items():
        text = Path(ROOT, "paul", mutation.file).read_text(encoding="utf-8")
        assert text.count(mutation.old) == 1 and mutation.trajectory in TRAJECTORIES, name

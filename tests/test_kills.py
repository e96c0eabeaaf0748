"""The script that kills commands: it kills, compares, notices what differs or is left; the page shows its outcome."""

import json
import os
import random
import time
import warnings

import pytest

from paul.cli import parser
from tests import kills


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "inputs").mkdir()
    kills.make_inputs(tmp_path / "inputs", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        yield tmp_path / "inputs"


def tried(inputs, name, **changes):
    command = kills.COMMANDS[name]._replace(**changes)
    return kills.tried(command, inputs, inputs.parent / "lives", 2, random.Random(0))


def test_a_command_is_killed_as_often_as_asked_and_ends_the_same(inputs):
    found = tried(inputs, "data_prep folder")
    assert found["kills"] == 2 and found["runs"] >= 1 and found["unlike"] == found["left"] == 0


def test_another_result_counts_as_unlike(inputs, monkeypatch):
    numbers = iter(range(100))
    monkeypatch.setattr(kills, "content", lambda path: next(numbers))
    found = tried(inputs, "data_prep dukemtmc")
    assert found["unlike"] == found["runs"]


def test_a_process_left_behind_is_counted_and_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "GRACE", 0.2)

    def run(*_):
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")
        time.sleep(0.5)  # until it is the other program, whose environment can be read
        return 0

    monkeypatch.setattr(kills.Life, "_run", run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        life = kills.Life(["any"], tmp_path)
    assert life.wait() == 0
    assert life.left() == 1 and not life.others()


def test_the_commands_are_those_that_can_be_typed():
    for name, command in kills.COMMANDS.items():
        module, *words = command.words.format(inputs="in", root=".", smoke=kills.SMOKE).split()
        if module in ("paul", "data_prep"):
            {"paul": parser, "data_prep": kills.data_prep.build_parser}[module]().parse_args(words), name


def test_the_page_shows_the_last_outcome():
    kept = json.loads(kills.KEPT.read_text(encoding="utf-8"))
    page = kills.PAGE.read_text(encoding="utf-8")
    assert kills.with_table(page, kept) == page
    assert not any(line["unlike"] or line["left"] for line in kept["commands"].values())
    assert set(kept["commands"]) == set(kills.COMMANDS)

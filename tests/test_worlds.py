"""Worlds by a number: the same each time, never the same as another, and knobs that turn what they are named after."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from data_prep.__main__ import KNOBS, build_parser, main
from data_prep.expected import expected_images
from data_prep.market_layout import DataError, read_card, read_index
from data_prep.synthetic import PROFILES, plan_set, prepare
from data_prep.wardrobe import sample_wardrobe
from data_prep.worlds import SETS, World, read_folder
from paul.data.datasets import how_to_make
from paul.data.worlds import OF_TARGETS, knobs_of, population, source_population, turned, world_of
from paul.experiments.plan import images_of
from paul.experiments.profiles import PROFILES as STUDY
from paul.experiments.profiles import profile as named
from paul.experiments.runner import sources_of
from paul.experiments.specs import Spec

TINY = World(3, people=2, images=2, size=(64, 32))
CLOTHES = (
    "top",
    "top_texture",
    "top_colour",
    "top_second",
    "print",
    "bottom",
    "bottom_colour",
    "shoes",
    "hat",
    "scarf",
)


def tops(name, world):
    people = {row["person_id"]: row for row in plan_set(name, "mini", world).rows if row["person_id"] > 0}
    return [(row["top"], row["top_texture"], row["top_colour"]) for row in people.values()]


def people_of(plan, split="train"):
    return {s.person.person_id: s.person for s, row in zip(plan.shots, plan.rows) if s.person and row["split"] == split}


def test_a_world_is_the_same_each_time_and_no_other(tmp_path):
    for out in ("one", "two"):
        prepare(tmp_path / out, "smoke", TINY, workers=1, names=["market"], progress=False)
    prepare(tmp_path / "one", "smoke", replace(TINY, number=4), names=["market"], progress=False)
    folders = [tmp_path / "one" / TINY.folder("smoke"), tmp_path / "one" / replace(TINY, number=4).folder("smoke")]
    mine, other = (read_card(folder / "market") for folder in folders)
    assert mine == read_card(tmp_path / "two" / folders[0].name / "market")
    assert mine["name"] == f"market-{folders[0].name}" != other["name"]
    assert (mine["world"], mine["knobs"]["people"], mine["size"], other["world"]) == (3, 2, [64, 32], 4)
    assert mine["fingerprint"] != other["fingerprint"] and mine["gap"] != other["gap"]


def test_the_targets_knobs_leave_the_source_as_it_is_and_its_models_are_shared(tmp_path):
    """One source set and one source model for a world, however its targets are drawn."""
    other = {"gap": 2.0, "shared": 0.0, "alike": 0.9, "cameras": 4, "images": 3, "people": 3}
    marks = {}
    for name, value in {"number": TINY.number, **other}.items():
        world = replace(TINY, **{name: value})
        prepare(tmp_path, "smoke", world, workers=1, names=["source"], progress=False)
        marks[name] = read_card(tmp_path / world.folder("smoke") / "source")["fingerprint"]
    same = {name for name in other if marks[name] == marks["number"]}
    assert same == set(OF_TARGETS)
    for knobs in other.items():
        own, plain = turned("mini", **dict([knobs])), "mini"
        shares = knobs[0] in OF_TARGETS
        assert (source_population(own, 3) == source_population(plain, 3) == "mini-w3") is shares
        assert (named(own).in_world(3).folders["source"] == "mini-w3/source") is shares
        assert named(own).in_world(3).folders["duke"] == f"{population(own, 3)}/duke"
        run, other_run = (Spec("paul", "duke", 0, profile, world=3) for profile in (own, plain))
        assert (run.source() == other_run.source()) is shares and len(sources_of([run, other_run])) == 2 - shares
    assert source_population("mini-people7-gap2.0", 1) == "mini-w1-people7" and source_population("paper") == "paper"


def test_worlds_share_no_person_camera_or_street():
    seen = defaultdict(list)
    for number in range(4):
        for name in SETS:
            plan = plan_set(name, "smoke", World(number))
            seen["camera"] += [(camera.key, camera.gain, camera.pitch) for camera in plan.cameras]
            seen["street"] += [camera.key for camera in plan.cameras]
            seen["person"] += [tuple(person.form.values()) for person in people_of(plan).values()]
    for kind, found in seen.items():
        assert len(set(found)) == len(found), kind


def test_no_two_worlds_have_the_same_folder():
    knobs = {"people": 7, "images": 4, "cameras": 5, "gap": 2.0, "shared": 0.0, "alike": 1.0, "size": (64, 32)}
    worlds = [World(number, **{k: v}) for number in (0, 1, 11) for k, v in knobs.items()] + [World(), World(1)]
    names = [world.folder(profile) for world in worlds for profile in PROFILES]
    assert len(set(names)) == len(names)
    assert all(read_folder(world.folder("mini")) == ("mini", world) for world in worlds)
    assert World().folder("mini") == "mini" and World(3).folder("mini") == "mini-w3"
    assert read_folder("mini-w0") is read_folder("mini-x3") is read_folder("mini-w3-people1") is None


def test_the_study_and_the_renderer_name_worlds_alike(tmp_path):
    knobs = {"people": 7, "images": 4, "cameras": 5, "gap": 0.25, "shared": 0.0, "alike": 1.0, "size": (64, 32)}
    for number, chosen in [(0, {}), (3, {}), (0, knobs), (3, {"gap": 2.0}), (12, {"people": 600, "alike": 0.3})]:
        world, profile = World(number, **chosen), turned("mini", **chosen)
        assert population(profile, number) == world.folder("mini")
        assert world_of(world.folder("mini")) == (profile, number)
        assert knobs_of(profile) == ("mini", chosen) and STUDY["mini"].targets == named(profile).targets
        folder = named(profile).in_world(number).folders["duke"]
        assert folder == f"{world.folder('mini')}/duke"
        command = how_to_make(tmp_path / folder).split()
        asked = build_parser().parse_args(command[command.index("synthetic") :])
        turns = {name: value for name in KNOBS if (value := getattr(asked, name)) is not None}
        assert World(asked.world, **turns) == world and (asked.profile, asked.out) == ("mini", str(tmp_path))
        said = expected_images(tmp_path / folder)
        assert images_of(str(tmp_path / folder)) == {split: said[split] for split in ("train", "query", "gallery")}


@pytest.mark.parametrize(
    "name",
    [
        "mini-people",
        "mini-gap2",
        "mini-gap1.0",
        "mini-gap2.0-people7",
        "mini-people7-people7",
        "mini-w3",
        "paper-gap2.0",
    ],
)
def test_a_turned_profile_has_one_name(name):
    with pytest.raises(ValueError, match=f"unknown profile '{name}'"):
        named(name)


def test_gaps_of_other_worlds_lie_around_the_development_worlds():
    for name in ("market", "duke"):
        gaps = np.array([World(number).gap_of(name) for number in range(1, 60)]) / SETS[name].gap
        assert len(set(gaps)) > 40 and gaps.min() > 0.6 and gaps.max() < 1.6 and 0.85 < gaps.mean() < 1.15
        assert World(5, gap=2.0).gap_of(name) == pytest.approx(2 * World(5).gap_of(name), abs=2e-4)
    assert World(5).gap_of("source") == World(5, gap=0.0).gap_of("duke") == 0


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_shared_is_the_share_of_garments_in_common(shared):
    for kind in ("tops", "bottoms"):
        source, target = (
            set(getattr(sample_wardrobe(3, SETS[name].key, 0.1, shared), kind)) for name in ("source", "duke")
        )
        assert len(source & target) / len(target) == pytest.approx(shared)
    # the index shows what somebody wears
    source, target = (tops(name, World(3, shared=shared)) for name in ("source", "duke"))
    known = np.mean([top in source for top in target])
    assert known == 0 if shared == 0 else known == pytest.approx(shared, abs=0.15)


@pytest.mark.parametrize("alike", [0.0, 0.15, 0.6, 1.0])
def test_alike_is_the_share_whom_clothes_do_not_tell_apart(alike):
    for split in ("train", "query"):
        people = people_of(plan_set("market", "mini", World(3, alike=alike)), split)
        marked = [person for person in people.values() if person.look["clothes"] != "own"]
        assert len(marked) == round(alike * len(people))
        wearing = Counter(tuple(person.look[name] for name in CLOTHES) for person in people.values())
        for person in marked:
            assert wearing[tuple(person.look[name] for name in CLOTHES)] >= 2
            model = people[person.look["lookalike"] or person.person_id]
            assert model is person or model.form["height"] != person.form["height"]


def test_a_changing_bag_changes_between_cameras_and_others_stay():
    carried = defaultdict(lambda: defaultdict(set))
    for row in plan_set("market", "mini", World(3, alike=0.5)).rows:
        if row["person_id"] > 0:
            carried[row["clothes"]][row["person_id"]].add((row["backpack"], row["bag"]))
    several = {kind: np.mean([len(bags) > 1 for bags in people.values()]) for kind, people in carried.items()}
    assert several.pop("changing bag") > 0.7 and set(several) == {"own", "twins", "uniform"}
    assert not any(several.values())


def test_no_last_batch_is_small():
    """Expected numbers are exact: tests/test_plan.py holds them to what is planned."""
    for name in ("smoke", "mini", "gpu"):
        for target in STUDY[name].targets:
            images = expected_images(f"data/{World(3).folder(name)}/{target}")
            batch = STUDY[name].adapt_options(target).batch
            assert images["train"] % batch == 0, (name, target)
            if name == "mini":
                assert (images["val_query"] + images["val_gallery"]) % batch == 0


def test_sizes_are_what_was_asked_for():
    world = World(3, people=21, images=4, cameras=5)
    plan = plan_set("duke", "smoke", world)
    rows = [row for row in plan.rows if row["split"] == "train"]
    assert len({row["person_id"] for row in rows}) == 21 and len(plan.cameras) == 5
    assert set(Counter((row["person_id"], row["camera_id"]) for row in rows).values()) == {4}
    assert expected_images(f"data/{world.folder('smoke')}/duke") == Counter(row["split"] for row in plan.rows)
    assert (
        len({row["person_id"] for row in plan_set("market", "mini", World(3)).rows if row["split"] == "query"}) >= 120
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--people", "1"], "--people 1: people of a set are 2 to 1000"),
        (["--cameras", "10"], "--cameras 10: cameras of a set are 3 to 9"),
        (["--shared", "1.5"], "--shared 1.5: a share lies between 0 and 1"),
        (["--gap", "nan"], "--gap nan: a gap's strength"),
        (["--size", "127", "64"], "--size (127, 64): height and width are even"),
    ],
)
def test_a_knob_out_of_range_is_one_line(arguments, message, capsys):
    assert main(["synthetic", "--plan", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_command_takes_a_world(tmp_path, capsys):
    knobs = ["--world", "3", "--people", "2", "--images", "2", "--size", "64", "32"]
    assert main(["synthetic", "--profile", "smoke", "--sets", "duke", "--out", str(tmp_path), *knobs]) == 0
    folder = tmp_path / TINY.folder("smoke") / "duke"
    assert f"{folder}: written" in capsys.readouterr().out
    assert read_card(folder)["world"] == 3 and len({r["person_id"] for r in read_index(folder)}) > 3
    with pytest.raises(DataError, match="--alike"):
        World(alike=-0.1)

"""The embedded people: layout, determinism, resumption, honest truth columns, a renderer that agrees with geometry."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from people import at_most, pairs, write_set
from PIL import Image

from data_prep import synthetic
from data_prep.__main__ import main
from data_prep.body import TORSO, Capsules, pose
from data_prep.contact import contact_sheet
from data_prep.market_layout import (
    FOLDERS,
    INDEX_COLUMNS,
    DataError,
    ImageName,
    count,
    fingerprint,
    read_card,
    read_index,
)
from data_prep.people import MATERIAL, describe, sample_people
from data_prep.photograph import render
from data_prep.render import figures, trace
from data_prep.statistics import by_camera, compare
from data_prep.store import locked
from data_prep.synthetic import PROFILES, plan_set, prepare
from data_prep.wardrobe import sample_wardrobe
from data_prep.worlds import DEVELOPMENT

SETS = ("source", "market", "duke")
CLOTHES = sample_wardrobe(0, 2, 0.1, 0.5)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    assert set(prepare(out, "smoke", progress=False).values()) == {"written"}
    return out / "smoke"


@pytest.fixture(scope="module", params=SETS)
def one_set(request, smoke):
    return smoke / request.param


# ---- layout


def test_names_follow_market1501(one_set):
    rows = read_index(one_set)
    assert tuple(rows[0])[: len(INDEX_COLUMNS)] == INDEX_COLUMNS
    for row in rows:
        name = ImageName.parse(row["file"])
        assert row["file"] == f"{FOLDERS[row['split']]}/{name}"
        assert (name.person_id, name.camera_id) == (int(row["person_id"]), int(row["camera_id"]))
        assert (name.sequence, name.frame) == (int(row["sequence"]), int(row["frame"]))
        assert 1 <= name.camera_id <= 9 and name.person_id <= 1501, "other frameworks read one digit, and ids to 1501"
    assert len({row["file"] for row in rows}) == len(rows)
    on_disk = {str(path.relative_to(one_set)) for path in one_set.glob("*/*")}
    assert on_disk == {row["file"] for row in rows}


@pytest.mark.parametrize("text", ["0002_c1s1_000151_01.jpg", "-1_c6s4_000001_00.jpg", "0000_c2s1_099999_12.jpg"])
def test_a_name_reads_back(text):
    assert str(ImageName.parse(f"query/{text}")) == text


@pytest.mark.parametrize("text", ["0002_c10s1_000151_01.jpg", "2_c1s1_000151_01.jpg", "0002_c1s1_000151_01.png"])
def test_another_name_is_refused(text):
    with pytest.raises(DataError, match="Market-1501"):
        ImageName.parse(text)


def test_images_have_the_profile_size(one_set):
    height, width = PROFILES["smoke"].size
    for row in read_index(one_set)[::25]:
        with Image.open(one_set / row["file"]) as image:
            assert image.size == (width, height) and image.mode == "RGB"


def test_card_counts_what_is_there(one_set):
    card, rows = read_card(one_set), read_index(one_set)
    for split, counts in card["counts"].items():
        ids = [ImageName.parse(path).person_id for path in (one_set / FOLDERS[split]).iterdir()]
        assert counts == {
            "images": len(ids),
            "people": len({i for i in ids if i > 0}),
            "junk": ids.count(-1),
            "distractors": ids.count(0),
        }
    assert sum(c["images"] for c in card["counts"].values()) == len(rows)
    assert card["fingerprint"] == fingerprint(one_set)
    assert {"name", "licence", "description", "profile", "world", "knobs", "renderer", "gap"} <= set(card)
    assert set(card["columns"]) == set(rows[0])


def test_splits_share_no_people_and_every_query_has_a_match_elsewhere(one_set):
    people = {}
    for row in read_index(one_set):
        people.setdefault(row["split"].removesuffix("_query").removesuffix("_gallery"), set())
        people.setdefault(row["split"], set()).add((int(row["person_id"]), int(row["camera_id"])))
    ids = {split: {person for person, _ in pairs if person > 0} for split, pairs in people.items()}
    groups = [ids["train"], ids["query"] | ids["gallery"], ids.get("val_query", set()) | ids.get("val_gallery", set())]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for query, gallery in (("query", "gallery"), ("val_query", "val_gallery")):
        for person, camera in people.get(query, ()):
            assert any(other == person and where != camera for other, where in people[gallery])
    rows = [row for row in read_index(one_set) if row["split"] == "query"]
    assert len({(row["person_id"], row["camera_id"]) for row in rows}) == len(rows), "one query per person and camera"


@pytest.mark.parametrize(
    "profile, name, train, images, cameras",
    [
        ("mini", "source", 300, (2200, 2600), 9),
        ("mini", "market", 140, (1500, 1800), 6),
        ("mini", "duke", 140, (1500, 1800), 8),
        ("gpu", "source", 1000, (20000, 30000), 9),
        ("gpu", "market", 525, (6000, 12000), 6),
        ("gpu", "duke", 525, (6000, 12000), 8),
    ],
)
def test_planned_sizes(profile, name, train, images, cameras):
    rows = plan_set(name, profile).rows
    counts = count(rows)
    assert counts["train"]["people"] >= train and images[0] <= counts["train"]["images"] <= images[1]
    assert {row["camera_id"] for row in rows} == set(range(1, cameras + 1))
    if name != "source":
        test, val = (300, 100) if profile == "gpu" else (120, 60)
        assert counts["query"]["people"] >= test and counts["val_query"]["people"] >= val
        assert counts["gallery"]["junk"] > 0 and counts["gallery"]["distractors"] > 0
    per_person = {}
    for row in rows:
        if row["split"] == "train":
            per_person.setdefault(row["person_id"], set()).add(row["camera_id"])
    assert {len(v) for v in per_person.values()} == {3, 4, 5}


# ---- determinism, resumption, refusals


def test_the_same_bytes_for_any_number_of_workers(smoke, tmp_path):
    prepare(tmp_path, "smoke", workers=2, names=["market"], progress=False)
    assert read_card(tmp_path / "smoke/market") == read_card(smoke / "market")
    for row in read_index(smoke / "market")[::20]:
        assert (tmp_path / "smoke/market" / row["file"]).read_bytes() == (smoke / "market" / row["file"]).read_bytes()


def test_a_complete_set_is_kept(smoke):
    stamp = (smoke / "duke/index.csv").stat().st_mtime_ns
    assert prepare(smoke.parent, "smoke", progress=False) == dict.fromkeys(SETS, "kept")
    assert (smoke / "duke/index.csv").stat().st_mtime_ns == stamp


@pytest.fixture
def quick(monkeypatch):
    """Stands in for rendering: a set of three tiny files."""

    def write_set(folder, name, profile, world, workers, progress):
        (folder / "query").mkdir()
        rows = []
        for frame in range(3):
            name_ = ImageName(1, 1, 1, frame, 1)
            (folder / f"query/{name_}").write_bytes(bytes([world.number, frame]))
            rows.append(
                {
                    "file": f"query/{name_}",
                    "split": "query",
                    "person_id": 1,
                    "camera_id": 1,
                    "sequence": 1,
                    "frame": frame,
                }
            )
        synthetic.write_index(folder, rows)
        card = {**synthetic.recipe(name, profile, world), "fingerprint": fingerprint(folder)}
        synthetic.write_card(folder, card)

    monkeypatch.setattr(synthetic, "write_set", write_set)
    return write_set


def visible(folder):
    return sorted(path.name for path in Path(folder).iterdir() if path.name != ".lock")


def test_an_interrupted_run_leaves_whole_sets_and_goes_on(quick, tmp_path, monkeypatch):
    def interrupted(folder, name, *rest):
        if name == "market":
            (folder / "query").mkdir()
            raise KeyboardInterrupt
        quick(folder, name, *rest)

    monkeypatch.setattr(synthetic, "write_set", interrupted)
    assert main(["synthetic", "--profile", "smoke", "--out", str(tmp_path)]) == 130
    assert visible(tmp_path / "smoke") == ["source"]
    monkeypatch.setattr(synthetic, "write_set", quick)
    assert prepare(tmp_path, "smoke") == {"source": "kept", "market": "written", "duke": "written"}


def test_a_killed_run_is_cleaned_up(quick, tmp_path):
    leftover = tmp_path / "smoke/.market.partial/query"
    leftover.mkdir(parents=True)
    (leftover / "half.jpg").write_bytes(b"half")
    prepare(tmp_path, "smoke")
    assert visible(tmp_path / "smoke") == sorted(SETS)


def test_a_different_set_is_refused_unless_overwritten(quick, tmp_path, capsys, monkeypatch):
    prepare(tmp_path, "smoke")
    before, today = read_card(tmp_path / "smoke/source"), synthetic.RENDERER
    monkeypatch.setattr(synthetic, "RENDERER", today + 1)
    assert main(["synthetic", "--profile", "smoke", "--out", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert f"renderer: {today} on disk, {today + 1} wanted" in message and "--overwrite" in message
    assert read_card(tmp_path / "smoke/source") == before
    assert main(["synthetic", "--profile", "smoke", "--out", str(tmp_path), "--overwrite"]) == 0
    assert read_card(tmp_path / "smoke/source")["renderer"] == today + 1
    assert visible(tmp_path / "smoke") == sorted(SETS)


def test_damage_is_noticed(quick, tmp_path):
    prepare(tmp_path, "smoke")
    next((tmp_path / "smoke/market/query").iterdir()).write_bytes(b"")
    with pytest.raises(DataError, match="market: its files no longer match the fingerprint"):
        prepare(tmp_path, "smoke")
    (tmp_path / "smoke/source/card.json").write_text("{")
    with pytest.raises(DataError, match="card.json: not readable"):
        prepare(tmp_path, "smoke")


def test_a_foreign_folder_is_left_alone(quick, tmp_path):
    (tmp_path / "smoke/source").mkdir(parents=True)
    (tmp_path / "smoke/source/mine.txt").write_text("keep me")
    with pytest.raises(DataError, match="was not written here"):
        prepare(tmp_path, "smoke")
    assert (tmp_path / "smoke/source/mine.txt").read_text() == "keep me"


def test_no_space_left(quick, tmp_path, monkeypatch):
    prepare(tmp_path, "smoke")
    before = read_card(tmp_path / "smoke/source")

    def full(folder, *rest):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(synthetic, "write_set", full)
    with pytest.raises(DataError, match="no space left"):
        prepare(tmp_path, "smoke", overwrite=True)
    assert read_card(tmp_path / "smoke/source") == before and visible(tmp_path / "smoke") == sorted(SETS)


@pytest.mark.parametrize("place", ["market", ".lock"])
def test_a_pipe_is_never_waited_for(quick, tmp_path, capsys, place):
    if place == "market":
        prepare(tmp_path, "smoke")
        place = next((tmp_path / "smoke/market/query").iterdir())
        place.unlink()
    else:
        (tmp_path / "smoke").mkdir()
        place = tmp_path / "smoke/.lock"
    os.mkfifo(place)
    with at_most(10):
        status = main(["synthetic", "--profile", "smoke", "--out", str(tmp_path)])
    if place.name == ".lock":
        assert status == 0
    else:
        assert status == 1 and "market: its files no longer match the fingerprint" in capsys.readouterr().err


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES])
def test_a_target_that_cannot_be_written_is_named(smoke, tmp_path, monkeypatch, capsys, error):
    def refuse(path, *_, **__):
        raise OSError(error, os.strerror(error), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        assert main(["synthetic", "--profile", "smoke", "--out", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'smoke'}: {os.strerror(error)}; --out must be a folder that can")
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", lambda image, path: refuse(path))
        assert main(["contact", "--data", str(smoke), "--out", str(tmp_path / "sheet.png")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out {tmp_path / 'sheet.png'}: ") and os.strerror(error) in line


def test_a_sheet_that_cannot_be_is_named(smoke, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.png")
    for out, words in (("a.nothing", "unknown file extension"), ("pipe.png", "a pipe"), ("none/a.png", "No such file")):
        with at_most(10):
            assert main(["contact", "--data", str(smoke), "--out", str(tmp_path / out)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: --out {tmp_path / out}: ") and words in line


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda top: (top / "index.csv").write_text("file,split\n"), "index.csv lacks the column 'person_id'"),
        (lambda top: next(top.glob("*/*.png")).write_bytes(b"?"), "cannot read the image .*png"),
        (lambda top: (top / "index.csv").write_text((top / "index.csv").read_text().replace("train", "query")),
         "no images in split 'train'"),
    ],
)  # fmt: skip
def test_a_set_that_no_sheet_can_show_is_named(tmp_path, damage, message):
    folder = write_set(tmp_path / "mine", {"train": pairs([1, 2])})
    damage(folder)
    with pytest.raises(DataError, match=message):
        contact_sheet(tmp_path)


def test_a_sheet_shows_pictures_of_any_size(tmp_path):
    folder = write_set(tmp_path / "mine", {"train": pairs([1, 2])})
    Image.new("RGB", (77, 55)).save(next(folder.glob("*/*.png")))
    assert contact_sheet(tmp_path).size[0] % 2 == 0


def test_two_preparations_do_not_meet(quick, tmp_path, capsys):
    with locked(tmp_path / "smoke/.lock"):
        assert main(["synthetic", "--profile", "smoke", "--out", str(tmp_path)]) == 1
    assert "another preparation" in capsys.readouterr().err
    assert set(prepare(tmp_path, "smoke").values()) == {"written"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--profile", "huge"], "invalid choice: 'huge'"),
        (["--workers", "0"], "must be 1 or more"),
        (["--world", "-1"], "a world's number is 0 or more"),
        (["--size", "128"], "expected 2 arguments"),
        (["--sets", "prid"], "invalid choice: 'prid'"),
    ],
)
def test_bad_options(arguments, message, capsys):
    with pytest.raises(SystemExit) as status:
        main(["synthetic", *arguments])
    assert status.value.code == 2 and message in capsys.readouterr().err


def test_the_command_runs_as_a_module(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "data_prep", "contact", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert run.returncode == 1 and "holds no prepared set" in run.stderr and "Traceback" not in run.stderr


def test_contact_sheet_shows_every_set(smoke):
    height, width = PROFILES["smoke"].size
    sheet = contact_sheet(smoke, people=4, views=3)
    assert sheet.size == (6 * width, 6 * height + 2 * 8)


# ---- truth


@pytest.fixture(scope="module")
def measured():
    """Shots and the foreground they really show: where an image differs from the same street without the person."""
    plan = plan_set("market", "smoke")
    cameras = [replace(camera, sun=0.0, noise=0.0, blur=0.0) for camera in plan.cameras]
    shots = [replace(shot, occluder="none", stride=0.1) for shot in plan.shots if shot.person is not None][:120]
    with_ = render(shots, cameras, plan.size).astype(int)
    without = render([replace(shot, person=None) for shot in shots], cameras, plan.size).astype(int)
    return shots, np.abs(with_ - without).max(3) > 24


def test_box_columns_say_where_the_person_is(measured):
    shots, mask = measured
    rows, columns = mask.any(2), mask.any(1)
    heads = rows.argmax(1) / rows.shape[1]
    middles = np.array([np.average(np.arange(mask.shape[2]), weights=m.sum(0)) for m in mask]) / mask.shape[2] - 0.5
    dx, dy, scale = (np.array([getattr(shot, name) for shot in shots]) for name in ("box_dx", "box_dy", "box_scale"))
    assert np.corrcoef(middles, dx)[0, 1] > 0.9
    inside = (heads > 0.02) & columns.any(1)
    # the crown lies half a figure above the centre: lower with box_dy, higher with box_scale
    slope, *_ = np.linalg.lstsq(np.stack([dy, scale, np.ones_like(dy)], 1)[inside], heads[inside], rcond=None)
    assert slope[0] == pytest.approx(1, abs=0.25) and slope[1] == pytest.approx(-0.44, abs=0.15)


def test_truth_columns_are_those_of_the_person(one_set):
    people = {}
    for row in read_index(one_set):
        if int(row["person_id"]) > 0:
            look = tuple(row[name] for name in ("top", "top_colour", "hair"))
            people.setdefault(row["person_id"], set()).add(look)
            assert abs(float(row["box_dx"])) <= 0.2 and 0.7 <= float(row["box_scale"]) <= 1.35
            assert 0 <= float(row["yaw"]) < 360 and row["occluder"] in ("none", "pole", "bicycle", "car", "passer-by")
    assert all(len(looks) == 1 for looks in people.values())


def test_a_tracklet_shares_its_viewpoint():
    plan = plan_set("market", "mini")
    views = {}
    for shot, row in zip(plan.shots, plan.rows):
        if row["person_id"] > 0:
            views.setdefault((row["person_id"], row["camera_id"]), []).append(np.exp(1j * shot.yaw))
    within = [abs(np.angle(v[0] / v[1])) for v in views.values()]
    across = [abs(np.angle(a[0] / b[0])) for (p, _), a in views.items() for (q, _), b in views.items() if p == q]
    assert np.median(within) < 0.3 < np.median([a for a in across if a > 0])


def test_lookalikes_share_most_of_their_look():
    (people,) = sample_people(0, 2, CLOTHES, [200])
    by_id = {person.person_id: person for person in people}
    pairs = [(person, by_id[person.look["lookalike"]]) for person in people if person.look["lookalike"]]
    assert 0.1 < len(pairs) / len(people) < 0.5
    for one, two in pairs:
        differing = [name for name in one.look if name != "lookalike" and one.look[name] != two.look[name]]
        assert 1 <= len(differing) <= 4, "not the same, and nearly the same"
    assert set(describe(None).values()) == {""}


def test_a_larger_gap_takes_cameras_farther_from_the_source():
    from data_prep.camera import sample_camera
    from data_prep.seeding import rng_for

    def cameras(gap):
        return [sample_camera(rng_for(0, 2, "camera", c), c, gap, (0, 2, c)) for c in range(1, 33)]

    def distance(gap, name):
        """How far the same cameras move from where they stand without a gap, on average."""
        pairs = zip(cameras(gap), cameras(0.0))
        return np.mean([np.abs(np.subtract(getattr(a, name), getattr(b, name))) for a, b in pairs])

    for name in ("tint", "gamma", "saturation", "contrast"):
        assert 0 < distance(0.1, name) < distance(0.2, name) < distance(0.4, name)


def test_rendered_people_are_near_to_photographs(smoke):
    """A sample with a margin; `data_prep statistics data/mini/source` judges all of it by a third."""
    cameras = by_camera(smoke / "source", 8)
    far = {line.name: round(line.ratio, 2) for line in compare(cameras) if not 0.55 < line.ratio < 1.55}
    assert not far
    assert sum(line.inside for line in compare(cameras)) >= 13, "cameras spread around them"


# ---- the renderer against geometry


def capsule(low, high, wide, deep=1.0, cap=(1.0, 1.0)):
    """One capsule for one person as body.Capsules."""

    def shaped(value):
        return np.asarray(value, np.float32)[None, None]

    return Capsules(
        shaped(low),
        shaped(high),
        shaped(wide),
        np.full((1, 1), deep, np.float32),
        shaped(cap),
        shaped((0, 1)),
        shaped((1, 1)),
        np.ones((1, 1), bool),
        np.array([TORSO]),
        np.array([MATERIAL["top"]]),
    )


def area(capsules, yaw=0.0):
    seen = trace(
        capsules, np.array([yaw]), np.zeros(1), np.array([100.0]), np.array([64.0]), np.array([110.0]), (128, 128)
    )
    return len(seen.sample) / 2, seen


@pytest.mark.parametrize("yaw", [0.0, 0.6, 1.4, 3.0])
@pytest.mark.parametrize("deep", [0.5, 1.0, 2.0])
def test_an_upright_capsule_covers_its_area(yaw, deep):
    half = 20 * np.hypot(np.cos(yaw), deep * np.sin(yaw))  # of the ellipse, seen from `yaw`
    covered, seen = area(capsule((0, 0.3, 0), (0, 0.7, 0), (0.2, 0.2), deep, (0.5, 1.0)), yaw)
    assert covered == pytest.approx(2 * half * 40 + np.pi / 2 * half * (0.5 * half + half), rel=0.02)
    np.testing.assert_allclose(seen.sin**2 + seen.cos**2, seen.across**2 + seen.facing**2, atol=1e-4)


@pytest.mark.parametrize("tilt", [0.3, 1.0, np.pi / 2])
def test_a_tilted_capsule_covers_its_area(tilt):
    high = (0.4 * np.sin(tilt) - 0.2, 0.5 + 0.4 * np.cos(tilt), 0)
    covered, _ = area(capsule((-0.2, 0.5, 0), high, (0.1, 0.1)))
    assert covered == pytest.approx(40 * 20 + np.pi * 100, rel=0.03)


def test_the_scan_misses_nothing_and_the_nearest_wins():
    """Against every capsule tried at every sample."""
    people = sample_people(0, 5, CLOTHES, [3])[0]
    form = {name: np.array([person.form[name] for person in people]) for name in people[0].form}
    capsules = pose(form, np.array([0.3, 2.0, 4.0]), np.full(3, 0.4), np.full(3, 0.3))
    yaw, pitch, scale = np.array([0.2, 1.5, 3.9]), np.array([0.1, 0.2, 0.3]), np.array([60.0, 55, 70])
    x, y, (height, width) = np.array([16.0, 18, 15]), np.array([60.0, 58, 66]), (64, 32)
    seen = trace(capsules, yaw, pitch, scale, x, y, (height, width))
    sx = np.arange(width)[None, :] + np.where(np.arange(2 * height) % 2, 0.75, 0.25)[:, None]
    sy = (np.arange(2 * height)[:, None] + 0.5) / 2 + 0 * sx
    expected = np.full((3, 2 * height, width), -np.inf)
    for image in range(3):
        c, s, up, toward = np.cos(yaw[image]), np.sin(yaw[image]), np.cos(pitch[image]), np.sin(pitch[image])
        for k in np.flatnonzero(capsules.present[:, image]):
            ends = []
            for point in (capsules.low[k, image], capsules.high[k, image]):
                z = point[2] * c - point[0] * s
                ends.append(
                    scale[image]
                    * np.array([point[0] * c + point[2] * s, -(point[1] * up - z * toward), point[1] * toward + z * up])
                    + (x[image], y[image], 0)
                )
            (x0, y0, z0), (x1, y1, z1) = ends
            deep = capsules.deep[k, image]
            w0, w1 = capsules.wide[k, image] * scale[image] * np.hypot(c, deep * s)
            length = np.hypot(x1 - x0, y1 - y0)
            ux, uy = (x1 - x0) / length, (y1 - y0) / length
            raw = ((sx - x0) * ux + (sy - y0) * uy) / length
            t = np.clip(raw, 0, 1)
            half = w0 + (w1 - w0) * t
            across = (1 if uy <= 0 else -1) * ((sy - y0) * ux - (sx - x0) * uy) / half
            low_cap, high_cap = (max(w * f, 0.3) for w, f in zip((w0, w1), capsules.cap[k, image]))
            beyond = (raw - t) * length / np.where(raw < 0, low_cap, high_cap)
            left = 1 - across**2 - beyond**2
            # a point of the ellipse's front: x = half * across, z from the rotated ellipse's equation
            a, b, m = c * c + (deep * s) ** 2, s * s + (deep * c) ** 2, (deep**2 - 1) * s * c
            front = (
                half / np.sqrt(a) * (m / np.sqrt(a) * across + np.sqrt(b - m * m / a) * np.sqrt(np.clip(left, 0, 1)))
            )
            depth = np.where(left > 0, z0 + (z1 - z0) * t + front, -np.inf)
            expected[image] = np.maximum(expected[image], depth)
    found = np.full(expected.size, -np.inf)
    found[seen.sample] = seen.depth
    found = found.reshape(expected.shape)
    both = np.isfinite(found) & np.isfinite(expected)
    assert (np.isfinite(found) != np.isfinite(expected)).mean() < 1e-3  # float32 at the outline
    assert np.abs(found[both] - expected[both]).max() < 0.05


def test_faces_look_forward():
    (people,) = sample_people(0, 7, CLOTHES, [30])
    people = [replace(p, form={**p.form, "hair_style": 0.0, "hat_style": 0.0}) for p in people]
    skin, hair = (np.stack([p.colours[MATERIAL[name]] for p in people]) for name in ("skin", "hair"))
    told_apart = np.flatnonzero(np.abs(skin - hair).sum(1) > 0.5)[:8]
    people, skin, hair = [people[i] for i in told_apart], skin[told_apart], hair[told_apart]
    camera = plan_set("source", "smoke").cameras[0]
    n = len(people)

    def heads(yaw):
        colour, cover = figures(
            people,
            np.full(n, yaw),
            *np.zeros((3, n)),
            np.full(n, 0.1),
            [camera] * n,
            np.full(n, 100.0),
            np.full(n, 32.0),
            np.full(n, 110.0),
            (128, 64),
        )
        top = slice(12, 22)
        return colour[:, top].sum((1, 2)) / cover[:, top].sum((1, 2))[:, None]

    toward = ((heads(0.0) - heads(np.pi)) * (skin - hair)).sum(1)
    assert n > 4 and (toward > 0).all(), "from the front a head is nearer to the skin's colour than from behind"


def test_gap_is_one_number_in_one_table():
    gaps = [DEVELOPMENT.gap_of(name) for name in SETS]
    assert gaps == [synthetic.SETS[name].gap for name in SETS] and gaps[0] == 0 < gaps[1] < gaps[2] < 1
    assert json.dumps(synthetic.recipe("duke", "mini"))

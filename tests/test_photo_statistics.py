"""Statistics of crops: against closed forms, against an obvious version, and as the command prints them."""

import json

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.market_layout import DataError
from data_prep.statistics import PHOTOGRAPHS, by_camera, compare, statistics


def flat(*colour):
    return np.full((128, 64, 3), colour, np.uint8)


def test_a_flat_image_has_no_edges_and_its_own_colour():
    found = statistics([flat(200, 100, 100)])
    luma = (0.299 * 200 + 0.587 * 100 + 0.114 * 100) / 255
    for name in ("background gradient", "foreground gradient", "pixels with gradient above 0.1", "luma deviation"):
        assert found[name] == pytest.approx(0, abs=1e-12)
    for name in ("foreground luma", "background luma", "luma, 5th percentile", "luma, 95th percentile"):
        assert found[name] == pytest.approx(luma)
    assert found["chroma"] == pytest.approx(100 / 255) and found["foreground saturation"] == pytest.approx(0.5)
    assert found["pixels with chroma above 0.1"] == 1 and found["hue entropy, bits"] == 0
    assert set(found) == set(PHOTOGRAPHS)


def test_a_person_before_a_wall():
    image = flat(200, 200, 200)
    image[:, 16:48] = 40
    found = statistics([image])
    assert found["foreground-background colour difference"] == pytest.approx(160 / 255)
    # two upright edges: two columns each, half the step in either
    assert found["pixels with gradient above 0.1"] == pytest.approx(4 / 64)
    assert found["background gradient"] == 0 == found["foreground gradient"]
    assert statistics([flat(10, 10, 10), image])["pixels with luma below 0.1"] == pytest.approx(0.5)


def test_of_several_images():
    reds, greens = [flat(200, 0, 0)] * 3, [flat(0, 200, 0)] * 1
    found = statistics(reds + greens)
    assert found["hue entropy, bits"] == pytest.approx(0.75 * np.log2(4 / 3) + 0.25 * 2)
    lumas = np.array([0.299] * 3 + [0.587]) * 200 / 255
    assert found["spread of foreground luma between images"] == pytest.approx(lumas.std())


def test_waves_tell_fine_from_coarse():
    rows = np.arange(128)[:, None, None]
    for cycles, share in ((0.3, 1), (0.1, 0)):
        wave = (127.5 + 60 * np.sin(2 * np.pi * cycles * rows)) + np.zeros((128, 64, 3))
        assert statistics([wave.astype(np.uint8)])["power above 0.2 cycles a pixel"] == pytest.approx(share, abs=0.02)
    rng = np.random.default_rng(0)
    slopes = [
        statistics([np.clip(noise, 0, 255).astype(np.uint8)])["spectral slope"]
        for noise in (
            rng.normal(128, 30, (128, 64, 1)).repeat(3, 2),  # white: as much at every frequency
            128 + 15 * rng.normal(0, 1, (128, 64, 1)).cumsum(0).repeat(3, 2) / 8,  # summed: less of the fine
        )
    ]
    assert slopes[0] == pytest.approx(0, abs=0.25) and slopes[1] < -0.5


def test_against_one_pixel_at_a_time():
    image = np.random.default_rng(1).integers(0, 256, (128, 64, 3)).astype(np.uint8)
    rgb = image / 255.0
    luma = [[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in rgb]
    strong = below = 0
    edges, person = [], []
    for y in range(128):
        for x in range(64):
            above, under = max(y - 1, 0), min(y + 1, 127)
            left, right = max(x - 1, 0), min(x + 1, 63)
            down = (luma[under][x] - luma[above][x]) / (under - above)
            across = (luma[y][right] - luma[y][left]) / (right - left)
            gradient = (down**2 + across**2) ** 0.5
            strong, below = strong + (gradient > 0.1), below + (luma[y][x] < 0.1)
            if x < 8 or x >= 56:
                edges.append(gradient)
            if 13 <= y < 115 and 20 <= x < 44:
                person.append((max(rgb[y, x]) - min(rgb[y, x])) / max(rgb[y, x]))
    found = statistics([image])
    assert found["pixels with gradient above 0.1"] == pytest.approx(strong / 8192)
    assert found["pixels with luma below 0.1"] == pytest.approx(below / 8192)
    assert found["background gradient"] == pytest.approx(np.mean(edges))
    assert found["foreground saturation"] == pytest.approx(np.mean(person))


def test_a_line_says_how_far_and_whether_cameras_reach_it():
    cameras = {1: {name: 0.9 * value for name, value in PHOTOGRAPHS.items()}, 2: dict(PHOTOGRAPHS)}
    for line in compare(cameras):
        assert line.ratio == pytest.approx(0.95) and line.near and line.inside
    far = compare({1: {name: 1.5 * value for name, value in PHOTOGRAPHS.items()}})
    assert not any(line.near or line.inside for line in far)


def test_the_command_prints_a_table_and_writes_it(tmp_path, capsys):
    rows = ["file,split,person_id,camera_id,sequence,frame"]
    for camera in (1, 2):
        for person, frame in ((-1, 0), (1, 1), (2, 2)):
            name = f"{person}_{camera}_{frame}.png"
            colour = (255, 0, 0) if person < 0 else (60 * camera,) * 3
            Image.fromarray(flat(*colour)).save(tmp_path / name)
            rows.append(f"{name},train,{person},{camera},1,{frame}")
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    assert main(["statistics", str(tmp_path), "--out", str(tmp_path / "found.json")]) == 0
    printed, held = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert all(name in printed for name in PHOTOGRAPHS)
    assert held["cameras"]["2"]["chroma"] == 0, "junk is left out"
    luma = next(line for line in held["lines"] if line["name"] == "foreground luma")
    assert luma["ours"] == pytest.approx(90 / 255) and luma["low"] == pytest.approx(60 / 255)
    (tmp_path / "index.csv").write_text(rows[0] + "\n")
    with pytest.raises(DataError, match="no images of people"):
        by_camera(tmp_path, 5)

"""Pictures: what they say (where a patch lies, which candidate was taken, what a frame means), not their pixels."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paul import plots
from paul.data.transforms import normalize, unit_range
from paul.losses import cyclic_ranking
from paul.options import PatchNetOptions
from paul.patches import stripes
from paul.patchnet import PatchNet
from paul.report.frames import runs_frame
from paul.report.variants import variants_table
from tests.test_claims import record

IMAGES = torch.randint(0, 256, (12, 3, 24, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def colours_of_frames(figure):
    axes = [axis for axis in figure.axes if axis.images]
    return [matplotlib.colors.to_hex(a.spines["top"].get_edgecolor()) if a.spines["top"].get_visible() else None
            for a in axes]  # fmt: skip


def test_importing_paul_does_not_plot():
    command = "import sys, paul, paul.report.claims, paul.report.frames; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0


def test_stripes_tile_the_image():
    corners = np.stack([plots.quadrilateral(theta, 60, 30) for theta in stripes(6)])
    np.testing.assert_allclose(corners[:, 0], [[0, 10 * m] for m in range(6)], atol=1e-5)
    np.testing.assert_allclose(corners[:, 2], [[30, 10 * (m + 1)] for m in range(6)], atol=1e-5)


def test_a_patch_lies_where_the_sampler_looks():
    theta = torch.tensor([[0.4, -0.2, 0.1], [0.3, 0.5, -0.3]])
    grid = torch.nn.functional.affine_grid(theta[None], [1, 1, 5, 5], align_corners=True)[0]
    ends = torch.stack([grid[0, 0], grid[0, -1], grid[-1, -1], grid[-1, 0]])
    expected = (ends.numpy() + 1) / 2 * [30, 60]
    np.testing.assert_allclose(plots.quadrilateral(theta, 60, 30), expected, atol=1e-5)


def test_patches_on_people_draws_every_patch():
    figure = plots.patches_on_people(IMAGES[:5], stripes(4).expand(5, -1, -1, -1), columns=3)
    assert sum(len(axis.patches) for axis in figure.axes) == 5 * 4
    assert not plt.get_fignums()


def test_a_contact_sheet_shows_every_image_once_under_its_title():
    figure = plots.contact_sheet(IMAGES[:5], 3, ["query", 1, 2, 3, 4])
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == ["query", "1", "2", "3", "4"]
    np.testing.assert_array_equal(shown[4].images[0].get_array(), IMAGES[4].permute(1, 2, 0))


def test_the_close_up_puts_the_anchor_between_and_its_distances_beside():
    images = dict(zip(("anchor", "same person", "stranger"), IMAGES))
    distances = pd.DataFrame({"same person": [0.2, 0.9], "stranger": [0.5, 0.4]}, ["stripe 1", "whole image"])
    figure = plots.close_up(images, distances)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["same person", "anchor", "stranger"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), IMAGES[0].permute(1, 2, 0))
    assert [bar.get_width() for bar in figure.axes[3].patches] == [0.2, 0.9, 0.5, 0.4]


def test_both_areas_have_the_walks_points_and_say_what_they_are():
    figure = plots.two_areas([(0, 1), (0.5, 1), (0.5, 0.5), (1, 2 / 3)], [1, 3], [0.8333, 0.7917])
    for axis, title in zip(figure.axes, ("step: 0.833", "trapezoid: 0.792")):
        assert axis.get_title(loc="left") == title
        assert [text.get_text() for text in axis.texts] == ["1/1", "2/3"]
        np.testing.assert_allclose(axis.lines[1].get_xydata(), [[0.5, 1], [1, 2 / 3]])


def test_a_line_of_means_lies_in_its_range():
    frame = pd.DataFrame({"people": [2, 2, 5, 5], "Rank-1": [10, 30, 5, 7], "unused": 0})
    (axis,) = plots.mean_and_range(frame, "people", ["Rank-1"]).axes
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[2, 20], [5, 6]])
    corners = axis.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in corners} == {(2, 10), (2, 30), (5, 5), (5, 7)}


def test_ranked_list_marks_right_wrong_and_left_out():
    right, skipped = [[True, False, True, False]], [[False, False, True, False]]
    figure = plots.ranked_list(IMAGES[:1], IMAGES[None, 1:5], right, skipped)
    assert colours_of_frames(figure) == [c.lower() for c in ["#000000", plots.GREEN, plots.RED, plots.GREY, plots.RED]]
    titles = [axis.get_title() for axis in figure.axes]
    assert [title.split()[0] for title in titles] == ["query", "1", "2", "left", "3"]


@pytest.mark.parametrize("length", [3, 10, 20])
def test_a_ranked_list_is_no_wider_than_its_text_can_be_read(length):
    """Text of 10 points is shown at 9 in a figure of 9.2 inches: see `STYLE`."""
    ranked = IMAGES[:1].expand(length, -1, -1, -1)[None]
    figure = plots.ranked_list(IMAGES[:1], ranked, [[True] * length])
    assert figure.get_size_inches()[0] <= 9.2
    assert all(axis.title.get_fontsize() >= 10 for axis in figure.axes)


def test_nearest_patches_are_the_nearest():
    features = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(1))
    figure = plots.nearest_patches(IMAGES, stripes(2).expand(12, -1, -1, -1), features, [3, 7], patch=1, count=4)
    titles = [axis.get_title() for axis in figure.axes]
    for row, anchor in enumerate([3, 7]):
        distances = sorted(((features[1, j] - features[1, anchor]) ** 2).sum().sqrt() for j in range(12) if j != anchor)
        assert titles[5 * row] == "anchor"
        assert titles[5 * row + 1 : 5 * row + 5] == [f"{d:.2f}" for d in distances[:4]]


def texts(figure):
    return {
        text.get_text(): matplotlib.colors.to_hex(text.get_color()) for text in figure.axes[0].texts if text.get_text()
    }


def test_the_network_is_drawn_with_the_shapes_of_its_own_tensors_and_what_is_not_lit_is_grey():
    torch.manual_seed(0)
    network = PatchNet(PatchNetOptions(backbone="small", num_patches=4, dim=10, pgn_channels=8, pgn_hidden=4), 3)
    image = IMAGES[0].repeat(1, 2, 2)  # [3, 48, 24]
    made = plots.inside(network, image)
    output = network.to_target().eval()(normalize(unit_range(image[None])))
    channels, *size = made["map"].shape
    assert made["patches"].shape == (4, *size) and made["pooled"].shape == (4, channels)
    torch.testing.assert_close(plots.inside(network, image)["features"], output.features[:, 0].detach())
    torch.testing.assert_close(made["theta"], stripes(4))
    said = texts(plots.network_drawing(network.train(), image))
    times = " \N{MULTIPLICATION SIGN} "
    for sizes in [(3, 48, 24), (channels, *size), (4, channels), (4, 10), (40,)]:
        assert times.join(map(str, sizes)) in said
    assert network.training and not plt.get_fignums() and len(set(said.values())) == 1
    lit = texts(plots.network_drawing(network, image, lit=("PGN",)))
    black = {text for text, colour in lit.items() if colour == "#000000"}
    assert black == {"PGN", f"$\\theta$: {times.join('423')}"}
    with pytest.raises(ValueError, match="no part of the network: bank; there are image, backbone"):
        plots.network_drawing(network, image, lit=("bank",))


def test_nearest_patches_look_for_neighbours_among_those_that_may_be():
    features = torch.arange(12.0)[None, :, None]
    figure = plots.nearest_patches(IMAGES, stripes(1).expand(12, -1, -1, -1), features, [0], 0, 3, among=range(5, 12))
    assert [axis.get_title() for axis in figure.axes] == ["anchor", "5.00", "6.00", "7.00"]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 10), st.integers(1, 4), st.booleans(), st.integers(1, 6))
def test_the_walk_ends_where_cyclic_ranking_does(seed, n, r, include_self, limit):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2 * n, 3, generator=generator, dtype=torch.float64)
    centers, owner = (features[:n] + features[n:]) / 2, torch.arange(2 * n) % n
    picks = cyclic_ranking(features, centers, owner, r=r, include_self=include_self, max_candidates=limit)
    for anchor in range(2 * n):
        steps = plots.walk(features, centers, owner, anchor, r, include_self, limit)
        assert [taken for _, _, taken in steps[:-1]] == [False] * (len(steps) - 1)
        assert (steps[-1][0] if steps[-1][2] else -1) == picks[anchor]


def test_cyclic_walk_has_a_line_per_candidate():
    features = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
    owner = torch.arange(12)
    figure = plots.cyclic_walk(IMAGES, features, features, owner, anchor=2, person_ids=owner // 2)
    steps = plots.walk(features, features, owner, 2)
    assert sum(axis.get_title().startswith("candidate") for axis in figure.axes) == len(steps)


def test_curves_draw_a_line_per_seed_and_their_mean():
    def curve(shift):
        return [{"epoch": e, "loss": 3.0 - e + shift, "loss_c": 1.0, "loss_v": None, "seconds": 1.0} for e in (1, 2, 3)]

    records = [{"row": "paul", "curve": curve(s)} for s in (0, 1)] + [{"row": "patch_direct", "curve": []}]
    figure = plots.curves(records)
    loss, _, loss_v = figure.axes
    assert len(loss.lines) == 3 and not loss_v.lines
    np.testing.assert_allclose(loss.lines[2].get_ydata(), [2.5, 1.5, 0.5])


def test_per_query_ap_shows_every_query():
    figure = plots.per_query_ap({"one": [0.2, 1.0, 0.6], "two": [0.0, 0.5, 0.5]})
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [1.0, 0.6, 0.2])
    assert figure.axes[0].get_legend_handles_labels()[1] == ["one", "two"]


def ablation(n=3):
    lines = [
        {"row": row, "label": row.upper(), "in_paper": row != "control", "target": target, "rank1": value,
         "rank1_low": value - 2 if n > 1 else np.nan, "rank1_high": value + 2 if n > 1 else np.nan,
         "position_rank1": place, "paper_position_rank1": 3 - place if place else np.nan}
        for target in ["market", "duke"]
        for row, value, place in [("a", 50.0, 1), ("control", 45.0, np.nan), ("b", 40.0, 2)]
    ]  # fmt: skip
    return pd.DataFrame(lines)


@pytest.mark.parametrize("n", [1, 3])
def test_table_bars_are_the_means(n):
    figure = plots.table_bars(ablation(n), "mini")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Market-1501-like", "DukeMTMC-reID-like"]
    assert sorted(bar.get_width() for bar in figure.axes[0].patches) == [40.0, 45.0, 50.0]


def test_ordering_lines_join_the_papers_place_to_ours():
    figure = plots.ordering_lines(ablation(), "mini")
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[2, 1], [1, 2]]


def test_labels_of_rows_that_share_a_place_stand_apart():
    frame = ablation()
    frame.loc[frame["in_paper"], "position_rank1"] = 1.0
    axis = plots.ordering_lines(frame, "mini").figure.axes[0]
    assert [list(line.get_ydata()) for line in axis.lines] == [[2, 1.5], [1, 1.5]]
    ours = [text.get_position()[1] for text in axis.texts if text.get_ha() == "left"]
    assert sorted(ours) == [1, 2]


def test_claims_panel_has_an_interval_per_comparison():
    line = {"a": "x", "b": "y", "target": "market", "metric": "rank1", "kind": "higher", "margin": 0.0}
    outcomes = [("holds", 3.0), ("fails", -4.0)]
    done = [{**line, "outcome": o, "mean": m, "low": m - 1, "high": m + 1} for o, m in outcomes]
    missing = [{**line, "outcome": "missing", "mean": None, "low": None, "high": None}]
    verdicts = [
        {"id": "C1", "verdict": "not run", "evidence": []},
        {"id": "C2", "verdict": "contradicted", "evidence": done},
        {"id": "C3", "verdict": "not run", "evidence": missing},
    ]
    figure = plots.claims_panel(verdicts)
    (axis,) = figure.axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["C1  not run", "C2  contradicted", "C3  not run"]
    spans = [list(line.get_xdata()) for line in axis.lines]
    assert [2.0, 4.0] in spans and [-5.0, -3.0] in spans


def test_verdicts_of_registered_worlds_leave_room_for_the_panel():
    """Their lines are the longest there are: both targets in words, and people drawn otherwise."""
    judged = json.loads((Path(__file__).parents[1] / "results/claims.json").read_text(encoding="utf-8"))["mini"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit is a warning
        figure = plots.claims_panel(judged)
        figure.canvas.draw()
    (axis,) = figure.axes
    lines = [line for verdict in judged for line in verdict["evidence"]]
    assert axis.get_position().width > 0.4 and len(axis.texts) == len(lines) > 20
    assert all("-like" not in text.get_text() for text in axis.texts) and "Market-1501-like" in axis.get_xlabel()


def test_a_saved_figure_is_the_same_file_each_time(tmp_path):
    first = plots.save(plots.table_bars(ablation(), "mini"), tmp_path / "a" / "one.svg").read_bytes()
    assert first == plots.save(plots.table_bars(ablation(), "mini"), tmp_path / "two.svg").read_bytes()
    assert first.lstrip().startswith(b"<?xml")


def test_a_level_is_drawn_from_its_bound():
    line = {"kind": "level", "a": "paul", "b": "", "target": "market", "metric": "rank1", "margin": 0.0, "n": 3}
    line |= {"mean": 52.0, "low": 51.0, "high": 53.0, "outcome": "holds", "above": 50.0, "below": None}
    figure = plots.claims_panel([{"id": "T1", "verdict": "supported", "evidence": [line]}])
    drawn = [list(part.get_xdata()) for part in figure.axes[0].lines]
    assert [1.0, 3.0] in drawn and [2.0] in drawn and [0.0] in drawn
    assert any(text.get_text() == "paul, market Rank-1" for text in figure.axes[0].texts)


def test_curves_of_variants_show_each_change_beside_the_value_that_is_used():
    runs = [record("paul", target, seed, trapezoid=30.0) for target in ("market", "duke") for seed in range(3)]
    for row, gain in (("k_x0.5", -1.0), ("k_x4", 2.0), ("s_x2", 0.5)):
        runs += [record(row, "market", seed, trapezoid=30.0 + gain) for seed in range(3)]
    figure = plots.variant_curves(variants_table("figure5", runs_frame(runs)), "mini")
    shown = {axis.get_title(loc="left") or axis.get_title(): axis for axis in figure.axes if axis.get_visible()}
    assert list(shown) == ["k", "s"]
    for name, factors, changes in (("k", ["0.5", "1", "4"], [-1, 0, 2]), ("s", ["1", "2"], [0, 0.5])):
        assert [tick.get_text() for tick in shown[name].get_xticklabels()] == [f"x {factor}" for factor in factors]
        assert list(shown[name].containers[0].lines[0].get_ydata()) == pytest.approx(changes)


def test_two_rows_show_each_image_above_its_own():
    figure = plots.two_rows(IMAGES[:3], IMAGES[3:6])
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    assert all((picture == np.moveaxis(image.numpy(), 0, -1)).all() for picture, image in zip(shown, IMAGES[:6]))


def test_rates_of_zero_are_no_part_of_a_line():
    figure = plots.learning_rates({"one": {"new": [0.1, 0.01], "patch_generator": [0, 1e-5]}}, [0, 0.5])
    (axis,) = figure.axes
    new, generator = (line.get_ydata() for line in axis.lines)
    assert list(new) == [0.1, 0.01] and np.isnan(generator[0]) and generator[1] == 1e-5
    assert axis.get_yscale() == "log" and axis.get_title(loc="left") == "one"

"""Tables, published figures and the ledger: against the CSV files, scipy, and records whose outcome is known."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paul.commands import report
from paul.experiments.rows import ROWS, STUDIES, TABLES
from paul.experiments.specs import Spec
from paul.options import AdaptOptions, PatchNetOptions, PretrainOptions
from paul.report.frames import METRICS, TARGETS, runs_frame
from paul.report.ledger import ledger_frame, load_ledger
from paul.report.published import printed_rows, published, published_value
from paul.report.statistics import kendall_tau
from paul.report.tables import (
    ablation_table,
    comparison_table,
    in_brief,
    is_stale,
    ordered_pairs,
    ordering,
    places_of_methods,
    readable,
    rerun_command,
    table_text,
    write_tables,
)
from paul.report.variants import variants_table
from tests.test_claims import record, records, save

BOOK = Path(__file__).parents[1] / "book"
PAPER = BOOK / "paper"


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.chdir(BOOK.parent)


def as_published(table, sign=1.0, extra=(), seeds=(0, 1, 2)):
    """Runs at the published values (or, sign = -1, in the reversed order), with a small common seed effect."""

    def values(row, target, seed):
        shift = 100 * (sign < 0) + seed / 10
        return [sign * published_value(table, row, target, name, PAPER) + shift for name in ("rank1", "map_trapezoid")]

    found = [(row, target, seed) for row in printed_rows(table) for target in TARGETS for seed in seeds]
    more = [record(row, target, seed) for row in extra for target in TARGETS for seed in seeds]
    return [record(*run, *values(*run)) for run in found] + more


def test_every_row_stands_in_a_table_and_every_table_in_rows():
    lines = [row for table in TABLES.values() for row in table.lines]
    variants = [row for study in STUDIES.values() for row in study.lines]
    assert set(lines) == {name for name, row in ROWS.items() if not row.of}
    assert sorted(variants) == sorted(name for name, row in ROWS.items() if row.of)  # each once
    assert not {*TABLES} & {*STUDIES} and {ROWS[row].of for row in variants} <= set(lines)
    for name in ("table1", "table2"):
        assert {TABLES[name].lines[row] for row in printed_rows(name)} <= set(published(name, PAPER)["method"])


def test_the_published_tables_are_consistent_with_each_other():
    for table, target in [("table1", "market"), ("table2", "duke")]:
        paul = published(table, PAPER).set_index("method").loc["PAUL"]
        assert paul["rank1"] == published_value("table3", "paul", target, "rank1", PAPER)
        assert paul["mAP"] == published_value("table4", "paul", target, "map_trapezoid", PAPER)
    assert {table: len(published(table, PAPER)) for table in TABLES} == {
        "table1": 12,
        "table2": 9,
        "table3": 6,
        "table4": 6,
    }
    assert np.isnan(published_value("table3", "patch_adabn", "market", "rank1", PAPER))
    with pytest.raises(FileNotFoundError, match="table1_market1501.csv"):
        published("table1", "elsewhere")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_kendall_tau_is_scipys(pairs):
    a, b = zip(*pairs, strict=True)
    expected = stats.kendalltau(a, b).statistic
    assert kendall_tau(a, b) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("table", ["table3", "table4"])
def test_the_papers_own_values_have_the_papers_order(table):
    order = ordering(table, runs_frame(as_published(table)), PAPER)
    assert np.allclose(order["kendall_tau"], 1) and (order["agrees"] == order["pairs"]).all()
    n = len(printed_rows(table))
    assert (order["pairs"] == n * (n - 1) / 2).all() and (order["rows"] == n).all()
    turned = ordering(table, runs_frame(as_published(table, sign=-1.0)), PAPER)
    assert np.allclose(turned["kendall_tau"], -1) and (turned["disagrees"] == turned["pairs"]).all()


def test_one_seed_decides_no_pair():
    pairs = ordered_pairs("table3", runs_frame(as_published("table3", seeds=[0])), "market", "rank1", PAPER)
    assert set(pairs["outcome"]) == {"undecided"} and pairs["low"].isna().all()


def test_ablation_table_has_the_papers_rows_in_order_and_marks_the_controls():
    runs = runs_frame(as_published("table3", extra=["patch_adabn", "image_pull"]))
    frame = ablation_table("table3", runs, "mini", PAPER)
    market = frame[frame["target"] == "market"]
    assert market["row"].tolist() == [row for row in TABLES["table3"].lines if row not in ("image_adabn", "patch_pull")]
    assert market.set_index("row")["in_paper"].to_dict() == {
        row: row not in ("patch_adabn", "image_pull") for row in market["row"]
    }
    printed = market[market["in_paper"]]
    assert (printed["position_rank1"] == printed["paper_position_rank1"]).all()
    assert printed["paper_rank1"].tolist() == published("table3", PAPER)["market_rank1"].tolist()
    assert market[~market["in_paper"]]["position_rank1"].isna().all()
    line = market.set_index("row").loc["paul"]
    assert line["rank1"] == pytest.approx(68.6) and line["n"] == 3 and line["seeds"] == "0,1,2"
    assert all(word in line["command"] for word in ["table3", "--profile mini", "paul", "market", "0,1,2"])


def test_positions_are_among_the_rows_that_were_run():
    runs = [run for run in as_published("table3") if run["row"] in ("paul", "image_lc", "patch_direct")]
    frame = ablation_table("table3", runs_frame(runs), "mini", PAPER)
    assert sorted(frame["paper_position_rank1"]) == [1, 1, 2, 2, 3, 3]


def test_ours_stands_below_the_published_rows_except_in_profile_paper():
    runs = runs_frame([record("paul", "market", s, rank1=50.0 + s) for s in range(3)])
    mini = comparison_table("table1", runs, "mini", PAPER)
    assert mini["method"].tolist() == [*published("table1", PAPER)["method"], "PAUL, ours (mini)"]
    paper = comparison_table("table1", runs, "paper", PAPER)
    assert paper["rank1"].is_monotonic_increasing and paper["method"].iloc[-1] == "PAUL"
    assert paper.loc[paper["profile"] == "paper", "n"].tolist() == [3]
    assert "PAUL, ours (mini)" not in comparison_table("table2", runs, "mini", PAPER)["method"].tolist()


def test_methods_run_here_stand_beside_paul_and_the_others_are_marked_as_cited():
    runs = [record("paul", "market", s, rank1=50.0 + s) for s in range(3)] + [record("lomo", "market", 0, rank1=10.0)]
    runs += [record("bow", "market", s, rank1=20.0 + s) for s in range(3)]
    frame = comparison_table("table1", runs_frame(runs), "mini", PAPER)
    ours = frame[frame["profile"] == "mini"].set_index("method")
    assert ours.index.tolist() == ["LOMO, ours (mini)", "BoW, ours (mini)", "PAUL, ours (mini)"]
    assert ours["kind"].tolist() == ["hand-crafted", "hand-crafted", "patch-based"]
    assert ours["seeds"].tolist() == ["none", "0,1,2", "0,1,2"] and ours["rank1"].tolist() == [10, 21, 51]
    assert np.isnan(ours["rank1_low"].iloc[0]) and ours["rank1_low"].iloc[1] < 21
    shown = readable(frame, "mini").set_index("method")
    assert shown["figures"].value_counts().to_dict() == {"cited": 12, "run here": 3}
    assert shown.loc["LOMO, ours (mini)", "n seeds"] == "1, nothing drawn" and shown.loc["LOMO", "n seeds"] == ""
    assert shown.loc["LOMO, ours (mini)", "Rank-1"] == "10.0" and "[" in shown.loc["BoW, ours (mini)", "Rank-1"]
    assert "cited only" in table_text("table1", runs_frame(runs), "mini", PAPER)
    sorted_in = comparison_table("table1", runs_frame([{**run, "profile": "paper"} for run in runs]), "paper", PAPER)
    assert sorted_in["rank1"].is_monotonic_increasing and sorted_in["method"].iloc[0] == "LOMO, ours (paper)"


def test_the_order_of_the_methods_run_here_is_set_beside_the_papers():
    values = {"lomo": 10.0, "bow": 20.0, "pul": 30.0, "paul": 40.0}  # the paper's order on either set
    runs = [record(row, "market", s, value + s, value + s) for row, value in values.items() for s in range(2)]
    frame = places_of_methods("table1", runs_frame(runs), PAPER).set_index("method")
    assert (frame["place_here_rank1"] == frame["place_paper_rank1"]).all()
    assert frame["place_here_rank1"].to_dict() == {"LOMO": 4, "BoW": 3, "PUL": 2, "PAUL": 1}
    assert frame.attrs["kendall_tau"] == {"rank1": 1, "map_trapezoid": 1}
    turned = [{**run, "metrics": {**run["metrics"], "rank1": 40 - run["metrics"]["rank1"] / 2}} for run in runs]
    assert places_of_methods("table1", runs_frame(turned), PAPER).attrs["kendall_tau"]["rank1"] == pytest.approx(-1)
    text = table_text("table1", runs_frame(runs), "mini", PAPER)
    assert "| PAUL | 1, 1 | 1, 1 |" in text and "Kendall's tau: Rank-1 1.00, mAP 1.00" in text
    two = [run for run in turned if run["row"] in ("lomo", "paul")]
    assert sorted(places_of_methods("table1", runs_frame(two), PAPER)["place_here_rank1"]) == [1, 2]
    assert "Kendall's tau: Rank-1 nan" in table_text("table2", runs_frame(runs), "mini", PAPER)


def test_a_method_that_came_later_stands_in_the_table_and_in_no_order():
    values = {"lomo": 10.0, "bow": 20.0, "pul": 30.0, "cluster_contrast": 90.0, "paul": 40.0}
    found = [record(row, "market", s, value + s, value + s) for row, value in values.items() for s in range(2)]
    runs = runs_frame(found)
    shown = readable(comparison_table("table1", runs, "mini", PAPER), "mini")
    assert shown["method"].tolist()[-2:] == ["Cluster-Contrast (not in the paper), ours (mini)", "PAUL, ours (mini)"]
    line = shown.iloc[-2]
    assert (line["year"], line["kind"], line["figures"], line["n seeds"]) == ("", "", "run here", "2")
    places = places_of_methods("table1", runs, PAPER)
    assert places["row"].tolist() == ["lomo", "bow", "pul", "paul"]
    assert places["place_here_rank1"].tolist() == places["place_paper_rank1"].tolist() == [4, 3, 2, 1]
    assert "PUL, Cluster-Contrast (not in the paper) and PAUL." in table_text("table1", runs, "mini", PAPER)


def test_text_says_the_profile_and_the_rule():
    runs = runs_frame(as_published("table3", extra=["patch_adabn"]))
    text = table_text("table3", runs, "mini", PAPER)
    assert "mean over source seeds" in text
    worlds = pd.concat([runs, runs.assign(world=1)])
    assert "mean over worlds" in table_text("table3", worlds, "mini-worlds", PAPER)
    assert "never values" in text and "Market-1501-like" in text and "not in the paper" in text
    assert all("(mini)" in column for column in readable(ablation_table("table3", runs, "mini", PAPER), "mini").columns
               if column.startswith("ours"))  # fmt: skip
    assert "values may be compared" in table_text("table3", runs, "paper", PAPER)
    assert "outdated" not in text
    assert "outdated" in table_text("table3", runs_frame(as_published("table3"), lambda run: True), "mini", PAPER)


def test_tables_are_written_whole_and_alike_each_time(tmp_path):
    others = {"random": 20, "equal": 40, "pgn4": 60, "pgn8": 55}
    save(tmp_path, *[run for run in as_published("table3") if run["row"] not in others], *records(others))
    paths = write_tables(tmp_path, "mini", PAPER)
    assert sorted(p.name for p in paths) == sorted(f"table{n}.{end}" for n in range(1, 5) for end in ("csv", "md"))
    before = {path: path.read_bytes() for path in paths}
    write_tables(tmp_path, "mini", PAPER)
    assert {path: path.read_bytes() for path in paths} == before
    assert set(paths) == set((tmp_path / "tables" / "mini").iterdir())
    back = pd.read_csv(tmp_path / "tables" / "mini" / "table3.csv")
    assert back.set_index(["row", "target"]).loc[("paul", "duke"), "rank1"] == pytest.approx(72.1)


def test_a_run_is_stale_when_arithmetic_or_options_changed():
    spec = Spec("paul", "market", 0, "mini")
    run = {**record("paul", "market", 0, code="any", spec=spec.hash), "numerics": spec.numerics}
    assert not is_stale(run)
    for change in [{"numerics": {}}, {"spec_hash": "other"}, {"seed": 1}, {"row": "gone"}]:
        assert is_stale({**run, **change})


def test_no_runs_no_rows(tmp_path):
    runs = runs_frame([])
    assert ablation_table("table3", runs, "mini", PAPER).empty and ordering("table3", runs, PAPER).empty
    assert len(comparison_table("table1", runs, "mini", PAPER)) == 12
    assert write_tables(tmp_path, "mini", PAPER)


def test_ledger_has_36_entries_whose_knobs_and_queries_exist():
    entries = load_ledger(BOOK / "ledger.toml")
    assert len(entries) == 36
    kinds = (PatchNetOptions, PretrainOptions, AdaptOptions)
    options = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    for entry in entries:
        assert all(entry[field].strip() for field in ("item", "paper", "code", "ours"))
        assert {knob for knob in entry["knobs"] if ":" not in knob} <= options, entry["number"]
        effect = entry.get("effect", {})
        assert {row for pair in effect.get("pairs", []) for row in pair} | {effect.get("row", "paul")} <= set(ROWS)
        assert set(effect.get("metrics", [])) | {effect.get("metric", "rank1")} <= set(METRICS)


def test_the_command_of_a_line_names_seeds_and_worlds_that_are_not_the_usual():
    runs = runs_frame([record("paul", "market", seed) for seed in (0, 1)])
    assert rerun_command("table3", runs).endswith("--rows paul --targets market --seeds 0,1")
    more = [{**record("paul", "market", 0), "adapt_seed": own, "world": 2} for own in (0, 1)]
    command = rerun_command("table3", runs_frame(more))
    assert command.endswith("--targets market --seeds 0 --adapt-seeds 0,1 --worlds 2")
    text = table_text("table3", runs_frame(more), "mini-w2", PAPER)
    assert "Several adaptations from one source model count as one value" in text


def test_ledger_effects_are_paired_differences():
    runs = [record("paul", s_target, s, trapezoid=60.0 + s) for s_target in TARGETS for s in range(3)]
    runs += [record("equal", "market", s, trapezoid=55.0 + s) for s in range(3)]
    frame = ledger_frame(runs_frame(runs), "mini", BOOK / "ledger.toml")
    assert frame.loc[21, "effect"] == "Market-1501-like: +5.0 [+5.0, +5.0] (paul - equal, mAP (trapezoid), n = 3)"
    assert frame.loc[28, "effect"].count("+1.0") == 6 and not frame.loc[1, "effect"]


def test_a_malformed_ledger_names_its_entry(tmp_path):
    text = (BOOK / "ledger.toml").read_text()
    path = tmp_path / "ledger.toml"
    for change in [("number = 2\n", "number = 3\n"), ('item = "Neighbourhood size k"\n', "")]:
        path.write_text(text.replace(*change, 1))
        with pytest.raises(ValueError, match="entry 2"):
            load_ledger(path)


def test_a_variant_is_compared_with_its_row_on_the_same_source_models(tmp_path):
    runs = [record("paul", target, s, 50.0 + s, 30.0 + s) for target in TARGETS for s in range(3)]
    runs += [record("k_x2", "duke", s, 52.0 + s, 29.0 + s + (s == 0)) for s in range(3)]
    runs += [record("idle_surrogates", "market", 0)]  # whose row has no run
    frame = variants_table("figure5", runs_frame(runs))
    (line,) = frame.to_dict("records")
    assert (line["row"], line["of"], line["target"], line["n"]) == ("k_x2", "paul", "duke", 3)
    assert [line[f"rank1_{end}"] for end in ("change", "low", "high")] == pytest.approx([2, 2, 2])
    differences = [0.0, -1.0, -1.0]
    half = 4.302652729749464 * np.std(differences, ddof=1) / np.sqrt(3)  # t at 0.975 with two degrees of freedom
    found = [line[f"map_trapezoid_{end}"] for end in ("change", "low", "high")]
    assert found == pytest.approx([-2 / 3, -2 / 3 - half, -2 / 3 + half]) and line["map_trapezoid"] == pytest.approx(
        91 / 3
    )
    assert variants_table("ledger", runs_frame(runs)).empty
    save(tmp_path, *runs)
    paths = {path.name: path for path in write_tables(tmp_path, "mini", PAPER)}
    assert "ledger.md" not in paths and "| +2.0 [+2.0, +2.0] |" in paths["figure5.md"].read_text()


def test_fresh_worlds_share_their_tables(tmp_path, capsys):
    for world in range(3):
        save(tmp_path, *(record(seed=0, rank1=40.0 + 3 * world) | {"world": world, "adapt_seed": 0} for _ in range(1)))
    report.write(str(tmp_path), BOOK, "data", None)
    folders = {path.name for path in (tmp_path / "tables").iterdir()}
    assert folders == {"mini", "mini-worlds"}  # world 0 was looked at, and stands for itself
    (line,) = pd.read_csv(tmp_path / "tables/mini-worlds/table3.csv").to_dict("records")
    assert (line["n"], line["rank1"]) == (2, 44.5)
    report.write(str(tmp_path), BOOK, "data", ["mini-w2"])
    assert (tmp_path / "tables/mini-w2/table3.csv").is_file()


def test_a_table_in_brief_keeps_names_scores_and_places():
    runs = runs_frame(as_published("table3"))
    shown = readable(ablation_table("table3", runs, "mini", PAPER), "mini")
    brief = in_brief(shown)
    assert [name for name in shown if name not in brief] == ["ours (mini) mAP (step)", "seconds", "command"]
    assert len(brief.columns) == 8

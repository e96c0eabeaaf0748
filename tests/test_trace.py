"""From a number on a page to its runs: every record has its line, its file, and the means that tables show."""

import re
from pathlib import Path

import pandas as pd
import pytest

from book.toc import BookError
from book.trace import COLUMNS, records_page, write_trace
from paul.experiments.records import read_records
from paul.report.frames import target_name
from tests.test_claims import record, records, save

ROOT = Path(__file__).parents[1]


def lines_of(page: str) -> pd.DataFrame:
    """The page's lines as a reader sees them, with the row whose heading they stand below."""
    found = []
    for part in page.split("\n(row-")[1:]:
        cells = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:2] == "| "
        ]
        assert cells[0] == list(COLUMNS)
        found += [dict(zip(COLUMNS, line), row=part.partition(")")[0]) for line in cells[2:]]
    return pd.DataFrame(found)


def test_every_record_has_a_line_and_its_file_beside_the_page(tmp_path):
    made = records({"paul": 60, "patch_lc": 50})
    worlds = [record(seed=0) | {"world": 3}, record(seed=1) | {"world": 0, "adapt_seed": 0}]
    paths = save(tmp_path / "results", *made, *worlds)
    (tmp_path / "pages").mkdir()
    rows = write_trace(tmp_path / "results", "mini", tmp_path / "pages", tmp_path / "site")
    page = (tmp_path / "pages/records.md").read_text(encoding="utf-8")
    lines = lines_of(page)
    assert rows == {"paul", "patch_lc"} == set(lines["row"]) and len(lines) == len(paths)
    beside = [tmp_path / "site" / re.search('href="[.][.]/([^"]*)"', cell)[1] for cell in lines["Record"]]
    assert {path.read_bytes() for path in beside} == {path.read_bytes() for path in paths}
    assert set(lines["People"]) == {"mini", "mini-w3"} and "1, 0" in set(lines["Seeds"])
    for row, value in {"paul": 60, "patch_lc": 50}.items():
        mine = lines[(lines["row"] == row) & (lines["People"] == "mini") & ~lines["Seeds"].str.contains(",")]
        wanted = [run["metrics"]["rank1"] for run in made if run["row"] == row]
        assert sorted(mine["Rank-1"].astype(float)) == pytest.approx(sorted(wanted), abs=0.051), value


def test_a_row_that_is_no_more_has_its_runs_at_the_end(tmp_path):
    save(tmp_path, record("gone"), record("paul"))
    rows = write_trace(tmp_path, "mini", tmp_path, tmp_path / "site")
    lines = lines_of((tmp_path / "records.md").read_text(encoding="utf-8"))
    assert rows == {"gone", "paul"} and list(lines["row"]) == ["paul", "gone"]


def test_a_source_model_that_runs_share_is_counted_once():
    runs = [record(row, seed=seed) | {"file": f"{row}{seed}"} for row in ("paul", "patch_lc") for seed in (0, 1)]
    for run, seconds in zip(runs, (100.0, 200.0, 100.0, 200.0)):
        run["seconds"] = {"pretrain": seconds, "adapt": 1500.0, "evaluate": 225.0}
    assert "4 runs took 2.0 hours" in records_page(runs, "mini")  # 4 * 1725 + 300 = 7200


def test_nothing_is_written_without_records_and_half_a_record_is_named(tmp_path):
    assert write_trace(tmp_path, "mini", tmp_path, tmp_path / "site") == set() and not list(tmp_path.iterdir())
    half = record()
    del half["metrics"]["map_step"]
    (path,) = save(tmp_path, half)
    with pytest.raises(BookError, match=f"{path.name} lacks a part of a record .*map_step"):
        write_trace(tmp_path, "mini", tmp_path, tmp_path / "site")


def test_the_committed_tables_are_means_of_the_lines_shown():
    lines = lines_of(records_page(read_records(ROOT / "results", "mini"), "mini"))
    table = pd.read_csv(ROOT / "results/tables/mini/table3.csv").set_index(["row", "target"])
    for row, target in table.index:
        mine = lines[(lines["row"] == row) & (lines["Target"] == target_name(target, "mini"))]
        # adaptation seeds of a source seed are averaged first
        means = mine["Rank-1"].astype(float).groupby(mine["Seeds"].str.split(",").str[0]).mean()
        assert means.mean() == pytest.approx(table.loc[(row, target), "rank1"], abs=0.051)
    assert len(table)

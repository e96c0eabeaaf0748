"""Claims: intervals against scipy, verdicts against cases decided by hand, malformed files against their message."""

import json
import math
import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paul.experiments.records import name_of, read_records
from paul.report.claims import Claim, ClaimsError, load_claims, place_interval, write_claims
from paul.report.claims import judge as judge_by
from paul.report.contrasts import Contrast, contrast_values
from paul.report.frames import METRICS, paired_differences, runs_frame, summarise, values_by_seed
from paul.report.statistics import mean_interval

BOOK = Path(__file__).parents[1] / "book"
judge = partial(judge_by, paper=BOOK / "paper")


def record(row="paul", target="market", seed=0, rank1=50.0, trapezoid=30.0, profile="mini", code="now", spec="a" * 64):
    metrics = dict.fromkeys(METRICS, max(rank1, 40.0)) | {"rank1": rank1, "minp": 40.0}
    metrics |= {"map_trapezoid": trapezoid, "map_step": trapezoid + 1}
    return {
        "row": row, "target": target, "seed": seed, "profile": profile, "spec": {},
        "spec_hash": spec, "metrics": metrics, "queries": 10, "queries_left_out": 0, "curve": [], "code": code,
        "seconds": {"pretrain": 9.0, "adapt": 2.0, "evaluate": 1.0},
    }  # fmt: skip


def records(rows, seeds=(0, 1, 2), noise=0.1, targets=("market", "duke")):
    """Runs whose metrics are `rows[name]` plus a seed effect that pairing removes and a small one that it doesn't."""
    return [
        record(row, target, seed, value + 7 * seed + noise * ((seed + place) % 2), value + 5 * seed + noise * place)
        for place, (row, value) in enumerate(rows.items())
        for target in targets
        for seed in seeds
    ]


def save(results, *found):
    """Each record in the file that its fields name; returns the files."""
    paths = [Path(results) / "runs" / name_of(run) for run in found]
    for path, run in zip(paths, found):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run))
    return paths


def claim(*tests):
    filled = [{"metrics": ["rank1"], "targets": ["market"], "margin": 0.0, **test} for test in tests]
    return Claim("T", "text", "where", tuple(filled))


def test_an_interval_of_two_or_three_values_is_its_closed_form():
    """Student's t with one and two degrees of freedom has an elementary quantile."""
    for values, t in ([1.0, 4.0], math.tan(math.pi * 0.475)), ([1.0, 4.0, 5.5], 0.95 * math.sqrt(2 / (1 - 0.95**2))):
        found, half = mean_interval(values), t * np.std(values, ddof=1) / math.sqrt(len(values))
        assert (found.low, found.high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), rel=1e-9)
    for level in (0.0, 1.0):
        with pytest.raises(ValueError, match="level"):
            mean_interval([1.0, 2.0], level)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_mean_interval_is_scipys(values):
    ours = mean_interval(values)
    spread = stats.sem(values)
    assert ours.n == len(values) and ours.mean == pytest.approx(np.mean(values))
    if spread > 0:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=spread)
        assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-9 * max(1.0, abs(low), abs(high)))
    else:
        assert ours.low == ours.mean == ours.high


def test_mean_interval_needs_finite_values_and_two_of_them():
    assert math.isnan(mean_interval([3.0]).low)
    for bad in [[], [1.0, math.nan]]:
        with pytest.raises(ValueError, match="finite"):
            mean_interval(bad)


def test_differences_are_paired_by_seed():
    runs = runs_frame([record("a", seed=s, rank1=v) for s, v in [(0, 5), (2, 9)]]
                      + [record("b", seed=s, rank1=v) for s, v in [(2, 4), (0, 3), (1, 0)]])  # fmt: skip
    assert paired_differences(runs, "a", "b", "market", "rank1").to_dict() == {0: 2, 2: 5}


def test_rows_that_draw_are_paired_over_the_adaptations_that_both_have():
    """Against a literal walk over source seeds; a row that draws nothing is compared with all of another's."""
    rng = np.random.default_rng(0)
    seen = {"paul": [(0, 0), (0, 1), (1, 1), (2, 0), (2, 2)], "patch_lc": [(0, 0), (1, 0), (2, 2), (2, 7), (3, 3)]}
    seen["patch_direct"] = [(0, 0), (1, 1), (2, 2)]
    scores = {(row, *run): float(rng.uniform(10, 90)) for row, runs in seen.items() for run in runs}
    whole = [
        record(row, "market", seed, score, score) | {"adapt_seed": own} for (row, seed, own), score in scores.items()
    ]
    runs = runs_frame(whole)

    def literal(a, b):
        found = {}
        for seed in range(4):
            mine, others = ([own for one, own in seen[row] if one == seed] for row in (a, b))
            both = [own for own in mine if own in others] if "patch_direct" not in (a, b) else []
            mine, others = both or mine, both or others
            if mine and others:
                found[seed] = sum(scores[a, seed, own] for own in mine) / len(mine)
                found[seed] -= sum(scores[b, seed, own] for own in others) / len(others)
        return found

    for a, b in (("paul", "patch_lc"), ("patch_lc", "paul"), ("paul", "patch_direct")):
        assert paired_differences(runs, a, b, "market", "rank1").to_dict() == pytest.approx(literal(a, b))
    contrast = Contrast("T", "paul", "patch_lc", ("market",), "higher", 0.0, 1.0)
    assert contrast_values(runs, contrast).droplevel("world").to_dict() == pytest.approx(literal("paul", "patch_lc"))


def test_adaptations_of_one_source_model_count_as_one_value():
    found = [{**record("a", seed=s, rank1=r), "adapt_seed": own} for s, own, r in [(0, 0, 50), (0, 1, 54), (1, 1, 56)]]
    runs = runs_frame([*found, record("b", seed=0, rank1=50), record("b", seed=1, rank1=50)])
    assert values_by_seed(runs, "a", "market", "rank1").to_dict() == {0: 52, 1: 56}
    assert paired_differences(runs, "a", "b", "market", "rank1").to_dict() == {0: 2, 1: 6}
    line = summarise(runs).set_index("row").loc["a"]
    assert (line["n"], line["seeds"], line["rank1"]) == (2, "0,1", 54)
    assert line["rank1_high"] - 54 == pytest.approx(12.706 * math.sqrt(8) / math.sqrt(2), rel=1e-4)


def test_where_there_are_several_worlds_each_is_one_value():
    found = [{**record("a", seed=s, rank1=r), "world": w} for w, s, r in [(1, 0, 50), (1, 1, 54), (4, 0, 60)]]
    runs = runs_frame(found)
    assert values_by_seed(runs, "a", "market", "rank1").to_dict() == {1: 52, 4: 60}
    assert summarise(runs).loc[0, ["n", "rank1"]].tolist() == [2, 56]


@pytest.mark.parametrize(
    "bounds, limits, outcome",
    [
        ((0.1, 2), (0, math.inf), "holds"),
        ((0, 2), (0, math.inf), "open"),
        ((-2, -0.1), (0, math.inf), "fails"),
        ((-2, 0), (0, math.inf), "open"),
        ((4.1, 9), (4, math.inf), "holds"),
        ((1, 3), (4, math.inf), "fails"),
        ((-3, 3), (-4, 4), "holds"),
        ((-5, 3), (-4, 4), "open"),
        ((5, 6), (-4, 4), "fails"),
        ((-6, -5), (-4, 4), "fails"),
    ],
)
def test_where_an_interval_lies(bounds, limits, outcome):
    assert place_interval(*bounds, *limits) == outcome


def test_verdicts():
    higher = claim({"kind": "higher", "pairs": [["a", "b"]], "targets": ["market", "duke"]})
    assert judge(higher, runs_frame(records({"a": 50, "b": 40})), "mini")["verdict"] == "supported"
    assert judge(higher, runs_frame(records({"a": 40, "b": 50})), "mini")["verdict"] == "contradicted"
    assert judge(higher, runs_frame(records({"a": 40, "b": 40})), "mini")["verdict"] == "inconclusive"
    mixed = records({"a": 50, "b": 40}, targets=["market"]) + records({"a": 40, "b": 50}, targets=["duke"])
    assert judge(higher, runs_frame(mixed), "mini")["verdict"] == "contradicted"
    open_one = records({"a": 50, "b": 40}, targets=["market"]) + records({"a": 40, "b": 40}, targets=["duke"])
    verdict = judge(higher, runs_frame(open_one), "mini")
    assert verdict["verdict"] == "inconclusive" and "1 of 2" in verdict["sentence"]


def test_margin_and_within():
    runs = runs_frame(records({"a": 45, "b": 40}))
    far = claim({"kind": "higher", "pairs": [["a", "b"]], "margin": 4.0})
    assert judge(far, runs, "mini")["verdict"] == "supported"
    too_far = claim({"kind": "higher", "pairs": [["a", "b"]], "margin": 6.0})
    assert judge(too_far, runs, "mini")["verdict"] == "contradicted"
    close = claim({"kind": "within", "pairs": [["b", "a"]], "margin": 6.0})
    assert judge(close, runs, "mini")["verdict"] == "supported"
    assert judge(claim({**far.tests[0]}, {**close.tests[0], "margin": 1.0}), runs, "mini")["verdict"] == "contradicted"


def test_evidence_is_the_paired_t_interval():
    rng = np.random.default_rng(0)
    a, b = rng.normal(50, 3, 4), rng.normal(45, 3, 4)
    runs = [record(row, seed=s, rank1=v) for row, values in [("a", a), ("b", b)] for s, v in enumerate(values)]
    (line,) = judge(claim({"kind": "higher", "pairs": [["a", "b"]]}), runs_frame(runs), "mini")["evidence"]
    oracle = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (line["low"], line["high"]) == pytest.approx((oracle.low, oracle.high))
    assert line["n"] == 4 and line["per_seed"] == pytest.approx(dict(enumerate(a - b)), abs=1e-6)


def test_missing_runs_are_named():
    higher = claim({"kind": "higher", "pairs": [["a", "b"]], "targets": ["market", "duke"]})
    verdict = judge(higher, runs_frame(records({"a": 50, "b": 40}, targets=["market"])), "mini")
    assert verdict["verdict"] == "not run" and verdict["missing"] == ["a on duke", "b on duke"]
    one_seed = judge(higher, runs_frame(records({"a": 50, "b": 40}, seeds=[0])), "mini")
    assert one_seed["verdict"] == "not run" and "two source seeds of a and b on market" in one_seed["sentence"]
    assert judge(higher, runs_frame([]), "mini")["verdict"] == "not run"


def test_published_values_are_compared_on_profile_paper_only():
    test = {"kind": "published", "row": "paul", "table": "table1", "metrics": ["rank1", "map_trapezoid"]}
    runs = [record(seed=s, rank1=68.5 + s / 10, trapezoid=40.1 + s / 10) for s in range(3)]
    here = judge(claim(test), runs_frame(runs), "mini")
    assert here["verdict"] == "not run" and "profile mini" in here["sentence"]
    there = judge(claim(test), runs_frame(runs), "paper")
    assert there["verdict"] == "supported"
    assert [line["b"] for line in there["evidence"]] == ["published SyRI", "published DECAMEL"]
    worse = [record(seed=s, rank1=60.0 + s / 10, trapezoid=40.1) for s in range(3)]
    assert judge(claim(test), runs_frame(worse), "paper")["verdict"] == "contradicted"


def test_stale_runs_are_counted_and_current_ones_win():
    old = [record("a", seed=s, code="old") for s in range(3)]
    new = [record("a", seed=0, rank1=99.0, spec="b" * 64)]
    runs = runs_frame(old + new, lambda run: run["code"] != "now")
    assert runs["stale"].tolist() == [False, True, True] and runs["rank1"].tolist() == [99.0, 50.0, 50.0]
    new_b = [record("b", seed=s) for s in range(3)]
    both = claim({"kind": "higher", "pairs": [["a", "b"]]})
    verdict = judge(both, runs_frame(old + new_b, lambda run: run["code"] != "now"), "mini")
    assert verdict["stale"] == 3 and "3 of the runs used are outdated" in verdict["sentence"]


def test_two_specs_of_one_run_are_refused():
    with pytest.raises(ValueError, match="row a, target market, seed 0"):
        runs_frame([record("a"), record("a", spec="b" * 64)])


def test_broken_records_are_left_out_and_named(tmp_path):
    (good, nan) = save(tmp_path, record(), record(seed=1, rank1=math.nan))
    folder = good.parent
    (folder / "half.json").write_text(json.dumps(record())[:80])
    (folder / "bare.json").write_text(json.dumps({"row": "paul"}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = runs_frame(read_records(tmp_path, "mini"))
    assert len(runs) == 1
    messages = " ".join(str(warning.message) for warning in caught)
    assert all(name in messages for name in ["half.json", "bare.json", nan.name]) and good.name not in messages


def test_a_record_under_another_name_is_left_out_and_named(tmp_path):
    (good,) = save(tmp_path, record())
    better = json.dumps(record(rank1=99.0))
    other = good.parents[1] / "paper" / good.name
    other.parent.mkdir()
    for copy in (good.with_name("copy.json"), good.with_name(good.name.replace("--s0", "--s1")), other):
        copy.write_text(better)
        with pytest.warns(UserWarning, match=f"{copy.name} is not a run record .*by its own fields it would be"):
            read_records(tmp_path, copy.parent.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [run["metrics"]["rank1"] for run in read_records(tmp_path, "mini")] == [50.0]
        assert read_records(tmp_path, "paper") == []


def test_two_records_of_one_run_are_refused_unless_they_are_equal():
    assert len(runs_frame([record("a"), record("a")])) == 1
    with pytest.raises(
        ValueError, match="row a, target market, seed 0, adapt_seed 0, world 0 was recorded twice.*one.json.*two.json"
    ):
        runs_frame([{**record("a"), "file": "one.json"}, {**record("a", rank1=60.0), "file": "two.json"}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank1": 999.0}, "rank1 is 999.0, no percentage"),
        ({"map_step": -7.0}, "map_step is -7.0, no percentage"),
        ({"minp": math.inf}, "minp is inf"),
        ({"rank5": 49.0}, "rank1 is 50.0 but rank5 only 49.0"),
        ({"rank20": 49.0}, "rank10 is 50.0 but rank20 only 49.0"),
    ],
)
def test_scores_that_cannot_be_are_left_out_and_named(change, message):
    run = record("a")
    run["metrics"] |= change
    with pytest.warns(UserWarning, match=f"run record a is not whole .*{message}"):
        assert runs_frame([run, record("b")])["row"].tolist() == ["b"]
    run["metrics"] |= {"rank1": 50.0, "minp": 0.0, "map_step": 100.0, "rank5": 50.0 - 1e-10, "rank20": 100.0}
    assert len(runs_frame([run])) == 1


def test_summary_is_the_interval_of_each_row():
    runs = runs_frame(records({"a": 50}))
    line = summarise(runs).set_index(["row", "target"]).loc[("a", "market")]
    interval = mean_interval(runs[(runs["row"] == "a") & (runs["target"] == "market")]["rank1"])
    assert (line["rank1"], line["rank1_low"], line["rank1_high"]) == (interval.mean, interval.low, interval.high)
    assert line["n"] == 3 and line["seeds"] == "0,1,2" and line["seconds"] == 3.0 and line["pretrain_seconds"] == 9.0


def test_the_books_claims():
    claims = load_claims(BOOK / "claims.toml")
    assert [c.id for c in claims] == [f"C{i}" for i in range(1, 13)]


def test_the_paper_would_support_its_own_claims():
    """Runs at the published figures support C3 to C10, so the predicates say what the paper says."""
    figures = {
        "image_direct": (46.6, 22.7, 52.6, 33.1), "image_lc": (25.6, 11.8, 29.5, 15.4),
        "patch_direct": (59.3, 31.0, 65.7, 45.6), "patch_lc": (66.2, 38.0, 70.6, 52.1),
        "patch_lv": (65.4, 37.6, 67.1, 48.0), "paul": (68.5, 40.1, 72.0, 53.2), "random": (24.1, 14.8, 16.0, 10.9),
        "equal": (66.6, 38.5, 56.2, 39.4), "pgn4": (67.3, 39.5, 70.4, 50.6), "pgn8": (66.7, 37.2, 70.6, 51.8),
        "pgn4_direct": (59.3, 31.0, 65.7, 45.6), "pgn8_direct": (59.3, 31.0, 65.7, 45.6),
    }  # fmt: skip
    runs = runs_frame(
        record(row, target, seed, values[2 * t] + seed / 100, values[2 * t + 1] + seed / 100)
        for row, values in figures.items()
        for t, target in enumerate(["market", "duke"])
        for seed in range(3)
    )
    verdicts = {c.id: judge(c, runs, "mini")["verdict"] for c in load_claims(BOOK / "claims.toml")}
    assert {verdicts[f"C{i}"] for i in range(3, 11)} == {"supported"}
    assert {verdicts[c] for c in ["C1", "C2", "C11", "C12"]} == {"not run"}


def test_claims_json_is_whole_and_repeatable(tmp_path):
    save(tmp_path, *records({"patch_direct": 50, "image_direct": 40}))
    shutil.copy(BOOK / "claims.toml", tmp_path)  # nothing is registered beside it
    verdicts = write_claims(tmp_path, tmp_path / "claims.toml", BOOK / "paper")
    first = (tmp_path / "claims.json").read_bytes()
    shutil.copy(tmp_path / "claims.json", tmp_path / "before.json")
    write_claims(tmp_path, tmp_path / "claims.toml", BOOK / "paper")
    assert (tmp_path / "claims.json").read_bytes() == first
    assert {v["id"]: v["verdict"] for v in verdicts["mini"]}["C3"] == "supported"
    assert json.loads(first)["mini"][2]["evidence"][0]["n"] == 3
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        ({"above": 48.0}, "supported"),
        ({"below": 52.0}, "supported"),
        ({"above": 52.0}, "contradicted"),
        ({"below": 48.0}, "contradicted"),
        ({"above": 50.0}, "inconclusive"),
        ({"below": 50.0}, "inconclusive"),
    ],
)
def test_a_level_is_a_rows_own_interval_against_a_bound(bound, verdict):
    runs = runs_frame([record("a", rank1=49.9), record("a", seed=1, rank1=50.1), record("a", seed=2, rank1=50.0)])
    found = judge(claim({"kind": "level", "row": "a", **bound}), runs, "mini")
    assert found["verdict"] == verdict and found["evidence"][0]["mean"] == pytest.approx(50.0)
    ((name, value),) = bound.items()
    assert f"a, Rank-1 on Market-1501-like: 50.0 [49.8, 50.2] against {name} {value:g}" in found["sentence"]
    missing = judge(claim({"kind": "level", "row": "b", **bound}), runs, "mini")
    assert missing["verdict"] == "not run" and missing["missing"] == ["b on market"]


def test_what_a_test_needs_and_has_not_is_not_run():
    runs, pair = runs_frame(records({"a": 50, "b": 40})), {"kind": "higher", "pairs": [["a", "b"]]}
    assert judge(claim({**pair, "needs": {"seeds": 3, "profiles": ["mini"]}}), runs, "mini")["verdict"] == "supported"
    few = judge(claim({**pair, "needs": {"seeds": 4}}), runs, "mini")
    assert few["verdict"] == "not run" and few["missing"]
    elsewhere = judge(claim({**pair, "needs": {"profiles": ["gpu", "paper"]}}), runs, "mini")
    assert elsewhere["verdict"] == "not run" and "profile gpu or paper only" in elsewhere["sentence"]


GOOD = """[[claim]]
id = "C7"
text = "words"
where = "Table 3"
[[claim.test]]
kind = "higher"
pairs = [["a", "b"]]
metrics = ["rank1"]
targets = ["market"]
"""


@pytest.mark.parametrize(
    "change, field",
    [
        (("kind =", "kin ="), "kind"),
        (('"higher"', '"taller"'), "kind"),
        (('[["a", "b"]]', "[]"), "pairs"),
        (('[["a", "b"]]', '[["a"]]'), "pairs"),
        (('"a"', '"z"'), "pairs"),
        (('["rank1"]', '["rank3"]'), "metrics"),
        (('["rank1"]', '"rank1"'), "metrics"),
        (('targets = ["market"]\n', ""), "targets"),
        (('targets = ["market"]', 'targets = ["market"]\nmargin = -1.0'), "margin"),
        (('targets = ["market"]', 'targets = ["market"]\nmargin = "big"'), "margin"),
        (('targets = ["market"]', 'targets = ["market"]\nmargins = 1.0'), "margins"),
        (('text = "words"\n', ""), "text"),
        (('where = "Table 3"', "where = 3"), "where"),
        (("[[claim.test]]", "[[claim.tests]]"), "test"),
        (('targets = ["market"]', 'targets = ["market"]\nneeds = 3'), "needs"),
        (('targets = ["market"]', 'targets = ["market"]\nneeds = { seeds = 1 }'), "needs"),
        (('targets = ["market"]', 'targets = ["market"]\nneeds = { people = 9 }'), "needs"),
        (('"higher"\npairs = [["a", "b"]]', '"level"\nrow = "a"'), "above"),
        (('"higher"\npairs = [["a", "b"]]', '"level"\nrow = "a"\nabove = 1.0\nbelow = 2.0'), "above"),
    ],
)
def test_a_malformed_claim_names_itself_and_the_field(tmp_path, change, field):
    path = tmp_path / "claims.toml"
    path.write_text(GOOD)
    assert load_claims(path, rows={"a", "b"})[0].id == "C7"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(ClaimsError, match=rf"claims.toml: claim C7: .*'{field}'"):
        load_claims(path, rows={"a", "b"})


def test_a_claims_file_that_is_no_claims_file(tmp_path):
    path = tmp_path / "claims.toml"
    for text, message in [("", "no \\[\\[claim\\]\\]"), ("a = [", "not TOML"), (GOOD + GOOD, "used twice")]:
        path.write_text(text)
        with pytest.raises(ClaimsError, match=message):
            load_claims(path, rows={"a", "b"})
    with pytest.raises(ClaimsError, match="can't be read"):
        load_claims(tmp_path / "absent.toml")


def test_judging_leaves_the_claim_alone():
    original = claim({"kind": "higher", "pairs": [["a", "b"]]})
    copy = replace(original)
    judge(original, runs_frame(records({"a": 50, "b": 40})), "mini")
    assert original == copy

"""Verdicts over worlds, on made-up runs: decided by hand, by scipy, and by nothing that was not registered."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from paul.experiments.rows import ALIKE, ROWS
from paul.experiments.specs import Spec
from paul.report.claims import Claim, judge_all, load_claims, verdict_frame, verdict_text, write_claims
from paul.report.claims import judged as judged_in
from paul.report.contrasts import PRIMARY, Contrast, contrast_values, contrasts_of
from paul.report.frames import runs_frame
from paul.report.published import published_value
from paul.report.registration import FILE, SCOPE, register, write_registration
from paul.report.statistics import variance_components
from paul.report.variance import split_variance
from paul.report.verdicts import decide, judge_worlds
from paul.report.worlds import folders_of, row_at, runs_of_worlds
from tests.test_claims import records, save

BOOK = Path(__file__).parents[1] / "book"
WORLDS = 8


def claim(*tests, name="T"):
    filled = [
        {"metrics": ["rank1"], "targets": ["market", "duke"], "margin": 0.0, "smallest": 1.0, **test} for test in tests
    ]
    return Claim(name, "text", "where", tuple(filled))


HIGHER = claim({"kind": "higher", "pairs": [["a", "b"]]})
BOTH = claim({"kind": "higher", "pairs": [["a", "b"], ["c", "b"]]})
WITHIN = claim({"kind": "within", "pairs": [["a", "b"]], "margin": 2.0})


def runs(worlds=range(1, WORLDS + 1), spread=1.0, seed=0, adapt_seed=0, **rows):
    """A run per row, target and world: a level that both rows of a world share, the row's own, and noise."""
    rng = np.random.default_rng(3)
    lines = []
    for world in worlds:
        shared = rng.normal(40, 5)
        for row, value in rows.items():
            lines += [
                {
                    "row": row,
                    "target": target,
                    "world": world,
                    "seed": seed,
                    "adapt_seed": adapt_seed,
                    "map_trapezoid": shared + value + rng.normal(0, spread),
                    "stale": False,
                }
                for target in ("market", "duke")
            ]
    return pd.DataFrame(lines)


def development(*names):
    return pd.concat([runs([0], seed=seed, **dict.fromkeys(names, seed * 0.5)) for seed in range(3)]).assign(
        map_trapezoid=lambda frame: frame["map_trapezoid"] + np.random.default_rng(1).normal(0, 1, len(frame))
    )


def registered(*claims, names="abc"):
    return register(claims, development(*names), "mini", WORLDS, renderer=3)


def judged(of, frame, *others):
    return judge_worlds([of], frame, registered(of, *others))[0]


@pytest.mark.parametrize(
    ("of", "rows", "verdict"),
    [
        (HIGHER, {"a": 4, "b": 0}, "supported"),
        (HIGHER, {"a": 0, "b": 4}, "contradicted"),
        (HIGHER, {"a": 0, "b": 0}, "inconclusive"),
        (BOTH, {"a": 4, "b": 0, "c": 4}, "supported"),
        (BOTH, {"a": 4, "b": 0, "c": 0}, "inconclusive"),
        (BOTH, {"a": 4, "b": 0, "c": -4}, "contradicted"),
        (WITHIN, {"a": 0, "b": 0}, "supported"),
        (WITHIN, {"a": 2, "b": 0}, "inconclusive"),
        (WITHIN, {"a": 6, "b": 0}, "contradicted"),
        (WITHIN, {"a": 0, "b": 6}, "contradicted"),
    ],
)
def test_verdicts(of, rows, verdict):
    assert judged(of, runs(**rows))["verdict"] == verdict


def test_evidence_is_a_t_test_of_one_number_a_world_on_atanh():
    frame = runs(a=1, b=0)
    (line,) = judged(HIGHER, frame)["evidence"]
    means = frame.groupby(["world", "row"])["map_trapezoid"].mean().unstack()
    places = np.arctanh((means["a"] - means["b"]).to_numpy() / 100)
    above = stats.ttest_1samp(places, 0, alternative="greater")
    limits = 100 * np.tanh(stats.ttest_1samp(places, 0).confidence_interval(0.95))
    assert (line["low"], line["high"]) == pytest.approx(tuple(limits), abs=1e-6)
    assert (line["p_claimed"], line["p_against"]) == pytest.approx((above.pvalue, 1 - above.pvalue))
    assert line["per_world"] == pytest.approx((means["a"] - means["b"]).to_dict(), abs=1e-6) and line["n"] == WORLDS


def test_one_of_many_contrasts_that_misses_by_chance_contradicts_nothing():
    """p = 0.02 alone is below alpha; among as many as the claims have it is what chance gives."""
    alone = {"p_claimed": 0.98, "p_against": 0.02}
    assert decide([alone], 0.025)[0]["outcome"] == "fails"
    assert {line["outcome"] for line in decide([alone, *[{"p_claimed": 0.5, "p_against": 0.5}] * 16], 0.025)} == {
        "open"
    }
    waiting = [{"outcome": "missing"}] * 16
    assert decide([alone, *waiting], 0.025)[0]["outcome"] == "open"  # those that have not run yet count


def test_the_family_is_all_claims():
    frame = runs(spread=1.6, a=0, b=1.9, c=0, d=0)
    others = [claim({"kind": "higher", "pairs": [["c", "d"], ["d", "c"]] * 5}, name=f"N{i}") for i in range(2)]
    registration = registered(HIGHER, *others, names="abcd")
    assert judge_worlds([HIGHER], frame, registered(HIGHER))[0]["verdict"] == "contradicted"
    assert judge_worlds([HIGHER], frame, registration)[0]["verdict"] == "inconclusive"


def test_only_registered_worlds_and_seeds_have_a_vote():
    frame = runs(a=1, b=0)
    more = [
        runs(range(9, 30), a=-9, b=0),  # a reader's own worlds
        runs([1, 2], seed=1, a=-9, b=0),
        runs([1, 2], adapt_seed=1, a=-9, b=0),
        development("a", "b"),
    ]
    plain, mixed = judged(HIGHER, frame), judged(HIGHER, pd.concat([frame, *more]))
    assert plain == mixed


def test_no_verdict_before_every_world_has_both_targets():
    frame = runs(a=4, b=0)
    lost = frame[~((frame["world"] == 5) & (frame["target"] == "duke") & (frame["row"] == "a"))]
    verdict = judged(HIGHER, lost[lost["world"] != 7])
    assert verdict["verdict"] == "not run" and verdict["missing"] == ["world 5", "world 7"]
    assert verdict["evidence"][0]["mean"] is None and verdict["n"] == WORLDS and "missing: 5, 7" in verdict["sentence"]


def test_rows_of_one_setting_have_a_second_analysis_that_changes_no_verdict():
    of = claim({"kind": "higher", "pairs": [["paul", "patch_lc"]]})
    frame = runs(paul=0, patch_lc=4, patch_lc_alike=-4)
    registration = register([of], development("paul", "patch_lc"), "mini", WORLDS, renderer=3)
    verdict = judge_worlds([of], frame, registration)[0]
    (line,) = verdict["alike"]["evidence"]
    assert (verdict["verdict"], verdict["alike"]["verdict"]) == ("contradicted", "supported")
    assert verdict["sentence"].endswith("With one setting for all rows: supported.")
    assert (line["a"], line["b"]) == ("paul", "patch_lc_alike") and line["mean"] == pytest.approx(4, abs=1)
    early = judge_worlds([of], frame[frame["row"] != "patch_lc_alike"], registration)[0]
    assert early["verdict"] == "contradicted" and early["alike"] is None and early["evidence"] == verdict["evidence"]
    assert judged(HIGHER, runs(a=4, b=0))["alike"] is None  # rows that have one setting anyway


def test_an_arm_alike_differs_from_its_own_by_its_setting_alone():
    for row, alike in ALIKE.items():
        own, shared, paul = (Spec(name, "duke", 0, "mini") for name in (row, alike, "paul"))
        assert own.source() == shared.source() and own.network == shared.network
        changed = {name for name, value in vars(shared.options).items() if value != getattr(paul.options, name)}
        assert changed == {name for name in ("loss_c", "loss_v") if f"adapt.{name}" in ROWS[row].overrides}


def test_a_claim_that_changed_after_its_registration_has_no_verdict():
    changed = replace(HIGHER, tests=({**HIGHER.tests[0], "margin": -1.0},))
    verdict = judge_worlds([changed], runs(a=4, b=0), registered(HIGHER))[0]
    assert verdict["verdict"] == "not run" and "not those that were registered" in verdict["sentence"]
    reason = claim({"kind": "not_run", "reason": "nobody has"}, name="N")
    assert judge_worlds([reason], runs(a=4, b=0), registered(HIGHER))[0]["sentence"].startswith("Nobody has.")


def test_each_verdict_says_its_worlds_its_power_and_its_scope():
    for rows in ({"a": 4, "b": 0}, {"a": 0, "b": 4}, {"a": 0, "b": 0}, {"a": 1}):
        verdict = judged(HIGHER, runs(**rows))
        planned = registered(HIGHER).planned[0]
        assert (verdict["n"], verdict["power"], verdict["scope"]) == (WORLDS, planned.power, SCOPE)
        text = verdict_text(verdict)
        assert f"8 worlds, with a power of {100 * planned.power:.0f} % for 1.0 points of a - b" in text
        assert f"Scope: {SCOPE}." in text and "paper is wrong" not in text


def test_an_open_verdict_says_what_could_still_hide():
    verdict = judged(HIGHER, runs(a=0, b=0))
    (line,) = verdict["evidence"]
    left = max(abs(line["low"]), abs(line["high"]))
    assert f"What could still hide is an effect of up to {left:.1f} points" in verdict["sentence"]
    assert "on the other side" not in verdict["sentence"]
    precise = judged(HIGHER, runs(spread=0.2, a=0, b=0))
    assert "less than the smallest of interest, 1." in precise["sentence"]


def test_an_open_verdict_says_when_only_the_correction_keeps_it_open():
    below = runs(spread=1.0, a=-1.0, b=0, c=0)
    several = [HIGHER, claim({"kind": "higher", "pairs": [["c", "b"]]}, name="U")]
    alone = judged(HIGHER, below)
    registration = registered(*several, names="abc")
    line = alone["evidence"][0]
    for count in range(1, 400):  # as many contrasts as it takes
        planned = registration.planned[:1] + registration.planned[1:] * count
        verdict = judge_worlds([several[0]], below, replace(registration, planned=planned))[0]
        if verdict["verdict"] == "inconclusive":
            break
    assert line["high"] < 0 and alone["verdict"] == "contradicted" and verdict["verdict"] == "inconclusive"
    assert "By itself a - b" in verdict["sentence"] and "can be chance" in verdict["sentence"]
    assert f"p = {verdict['evidence'][0]['p_against_holm']:.2g} by Holm" in verdict["sentence"]


def test_world_0_is_the_verdict_until_worlds_are_registered_and_a_remark_then():
    zero = runs_frame(records({"a": 50, "b": 40}))
    before = judge_all([HIGHER], zero, "mini", BOOK / "paper")
    registration = registered(HIGHER)
    (waiting,) = judge_all([HIGHER], zero, "mini", BOOK / "paper", registration)
    assert waiting["verdict"] == "not run" and waiting["missing"] == [f"world {n}" for n in registration.worlds]
    assert judge_all([HIGHER], zero, "smoke", BOOK / "paper", registration)[0]["verdict"] == "supported"
    assert list(verdict_frame(before).columns) == ["where", "text", "verdict", "sentence"]
    assert list(verdict_frame([waiting]).loc["T", ["verdict", "world 0"]]) == ["not run", "supported"]
    both = pd.concat([zero, runs(a=0, b=4).assign(rank1=1.0)])
    (after,) = judge_all([HIGHER], both, "mini", BOOK / "paper", registration)
    assert (before[0]["verdict"], after["verdict"]) == ("supported", "contradicted")
    assert after["development"] == {name: before[0][name] for name in ("verdict", "sentence", "evidence")}
    assert f"Development, not a verdict: on world 0 supported. {before[0]['sentence']}" in verdict_text(after)


def test_folders_of_a_profiles_worlds(tmp_path):
    for name in ("mini", "mini-w2", "mini-w10", "mini-wide", "gpu"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert list(folders_of(tmp_path, "mini").items()) == [("mini", ""), ("mini-w2", ""), ("mini-w10", "")]
    assert folders_of(tmp_path, "paper") == {"paper": ""}
    for name in ("mini-shared0.0", "mini-w2-shared0.0", "mini-w2-people600-gap2.0"):
        (tmp_path / "runs" / name).mkdir()
    knobs = {name: knobs for name, knobs in folders_of(tmp_path, "mini").items() if knobs}
    assert knobs == {
        "mini-shared0.0": "shared0.0",
        "mini-w2-shared0.0": "shared0.0",
        "mini-w2-people600-gap2.0": "people600-gap2.0",
    }
    assert folders_of(tmp_path, "mini-shared0.0") == {"mini-shared0.0": "", "mini-w2-shared0.0": ""}


def test_a_row_at_other_knobs_is_a_row_of_its_own(tmp_path):
    """The same row on people drawn in two ways: one contrast a world, and no mixing with the plain worlds."""
    for name, score in (("mini-shared0.0", 30), ("mini-shared1.0", 50), ("mini", 40)):
        for world in (1, 2):
            found = records({"patch_direct": score + world}, seeds=[0])
            save(tmp_path, *(one | {"profile": name, "world": world, "adapt_seed": 0} for one in found))
    runs = runs_of_worlds(tmp_path, "mini")
    rows = ["patch_direct", "patch_direct@shared0.0", "patch_direct@shared1.0"]
    assert sorted(set(runs["row"])) == rows and len(runs) == 12
    contrast = Contrast("T", rows[2], rows[1], ("market", "duke"), "higher", 0.0, 1.0)
    assert list(contrast_values(runs, contrast)) == [20, 20]
    assert set(runs_of_worlds(tmp_path, "mini-shared0.0")["row"]) == {"patch_direct"}
    assert row_at("paul@gap2.0-size96x48") == ("paul", "gap2.0-size96x48") and row_at("paul") == ("paul", "")
    for bad in ("paul@", "paul@w3", "paul@shared0.5", "paul@shared1"):
        with pytest.raises(ValueError, match="knobs"):
            row_at(bad)


def test_the_records_of_all_worlds_come_together(tmp_path):
    """World 0 alone, then two registered worlds and one that was not."""
    paths = tmp_path / "claims.toml", BOOK / "paper"
    text = (BOOK / "claims.toml").read_text().split("[[claim]]")[3]
    paths[0].write_text("[[claim]]" + text)
    names = ("patch_direct", "image_direct")
    write_registration(tmp_path / FILE, register(load_claims(paths[0]), development(*names), "mini", 2, renderer=3))
    save(tmp_path, *records({"patch_direct": 50, "image_direct": 40}))
    (first,) = write_claims(tmp_path, *paths)["mini"]
    assert (first["id"], first["verdict"]) == ("C3", "not run") and first["development"]["verdict"] == "supported"
    for world in (1, 2, 10):
        found = records({"patch_direct": 40 - world, "image_direct": 50}, seeds=[0])
        save(tmp_path, *({**one, "world": world} for one in found))
    assert sorted(set(runs_of_worlds(tmp_path, "mini")["world"])) == [0, 1, 2, 10]
    verdicts = write_claims(tmp_path, *paths)
    (second,) = verdicts["mini"]
    assert second["verdict"] == "contradicted" and second["evidence"][0]["n"] == second["n"] == 2
    assert second["development"]["verdict"] == "supported" and set(verdicts) == {"mini", "mini-w10"}
    found = records({"patch_direct": 50}, seeds=[0])
    save(tmp_path, *({**one, "profile": "mini-shared0.0", "world": world} for one in found for world in (0, 2)))
    assert write_claims(tmp_path, *paths) == verdicts  # knobs are no profile
    save(tmp_path, *({**one, "profile": "smoke"} for one in records({"patch_direct": 50, "image_direct": 40})))
    assert judged_in(tmp_path, *paths, profile="mini") == verdicts and set(judged_in(tmp_path, *paths)) > {"smoke"}
    (tmp_path / "others/runs/smoke").mkdir(parents=True)
    assert set(write_claims(tmp_path / "others", *paths)) == {"smoke"}


def test_seeds_are_paired_and_adaptation_seeds_averaged():
    frame = pd.concat([runs([2], seed=s, adapt_seed=t, a=s, b=t) for s in (0, 1) for t in (0, 1)])
    (contrast,) = contrasts_of(HIGHER)
    expected = frame.groupby(["row", "seed"])["map_trapezoid"].mean()
    values = contrast_values(frame, contrast)
    assert values.to_dict() == pytest.approx({(2, s): expected["a", s] - expected["b", s] for s in (0, 1)})


def test_the_smallest_effect_of_interest_is_below_every_printed_one():
    contrasts = [contrast for one in load_claims(BOOK / "claims.toml") for contrast in contrasts_of(one)]
    assert len(contrasts) == 24 and {contrast.claim for contrast in contrasts} == {f"C{i}" for i in range(3, 13)}

    def printed(row, target):
        tables = (published_value(table, row, target, PRIMARY, BOOK / "paper") for table in ("table3", "table4"))
        return next(value for value in tables if not np.isnan(value))

    plain = [one for one in contrasts if one.kind == "higher" and not one.margin and one.claim != "C12"]
    for one in plain:
        gap = np.mean([printed(one.a, target) - printed(one.b, target) for target in one.targets])
        assert gap > 1.59 > one.smallest == 1.0
    with pytest.raises(ValueError, match="claim T: field 'smallest' is missing"):
        contrasts_of(Claim("T", "text", "where", ({"kind": "higher", "pairs": [["a", "b"]], "margin": 0.0},)))


def nested_runs(rng, worlds, seeds, adapt_seeds, spreads):
    """Row a with a part from each level, and row b without its own adaptation, level by level in loops."""
    lines = []
    for world in range(worlds):
        from_world = rng.normal(0, spreads[0])
        for seed in range(seeds):
            from_seed, base = rng.normal(0, spreads[1]), rng.normal(40, 5)
            for target in ("market", "duke"):
                lines.append(dict(row="b", target=target, world=world, seed=seed, adapt_seed=seed, value=base))
            for own in range(adapt_seeds):
                value = base + from_world + from_seed + rng.normal(0, spreads[2])
                for target, shift in (("market", 3), ("duke", -3)):
                    lines.append(
                        dict(row="a", target=target, world=world, seed=seed, adapt_seed=own, value=value + shift)
                    )
    return pd.DataFrame(lines).rename(columns={"value": "map_trapezoid"})


def test_a_contrasts_variance_is_split_by_world_and_seeds():
    (contrast,) = contrasts_of(HIGHER)
    frame = nested_runs(np.random.default_rng(4), 150, 2, 2, (3.0, 2.0, 1.0))
    found = split_variance(frame.sample(frac=1, random_state=0), contrast)
    assert list(found) == ["world", "seed", "adapt_seed"]
    assert list(found.values()) == pytest.approx([9, 4, 1], rel=0.35)
    of_a = frame[(frame["row"] == "a") & (frame["target"] == "market")].set_index(["world", "seed", "adapt_seed"])
    of_b = frame[(frame["row"] == "b") & (frame["target"] == "market")].set_index(["world", "seed"])
    cube = of_a["map_trapezoid"].to_numpy().reshape(150, 2, 2) - of_b["map_trapezoid"].to_numpy().reshape(150, 2, 1)
    assert list(found.values()) == pytest.approx(variance_components(cube))
    assert split_variance(frame, replace(contrast, a="b", b="a")) == pytest.approx(found)
    with pytest.raises(ValueError, match="a - b: its runs are no balanced design of world, seed, adapt_seed"):
        split_variance(frame.drop(frame.index[(frame["row"] == "a") & (frame["world"] == 7)][:2]), contrast)

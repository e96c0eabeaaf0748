"""Verdicts over registered worlds: a claim's contrasts tested as `paul.report.registration` fixed them beforehand.

    supported     every contrast lies where the claim says: the intersection-union of one-sided t tests
    contradicted  a contrast lies significantly on the other side, by Holm over all contrasts of all claims
    inconclusive  neither; the sentence says how large an effect could still hide
    not run       a registered world lacks a run, or nothing of the claim was registered

Each verdict is about rendered people and a small network, and says so. It can't tell whether the paper is right about
photographs.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from paul.report.contrasts import Contrast, contrast_values
from paul.report.frames import metric_labels, target_name
from paul.report.registration import Planned, Registration, predicate_hash
from paul.report.statistics import DIFFERENCES, holm, intersection_union, mean_interval, p_above, p_below


def p_claimed(values, contrast: Contrast) -> float:
    """The p-value for a mean within the claimed range: of "within", two one-sided tests."""
    lower, upper = contrast.claimed
    sides = [p_above(values, lower)] if lower > -math.inf else []
    return intersection_union([*sides, *([p_below(values, upper)] if upper < math.inf else [])])


def p_against(values, contrast: Contrast) -> float:
    """The p-value for a mean beyond the claimed range; of "within" the smaller of both sides, doubled."""
    lower, upper = contrast.claimed
    below = p_below(values, lower)
    return below if upper == math.inf else min(1.0, 2 * min(below, p_above(values, upper)))


def world_values(runs: pd.DataFrame, contrast: Contrast, registration: Registration) -> pd.Series:
    """The contrast per registered world, from the registered seeds alone."""
    chosen = runs[
        runs["world"].isin(registration.worlds)
        & (runs["seed"] == registration.seed)
        & (runs["adapt_seed"] == registration.adapt_seed)
    ]
    return contrast_values(chosen, contrast).droplevel("seed")


def evidence_line(planned: Planned, values: pd.Series, registration: Registration) -> dict:
    """One contrast: its values by world, interval and tests; without the last two before all worlds have run."""
    contrast = planned.contrast
    line = {
        "a": contrast.a,
        "b": contrast.b,
        "target": " and ".join(target_name(target, registration.profile) for target in contrast.targets),
        "metric": registration.metric,
        "kind": contrast.kind,
        "margin": contrast.margin,
        "smallest": contrast.smallest,
        "n": len(values),
        "per_world": {int(world): round(float(value), 6) for world, value in values.items()},
        "power": planned.power,
    }
    absent = [world for world in registration.worlds if world not in values.index]
    if absent:
        return {**line, "absent": absent, "mean": None, "low": None, "high": None, "outcome": "missing"}
    interval = mean_interval(values, 1 - 2 * registration.alpha, DIFFERENCES)
    bounds = {name: round(getattr(interval, name), 6) for name in ("mean", "low", "high")}
    return {**line, **bounds, "p_claimed": p_claimed(values, contrast), "p_against": p_against(values, contrast)}


def decide(lines: list[dict], alpha: float) -> list[dict]:
    """Every contrast's `outcome`: holds, fails (after Holm over all of them; one that has not run counts), or open."""
    adjusted = holm([line.get("p_against", 1.0) for line in lines])
    decided = []
    for line, p in zip(lines, map(float, adjusted)):
        if line.get("outcome") != "missing":
            outcome = "holds" if line["p_claimed"] < alpha else "fails" if p < alpha else "open"
            line = {**line, "p_against_holm": p, "outcome": outcome}
        decided.append(line)
    return decided


def describe(line: dict) -> str:
    """A contrast with its numbers, in words."""
    border = {"higher": f" against a margin of {line['margin']:g}", "within": f" within ±{line['margin']:g}"}
    return (
        f"{line['a']} - {line['b']}, {metric_labels()[line['metric']]} on {line['target']}: "
        f"{line['mean']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}] points"
        + (border[line["kind"]] if line["margin"] else "")
    )


def hidden(line: dict) -> float:
    """The largest effect, either way, that the interval leaves possible."""
    return max(abs(line["low"]), abs(line["high"]))


def sentence(verdict: str, evidence: list[dict]) -> str:
    """The verdict in a sentence, with the contrast that decides it."""
    total = len(evidence)
    if verdict == "supported":
        held = "The only contrast holds:" if total == 1 else f"All {total} contrasts hold; the closest is"
        return f"{held} {describe(max(evidence, key=lambda x: x['p_claimed']))}."
    if verdict == "contradicted":
        fails = [line for line in evidence if line["outcome"] == "fails"]
        worst = min(fails, key=lambda line: line["p_against"])
        return (
            f"On the other side: {len(fails)} of {total} contrasts; clearest {describe(worst)} "
            f"(p = {worst['p_against_holm']:.2g} by Holm over all contrasts)."
        )
    undecided = [line for line in evidence if line["outcome"] == "open"]
    widest = max(undecided, key=hidden)
    text = f"Undecided: {len(undecided)} of {total} contrasts; {describe(widest)}. "
    text += f"What could still hide is an effect of up to {hidden(widest):.1f} points"
    small = hidden(widest) < widest["smallest"] and widest["kind"] == "higher" and not widest["margin"]
    text += f", less than the smallest of interest, {widest['smallest']:g}." if small else "."
    against = [line for line in undecided if line["kind"] == "higher" and line["high"] < line["margin"]]
    if against:
        worst = min(against, key=lambda line: line["p_against"])
        text += (
            f" By itself {describe(worst)} lies on the other side; among all contrasts that can be chance "
            f"(p = {worst['p_against_holm']:.2g} by Holm)."
        )
    return text


def judge_worlds(claims, runs: pd.DataFrame, registration: Registration) -> list[dict]:
    """The verdict on every claim from the runs of registered worlds; `runs` has a line per run with the columns row,
    target, world, seed, adapt_seed and the metrics, and may hold other worlds and seeds, which have no vote.

    Each verdict has the fields of `paul.report.claims.judge`, and n (worlds), power (planned, of the weakest contrast),
    scope, and `alike`: verdict and evidence by the same rules where rows share one setting, PAUL's; None where that
    changes no row of the claim.
    """
    own = _decided(registration.planned, runs, registration)
    # what was planned for was rows with settings of their own
    alike = [replace(planned, contrast=planned.contrast.alike, power=None) for planned in registration.planned]
    shared = _decided(alike, runs, registration)
    verdicts = []
    for claim in claims:
        places = [n for n, planned in enumerate(registration.planned) if planned.contrast.claim == claim.id]
        changed = any(alike[n].contrast != registration.planned[n].contrast for n in places)
        verdict = _verdict(claim, [own[n] for n in places], runs, registration)
        second = [shared[n] for n in places] if changed else []
        if second and verdict["verdict"] != "not run" and verdict_of(second) != "missing":
            verdict["alike"] = {"verdict": verdict_of(second), "evidence": second}
            verdict["sentence"] += f" With one setting for all rows: {verdict_of(second)}."
        verdicts.append(verdict)
    return verdicts


def _decided(planned, runs: pd.DataFrame, registration: Registration) -> list[dict]:
    lines = [evidence_line(one, world_values(runs, one.contrast, registration), registration) for one in planned]
    return decide(lines, registration.alpha)


def verdict_of(evidence: list[dict]) -> str:
    """What the outcomes of a claim's contrasts come to; "missing" while one of them has not run."""
    outcomes = {line["outcome"] for line in evidence}
    after = {"missing": "missing", "fails": "contradicted", "open": "inconclusive"}
    return next((verdict for outcome, verdict in after.items() if outcome in outcomes), "supported")


def _verdict(claim, evidence: list[dict], runs: pd.DataFrame, registration: Registration) -> dict:
    missing = sorted({world for line in evidence for world in line.get("absent", ())})
    reason = ""
    if not evidence:
        reason = "; ".join(test.get("reason", "nothing of it was registered") for test in claim.tests)
    elif registration.predicates.get(claim.id) != predicate_hash(claim):
        reason = "its words or tests are not those that were registered"
    elif missing:
        reason = "no verdict before every registered world has run; missing: " + ", ".join(map(str, missing))
    if reason:
        verdict, text = "not run", reason[0].upper() + reason[1:] + "."
    else:
        verdict = verdict_of(evidence)
        text = sentence(verdict, evidence)
    rows = {line[side] for line in evidence for side in ("a", "b")}
    used = runs["row"].isin(rows) & runs["world"].isin(registration.worlds)
    outdated = int(runs["stale"][used].sum()) if "stale" in runs else 0
    if outdated:
        text += f" {outdated} of the runs used are outdated."
    weakest = min(evidence, key=lambda line: line["power"], default=None)
    if weakest:
        text += (
            f" Planned: {len(registration.worlds)} worlds, with a power of {100 * weakest['power']:.0f} % for "
            f"{weakest['smallest']:.1f} points of {weakest['a']} - {weakest['b']}."
        )
    return {
        "id": claim.id,
        "text": claim.text,
        "where": claim.where,
        "profile": registration.profile,
        "verdict": verdict,
        "sentence": f"{text} Scope: {registration.scope}.",
        "missing": [f"world {world}" for world in missing],
        "stale": outdated,
        "n": len(registration.worlds),
        "power": weakest and weakest["power"],
        "scope": registration.scope,
        "evidence": evidence,
        "alike": None,
    }

"""The paper's claims judged by run records: supported, contradicted, inconclusive or not run.

Every claim is a list of tests written as data before the runs, in a file that the caller names. A test is read from
two-sided 95 % Student-t intervals over source seeds, for each target and metric:

    higher      row a lies above row b, by more than `margin`; the difference is paired by seed
    within      rows a and b lie within `margin` of each other
    level       a row's own value lies above `above`, or below `below`
    published   a row lies above the best published method; in profile `paper` alone
    not_run     nothing runs it, for a `reason`

`needs` says when a test can be judged at all: `profiles`, and the least number of `seeds` (2); else the claim is *not
run*. `supported` takes every interval on the claimed side, `contradicted` one wholly on the other side.

Those are the verdicts of world 0, on which all was developed. Where worlds are registered, `paul.report.verdicts` gives
them, and these become a remark beside them. `smallest` is a `higher` test's smallest effect of interest there.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from paul.data.worlds import knobs_of, world_of
from paul.engine.files import write_text
from paul.experiments.profiles import profile_in
from paul.experiments.records import recorded_profiles
from paul.experiments.rows import ROWS, TABLES
from paul.report.frames import metric_labels, paired_differences, target_name, values_by_seed
from paul.report.published import PRINTED, published
from paul.report.registration import FILE, Registration, load_registration
from paul.report.statistics import mean_interval
from paul.report.tables import compares_methods, current_runs
from paul.report.verdicts import judge_worlds
from paul.report.worlds import row_at, runs_of_worlds

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

FIELDS = {
    "higher": {"pairs": list, "metrics": list, "targets": list},
    "within": {"pairs": list, "metrics": list, "targets": list, "margin": float},
    "level": {"row": str, "metrics": list, "targets": list},
    "published": {"row": str, "table": str, "metrics": list, "targets": list},
    "not_run": {"reason": str},
}
OPTIONAL = {"higher": {"margin": float, "smallest": float}, "level": {"above": float, "below": float}}
NEEDS = {"profiles": list, "seeds": int}


class ClaimsError(ValueError):
    """A claims file that can't be read as claims; names the claim and the field."""


@dataclass(frozen=True)
class Claim:
    id: str
    text: str
    where: str
    tests: tuple[dict, ...]


def check_field(claim_id: str, name: str, value, kind: type) -> None:
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool) or value in ("", []):
        raise ClaimsError(f"claim {claim_id}: field '{name}' must be a non-empty {kind.__name__}, got {value!r}")
    if kind is float and not math.isfinite(value):
        raise ClaimsError(f"claim {claim_id}: field '{name}' must be finite, got {value!r}")
    if name in ("metrics", "targets") and not all(isinstance(part, str) for part in value):
        raise ClaimsError(f"claim {claim_id}: field '{name}' must hold names, got {value!r}")


def check_needs(claim_id: str, needs) -> None:
    if not isinstance(needs, dict) or set(needs) - set(NEEDS):
        raise ClaimsError(f"claim {claim_id}: field 'needs' holds {', '.join(NEEDS)}, got {needs!r}")
    for name, value in needs.items():
        check_field(claim_id, name, value, NEEDS[name])
    if not all(isinstance(name, str) for name in needs.get("profiles", [])) or needs.get("seeds", 2) < 2:
        raise ClaimsError(
            f"claim {claim_id}: field 'needs' takes names of profiles and two seeds at least, got {needs!r}"
        )


def check_test(claim_id: str, test: dict, rows) -> dict:
    """One test as a checked dictionary with its margin filled in; ClaimsError names claim and field."""
    if not isinstance(test, dict):
        raise ClaimsError(f"claim {claim_id}: field 'test' holds {test!r}, which is no [[claim.test]]")
    kind = test.get("kind")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise ClaimsError(f"claim {claim_id}: field 'kind' must be one of {', '.join(FIELDS)}, got {kind!r}")
    required, optional = FIELDS[kind], OPTIONAL.get(kind, {})
    for name in required:
        if name not in test:
            raise ClaimsError(f"claim {claim_id}: field '{name}' is missing from its test of kind '{kind}'")
    for name, value in test.items():
        if name not in {"kind": str, "needs": dict, **required, **optional}:
            raise ClaimsError(f"claim {claim_id}: a test of kind '{kind}' has no field '{name}'")
        if name not in ("kind", "needs"):
            check_field(claim_id, name, value, {**required, **optional}[name])
    check_needs(claim_id, test.get("needs", {}))
    if kind == "level" and ("above" in test) == ("below" in test):
        raise ClaimsError(f"claim {claim_id}: a test of kind 'level' has either 'above' or 'below'")
    for pair in test.get("pairs", []):
        if not isinstance(pair, list) or len(pair) != 2:
            raise ClaimsError(f"claim {claim_id}: field 'pairs' holds {pair!r}, which is not a pair of rows")
    for name in [row for pair in test.get("pairs", []) for row in pair] + [test[k] for k in ["row"] if k in test]:
        try:
            row = row_at(name)[0]
        except (ValueError, AttributeError) as error:
            raise ClaimsError(f"claim {claim_id}: field 'pairs' or 'row': {error}") from error
        if row not in rows:
            raise ClaimsError(f"claim {claim_id}: field 'pairs' or 'row' names {name!r}, which is no experiment row")
    for metric in test.get("metrics", []):
        if metric not in metric_labels() or (kind == "published" and metric not in PRINTED):
            raise ClaimsError(f"claim {claim_id}: field 'metrics' names {metric!r}, which such a test can't read")
    comparing = [name for name in TABLES if compares_methods(name)]
    if kind == "published" and test["table"] not in comparing:
        raise ClaimsError(f"claim {claim_id}: field 'table' must be one of {', '.join(comparing)}")
    if test.get("margin", 0) < 0:
        raise ClaimsError(f"claim {claim_id}: field 'margin' must not be negative, got {test['margin']}")
    if test.get("smallest", 1) <= 0:
        raise ClaimsError(f"claim {claim_id}: field 'smallest' must be above zero, got {test['smallest']}")
    return {"margin": 0.0, **test}


def load_claims(path, rows=ROWS) -> list[Claim]:
    """The claims in a TOML file; `rows` are the row names that their tests may use, the experiments' by default.

    Raises ClaimsError, naming the file, the claim and the field, for anything malformed.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ClaimsError(f"{path}: can't be read ({error.strerror}); run from the repository's root") from error
    except (ValueError, RecursionError) as error:
        raise ClaimsError(f"{path}: not TOML ({error})") from error
    entries = document.get("claim")
    if not isinstance(entries, list) or not entries:
        raise ClaimsError(f"{path}: has no [[claim]]")
    claims = []
    try:
        for place, entry in enumerate(entries, 1):
            if not isinstance(entry, dict):
                raise ClaimsError(f"claim number {place}: is {entry!r}, no [[claim]]")
            name = entry.get("id", f"number {place}")
            for field in ["id", "text", "where"]:
                if field not in entry:
                    raise ClaimsError(f"claim {name}: field '{field}' is missing")
                check_field(name, field, entry[field], str)
            tests = entry.get("test")
            if not isinstance(tests, list) or not tests:
                raise ClaimsError(f"claim {name}: field 'test' is missing: it needs at least one [[claim.test]]")
            if name in [claim.id for claim in claims]:
                raise ClaimsError(f"claim {name}: field 'id' is used twice")
            unknown = set(entry) - {"id", "text", "where", "test"}
            if unknown:
                raise ClaimsError(f"claim {name}: unknown field '{sorted(unknown)[0]}'")
            checked = tuple(check_test(name, test, rows) for test in tests)
            claims.append(Claim(name, entry["text"], entry["where"], checked))
    except ClaimsError as error:
        raise ClaimsError(f"{path}: {error}") from None
    return claims


def place_interval(low: float, high: float, lower: float, upper: float) -> str:
    """Where the interval [low, high] lies against the open range (lower, upper) of a test: holds, fails or open."""
    if low > lower and high < upper:
        return "holds"
    if high < lower or low > upper:
        return "fails"
    return "open"


def compare(test: dict, values: pd.Series, **labels) -> dict:
    """One line of evidence: differences or values by seed, their interval, and whether the test holds on it."""
    kind, margin = test["kind"], test["margin"]
    line = {**labels, "kind": kind, "margin": margin, "n": len(values)}
    line["per_seed"] = {int(seed): round(float(value), 6) for seed, value in values.items()}
    if len(values) < test.get("needs", {}).get("seeds", 2):
        return {**line, "mean": None, "low": None, "high": None, "outcome": "missing"}
    interval = mean_interval(values)
    lower, upper = (-margin, margin) if kind == "within" else (margin, math.inf)
    if kind == "level":
        lower, upper = test.get("above", -math.inf), test.get("below", math.inf)
        line |= {"above": test.get("above"), "below": test.get("below")}
    outcome = place_interval(interval.low, interval.high, lower, upper)
    bounds = {name: round(getattr(interval, name), 6) for name in ("mean", "low", "high")}
    return {**line, **bounds, "outcome": outcome}


def published_evidence(test: dict, runs: pd.DataFrame, paper) -> list[dict]:
    """Our row against the best published rival, metric by metric, in the paper's own units."""
    table = published(test["table"], paper)
    rivals = table[table["method"] != "PAUL"].set_index("method")
    lines = []
    for target in test["targets"]:
        for metric in test["metrics"]:
            figures = rivals[PRINTED[metric]].dropna()
            ours = values_by_seed(runs, test["row"], target, metric)
            labels = {"a": test["row"], "b": f"published {figures.idxmax()}", "target": target, "metric": metric}
            lines.append(compare(test, ours - figures.max(), **labels))
    return lines


def paired_evidence(test: dict, runs: pd.DataFrame) -> list[dict]:
    """Differences of two rows, paired by source seed."""
    return [
        compare(test, paired_differences(runs, a, b, target, metric), a=a, b=b, target=target, metric=metric)
        for a, b in test["pairs"]
        for target in test["targets"]
        for metric in test["metrics"]
    ]


def level_evidence(test: dict, runs: pd.DataFrame) -> list[dict]:
    """One row's own values."""
    return [
        compare(
            test, values_by_seed(runs, test["row"], target, metric), a=test["row"], b="", target=target, metric=metric
        )
        for target in test["targets"]
        for metric in test["metrics"]
    ]


def missing_runs(evidence: list[dict], runs: pd.DataFrame) -> list[str]:
    """What has to be run before the evidence is whole, in words, without repeats."""
    needs = []
    for line in [line for line in evidence if line["outcome"] == "missing"]:
        names = [name for name in (line["a"], line["b"]) if name and not name.startswith("published ")]
        seeds = {name: list(values_by_seed(runs, name, line["target"], "rank1").index) for name in names}
        absent = [name for name in names if not seeds[name]]
        if absent:
            needs += [f"{name} on {line['target']}" for name in absent]
        else:
            have = "; ".join(f"{name} has {', '.join(map(str, seeds[name]))}" for name in names)
            needs.append(f"two source seeds of {' and '.join(names)} on {line['target']} ({have})")
    return list(dict.fromkeys(needs))


def describe(line: dict, profile: str) -> str:
    """A line of evidence in words, with its numbers."""
    where = f"{metric_labels()[line['metric']]} on {target_name(line['target'], profile)}"
    if line["kind"] == "level":
        bound = f"above {line['above']:g}" if line["above"] is not None else f"below {line['below']:g}"
        return f"{line['a']}, {where}: {line['mean']:.1f} [{line['low']:.1f}, {line['high']:.1f}] against {bound}"
    numbers = f"{line['mean']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}]"
    border = {"higher": f" against a margin of {line['margin']:g}", "within": f" within ±{line['margin']:g}"}
    return f"{line['a']} - {line['b']}, {where}: {numbers} points" + (border[line["kind"]] if line["margin"] else "")


def room(line: dict) -> float:
    """Points between the interval and the border of its test; negative when it crosses."""
    if line["kind"] == "level":
        return line["low"] - line["above"] if line["above"] is not None else line["below"] - line["high"]
    above = line["low"] - (-line["margin"] if line["kind"] == "within" else line["margin"])
    return min(above, line["margin"] - line["high"]) if line["kind"] == "within" else above


def sentence(verdict: str, evidence: list[dict], profile: str) -> str:
    """The verdict in one sentence, quoting the comparison that decides it."""
    counts = {outcome: [line for line in evidence if line["outcome"] == outcome] for outcome in ["fails", "open"]}
    total = len(evidence)
    if verdict == "supported":
        return f"All {total} comparisons hold; the closest is {describe(min(evidence, key=room), profile)}."
    if verdict == "contradicted":
        worst = min(counts["fails"], key=room)
        return f"Against the claim: {len(counts['fails'])} of {total} comparisons; clearest {describe(worst, profile)}."
    widest = min(counts["open"], key=room)
    return f"Undecided: {len(counts['open'])} of {total} comparisons; the widest miss is {describe(widest, profile)}."


def judge(claim: Claim, runs: pd.DataFrame, profile: str, paper) -> dict:
    """The verdict on one claim from the runs of one profile (`paul.report.tables.current_runs`), with its evidence;
    `paper` is the folder of the published tables.

    Returns id, text, where, profile, verdict, sentence, missing (runs still needed), stale (outdated runs among them)
    and evidence: per test, pair, target and metric the differences by seed, n, mean, interval and outcome.
    """
    result = {"id": claim.id, "text": claim.text, "where": claim.where, "profile": profile}
    evidence, reasons = [], []
    for test in claim.tests:
        name = profile_in(profile)
        profiles = test.get("needs", {}).get("profiles", [name])
        if name not in profiles:
            reasons.append(f"it can be judged in profile {' or '.join(profiles)} only")
        elif test["kind"] == "not_run":
            reasons.append(test["reason"])
        elif test["kind"] == "published" and profile != "paper":
            reasons.append(
                f"it compares values with published ones, which only profile paper can do; profile {profile} runs on "
                "people who don't exist"
            )
        elif test["kind"] == "published":
            evidence += published_evidence(test, runs, paper)
        elif test["kind"] == "level":
            evidence += level_evidence(test, runs)
        else:
            evidence += paired_evidence(test, runs)
    missing = missing_runs(evidence, runs)
    outcomes = {line["outcome"] for line in evidence}
    if reasons or missing:
        verdict = "not run"
        if missing:
            reasons.append("no verdict before these are run: " + "; ".join(missing))
        text = "; ".join(reasons) + "."
        text = text[0].upper() + text[1:]
    else:
        verdict = "contradicted" if "fails" in outcomes else "inconclusive" if "open" in outcomes else "supported"
        text = sentence(verdict, evidence, profile)
    used = {(line[side], line["target"]) for line in evidence for side in ("a", "b")}
    stale = int(sum(row["stale"] for _, row in runs.iterrows() if (row["row"], row["target"]) in used))
    if stale:
        text += f" {stale} of the runs used are outdated."
    return {**result, "verdict": verdict, "sentence": text, "missing": missing, "stale": stale, "evidence": evidence}


def judge_all(claims, runs: pd.DataFrame, profile: str, paper, registration: Registration | None = None) -> list[dict]:
    """`judge` for every claim, in order; at a registered profile the verdict of its worlds
    (`paul.report.verdicts.judge_worlds`), with verdict, sentence and evidence of world 0 as its `development`."""
    if registration is None or profile != registration.profile:
        return [judge(claim, runs, profile, paper) for claim in claims]
    first = [judge(claim, runs[runs["world"] == 0], profile, paper) for claim in claims]
    return [
        {**verdict, "development": {name: own[name] for name in ("verdict", "sentence", "evidence")}}
        for verdict, own in zip(judge_worlds(claims, runs, registration), first)
    ]


def development_text(verdict: dict) -> str:
    """What world 0 said, beside the verdict of registered worlds."""
    return "Development, not a verdict: on world 0 {verdict}. {sentence}".format(**verdict["development"])


def verdict_text(verdict: dict) -> str:
    """One verdict as a Markdown paragraph: claim, where it is made, verdict, the sentence that gives the evidence."""
    claim = re.sub(r"\b(L_[cv])\b", r"$\1$", verdict["text"])
    text = f"**{verdict['id']}: {verdict['verdict']}.** {claim} ({verdict['where']})\n\n{verdict['sentence']}"
    if "development" in verdict:
        text += f"\n\n*{development_text(verdict)}*"
    if verdict["profile"] == "smoke":
        text += " *Profile smoke shows that everything runs, and nothing else: its networks have hardly learned.*"
    return text


def verdict_frame(verdicts: list[dict]) -> pd.DataFrame:
    """Claim, where, verdict and sentence as a table to show; beside registered verdicts what world 0 said."""
    early = [verdict["development"]["verdict"] if "development" in verdict else "" for verdict in verdicts]
    columns = ["id", "where", "text", "verdict", *(["world 0"] if any(early) else []), "sentence"]
    return pd.DataFrame(verdicts).assign(**{"world 0": early})[columns].set_index("id")


def evidence_frame(verdict: dict) -> pd.DataFrame:
    """One verdict's evidence as a table: a line per pair, target and metric."""
    columns = ["a", "b", "target", "metric", "n", "mean", "low", "high", "margin", "outcome"]
    return pd.DataFrame(verdict["evidence"], columns=columns)


def judged(results_dir, claims_path, paper, data=None, profile: str | None = None) -> dict[str, list[dict]]:
    """The verdicts of a profile, or of every one that has runs: profile -> `judge_all`.

    People drawn with other knobs are no world to judge by itself: claims compare them with their profile's own.
    `data` names the folder of the sets: runs on others are outdated where theirs are there. A registration is looked
    for beside the claims.
    """
    claims = load_claims(claims_path)
    registration = load_registration(Path(claims_path).with_name(FILE))
    names = [name for name in recorded_profiles(results_dir) if profile in (None, profile_in(name))]
    names = [name for name in names if not knobs_of(world_of(name)[0])[1]]
    found = {name: current_runs(results_dir, name, data) for name in names}
    for name in sorted({profile_in(name) for name in names}):  # with the rows of people drawn otherwise
        runs = runs_of_worlds(results_dir, name, data)
        if registration and registration.profile == name:  # its worlds are judged together, not each by itself
            together = {own for own in names if profile_in(own) == name and world_of(own)[1] in registration.worlds}
            found = {own: each for own, each in found.items() if own not in together}
            found[name] = runs
        elif name in found:
            found[name] = runs[runs["world"] == 0]
    return {name: judge_all(claims, runs, name, paper, registration) for name, runs in found.items()}


def write_claims(results_dir, claims_path, paper, data=None) -> dict[str, list[dict]]:
    """Write results_dir/claims.json, the verdicts of every profile that has runs (`judged`), and return them."""
    verdicts = judged(results_dir, claims_path, paper, data)
    write_text(Path(results_dir) / "claims.json", json.dumps(verdicts, indent=1, allow_nan=False) + "\n")
    return verdicts

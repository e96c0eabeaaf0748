"""The paper's claims with their verdicts: the headline, the front page's list, and the page of their evidence."""

from __future__ import annotations

import json
import re
from collections.abc import Set
from html import escape
from pathlib import Path

from paul.report.claims import development_text
from paul.report.frames import METRICS, TARGETS, target_name

from .front import badge
from .reference import place, read_list
from .run import RENDERED
from .toc import Book, BookError

HERE = Path(__file__).resolve().parent
CLAIM = {**dict.fromkeys(("id", "text", "where", "verdict", "sentence"), str), "evidence": list}
NUMBER = (int, float, type(None))
LINE = {**dict.fromkeys(("a", "target", "metric", "outcome"), str), **dict.fromkeys(("mean", "low", "high"), NUMBER)}
LINE |= {"b": (str, type(None)), "n": int}


def read_claims(entries: dict, path: Path) -> tuple[str, list[dict]]:
    """The profile of the last chapter that ran and the verdicts on the paper's claims there; none where none are kept.

    Raises BookError for a file that holds no verdicts.
    """
    profiles = [entry["profile"] for entry in entries.values() if entry["status"] == "ran"]
    if not profiles or not path.is_file():
        return "", []
    try:
        judged = json.loads(path.read_text(encoding="utf-8")).get(profiles[-1], [])
        if not all(_fits(claim, CLAIM) and _fits_evidence(claim) for claim in judged):
            raise ValueError("a claim or a line of its evidence lacks a part")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BookError(
            f"{path}: no verdicts ({type(error).__name__}: {error}); write it with 'paul report'"
        ) from error
    return profiles[-1], judged


def _fits_evidence(claim: dict) -> bool:
    alike, development = claim.get("alike"), claim.get("development")
    if development is not None and not _fits(development, {"verdict": str, "sentence": str, "evidence": list}):
        return False
    if not all(isinstance(name, str) for name in claim.get("missing", [])):
        return False
    second = [line for part in (alike, development) if part is not None for line in part["evidence"]]
    whole = alike is None or isinstance(alike["verdict"], str)
    return whole and all(_fits(line, LINE) for line in [*claim["evidence"], *second])


def _fits(part: dict, kinds: dict) -> bool:
    return all(name in part and isinstance(part[name], kind) for name, kind in kinds.items())


def headline(judged: list[dict], profile: str) -> str:
    """What came out in one sentence, counted; of the development world where the registered ones have not all run."""
    counted = _counted([claim["verdict"] for claim in judged], profile)
    early = _counted([claim["development"]["verdict"] for claim in judged if "development" in claim], profile)
    if counted or not early:
        return counted
    waiting = dict.fromkeys(world for claim in judged for world in claim.get("missing", []))
    verb = "has" if len(waiting) == 1 else "have"
    return (
        f"No claim has its verdict yet: {_named(list(waiting))} {verb} still to run. On the development world, which "
        f"decides nothing: {early[0].lower()}{early[1:]}"
    )


def _named(worlds: list[str]) -> str:
    """ "worlds 1 to 8" for eight that follow one another, else each by its name."""
    numbers = [int(name.rpartition(" ")[2]) for name in worlds if re.fullmatch(r"world [0-9]{1,9}", name)]
    if len(numbers) == len(worlds) > 2 and numbers == list(range(numbers[0], numbers[0] + len(worlds))):
        return f"worlds {numbers[0]} to {numbers[-1]}"
    return ", ".join(worlds)


def _counted(verdicts: list[str], profile: str) -> str:
    tested = [verdict for verdict in verdicts if verdict != "not run"]
    if not tested:
        return ""

    def count(verdict: str, number: int) -> str:
        return f"{number or 'none'} {'is' if number <= 1 else 'are'} {verdict}"

    many = f"{len(tested)} claim{'s' * (len(tested) != 1)}"
    where = "on rendered people" if profile in RENDERED else "on the paper's own sets"
    words = [count(verdict, tested.count(verdict)) for verdict in ("contradicted", "supported", "inconclusive")]
    left = len(verdicts) - len(tested)
    rest = f" {left} more could not be tested." if left else ""
    return f"Of {many} we could test, {words[0]}, {where}; {words[1]}, {words[2]}.{rest}"


def verdicts_part(judged: list[dict], profile: str) -> str:
    if not judged:
        return ""
    rows = "\n".join(
        f'<tr><td><a href="pages/claims.html#claim-{escape(claim["id"].lower())}">{escape(claim["id"])}</a></td>'
        f'<td>{_losses(escape(claim["text"]))}<br><span class="teaches">{escape(claim["where"])}</span></td>'
        f"<td>{badge(claim['verdict'], 'verdict')}{_early(claim)}</td></tr>"
        for claim in judged
    )
    return f"""
## What came out

**{headline(judged, profile) or "None of the claims has been tested yet."}** These are the paper's claims, judged at the
profile `{profile}` by rules written down before the runs. Each leads to its evidence.

<table class="verdicts">
{rows}
</table>
"""


def _losses(text: str) -> str:
    """L_c and L_v with their letters below the line."""
    return re.sub(r"\bL_([cv])\b", r"L<sub>\1</sub>", text)


def _early(claim: dict) -> str:
    """What the development world says of a claim that has no verdict yet."""
    if claim["verdict"] != "not run" or "development" not in claim:
        return ""
    return f'<br><span class="teaches">world 0: {escape(claim["development"]["verdict"])}</span>'


def claims_page(judged: list[dict], profile: str, book: Book, traced: Set[str] = frozenset()) -> str:
    """Every claim with its verdict and the comparisons it rests on; rows in `traced` lead to their runs."""
    return f"""# The claims and their evidence

What the paper claims, and what the runs of profile `{profile}` say of it: for each comparison the mean difference in
points and its interval, over *n* source seeds, or over *n* worlds where a claim is registered. The rules stand in
`book/claims.toml` and were written before the runs. A row's name is the one that `paul run --rows` takes.

{headline(judged, profile)}
{"".join(_claim(claim, profile, book, traced) for claim in judged)}"""


def _claim(claim: dict, profile: str, book: Book, traced: Set[str]) -> str:
    paper = read_list(HERE / "paper.toml", "figure", "table")
    named = re.findall(r"(Table|Figure) (\d+)", claim["where"])
    found = [one for kind, number in named for one in paper[kind.lower()] if str(one["number"]) == number]
    places = "; ".join(filter(None, (place(book, one) for one in found)))
    alike = claim.get("alike") or {"evidence": [], "verdict": ""}
    behind = next((one for one in read_list(HERE / "behind.toml", "claim")["claim"] if one["id"] == claim["id"]), None)
    measured = [line for line in claim["evidence"] if line["outcome"] != "missing"]
    early = claim.get("development", {"evidence": []})
    second = f"With one setting for all rows, PAUL's, as in the paper: {alike['verdict']}."
    return f"""
(claim-{claim["id"]})=
## {claim["id"]}: {claim["verdict"]}

{_losses(claim["text"])} ({claim["where"]})

{claim["sentence"]}{f" More in chapter {places}." if places else ""}

{_behind(behind, book) if behind else ""}

{_evidence(measured, profile, traced)}
{f"{second}{chr(10) * 2}{_evidence(alike['evidence'], profile, traced)}" if alike["evidence"] else ""}

{f"*{development_text(claim)}*" if "development" in claim else ""}

{_evidence(early["evidence"], profile, traced)}
"""


def _behind(behind: dict, book: Book) -> str:
    """What was measured to explain a verdict, with where it stands, and what that can't tell."""
    places = "; ".join(filter(None, (place(book, one) for one in behind["at"])))
    return f"*To explain it:* {behind['measured']} Chapter {places}.\n\n*It can't tell:* {behind['silent']}"


def _evidence(evidence: list[dict], profile: str, traced: Set[str]) -> str:
    lines = [
        f"| {_compared(line, traced)} | {_target(line['target'], profile)} "
        f"| {METRICS.get(line['metric'], line['metric'])} | {_points(line)} | {line['n']} | {line['outcome']} |"
        for line in evidence
    ]
    head = ["| Rows | Target | Measure | Points | n | Test |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *lines]) if lines else ""


def _target(name: str, profile: str) -> str:
    return target_name(name, profile) if name in TARGETS else name  # a registered contrast has its targets in words


def _compared(line: dict, traced: Set[str]) -> str:
    def link(name: str) -> str:
        row = name.partition("@")[0]
        return f"[`{name}`](#row-{row})" if row in traced else f"`{name}`"

    return " - ".join(link(name) for name in (line["a"], line["b"]) if name)


def _points(line: dict) -> str:
    """Mean and interval; nothing where runs are missing."""
    if None in (line["mean"], line["low"], line["high"]):
        return ""
    return f"{line['mean']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}]"

"""The front page: the picture, a game, what came out, ways through the book and its chapters."""

from __future__ import annotations

import base64
import json
import re
from html import escape
from pathlib import Path

import pandas as pd

from paul.data.datasets import ReidDataset
from paul.experiments.profiles import PROFILES
from paul.report.frames import METRICS, TARGETS, target_name

from .reference import MADE, WIDGETS, place, read_list
from .run import RENDERED
from .toc import ROOT, Book, BookError, Chapter

HERE = Path(__file__).resolve().parent
STRIPES = ("#f2b134", "#e8743b", "#c8445b", "#8a3a7c", "#4b4a93", "#2a6f97")
PATHS = {
    "Thirty minutes": (
        "The problem, the idea in two toys, and what came of it.",
        ("01_problem_and_data", "pages/pedals_circle", "pages/cyclic_ranking", "pages/claims"),
    ),
    "A weekend": (
        "How to measure, the network, both losses from scratch, one training, and the ablation.",
        ("00_setup", "02_evaluation", "03_patchnet", "04_pedal", "05_ipfl", "06_training", "08_table3"),
    ),
    "A course": (
        "Everything, in order, with slides, exercises that grade themselves, and an exam; `make course` packs it.",
        ("course/plan", "course/misconceptions", "course/exam"),
    ),
}
LOOKS = ("top", "top_colour", "bottom", "bottom_colour", "shoes", "hair", "hair_colour", "hat", "backpack", "bag")
ROUNDS = 3
CLAIM = {**dict.fromkeys(("id", "text", "where", "verdict", "sentence"), str), "evidence": list}
NUMBER = (int, float, type(None))
LINE = {**dict.fromkeys(("a", "target", "metric", "outcome"), str), **dict.fromkeys(("mean", "low", "high"), NUMBER)}
LINE |= {"b": (str, type(None)), "n": int}
PLAYED = """<script>
for (const game of document.querySelectorAll(".game")) {
  const rounds = [...game.querySelectorAll(".round")];
  const show = (n) => rounds.forEach((round, place) => { round.hidden = place !== n % rounds.length; });
  rounds.forEach((round, n) => {
    const said = round.querySelector(".said"), another = document.createElement("button");
    round.querySelector("details").hidden = true;
    for (const one of round.querySelectorAll(".seven button")) one.addEventListener("click", () => {
      const right = "right" in one.dataset;
      one.classList.add(right ? "right" : "wrong");
      said.textContent = right ? "✓ That is the same person." : "✗ Somebody else. Look again.";
    });
    another.type = "button";
    another.textContent = "another person";
    another.addEventListener("click", () => show(n + 1));
    round.append(another);
  });
  show(0);
}
</script>"""


def badge(status: str, kind: str = "status") -> str:
    words = {"unknown": "not run", "waiting": "not run", "running": "not finished"}.get(status, status)
    return f'<span class="badge-status {kind}-{escape(status.replace(" ", "-"))}">{escape(words)}</span>'


# --- what came out -------------------------------------------------------------------------------------------------


def read_claims(entries: dict, path: Path) -> tuple[str, list[dict]]:
    """The profile of the last chapter that ran and the verdicts on the paper's claims there; none where none are kept.

    Raises BookError for a file that holds no verdicts.
    """
    profiles = [entry["profile"] for entry in entries.values() if entry["status"] == "ran"]
    if not profiles or not path.is_file():
        return "", []
    try:
        judged = json.loads(path.read_text(encoding="utf-8")).get(profiles[-1], [])
        if not all(_fits(claim, CLAIM) and all(_fits(line, LINE) for line in claim["evidence"]) for claim in judged):
            raise ValueError("a claim or a line of its evidence lacks a part")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BookError(
            f"{path}: no verdicts ({type(error).__name__}: {error}); write it with 'paul report'"
        ) from error
    return profiles[-1], judged


def _fits(part: dict, kinds: dict) -> bool:
    return all(name in part and isinstance(part[name], kind) for name, kind in kinds.items())


def headline(judged: list[dict], profile: str) -> str:
    """What came out in one sentence, counted."""
    verdicts = [claim["verdict"] for claim in judged]
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
        f'<td>{escape(claim["text"])}<br><span class="teaches">{escape(claim["where"])}</span></td>'
        f"<td>{badge(claim['verdict'], 'verdict')}</td></tr>"
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


def claims_page(judged: list[dict], profile: str, book: Book) -> str:
    """Every claim with its verdict and the comparisons it rests on."""
    return f"""# The claims and their evidence

What the paper claims, and what the runs of profile `{profile}` say of it: for each comparison the mean difference in
points and its interval, over *n* source seeds, or over *n* worlds where a claim is registered. The rules stand in
`book/claims.toml` and were written before the runs. A row's name is the one that `paul run --rows` takes.

{headline(judged, profile)}
{"".join(_claim(claim, profile, book) for claim in judged)}"""


def _claim(claim: dict, profile: str, book: Book) -> str:
    paper = read_list(HERE / "paper.toml", "figure", "table")
    named = re.findall(r"(Table|Figure) (\d+)", claim["where"])
    found = [one for kind, number in named for one in paper[kind.lower()] if str(one["number"]) == number]
    places = "; ".join(filter(None, (place(book, one) for one in found)))
    lines = [
        f"| {_compared(line)} | {_target(line['target'], profile)} | {METRICS.get(line['metric'], line['metric'])} "
        f"| {_points(line)} | {line['n']} | {line['outcome']} |"
        for line in claim["evidence"]
    ]
    table = ["| Rows | Target | Measure | Points | n | Test |", "|---|---|---|---|---|---|", *lines]
    return f"""
(claim-{claim["id"]})=
## {claim["id"]}: {claim["verdict"]}

{claim["text"]} ({claim["where"]})

{claim["sentence"]}{f" More in chapter {places}." if places else ""}

{chr(10).join(table) if lines else ""}
"""


def _target(name: str, profile: str) -> str:
    return target_name(name, profile) if name in TARGETS else name  # a registered contrast has its targets in words


def _compared(line: dict) -> str:
    return f"`{line['a']}`" + (f" - `{line['b']}`" if line["b"] else "")


def _points(line: dict) -> str:
    """Mean and interval; nothing where runs are missing."""
    if None in (line["mean"], line["low"], line["high"]):
        return ""
    return f"{line['mean']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}]"


# --- the game ------------------------------------------------------------------------------------------------------


def game(entries: dict) -> str:
    """Which of seven is the same person? With the rendered people the book was run on; "" where there are none."""
    ran = [one for one in entries.values() if one["status"] == "ran" and "data_dir" in one.get("parameters", {})]
    if not ran or ran[-1]["profile"] not in RENDERED:  # pictures of real people are shown nowhere
        return ""
    folder = ROOT / ran[-1]["parameters"]["data_dir"] / PROFILES[ran[-1]["profile"]].folders["market"]
    if not (folder / "index.csv").is_file():
        return ""
    try:
        frame = ReidDataset.load(folder).frame
    except (OSError, ValueError) as error:
        raise BookError(f"{folder}: no people for the front page's game ({error})") from error
    rounds = "\n".join(_round(folder, *one) for one in choose(frame))
    return f"""
## Which of these seven is the same person?

One camera took the large picture; of the seven from other cameras, one shows the same person. All of them are
rendered: nobody is in these pictures.

<div class="game">
{rounds}
</div>

{PLAYED}
"""


def choose(frame: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """Rounds of the game as files: query, the same person in another camera, the seven to choose from.

    The six others are the people in the gallery who look most alike to the query by what they wear. The rounds are
    those of the people who are hardest to tell from the others.
    """
    frame = frame[(frame["person_id"] > 0) & (frame["occluder"] == "none")]
    if "clothes" in frame:  # people whom clothes don't tell apart would be no fair game
        frame = frame[frame["clothes"] == "own"]
    looks = [column for column in LOOKS if column in frame]
    queries = frame[frame["split"] == "query"].drop_duplicates("person_id")
    gallery = frame[frame["split"] == "gallery"].sort_values("file")
    rounds = []
    for query in queries.to_dict("records"):
        alike = (gallery[looks] == [query[column] for column in looks]).sum(axis=1)
        elsewhere = gallery[gallery["camera_id"] != query["camera_id"]].assign(alike=alike)
        right = elsewhere[elsewhere["person_id"] == query["person_id"]]
        others = elsewhere[elsewhere["person_id"] != query["person_id"]]
        others = others.sort_values(["alike", "file"], ascending=[False, True]).drop_duplicates("person_id").head(6)
        if len(right) and len(others) == 6:
            seven = sorted([right["file"].iloc[0], *others["file"]], key=lambda file: file[::-1])
            rounds.append((int(others["alike"].sum()), query["file"], right["file"].iloc[0], seven))
    rounds.sort(key=lambda one: (-one[0], one[1]))
    return [tuple(one[1:]) for one in rounds[:ROUNDS]]


def _round(folder: Path, query: str, right: str, seven: list[str]) -> str:
    choices = "".join(
        f'<button type="button"{" data-right" if file == right else ""}>'
        f'<img src="{_inline(folder / file)}" alt="candidate {number}"><span>{number}</span></button>'
        for number, file in enumerate(seven, 1)
    )
    return (
        f'<div class="round"><img class="query" src="{_inline(folder / query)}" alt="the person to find again">'
        f'<div class="seven">{choices}</div><p class="said" aria-live="polite"></p>'
        f"<details><summary>Answer</summary>Number {seven.index(right) + 1}.</details></div>"
    )


def _inline(path: Path) -> str:
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


# --- the page ------------------------------------------------------------------------------------------------------


def front_page(
    book: Book,
    pages: list[Chapter],
    beside: list[str],
    course: tuple[str, ...],
    entries: dict,
    picture: bool,
    verdicts: str,
) -> str:
    """The front page as MyST; `beside` and `course` are the names of the other pages and of the course's."""
    machines = sorted({entry["machine"] for entry in entries.values() if "seconds" in entry})
    shown = "\n![Rendered people, each in two cameras](contact.png)\n" if picture else ""
    lists = {
        "": [f"chapters/{chapter.slug}" for chapter in pages if not chapter.appendix],
        "Appendices": [f"chapters/{chapter.slug}" for chapter in pages if chapter.appendix],
        "Look it up": [f"pages/{name}" for name in ("claims", *MADE) if name in beside],
        "Play with it": [f"pages/{name}" for name in WIDGETS],
        "Beside the chapters": [f"pages/{name}" for name in beside if name not in (*MADE, *WIDGETS, "claims")],
        "Giving a course": [f"course/{name}" for name in course],
    }
    contents = "\n".join(_contents(caption, names) for caption, names in lists.items() if names)
    return f"""---
html_theme.sidebar_secondary.remove: true
---
# {book.title}

<style>.bd-article h1 {{ position: absolute; left: -10000px; }}</style>
<div class="hero"><img src="_static/logo.svg" alt=""><div>
<div class="hero-title">{escape(book.title)}</div>
<div class="hero-subtitle">{escape(book.subtitle)}</div></div></div>

One person walks past two cameras that share no view. Are the two pictures of the same person? Yang, Yu, Wu and Zheng
(CVPR 2019) answer without labels for the new cameras, by learning from *patches* of people instead of whole images.
These chapters take their method apart, rebuild every loss in a few lines, check those lines against the library, and
rerun the paper's four tables on people who don't exist.
{shown}{game(entries)}{verdicts}
## Ways through the book

{_paths(pages, [*(f"pages/{name}" for name in beside), *(f"course/{name}" for name in course)])}

## The chapters

<div class="chapter-list">
{chr(10).join(_card(number, chapter, entries.get(chapter.slug)) for number, chapter in enumerate(pages))}
</div>

Ran on: {escape("; ".join(machines)) or "nothing yet"}. Each chapter's page names its profile, its commit and the
command that runs it again. Figures measured at one profile stand beside the paper's only where the page says so.

{contents}
"""


def _contents(caption: str, names: list[str]) -> str:
    """A part of the sidebar."""
    lines = [":hidden:", *([f":caption: {caption}"] if caption else []), "", *names]
    return "\n".join(["```{toctree}", *lines, "```", ""])


def _paths(pages: list[Chapter], others: list[str]) -> str:
    links_to = {chapter.slug: f"[chapter {chapter.number}](chapters/{chapter.slug}.ipynb)" for chapter in pages}
    links_to |= {name: f"[]({name}.md)" for name in others}
    lines = []
    for name, (about, steps) in PATHS.items():
        links = ", ".join(links_to[step] for step in steps if step in links_to)
        lines.append(f"- **{name}.** {about}{f' {links}.' if links else ''}")
    return "\n".join(lines)


def _card(number: int, chapter: Chapter, entry: dict | None) -> str:
    when = badge(entry["status"] if entry else "unknown")
    if entry and entry["status"] in ("ran", "failed"):
        when += f"<br>{entry['seconds']:.0f} s · {escape(entry['profile'])}<br>{entry['at'][:10]}"
    elif entry and entry.get("why"):
        when += f"<br>{escape(entry['why'])}"
    stripe = STRIPES[number % len(STRIPES)]
    return (
        f'<a class="chapter" style="--stripe: {stripe}" href="chapters/{chapter.slug}.html">'
        f'<span class="number">{chapter.number}</span><span><span class="name">{escape(chapter.title)}</span><br>'
        f'<span class="teaches">{escape(chapter.teaches)}</span></span><span class="when">{when}</span></a>'
    )

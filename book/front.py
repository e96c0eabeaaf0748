"""The front page: the picture, a game, what came out, ways through the book and its chapters."""

from __future__ import annotations

from html import escape

from .game import game
from .reference import MADE, WIDGETS
from .toc import Book, Chapter

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


def badge(status: str, kind: str = "status") -> str:
    words = {"unknown": "not run", "waiting": "not run", "running": "not finished"}.get(status, status)
    return f'<span class="badge-status {kind}-{escape(status.replace(" ", "-"))}">{escape(words)}</span>'


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
    made = ("claims", "records", *MADE)
    lists = {
        "": [f"chapters/{chapter.slug}" for chapter in pages if not chapter.appendix],
        "Appendices": [f"chapters/{chapter.slug}" for chapter in pages if chapter.appendix],
        "Look it up": [f"pages/{name}" for name in made if name in beside],
        "Play with it": [f"pages/{name}" for name in WIDGETS],
        "Beside the chapters": [f"pages/{name}" for name in beside if name not in (*made, *WIDGETS)],
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

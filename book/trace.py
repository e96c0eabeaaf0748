"""From a number to the runs behind it: a page with every record of a profile, row by row, and the records beside it."""

from __future__ import annotations

import shutil
from html import escape
from pathlib import Path

from paul.data.worlds import population
from paul.experiments.records import numbers_of
from paul.experiments.rows import ROWS
from paul.report.frames import target_name
from paul.report.worlds import records_of_worlds

from .toc import BookError

COLUMNS = ("Target", "People", "Seeds", "Rank-1", "mAP", "mAP (trapezoid)", "Seconds", "Source", "Commit", "Record")
SHOWN = ("rank1", "map_step", "map_trapezoid")
HEAD = """# The runs behind the numbers

A number in a table is a mean over runs of one row on one target, and a verdict compares such means. Here is every run
of profile `{profile}`: its seeds (of the source model, and of the adaptation where that is another), whose people it
ran on, what it scored, how many seconds it took, how many its source model, which other runs share, and which commit of
the sources made it. *Record* leads to the file itself, which holds all options, fingerprints of the images, versions,
machine and every score at full length. {count} runs took {hours:.1f} hours of one core, on {machines}.

A row's name is the one that `paul run --rows` takes. `python -m book verify --row NAME` computes one of its records
anew and compares.
"""


def write_trace(results: Path, profile: str, pages: Path, beside: Path) -> set[str]:
    """Write `records.md` into the folder `pages`, copy the records below `beside`/records, and return the rows that
    have any; without records nothing is written."""
    found = records_of_worlds(results, profile)
    if not found:
        return set()
    (pages / "records.md").write_text(records_page(found, profile), encoding="utf-8")
    for record in found:
        path = Path(record["file"])
        copy = beside / "records" / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return {record["row"] for record in found}


def records_page(found: list[dict], profile: str) -> str:
    """A heading for each row, which `row-paul` leads to, and a line for each of its runs.

    Raises BookError for a record that lacks a part.
    """
    run = {record["row"] for record in found}
    rows = [row for row in ROWS if row in run] + sorted(run - set(ROWS))  # at last what only older sources knew
    cells = {record["file"]: _cells(record) for record in found}
    machines = sorted({f"{record.get('machine', '')}, device {record.get('device', '')}" for record in found})
    sources = set()  # a model that runs share took its seconds once
    for record in found:
        seed, _, world = numbers_of(record)
        sources.add((seed, world, record["seconds"].get("pretrain", 0)))
    seconds = sum(map(_own_seconds, found)) + sum(taken for _, _, taken in sources)
    head = HEAD.format(profile=profile, count=len(found), hours=seconds / 3600, machines="; ".join(machines))
    parts = []
    for row in rows:
        label = ROWS[row].label if row in ROWS else "no row of today's"
        mine = [record for record in found if record["row"] == row]
        mine.sort(key=lambda record: (record["target"], *numbers_of(record)[::-1]))
        lines = [" | ".join(cells[record["file"]]) for record in mine]
        table = [" | ".join(COLUMNS), "|".join(["---"] * len(COLUMNS)), *lines]
        parts.append(f"\n(row-{row})=\n## {label} (`{row}`)\n\n" + "\n".join(f"| {line} |" for line in table))
    return head + "\n".join(parts) + "\n"


def _own_seconds(record: dict) -> float:
    """Without the source model's."""
    return sum(taken for stage, taken in record["seconds"].items() if stage != "pretrain")


def _cells(record: dict) -> list[str]:
    seed, adapt_seed, world = numbers_of(record)
    people, name = population(record["profile"], world), Path(record["file"]).name
    try:
        return [
            target_name(record["target"], record["profile"]),
            people,
            f"{seed}" if adapt_seed == seed else f"{seed}, {adapt_seed}",
            *(f"{record['metrics'][metric]:.1f}" for metric in SHOWN),
            f"{_own_seconds(record):.0f}",
            f"{record['seconds'].get('pretrain', 0):.0f}",
            f"`{record.get('commit', '')[:8] or '-'}`",
            f'<a href="../records/{escape(people)}/{escape(name)}">{escape(record["spec_hash"][:8])}</a>',
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BookError(
            f"{record['file']} lacks a part of a record ({type(error).__name__}: {error}); delete it, and "
            "'paul run' computes it again"
        ) from error

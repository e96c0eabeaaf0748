"""Which sentences of the chapters speak of results, and what holds each of them true (sentences.toml).

A sentence speaks of results when it has a word for an outcome and, beside it, a number or a comparison. Quotations of
the paper, headings, tables, mathematics, code and questions don't.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from .manifest import write_text
from .pairs import read_chapter
from .reference import read_list
from .toc import Book

LIST = Path(__file__).resolve().parent / "sentences.toml"
HOLDERS = ("cell", "definition", "paper", "unheld")  # all others are tests: "test_truth.py::test_name"
SHOWN = 64  # characters, about, by which a sentence is known
HEAD = """# What holds each sentence that speaks of results; it stands here by its beginning. 'python -m book sentences'
# says which sentences are not listed and which of those listed are gone; with --write it takes out the latter and puts
# the former under "unheld", from where they are moved by hand.
#
# "cell": a cell beside it computes what it says, or asserts it, at every profile
# "definition": true whatever the runs say: a rule, arithmetic, how something is made
# "paper": about what the paper, or another one, printed
# "test_file.py::test_name": this test holds it to the committed records
# "unheld": nothing holds it; to be computed, or to be said otherwise
"""
CLOSED = re.compile(r"```.*?```|\$\$.*?\$\$|^#+ .*?$|^>.*?$|^\|.*?$|^    .*?$|<[^>]*>", re.DOTALL | re.MULTILINE)
END = re.compile(r"(?<=[.!?:])[*_)\"]*\s+(?=[A-Z*$`(\[])")
OUTCOME = re.compile(
    r"you should see|\brank-\d|\b(?-i:mAP)\b|`(?:mini|smoke)`"
    r"|\b(?:gains?|purity|purer|AdaBN|PAUL|PUL|direct transfer|seeds?|ticks?|per ?cent)\b|\d %"
    r"|\$L_[cv]\$ (?:changes|goes|starts|falls?|rises?|ends|jumps)",
    re.IGNORECASE,
)
COMPARED = re.compile(
    r"\d|%|\b(?:percent|half|third|quarters?|twice|better|worse|best|worst|higher|lower|more|most|mostly|less|least"
    r"|fewer|few|above|below|ahead|behind|nearly|hardly|rises?|rose|jumps|goes (?:up|down)|falls?|fell|drops?|climbs?"
    r"|gains?|loses?|lost|larger|largest|smaller|smallest|further|farther|nearer|beats?|wins?|outside|differs?)\b",
    re.IGNORECASE,
)
SILENT = re.compile(r"\?[*)]*$|^\*(?:full|half|some)\*|^Chapter \d+, \*")  # questions, rubrics, where to go next


def sentences(text: str) -> Iterator[str]:
    """The sentences of a markdown cell, each in one line."""
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:-|\d+\.) )", CLOSED.sub("\n\n", text)):
        text_alone = re.sub(r"^(?:-|\d+\.) ", "", " ".join(paragraph.split()))
        yield from filter(None, map(str.strip, END.split(text_alone)))


def about_results(book: Book) -> list[tuple[str, str]]:
    """(chapter, sentence) of all that speak of results."""
    return [
        (chapter.slug, sentence)
        for chapter in book.chapters
        for cell in read_chapter(chapter).cells
        if cell.cell_type == "markdown"
        for sentence in sentences(cell.source)
        if OUTCOME.search(sentence) and COMPARED.search(sentence) and not SILENT.search(sentence)
    ]


def held(path: Path = LIST) -> dict[str, list[str]]:
    """{what holds them: beginnings of sentences}.

    Raises BookError for a file that is no such list.
    """
    return read_list(path, *HOLDERS)


def compared(book: Book, listed: dict[str, list[str]]) -> tuple[list[tuple[str, str]], list[str]]:
    """(chapter, sentence) of those that are not listed, and the beginnings that no sentence has any more."""
    said, known = about_results(book), [start for starts in listed.values() for start in starts]
    missing = [(slug, sentence) for slug, sentence in said if not sentence.startswith(tuple(known))]
    return missing, [start for start in known if not any(sentence.startswith(start) for _, sentence in said)]


def relist(book: Book, path: Path = LIST) -> None:
    """Take out of the list what is gone and put what is new under `unheld`."""
    listed = held(path)
    missing, gone = compared(book, listed)
    listed = {holder: [start for start in starts if start not in gone] for holder, starts in listed.items()}
    listed["unheld"] += dict.fromkeys(beginning(sentence) for _, sentence in missing)
    lines = [HEAD]
    for holder, starts in listed.items():
        quoted = [json.dumps(start, ensure_ascii=False) for start in starts]
        lines += [f'"{holder}" = [', *(f"    {start}," for start in quoted), "]", ""]
    write_text(path, "\n".join(lines[:-1]) + "\n")


def beginning(sentence: str) -> str:
    """Whole words of a sentence, as many as it is known by."""
    return re.match(rf".{{0,{SHOWN}}}\S*", sentence)[0]

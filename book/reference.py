"""Pages made from the book's lists, and the links to them: the ledger, notation and glossary, the paper found here."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from paul.options import AdaptOptions, PatchNetOptions, PretrainOptions
from paul.report.ledger import load_ledger

from .toc import Book, BookError, tomllib

HERE = Path(__file__).resolve().parent
MADE = ("the_paper_found_here", "ledger", "notation")  # in the order of the sidebar
WIDGETS = ("pedals_circle", "cyclic_ranking")  # pages to play with
STAGES = {"network": PatchNetOptions, "pretrain": PretrainOptions, "adapt": AdaptOptions}
# What a link may not stand in: code, headings, mathematics, links and images, HTML, roles.
CLOSED = re.compile(
    r"```.*?```|^#.*?$|\{\w+\}`[^`]*`|`[^`]*`|\$\$.*?\$\$|\$[^$]+\$|!?\[[^\]]*\]\([^)]*\)|<[^>]*>", re.S | re.M
)
LEDGER = re.compile(r"\b[Ll]edger\s+\d+(?:(?:-|,\s+|\s+and\s+|,\s+and\s+)\d+\b)*")


def write_pages(book: Book, folder: Path) -> None:
    """Write the pages into the folder `pages` of Sphinx's source.

    Raises BookError for a list that can't be read.
    """
    paper = read_list(HERE / "paper.toml", "equation", "figure", "table")
    texts = paper_page(paper, book), ledger_page(load_ledger(HERE / "ledger.toml")), notation_page(words(), book)
    for name, text in zip(MADE, texts, strict=True):
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def words() -> dict:
    return read_list(HERE / "words.toml", "symbol", "term")


def linker() -> Linker:
    """What links one page's text to ledger and glossary."""
    return Linker(words()["term"], len(load_ledger(HERE / "ledger.toml")))


def read_list(path: Path, *kinds: str) -> dict:
    """A TOML file that holds lists of these kinds."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BookError(f"{path}: not TOML ({error})") from error
    missing = [kind for kind in kinds if not isinstance(found.get(kind), list)]
    if missing:
        raise BookError(f"{path}: has no [[{missing[0]}]]")
    return found


# --- the ledger ----------------------------------------------------------------------------------------------------


def ledger_page(entries: list[dict]) -> str:
    """Every entry under a heading of its own, which `ledger-28` leads to."""
    shown = "\n".join(
        f"""
(ledger-{entry["number"]})=
## {entry["number"]}. {entry["item"]}

Paper
: {entry["paper"]}

Released code
: {entry["code"]}

Here
: {entry["ours"]}

Option
: {", ".join(f"`{option_name(knob)}`" for knob in entry["knobs"]) or "none"}
"""
        for entry in entries
    )
    return f"""# The ledger

A paper has eight pages; its code has a line for every decision. The *ledger* is the numbered list of the places where
the paper (Yang et al., CVPR 2019) and the code that its authors released differ, or where the code settles what the
paper leaves open. {len(entries)} entries say what the paper states, what the released code does, what this book does by
default, and which option reaches the other reading. "Ledger 12" in a chapter is entry 12 here.

An option is named as `paul run --set` takes it. The appendix *All claims, and what each choice is worth* shows the
ledger once more, with the effects that run records measure.
{shown}"""


def option_name(knob: str) -> str:
    """A knob of the ledger as `--set` takes it; the argument of a function stays as it is."""
    stages = [stage for stage, options in STAGES.items() if knob in {field.name for field in fields(options)}]
    return " or ".join(f"{stage}.{knob}" for stage in stages) or knob


# --- notation and glossary -----------------------------------------------------------------------------------------


def notation_page(words: dict, book: Book) -> str:
    symbols = "\n".join(
        f"| ${symbol['tex']}$ | {symbol['means']} | {symbol['code']} | {chapter_link(book, symbol['chapter'])} |"
        for symbol in words["symbol"]
    )
    terms = "\n\n".join(f"{term['term']}\n  {term['means']}" for term in words["term"])
    return f"""# Notation and glossary

## Notation

A symbol means one thing wherever the method is spoken of. Statistics, and methods that the paper compares itself with,
have letters of their own, which are explained beside them.

| Symbol | What it is | In the code | Chapter |
|---|---|---|---|
{symbols}

## Glossary

```{{glossary}}
{terms}
```
"""


# --- the paper -----------------------------------------------------------------------------------------------------


def paper_page(paper: dict, book: Book) -> str:
    equations = "\n".join(
        f"""
### {equation["name"]}

$$
{equation["tex"]}
$$

Paper
: Section {equation["section"]}

Function
: {", ".join(f"`{name}`" for name in equation["functions"])}

Chapter
: {place(book, equation)}

Test
: {", ".join(f"`{name}`" for name in equation["tests"])}
"""
        for equation in paper["equation"]
    )
    return f"""# The paper, found here

Yang, Yu, Wu and Zheng, *Patch-based Discriminative Feature Learning for Unsupervised Person Re-identification*, CVPR
2019, pp. 3633-3642: each of its equations, figures and tables, and where it is in this book. A test looks for every
function, test and chapter that is named.

## Equations

In the order of the paper's sections, in the [notation](notation.md) of this book: the margin is $\\alpha$, since $m$ is
the patch, and positive and negative are centres, as in the released code ({{ref}}`ledger 11 <ledger-11>`).
{equations}
## Figures

| Figure | What it shows | Here | Missing |
|---|---|---|---|
{pictures(book, paper["figure"])}

## Tables

| Table | What it shows | Here | Missing |
|---|---|---|---|
{pictures(book, paper["table"])}
"""


def pictures(book: Book, listed: list[dict]) -> str:
    return "\n".join(
        f"| {one['number']} | {one['shows']} | {place(book, one) or 'nowhere'} | {one['missing']} |" for one in listed
    )


def place(book: Book, listed: dict) -> str:
    """The chapter, and the heading in it, as links; nothing where there is no chapter."""
    if not listed["chapter"]:
        return ""
    chapter = chapter_link(book, listed["chapter"])
    if not listed["heading"] or not chapter.startswith("["):
        return chapter
    return f"{chapter}, [{listed['heading']}](../chapters/{listed['chapter']}.ipynb#{slug(listed['heading'])})"


def chapter_link(book: Book, chapter: str) -> str:
    number = {one.slug: one.number for one in book.chapters}.get(chapter)
    return f"[{number}](../chapters/{chapter}.ipynb)" if number else chapter.split("_")[0]


def slug(heading: str) -> str:
    """A heading's anchor, by the rule of GitHub, which the pages follow; formulas leave nothing in it."""
    return re.sub(r"\$[^$]*\$|[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# --- links ---------------------------------------------------------------------------------------------------------


class Linker:
    """Links in the text of one page: every number of the ledger, and each term of the glossary at its first use."""

    def __init__(self, terms: list[dict], entries: int):
        self.entries = entries
        self.term = {form.lower(): term["term"] for term in terms for form in term.get("forms", [term["term"]])}
        longest = sorted(self.term, key=len, reverse=True)
        forms = "|".join(re.escape(form).replace(r"\ ", r"\s+") for form in longest)
        self.use = re.compile(rf"{LEDGER.pattern}|(?<![\w-])({forms})(?![\w-])", re.IGNORECASE)
        self.seen: set[str] = set()

    def __call__(self, text: str) -> str:
        """The text of a markdown cell or page, with links."""
        out, end = [], 0
        for closed in CLOSED.finditer(text):
            out += [self.use.sub(self._linked, text[end : closed.start()]), self._heading(closed.group())]
            end = closed.end()
        return "".join([*out, self.use.sub(self._linked, text[end:])])

    def _heading(self, closed: str) -> str:
        """A heading links to the ledger, too; anything else that is closed stays as it is."""
        return LEDGER.sub(self._linked, closed) if closed.startswith("#") else closed

    def _linked(self, use: re.Match) -> str:
        words = " ".join(use.group().split())
        if LEDGER.fullmatch(words):
            return re.sub(r"(?:[Ll]edger )?(\d+)", self._number, words)
        term = self.term[words.lower()]
        if term in self.seen:
            return use.group()
        self.seen.add(term)
        return f"{{term}}`{words} <{term}>`"

    def _number(self, number: re.Match) -> str:
        known = 1 <= int(number[1]) <= self.entries
        return f"{{ref}}`{number.group()} <ledger-{number[1]}>`" if known else number.group()

"""The pages that are made from lists: ledger, notation and glossary, the paper found here; and the links to them."""

import importlib
import re

import pytest

from book.claims import claims_page
from book.reference import HERE, Linker, ledger_page, linker, option_name, paper_page, read_list, slug, words
from book.toc import ROOT, BookError, load_book
from paul.report.claims import load_claims
from paul.report.ledger import load_ledger
from tests.test_reproducibility import all_tests

PAPER = read_list(HERE / "paper.toml", "equation", "figure", "table")
TESTS = all_tests()
VERDICT = {"text": "It is better.", "where": "Table 3", "verdict": "open", "sentence": "No.", "evidence": []}
CLOSED = "# A bank\n```\nbank\n```\n[bank](x) <b title='bank'>"
ENTRIES = load_ledger(HERE / "ledger.toml")


def prose(chapter):
    """The text cells of a chapter, without the marks of comments."""
    return "\n".join(line[2:] for line in chapter.source.read_text(encoding="utf-8").splitlines() if line[:2] == "# ")


def headings(chapter):
    return re.findall(r"^#+ (.*)$", prose(chapter), re.MULTILINE)


def test_the_ledger_is_shown_whole():
    page = ledger_page(ENTRIES)
    for entry in ENTRIES:
        part = page.split(f"(ledger-{entry['number']})=")[1].split("\n(ledger-")[0]
        assert f"## {entry['number']}. {entry['item']}\n" in part
        assert all(f": {entry[said]}\n" in part for said in ("paper", "code", "ours"))
        assert all(knob in part for knob in entry["knobs"])


def test_an_option_of_the_ledger_is_named_as_set_takes_it():
    assert option_name("s") == "adapt.s" and option_name("align_corners") == "network.align_corners"
    assert option_name("min_batch") == "pretrain.min_batch or adapt.min_batch"
    assert option_name("data_prep.real.plan_msmt17:train") == "data_prep.real.plan_msmt17:train"


@pytest.mark.parametrize(
    "text, linked",
    [
        ("(ledger 6)", "({ref}`ledger 6 <ledger-6>`)"),
        ("Ledger 28, 29\nand 30", "{ref}`Ledger 28 <ledger-28>`, {ref}`29 <ledger-29>` and {ref}`30 <ledger-30>`"),
        ("ledger 5-7, 19.", "{ref}`ledger 5 <ledger-5>`-{ref}`7 <ledger-7>`, {ref}`19 <ledger-19>`."),
        ("ledger 99", "ledger 99"),
        ("# Short (ledger 6)", "# Short ({ref}`ledger 6 <ledger-6>`)"),
        ("`ledger 6` and $bank$", "`ledger 6` and $bank$"),
        ("the memory\nbank, a bank, the memory bank", "the {term}`memory bank <Memory bank>`, a bank, the memory bank"),
        (CLOSED, CLOSED),
        ("embankment, bank", "embankment, {term}`bank <Memory bank>`"),
        ("The ledger, ledger 6", "The {term}`ledger <Ledger>`, {ref}`ledger 6 <ledger-6>`"),
    ],
)
def test_links_stand_in_prose_alone(text, linked):
    terms = [{"term": "Memory bank", "forms": ["bank", "memory bank"]}, {"term": "Ledger"}]
    if "memory" in text:
        terms[0]["forms"].remove("bank")
    assert Linker(terms, 36)(text) == linked


def test_every_number_of_the_ledger_in_a_chapter_is_an_entry():
    for chapter in load_book().chapters:
        for numbers in re.findall(r"[Ll]edger\s+(\d+(?:(?:-|,\s|\sand\s)\d+)*)", prose(chapter)):
            assert all(1 <= int(number) <= len(ENTRIES) for number in re.findall(r"\d+", numbers)), chapter.slug


def test_terms_and_their_forms_are_said_once_and_in_one_line():
    terms = words()["term"]
    names = [term["term"] for term in terms]
    assert names == sorted(set(names), key=str.lower)
    forms = [form.lower() for term in terms for form in term.get("forms", [term["term"]])]
    assert len(forms) == len(set(forms))
    assert all(term["means"].endswith(".") and len(term["means"]) <= 150 for term in terms)


def test_every_term_that_links_is_used_and_every_symbol_stands_in_its_chapter():
    chapters = {chapter.slug: prose(chapter) for chapter in load_book().chapters}
    linked = "".join(linker()(text) for text in chapters.values())
    for term in words()["term"]:
        assert term.get("forms") == [] or f"<{term['term']}>`" in linked, term["term"]
    symbols = [symbol["tex"] for symbol in words()["symbol"]]
    assert len(symbols) == len(set(symbols))
    for symbol in words()["symbol"]:
        mathematics = " ".join(re.findall(r"\$[^$]+\$", chapters[symbol["chapter"]]))
        letter = re.match(r"\\?\w[a-z]*", symbol["tex"])[0].split("_")[0]
        assert letter in mathematics, symbol["tex"]


def test_the_margin_is_no_m_and_purity_has_one_definition():
    for chapter in load_book().chapters:
        text = prose(chapter)
        assert not re.search(r"margin \$m\b|\bm \+ \\\|f", text), chapter.slug
        if chapter.number < "08":
            assert "urity" not in text, f"{chapter.slug}: chapter 08 defines it, over the k nearest"


def found(name):
    """What a dotted name means; raises where it means nothing."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


@pytest.mark.parametrize("equation", PAPER["equation"], ids=lambda equation: equation["name"])
def test_every_equation_of_the_paper_has_function_test_and_chapter(equation):
    assert equation["functions"] and equation["tests"]
    assert all(callable(found(name)) for name in equation["functions"])
    assert set(equation["tests"]) <= TESTS
    chapters = {chapter.slug: chapter for chapter in load_book().chapters}
    assert equation["heading"] in headings(chapters[equation["chapter"]])


@pytest.mark.parametrize("kind, numbers", [("figure", range(1, 7)), ("table", range(1, 5))])
def test_every_figure_and_table_of_the_paper_has_a_chapter_or_is_said_to_be_missing(kind, numbers):
    chapters = {chapter.slug: chapter for chapter in load_book().chapters}
    assert [one["number"] for one in PAPER[kind]] == list(numbers)
    for one in PAPER[kind]:
        assert one["chapter"] or one["missing"], one["number"]
        if one["chapter"]:
            assert one["heading"] in ["", *headings(chapters[one["chapter"]])], one["number"]
            assert one["heading"] or one["missing"], one["number"]


def test_behind_every_claim_stand_what_was_measured_and_what_it_cannot_tell():
    chapters = {chapter.slug: chapter for chapter in load_book().chapters}
    claims = [claim.id for claim in load_claims(HERE / "claims.toml")]
    behind = read_list(HERE / "behind.toml", "claim")["claim"]
    assert [one["id"] for one in behind] == claims
    for one in behind:
        assert one["measured"].endswith(".") and one["silent"].endswith(".")
        for at in one["at"]:
            assert at["heading"] in headings(chapters[at["chapter"]]), (one["id"], at["heading"])
        page = claims_page([{**VERDICT, "id": one["id"]}], "mini", load_book())
        assert one["measured"] in page and one["silent"] in page
        assert all(f"{at['chapter']}.ipynb#{slug(at['heading'])}" in page for at in one["at"])


def test_the_papers_page_links_to_the_headings_by_their_anchors():
    page = paper_page(PAPER, load_book())
    assert "../chapters/06_training.ipynb#before-and-after-fig-6" in page
    assert slug("The list's length $r$, and more (ledger 12)") == "the-lists-length--and-more-ledger-12"


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "words.toml"
    path.write_text("[[symbol]\n")
    with pytest.raises(BookError, match="words.toml: not TOML"):
        read_list(path, "symbol")
    path.write_text("symbol = 3\n")
    with pytest.raises(BookError, match=r"words.toml: has no \[\[symbol\]\]"):
        read_list(path, "symbol")


def test_the_ledger_is_explained_before_it_is_used():
    first = next(chapter for chapter in load_book().chapters if re.search(r"[Ll]edger", prose(chapter)))
    assert first.number == "00" and "*ledger*" in prose(first)
    assert (ROOT / "book" / "ledger.toml").is_file()

"""What chapters say of results: every such sentence is listed with what holds it, and those that a test holds, hold.

Committed records are of the profile mini; what a sentence says of smoke, too, a cell beside it computes there.
"""

import json
import re
import subprocess
from functools import cache

import pytest

from book.__main__ import main
from book.sentences import HOLDERS, about_results, beginning, compared, held, relist, sentences
from book.toc import ROOT, BookError, load_book
from paul.experiments.profiles import PROFILES
from paul.experiments.records import read_records
from paul.experiments.tuning import LIMITS
from tests.test_reproducibility import all_tests

UNHELD = 0


def test_every_sentence_about_results_is_listed_and_none_that_is_gone():
    missing, gone = compared(load_book(), held())
    assert not missing and not gone, "'python -m book sentences' shows what to do"


def test_every_sentence_has_one_holder_and_it_is_there():
    listed = held()
    assert set(listed) - set(HOLDERS) <= all_tests()
    starts = sum(listed.values(), [])
    assert len(starts) == len(set(starts))
    assert len(listed["unheld"]) <= UNHELD


def test_the_training_chapter_leaves_nothing_unheld():
    ours = [text for slug, text in about_results(load_book()) if slug in ("06_training", "a_one_training")]
    assert ours and not [text for text in ours if text.startswith(tuple(held()["unheld"]))]


def book_of(tmp_path, *paragraphs):
    (tmp_path / "chapters").mkdir(exist_ok=True)
    (tmp_path / "book.toml").write_text('[book]\ntitle = "B"\ncell_seconds = 1\n[[chapter]]\nslug = "a"\ntitle = "A"\n')
    text = "\n\n".join(paragraphs)
    (tmp_path / "chapters" / "a.py").write_text("# %% [markdown]\n" + re.sub("(?m)^", "# ", text) + "\n")
    return load_book(tmp_path / "book.toml")


@pytest.mark.parametrize(
    "text, counts",
    [
        ("**You should see** lines that climb most of the way.", True),
        ("PAUL gains about five points.", True),
        ("A purity of 40 % is far above chance.", True),
        ("Seeds differ by more than rows do.", True),
        ("$L_v$ starts low and jumps after the first epoch.", True),
        ("A map of 24 x 8 pixels is larger.", False),
        ("PAUL is trained in two stages.", False),
        ("> **The paper** gains 20 points of Rank-1.", False),
        ("| PAUL | 68.5 % |", False),
        ("Which of the two seeds is better?", False),
        ("```\nprint('PAUL is better')\n```", False),
    ],
)
def test_what_counts_as_a_sentence_about_results(tmp_path, text, counts):
    assert bool(about_results(book_of(tmp_path, text))) == counts


def test_sentences_end_where_they_end():
    text = "One, e.g. this, ends. **Two** has $a. b$ in it: here.\n- Three\n  goes on.\n\n1. Four."
    said = ["One, e.g. this, ends.", "**Two** has $a. b$ in it: here.", "Three goes on.", "Four."]
    assert list(sentences(text)) == said
    long = "word " * 40
    assert long.startswith(beginning(long)) and beginning(long).endswith("word") and beginning("PAUL.") == "PAUL."


def test_what_is_new_is_listed_as_unheld_and_what_is_gone_is_taken_out(tmp_path):
    path = tmp_path / "sentences.toml"
    path.write_text('cell = ["PAUL is better by"]\ndefinition = ["AdaBN was worse"]\npaper = []\nunheld = []\n')
    book = book_of(tmp_path, 'PAUL is better by 3. Its seeds differ more than "rows" do.')
    assert [sentence for _, sentence in compared(book, held(path))[0]] == ['Its seeds differ more than "rows" do.']
    assert compared(book, held(path))[1] == ["AdaBN was worse"]
    relist(book, path)
    once = path.read_text()
    assert compared(book, held(path)) == ([], [])
    assert held(path)["cell"] == ["PAUL is better by"]
    assert held(path)["unheld"] == ['Its seeds differ more than "rows" do.']
    relist(book, path)
    assert path.read_text() == once


def test_a_list_without_a_holder_is_named(tmp_path):
    (tmp_path / "sentences.toml").write_text("cell = []\n")
    with pytest.raises(BookError, match="sentences.toml: has no"):
        held(tmp_path / "sentences.toml")


def test_the_command_says_what_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("book.__main__.load_book", lambda: book_of(tmp_path, "PAUL is better by 3."))
    assert main(["sentences"]) == 1
    assert "a: not listed: PAUL is better by 3." in capsys.readouterr().out


# --- what the records hold -----------------------------------------------------------------------------------------


@cache
def records(row):
    return [record for record in read_records(ROOT / "results", "mini") if record["row"] == row]


@pytest.mark.parametrize("row", ["paul", "patch_lv"])
def test_the_image_level_loss_rises_after_the_first_epoch(row):
    curves = [[line["loss_v"] for line in record["curve"]] for record in records(row)]
    assert curves and all(second > first for first, second, *_ in curves)


def test_adabn_takes_a_part_of_the_gain():
    for target in ("market", "duke"):
        direct, adabn, paul = (
            sum(scores) / len(scores)
            for scores in (
                [record["metrics"]["map_trapezoid"] for record in records(row) if record["target"] == target]
                for row in ("patch_direct", "patch_adabn", "paul")
            )
        )
        assert direct < adabn < paul


def test_on_whole_images_the_search_went_to_the_smallest_rate():
    for arm in ("target/image_lc", "target/image_pull"):
        assert PROFILES["mini"].tuned[arm]["adapt.lr"] == LIMITS["adapt.lr"][0]


def test_one_image_did_decide_a_verdict():
    """Of records that are no more, in the history of the repository; a shallow clone lacks them."""
    found = subprocess.run(
        ["git", "show", "4fd9e4a:results/claims.json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip("no git history here")
    (claim,) = [claim for claim in json.loads(found.stdout)["mini"] if claim["id"] == "C7"]
    (line,) = [
        line
        for line in claim["evidence"]
        if (line["a"], line["b"], line["target"], line["metric"]) == ("paul", "patch_lc", "market", "map_trapezoid")
    ]
    assert (claim["verdict"], line["n"]) == ("contradicted", 3)
    text = (ROOT / "book/chapters/08_table3.py").read_text(encoding="utf-8")
    assert f"${line['mean']:.1f}$ points" in text and f"$[{line['low']:.1f}, {line['high']:.1f}]$ over three" in text


def test_a_networks_own_rate_was_a_draw_of_luck():
    """The earlier search and the source models recorded with it, in the history of the repository."""

    def then(path):
        asked = ["git", "show", f"852e297:results/{path}"]
        found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
        return json.loads(found.stdout) if not found.returncode else pytest.skip("no git history here")

    arm = then("search/mini.json")["arms"]["source/equal"]
    assert arm["chosen"] == {"pretrain.peak_rate": 0.32}
    first, second, *_ = sorted((trial["score"] for trial in arm["trials"]), reverse=True)
    assert round(first - second, 1) == 0.9
    names = ("equal_direct--duke--s0--0c597cf1", "equal_direct--duke--s1--d47fa409")
    losses = [then(f"runs/mini/{name}.json")["source_curve"][-1]["loss"] for name in names]
    assert 1.25 < max(losses) / min(losses) < 1.45  # a third

"""The front page: the headline is counted, the game has one right answer and no real people, links lead to evidence."""

import json

import pandas as pd
import pytest

from book.build import COURSE_PAGES
from book.claims import claims_page, headline, read_claims, verdicts_part
from book.front import PATHS, front_page
from book.game import choose, game
from book.toc import BookError, load_book
from paul.experiments.profiles import PROFILES


def claims(*verdicts):
    return [
        {"id": f"C{number}", "text": "T.", "where": "Table 3", "verdict": verdict, "sentence": "", "evidence": []}
        for number, verdict in enumerate(verdicts, 1)
    ]


@pytest.mark.parametrize(
    "verdicts, profile, said",
    [
        (
            ["supported"] * 3 + ["contradicted"] * 2 + ["inconclusive", "not run"],
            "mini",
            "Of 6 claims we could test, 2 are contradicted, on rendered people; 3 are supported, 1 is inconclusive. "
            "1 more could not be tested.",
        ),
        (
            ["supported"],
            "paper",
            "Of 1 claim we could test, none is contradicted, on the paper's own sets; 1 is supported, none is "
            "inconclusive.",
        ),
        (["not run"], "mini", ""),
    ],
)
def test_the_headline_is_counted(verdicts, profile, said):
    assert headline(claims(*verdicts), profile) == said


def test_before_registered_worlds_have_run_the_development_world_is_shown_as_what_it_is():
    line = {"a": "paul", "b": "equal", "target": "duke", "metric": "rank1", "n": 3, "outcome": "holds"}
    line |= {"mean": 1.25, "low": 0.5, "high": 3.0}
    early = {"verdict": "supported", "sentence": "All hold.", "evidence": [line]}
    waiting = {"missing": ["world 3", "world 8"], "development": early}
    judged = [claim | waiting for claim in claims("not run", "not run")]
    assert headline(judged, "mini") == (
        "No claim has its verdict yet: world 3, world 8 have still to run. On the development world, which decides "
        "nothing: of 2 claims we could test, none is contradicted, on rendered people; 2 are supported, none is "
        "inconclusive."
    )
    assert "world 0: supported" in verdicts_part(judged, "mini")
    odd = [claim | {"missing": ["a", "b", "c"]} for claim in judged]
    assert "a, b, c have still to run" in headline(odd, "mini")
    several = [claim | {"missing": [f"world {n}" for n in range(2, 9)]} for claim in judged]
    assert headline(several, "mini").startswith("No claim has its verdict yet: worlds 2 to 8 have still to run.")
    page = claims_page(judged, "mini", load_book())
    assert "*Development, not a verdict: on world 0 supported. All hold.*" in page
    assert "| `paul` - `equal` | DukeMTMC-reID-like | Rank-1 | +1.2 [+0.5, +3.0] | 3 | holds |" in page
    decided = [claim | waiting | {"missing": []} for claim in claims("contradicted")]
    assert headline(decided, "mini").startswith("Of 1 claim we could test, 1 is contradicted")
    assert "world 0: supported" not in verdicts_part(decided, "mini")
    named = [claim | {"text": "L_c is better than L_v."} for claim in decided]
    assert "L<sub>c</sub> is better than L<sub>v</sub>." in verdicts_part(named, "mini")


def test_each_claim_has_its_evidence_and_the_chapter_of_its_table():
    line = {"a": "paul", "b": "equal", "target": "duke", "metric": "rank1", "n": 3, "outcome": "holds"}
    line |= {"mean": 1.25, "low": -0.5, "high": 3.0}
    alone = line | {"b": None, "mean": None, "low": None}
    claim = claims("supported")[0] | {"sentence": "It holds.", "evidence": [line, alone]}
    page = claims_page([claim], "mini", load_book())
    assert "(claim-C1)=" in page and "## C1: supported" in page and "It holds. More in chapter [08]" in page
    assert "| `paul` - `equal` | DukeMTMC-reID-like | Rank-1 | +1.2 [-0.5, +3.0] | 3 | holds |" in page
    assert "| `paul` | DukeMTMC-reID-like | Rank-1 |  | 3 | holds |" in page
    second = claim | {
        "alike": {"verdict": "inconclusive", "evidence": [line | {"a": "paul@gap2.0", "b": "equal_alike"}]}
    }
    page = claims_page([second], "mini", load_book(), {"paul", "equal_alike"})
    assert "With one setting for all rows, PAUL's, as in the paper: inconclusive." in page
    assert "| [`paul`](#row-paul) - `equal` |" in page
    assert "| [`paul@gap2.0`](#row-paul) - [`equal_alike`](#row-equal_alike) |" in page


def test_what_holds_no_verdicts_is_named(tmp_path):
    entries = {"a": {"status": "ran", "profile": "mini"}}
    path = tmp_path / "claims.json"
    assert read_claims(entries, path) == ("", []) == read_claims({}, path)
    for content in ("[]", '{"mini": 3}', '{"mini": [{"id": "C1"}]}', '{"mini": [{"id": 1, "text": 2}]}', "{"):
        path.write_text(content)
        with pytest.raises(BookError, match="claims.json: no verdicts"):
            read_claims(entries, path)


def people():
    """Nine people with a query in camera 1 and gallery images in cameras 1 and 2; the first eight dress alike."""
    rows = [
        {
            "file": f"{split}/{person}_c{camera}.jpg",
            "split": split,
            "person_id": person,
            "camera_id": camera,
            "occluder": "none",
            "clothes": "own",
            "top": "red" if person < 9 else "blue",
        }
        for person in range(1, 10)
        for split, camera in (("query", 1), ("gallery", 1), ("gallery", 2))
    ]
    return pd.DataFrame(rows)


def test_a_round_has_one_right_answer_and_six_others_who_look_alike():
    frame = people()
    rounds = choose(frame)
    assert len(rounds) == 3
    person = frame.set_index("file")["person_id"]
    for query, right, seven in rounds:
        assert len(set(person[seven])) == 7 and [file for file in seven if person[file] == person[query]] == [right]
        assert all(file.endswith("c2.jpg") for file in seven) and 9 not in set(person[seven])
    assert rounds == choose(frame.sample(frac=1, random_state=0))


def test_people_who_cannot_be_told_apart_or_seen_are_in_no_round():
    frame = people()
    assert not choose(frame[frame["person_id"] < 7])
    assert not choose(frame.assign(clothes="uniform")) and not choose(frame.assign(occluder="bicycle"))


def test_no_picture_of_a_real_set_is_shown(tmp_path):
    entry = {"status": "ran", "profile": "paper", "parameters": {"data_dir": str(tmp_path)}}
    assert game({"a": entry}) == game({}) == game({"a": entry | {"profile": "mini"}}) == ""


def test_a_set_that_cannot_be_read_is_named(tmp_path):
    entry = {"status": "ran", "profile": "mini", "parameters": {"data_dir": str(tmp_path)}}
    index = tmp_path / PROFILES["mini"].folders["market"] / "index.csv"
    index.parent.mkdir(parents=True)
    index.write_text("file,split\n")
    with pytest.raises(BookError, match=f"{index.parent}: no people for the front page's game"):
        game({"a": entry})


def test_the_ways_through_the_book_name_chapters_that_are_there():
    there = {chapter.slug for chapter in load_book().chapters} | {f"course/{name}" for name in COURSE_PAGES}
    steps = [step for _, steps in PATHS.values() for step in steps if not step.startswith("pages/")]
    assert steps and set(steps) <= there


def test_appendices_have_a_heading_of_their_own_in_the_sidebar():
    book = load_book()
    for pages in (book.chapters, [chapter for chapter in book.chapters if not chapter.appendix]):
        front = front_page(book, pages, [], (), {}, picture=False, verdicts="")
        trees = [tree.split("```")[0].split() for tree in front.split("```{toctree}\n:hidden:\n")[1:]]
        shown = {" ".join(tree[1:2]) if tree[0] == ":caption:" else "": tree for tree in trees}
        numbered = [f"chapters/{chapter.slug}" for chapter in pages if not chapter.appendix]
        assert shown[""] == numbered
        letters = [f"chapters/{chapter.slug}" for chapter in pages if chapter.appendix]
        assert shown.get("Appendices", [0, 0])[2:] == letters and ("Appendices" in shown) == bool(letters)


@pytest.mark.parametrize("lost", ["a", "b", "n", "high", "outcome"])
def test_evidence_that_lacks_a_part_is_refused_by_name(tmp_path, lost):
    line = {"a": "paul", "b": None, "target": "duke", "metric": "rank1", "n": 3, "outcome": "missing"}
    line |= {"mean": None, "low": None, "high": None}
    claim = {"id": "C1", "text": "More.", "where": "Table 1", "verdict": "supported", "sentence": "It holds."}
    path = tmp_path / "claims.json"
    entries = {"a": {"status": "ran", "profile": "mini", "parameters": {}}}
    path.write_text(json.dumps({"mini": [claim | {"evidence": [line]}]}))
    assert read_claims(entries, path)[1]
    del line[lost]
    path.write_text(json.dumps({"mini": [claim | {"evidence": [line]}]}))
    with pytest.raises(BookError, match="claims.json"):
        read_claims(entries, path)

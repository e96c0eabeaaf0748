"""The checklist page and codemeta.json: every piece of evidence is there, every command parses, files agree."""

import ast
import json
import re
import shlex
from pathlib import Path

import yaml

from book.__main__ import _parser as book_parser
from book.toc import tomllib
from data_prep.__main__ import build_parser
from paul.cli import parser

ROOT = Path(__file__).parents[1]
PARSERS = {"python -m book": book_parser, "python -m data_prep": build_parser, "paul": parser}


def all_tests():
    return {
        f"{path.name}::{node.name}"
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


def parses(command):
    """Whether a command is one of ours and takes these options; argparse exits where it does not."""
    if command.startswith("make "):
        return re.search(rf"^{command[5:]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for start, made in PARSERS.items():
        if command.startswith(start + " "):
            return made().parse_args(shlex.split(command[len(start) :]))
    return None


def test_every_answer_of_the_checklist_stands_on_evidence_that_is_there():
    page, there = (ROOT / "book/pages/reproducibility.md").read_text(encoding="utf-8"), all_tests()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    answers = [row for row in rows if row[0] != "Is there" and set(row[0]) != {"-"}]
    assert len(answers) >= 20 and all(len(row) == 3 and all(row) for row in answers)
    for question, _, evidence in answers:
        named = re.findall(r"`([^`]+)`", evidence)
        assert named and evidence == ", ".join(f"`{one}`" for one in named), question
        for one in named:
            assert one in there or (ROOT / one).is_file() or parses(one), f"{question} {one}"


def test_codemeta_says_what_the_other_files_say():
    meta = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    for name in ("version", "description"):
        assert meta[name] == project[name]
    assert meta["identifier"] == project["name"] and meta["license"].endswith(f"/{project['license']}")
    assert meta["programmingLanguage"]["version"] == project["requires-python"]
    assert [author["name"] for author in meta["author"]] == [author["name"] for author in citation["authors"]]
    paper, cited = meta["referencePublication"], citation["references"][0]
    assert (meta["name"], paper["name"]) == (citation["title"], cited["title"])
    assert (paper["datePublished"], paper["pageStart"], paper["pageEnd"]) == tuple(
        str(cited[name]) for name in ("year", "start", "end")
    )
    people = [(author["givenName"], author["familyName"]) for author in paper["author"]]
    assert people == [(author["given-names"], author["family-names"]) for author in cited["authors"]]
    for name in ("readme", "buildInstructions", "softwareRequirements", "softwareHelp"):
        assert (ROOT / meta[name]).is_file()

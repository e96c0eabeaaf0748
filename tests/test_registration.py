"""The registration: what it holds, and that runs on its worlds came after it, made as it says."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from paul import cli
from paul.experiments.provenance import git as ask
from paul.experiments.rows import TABLES
from paul.experiments.specs import Spec
from paul.report.claims import Claim, load_claims
from paul.report.power import equivalence_power, power
from paul.report.precedence import faults, renderer_of
from paul.report.registration import (
    RegistrationError,
    load_registration,
    options_hash,
    predicate_hash,
    register,
    registered_specs,
    registration_text,
    write_registration,
)
from tests.test_claims import record, save
from tests.test_provenance import git
from tests.test_verdicts import HIGHER, WITHIN, development, runs

ROOT = Path(__file__).parents[1]
needs_git = pytest.mark.skipif(not shutil.which("git"), reason="no git")


def test_what_is_written_is_read(tmp_path):
    made = register([HIGHER, replace(WITHIN, id="W")], development(*"abc"), "mini", 8, renderer=3)
    path = tmp_path / "preregistration.toml"
    write_registration(path, made)
    assert load_registration(path) == made and path.read_text() == registration_text(made)
    with pytest.raises(RegistrationError, match="is there already"):
        write_registration(path, made)
    assert load_registration(tmp_path / "none.toml") is None
    for text in ("a = [", "a = 1\n", registration_text(made).replace("[[contrast]]", "[[contrast]]\nmore = 1")):
        path.write_text(text)
        with pytest.raises(RegistrationError, match="preregistration.toml: "):
            load_registration(path)


def test_power_is_that_of_world_0s_spread():
    higher, within = register([HIGHER, WITHIN], development(*"ab"), "mini", 8, renderer=3).planned
    frame = development(*"ab").groupby(["row", "seed"])["map_trapezoid"].mean().unstack("row")
    spread = (frame["a"] - frame["b"]).std(ddof=1)
    assert (higher.spread, higher.seeds) == (round(spread, 3), 3)
    assert higher.power == round(power(1.0, spread, 8, 0.025), 3) > higher.cautious
    assert within.power == round(equivalence_power(2.0, spread, 8, 0.025), 3)
    assert power(higher.detectable, spread, 8, 0.025) == pytest.approx(0.8, abs=0.01)
    assert power(1.0, spread, higher.worlds_wanted, 0.025) >= 0.8


def test_a_registration_comes_before_its_runs_and_after_world_0s():
    with pytest.raises(RegistrationError, match="world 2 has runs of a - b already"):
        register([HIGHER], runs([0, 2], a=1, b=0), "mini", 8, renderer=3)
    others = pd.concat([development(*"ab"), runs([1, 2], a=1, c=0)])  # another question to worlds that are there
    assert register([HIGHER], others, "mini", 2, renderer=3).worlds == (1, 2)
    with pytest.raises(RegistrationError, match="a - b has 1 source seeds on world 0"):
        register([HIGHER], runs([0, 9], a=1, b=0), "mini", 8, renderer=3)
    with pytest.raises(RegistrationError, match="two worlds at least"):
        register([HIGHER], development(*"ab"), "mini", 1, renderer=3)


def test_hashes_tell_what_a_run_does_from_where_it_runs():
    def of(spec, **changes):
        return options_hash({**spec.data(), **changes}, spec.numerics)

    spec = Spec("paul", "market", 0, "mini")
    assert of(spec) == of(replace(spec, seed=5)) == of(spec, target="mini/w3/market", world=3, adapt_seed=1)
    others = [
        Spec("patch_lc", "market", 0, "mini"),
        Spec("paul", "market", 0, "smoke"),
        Spec("pgn4", "market", 0, "mini"),
    ]
    assert len({of(other) for other in [spec, *others]}) == 4
    assert options_hash(spec.data(), {**spec.numerics, "method": 99}) != of(spec)
    assert predicate_hash(HIGHER) != predicate_hash(replace(HIGHER, text="other words"))


@pytest.fixture
def repository(tmp_path):
    """A renderer and the book's claims, then a registration of two worlds; returns folder, both commits and claims."""
    git(tmp_path, "init", "-q")
    (tmp_path / "renderer.py").write_text("RENDERER = 3  # pixels\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "before")
    before, claims = git(tmp_path, "rev-parse", "HEAD"), [HIGHER]
    made = register(claims, development(*"ab"), "mini", 2, renderer_of(tmp_path))
    write_registration(tmp_path / "book/preregistration.toml", made)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "registration")
    return tmp_path, before, git(tmp_path, "rev-parse", "HEAD"), claims


def world_record(world, commit, **changes):
    spec = Spec("paul", "market", 0, "mini")
    made = record(spec=f"{world}" * 64) | {"world": world, "commit": commit, "numerics": spec.numerics}
    return made | {"spec": spec.data()} | changes


@needs_git
def test_records_made_after_the_registration_and_as_it_says_are_in_order(repository):
    folder, before, registered, claims = repository
    path, results = folder / "book/preregistration.toml", folder / "results"
    git(folder, "commit", "--allow-empty", "-qm", "runs")
    later = git(folder, "rev-parse", "HEAD")
    other_world = world_record(9, before)  # a reader's own, and world 0's
    save(results, world_record(1, registered), world_record(2, later), other_world, record())
    assert faults(results, path, claims) == []
    assert faults(results, folder / "none.toml", claims) == []


@needs_git
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"commit": "before"}, "does not descend from .*, the registration"),
        ({"commit": "0" * 40}, "does not descend"),
        ({"commit": ""}, "no commit holds"),
        ({"commit": "+"}, "no commit holds"),
        ({"commit": "repainted"}, "another version of the renderer"),
        ({"spec": {"options": {"k": 11}}}, "other options or arithmetic"),
        ({"numerics": {"method": 99}}, "other options or arithmetic"),
    ],
)
def test_records_that_are_not_are_named(repository, changes, message):
    folder, before, registered, claims = repository
    if changes.get("commit") == "repainted":
        (folder / "renderer.py").write_text("RENDERER = 4\n")
        git(folder, "commit", "-aqm", "repainted")
    commits = {"before": before, "+": registered + "+", "repainted": git(folder, "rev-parse", "HEAD")}
    given = {**changes, "commit": commits.get(changes.get("commit", registered), changes.get("commit", registered))}
    (path,) = save(folder / "results", world_record(1, **given))
    (line,) = faults(folder / "results", folder / "book/preregistration.toml", claims)
    assert line.startswith(str(path)) and re.search(message, line)


@needs_git
def test_of_worlds_that_are_not_fresh_one_row_of_a_contrast_may_be_older_never_both(repository):
    folder, before, registered, _ = repository
    claims = [replace(HIGHER, tests=({**HIGHER.tests[0], "pairs": [["paul", "patch_lc"]]},))]
    path, results = folder / "book/again/preregistration.toml", folder / "results"
    had = pd.concat([development("paul", "patch_lc"), runs([1, 2], paul=1)])
    made = register(claims, had, "mini", 2, renderer_of(folder))
    assert not made.fresh and register(claims, development("paul", "patch_lc"), "mini", 2, renderer=3).fresh
    write_registration(path, made)
    assert load_registration(path) == made
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "again")
    later = git(folder, "rev-parse", "HEAD")
    other = Spec("patch_lc", "market", 0, "mini")
    lc = record("patch_lc", spec="a" * 64) | {"world": 1, "numerics": other.numerics, "spec": other.data()}
    save(results, world_record(1, registered), world_record(2, before), lc | {"commit": later})
    assert faults(results, path, claims) == []
    shutil.rmtree(results)
    save(results, world_record(1, registered), lc | {"commit": registered})
    (line,) = faults(results, path, claims)
    assert line.startswith("world 1: paul - patch_lc on market ran before") and later[:8] in line


@needs_git
def test_a_registration_or_a_claim_that_changes_later_is_noticed(repository):
    folder, _, registered, claims = repository
    path, results = folder / "book/preregistration.toml", folder / "results"
    save(results, world_record(1, registered))
    (line,) = faults(results, path, [replace(HIGHER, where="elsewhere")])
    assert line.startswith("claim T: its words or tests are not those")
    path.write_text(path.read_text().replace("smallest = 1.0", "smallest = 0.5"))
    with pytest.raises(RegistrationError, match="is not committed as it is"):
        faults(results, path, claims)
    git(folder, "commit", "-aqm", "another smallest effect")
    assert "does not descend" in faults(results, path, claims)[0]
    shutil.rmtree(folder / ".git")
    with pytest.raises(RegistrationError, match="only a git repository can tell"):
        faults(results, path, claims)


@needs_git
def test_the_command_shows_writes_and_checks(repository, capsys, monkeypatch):
    folder, *_ = repository
    monkeypatch.chdir(folder)
    (folder / "book/preregistration.toml").unlink()
    (folder / "book/paper").symlink_to(ROOT / "book/paper")
    claims = (ROOT / "book/claims.toml").read_text(encoding="utf-8")
    (folder / "book/claims.toml").write_text(claims.partition('# "Stable over')[0])  # C3 to C10, which world 0 ran
    (folder / "development/runs").mkdir(parents=True)
    (folder / "development/runs/mini").symlink_to(ROOT / "results/runs/mini")  # without worlds that have run
    ask_for = ["register", "--results", str(folder / "development")]
    assert cli.main([*ask_for, "--worlds", "4"]) == 0
    shown = capsys.readouterr().out
    assert not (folder / "book/preregistration.toml").exists() and "worlds = [1, 2, 3, 4]" in shown
    assert cli.main([*ask_for, "--check"]) == 1 and "nothing is registered" in capsys.readouterr().err
    assert cli.main([*ask_for, "--worlds", "4", "--write"]) == 0
    written = load_registration(folder / "book/preregistration.toml")
    assert registration_text(written) == shown and len(written.planned) == 16 and written.renderer == 3
    capsys.readouterr()
    assert cli.main(ask_for) == 0 and capsys.readouterr().out == shown  # as it stands, whatever has run since
    assert cli.main([*ask_for, "--check"]) == 1 and "is not committed as it is" in capsys.readouterr().err
    git(folder, "commit", "-aqm", "registration")
    assert cli.main([*ask_for, "--check"]) == 0 and "was made as" in capsys.readouterr().out
    save(folder / "early", world_record(1, ""))
    assert cli.main(["register", "--results", "early", "--check"]) == 1 and "no commit holds" in capsys.readouterr().out


def test_what_a_registration_waits_for():
    pairs = [["patch_direct@shared1.0", "patch_direct@shared0.0"], ["k_x2", "paul"]]
    claim = Claim("T", "", "", ({"kind": "higher", "pairs": pairs, "targets": ["duke"], "margin": 0.0, "smallest": 1},))
    names = [name for pair in pairs for name in pair]
    specs = registered_specs(register([claim], development(*names), "mini", 2, renderer=3))
    assert len(set(specs)) == len(specs) and {spec.world for spec in specs} == {1, 2}
    found = {(spec.row, spec.target, spec.population) for spec in specs}
    wanted = {(row, "duke", f"mini-w{world}") for row in ("k_x2", "paul") for world in (1, 2)}
    wanted |= {("patch_direct", "duke", f"mini-w{w}-{knobs}") for knobs in ("shared0.0", "shared1.0") for w in (1, 2)}
    for table in TABLES.values():
        targets = [table.target] if table.target else ["market", "duke"]
        wanted |= {(row, target, f"mini-w{w}") for row in table.lines for target in targets for w in (1, 2)}
    assert found == wanted
    both = replace(claim, tests=({**claim.tests[0], "pairs": [["paul", "patch_lc"]]},))
    more = registered_specs(register([both], development("paul", "patch_lc"), "mini", 2, renderer=3))
    assert {spec.row for spec in more} - {row for row, _, _ in wanted} == {"patch_lc_alike"}


def test_registered_runs_of_some_worlds(tmp_path, capsys, monkeypatch):
    pairs = [["paul", "patch_lc"]]
    claim = Claim("T", "", "", ({"kind": "higher", "pairs": pairs, "targets": ["duke"], "margin": 0.0, "smallest": 1},))
    made = register([claim], development(*pairs[0]), "mini", 2, renderer=3)
    write_registration(tmp_path / "book/preregistration.toml", made)
    (tmp_path / "book/claims.toml").symlink_to(ROOT / "book/claims.toml")
    (tmp_path / "book/paper").symlink_to(ROOT / "book/paper")
    monkeypatch.chdir(tmp_path)
    plan = ["run", "registered", "--plan", "--data", "nowhere", "--worlds"]
    counts = []
    for worlds in ("1", "1-2"):
        assert cli.main([*plan, worlds]) == 0
        counts.append(int(capsys.readouterr().out.split(" runs,")[0].split()[-1]))
    assert 0 < counts[0] == counts[1] / 2
    assert cli.main([*plan, "0-1"]) == 1 and "--worlds 0-1: world 0 is not registered" in capsys.readouterr().err


@needs_git
def test_a_repository_has_one_renderer(repository):
    folder, before, *_ = repository
    assert renderer_of(folder) == renderer_of(folder, before) == 3
    (folder / "book/second.py").write_text("RENDERER = 5\n")
    git(folder, "add", "-A")
    with pytest.raises(RegistrationError, match="2 files .* say RENDERER"):
        renderer_of(folder / "book")


@needs_git
@pytest.mark.parametrize("book", ["book", "book/advice"])
def test_the_committed_records_came_after_the_committed_registration(book):
    if ask(ROOT, "rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("the history is not here")
    path = ROOT / book / "preregistration.toml"
    assert load_registration(path) and faults(ROOT / "results", path, load_claims(ROOT / book / "claims.toml")) == []

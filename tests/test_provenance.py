"""The commit that a record states is that of these sources, or none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="no git")


def git(folder, *arguments):
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *name, *arguments], cwd=folder, env=CLEAN, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit_of(folder, **environment):
    script = "from paul.experiments import provenance; print(provenance.__file__); print(provenance.commit())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**CLEAN, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    file, _, found = done.stdout.partition("\n")
    assert Path(file).is_relative_to(folder)
    return found.strip()


@pytest.fixture
def other(tmp_path):
    """A repository of something else, with one commit."""
    folder = tmp_path / "other"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("vendor/\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    return folder


def with_sources(folder):
    shutil.copytree(ROOT / "paul", folder / "paul", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_sources_in_an_ignored_folder_of_another_repository_have_no_commit(other):
    (other / "vendor").mkdir()
    assert commit_of(with_sources(other / "vendor")) == ""


def test_a_repository_in_the_environment_is_not_believed(other, tmp_path):
    (tmp_path / "mine").mkdir()
    elsewhere = {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / ".git/index"),
    }
    assert commit_of(with_sources(tmp_path / "mine"), **elsewhere) == ""


def test_the_commit_of_the_sources_and_whether_any_of_them_differs(other, tmp_path):
    mine = with_sources(tmp_path)
    git(mine, "init", "-q")
    git(mine, "add", "paul")
    git(mine, "commit", "-qm", "one")
    head = git(mine, "rev-parse", "HEAD")
    elsewhere = {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other)}
    assert commit_of(mine) == head == commit_of(mine, **elsewhere)
    (mine / "paul/metrics.py").open("a").write("# changed\n")
    assert commit_of(mine) == head + "+"

"""Set-up: lists of packages and versions agree, make does what it says, the library imports no plot and no notebook."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import paul
from book.toc import tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def parse(requirement):
    """'torch >=2.6; marker' -> ('torch', '>=2.6')"""
    name, bounds = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*([^;]*?)\s*(?:;.*)?", requirement).groups()
    return name, bounds


def test_environment_yml_names_what_pyproject_names():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    conda = dict(parse(entry) for entry in entries if isinstance(entry, str))
    conda |= dict(parse(entry) for entry in by_pip if not entry.startswith("-"))
    conda = {CONDA_NAMES.get(name, name): bounds for name, bounds in conda.items()}
    assert conda.pop("python") == PROJECT["requires-python"]
    conda.pop("pip")
    extras = PROJECT["optional-dependencies"]
    assert conda == dict(parse(entry) for entry in PROJECT["dependencies"] + extras["book"] + extras["test"])
    assert "--editable ." in by_pip


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert paul.__version__ == PROJECT["version"] == citation["version"]


def test_one_licence_everywhere():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def modules_after(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split())


def test_the_library_imports_no_plot_no_notebook_and_none_of_its_users():
    plain = [path.stem for path in (ROOT / "paul").glob("*.py") if path.stem not in ("plots", "__main__")]
    loaded = modules_after("import " + ", ".join(f"paul.{name}" if name != "__init__" else "paul" for name in plain))
    assert not loaded & {"matplotlib", "IPython", "nbformat", "papermill", "jupytext", "scipy", "sklearn"}
    assert not loaded & {"book", "data_prep"}


def test_imports_point_one_way():
    """book -> paul, book -> data_prep, data_prep -> paul at most; inside functions, too."""
    for folder, users in (("paul", {"book", "data_prep", "tests"}), ("data_prep", {"book", "tests"})):
        for path in (ROOT / folder).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
            named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
            assert not {name.partition(".")[0] for name in named} & users, path


def test_rendering_people_needs_no_torch():
    loaded = modules_after("import data_prep, data_prep.synthetic")
    assert not loaded & {"book", "torch", "matplotlib"}


def test_ci_runs_what_the_readme_tells_a_reader_to_run():
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()
    assert "make test" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("target", ["help", "quickstart", "book", "site-zip", "course", "test", "lab", "lock", "clean"])
def test_make_help_names_every_target(target):
    makefile = (ROOT / "Makefile").read_text()
    shown = subprocess.check_output(["make", "--no-print-directory", "help"], cwd=ROOT, text=True)
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert target == "help" or f"make {target} " in shown


@pytest.fixture
def copy(tmp_path):
    """A folder with the Makefile, and a function that calls make in it."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)

    def make(*arguments):
        return subprocess.check_output(["make", "--no-print-directory", *arguments], cwd=tmp_path, text=True)

    make.folder = tmp_path
    return make


def test_the_environment_is_made_once_and_again_only_when_pyproject_changes(copy):
    assert "pip install" in copy("-n", "test")
    (copy.folder / ".venv").mkdir()
    made_from = subprocess.check_output(["git", "hash-object", "pyproject.toml"], cwd=copy.folder, text=True).strip()
    (copy.folder / ".venv" / f"made-from-{made_from}").touch()
    assert "pip install" not in copy("-n", "test")
    (copy.folder / "pyproject.toml").touch()
    assert "pip install" not in copy("-n", "test")
    with (copy.folder / "pyproject.toml").open("a") as file:
        file.write("# another\n")
    assert "pip install" in copy("-n", "test")


@pytest.mark.parametrize("status, goes_on", [(0, True), (1, True), (2, False), (130, False)])
def test_make_book_leaves_pages_alone_that_another_run_is_making(copy, status, goes_on):
    """2: refused before it began; 1: a chapter failed, which the pages say."""
    made_from = subprocess.check_output(["git", "hash-object", "pyproject.toml"], cwd=copy.folder, text=True).strip()
    (copy.folder / ".venv/bin").mkdir(parents=True)
    (copy.folder / f".venv/made-from-{made_from}").touch()
    python = copy.folder / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$*" >> said\ncase "$*" in *"book run"*) exit {status};; esac\n')
    python.chmod(0o755)
    done = subprocess.run(["make", "book"], cwd=copy.folder, capture_output=True)
    assert bool(done.returncode) == bool(status)
    assert ("-m paul report" in (copy.folder / "said").read_text()) is goes_on


def test_make_clean_keeps_environment_data_and_results(copy):
    for name in ("build", "data", "results", ".venv", ".pytest_cache", "paul/__pycache__", ".venv/__pycache__"):
        (copy.folder / name).mkdir(parents=True)
    said = copy("clean")
    assert "results/" in said and "data/" in said
    left = {str(path.relative_to(copy.folder)) for path in copy.folder.rglob("*") if path.is_dir()}
    assert left == {"data", "results", ".venv", ".venv/__pycache__", "paul"}


# --- the lock file ---

LOCK = ROOT / "requirements.lock"


def locked():
    """{package: [(version, marker, hashes)]} of the lock file, one line for each version."""
    found = {}
    lines = [line for line in LOCK.read_text().replace("\\\n", " ").splitlines() if not line.startswith("#")]
    for line in lines:
        text, *hashes = re.split(r"\s+--hash=", line.strip())
        requirement = Requirement(text)
        (pinned,) = requirement.specifier
        assert pinned.operator == "==" and not requirement.url, text
        found.setdefault(canonicalize_name(requirement.name), []).append((pinned.version, requirement.marker, hashes))
    return found


def test_the_lock_holds_every_dependency_at_a_version_within_its_bounds():
    """For each Python that the package takes, and each system: exactly one version, or none where none is asked for."""
    pinned = locked()
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    extras = PROJECT["optional-dependencies"]
    wanted = list(map(Requirement, [*PROJECT["dependencies"], *extras["book"], *extras["test"], *build]))
    for minor in range(10, 14):
        for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")):
            here = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.9"}
            here |= {"sys_platform": system, "platform_machine": machine}
            for requirement in wanted:
                asked = requirement.marker is None or requirement.marker.evaluate(here)
                entries = pinned[canonicalize_name(requirement.name)]
                versions = [version for version, marker, _ in entries if marker is None or marker.evaluate(here)]
                assert len(versions) == asked or not asked, (requirement, here, versions)
                assert all(requirement.specifier.contains(version) for version in versions), (requirement, versions)


# the releases that closed them; pyproject.toml says what each was
CLOSED = {
    **{"torch": "2.10.0", "pillow": "12.3.0", "tqdm": "4.66.3", "filelock": "3.20.3", "jupyterlab": "4.6.0"},
    **{"nbconvert": "7.17.0"},
    **{"scikit-learn": "1.5.0", "pyarrow": "23.0.1", "onnx": "1.21.0", "pytest": "9.0.3", "h5py": "3.13.0"},
    **{"distributed": "2026.1.1", "setuptools": "78.1.1", "nbconvert": "7.17"},
}


def test_holes_that_are_known_are_below_the_bounds():
    """In every list that names the package; the release before the bound is out, and the bound says why."""
    text = (ROOT / "pyproject.toml").read_text()
    build = tomllib.loads(text)["build-system"]["requires"]
    named = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), []), *build]
    for name, release in CLOSED.items():
        requirements = [Requirement(one) for one in named if Requirement(one).name == name]
        assert requirements and all(one.specifier.contains(release) for one in requirements), name
        for one in requirements:
            assert not any(one.specifier.contains(f"{release}{older}") for older in (".dev0", "a1", "rc1")), one
            assert {Version(bound.version) for bound in one.specifier} == {Version(release)}, one
        assert re.search(rf'"{name}>=[^"]*"[],]*  # .*CVE-', text), name


def test_every_entry_of_the_lock_has_hashes_and_nothing_says_where_files_come_from():
    pinned = locked()
    assert len(pinned) > 150
    for name, entries in pinned.items():
        for _, _, hashes in entries:
            assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), name
    text = LOCK.read_text()
    assert "make lock" in text.splitlines()[1]
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted|\.(com|org|io|net)\b|@ ", text)


def test_a_locked_environment_takes_hashes_and_builds_nothing_of_others(copy):
    """Neither is an environment that was made without the lock one that was made with it."""
    shutil.copy(LOCK, copy.folder / LOCK.name)
    for target in ("book", "test", "lab"):
        assert "--require-hashes" not in copy("-n", target)
        said = copy("-n", target, "LOCKED=1")
        installs = [line for line in re.split(r" && |\n", said) if "pip install" in line]
        assert len(installs) == 2
        assert "--require-hashes --only-binary :all: --requirement requirements.lock" in installs[0]
        assert "--no-deps --no-build-isolation --editable ." in installs[1]
    made_from = subprocess.check_output(["git", "hash-object", "pyproject.toml"], cwd=copy.folder, text=True).strip()
    (copy.folder / ".venv").mkdir()
    (copy.folder / f".venv/made-from-{made_from}").touch()
    assert "pip install" not in copy("-n", "test") and "pip install" in copy("-n", "test", "LOCKED=1")


# --- what SECURITY.md promises ---


def test_each_promise_of_security_md_names_a_test_that_is_there():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", row.split("|")[3])
        assert named, row
        for file, test in named:
            assert f"\ndef {test}(" in (ROOT / f"tests/{file}.py").read_text(encoding="utf-8"), test
    for title in ("What is trusted", "Limits", "How to report"):
        assert f"## {title}" in text

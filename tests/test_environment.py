"""Set-up: the two lists of packages agree, versions agree, and importing the library pulls in neither plots nor notebooks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


def test_rendering_people_needs_no_torch():
    loaded = modules_after("import data_prep, data_prep.synthetic")
    assert not loaded & {"book", "torch", "matplotlib"}


def test_ci_runs_what_the_readme_tells_a_reader_to_run():
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()
    assert "make test" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("target", ["help", "book", "test", "lab", "clean"])
def test_make_help_names_every_target(target):
    makefile = (ROOT / "Makefile").read_text()
    shown = subprocess.check_output(["make", "--no-print-directory", "help"], cwd=ROOT, text=True)
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert target == "help" or f"make {target} " in shown

"""The benchmark runs, writes what it printed, and says what is missing; how long anything takes is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from paul import bench

ROOT = Path(__file__).resolve().parents[1]


def test_quick_runs_every_case_and_writes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "TURN_SECONDS", 0)
    threads = torch.get_num_threads()
    assert bench.main(["--quick", "--out", str(tmp_path)]) == 0
    assert torch.get_num_threads() == threads
    (folder,) = tmp_path.iterdir()
    assert folder.name.endswith("-quick")
    assert {file.stem for file in folder.iterdir()} == set(bench.CASES)
    table = capsys.readouterr().out
    for name in bench.CASES:
        record = json.loads((folder / f"{name}.json").read_text())
        assert record["case"] == name and record["quick"] and name in table
        assert record["ours_seconds"] > 0 and record["other_seconds"] > 0 and record["ratio"] > 0
        assert "expected" not in record  # a tiny size says nothing about it
    assert json.loads((folder / "evaluation.json").read_text())["evaluation_mb"] >= 0


def test_without_the_repository_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "site-packages" / "paul" / "bench.py"))
    assert bench.main(["--quick", "--out", str(tmp_path / "out")]) == 1
    assert "reference.py" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_unknown_case_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--only", "everything"])
    assert "everything" in capsys.readouterr().err


def test_importing_it_imports_no_test_code():
    code = "import sys, paul.bench; print({'paul_reference', 'reference', 'sklearn', 'pytest'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

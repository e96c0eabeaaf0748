"""The index of records: fits those committed, is sha256sum's format, and names what changed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from paul import cli
from paul.experiments.specs import Spec
from paul.report.seal import differences, seal
from paul.report.tables import current_runs
from tests.test_claims import record, save

ROOT = Path(__file__).parents[1]


def test_the_committed_index_fits_the_committed_records():
    assert differences(ROOT / "results") == []


def test_changed_new_and_missing_records_are_named(tmp_path):
    assert differences(tmp_path) == []
    kept, changed, gone = save(tmp_path, *(record(seed=seed) for seed in range(3)))
    assert len(differences(tmp_path)) == 1 and "runs.sha256 is not there" in differences(tmp_path)[0]
    index = seal(tmp_path)
    first = index.read_bytes()
    assert differences(tmp_path) == [] and seal(tmp_path).read_bytes() == first
    changed.write_text(json.dumps(record(seed=1, rank1=51.0)))
    gone.unlink()
    save(tmp_path, record(seed=3))
    found = differences(tmp_path)
    assert len(found) == 3 and "s1--" in found[0] and "has changed" in found[0]
    assert "s2--" in found[1] and "is missing" in found[1] and found[2] == f"records not in {index}: 1"
    assert differences(tmp_path, "mini") == found and differences(tmp_path, "paper") == []
    index.write_bytes(b"what is this\n" + first)
    assert "line 1 names no hash" in differences(tmp_path)[0]


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum")
def test_sha256sum_reads_the_index(tmp_path):
    (path,) = save(tmp_path, record())
    check = ["sha256sum", "-c", seal(tmp_path).name]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 0
    path.write_text("{}")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 1


def test_report_says_what_differs_and_seals_when_asked(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (path,) = save(tmp_path, record())
    ask = ["report", "--results", str(tmp_path), "--data", str(tmp_path / "none")]
    assert cli.main(ask) == 0 and "runs.sha256 is not there" in capsys.readouterr().err
    assert not (tmp_path / "runs.sha256").exists()
    assert cli.main([*ask, "--seal"]) == 0 and (tmp_path / "runs.sha256").is_file()
    capsys.readouterr()
    assert cli.main(ask) == 0 and "runs.sha256" not in capsys.readouterr().err
    path.write_text(json.dumps(record(rank1=51.0)))
    assert cli.main(ask) == 0 and f"runs/mini/{path.name} has changed" in capsys.readouterr().err


def test_records_of_other_data_are_outdated_where_the_data_are_there(tmp_path):
    found = []
    for seed in range(2):
        spec = Spec("patch_direct", "market", seed, "smoke")
        run = record(spec.row, spec.target, seed, profile="smoke", spec=spec.hash)
        found.append({**run, "numerics": spec.numerics, "data": {"source": "s", "target": "t" if seed else "other"}})
    save(tmp_path, *found)
    for name, fingerprint in (("source", "s"), ("market", "t")):
        folder = tmp_path / "data" / spec.at.folders[name]
        folder.mkdir(parents=True)
        (folder / "index.csv").write_text("file,split,person_id,camera_id,sequence,frame\na.jpg,train,2,1,1,1\n")
        (folder / "card.json").write_text(json.dumps({"name": name, "fingerprint": fingerprint}))
    assert current_runs(tmp_path, "smoke", tmp_path / "data")["stale"].tolist() == [True, False]
    for data in (None, tmp_path / "none"):
        assert not current_runs(tmp_path, "smoke", data)["stale"].any()

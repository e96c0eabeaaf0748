"""Runs by Dask workers, Slurm arrays and local pools: records of the same bytes, also when a worker is killed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path

import pytest
from distributed import LocalCluster, WorkerPlugin
from people import use_tiny_smoke

from paul import cli
from paul.engine import run as engine
from paul.experiments.runner import run_all
from paul.experiments.schedulers import array_of, dask_executor, slurm_script
from paul.experiments.specs import Places, specs_of
from paul.experiments.workers import Workers, as_they_end

pytestmark = pytest.mark.usefixtures("tiny_smoke")
ROOT = Path(__file__).parents[1]
SPECS = specs_of("table3", "smoke", [0], ["market"], ["image_direct", "patch_lv", "paul"])
SCRATCH = re.compile(rb'("(?:seconds|pretrain|adapt|evaluate|peak_memory_mb)": )[\d.e-]+')


def places_in(folder: Path, data: Path) -> Places:
    return Places(str(data), str(folder / "results"), str(folder / "models"), "cpu")


def bytes_of(places: Places) -> dict[str, bytes]:
    """Every record's file, its clock times and its memory blanked out."""
    return {
        path.name: SCRATCH.sub(rb"\1-", path.read_bytes())
        for path in (Path(places.results) / "runs/smoke").glob("*.json")
    }


@pytest.fixture(scope="module")
def serial(data, tmp_path_factory):
    """The records as one process writes them."""
    from people import TINY

    from paul.experiments.profiles import PROFILES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROFILES, "smoke", TINY)
        places = places_in(tmp_path_factory.mktemp("serial"), data)
        run_all(SPECS, None, places)
    found = bytes_of(places)
    assert len(found) == len(SPECS)
    return found


def test_only_times_and_memory_are_blanked_out(serial):
    record = json.loads(next(iter(serial.values())).replace(b" -", b' "-"'))
    assert set(record["seconds"].values()) == {"-"} and record["peak_memory_mb"] == "-"
    assert "-" not in record["metrics"].values() and all(line["loss"] != "-" for line in record["source_curve"])


def killed_once(mark: Path) -> None:
    """Make this worker process kill itself, as the kernel would, between two epochs of the first target training.

    Exactly one process does so: the one that makes the file `mark`.
    """
    use_tiny_smoke()
    save = engine.Run.save

    def save_and_die(run):
        save(run)
        if run.spec["stage"] == "target" and len(run.history) < run.total:
            try:
                mark.touch(exist_ok=False)
            except FileExistsError:
                return
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)

    engine.Run.save = save_and_die


# --- processes on this machine ---


def test_a_local_worker_that_is_killed_is_replaced_and_nothing_is_lost(data, tmp_path, serial):
    places = places_in(tmp_path, data)
    pool = Workers(2, partial(killed_once, tmp_path / "mark"))
    run_all(SPECS, pool, places)
    pool.shutdown()
    assert (tmp_path / "mark").is_file()  # one did die
    assert bytes_of(places) == serial


def test_workers_that_keep_dying_end_the_work_and_errors_are_not_retried():
    pool = Workers(1)
    with pytest.raises(RuntimeError, match="keep dying.*fewer workers.*goes on"):
        list(as_they_end(pool, signal.raise_signal, [signal.SIGKILL], retries=1))
    with pytest.raises(ValueError, match="'one'"):
        list(as_they_end(pool, int, ["one"], retries=1))
    assert list(as_they_end(pool, abs, [-1], retries=0)) == [(-1, 1)]  # as good as new
    pool.shutdown()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_a_parent_that_is_killed():
    code = (
        "from paul.experiments.workers import Workers\nimport os, time\nif __name__ == '__main__':\n"
        "    pool = Workers(2)\n    print(*{pool.submit(os.getpid).result() for _ in range(2)}, flush=True)\n"
        "    [pool.submit(time.sleep, 600) for _ in range(2)]\n    time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    workers = [Path("/proc") / word for word in parent.stdout.readline().split()]
    assert workers and all(worker.exists() for worker in workers)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 15
    while any(worker.exists() for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(worker.exists() for worker in workers)


SAVING = """
import os, sys, time
from pathlib import Path
from paul.engine.stopping import Stopped, StopRequest
from paul.experiments import workers

def patient():
    workers.GRACE = 600.0

def saves(mark):  # as a training does, what it was asked for at the end of its step
    request = StopRequest(announced=False)
    request.listen()
    print(os.getpid(), flush=True)
    while not request.number:
        time.sleep(0.05)
    time.sleep(0.5)
    Path(mark).write_text("saved")
    request.forget()
    raise Stopped(request.number)

if __name__ == "__main__":
    workers.Workers(1, patient).submit(saves, sys.argv[1]).result()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_has_saved_does_not_stay_for_the_time_that_it_might_have_taken(tmp_path, how):
    script, mark = tmp_path / "saving.py", tmp_path / "mark"
    script.write_text(SAVING)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(mark)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    worker = Path("/proc") / parent.stdout.readline().strip()
    assert worker.exists()
    parent.send_signal(how)
    parent.wait()
    end = time.monotonic() + 60
    while worker.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not worker.exists() and mark.read_text() == "saved"


def test_a_replaced_pool_leaves_no_process_behind(tmp_path):
    stubborn = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "open(name + '~', 'w').write(str(os.getpid())); os.rename(name + '~', name); time.sleep(100)"
    )
    pool = Workers(2)
    pool.submit(exec, stubborn, {"name": str(tmp_path / "pid")})
    while not (tmp_path / "pid").exists():
        time.sleep(0.05)
    # two, since a pool listens to a process that it has just started from the next submission on
    first, _ = [pool.submit(signal.raise_signal, signal.SIGKILL) for _ in range(2)]
    with pytest.raises(BrokenExecutor):
        first.result()
    assert pool.submit(abs, -1).result() == 1
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.1)
    pool.shutdown()


# --- Dask ---


class Tiny(WorkerPlugin):
    """For every worker, also one that replaces another: the tiny profile, and one death among all."""

    def __init__(self, mark: Path):
        self.mark = mark

    def setup(self, worker):
        killed_once(self.mark)


def test_a_dask_worker_that_is_killed_has_its_run_done_elsewhere(data, tmp_path, serial, monkeypatch):
    places = places_in(tmp_path, data)
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        worker_dashboard_address=None,
        local_directory=str(tmp_path),
    ) as cluster:
        workers = {worker.pid for worker in cluster.workers.values()}
        with dask_executor(cluster.scheduler_address) as executor:
            executor._client.register_plugin(Tiny(tmp_path / "mark"))
            run_all(SPECS, executor, places)
            assert int((tmp_path / "mark").read_text()) in workers
            assert bytes_of(places) == serial
            calls = tmp_path / "calls"
            with pytest.raises(ValueError, match="wrong"):
                list(as_they_end(executor, partial(count_and_fail, calls), ["it"], retries=3))
            assert calls.read_text() == "it\n"  # a run's own error is not tried again
        with (
            pytest.raises(RuntimeError, match="workers died while they computed the same run.*--memory-limit"),
            dask_executor(cluster.scheduler_address) as executor,
        ):
            cluster.scheduler.allowed_failures = 0
            list(as_they_end(executor, signal.raise_signal, [signal.SIGKILL], retries=3))


def count_and_fail(calls: Path, item) -> None:
    with calls.open("a") as file:
        file.write(f"{item}\n")
    raise ValueError(f"{item} is wrong")


def test_dask_without_a_scheduler_is_one_line(data, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    common = [
        "run",
        "table3",
        "--profile",
        "smoke",
        "--device",
        "cpu",
        "--data",
        str(data),
        "--results",
        "nowhere",
        "--seeds",
        "0",
        "--executor",
        "dask",
    ]
    assert cli.main(common) == 1
    complaint = "paul run: --executor dask needs --scheduler ADDRESS; 'dask scheduler' prints it\n"
    assert capsys.readouterr().err == complaint


# --- Slurm ---


def test_an_array_names_every_index_once():
    assert array_of([0]) == "0" and array_of([0, 1, 2]) == "0-2" and array_of([5, 0, 2, 1, 7]) == "0-2,5,7"
    for indices in ([3, 4, 9, 10, 11], list(range(20)), [1, 3, 5]):
        assert indices_of(array_of(indices)) == indices


def indices_of(array: str) -> list[int]:
    """What sbatch makes of --array."""
    return [
        i
        for part in array.split(",")
        for first, _, last in [part.partition("-")]
        for i in range(int(first), int(last or first) + 1)
    ]


def submit(script: Path, environment: dict) -> list[str]:
    """A stand-in for sbatch: each task of the array, one after the other; returns what they print."""
    text = script.read_text()
    printed = []
    for index in indices_of(re.search(r"^#SBATCH --array=(\S+)$", text, re.MULTILINE)[1]):
        task = environment | {"SLURM_ARRAY_TASK_ID": str(index)}
        done = subprocess.run(["bash", script], env=task, cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed += done.stdout.splitlines()
    return printed


def test_slurm_arrays_write_the_same_records(data, tmp_path, serial, capsys, monkeypatch):
    folder = tmp_path / "a folder"
    folder.mkdir()
    places = places_in(folder, data)
    # in every process that finds it: the tiny profile in place of smoke
    (tmp_path / "sitecustomize.py").write_text("import people\npeople.use_tiny_smoke()\n")
    path = os.pathsep.join(map(str, (tmp_path, ROOT / "tests", ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "TQDM_DISABLE": "1"}
    monkeypatch.chdir(folder)
    run = [
        "run",
        "table3",
        "--profile",
        "smoke",
        "--device",
        "cpu",
        "--data",
        str(data),
        "--results",
        places.results,
        "--models",
        "models",
        "--seeds",
        "0",
        "--targets",
        "market",
        "--rows",
        "patch_lv,paul",
    ]
    assert cli.main([*run, "--executor", "slurm", "--scripts", "scripts", "--sbatch=--time=1:00:00 --mem=2G"]) == 0
    first, second, report = capsys.readouterr().out.splitlines()[-3:]
    assert report.startswith("paul report --results")
    sources, runs = (Path(shlex.split(line.rstrip(")"))[-1]) for line in (first, second))
    assert first.startswith("sources=$(sbatch --parsable ")
    assert second.startswith("sbatch --dependency=afterany:$sources ")
    for script in (sources, runs):
        assert subprocess.run(["bash", "-n", script]).returncode == 0
        assert {"#SBATCH --time=1:00:00", "#SBATCH --mem=2G"} <= set(script.read_text().splitlines())
    assert not submit(sources, environment) and not (folder / "results").exists()
    trained = {path: path.stat().st_mtime_ns for path in (folder / "models/smoke").glob("source--*/checkpoint.pt")}
    assert len(trained) == 1  # both runs start from it
    written = submit(runs, environment)
    assert sorted(written) == sorted(map(str, (folder / "results/runs/smoke").iterdir()))
    assert bytes_of(places) == {name: text for name, text in serial.items() if not name.startswith("image_direct")}
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert (
        cli.main([*run, "--executor", "slurm", "--book", str(ROOT / "book")]) == 0
        and "0 to compute" in capsys.readouterr().out
    )
    assert cli.main([*run, "--task", "3"]) == 1 and "names runs 0 to 1" in capsys.readouterr().err


def test_a_script_keeps_odd_words_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = tmp_path / "it's $HOME; here"
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    script = slurm_script("runs", [4], ["run", str(said)], said, [])
    assert submit(script, dict(os.environ)) == [f"-m paul run {said} --task 4"]


def test_the_commands_of_the_page_are_understood():
    page = (ROOT / "book/pages/from_laptop_to_cluster.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^    (?:paul|torchrun .*-m paul) (.*)$", page, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        arguments = cli.parser().parse_args(shlex.split(command))
        assert arguments.command in ("run", "adapt")

"""What can break while a training runs, each row of the table in book/pages/when_things_break.md: nothing is lost."""

import ast
import errno
import json
import multiprocessing.synchronize
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from people import ADAPT, SIZE, adapt, pairs, same, same_weights, with_history, write_set

from data_prep import synthetic
from data_prep.market_layout import DataError
from paul import checkpoint, cli
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.experiments import records
from paul.experiments.workers import workers_executor

ROOT = Path(__file__).parents[1]
COMMON = ["--profile", "smoke", "--device", "cpu"]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1"}


@pytest.fixture(scope="module")
def mortal(trained, target, tmp_path_factory):
    """Run a scenario of tests/mortal.py in a folder and return its answer."""
    folder = tmp_path_factory.mktemp("mortal")
    np.save(folder / "images.npy", target.numpy())
    command = [
        sys.executable,
        str(ROOT / "tests/mortal.py"),
        str(trained[1] / "checkpoint.pt"),
        str(folder / "images.npy"),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=QUIET, cwd=ROOT)

    def run(scenario, folder):
        process.stdin.write(json.dumps([scenario, str(folder)]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield run
    process.stdin.close()
    assert process.wait(60) == 0


def end_of(folder):
    """What a finished training has decided: weights, memories, and the curve without its seconds."""
    state = checkpoint.read(Path(folder) / "checkpoint.pt")
    training = state["training"]
    memories = {f"{part}/{name}": value for part in ("memory", "centers") for name, value in state[part].items()}
    history = json.loads(training["history"])
    curve = [{key: value for key, value in line.items() if key != "seconds"} for line in history]
    return {**state["model"], **memories}, curve


def ends_alike(a, b):
    (tensors, curve), (others, other_curve) = end_of(a), end_of(b)
    return same(tensors, others) and curve == other_curve


# --- the process ---


def test_killed_at_random_moments_twenty_times_it_ends_the_same(mortal, tmp_path):
    found = mortal("killed", tmp_path)
    assert found["statuses"] == [-signal.SIGKILL] * 20 and all(found["steps"])
    assert found["last"] == [0, ""] and found["left"] > 0
    assert ends_alike(tmp_path / "whole", tmp_path / "killed")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        ".lock",
        "checkpoint.previous.pt",
        "checkpoint.pt",
        "log.jsonl",
    ]


def test_of_two_processes_in_one_folder_the_second_is_told_to_wait(mortal, adapted, tmp_path):
    found = mortal("two_at_once", tmp_path / "run")
    assert found["second"][0] == 1 and "another run is writing" in found["second"][1]
    assert found["first"] == found["afterwards"] == [0, ""]
    assert ends_alike(tmp_path / "run", adapted[1])


def test_when_a_rank_dies_the_other_stops_within_seconds_and_the_run_resumes(mortal, tmp_path):
    found = mortal("rank_dies", tmp_path)
    assert found["killed"] == [-signal.SIGKILL] * 2
    assert all(status == 1 and message for status, message in found["survivors"])
    assert max(found["seconds"]) < 20
    assert found["alone"] == [0, ""] and 0 < found["left"] < 8 * 3  # it went on from where two ranks were
    tensors, curve = end_of(tmp_path)
    assert len(curve) == 8 and all(value.isfinite().all() for value in tensors.values())


CELL = """
import sys
sys.path[:0] = {paths!r}
import numpy as np, torch
from dataclasses import replace
from people import ADAPT
from paul import checkpoint
from paul.adapt import adapt
from paul.engine import run as engine
torch.set_num_threads(1)
engine.SAVE_SHARE = float("inf")
step = torch.optim.SGD.step
def slowly(self, *arguments):  # time enough to be killed in the middle
    import time
    time.sleep({seconds})
    step(self, *arguments)
torch.optim.SGD.step = slowly
start, images = checkpoint.load({start!r})[0], torch.from_numpy(np.load({images!r}))
model, history = adapt(start, images, ADAPT, folder={folder!r}, device="cpu")
print(len(history), "epochs")
"""


def test_a_notebook_whose_kernel_was_killed_goes_on_when_the_cell_is_run_again(trained, target, adapted, tmp_path):
    from jupyter_client import KernelManager

    np.save(tmp_path / "images.npy", target.numpy())
    paths = dict(
        paths=[str(ROOT), str(ROOT / "tests")],
        start=str(trained[1] / "checkpoint.pt"),
        images=str(tmp_path / "images.npy"),
        folder=str(tmp_path / "run"),
    )
    kernels = [KernelManager(kernel_name="python3") for _ in range(2)]
    try:
        for kernel in kernels:
            kernel.start_kernel(env=QUIET, cwd=str(tmp_path))
        clients = [kernel.client() for kernel in kernels]
        for client in clients:
            client.start_channels()
            client.wait_for_ready(timeout=180)
        clients[0].execute(CELL.format(**paths, seconds=0.3))
        while not (tmp_path / "run/checkpoint.previous.pt").is_file():
            assert kernels[0].is_alive()
            time.sleep(0.02)
        kernels[0].signal_kernel(signal.SIGKILL)
        while kernels[0].is_alive():
            time.sleep(0.02)
        assert len(json.loads(checkpoint.read(tmp_path / "run/checkpoint.pt")["training"]["history"])) < ADAPT.epochs
        said = []
        answer = clients[1].execute_interactive(
            CELL.format(**paths, seconds=0), timeout=180, output_hook=lambda message: said.append(message["content"])
        )
        assert answer["content"]["status"] == "ok", said
        assert any(content.get("text") == "2 epochs\n" for content in said)
    finally:
        for kernel in kernels:
            kernel.shutdown_kernel(now=True)
    assert ends_alike(tmp_path / "run", adapted[1])


# --- files ---


def test_a_full_disk_stops_the_run_and_more_room_lets_it_go_on(mortal, tmp_path):
    found = mortal("full_disk", tmp_path / "disk")
    if found["full"][1].startswith(("PermissionError", "CalledProcessError")):
        pytest.skip("mounting a small file system is not allowed here; the test after this one needs none")
    status, message = found["full"]
    assert status == 1 and "No space left on device" in message and "what was there before is untouched" in message
    assert {"checkpoint.pt", "log.jsonl"} <= set(found["names"])
    assert found["again"] == [0, ""] and 0 < found["left"] < 4 * 3
    assert ends_alike(tmp_path / "disk left", tmp_path / "disk whole")


def test_files_that_may_not_grow_stop_the_run_and_leave_the_last_checkpoint(
    trained, target, adapted, tmp_path, monkeypatch
):
    step, steps = torch.optim.SGD.step, [0]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(self, *arguments):
        step(self, *arguments)
        steps[0] += 1
        if steps[0] == 4:  # from here on the system refuses to write more than the beginning of a checkpoint
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    try:
        with monkeypatch.context() as patched, pytest.raises(OSError, match="could not write .*untouched. Free some"):
            patched.setattr(torch.optim.SGD, "step", limited)
            adapt(trained[0], target, ADAPT, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((".checkpoint", "checkpoint.next"))]
    assert same_weights(adapt(trained[0], target, ADAPT, folder=tmp_path), adapted[0])
    assert ends_alike(tmp_path, adapted[1])


def test_images_unreadable_in_the_middle_are_named_and_can_be_left_out(tmp_path, capsys, monkeypatch, tiny_smoke):
    monkeypatch.chdir(tmp_path)
    folder = write_set(tmp_path / "set", {"train": pairs(range(1, 7), 2)})
    images = sorted((folder / "bounding_box_train").iterdir())
    whole = images[10].read_bytes()
    images[10].write_bytes(whole[: len(whole) // 2])
    images[11].write_bytes(b"")
    images[12].write_text("no image at all")
    images[13].unlink()
    images[14].unlink()
    images[14].mkdir()
    broken = images[10:15]
    for name in broken:
        with pytest.raises(ValueError, match=f"cannot read the image .*{name.name}.*take it out of index.csv"):
            load_images(only(folder, name), SIZE)
    assert cli.main(["pretrain", *COMMON, "--data", "set", "--out", "run"]) == 1
    message = capsys.readouterr().err.split("\r")[-1]
    assert sum(name.name in message for name in broken) == 1 and "--skip-unreadable" in message
    assert cli.main(["pretrain", *COMMON, "--data", "set", "--out", "run", "--skip-unreadable"]) == 0
    message = capsys.readouterr().err
    assert all(f"left out: cannot read the image set/bounding_box_train/{name.name}" in message for name in broken)
    assert not any(name.name in message for name in images if name not in broken)


def test_a_run_record_half_written_is_made_again_and_left_out_of_the_tables(tmp_path):
    record = {"row": "paul", "target": "market", "seed": 0, "profile": "mini", "spec_hash": "ab"}
    record["metrics"] = {"rank1": 1.0}
    whole = json.dumps(record, indent=1).encode()
    path = tmp_path / "runs/mini/paul--market--s0--ab.json"
    records.write_record(path, json.loads(whole))
    assert records.read_record(path) == json.loads(whole)
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        assert records.read_record(path) is None  # then `paul run` computes it
        with pytest.warns(UserWarning, match="paul--market--s0--ab.json is not a run record .*left out"):
            assert records.read_records(tmp_path, "mini") == []
    with pytest.raises(ValueError):  # a record that JSON can't hold leaves the old one whole
        records.write_record(path, {"metrics": {"rank1": float("nan")}})
    path.write_bytes(whole)
    script = f"""
import os, signal, sys
from pathlib import Path
from paul.experiments import records
os.replace = os.fsync = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
records.write_record(Path({str(path)!r}), {{"metrics": {{}}}})
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=QUIET).returncode == -signal.SIGKILL
    assert records.read_record(path) == json.loads(whole)
    assert len(records.read_records(tmp_path, "mini")) == 1  # what the killed process left is no record


def only(folder, image):
    split = ReidDataset.load(folder).split("train")
    return split.take([place for place, file in enumerate(split.files) if file.name == image.name])


# --- numbers ---


def test_black_and_constant_images_train_to_finite_weights(trained, target, tmp_path):
    for name, value in (("black", 0), ("white", 255)):
        images = target.clone()
        images[3:7] = value  # what a failed camera delivers
        model = adapt(trained[0], images, ADAPT, folder=tmp_path / name)
        assert all(part.isfinite().all() for part in model.state_dict().values())
        model = adapt(trained[0], torch.full_like(target, value), ADAPT, folder=tmp_path / f"all {name}")
        assert all(part.isfinite().all() for part in model.state_dict().values())


def test_a_value_that_is_no_number_among_the_images_stops_the_run(trained, target, tmp_path):
    images = target.float()
    images[5, 1, 3, 3] = float("nan")
    with pytest.raises(FloatingPointError, match="target, epoch 1, step 1: not finite: .*look at the images"):
        adapt(trained[0], images, ADAPT, folder=tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


# --- around ---


def test_a_clock_that_goes_backwards_changes_nothing(trained, target, adapted, tmp_path, monkeypatch):
    start = time.time()
    now = [start]

    def backwards():
        now[0] -= 3600
        return now[0]

    (tmp_path / "log.jsonl").write_text("")
    os.utime(tmp_path / "log.jsonl", (now[0] + 1e6, now[0] + 1e6))  # written in what is now the future
    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr("tqdm.std.time", backwards)  # bars show it, and only they
    model, history = with_history["adapt"](trained[0], target, ADAPT, folder=tmp_path)
    assert now[0] < start and all(0 <= line["seconds"] < 60 for line in history)
    assert same_weights(model, adapted[0]) and ends_alike(tmp_path, adapted[1])


COMMANDS = """
import sys
sys.path[:0] = {paths!r}
from people import use_tiny_smoke
from paul.cli import main
use_tiny_smoke()
for line in {commands!r}:
    status = main(line)
    if status:
        sys.exit(status)
"""


def commands(folder, index_of="set"):
    """Every stage by the command line, from a source set to scores."""
    folder, common = str(folder), ["--profile", "smoke", "--device", "cpu"]
    return [
        ["pretrain", *common, "--data", f"{folder}/{index_of}", "--out", f"{folder}/source"],
        [
            "adapt",
            *common,
            "--data",
            f"{folder}/{index_of}",
            "--init",
            f"{folder}/source/checkpoint.pt",
            "--out",
            f"{folder}/target",
        ],
        ["evaluate", *common, "--data", f"{folder}/{index_of}", "--init", f"{folder}/target/model.pt"],
    ]


def in_a_process(commands, cwd, **environment):
    """Run commands in a new process whose environment holds little but what is given."""
    kept = {name: QUIET[name] for name in ("PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TQDM_DISABLE")}
    script = COMMANDS.format(paths=[str(ROOT), str(ROOT / "tests")], commands=commands)
    return subprocess.run([sys.executable, "-c", script], cwd=cwd, env={**kept, **environment}, capture_output=True)


def a_set(folder, name=""):
    """A set whose every file has `name` in its own."""
    write_set(folder, {"train": pairs(range(1, 7), 2), "query": [(7, 1), (8, 1)], "gallery": [(7, 2), (8, 2)]})
    if name:
        index = (folder / "index.csv").read_text(encoding="utf-8")
        for line in index.splitlines()[1:]:
            file = folder / line.split(",")[0]
            file.rename(file.with_name(name + file.name))
        (folder / "index.csv").write_text(index.replace("/", f"/{name}"), encoding="utf-8")
    return folder


ALPHABETS = "Ünïcode κάμερα 人 "


def test_a_locale_without_utf8_reads_names_of_any_alphabet(tmp_path):
    folder = tmp_path / ALPHABETS
    a_set(folder / "set", ALPHABETS)
    done = in_a_process(commands(folder), folder, HOME=str(tmp_path), LC_ALL="C")
    assert done.returncode == 0, done.stderr.decode()
    assert "rank1" in done.stdout.decode()


def test_where_names_must_be_ascii_others_are_refused_with_the_way_out(tmp_path):
    folder = tmp_path / ALPHABETS
    a_set(folder / "set")
    a_set(folder / "named", ALPHABETS)
    strict = dict(HOME=str(tmp_path), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    done = in_a_process([*commands("."), *commands(".", "named")[2:]], folder, **strict)
    *_, message = done.stderr.decode().splitlines()
    assert "rank1" in done.stdout.decode() and done.returncode == 1, done.stderr.decode()
    assert message.startswith("paul evaluate: named/index.csv, line ") and "PYTHONUTF8=1" in message


def test_a_home_that_is_missing_or_read_only_is_not_needed(tmp_path):
    a_set(tmp_path / "set")
    home = Path("/proc/home")  # missing, and nobody, not even root, may make it
    with pytest.raises(OSError):
        home.mkdir()
    done = in_a_process(commands(tmp_path), tmp_path, HOME=str(home))
    assert done.returncode == 0 and b"rank1" in done.stdout, done.stderr.decode()


def test_paths_with_spaces_quotes_and_other_alphabets(tmp_path, capsys, monkeypatch, tiny_smoke):
    for name in ("with spaces", 'it\'s "quoted" & $HOME; *?[a]', ALPHABETS.strip(), "%s {0} \\n"):
        folder = tmp_path / name
        a_set(folder / "set", name="a b'\"$ü ")
        for command in commands(folder):
            assert cli.main(command) == 0, capsys.readouterr().err
        assert "rank1" in capsys.readouterr().out


@pytest.fixture
def no_semaphores(monkeypatch):
    """What a read-only /dev/shm does to whoever wants one."""

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(multiprocessing.synchronize._multiprocessing, "SemLock", refuse)


def test_without_semaphores_several_processes_are_refused_and_one_is_enough(no_semaphores):
    words = r"no processes can work together here \(Read-only file system\): .* /dev/shm, .*"
    with pytest.raises(OSError, match=words + "workers=1 does without"), workers_executor(2):
        pass
    with pytest.raises(DataError, match=words + "--workers 1 does without"), synthetic._pool(2):
        pass
    with workers_executor(1) as executor, synthetic._pool(1) as spread:
        assert executor is None and list(spread(len, ["ab"])) == [2]


def test_renderers_end_with_the_process_that_started_them(tmp_path):
    script = """
import os, time
from data_prep import synthetic
with synthetic._pool(2) as spread:
    list(spread(time.sleep, [0, 0]))
    print(*synthetic.multiprocessing.active_children(), flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=QUIET, stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in re.findall(r"pid=(\d+)", process.stdout.readline())]
    assert workers
    process.kill()
    process.wait()
    for _ in range(200):
        left = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
        if not left:
            break
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


# --- the table ---


def test_every_row_of_the_table_names_a_test_that_is_there_and_no_break_is_missing():
    page = (ROOT / "book/pages/when_things_break.md").read_text(encoding="utf-8").partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in page.splitlines()
        if line.startswith("|")
    ]
    assert rows[0] == ["What breaks", "What happens", "What to do", "The test"] and set(rows[1]) == {"---"}
    named = set()
    for row in rows[2:]:
        assert len(row) == 4 and all(row), row
        tests = re.findall(r"`(test_\w+)\.py::(test_\w+)`", row[3])
        assert tests and row[3] == ", ".join(f"`{file}.py::{test}`" for file, test in tests), row
        named |= set(tests)
    there = {
        (path.stem, node.name)
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert named <= there, named - there
    own = {(file, test) for file, test in there if file == Path(__file__).stem} - {
        (Path(__file__).stem, "test_every_row_of_the_table_names_a_test_that_is_there_and_no_break_is_missing")
    }
    assert own <= named, own - named

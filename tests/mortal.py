"""Trainings in processes that can be killed: python tests/mortal.py START IMAGES, then a scenario a line on stdin.

Each training is forked from this process, which has imported everything and computed nothing, so that a new one costs
milliseconds. START is a checkpoint, IMAGES a .npy file of uint8 images. A scenario is a line of JSON, [name, folder];
the answer is one too.
"""

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from people import ADAPT

from paul import checkpoint
from paul.adapt import adapt
from paul.engine import run as engine

START, IMAGES = sys.argv[1:]
STEPS = 3  # of an epoch: 20 images, 8 a batch


class Life:
    """A training in a process of its own, which says a byte after every step."""

    def __init__(self, folder: Path, epochs: int, every_step: bool = True, before=None, **environment):
        self.steps, said = os.pipe()
        self.errors = tempfile.TemporaryFile("w+")
        self.pid = os.fork()
        if self.pid:
            os.close(said)
            return
        status = 1
        try:
            os.close(self.steps)
            tqdm.set_lock(threading.RLock())  # that of before is shared, and a life killed under it keeps it
            os.environ.update(environment)
            if before:
                before()
            self.train(folder, epochs, every_step, said)
            status = 0
        except BaseException as error:
            self.errors.write(f"{type(error).__name__}: {error}")
            self.errors.flush()
        finally:
            os._exit(status)

    @staticmethod
    def train(folder: Path, epochs: int, every_step: bool, said: int) -> None:
        step = torch.optim.SGD.step

        def noted(self, *arguments):
            step(self, *arguments)
            os.write(said, b".")

        torch.optim.SGD.step = noted
        if every_step:
            engine.SAVE_SHARE = float("inf")
        torch.set_num_threads(1)
        model, _ = checkpoint.load(START)
        options = replace(ADAPT, epochs=epochs)
        adapt(model, torch.from_numpy(np.load(IMAGES)), options, folder=folder, device="cpu")

    def take(self, steps: int) -> int:
        """Wait for so many steps; returns how many came before the process ended."""
        taken = 0
        while taken < steps and os.read(self.steps, 1):
            taken += 1
        return taken

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> tuple[int, str]:
        """Its exit status, the negative signal where one ended it, and what went wrong in words."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.steps)
        self.errors.seek(0)
        return os.waitstatus_to_exitcode(status), self.errors.read()


def killed(folder: Path, times: int = 20, epochs: int = 30) -> dict:
    """One training undisturbed; another killed so many times, at any moment of a step or a save, and then finished."""
    whole = Life(folder / "whole", epochs)
    assert whole.take(1) == 1
    begin = time.monotonic()
    taken = 1 + whole.take(epochs * STEPS)
    pace = (time.monotonic() - begin) / taken
    assert whole.wait() == (0, "") and taken == epochs * STEPS
    moments, statuses, steps = random.Random(0), [], []
    for _ in range(times):
        life = Life(folder / "killed", epochs)
        steps.append(life.take(moments.randint(1, 2)))
        time.sleep(moments.uniform(0, 1.5 * pace))
        life.signal(signal.SIGKILL)
        statuses.append(life.wait()[0])
    last = Life(folder / "killed", epochs)
    left = last.take(epochs * STEPS)
    return {"statuses": statuses, "steps": steps, "left": left, "last": last.wait()}


def two_at_once(folder: Path) -> dict:
    """A second process wants the folder in which a first one trains, then when it is done."""
    first = Life(folder, 2)
    first.take(2)
    first.signal(signal.SIGSTOP)
    second = Life(folder, 2).wait()
    first.signal(signal.SIGCONT)
    return {"second": second, "first": first.wait(), "afterwards": Life(folder, 2).wait()}


def rank_dies(folder: Path) -> dict:
    """Two ranks train as one, without anything that watches over them; each in turn is killed, then one goes on."""
    found = {"seconds": [], "survivors": [], "killed": []}
    for dies in (1, 0):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [Life(folder, 8, RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]
        ranks[0].take(4)
        ranks[dies].signal(signal.SIGKILL)
        begin = time.monotonic()
        found["killed"].append(ranks[dies].wait()[0])
        found["survivors"].append(ranks[1 - dies].wait())
        found["seconds"].append(time.monotonic() - begin)
    alone = Life(folder, 8)
    found["left"] = alone.take(8 * STEPS)
    return {**found, "alone": alone.wait()}


def full_disk(folder: Path) -> dict:
    """A training in a file system that holds two and a half checkpoints, then the same one once there is room."""

    def mounted(size):
        def mount():
            if ctypes.CDLL(None).unshare(0x20000):  # CLONE_NEWNS: the mount is this process's alone, and goes with it
                raise PermissionError("no mounting here")
            quiet = dict(check=True, capture_output=True)
            subprocess.run(["mount", "--make-rprivate", "/"], **quiet)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], **quiet)
            if room.is_dir():
                shutil.copytree(room, folder / "run")

        return mount

    def leaving(mount):
        """Copy what is in the file system out of it, which ends with the process."""

        def run():
            mount()
            train = Life.train

            def and_copy(*arguments):
                try:
                    train(*arguments)
                finally:
                    shutil.rmtree(room, ignore_errors=True)
                    shutil.copytree(folder / "run", room)

            Life.train = staticmethod(and_copy)

        return run

    room = folder.with_name(folder.name + " left")
    whole = Life(folder.with_name(folder.name + " whole"), 4)
    assert whole.wait() == (0, "")
    checkpoint_size = (folder.with_name(folder.name + " whole") / "checkpoint.pt").stat().st_size
    folder.mkdir()
    full = Life(folder / "run", 4, before=leaving(mounted(int(2.5 * checkpoint_size)))).wait()
    names = sorted(path.name for path in room.iterdir()) if room.is_dir() else []
    again = Life(folder / "run", 4, before=leaving(mounted(5 * checkpoint_size)))
    return {"full": full, "names": names, "left": again.take(4 * STEPS), "again": again.wait()}


SCENARIOS = {"killed": killed, "two_at_once": two_at_once, "rank_dies": rank_dies, "full_disk": full_disk}

if __name__ == "__main__":
    for line in sys.stdin:
        name, folder = json.loads(line)
        print(json.dumps(SCENARIOS[name](Path(folder))), flush=True)

"""What both training stages share: a run that survives being stopped, and the steps of its epochs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm.auto import tqdm

from paul import checkpoint, records
from paul.distributed import World
from paul.patchnet import PatchNet

SAVE_SHARE = 0.02  # of the time that may go into checkpoints within an epoch
FIRST_SAVE_SECONDS = 1.0  # what a checkpoint is thought to cost until one has been written


class FolderInUse(RuntimeError):
    """Another process trains in the folder."""


class Stopped(KeyboardInterrupt):
    """A training that was asked to stop, has finished its step and is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Steps:
    """The batches of one epoch, and the means of their losses so far, read from the device every `every` steps."""

    def __init__(self, where: str, batches: Sequence[Tensor], bar: tqdm, every: int = 1, world: World = World(),
                 after: Callable[[], None] = lambda: None):
        self.where, self.batches, self.bar, self.every, self.world, self.after = where, batches, bar, every, world, after
        self.done = 0
        self.names: list[str] = []
        self.unread: list[Tensor] = []
        self.sums: list[float] = []
        self.count = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        while self.done < len(self.batches):
            yield self.batches[self.done]
            self.done += 1
            self.bar.update()
            self.after()

    def left(self) -> Sequence[Tensor]:
        """The batches that are still to come."""
        return self.batches[self.done:]

    def add(self, **losses: Tensor) -> None:
        """Note one step's losses.

        Raises:
            FloatingPointError: a loss is not finite; names epoch, step and loss.
        """
        self.names = list(losses)
        self.unread.append(torch.stack([value.detach() for value in losses.values()]))
        if len(self.unread) == self.every:
            self.bar.set_postfix({name: f"{mean:.3f}" for name, mean in self.means().items()}, refresh=False)

    def means(self) -> dict[str, float]:
        """Mean of each loss over the steps so far, and over ranks; raises as `add` does."""
        if self.unread:
            rows = (self.world.sum(torch.stack(self.unread)) / self.world.size).double().cpu()
            bad = (~rows.isfinite()).nonzero()
            if len(bad):
                step = int(bad[0, 0])
                names = [name for name, finite in zip(self.names, rows[step].isfinite()) if not finite]
                raise self.not_finite(self.count + step + 1, ", ".join(names))
            self.sums = (torch.tensor(self.sums or [0.0] * len(self.names), dtype=torch.float64) + rows.sum(0)).tolist()
            self.count += len(rows)
            self.unread = []
        return {name: total / self.count for name, total in zip(self.names, self.sums)}

    def not_finite(self, step: int, what: str) -> FloatingPointError:
        """What stops a run whose numbers have left the finite ones."""
        return FloatingPointError(f"{self.where}, step {step}: not finite: {what}. The last checkpoint is kept; lower "
                                  "the learning rate, or look at the images of this epoch")

    def state_dict(self) -> dict:
        """Where in the epoch it is; plain data."""
        self.means()
        return {"rows": torch.cat(list(self.batches)), "sizes": [len(batch) for batch in self.batches],
                "done": self.done, "names": self.names, "sums": self.sums, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.batches = state["rows"].split(state["sizes"])
        self.done, self.names, self.sums, self.count = (state[key] for key in ("done", "names", "sums", "count"))


@contextmanager
def within_memory(steps: Steps, option: str):
    """Say what helps when a step does not fit into the memory; the run's last checkpoint stays.

    Gradients summed over smaller batches would not be the same method: batch norm, cyclic ranking and the memories see
    the batch whole. Recomputed activations are.

    Raises:
        RuntimeError: out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if type(error) is RuntimeError and "allocate memory" not in str(error):
            raise
        reason = str(error).partition("\n")[0]
        raise RuntimeError(f"{steps.where}, step {steps.done + 1}: out of memory ({reason}). The same command with "
                           "--low-memory goes on from the last checkpoint, to the same result, more slowly; a smaller "
                           f"{option} needs another folder, since it changes what is learned") from error


class Run:
    """A training of some epochs in a folder: locked while it runs, saved on the way, resumed where it was.

    It is saved after each epoch, within an epoch as often as costs SAVE_SHARE of the time, and after the step in hand
    when SIGTERM or Ctrl-C asks it to stop. The checkpoint holds the network, everything in `parts` (whatever has a
    state_dict: optimiser, memories), the batches of the epoch, the state of `generator` and of torch's own, so that a
    resumed run takes the same steps, bit for bit on a CPU. The checkpoint before the last is kept beside it and taken
    up when the last is damaged. A finished training is only read, by as many processes at once as like.

    Args:
        folder: where checkpoint.pt, checkpoint.previous.pt and log.jsonl go.
        model: PatchNet under training.
        spec: what is trained, as plain data; a folder that holds another spec is refused.
        parts: name -> object with state_dict and load_state_dict.
        generator: decides order and augmentation.
        total: epochs to train.
        tensorboard: also write TensorBoard events into the folder.
        world: the processes that train as one; the main one writes, and any number of them resumes.

    Raises (on entering):
        FolderInUse: another process trains in this folder.
        RuntimeError: TensorBoard is asked for and not installed.
        ValueError: the folder belongs to another spec, or both its checkpoints are unreadable.
    """

    def __init__(self, folder: str | Path, model: PatchNet, spec: dict, parts: dict, generator: torch.Generator,
                 total: int, tensorboard: bool = False, world: World = World()):
        self.folder = Path(folder)
        self.model, self.parts, self.generator, self.total, self.world = model, parts, generator, total, world
        self.spec = json.loads(json.dumps({**spec, "code": records.code_hash()}))
        self.tensorboard = tensorboard
        self.history: list[dict] = []
        self._lock = FileLock(self.folder / ".lock")
        self._writer = None
        self._resumed: dict = {}  # the epoch that an earlier process left in the middle
        self._steps: Steps | None = None
        self._signal, self._handlers = 0, {}
        self._save_seconds, self._saved_at = FIRST_SAVE_SECONDS, time.monotonic()

    @property
    def file(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def previous(self) -> Path:
        return self.folder / "checkpoint.previous.pt"

    @property
    def started(self) -> bool:
        """Whether an earlier process left a checkpoint here."""
        return self.file.is_file() or self.previous.is_file()

    def __enter__(self) -> Run:
        self.folder.mkdir(parents=True, exist_ok=True)
        locked = True
        try:
            if self.world.is_main:
                self._lock.acquire(timeout=0)
        except Timeout:
            locked = False
        self.world.wait()
        try:
            self._resume()
            if len(self.history) < self.total:
                if not locked:
                    raise FolderInUse(f"another run is writing {self.folder}; wait for it or choose another folder, "
                                      "then run the same command again")
                self._prepare()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _prepare(self) -> None:
        if self.world.is_main:
            for pattern in (".checkpoint*", ".log.jsonl.*", "checkpoint.next.pt"):
                for left_behind in self.folder.glob(pattern):  # half-written when an earlier process was killed
                    left_behind.unlink()
        if self.tensorboard and self.world.is_main:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise RuntimeError("--tensorboard needs the package tensorboard: install paul-book[tensorboard], or "
                                   "leave the option out") from error
            self._writer = SummaryWriter(self.folder)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._asked_to_stop)

    def __exit__(self, _kind, error, _trace):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._writer:
            self._writer.close()
        self._lock.release()
        if self.world.size > 1 and isinstance(error, RuntimeError) and re.search("gloo|nccl", str(error), re.I):
            reason = str(error).partition("\n")[0]
            raise RuntimeError(f"another of the {self.world.size} processes has stopped ({reason}); start them all again "
                               "with the same command: the run goes on from its last checkpoint") from error

    def _asked_to_stop(self, number: int, _frame) -> None:
        if self._signal:  # asked twice: at once
            raise KeyboardInterrupt
        self._signal = number
        if self.world.is_main:
            tqdm.write("finishing this step and saving; once more stops at once", file=None)

    def _read(self) -> dict:
        if not self.file.is_file():  # killed between two renames
            return checkpoint.read(self.previous)
        try:
            return checkpoint.read(self.file)
        except ValueError as error:
            if not self.previous.is_file():
                raise
            state = checkpoint.read(self.previous)
            warnings.warn(f"{error}; going on from the checkpoint before it, {self.previous.name}", stacklevel=4)
            return state

    def _resume(self) -> None:
        """Take up the state of the last checkpoint, when there is one."""
        if not self.started:
            return
        state = self._read()
        training = state.get("training", {})
        theirs = json.loads(training.get("spec", "{}"))
        if theirs != self.spec:
            differing = ", ".join(key for key in self.spec if theirs.get(key) != self.spec[key])
            raise ValueError(f"{self.folder} holds another training (other {differing}); choose another folder or "
                             "delete this one")
        self.model.load_state_dict(state["model"])
        for name, part in self.parts.items():
            part.load_state_dict(training[name])
        self.generator.set_state(training["generator"])
        torch.set_rng_state(training["torch_rng"])
        self.history, self._resumed = json.loads(training["history"]), training["epoch"]

    def save(self) -> None:
        """Write the state after the last step; the log first, since an epoch is done once its checkpoint is.

        Raises:
            FloatingPointError: a weight is not finite; nothing is written.
        """
        begin = time.monotonic()
        state = self.model.state_dict()
        finite = torch.stack([value.isfinite().all() for value in state.values()]).tolist()
        if not all(finite):
            raise self._steps.not_finite(self._steps.count, list(state)[finite.index(False)])
        whole = self._steps.done == len(self._steps)
        epoch = {} if whole else {**self._steps.state_dict(), "seconds": self._epoch_seconds()}
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        if self.world.is_main:
            lines = "".join(json.dumps(row) + "\n" for row in self.history)
            checkpoint.write_atomically(self.folder / "log.jsonl", lambda file: file.write(lines.encode()))
            fresh = self.folder / "checkpoint.next.pt"
            checkpoint.save(fresh, self.model, **parts, epoch=epoch, generator=self.generator.get_state(),
                            torch_rng=torch.get_rng_state(), history=json.dumps(self.history),
                            spec=json.dumps(self.spec))
            if self.file.is_file():
                os.replace(self.file, self.previous)
            os.replace(fresh, self.file)
        self._saved_at = time.monotonic()
        self._save_seconds = max(self._saved_at - begin, 0.0)

    def _epoch_seconds(self) -> float:
        return self._resumed.get("seconds", 0.0) + time.monotonic() - self._begin

    def _after_step(self) -> None:
        steps = self._steps
        if steps.done == len(steps) or (self.world.size > 1 and steps.done % steps.every):
            return
        due = time.monotonic() - self._saved_at > self._save_seconds / SAVE_SHARE
        asked, due = self.world.any([bool(self._signal), due], next(self.model.parameters()).device)
        if asked or due:
            self.save()
        if asked:
            raise Stopped(self._signal or signal.SIGTERM)

    def epochs(self, draw: Callable[[], Sequence[Tensor]], label: str) -> Iterator[tuple[int, Steps]]:
        """Yield (epoch, Steps) for each epoch still to do, the first one from the step where it was left.

        Args:
            draw: makes the batches of an epoch, each the images' places in the set.
            label: what the progress bar calls it.
        """
        every = 1 if next(self.model.parameters()).device.type == "cpu" else 50
        # a worker's parent shows the progress of all; elsewhere TQDM_DISABLE decides, which an explicit False would mute
        hidden = {"disable": True} if parent_process() is not None or not self.world.is_main else {}
        for epoch in range(len(self.history), self.total):
            self._begin = time.monotonic()
            if self.world.rank and epoch:  # what is drawn by torch's own generator differs between ranks
                torch.manual_seed(1000 * epoch + self.world.rank)
            steps = self._steps = Steps(f"{label}, epoch {epoch + 1}", [], None, every, self.world, self._after_step)
            if self._resumed:
                steps.load_state_dict(self._resumed)
            else:
                steps.batches = draw()
            with tqdm(total=len(steps), initial=steps.done, desc=f"{label} {epoch + 1}/{self.total}", unit="step",
                      leave=False, **hidden) as steps.bar:
                yield epoch, steps
            self.history.append({"epoch": epoch + 1, **steps.means(), "seconds": round(self._epoch_seconds(), 3)})
            self._resumed = {}
            if self._writer:
                for name, value in steps.means().items():
                    self._writer.add_scalar(name, value, epoch + 1)
            self.save()
            if self._signal and epoch + 1 < self.total:
                raise Stopped(self._signal)


def fingerprint(*tensors: Tensor) -> str:
    """Hash of the tensors' bytes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().view(-1).numpy())
    return found.hexdigest()[:16]

"""A training of some epochs that survives being stopped: its state, saved on the way, and the loop over its epochs."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import parent_process
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from paul.engine.distributed import World
from paul.engine.files import first_line
from paul.engine.folder import FolderInUse, TrainingFolder
from paul.engine.steps import Steps
from paul.engine.stopping import Stopped, StopRequest

SAVE_SHARE = 0.02  # of the time that may go into checkpoints within an epoch
FIRST_SAVE_SECONDS = 1.0  # what a checkpoint is thought to cost until one has been written


class Run:
    """A training in a folder: locked while it runs, resumed where it was.

    It is saved after each epoch, within an epoch as often as costs SAVE_SHARE of the time, and after the step in hand
    when SIGTERM or Ctrl-C asks it to stop. The checkpoint holds every part, the batches of the epoch, the state of
    `generator` and of torch's own, so that a resumed run takes the same steps, bit for bit on a CPU with as many
    threads. The checkpoint before the last is kept beside it and taken up when the last is damaged. A finished training
    is only read, by as many processes at once as like.

    Args:
        folder: see `TrainingFolder`.
        parts: name -> whatever has state_dict and load_state_dict and changes on the way: networks, optimisers,
            memories, any number of each. A network whose weights are no longer finite is not saved.
        spec: what is trained, as plain data; a folder that holds another spec is refused.
        generator: decides order and augmentation.
        total: epochs to train.
        device: where it happens; losses are read from a GPU every 50 steps only.
        about: plain data that the checkpoint holds for whoever reads it without training.
        tensorboard: also write TensorBoard events into the folder.
        world: the processes that train as one; the main one writes, and any number of them resumes.

    Attributes:
        history: a line per finished epoch: its number, the mean of each loss, its seconds.

    Raises (on entering):
        FolderInUse: another process trains in this folder.
        RuntimeError: TensorBoard is asked for and not installed.
        ValueError: the folder belongs to another spec, or both its checkpoints are unreadable.
    """

    def __init__(
        self,
        folder: str | Path,
        parts: dict,
        spec: dict,
        generator: torch.Generator,
        total: int,
        *,
        device: torch.device = torch.device("cpu"),
        about: dict | None = None,
        tensorboard: bool = False,
        world: World = World(),
    ):
        self.folder, self.parts, self.generator, self.total = TrainingFolder(folder), parts, generator, total
        self.device, self.about, self.tensorboard, self.world = device, about or {}, tensorboard, world
        self.spec = json.loads(json.dumps(spec))
        self.history: list[dict] = []
        self._stop = StopRequest(announced=world.is_main)
        self._writer = None
        self._resumed: dict = {}  # the epoch that an earlier process left in the middle
        self._steps: Steps | None = None
        self._save_seconds, self._saved_at = FIRST_SAVE_SECONDS, time.monotonic()

    @property
    def started(self) -> bool:
        """Whether an earlier process left a checkpoint here."""
        return self.folder.started

    def __enter__(self) -> Run:
        before = self.folder.version()
        if before:
            self._resume(self.folder.load())
            if len(self.history) >= self.total:  # read without a lock, which a disk may not take
                return self
        locked = not self.world.is_main or self.folder.lock()
        self.world.wait()
        try:
            if not locked:
                raise FolderInUse(
                    f"another run is writing {self.folder.path}; wait for it or choose another "
                    "folder, then run the same command again"
                )
            if self.folder.version() != before:  # another process has saved meanwhile
                self._resume(self.folder.load())
            if self.world.is_main:
                self.folder.clean()
                self._writer = self._tensorboard() if self.tensorboard else None
            self._stop.listen()
        except BaseException:
            self.folder.unlock()
            raise
        return self

    def _tensorboard(self):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RuntimeError(
                "TensorBoard events need the package tensorboard: install paul-book[tensorboard], or do without them"
            ) from error
        return SummaryWriter(self.folder.path)

    def __exit__(self, _kind, error, _trace):
        self._stop.forget()
        if self._writer:
            self._writer.close()
        self.folder.unlock()
        if self.world.size > 1 and isinstance(error, RuntimeError) and re.search("gloo|nccl", str(error), re.I):
            reason = str(error).partition("\n")[0]
            raise RuntimeError(
                f"another of the {self.world.size} processes has stopped ({reason}); start them all again "
                "with the same command: the run goes on from its last checkpoint"
            ) from error

    def _resume(self, state: dict) -> None:
        """Take up a checkpoint's state.

        Raises:
            ValueError: it is of another training, or not whole; names the folder and what is wrong.
        """
        try:
            training = state["training"]
            theirs = json.loads(training["spec"])
            theirs.get("stage")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._not_whole(error) from error
        if theirs != self.spec:
            differing = ", ".join(key for key in self.spec if theirs.get(key) != self.spec[key])
            raise ValueError(
                f"{self.folder.path} holds another training (other {differing}); choose another folder or "
                "delete this one"
            )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.generator.set_state(training["generator"])
            torch.set_rng_state(training["torch_rng"])
            history, self._resumed = json.loads(training["history"]), training["epoch"]
            if not isinstance(history, list) or not isinstance(self._resumed, dict):
                raise TypeError("history or epoch")
            self.history = history
        except (KeyError, TypeError, AttributeError, ValueError, IndexError, RuntimeError) as error:
            raise self._not_whole(error) from error

    def _not_whole(self, error: Exception) -> ValueError:
        what = f"{type(error).__name__}: {first_line(error)}"
        return ValueError(
            f"the last checkpoint in {self.folder.path} is not that of a whole training ({what}); choose another "
            "folder or delete this one"
        )

    def save(self) -> None:
        """Write the state after the last step.

        Raises:
            FloatingPointError: a weight is not finite; nothing is written.
        """
        begin = time.monotonic()
        state = {name: part.state_dict() for name, part in self.parts.items()}
        for name, part in self.parts.items():
            if isinstance(part, nn.Module):
                self._refuse_unless_finite(state[name])
        whole = self._steps.done == len(self._steps)
        epoch = {} if whole else {**self._steps.state_dict(), "seconds": self._epoch_seconds()}
        if self.world.is_main:
            self.folder.save(
                {
                    **self.about,
                    **state,
                    "training": {
                        "spec": json.dumps(self.spec),
                        "history": json.dumps(self.history),
                        "epoch": epoch,
                        "generator": self.generator.get_state(),
                        "torch_rng": torch.get_rng_state(),
                    },
                },
                self.history,
            )
        self._saved_at = time.monotonic()
        self._save_seconds = max(self._saved_at - begin, 0.0)

    def _refuse_unless_finite(self, state: dict[str, Tensor]) -> None:
        finite = torch.stack([value.isfinite().all() for value in state.values()]).tolist()
        if not all(finite):
            raise self._steps.not_finite(self._steps.count, list(state)[finite.index(False)])

    def _epoch_seconds(self) -> float:
        return self._resumed.get("seconds", 0.0) + time.monotonic() - self._begin

    def _after_step(self) -> None:
        steps = self._steps
        if steps.done == len(steps) or (self.world.size > 1 and steps.done % steps.every):
            return
        due = time.monotonic() - self._saved_at > self._save_seconds / SAVE_SHARE
        asked, due = self.world.any([bool(self._stop.number), due], self.device)
        if asked or due:
            self.save()
        if asked:
            raise Stopped(self._stop.number or signal.SIGTERM)

    def epochs(self, draw: Callable[[], Sequence[Tensor]], label: str) -> Iterator[tuple[int, Steps]]:
        """Yield (epoch, Steps) for each epoch still to do, the first one from the step where it was left.

        Args:
            draw: makes the batches of an epoch, each the images' places in the set.
            label: what the progress bar calls it.
        """
        every = 1 if self.device.type == "cpu" else 50
        # a worker's parent shows the progress of all; elsewhere TQDM_DISABLE decides, which an explicit False mutes
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
            with tqdm(
                total=len(steps),
                initial=steps.done,
                desc=f"{label} {epoch + 1}/{self.total}",
                unit="step",
                leave=False,
                **hidden,
            ) as steps.bar:
                yield epoch, steps
            self.history.append({"epoch": epoch + 1, **steps.means(), "seconds": round(self._epoch_seconds(), 3)})
            self._resumed = {}
            if self._writer:
                for name, value in steps.means().items():
                    self._writer.add_scalar(name, value, epoch + 1)
            self.save()
            if self._stop.number and epoch + 1 < self.total:
                raise Stopped(self._stop.number)

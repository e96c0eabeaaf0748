"""What both training stages share: a run that survives being stopped, and its progress."""

from __future__ import annotations

import hashlib
import json
import time
from multiprocessing import parent_process
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm.auto import tqdm

from paul import checkpoint, records
from paul.patchnet import PatchNet


class Progress:
    """Running means of an epoch's losses, read from the device every `every` steps."""

    def __init__(self, where: str, bar: tqdm, every: int):
        self.where, self.bar, self.every = where, bar, every
        self.names: list[str] = []
        self.unread: list[Tensor] = []
        self.sums: Tensor | float = 0.0
        self.steps = 0

    def add(self, **losses: Tensor) -> None:
        """Note one step's losses.

        Raises:
            FloatingPointError: a loss is not finite; names epoch, step and loss.
        """
        self.names = list(losses)
        self.unread.append(torch.stack([value.detach() for value in losses.values()]))
        self.bar.update()
        if len(self.unread) == self.every:
            self.bar.set_postfix({name: f"{mean:.3f}" for name, mean in self.means().items()}, refresh=False)

    def means(self) -> dict[str, float]:
        """Mean of each loss over the steps so far; raises as `add` does."""
        if self.unread:
            rows = torch.stack(self.unread).double().cpu()
            bad = (~rows.isfinite()).nonzero()
            if len(bad):
                step = int(bad[0, 0])
                names = [name for name, finite in zip(self.names, rows[step].isfinite()) if not finite]
                raise self.not_finite(self.steps + step + 1, ", ".join(names))
            self.sums = self.sums + rows.sum(0)
            self.steps += len(rows)
            self.unread = []
        return dict(zip(self.names, (self.sums / self.steps).tolist()))

    def not_finite(self, step: int, what: str) -> FloatingPointError:
        """What stops a run whose numbers have left the finite ones."""
        return FloatingPointError(f"{self.where}, step {step}: not finite: {what}. The checkpoint of the last whole "
                                  "epoch is kept; lower the learning rate, or look at the images of this epoch")


class Run:
    """A training of some epochs in a folder: locked while it runs, checkpointed after each epoch, resumed where it was.

    The checkpoint holds the network, everything in `parts` (whatever has a state_dict: optimiser, memories), the state
    of `generator` and of torch's own, so that a resumed run takes the same steps, bit for bit on a CPU. A finished
    training is only read, by as many processes at once as like.

    Args:
        folder: where checkpoint.pt and log.jsonl go.
        model: PatchNet under training.
        spec: what is trained, as plain data; a folder that holds another spec is refused.
        parts: name -> object with state_dict and load_state_dict.
        generator: decides order and augmentation.
        total: epochs to train.
        tensorboard: also write TensorBoard events into the folder.

    Raises (on entering):
        RuntimeError: another process trains in this folder, or TensorBoard is asked for and not installed.
        ValueError: the folder belongs to another spec, or its checkpoint is unreadable.
    """

    def __init__(self, folder: str | Path, model: PatchNet, spec: dict, parts: dict, generator: torch.Generator,
                 total: int, tensorboard: bool = False):
        self.folder = Path(folder)
        self.model, self.parts, self.generator, self.total = model, parts, generator, total
        self.spec = json.loads(json.dumps({**spec, "code": records.code_hash()}))
        self.tensorboard = tensorboard
        self.history: list[dict] = []
        self._writer = None

    @property
    def file(self) -> Path:
        return self.folder / "checkpoint.pt"

    def __enter__(self) -> Run:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._resume()
            if len(self.history) < self.total:
                raise RuntimeError(f"another run is writing {self.folder}; wait for it or choose another folder, then "
                                   "run the same command again") from None
            return self
        try:
            self._resume()
            if len(self.history) < self.total:
                self._prepare()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _prepare(self) -> None:
        for name in (self.file.name, "log.jsonl"):
            for left_behind in self.folder.glob(f".{name}.*"):  # half-written when an earlier process was killed
                left_behind.unlink()
        if self.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise RuntimeError("--tensorboard needs the package tensorboard: install paul-book[tensorboard], or "
                                   "leave the option out") from error
            self._writer = SummaryWriter(self.folder)

    def __exit__(self, *_):
        if self._writer:
            self._writer.close()
        self._lock.release()

    @property
    def started(self) -> bool:
        """Whether an earlier process left a checkpoint here."""
        return self.file.is_file()

    def _resume(self) -> None:
        """Take up the state of the last checkpoint, when there is one."""
        if not self.started:
            return
        state = checkpoint.read(self.file)
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
        self.history = json.loads(training["history"])

    def save(self) -> None:
        """Write the state after the last whole epoch; the log first, since an epoch is done once its checkpoint is."""
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        checkpoint.write_atomically(self.folder / "log.jsonl", lambda file: file.write(lines.encode()))
        checkpoint.save(self.file, self.model, **{name: part.state_dict() for name, part in self.parts.items()},
                        generator=self.generator.get_state(), torch_rng=torch.get_rng_state(),
                        history=json.dumps(self.history), spec=json.dumps(self.spec))

    def epochs(self, steps: int, label: str):
        """Yield (epoch, Progress) for each epoch still to do; saves after each.

        Raises:
            FloatingPointError: an epoch left a weight that is not finite; it is not saved.
        """
        device = next(self.model.parameters()).device
        # a worker's parent shows the progress of all; elsewhere TQDM_DISABLE decides, which an explicit False would mute
        hidden = {"disable": True} if parent_process() is not None else {}
        for epoch in range(len(self.history), self.total):
            begin = time.perf_counter()
            with tqdm(total=steps, desc=f"{label} {epoch + 1}/{self.total}", unit="step", leave=False,
                      **hidden) as bar:
                progress = Progress(f"{label}, epoch {epoch + 1}", bar, every=1 if device.type == "cpu" else 50)
                yield epoch, progress
            means = progress.means()
            broken = [name for name, value in self.model.state_dict().items() if not value.isfinite().all()]
            if broken:
                raise progress.not_finite(progress.steps, broken[0])
            self.history.append({"epoch": epoch + 1, **means, "seconds": round(time.perf_counter() - begin, 3)})
            if self._writer:
                for name, value in means.items():
                    self._writer.add_scalar(name, value, epoch + 1)
            self.save()


def fingerprint(*tensors: Tensor) -> str:
    """Hash of the tensors' bytes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().view(-1).numpy())
    return found.hexdigest()[:16]

"""What both training stages share: device, precision, a run that survives being stopped, features, statistics."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from multiprocessing import parent_process
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from tqdm.auto import tqdm

from paul import checkpoint, records
from paul.images import normalize, unit_range
from paul.patchnet import PatchNet


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, else a GPU when there is one, else the CPU.

    Raises:
        ValueError: the device asked for is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name}: no such device; it is cpu, cuda or a numbered cuda:1") from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise ValueError(f"--device {name}: this machine has {torch.cuda.device_count()} usable GPUs; leave the option "
                         "out to use what there is")
    return device


def precision(device: torch.device):
    """bf16 autocast on a GPU, plain float32 on a CPU; losses, norms and distances stay in float32 in either."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


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


def on_device(images: Tensor, device: torch.device) -> Tensor:
    """Keep a set's uint8 images on the GPU where half its free memory holds them, else on the CPU."""
    if device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return images.to(device)
    return images


def batch_of(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """The images at `rows` as float in [0, 1] on the device."""
    return unit_range(images[rows.to(images.device)].to(device, non_blocking=True))


@torch.inference_mode()
def extract(model: PatchNet, images: Tensor, batch: int = 256) -> Tensor:
    """Descriptors of uint8 images [n, 3, H, W] -> [n, M*D] on the model's device; the model is left as it was."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    with precision(device):
        parts = [model.describe(normalize(unit_range(part.to(device)))) for part in images.split(batch)]
    model.train(was_training)
    return torch.cat(parts)


@torch.no_grad()
def refresh_statistics(model: PatchNet, images: Tensor, batch: int = 64) -> None:
    """Set every batch norm's statistics to those of these images, weights untouched (AdaBN: Li et al., 2018).

    Each statistic becomes the plain average over batches, each of them spread over the whole set: neighbours in a set
    often show one person, and batches of a single person would hide how much people differ.

    Raises:
        ValueError: fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"batch-norm statistics need at least two images, got {len(images)}")
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    was_training, device = model.training, next(model.parameters()).device
    model.train()
    for norm in norms:
        norm.train()
    with precision(device):
        batches = -(-len(images) // max(batch, 2))
        for first in range(batches):
            model.describe(normalize(unit_range(images[first::batches].to(device))))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    model.train(was_training)

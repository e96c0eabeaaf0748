"""What both training stages share: device, precision, a run that survives being stopped, features, statistics."""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from tqdm.auto import tqdm

from paul import checkpoint
from paul.images import normalize, unit_range
from paul.patchnet import PatchNet


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, else a GPU when there is one, else the CPU.

    Raises:
        ValueError: the device asked for is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: this machine has no usable GPU; leave the option out to run on the CPU")
    return device


def precision(device: torch.device):
    """bf16 autocast on a GPU, plain float32 on a CPU; losses, norms and distances stay in float32 in either."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


class Progress:
    """Running means of an epoch's losses, read from the device every `every` steps."""

    def __init__(self, where: str, bar: tqdm, every: int):
        self.where, self.bar, self.every = where, bar, every
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, **losses: Tensor) -> None:
        """Note one step's losses.

        Raises:
            FloatingPointError: a loss is not finite; names epoch, step and loss.
        """
        self.steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.bar.update()
        if self.steps % self.every == 0:
            self.bar.set_postfix({name: f"{mean:.3f}" for name, mean in self.means().items()}, refresh=False)

    def means(self) -> dict[str, float]:
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"{self.where}, step {self.steps}: {name} is not finite. The checkpoint of the last whole epoch is "
                    "kept; lower the learning rate, or look at the images of this epoch")
        return means


class Run:
    """A training of some epochs in a folder: locked while it runs, checkpointed after each epoch, resumed where it was.

    The checkpoint holds the network, everything in `parts` (whatever has a state_dict: optimiser, memories), the state
    of `generator` and of torch's own, so that a resumed run takes the same steps, bit for bit on a CPU.

    Args:
        folder: where checkpoint.pt and log.jsonl go.
        model: PatchNet under training.
        spec: what is trained, as plain data; a folder that holds another spec is refused.
        parts: name -> object with state_dict and load_state_dict.
        generator: decides order and augmentation.
        tensorboard: also write TensorBoard events into the folder.
    """

    def __init__(self, folder: str | Path, model: PatchNet, spec: dict, parts: dict, generator: torch.Generator,
                 tensorboard: bool = False):
        self.folder = Path(folder)
        self.model, self.spec, self.parts, self.generator = model, spec, parts, generator
        self.tensorboard = tensorboard
        self.history: list[dict] = []

    @property
    def file(self) -> Path:
        return self.folder / "checkpoint.pt"

    def __enter__(self) -> Run:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(f"another run is writing {self.folder}; wait for it or choose another folder") from None
        self._writer = None
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter
            self._writer = SummaryWriter(self.folder)
        return self

    def __exit__(self, *_):
        if self._writer:
            self._writer.close()
        self._lock.release()

    @property
    def started(self) -> bool:
        """Whether an earlier process left a checkpoint here."""
        return self.file.is_file()

    def resume(self) -> None:
        """Take up the state of the last checkpoint, when there is one.

        Raises:
            ValueError: the folder belongs to another spec, or its checkpoint is unreadable.
        """
        if not self.started:
            return
        state = checkpoint.read(self.file)
        training = state.get("training", {})
        if training.get("spec") != json.dumps(self.spec, sort_keys=True):
            raise ValueError(f"{self.folder} holds another training (other options, seed or code); choose another "
                             "folder or delete this one")
        self.model.load_state_dict(state["model"])
        for name, part in self.parts.items():
            part.load_state_dict(training[name])
        self.generator.set_state(training["generator"])
        torch.set_rng_state(training["torch_rng"])
        self.history = json.loads(training["history"])

    def save(self) -> None:
        """Write the state after the last whole epoch."""
        checkpoint.save(self.file, self.model, **{name: part.state_dict() for name, part in self.parts.items()},
                        generator=self.generator.get_state(), torch_rng=torch.get_rng_state(),
                        history=json.dumps(self.history), spec=json.dumps(self.spec, sort_keys=True))
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        checkpoint.write_atomically(self.folder / "log.jsonl", lambda file: file.write(lines.encode()))

    def epochs(self, total: int, steps: int, label: str):
        """Yield (epoch, Progress) for each epoch still to do; saves after each."""
        device = next(self.model.parameters()).device
        for epoch in range(len(self.history), total):
            begin = time.perf_counter()
            with tqdm(total=steps, desc=f"{label} {epoch + 1}/{total}", unit="step", leave=False) as bar:
                progress = Progress(f"{label}, epoch {epoch + 1}", bar, every=1 if device.type == "cpu" else 50)
                yield epoch, progress
            means = progress.means()
            self.history.append({"epoch": epoch + 1, **means, "seconds": round(time.perf_counter() - begin, 3)})
            if self._writer:
                for name, value in means.items():
                    self._writer.add_scalar(name, value, epoch + 1)
            self.save()


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

    Each statistic becomes the plain average over batches of at least two images, in the order given.
    """
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
        for part in images.split(batch):
            if len(part) > 1:
                model.describe(normalize(unit_range(part.to(device))))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    model.train(was_training)

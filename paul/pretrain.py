"""Source stage: PatchNet learns to tell the labelled people of the source set apart (ledger 22-26)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from paul.augment import random_flip, random_shift
from paul import distributed
from paul.device import announce, batch_of, on_device, pick_device, precision, prepare, send, sgd
from paul.engine import Run, fingerprint, within_memory
from paul.images import normalize
from paul.losses import triplet_loss
from paul.patchnet import PatchNet, PatchNetOptions, concatenate
from paul.schedules import cosine_learning_rates, source_learning_rates
from paul.weights import content_of


@dataclass(frozen=True)
class PretrainOptions:
    """How the source stage trains; the defaults are the paper's and the released code's.

    Attributes:
        epochs, batch: a batch is `batch` images and as many partners of the same people (48 pairs; ledger 22).
        schedule: "paper" (steps at fixed epochs, see `schedules`) or "cosine" (one cycle up to `peak_rate`).
        peak_rate: for "cosine".
        momentum, weight_decay: of SGD.
        label_smoothing: of the cross-entropy.
        triplet_weight, triplet_margin, positive: the triplet term (ledger 23).
        shift: random shift and scale, as a share of the image; flips are always on.
    """

    epochs: int = 60
    batch: int = 48
    schedule: str = "paper"
    peak_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    triplet_weight: float = 0.1
    triplet_margin: float = 1.0
    positive: str = "nearest"
    shift: float = 0.0

    def __post_init__(self):
        if self.schedule not in ("paper", "cosine"):
            raise ValueError(f"schedule must be 'paper' or 'cosine', got {self.schedule!r}")
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(f"epochs and batch must be at least 1, got {self.epochs} and {self.batch}")


class Partners:
    """Another image of the same person for every image; the image itself only where there is no other (ledger 26)."""

    def __init__(self, person_ids: np.ndarray):
        ids = torch.tensor(np.asarray(person_ids))
        self.sorted = ids.argsort(stable=True)
        _, group, count = ids[self.sorted].unique_consecutive(return_inverse=True, return_counts=True)
        start = count.cumsum(0) - count
        place = torch.empty_like(group)
        place[self.sorted] = torch.arange(len(ids)) - start[group]
        of_image = torch.empty_like(group)
        of_image[self.sorted] = group
        self.start, self.count, self.place = start[of_image], count[of_image], place

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """rows [B] -> partners [B]."""
        count, place = self.count[rows], self.place[rows]
        step = 1 + (torch.rand(len(rows), generator=generator) * (count - 1)).long()
        return self.sorted[self.start[rows] + (place + step) % count]


def parameter_groups(model: PatchNet) -> list[dict]:
    """Trainable parameters by the name of their learning rate: backbone, new, patch_generator."""
    groups = {"backbone": model.backbone, "patch_generator": model.generator}
    taken = {id(p) for module in groups.values() for p in module.parameters()}
    members = {name: list(module.parameters()) for name, module in groups.items()}
    members["new"] = [p for p in model.parameters() if id(p) not in taken]
    return [{"params": [p for p in params if p.requires_grad], "name": name}
            for name, params in members.items() if any(p.requires_grad for p in params)]


def set_learning_rates(optimizer: torch.optim.Optimizer, rates: dict[str, float]) -> None:
    """Give each group the rate that bears its name."""
    for group in optimizer.param_groups:
        group["lr"] = rates[group["name"]]


def pretrain(images: Tensor, person_ids: np.ndarray, network: PatchNetOptions, options: PretrainOptions, *,
             folder: str | Path, seed: int = 0, weights: str | None = None, device: str | None = None,
             tensorboard: bool = False, low_memory: bool = False, compile: bool = False) -> PatchNet:
    """Train a PatchNet on labelled images; interrupted anywhere, the same call goes on where it was.

    The loss is the sum over patches of the cross-entropy, plus a triplet term on the concatenated embedding.

    Args:
        images: uint8 [n, 3, H, W] of the source.
        person_ids: [n] who they show.
        network, options: what to train and how.
        folder: checkpoint.pt and log.jsonl go there.
        seed: decides weights, order and augmentation.
        weights: of the backbone, see `paul.backbones.build_backbone`.
        device: "cpu", "cuda", ...; a GPU when there is one by default.
        tensorboard: also write TensorBoard events into the folder.
        low_memory: forget activations and compute them again; slower, the same result.
        compile: `torch.compile` the network.

    Returns:
        The network after the last epoch, in the source stage (ledger 31).

    Raises:
        ValueError: a batch larger than the set, fewer than two people, a folder that holds another training.
        RuntimeError: another run is writing the folder; the memory is too small, with what helps.
        FloatingPointError: a loss that is not finite.
    """
    if distributed.launched():
        raise ValueError("the source stage trains in one process; torchrun is for the target stage (adapt)")
    device = pick_device(device)
    if len(person_ids) != len(images):
        raise ValueError(f"{len(images)} images but {len(person_ids)} person ids")
    people, labels = np.unique(person_ids, return_inverse=True)
    if len(people) < 2:
        raise ValueError("the source stage needs at least two people")
    if options.batch > len(images):
        raise ValueError(f"batch {options.batch} is larger than the set of {len(images)} images; lower pretrain.batch")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    started = any(Path(folder).glob("checkpoint*.pt"))  # then its weights follow, and the first ones may be gone
    model = network.build(num_classes=len(people), weights=None if started else weights).to(device)
    model.image_size = tuple(images.shape[-2:])
    model.low_memory = low_memory
    prepare(model, device, compile)
    optimizer = sgd(parameter_groups(model), device, 0.1, options.momentum, options.weight_decay)
    labels, partners = torch.from_numpy(labels), Partners(person_ids)
    spec = {"stage": "source", "network": asdict(network), "options": asdict(options), "seed": seed,
            "weights": content_of(network.backbone, weights), "images": fingerprint(images, labels)}
    images = on_device(images, device)
    announce(images, device)
    with Run(folder, model, spec, {"optimizer": optimizer}, generator, options.epochs, tensorboard) as run:
        model.train()
        for epoch, steps in run.epochs(
                lambda: torch.randperm(len(images), generator=generator).split(options.batch), "source"):
            for rows in steps:
                if options.schedule == "paper":
                    rates = source_learning_rates(epoch)
                else:
                    rates = cosine_learning_rates((epoch * len(steps) + steps.done) / (options.epochs * len(steps)), options.peak_rate)
                set_learning_rates(optimizer, rates)
                rows = torch.cat([rows, partners.draw(rows, generator)])
                with within_memory(steps, "pretrain.batch"):
                    x = random_flip(batch_of(images, rows, device), generator)
                    if options.shift:
                        x = random_shift(x, generator, options.shift)
                    target = send(labels[rows], device)
                    with precision(device):
                        output = model(normalize(x))
                    logits = output.logits.float()
                    identity = sum(F.cross_entropy(patch, target, label_smoothing=options.label_smoothing)
                                   for patch in logits)
                    triplet = triplet_loss(concatenate(output.embeddings), target, margin=options.triplet_margin,
                                           positive=options.positive)
                    loss = identity + options.triplet_weight * triplet
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                steps.add(loss=loss, identity=identity, triplet=triplet)
        model.low_memory = False
        model.history = run.history
    return model

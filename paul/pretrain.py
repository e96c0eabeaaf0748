"""Source stage: PatchNet learns to tell the labelled people of the source set apart (ledger 22-26)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from paul import checkpoint
from paul.data.batches import announce, batch_of, on_device, split
from paul.data.pixels import Pixels
from paul.data.transforms import normalize, random_flip, random_shift
from paul.engine import distributed
from paul.engine.device import pick_device, send
from paul.engine.files import fingerprint
from paul.engine.optim import parameter_groups, prepare, set_learning_rates, sgd
from paul.engine.run import Run
from paul.engine.steps import within_memory
from paul.losses import triplet_loss
from paul.options import PatchNetOptions, PretrainOptions
from paul.patchnet import PatchNet, PatchNetOutput, concatenate
from paul.schedules import cosine_learning_rates, source_learning_rates
from paul.weights import content_of


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

    def draw(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """index [B] -> partners [B]."""
        count, place = self.count[index], self.place[index]
        step = 1 + (torch.rand(len(index), generator=generator) * (count - 1)).long()
        return self.sorted[self.start[index] + (place + step) % count]


def source_losses(output: PatchNetOutput, person_ids: Tensor, options: PretrainOptions) -> dict[str, Tensor]:
    """The sum over patches of the cross-entropy, plus the triplet term on the concatenated embedding (ledger 23).

    Args:
        output: of a batch of B images, with logits.
        person_ids: [B] classes.
        options: weights and margins.
    """
    identity = sum(
        F.cross_entropy(patch, person_ids, label_smoothing=options.label_smoothing) for patch in output.logits.float()
    )
    triplet = triplet_loss(
        concatenate(output.embeddings), person_ids, margin=options.triplet_margin, positive=options.positive
    )
    return {"loss": identity + options.triplet_weight * triplet, "identity": identity, "triplet": triplet}


def pretrain(
    images: Tensor | Pixels,
    person_ids: np.ndarray,
    network: PatchNetOptions,
    options: PretrainOptions,
    *,
    folder: str | Path,
    seed: int = 0,
    weights: str | None = None,
    device: str | None = None,
    tensorboard: bool = False,
    low_memory: bool = False,
    compile: bool = False,
) -> tuple[PatchNet, list[dict]]:
    """Train a PatchNet on labelled images; interrupted anywhere, the same call goes on where it was.

    The loss is the sum over patches of the cross-entropy, plus a triplet term on the concatenated embedding.

    Args:
        images: uint8 [n, 3, H, W] of the source; `Pixels` say where they are to be kept.
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
        The network after the last epoch, in the source stage (ledger 31), and a line per epoch: its number, the mean of
        each loss, its seconds.

    Raises:
        ValueError: a batch larger than the set, fewer than two people, a folder that holds another training.
        RuntimeError: another run is writing the folder; the memory is too small, with what helps.
        FloatingPointError: a loss that is not finite.
    """
    if distributed.launched():
        raise ValueError("the source stage trains in one process; torchrun is for the target stage (adapt)")
    device, pixels = pick_device(device), Pixels.of(images)
    if len(person_ids) != len(pixels):
        raise ValueError(f"{len(pixels)} images but {len(person_ids)} person ids")
    people, labels = np.unique(person_ids, return_inverse=True)
    if len(people) < 2:
        raise ValueError("the source stage needs at least two people")
    if options.batch > len(pixels):
        raise ValueError(f"batch {options.batch} is larger than the set of {len(pixels)} images; lower pretrain.batch")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    started = any(Path(folder).glob("checkpoint*.pt"))  # then its weights follow, and the first ones may be gone
    model = PatchNet(network, num_classes=len(people), weights=None if started else weights).to(device)
    model.image_size = tuple(pixels.images.shape[-2:])
    prepare(model, device, compile)
    optimizer = sgd(parameter_groups(model), device, 0.1, options.momentum, options.weight_decay)
    labels, partners = torch.from_numpy(labels), Partners(person_ids)
    spec = {
        "stage": "source",
        "network": asdict(network),
        "options": asdict(options),
        "seed": seed,
        "weights": content_of(network.backbone, weights),
        "images": fingerprint(pixels.images, labels),
        "numerics": PretrainOptions.NUMERICS,
    }
    pixels = on_device(pixels, device)
    announce(pixels, device)

    def draw() -> list[Tensor]:
        return split(torch.randperm(len(pixels), generator=generator), options.batch, options.min_batch)

    with Run(
        folder,
        {"model": model, "optimizer": optimizer},
        spec,
        generator,
        options.epochs,
        device=device,
        about=checkpoint.describe(model),
        tensorboard=tensorboard,
    ) as run:
        model.train()
        for epoch, steps in run.epochs(draw, "source"):
            for index in steps:
                if options.schedule == "paper":
                    rates = source_learning_rates(epoch)
                else:
                    progress = (epoch * len(steps) + steps.done) / (options.epochs * len(steps))
                    rates = cosine_learning_rates(progress, options.peak_rate)
                set_learning_rates(optimizer, rates)
                index = torch.cat([index, partners.draw(index, generator)])
                with within_memory(steps, "pretrain.batch"):
                    x = random_flip(batch_of(pixels, index, device), generator)
                    if options.shift:
                        x = random_shift(x, generator, options.shift)
                    losses = source_losses(model(normalize(x), low_memory), send(labels[index], device), options)
                    optimizer.zero_grad()
                    losses["loss"].backward()
                    optimizer.step()
                steps.add(**losses)
    return model, run.history

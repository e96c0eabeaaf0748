"""Target stage: PatchNet adapts to unlabelled images with PEDAL and IPFL (paper Sec. 3.4; ledger 5-18)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from paul.augment import random_flip, surrogates
from paul import distributed
from paul.device import announce, batch_of, batches, on_device, precision, prepare, send, sgd
from paul.engine import Run, fingerprint, within_memory
from paul.features import refresh_statistics
from paul.images import normalize
from paul.losses import ipfl_loss, pedal_loss, pull_loss
from paul.memory import ImageCenters, PatchMemory
from paul.patchnet import PatchNet, PatchNetOutput, concatenate
from paul.pretrain import parameter_groups, set_learning_rates
from paul.schedules import target_learning_rates

PATCH_LOSSES = {"pedal": pedal_loss, "pull": pull_loss, None: None}


@dataclass(frozen=True)
class AdaptOptions:
    """How the target stage trains; the defaults are the paper's, with the released code's where the paper is silent.

    Attributes:
        loss_c: "pedal" (L_c), "pull" (its numerator alone) or None.
        loss_v: whether L_v takes part.
        lam: weight of L_c in L = L_v + lambda L_c (ledger 14).
        s, k: of PEDAL (ledger 1, 2).
        rate: l, of both memories (ledger 6, 11).
        renormalize: bring bank entries back to unit length (ledger 6).
        bank_init: "train" or "eval", the network's mode in the pass that fills the bank (ledger 5).
        margin, r, include_self, max_candidates, no_negative: of IPFL (ledger 12-14).
        ipfl_space: "embedding" (cosines to the embedding layer's rows) or "patch" (patch features; ledger 9).
        ipfl_targets: "centers" or "raw" (the image's surrogate and the other images themselves; ledger 11).
        epochs, batch, drop_last, lr, decay_epoch, momentum, weight_decay: of SGD; `batch` real images go with as many
            surrogates (ledger 15, 27).
        surrogate, jitter, hue_turn, degrees, crop_area, padding: see `paul.augment.surrogates` (ledger 16, 17).
        refresh_statistics: set batch-norm statistics to those of the plain target images before testing.
    """

    loss_c: str | None = "pedal"
    loss_v: bool = True
    lam: float = 2.0
    s: float = 30.0
    k: int = 10
    rate: float = 0.1
    renormalize: bool = False
    bank_init: str = "train"
    margin: float = 2.0
    r: int = 3
    include_self: bool = True
    max_candidates: int = 15
    no_negative: str = "zero"
    ipfl_space: str = "embedding"
    ipfl_targets: str = "centers"
    epochs: int = 60
    batch: int = 42
    drop_last: bool = False
    lr: float = 1e-4
    decay_epoch: int = 50
    momentum: float = 0.9
    weight_decay: float = 1e-4
    surrogate: str = "all"
    jitter: float = 0.2
    hue_turn: float = 0.1
    degrees: float = 10.0
    crop_area: tuple[float, float] = (0.70, 0.95)
    padding: str = "zeros"
    refresh_statistics: bool = False

    def __post_init__(self):
        object.__setattr__(self, "crop_area", tuple(self.crop_area))  # a list when read back from JSON
        for name, allowed in (("loss_c", PATCH_LOSSES), ("bank_init", ("train", "eval")),
                              ("ipfl_space", ("embedding", "patch")), ("ipfl_targets", ("centers", "raw")),
                              ("surrogate", ("all", "one")), ("no_negative", ("zero", "skip"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {getattr(self, name)!r}")
        if self.loss_c is None and not self.loss_v:
            raise ValueError("nothing to train: switch on loss_c or loss_v (for statistics alone use `adabn`)")
        if self.epochs < 1 or self.batch < 2:
            raise ValueError(f"epochs must be at least 1 and batch at least 2, got {self.epochs} and {self.batch}")
        if not self.s > 0 or self.k <= 0:
            raise ValueError(f"s and k must be positive, got {self.s} and {self.k}")


class PaulLoss:
    """L = L_v + lambda L_c over one batch, with the two memories it keeps (paper Sec. 3.4)."""

    def __init__(self, model: PatchNet, num_images: int, options: AdaptOptions):
        patches, dim = model.options.num_patches, model.options.dim
        image_dim = patches * (model.embedding.weight.shape[1] if options.ipfl_space == "embedding" else dim)
        self.options = options
        self.memory = PatchMemory(num_images, patches, dim, options.rate, options.renormalize)
        self.centers = ImageCenters(num_images, image_dim, options.rate)
        self.ranking = dict(margin=options.margin, r=options.r, include_self=options.include_self,
                            max_candidates=options.max_candidates, no_negative=options.no_negative)

    def to(self, device: torch.device) -> PaulLoss:
        self.memory.to(device)
        self.centers.to(device)
        return self

    def parts(self) -> dict:
        """What a checkpoint keeps of it."""
        return {"memory": self.memory, "centers": self.centers}

    def fill(self, features: Tensor, index: Tensor) -> None:
        """Put features [M, B, D] into the bank for those of the images `index` [B] that are not there yet."""
        index = index.to(features.device)
        new = ~self.memory.filled[index]
        self.memory.update(index[new], features[:, new])

    def patch_level(self, features: Tensor, index: Tensor) -> Tensor:
        """L_c of real images' features [M, B, D]; the bank is brought up to date first (ledger 3)."""
        self.memory.update(index, features.detach())
        loss = PATCH_LOSSES[self.options.loss_c]
        return loss(features, self.memory.bank, index, s=self.options.s, k=self.options.k)

    def image_level(self, output: PatchNetOutput, index: Tensor) -> Tensor:
        """L_v of B real images and then their B surrogates (ledger 9-12)."""
        o = self.options
        f = concatenate(output.embeddings if o.ipfl_space == "embedding" else output.features)
        real, surrogate = f.chunk(2)
        own = torch.arange(len(real), device=f.device)
        if o.ipfl_targets == "raw":
            return ipfl_loss(real, real, own, positives=surrogate, **self.ranking)
        centers = self.centers.update(index, torch.stack([real, surrogate], 1).detach())
        return ipfl_loss(f, centers, own.repeat(2), **self.ranking)

    def __call__(self, output: PatchNetOutput, index: Tensor) -> dict[str, Tensor]:
        """Losses of a batch of real images, followed by as many surrogates when L_v takes part.

        Args:
            output: of the images that this process holds.
            index: [B] the whole batch's places in the set.
        """
        losses = {}
        if self.options.loss_v:
            losses["loss_v"] = self.image_level(output, index)
        if self.options.loss_c:
            real = output.features.shape[1] // (2 if self.options.loss_v else 1)
            losses["loss_c"] = self.patch_level(output.features[:, :real], index)
        total = losses.get("loss_v", 0) + self.options.lam * losses.get("loss_c", 0)
        return {"loss": total, **losses}


def paul_loss(model: PatchNet, num_images: int, options: AdaptOptions, world: distributed.World) -> PaulLoss:
    """The loss for one process, or for one of several that share the memories."""
    if world.size == 1:
        return PaulLoss(model, num_images, options)
    from paul.sharded import ShardedPaulLoss

    return ShardedPaulLoss(model, num_images, options, world)


@torch.no_grad()
def fill_bank(loss: PaulLoss, model: PatchNet, images: Tensor, generator: torch.Generator,
              world: distributed.World = distributed.World()) -> None:
    """w_{j,0} = x_{j,0}: one pass over the real images before training (ledger 5)."""
    device = next(model.parameters()).device
    model.train(loss.options.bank_init == "train")
    for rows in torch.randperm(len(images), generator=generator).split(2 * loss.options.batch):
        if len(rows) < 2:  # a last single image cannot pass batch norm in train mode: its partner is any other image
            rows = torch.cat([rows, (rows + 1) % len(images)])
        part = world.part(len(rows))
        x = random_flip(batch_of(images, rows[part], device), generator, (len(rows), part))
        with precision(device):
            features = model(normalize(x)).features
        loss.fill(features, rows)
    model.train()


def adapt(model: PatchNet, images: Tensor, options: AdaptOptions, *, folder: str | Path, seed: int = 0,
          device: str | None = None, tensorboard: bool = False, low_memory: bool = False,
          compile: bool = False) -> PatchNet:
    """Adapt a source-trained PatchNet to unlabelled images; interrupted anywhere, the same call goes on.

    Under torchrun all processes call it with the same arguments: they share each batch and the memories, and go through
    the steps that one process would take (`paul.distributed`, `paul.sharded`).

    Args:
        model: from `pretrain` or a checkpoint; it stays as it is.
        images: uint8 [n, 3, H, W], no labels.
        options: what to train and how.
        folder: checkpoint.pt and log.jsonl go there.
        seed: decides order and augmentation.
        device: a GPU when there is one by default.
        tensorboard: also write TensorBoard events into the folder.
        low_memory: forget activations and compute them again; slower, the same result.
        compile: `torch.compile` the network.

    Returns:
        A new network, in the target stage, after the last epoch (ledger 31).

    Raises:
        ValueError: a batch larger than the set, a folder that holds another training or one from other weights.
        RuntimeError: another run is writing the folder; the memory is too small, with what helps.
        FloatingPointError: a loss that is not finite.
    """
    world, device = distributed.join(device)
    if options.batch > len(images):
        raise ValueError(f"batch {options.batch} is larger than the set of {len(images)} images; lower adapt.batch")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = deepcopy(model).to_target()
    model.image_size = tuple(images.shape[-2:])
    spec = {"stage": "target", "network": asdict(model.options), "options": asdict(options), "seed": seed,
            "weights": fingerprint(*model.state_dict().values()), "images": fingerprint(images)}
    images = on_device(images, device)
    trained = prepare(distributed.with_synchronised_norms(model.to(device), world), device, compile)
    trained.low_memory = low_memory
    if world.is_main:
        announce(images, device)
    loss = paul_loss(model, len(images), options, world).to(device)
    optimizer = sgd(parameter_groups(trained), device, options.lr, options.momentum, options.weight_decay)
    parts = {"optimizer": optimizer, **loss.parts()}
    whole, rest = divmod(len(images), options.batch)
    count = whole + (1 if rest and not options.drop_last else 0)
    with Run(folder, trained, spec, parts, generator, options.epochs, tensorboard, world) as run:
        if options.loss_c and not run.started:
            fill_bank(loss, trained, images, generator, world)
        trained.train()
        network = distributed.shared_gradients(trained, world)
        for epoch, steps in run.epochs(lambda: torch.randperm(len(images), generator=generator).split(
                options.batch)[:count], "target"):
            set_learning_rates(optimizer, target_learning_rates(epoch, options.lr, options.decay_epoch))
            mine = [rows[world.part(len(rows))] for rows in steps.left()]
            for rows, (_, plain) in zip(steps, batches(images, mine, device)):
                if len(rows) == 1 and not options.loss_v:
                    continue  # batch norm cannot train on a last batch of one image
                with within_memory(steps, "adapt.batch"):
                    share = len(rows), world.part(len(rows))
                    x = random_flip(plain, generator, share)
                    if options.loss_v:
                        changed = surrogates(plain, generator, mode=options.surrogate, jitter=options.jitter,
                                             hue_turn=options.hue_turn, degrees=options.degrees,
                                             area=options.crop_area, padding=options.padding, share=share)
                        x = torch.cat([x, random_flip(changed, generator, share)])
                    with precision(device):
                        output = network(normalize(x))
                    losses = loss(output, send(rows, device) if world.size == 1 else rows)
                    optimizer.zero_grad()
                    losses["loss"].backward()
                    optimizer.step()
                steps.add(**losses)
        if trained is not model:
            model.load_state_dict(trained.state_dict())
        model.low_memory = False
        model.train().history = run.history
    if options.refresh_statistics:
        refresh_statistics(model, images)
    return model

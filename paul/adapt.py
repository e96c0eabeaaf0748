"""Target stage: PatchNet adapts to unlabelled images with PEDAL and IPFL (paper Sec. 3.4; ledger 5-18)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from paul import checkpoint
from paul.data.batches import announce, batch_of, batches, on_device, split
from paul.data.passes import refresh_statistics
from paul.data.pixels import Pixels
from paul.data.transforms import normalize, random_flip, surrogates
from paul.engine import distributed
from paul.engine.files import fingerprint
from paul.engine.optim import parameter_groups, prepare, set_learning_rates, sgd
from paul.engine.run import Run
from paul.engine.steps import within_memory
from paul.objective import PaulLoss
from paul.options import AdaptOptions, checked_seed
from paul.patchnet import PatchNet
from paul.schedules import target_learning_rates
from paul.sharded import objective_of


def views(
    plain: Tensor,
    options: AdaptOptions,
    generator: torch.Generator,
    share: tuple[int, slice] | None = None,
    aspect: Tensor | None = None,
    paired: bool | None = None,
) -> Tensor:
    """What the network sees of a batch: real images, flipped at random, and after them, if `paired`, their surrogates.

    Args:
        plain: [b, 3, H, W] in [0, 1].
        options: losses and surrogates.
        generator: on the CPU; decides everything.
        share, aspect: see `paul.data.transforms.surrogates`.
        paired: as the options say by default.

    Returns:
        [b or 2b, 3, H, W], normalised.
    """
    x = random_flip(plain, generator, share)
    if options.paired if paired is None else paired:
        changed = surrogates(
            plain,
            generator,
            mode=options.surrogate,
            jitter=options.jitter,
            hue_turn=options.hue_turn,
            degrees=options.degrees,
            area=options.crop_area,
            padding=options.padding,
            aspect=aspect,
            share=share,
        )
        x = torch.cat([x, random_flip(changed, generator, share)])
    return normalize(x)


def step(
    network: nn.Module,
    objective: PaulLoss,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    index: Tensor,
    low_memory: bool = False,
) -> dict[str, Tensor]:
    """One training step on the `views` of the images `index` [B]; returns the losses."""
    output = network(x, low_memory)
    losses = objective(output, index)  # L_v against the image centres, L_c against the bank, each brought up to date
    optimizer.zero_grad()
    losses["loss"].backward()
    optimizer.step()
    return losses


@torch.no_grad()
def fill_bank(
    objective: PaulLoss,
    model: PatchNet,
    images: Tensor | Pixels,
    generator: torch.Generator,
    world: distributed.World = distributed.World(),
    aspects: Tensor | None = None,
) -> None:
    """w_{j,0} = x_{j,0}: one pass over the real images before training, beside their surrogates or not (ledger 5, 34).

    `aspects` [n] of the images' files, where surrogates are rotated at them.
    """
    device, options = next(model.parameters()).device, objective.options
    model.train(options.bank_init == "train")
    batch = options.batch if options.bank_surrogates else 2 * options.batch  # as many views as in training
    for index in split(torch.randperm(len(images), generator=generator), batch, options.min_batch):
        part = world.part(len(index))
        plain, aspect = batch_of(images, index[part], device), None if aspects is None else aspects[index]
        x = views(plain, options, generator, (len(index), part), aspect, paired=options.bank_surrogates)
        objective.fill(model(x).features[:, : len(plain)], index)
    model.train()


def adapt(
    model: PatchNet,
    images: Tensor | Pixels,
    options: AdaptOptions,
    *,
    folder: str | Path,
    seed: int = 0,
    device: str | None = None,
    tensorboard: bool = False,
    low_memory: bool = False,
    compile: bool = False,
) -> tuple[PatchNet, list[dict]]:
    """Adapt a source-trained PatchNet to unlabelled images; interrupted anywhere, the same call goes on.

    Under torchrun all processes call it with the same arguments: they share each batch and the memories, and go through
    the steps that one process would take (`paul.engine.distributed`, `paul.sharded`).

    Args:
        model: from `pretrain` or a checkpoint; it stays as it is.
        images: uint8 [n, 3, H, W], no labels; `Pixels` say where they are to be kept.
        options: what to train and how.
        folder: checkpoint.pt and log.jsonl go there.
        seed: decides order and augmentation.
        device: a GPU when there is one by default.
        tensorboard: also write TensorBoard events into the folder.
        low_memory: forget activations and compute them again; slower, the same result.
        compile: `torch.compile` the network.

    Returns:
        A new network, in the target stage, after the last epoch (ledger 31), and a line per epoch: its number, the mean
        of each loss, its seconds.

    Raises:
        ValueError: a batch larger than the set, a folder that holds another training or one from other weights.
        RuntimeError: another run is writing the folder; the memory is too small, with what helps.
        FloatingPointError: a loss that is not finite.
    """
    world, device = distributed.join(device)
    pixels = Pixels.of(images)
    if options.batch > len(pixels):
        raise ValueError(f"batch {options.batch} is larger than the set of {len(pixels)} images; lower adapt.batch")
    torch.manual_seed(checked_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    model = deepcopy(model).to_target()
    model.image_size = tuple(pixels.images.shape[-2:])
    spec = {
        "stage": "target",
        "network": asdict(model.options),
        "options": asdict(options),
        "seed": seed,
        "weights": fingerprint(*model.state_dict().values()),
        "images": fingerprint(pixels.images),
        "numerics": AdaptOptions.NUMERICS,
    }
    pixels = on_device(pixels, device)
    trained = prepare(distributed.with_synchronised_norms(model.to(device), world), device, compile)
    if world.is_main:
        announce(pixels, device)
    objective = objective_of(model, len(pixels), options, world).to(device)
    optimizer = sgd(parameter_groups(trained), device, options.lr, options.momentum, options.weight_decay)
    parts = {"model": trained, "optimizer": optimizer, **objective.memories()}
    aspects = pixels.aspects() if options.rotation == "image" else None

    def draw() -> list[Tensor]:
        order = torch.randperm(len(pixels), generator=generator)
        if options.drop_last:
            order = order[: len(order) // options.batch * options.batch]
        return split(order, options.batch, options.min_batch)

    with Run(
        folder,
        parts,
        spec,
        generator,
        options.epochs,
        device=device,
        about=checkpoint.describe(model),
        tensorboard=tensorboard,
        world=world,
    ) as run:
        if options.loss_c and not run.started:
            fill_bank(objective, trained, pixels, generator, world, aspects)
        trained.train()
        network = distributed.shared_gradients(trained, world)
        for epoch, steps in run.epochs(draw, "target"):
            set_learning_rates(optimizer, target_learning_rates(epoch, options.lr, options.decay_epoch))
            mine = [index[world.part(len(index))] for index in steps.left()]
            for index, (_, plain) in zip(steps, batches(pixels, mine, device)):
                with within_memory(steps, "adapt.batch"):
                    aspect = None if aspects is None else aspects[index]
                    x = views(plain, options, generator, (len(index), world.part(len(index))), aspect)
                    losses = step(network, objective, optimizer, x, index, low_memory)
                steps.add(**losses)
    if trained is not model:
        model.load_state_dict(trained.state_dict())
    model.train()
    if options.refresh_statistics:
        refresh_statistics(model, pixels)
    return model, run.history

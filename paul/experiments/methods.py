"""Every method that the study runs: PAUL, its two controls without training, and the rivals it is compared with."""

from __future__ import annotations

from functools import partial

from paul.experiments.profiles import profile
from paul.method import STEP, Method, NoOptions, Outcome, Task
from paul.options import AdaptOptions, PatchNetOptions
from paul.rivals import bow, cluster_contrast, lomo, pul


def _described_by(model, task: Task, history: list[dict]) -> Outcome:
    from paul.data.passes import extract

    return Outcome(partial(extract, model), task.image_size, model, history)


def direct(task: Task) -> Outcome:
    """The source model as it is."""
    return _described_by(task.source, task, [])


def adabn(task: Task) -> Outcome:
    """The source model with batch-norm statistics of the target (AdaBN: Li et al., 2018)."""
    from paul.data.batches import on_device
    from paul.data.passes import refresh_statistics

    device = next(task.source.parameters()).device
    refresh_statistics(task.source, on_device(task.images(task.image_size), device))
    return _described_by(task.source, task, [])


PURITY = {
    "patch_purity": "Purity, patches",
    "patch_across": "Purity in other cameras, patches",
    "whole_purity": "Purity, whole descriptors",
    "whole_across": "Purity in other cameras, whole descriptors",
}


def neighbourhoods(outcome: Outcome, pixels, split) -> dict[str, float]:
    """Whom L_c would pull together among the images that AdaBN was given, in %, by the names of PURITY: the purity of
    each patch's ten nearest, averaged over patches, and of the whole descriptor's; each among all images and among
    those of other cameras. A small set may have fewer than ten to compare with.

    Args:
        outcome: with the network.
        pixels: the training images [n, 3, H, W].
        split: the same n images with person and camera ids.
    """
    from paul.data.batches import on_device
    from paul.data.passes import extract
    from paul.retrieval.agreement import neighbours, purity

    model = outcome.model
    described = extract(model, on_device(pixels, next(model.parameters()).device))
    largest = int(split.frame["camera_id"].value_counts().max())
    found = []
    for features in (described.unflatten(1, (model.options.num_patches, -1)).unbind(1), [described]):
        for cameras, own in ((None, 1), (split.camera_ids, largest)):
            k = max(1, min(10, len(described) - own))
            shares = [purity(neighbours(each, k, cameras), split.person_ids).mean().item() for each in features]
            found.append(100 * sum(shares) / len(shares))
    return dict(zip(PURITY, found))


def target_stage(task: Task) -> Outcome:
    """The target stage, or a part of it."""
    from paul.adapt import adapt

    model, history = adapt(
        task.source, task.images(task.image_size), task.options, folder=task.folder, seed=task.seed, device=task.device
    )
    return _described_by(model, task, history)


def target_passes(options: AdaptOptions, images: int) -> float:
    """Filling the bank, real images and their surrogates through training steps, batch-norm statistics at the end."""
    filling = (1 + options.bank_surrogates) if options.loss_c else 0
    return images * (options.refresh_statistics + filling + options.epochs * (1 + options.paired) * STEP)


def memory_bytes(options: AdaptOptions, network: PatchNetOptions, images: int) -> int:
    """Bank and image centres (ledger 6, 11)."""
    from paul.experiments.costs import Step

    centre_dim = network.num_patches * (network.embedding_dim or network.dim // 2)
    step = Step(images, patches=network.num_patches, dim=network.dim, centre_dim=centre_dim)
    return step.bank_bytes + step.centre_bytes


METHODS = {
    "direct": Method(NoOptions, direct, draws=False),
    "adabn": Method(NoOptions, adabn, draws=False, passes=lambda options, images: images),
    "neighbours": Method(
        NoOptions, adabn, draws=False, passes=lambda options, images: 2 * images, measure=neighbourhoods, metrics=PURITY
    ),
    "paul": Method(
        AdaptOptions,
        target_stage,
        trains=True,
        at=lambda name, target: profile(name).adapt_options(target),
        passes=target_passes,
        memory_bytes=memory_bytes,
    ),
    "lomo": lomo.METHOD,
    "bow": bow.METHOD,
    "pul": pul.METHOD,
    "cluster_contrast": cluster_contrast.METHOD,
}

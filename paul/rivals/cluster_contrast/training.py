"""Cluster-Contrast: cluster the target's images anew in each epoch, contrast images with a memory of the clusters.

After Dai, Wang, Yuan, Zhu & Tan, "Cluster Contrast for Unsupervised Person Re-Identification", ACCV 2022. One epoch:
1. describe all images with the network as it is, by unit vectors;
2. DBSCAN on the Jaccard distances of their k-reciprocal neighbours; outliers are left out of the epoch;
3. the memory holds each cluster's mean feature;
4. batches of P clusters with Z images each: InfoNCE against all of the memory, which follows the features it is shown.
What differs from the authors' code stands at the head of the folder.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from paul import checkpoint
from paul.data.batches import batch_of, on_device
from paul.data.passes import extract, refresh_statistics
from paul.data.pixels import Pixels
from paul.data.transforms import normalize, random_flip, random_shift
from paul.engine.device import pick_device, send
from paul.engine.files import fingerprint
from paul.engine.optim import adam, parameter_groups, prepare
from paul.engine.run import Run
from paul.options import checked_seed
from paul.patchnet import PatchNet
from paul.rivals.cluster_contrast import ClusterContrastOptions
from paul.rivals.cluster_contrast.memory import ClusterMemory, cluster_nce
from paul.rivals.cluster_contrast.neighbours import dbscan, jaccard_distances


def draw_batches(labels: Tensor, options: ClusterContrastOptions, generator: torch.Generator) -> list[Tensor]:
    """The batches of an epoch, each P clusters, one after the other, with Z images each; none below two clusters.

    Clusters come in turn: none a second time before all have been there, but for those left over when a batch is full.
    Of a cluster with fewer than Z images each is taken as often as the others, as far as that goes.

    Args:
        labels: each image's cluster [n], -1 for an outlier.
        options: P, Z and the number of steps. All clusters make a batch where there are fewer than P.
        generator: decides clusters and images.
    """
    sizes = labels[labels >= 0].bincount().tolist()
    members = labels.argsort(stable=True)[len(labels) - sum(sizes) :].split(sizes)
    together, batches = min(options.clusters, len(sizes)), []
    while len(sizes) > 1 and len(batches) < options.steps:
        for chosen in torch.randperm(len(sizes), generator=generator).split(together):
            if len(chosen) == together:
                orders = [torch.randperm(sizes[c], generator=generator) for c in chosen.tolist()]
                images = [members[c][order] for c, order in zip(chosen.tolist(), orders)]
                repeated = [image.repeat(-(-options.instances // len(image)))[: options.instances] for image in images]
                batches.append(torch.cat(repeated))
    return batches[: options.steps]


def cluster_contrast(
    model: PatchNet,
    images: Tensor | Pixels,
    options: ClusterContrastOptions,
    *,
    folder: str | Path,
    seed: int = 0,
    device: str | None = None,
    tensorboard: bool = False,
) -> tuple[PatchNet, list[dict]]:
    """Adapt a source-trained network to unlabelled images by Cluster-Contrast; interrupted anywhere, the same call goes
    on.

    Args:
        model: from `pretrain`; it stays as it is.
        images: uint8 [n, 3, H, W], no labels.
        options: what to train and how.
        folder: checkpoint.pt and log.jsonl go there.
        seed: decides order and augmentation.
        device: a GPU when there is one by default.
        tensorboard: also write TensorBoard events into the folder.

    Returns:
        A new network after the last epoch, and a line per epoch with the mean loss, the number of `clusters` and
        `kept`, the share of the images that are in one.

    Warns:
        UserWarning: DBSCAN found fewer than two clusters; the epoch trains nothing.

    Raises:
        ValueError: a folder that holds another training or one from other weights.
        ImportError: scikit-learn is not installed.
        RuntimeError: another run is writing the folder.
        FloatingPointError: a loss that is not finite.
    """
    device, pixels = pick_device(device), Pixels.of(images)
    torch.manual_seed(checked_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    spec = {
        "stage": "cluster_contrast",
        "network": asdict(model.options),
        "options": asdict(options),
        "seed": seed,
        "weights": fingerprint(*model.state_dict().values()),
        "images": fingerprint(pixels.images),
        "numerics": ClusterContrastOptions.NUMERICS,
    }
    model = prepare(deepcopy(model).to_target(), device)
    model.image_size = tuple(pixels.images.shape[-2:])
    pixels = on_device(pixels, device)
    optimizer = adam(parameter_groups(model), device, options.lr, options.weight_decay)
    memory = ClusterMemory(len(pixels), device)

    def draw() -> list[Tensor]:
        """Begin an epoch: clusters of the features as they are."""
        features = extract(model, pixels)
        distances = jaccard_distances(features, options.k1, options.k2, options.eps)
        memory.fill(features, dbscan(distances, options.eps, options.min_samples))
        return draw_batches(memory.labels, options, generator)

    with Run(
        folder,
        {"model": model, "optimizer": optimizer, "memory": memory},
        spec,
        generator,
        options.epochs,
        device=device,
        about=checkpoint.describe(model),
        tensorboard=tensorboard,
    ) as run:
        for epoch, steps in run.epochs(draw, "Cluster-Contrast"):
            for group in optimizer.param_groups:
                group["lr"] = options.lr / 10 ** (epoch // options.decay_every)
            found = len(memory.centroids)
            counts = {
                "clusters": torch.tensor(float(found), device=device),
                "kept": torch.tensor(memory.kept, device=device),
            }
            if not len(steps):
                warnings.warn(
                    f"{steps.where}: skipped, DBSCAN found {'one cluster' if found else 'no clusters'} among "
                    f"{len(pixels)} images; {'lower' if found else 'raise'} cluster_contrast.eps",
                    stacklevel=2,
                )
                steps.add(loss=torch.zeros((), device=device), **counts)
            model.train()
            for index in steps:
                x = random_shift(random_flip(batch_of(pixels, index, device), generator), generator, options.shift)
                features = model.describe(normalize(x))
                clusters = send(memory.labels[index], device)
                loss = cluster_nce(features, memory.centroids, clusters, temperature=options.temperature)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                each = features.detach().view(-1, options.instances, features.shape[1])
                memory.update(clusters[:: options.instances], each, options.momentum)
                steps.add(loss=loss, **counts)
            if options.refresh_statistics:
                refresh_statistics(model, pixels)
    return model, run.history

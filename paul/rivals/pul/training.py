"""PUL: cluster the target's images, keep what lies near a cluster's centre, train on it as if clusters were people.

After Fan, Zheng, Yan & Yang, "Unsupervised person re-identification: clustering and fine-tuning", ACM TOMM 14(4), 2018.
One round of it:
1. describe all images with the network of the round before, by unit vectors;
2. k-means; the centre of a cluster is its image nearest to the mean;
3. an image is reliable when its cosine to the centre of its own cluster is above lambda;
4. the *source* network, with a new classifier over the clusters, is fine-tuned on the reliable images.
As the features get better, more images become reliable: learning goes from easy to hard by itself.

The network is PatchNet's image-level twin. What differs from the authors' code: shifts and flips as in our source stage
instead of rotations and shifts, and no dropout before the classifier.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paul import checkpoint
from paul.data.batches import batch_of, on_device, split
from paul.data.passes import extract, refresh_statistics
from paul.data.pixels import Pixels
from paul.data.transforms import normalize, random_flip, random_shift
from paul.engine.device import pick_device, send
from paul.engine.files import fingerprint
from paul.engine.optim import parameter_groups, prepare, sgd
from paul.engine.run import Run
from paul.options import checked_seed
from paul.patchnet import PatchNet
from paul.rivals.kmeans import kmeans
from paul.rivals.pul import PulOptions


class PseudoLabels:
    """What an image stands for in the round at hand: its cluster, -1 for one that is not trained on."""

    def __init__(self, num_images: int):
        self.labels = torch.full((num_images,), -1)

    def state_dict(self) -> dict:
        return {"labels": self.labels}

    def load_state_dict(self, state: dict) -> None:
        self.labels = state["labels"]

    @property
    def kept(self) -> Tensor:
        """The images that are trained on."""
        return (self.labels >= 0).nonzero().squeeze(1)


def reliable_labels(features: Tensor, means: Tensor, labels: Tensor, reliability: float) -> Tensor:
    """Clusters of the reliable images, -1 for the others: [n].

    Args:
        features: [n, d], unit vectors.
        means: [K, d] of the clusters.
        labels: [n] each image's cluster; none is empty.
        reliability: the cosine to the image nearest to its cluster's mean that an image has to pass.
    """
    distance = (features - means[labels]).square().sum(1)
    order = distance.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]  # by cluster, and in a cluster by distance
    counts = labels.bincount(minlength=len(means))
    centres = features[order[counts.cumsum(0) - counts]]
    return torch.where((features * centres[labels]).sum(1) > reliability, labels, -1)


def with_new_classifier(model: PatchNet, clusters: int) -> PatchNet:
    """The network with an untrained classifier over `clusters` clusters; the one given stays as it is."""
    fresh = PatchNet(model.options, num_classes=clusters)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier.")}
    fresh.load_state_dict(state, strict=False)
    nn.init.normal_(fresh.classifier.weight, std=1e-3)
    nn.init.zeros_(fresh.classifier.bias)
    return fresh


def pul(
    model: PatchNet,
    images: Tensor | Pixels,
    options: PulOptions,
    *,
    folder: str | Path,
    seed: int = 0,
    device: str | None = None,
    tensorboard: bool = False,
) -> tuple[PatchNet, list[dict]]:
    """Adapt a source-trained network to unlabelled images by PUL; interrupted anywhere, the same call goes on.

    Args:
        model: from `pretrain`; it stays as it is.
        images: uint8 [n, 3, H, W], no labels.
        options: what to train and how.
        folder: checkpoint.pt and log.jsonl go there.
        seed: decides k-means, classifiers, order and augmentation.
        device: a GPU when there is one by default.
        tensorboard: also write TensorBoard events into the folder.

    Returns:
        A new network after the last round, and a line per round with the mean loss and `kept`, the share of the images
        that were reliable.

    Raises:
        ValueError: fewer images than clusters, a folder that holds another training or one from other weights.
        ImportError: scikit-learn is not installed.
        RuntimeError: another run is writing the folder.
        FloatingPointError: a loss that is not finite.
    """
    device, pixels = pick_device(device), Pixels.of(images)
    if options.clusters > len(pixels):
        raise ValueError(f"{len(pixels)} images make no {options.clusters} clusters; lower pul.clusters")
    torch.manual_seed(checked_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    spec = {
        "stage": "pul",
        "network": asdict(model.options),
        "options": asdict(options),
        "seed": seed,
        "weights": fingerprint(*model.state_dict().values()),
        "images": fingerprint(pixels.images),
        "numerics": PulOptions.NUMERICS,
    }
    source, describing = deepcopy(model), deepcopy(model)
    model = prepare(with_new_classifier(model, options.clusters), device)
    model.image_size = tuple(pixels.images.shape[-2:])
    pixels = on_device(pixels, device)
    optimizer = sgd(parameter_groups(model), device, options.lr, options.momentum)
    pseudo = PseudoLabels(len(pixels))

    def draw() -> list[Tensor]:
        """Begin a round: labels from the features as they are, the source's weights again; batches of all epochs."""
        features = extract(model if run.history else describing.to(device), pixels).cpu()
        means, labels = kmeans(features, options.clusters, seed + len(run.history))
        pseudo.labels = reliable_labels(features, means, labels, options.reliability)
        model.load_state_dict(with_new_classifier(source, options.clusters).state_dict())
        optimizer.state.clear()
        kept, order = pseudo.kept, []
        for _ in range(options.epochs):
            shuffled = kept[torch.randperm(len(kept), generator=generator)]
            if len(kept) > 1:  # one is no batch to a norm
                order += split(shuffled, options.batch, options.min_batch)
        return order

    with Run(
        folder,
        {"model": model, "optimizer": optimizer, "pseudo": pseudo},
        spec,
        generator,
        options.rounds,
        device=device,
        about=checkpoint.describe(model),
        tensorboard=tensorboard,
    ) as run:
        for _, steps in run.epochs(draw, "PUL, round"):
            kept = torch.tensor(len(pseudo.kept) / len(pixels), device=device)
            model.train()
            for index in steps:
                x = random_shift(random_flip(batch_of(pixels, index, device), generator), generator, options.shift)
                logits = model(normalize(x)).logits
                loss = F.cross_entropy(logits[0].float(), send(pseudo.labels[index], device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                steps.add(loss=loss, kept=kept)
            if options.refresh_statistics:
                refresh_statistics(model, pixels)
    return model, run.history

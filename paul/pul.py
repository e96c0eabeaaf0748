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
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paul.augment import random_flip, random_shift
from paul.clustering import kmeans
from paul.device import batch_of, on_device, pick_device, precision
from paul.engine import Run, fingerprint
from paul.features import extract, refresh_statistics
from paul.images import normalize
from paul.patchnet import PatchNet
from paul.pretrain import parameter_groups


@dataclass(frozen=True)
class PulOptions:
    """How PUL trains; the defaults are its authors' (for Market-1501).

    Attributes:
        clusters: of k-means, about as many as there are people.
        reliability: lambda, the cosine to the centre from which an image is trained on.
        rounds, epochs: rounds, and epochs of fine-tuning in each.
        batch, lr, momentum: of SGD.
        shift: random shift and scale, as a share of the image.
        refresh_statistics: set batch-norm statistics to those of the plain target images after each round.
    """

    clusters: int = 750
    reliability: float = 0.85
    rounds: int = 25
    epochs: int = 20
    batch: int = 16
    lr: float = 1e-3
    momentum: float = 0.9
    shift: float = 0.2
    refresh_statistics: bool = False

    def __post_init__(self):
        if self.clusters < 2 or self.rounds < 1 or self.epochs < 1 or self.batch < 2:
            raise ValueError(f"pul needs at least two clusters, one round, one epoch and a batch of two, got "
                             f"{self.clusters}, {self.rounds}, {self.epochs} and {self.batch}")


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
    fresh = model.options.build(num_classes=clusters)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier.")}
    fresh.load_state_dict(state, strict=False)
    nn.init.normal_(fresh.classifier.weight, std=1e-3)
    nn.init.zeros_(fresh.classifier.bias)
    return fresh


def pul(model: PatchNet, images: Tensor, options: PulOptions, *, folder: str | Path, seed: int = 0,
        device: str | None = None, tensorboard: bool = False) -> PatchNet:
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
        A new network after the last round; its `history` has a line per round with the mean loss and `kept`, the share
        of the images that were reliable.

    Raises:
        ValueError: fewer images than clusters, a folder that holds another training or one from other weights.
        ImportError: scikit-learn is not installed.
        RuntimeError: another run is writing the folder.
        FloatingPointError: a loss that is not finite.
    """
    device = pick_device(device)
    if options.clusters > len(images):
        raise ValueError(f"{len(images)} images make no {options.clusters} clusters; lower pul.clusters")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    spec = {"stage": "pul", "network": asdict(model.options), "options": asdict(options), "seed": seed,
            "weights": fingerprint(*model.state_dict().values()), "images": fingerprint(images)}
    source, describing = deepcopy(model), deepcopy(model)
    model = with_new_classifier(model, options.clusters).to(device)
    model.image_size = tuple(images.shape[-2:])
    images = on_device(images, device)
    optimizer = torch.optim.SGD(parameter_groups(model), lr=options.lr, momentum=options.momentum)
    pseudo = PseudoLabels(len(images))

    def draw() -> list[Tensor]:
        """Begin a round: labels from the features as they are, the source's weights again; batches of all epochs."""
        features = extract(model if run.history else describing.to(device), images).cpu()
        means, labels = kmeans(features, options.clusters, seed + len(run.history))
        pseudo.labels = reliable_labels(features, means, labels, options.reliability)
        model.load_state_dict(with_new_classifier(source, options.clusters).state_dict())
        optimizer.state.clear()
        kept, batches = pseudo.kept, []
        for _ in range(options.epochs):
            order = kept[torch.randperm(len(kept), generator=generator)]
            batches += [rows for rows in order.split(options.batch) if len(rows) > 1]  # one image is no batch to a norm
        return batches

    with Run(folder, model, spec, {"optimizer": optimizer, "pseudo": pseudo}, generator, options.rounds,
             tensorboard) as run:
        for _, steps in run.epochs(draw, "PUL, round"):
            kept = torch.tensor(len(pseudo.kept) / len(images), device=device)
            model.train()
            for rows in steps:
                x = random_shift(random_flip(batch_of(images, rows, device), generator), generator, options.shift)
                with precision(device):
                    logits = model(normalize(x)).logits
                loss = F.cross_entropy(logits[0].float(), pseudo.labels[rows].to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                steps.add(loss=loss, kept=kept)
            if options.refresh_statistics:
                refresh_statistics(model, images)
        model.history = run.history
    return model

"""What a target-stage step costs: floating-point operations, bytes held and bytes sent, as functions of the sizes.

A multiplication and an addition are two operations (FLOP). Bytes are those of float32. The network's operations are
counted by torch on tensors without data; the losses' and memories' follow from their shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from paul.options import PatchNetOptions
from paul.patchnet import PatchNet

FLOAT = 4  # bytes
CLASSES = 1000  # of the classifier while counting; it is a thousandth of the work
COUNTED = 4  # images in the counted pass: batch norm cannot train on one


@dataclass(frozen=True)
class Cost:
    """Of a network, or of its first parts: what one image costs.

    Attributes:
        flops: operations.
        parameters: of the whole network.
        activations: bytes that the backward pass needs, in float32.
    """

    flops: int
    parameters: int
    activations: int


@cache
def cost_of(network: PatchNetOptions, size: tuple[int, int], part: str = "network", backward: bool = False) -> Cost:
    """Counted by torch on tensors that have a shape and no memory.

    Args:
        network: its options.
        size: rows and columns of the images.
        part: "backbone", "generator" (the backbone, and the patch generation network after it; frozen, as on the
            target) or "network" (all of it, as in the source stage).
        backward: count the operations of the backward pass, too.

    Raises:
        ValueError: an unknown part.
    """
    if part not in ("backbone", "generator", "network"):
        raise ValueError(f"part must be 'backbone', 'generator' or 'network', got {part!r}")
    saved = {}

    def note(tensor):
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        model = PatchNet(network, num_classes=CLASSES)
        if part != "network":
            model.to_target()
        images = torch.zeros(COUNTED, 3, *size)
        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            output = model(images).logits if part == "network" else model.backbone(images)
            if part == "generator":
                output = model.generator(output)
            if backward:
                output.sum().backward()
        for kept in model.state_dict().values():
            saved.pop(kept.untyped_storage()._cdata, None)
        parameters = sum(p.numel() for p in model.parameters())
    return Cost(counter.get_total_flops() // COUNTED, parameters, sum(saved.values()) // COUNTED)


def network_flops(
    options: PatchNetOptions = PatchNetOptions(),
    image_size: tuple[int, int] = (384, 128),
    part: str = "backbone",
    backward: bool = True,
) -> int:
    """FLOP per image of a part of the network; arguments and errors as `cost_of`."""
    return cost_of(options, tuple(image_size), part, backward).flops


def weights(options: PatchNetOptions = PatchNetOptions()) -> tuple[int, int]:
    """Weights of the network on the target: all of them, and those that training changes."""
    with torch.device("meta"):
        parameters = list(PatchNet(options).to_target().parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


@dataclass(frozen=True)
class Step:
    """One step of the target stage; the defaults are the paper's sizes.

    Attributes:
        images: N, the training set.
        batch: B, real images over all ranks; as many surrogates go with them.
        patches, dim: M and D of a patch feature.
        centre_dim: of an image's centre.
        nearest: k.
        ranks: R; each holds N/R entries of the bank and of the centres.
    """

    images: int = 12_936
    batch: int = 42
    patches: int = 6
    dim: int = 256
    centre_dim: int = 768
    nearest: int = 10
    ranks: int = 1

    @property
    def pedal_flops(self) -> int:
        """FLOP of L_c with its gradient: two products of 2 M B N D, over all ranks."""
        return 4 * self.patches * self.batch * self.images * self.dim

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.images // self.batch)

    @property
    def _held(self) -> int:
        return -(-self.images // self.ranks)

    @property
    def bank_bytes(self) -> int:
        """Memory bank, per rank."""
        return FLOAT * self._held * self.patches * self.dim

    @property
    def centre_bytes(self) -> int:
        """Image centres of L_v, per rank."""
        return FLOAT * self._held * self.centre_dim

    def image_bytes(self, image_size: tuple[int, int] = (384, 128)) -> int:
        """All decoded images, three bytes a pixel."""
        return 3 * image_size[0] * image_size[1] * self.images

    @property
    def similarity_bytes(self) -> int:
        """The one array of size [M, B, N/R] that L_c needs while it is computed."""
        return FLOAT * self.patches * self.batch * self._held

    @property
    def loss_bytes_sent(self) -> int:
        """Bytes that a rank receives in a step for the sharded memories (`paul.sharded`); N is not among its arguments.

        Sums over ranks: three of all batch features [M, B, D] (put together, their gradient, and that gradient on its
        way back), one of [M, B], three of the batch's centres [B, M E]; and every other rank's k largest similarities.
        """
        features, centres = self.patches * self.batch * self.dim, self.batch * self.centre_dim
        others = self.patches * self.batch * self.nearest * (self.ranks - 1)
        return self._summed(3 * features + self.patches * self.batch + 3 * centres) + FLOAT * others

    def _summed(self, numbers: int) -> int:
        """Bytes that a rank receives while numbers are summed over all ranks around a ring."""
        return 2 * FLOAT * numbers * (self.ranks - 1) // self.ranks

    def gradient_bytes_sent(self, trained: int) -> int:
        """Bytes that a rank receives in a step to average the gradient of `trained` weights (ring all-reduce)."""
        return self._summed(trained)

    def checkpoint_bytes(self, total: int, trained: int) -> int:
        """All weights, the momentum of the trained ones, and both memories whole, whatever the number of ranks."""
        whole = replace(self, ranks=1)
        return FLOAT * (total + trained) + whole.bank_bytes + whole.centre_bytes

    def ranks_for(self, bytes_per_rank: float) -> int:
        """The fewest ranks on which a step's bank, twice, centres and similarities take no more than these bytes each.

        Twice, since a step squares the bank, and a checkpoint is put together from one rank's share after the other.
        """
        whole = replace(self, ranks=1)
        return max(1, -(-(2 * whole.bank_bytes + whole.centre_bytes + whole.similarity_bytes) // int(bytes_per_rank)))


def crossing(flops_per_image: float, step: Step = Step(), slower: float = 1.0) -> float:
    """N at which L_c's products cost what the network costs on the batch and its surrogates.

    Both grow with B, which cancels: N = 2 F / (4 M D).

    Args:
        flops_per_image: F, forward and backward.
        step: M and D.
        slower: how many times fewer FLOP a second the products reach than the network: 1 compares FLOP, not time.
    """
    return 2 * flops_per_image / (4 * step.patches * step.dim * slower)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _bytes(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{number:.0f}\N{NO-BREAK SPACE}B"


def network_table() -> str:
    """FLOP per image of the paper's network, and the N at which L_c costs as much."""
    rows = []
    for part, name in (("backbone", "ResNet-50, last stride 1"), ("generator", "the same and the PGN, frozen")):
        forward, both = (network_flops(part=part, backward=backward) for backward in (False, True))
        rows.append([name, f"{forward / 1e9:.1f}", f"{both / 1e9:.1f}", f"{crossing(both) / 1e6:.1f} million"])
    return _table(["at 384 x 128", "forward, GFLOP an image", "forward and backward", "N where L_c equals it"], rows)


def growth_table(sizes=(12_936, 100_000, 1_000_000, 10_000_000)) -> str:
    """Cost and memory at several N on one rank, at the paper's other sizes."""
    total, trained = weights()
    backbone = network_flops()
    rows = []
    for images in sizes:
        step = Step(images)
        rows.append(
            [
                f"{images:,}",
                f"{step.pedal_flops / 1e12:,.3g}",
                f"{step.pedal_flops / (2 * step.batch * backbone):.3g}",
                f"{step.steps * (2 * step.batch * backbone + step.pedal_flops) / 1e15:,.4g}",
                _bytes(step.bank_bytes),
                _bytes(step.centre_bytes),
                _bytes(step.similarity_bytes),
                _bytes(step.checkpoint_bytes(total, trained)),
                _bytes(step.image_bytes()),
            ]
        )
    return _table(
        [
            "N",
            "L_c, TFLOP a step",
            "times the backbone's",
            "both, PFLOP an epoch",
            "bank",
            "centres",
            "similarities",
            "checkpoint",
            "images",
        ],
        rows,
    )


def ranks_table(images: int = 10_000_000, ranks=(1, 2, 4, 8, 16)) -> str:
    """What each rank holds and receives at a large N."""
    trained = weights()[1]
    rows = [
        [
            str(r),
            _bytes(step.bank_bytes),
            _bytes(step.centre_bytes),
            _bytes(step.similarity_bytes),
            _bytes(step.loss_bytes_sent),
            _bytes(step.gradient_bytes_sent(trained)),
        ]
        for r in ranks
        for step in [Step(images, ranks=r)]
    ]
    return _table(
        [
            f"R, at N = {images:,}",
            "bank a rank",
            "centres",
            "similarities",
            "losses: received a step",
            "gradients: received a step",
        ],
        rows,
    )


if __name__ == "__main__":  # the tables of book/pages/from_laptop_to_cluster.md
    print("\n".join([network_table(), growth_table(), ranks_table()]))

"""Suite `step`: one step of the target stage, against the network alone and against the step as released."""

from __future__ import annotations

import time
from dataclasses import asdict

import torch
from torch.nn.functional import normalize as unit
from torch.utils.data import DataLoader

from paul.adapt import step as training_step
from paul.adapt import views
from paul.bench.case import Bench, Case
from paul.bench.literal import ReleasedImages
from paul.bench.peaks import count_flops
from paul.bench.timing import fresh_peak, synchronize
from paul.data.batches import batch_of, on_device
from paul.engine.device import autocast
from paul.engine.optim import parameter_groups, prepare, sgd
from paul.experiments.profiles import profile
from paul.objective import PaulLoss
from paul.options import AdaptOptions, PatchNetOptions
from paul.patchnet import PatchNet

SMALL = asdict(profile("mini").network)
TINY = dict(backbone="small", dim=16, pgn_channels=16, pgn_hidden=16)
WORKERS = 8
UPDATE = 5  # a weight is read, its gradient written, its momentum read and written, and it is written


def target_network(bench: Bench, network: dict | None = None) -> PatchNet:
    """A PatchNet of random weights in the target stage, not yet laid out for training."""
    torch.manual_seed(0)
    precision = "bf16" if bench.device.type == "cuda" else "float32"
    return PatchNet(PatchNetOptions(**{"precision": precision, **(network or {})})).to_target().to(bench.device)


def input_images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


def describe_size(model: PatchNet, what: str, height: int, width: int) -> str:
    name = {"resnet50": "ResNet-50"}.get(model.options.backbone, f"{model.options.backbone} network")
    return f"{name}, {what} of {height} x {width}"


class AdaptationStep:
    """`paul.adapt.step` again and again, on random images of a set of `entries`."""

    def __init__(
        self, bench: Bench, real: int, height: int, width: int, entries: int, network: dict | None, images: int = 256
    ):
        self.device, self.real = bench.device, real
        self.model = prepare(target_network(bench, network), self.device).train()
        self.options = AdaptOptions(batch=real)
        self.objective = PaulLoss(self.model, entries, self.options).to(self.device)
        bank = self.objective.memory.bank
        bank.copy_(unit(torch.randn_like(bank), dim=2))
        self.objective.memory.filled.fill_(True)
        self.optimizer = sgd(
            parameter_groups(self.model), self.device, self.options.lr, self.options.momentum, self.options.weight_decay
        )
        self.on_host = input_images(min(images, entries), height, width)
        self.pixels = on_device(self.on_host, self.device)
        self.generator = torch.Generator().manual_seed(0)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network sees of some images, and where they lie in the set."""
        index = torch.randperm(len(self.pixels), generator=self.generator)[: self.real]
        return views(batch_of(self.pixels, index, self.device), self.options, self.generator), index

    def learn(self, x: torch.Tensor, index: torch.Tensor) -> None:
        training_step(self.model, self.objective, self.optimizer, x, index)

    def __call__(self) -> None:
        self.learn(*self.batch())

    def network_alone(self, x: torch.Tensor) -> None:
        """Backbone forward and backward and the PGN's localisation, in the same precision: what no loss can save."""
        with autocast(self.device, self.model.options.precision):
            feature_map = self.model.backbone(x)
            theta = self.model.generator(feature_map)
            total = feature_map.mean() + theta.mean()
        self.model.zero_grad()
        total.backward()

    def bytes_at_least(self) -> int:
        weights = sum(p.nbytes for p in self.model.parameters() if p.requires_grad)
        return UPDATE * weights + self.objective.memory.bank.nbytes


def over_network(bench: Bench, real=4, height=384, width=128, entries=12_936, network=None) -> dict:
    step = AdaptationStep(bench, real, height, width, entries, network)
    x, _ = step.batch()
    flops = count_flops(step)
    row = bench.compare(step, lambda: step.network_alone(x), flops, step.bytes_at_least(), bench.network, repeats=3)
    sizes = dict(real=real, height=height, width=width, entries=entries, network=network)
    memory = fresh_peak(
        "import torch\nfrom paul.bench.case import Bench\nfrom paul.bench.step import AdaptationStep",
        f"step = AdaptationStep(Bench(device), **{sizes!r})\nstep()\nstep()",
        bench.device,
    )
    return (
        row
        | memory
        | {
            "size": describe_size(step.model, f"{real} + {real} images", height, width),
            "data_wait_share": data_wait(step),
        }
    )


def data_wait(step: AdaptationStep, steps: int = 2) -> float:
    """Share of some steps' wall time that goes into fetching the images from where the set is kept."""
    waited, begin = 0.0, time.perf_counter()
    for _ in range(steps):
        synchronize(step.device)
        fetch = time.perf_counter()
        batch_of(step.pixels, torch.arange(step.real), step.device)
        synchronize(step.device)
        waited += time.perf_counter() - fetch
        step()
        synchronize(step.device)
    return waited / (time.perf_counter() - begin)


def batches(images: torch.Tensor, size: int, workers: int):
    """Batches of the literal data set without end; processes of their own are spawned, never forked."""
    settings = dict(multiprocessing_context="spawn", persistent_workers=True) if workers else {}
    loader = DataLoader(
        ReleasedImages(images),
        batch_size=size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        **settings,
    )
    while True:
        yield from loader


def over_released(bench: Bench, real=40, height=96, width=48, entries=12_936, network=SMALL, workers=0) -> dict:
    """Images included on both sides: ours are made on the device, theirs one at a time.

    Worker processes get ahead while ours takes its turn, which is to the literal step's advantage.
    """
    step = AdaptationStep(bench, real, height, width, entries, network, images=(64 if workers else 8) * real)
    literal = bench.reference.ReleasedStep(target_network(bench, network).train(), entries)
    bank = step.objective.memory.bank.cpu()
    literal.memory.update(torch.arange(entries), bank)
    made = batches(step.on_host, real, workers)

    def released():
        plain, changed, index = next(made)
        literal(plain.to(bench.device), changed.to(bench.device), index)

    row = bench.compare(step, released, count_flops(step), step.bytes_at_least(), bench.network, repeats=3)
    made.close()
    how = f"{workers} worker processes" if workers else "transforms in the same process"
    return row | {"size": describe_size(step.model, f"{real} + {real} images", height, width) + f", {how}"}


CASES = {
    "network": Case(
        "adaptation step, over backbone and PGN alone",
        over_network,
        other="network alone",
        expected={"cpu": 1.1, "cuda": 1.1},
        at_most=True,
        quick=dict(height=96, width=48, entries=200, network=TINY),
        cuda=dict(real=42),
    ),
    "released": Case(
        "adaptation step, images included",
        over_released,
        other="literal step",
        expected={"cuda": 3},
        quick=dict(real=4, entries=100, network=TINY),
        cuda=dict(real=42, height=384, width=128, network=None, workers=WORKERS),
    ),
}

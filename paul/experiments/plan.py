"""What a set of runs will take, before it starts: trainings, hours, disk, memory; and which data sets are missing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from paul.backbones import build_backbone
from paul.data.datasets import ReidDataset, how_to_make
from paul.data.pixels import FOLDER, free_memory
from paul.data.worlds import knobs_of, world_of
from paul.engine.device import pick_device
from paul.experiments import provenance
from paul.experiments.costs import Cost, cost_of
from paul.experiments.provenance import digest
from paul.experiments.records import read_records, spec_of
from paul.experiments.runner import source_folder
from paul.experiments.specs import Places, Spec
from paul.method import STEP

# Assumed where no record of the device exists, in 1e12 floating-point operations a second, by device and precision. A
# GPU: convolutions on a data-centre card at about an eighth of an A100's peak in bf16, half in float32. A CPU: a core.
ASSUMED = {"cuda": {"bf16": 40.0, "float32": 10.0}, "cpu": {"bf16": 0.03, "float32": 0.03}}
# Images of the sets that profiles name, until a set is there: published counts, and those that the renderer plans, of
# source and target: training people, images of one by each of the 4 cameras passed, queries, junk and distractors. A
# test holds them to what `data_prep` says; the library does not import it.
_RENDERED = {
    "smoke": ((24, 2, 24, 6), (16, 2, 48, 12)),
    "mini": ((300, 2, 160, 30), (140, 3, 480, 120)),
    "gpu": ((1040, 5, 400, 150), (525, 4, 1280, 450)),
}


def _rendered(profile: str, role: str, knobs: dict) -> dict[str, int]:
    people, images, query, others = _RENDERED[profile][role != "source"]
    people, images = knobs.get("people", people), knobs.get("images", images)
    return {"train": 4 * people * images, "query": query, "gallery": query * (images - 1) + others}


EXPECTED = {f"{name}/{role}": _rendered(name, role, {}) for name in _RENDERED for role in ("source", "market", "duke")}
EXPECTED |= {
    "msmt17": {"train": 126_441},
    "market1501": {"train": 12_936, "query": 3_368, "gallery": 19_732},
    "dukemtmc": {"train": 16_522, "query": 2_228, "gallery": 17_661},
}
GIB = 2**30


@lru_cache(maxsize=64)
def images_of(folder: str) -> dict[str, int]:
    """{split: images}: from the index, else EXPECTED; {} where neither tells."""
    try:
        frame = ReidDataset.load(folder).frame
        return {name: int(count) for name, count in frame["split"].value_counts().items()}
    except FileNotFoundError:
        path = Path(folder)
        name, knobs = knobs_of(world_of(path.parent.name)[0])
        if f"{name}/{path.name}" in EXPECTED:
            return _rendered(name, path.name, knobs)
        return EXPECTED.get(path.name, {})


@dataclass(frozen=True)
class Work:
    """Of one run, in floating-point operations and images, by stage; the source stage is shared between runs."""

    pretrain: float
    adapt: float
    cost: Cost
    source_images: int
    target_images: int


def work_of(spec: Spec, data: str) -> Work:
    """What a run computes. Source: pairs of images. Target: the method's own passes, and testing.

    A row without a network counts as nothing: minutes on a CPU.
    """
    if not spec.method.needs_source:
        return Work(0.0, 0.0, Cost(0, 0, 0), 0, 0)
    cost = cost_of(spec.network, tuple(spec.at.image_size))
    source = images_of(str(Path(data) / spec.at.folders["source"])).get("train", 0)
    target = images_of(str(Path(data) / spec.at.folders[spec.target]))
    train = round(spec.entry.share * target.get("train", 0))
    test = target.get("query", 0) + target.get("gallery", 0)
    passes = spec.method.passes(spec.options, train) + test
    return Work(spec.pretrain.epochs * 2 * source * STEP * cost.flops, passes * cost.flops, cost, source, train)


def measured_rates(found: list[dict], data: str, device: torch.device) -> dict[str, float]:
    """{"pretrain", "adapt": operations a second} from records of this device (a CPU: of this machine), {} for none."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    done = {"pretrain": 0.0, "adapt": 0.0}
    seconds = dict.fromkeys(done, 0.0)
    for record in found:
        here = record.get("device") == name and (name != "cpu" or record.get("machine") == provenance.machine())
        spec = spec_of(record) if here else None
        # a bound on the passes, as of a method that drops images, would make the device look faster than it is
        if spec is None or not spec.method.needs_source or not spec.method.exact_passes:
            continue
        work = work_of(spec, data)
        for stage, parts in (("pretrain", ("pretrain",)), ("adapt", ("adapt", "evaluate"))):
            done[stage] += getattr(work, stage)
            seconds[stage] += sum(record["seconds"][part] for part in parts)
    return {stage: done[stage] / seconds[stage] for stage in done if seconds[stage] > 0 and done[stage] > 0}


@dataclass(frozen=True)
class Plan:
    """What `specs` will take.

    Attributes:
        specs: the runs to compute.
        sources: source models among them, one spec each.
        missing: folders of data sets that are not there.
        hours: device hours by stage, "pretrain" and "adapt".
        unit: "GPU" or "CPU", whose hours these are.
        basis: where the figure comes from.
        checkpoint_bytes, image_bytes: on disk at the end; decoded images of source and largest target, in memory.
        device_bytes: what the device holds at the same time, by name, images apart.
    """

    specs: list[Spec]
    sources: list[Spec]
    missing: list[str]
    hours: dict[str, float]
    unit: str
    basis: str
    checkpoint_bytes: int
    image_bytes: dict[str, int]
    device_bytes: dict[str, int]

    def lines(self) -> list[str]:
        """For printing."""
        hours = {stage: _hours(value, self.unit) for stage, value in self.hours.items()}
        total, peak = _hours(sum(self.hours.values()), self.unit), sum(self.device_bytes.values())
        free = free_memory() / 2
        in_memory = [size for size in self.image_bytes.values() if size < free]
        on_disk = [size for size in self.image_bytes.values() if size >= free]
        parts = ", ".join(f"{name} {_size(value)}" for name, value in self.device_bytes.items())
        return [
            f"runs:    {len(self.specs)}, from {len(self.sources)} source models",
            f"time:    {total} (source models {hours['pretrain']}, adaptation and test {hours['adapt']}), {self.basis}",
            f"disk:    {_size(self.checkpoint_bytes)} of checkpoints"
            + (f", {_size(sum(on_disk))} of decoded images in {FOLDER}" if on_disk else ""),
            f"memory:  {_size(sum(in_memory))} of decoded images (source {_size(self.image_bytes['source'])}, largest "
            f"target {_size(self.image_bytes['target'])}; on disk where half of the free memory does not hold them)",
            f"device:  {_size(peak)} ({parts}), and {_size(max(self.image_bytes.values()))} of images where half "
            "of its free memory holds them",
            *(f"missing: {each}" for each in self._commands()),
        ]

    def refuse_missing(self, data: str) -> None:
        """Raises FileNotFoundError naming every folder that is not there, each with the command that makes it."""
        if self.missing:
            raise FileNotFoundError(
                f"{len(self.missing)} data sets are missing below {data}: " + "; ".join(self._commands())
            )

    def fetch_weights(self, places: Places) -> None:
        """Have the weights that source models start from at hand before hours go into images: found, fetched, checked.

        Raises what `paul.backbones.build_backbone` does.
        """
        for backbone, weights in {(spec.network.backbone, places.weights or spec.at.weights) for spec in self.sources}:
            if weights:
                build_backbone(backbone, weights)

    def _commands(self) -> list[str]:
        """Missing folders, each with its command, those of one command together."""
        commands = [how_to_make(folder) for folder in self.missing]
        return [
            ", ".join(folder for folder in self.missing if how_to_make(folder) == command) + f": {command}"
            for command in dict.fromkeys(commands)
        ]


def plan(specs: list[Spec], places: Places = Places()) -> Plan:
    """Plan these runs; needs no data set and no GPU.

    Sizes of sets that are not there yet are the published ones. Hours come from operations, divided by what records of
    the same device reached, or else by ASSUMED.
    """
    specs = list(dict.fromkeys(specs))
    works = {spec: work_of(spec, places.data) for spec in specs}
    shared = {digest(spec.source()): spec for spec in specs if spec.method.needs_source}
    sources = [spec for spec in shared.values() if not _trained(spec, places)]
    folders = dict.fromkeys(
        str(Path(places.data) / spec.at.folders[key])
        for spec in specs
        for key in (*(["source"] if spec.method.needs_source else []), spec.target)
    )
    device = pick_device(places.device)
    found = [record for name in {spec.population for spec in specs} for record in read_records(places.results, name)]
    rates = measured_rates(found, places.data, device)
    # a network that wants a GPU is planned for one, wherever the plan is made
    large = any(spec.at.network.backbone != "small" for spec in specs)
    kind = "cuda" if large and places.device is None and not rates else device.type
    assumed = min(ASSUMED[kind][spec.network.precision] for spec in specs)
    speed = {stage: rates.get(stage, assumed * 1e12) for stage in ("pretrain", "adapt")}
    basis = (
        "at the speed of earlier records of this device"
        if rates
        else f"assuming {assumed:g}e12 operations a second (half as fast takes twice as long)"
    )
    trained = [spec for spec in specs if spec.method.trains]
    checkpoints = [works[spec].cost.parameters for spec in [*sources, *trained]]
    pixels = {spec: spec.at.image_size[0] * spec.at.image_size[1] for spec in specs}
    return Plan(
        specs=specs,
        sources=sources,
        missing=[folder for folder in folders if not (Path(folder) / "index.csv").is_file()],
        hours={
            "pretrain": sum(works[spec].pretrain for spec in sources) / speed["pretrain"] / 3600,
            "adapt": sum(work.adapt for work in works.values()) / speed["adapt"] / 3600,
        },
        unit={"cuda": "GPU", "cpu": "CPU"}[kind],
        basis=basis,
        # weights and momentum; the target stage keeps its memories, too
        checkpoint_bytes=8 * sum(checkpoints) + sum(_memories(spec, works[spec]) for spec in trained),
        image_bytes={
            "source": max(3 * works[spec].source_images * pixels[spec] for spec in specs),
            "target": max(3 * works[spec].target_images * pixels[spec] for spec in specs),
        },
        device_bytes=max((_on_device(spec, works[spec]) for spec in specs), key=lambda part: sum(part.values())),
    )


def _trained(spec: Spec, places: Places) -> bool:
    """Whether the run's source model is finished."""
    try:
        log = source_folder(spec, places) / "log.jsonl"
        return log.read_bytes().count(b"\n") >= spec.pretrain.epochs
    except FileNotFoundError:
        return False


def _memories(spec: Spec, work: Work) -> int:
    return spec.method.memory_bytes(spec.options, spec.network, work.target_images)


def _on_device(spec: Spec, work: Work) -> dict[str, int]:
    """Weights, gradients and momentum; memories; activations of the larger batch, halved by bf16."""
    batch = 2 * max(spec.pretrain.batch, getattr(spec.options, "batch", 0))
    return {
        "network and optimiser": 3 * 4 * work.cost.parameters,
        "bank": _memories(spec, work),
        "activations": batch * work.cost.activations // (2 if spec.network.precision == "bf16" else 1),
    }


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"


def _hours(hours: float, unit: str) -> str:
    return f"{hours:,.{0 if hours >= 10 else 1}f} {unit}-hours" if hours >= 1 else f"{60 * hours:.0f} {unit}-minutes"

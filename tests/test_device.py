"""Where images live and how they get to the device; set-up of networks and optimisers; what can be shown on a CPU."""

from copy import deepcopy

import pytest
import torch
from people import ADAPT, NETWORK, adapt, pairs, same_weights, write_set
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from paul.data import batches as module
from paul.data.batches import announce, batch_of, batches, on_device
from paul.data.datasets import ReidDataset
from paul.data.passes import extract
from paul.data.pixels import Pixels, load_pixels
from paul.engine import device
from paul.engine.device import autocast, one_thread, send
from paul.engine.optim import parameter_groups, prepare, sgd
from paul.patchnet import PatchNet
from paul.retrieval.export import load_safetensors, save_safetensors

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def split(tmp_path):
    return ReidDataset.load(write_set(tmp_path / "set", {"train": pairs(range(1, 6), 2)})).split("train")


@pytest.fixture
def mapped(split, tmp_path):
    return load_pixels(split, (40, 24), place="disk", folder=tmp_path / "cache")


def test_batches_are_batch_of_each_in_order_for_images_in_memory_and_on_disk(mapped):
    order = torch.randperm(20, generator=generator()).split(6)
    for images in (mapped, mapped.images.clone()):
        seen = list(batches(images, order, CPU))
        assert [rows.tolist() for rows, _ in seen] == [rows.tolist() for rows in order]
        for rows, x in seen:
            assert torch.equal(x, mapped.images[rows].float() / 255) and torch.equal(x, batch_of(images, rows, CPU))


def test_the_next_batches_are_read_while_one_is_used(mapped, monkeypatch):
    asked, order = [], list(torch.arange(20).split(2))
    fetch = module._fetch
    monkeypatch.setattr(module, "_fetch", lambda images, rows, to: asked.append(rows) or fetch(images, rows, to))
    walk = batches(mapped, order, CPU)
    for step, _ in enumerate(walk):
        if step == 4:
            walk.close()  # the reader ends with what it has begun
    assert step == 4 and [rows.tolist() for rows in asked] == [rows.tolist() for rows in order[: 5 + module.AHEAD]]


def test_an_error_while_reading_ahead_reaches_the_training(mapped):
    with pytest.raises(IndexError):
        list(batches(mapped, [torch.tensor([0]), torch.tensor([20])], CPU))


def test_training_reads_from_disk_what_it_reads_from_memory(trained, mapped, tmp_path):
    models = [
        adapt(trained[0], images, ADAPT, folder=tmp_path / name)
        for name, images in (("disk", mapped), ("memory", mapped.images.clone()))
    ]
    assert same_weights(*models)


def test_on_a_cpu_images_stay_where_they_are(mapped):
    assert on_device(mapped, CPU) is mapped
    images = mapped.images.clone()
    assert on_device(images, CPU).images is images


@pytest.mark.parametrize(
    "place, free, moves",
    [
        (None, 10**9, True),
        (None, 100_000, False),
        ("device", 0, True),
        ("memory", 10**9, False),
        ("disk", 10**9, False),
    ],
)
def test_images_go_to_a_gpu_that_holds_them_unless_another_place_is_asked_for(
    split, tmp_path, monkeypatch, place, free, moves
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: device)
    pixels = load_pixels(split, (40, 24), place=place, folder=tmp_path)
    gpu = torch.device("cuda:0")
    assert on_device(pixels, gpu).images is (gpu if moves else pixels.images)


def test_the_choice_is_one_line_which_tqdm_disable_hushes(mapped, monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    copied = Pixels(mapped.images.clone())
    announce(copied, CPU)
    announce(mapped, CPU)
    announce(copied, torch.device("cuda:1"))
    out, lines = capsys.readouterr()
    in_memory, on_disk, ahead = lines.splitlines()
    assert out == "" and in_memory == "training on cpu; 20 images of 40x24, 0.1 MiB, in memory"
    assert on_disk.endswith(f"mapped from {mapped.file}")
    assert ahead.endswith("in memory, batches copied ahead through pinned buffers") and "cuda:1" in ahead
    monkeypatch.setenv("TQDM_DISABLE", "1")
    announce(mapped, CPU)
    assert capsys.readouterr() == ("", "")


def test_send_leaves_a_tensor_that_is_there():
    x = torch.rand(3)
    assert send(x, CPU) is x


def test_prepare_compiles_on_request_and_passes_the_mode_on(monkeypatch):
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: asked.append(options))
    for compile in (False, True, "reduce-overhead"):
        prepare(nn.Linear(2, 2), CPU, compile=compile)
    assert asked == [{"mode": None}, {"mode": "reduce-overhead"}]


@pytest.mark.parametrize("stage", ["source", "target"])
def test_a_compiled_network_gives_what_the_plain_one_gives(stage):
    torch.manual_seed(0)
    model, x = PatchNet(NETWORK, num_classes=5), torch.rand(4, 3, 40, 24)
    if stage == "target":
        model.to_target()
    results = []
    for compiled in (False, True):
        torch._dynamo.reset()
        if compiled:
            model.compile(backend="aot_eager")  # traces forward and backward as inductor does, without its C++ compiler
        model.zero_grad()
        output = model.train()(x)
        output.embeddings.square().sum().backward()
        results.append(
            (
                output.features,
                output.embeddings,
                model.branch.weight.grad.clone(),
                model.backbone[0].weight.grad.clone(),
            )
        )
    assert set(model.state_dict()) == set(PatchNet(NETWORK, num_classes=5 if stage == "source" else None).state_dict())
    # the traced graph may decompose an operation and round differently
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_sgd_takes_torchs_own_steps():
    start = torch.rand(5, generator=generator())
    ends = []
    for make in (
        lambda p: sgd([{"params": [p], "name": "all"}], CPU, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01),
    ):
        weight = nn.Parameter(start.clone())
        optimizer = make(weight)
        for _ in range(3):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
        ends.append(weight.detach())
    assert torch.equal(*ends)


def test_a_network_is_laid_out_channels_last_and_keeps_names_and_values():
    torch.manual_seed(0)
    plain = PatchNet(NETWORK).to_target().eval()
    laid = deepcopy(plain)
    assert prepare(laid, CPU) is laid and laid.state_dict().keys() == plain.state_dict().keys()
    assert laid.backbone[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, laid.state_dict()[name]) for name, value in plain.state_dict().items())
    x = torch.rand(3, 3, 40, 24)
    with torch.no_grad():
        torch.testing.assert_close(laid.describe(x), plain.describe(x), rtol=1e-5, atol=1e-6)


def test_a_network_that_was_read_describes_images_by_the_bits_of_the_one_that_was_written(tmp_path):
    network = prepare(PatchNet(NETWORK).to_target(), CPU)
    network.image_size = (40, 24)
    save_safetensors(network, tmp_path / "network.safetensors")
    again = load_safetensors(tmp_path / "network.safetensors")[0]
    images = torch.randint(0, 256, (6, 3, 40, 24), dtype=torch.uint8)
    with one_thread(CPU):
        assert torch.equal(extract(again, images), extract(network, images))


def test_precision_is_what_was_asked_for():
    a = torch.rand(3, 3)
    with autocast(CPU, "float32"):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert (a @ a).dtype == torch.bfloat16


def test_threads_stay_within_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(device, "usable_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert (device.default_threads("resnet50"), device.default_threads("small")) == (6, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert (device.default_threads("resnet50"), device.default_threads("small")) == (64, 64)


@pytest.mark.parametrize("granted, cores", [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1), (None, 4)])
def test_usable_cores_are_those_bound_to_and_granted(monkeypatch, tmp_path, granted, cores):
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: {1, 2, 5, 7}, raising=False)
    if granted:
        (tmp_path / "cpu.max").write_text(granted + "\n")
    monkeypatch.setattr(device, "Path", lambda _: tmp_path / "cpu.max")
    assert device.usable_cores() == cores


def test_what_the_target_stage_freezes_takes_no_gradient_and_no_place_in_the_optimiser():
    torch.manual_seed(0)
    model = PatchNet(NETWORK).to_target().train()
    frozen = {id(weight) for part in (model.generator, model.embedding) for weight in part.parameters()}
    groups = parameter_groups(model)
    output = model(torch.rand(4, 3, 40, 24))
    assert output.embeddings.requires_grad  # the gradient passes through the frozen layers
    (output.embeddings.square().sum() + output.features.sum()).backward()
    assert frozen and all((weight.grad is None) == (id(weight) in frozen) for weight in model.parameters())
    assert not frozen & {id(weight) for group in groups for weight in group["params"]}


def test_no_weight_gradient_of_a_frozen_layer_is_computed():
    """Not only dropped: on the way back, the localisation's convolution asks for its input's gradient alone."""
    asked = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func._schema.name == "aten::convolution_backward":
                asked.append((args[2].shape, args[-1]))
            return func(*args, **(kwargs or {}))

    model = PatchNet(NETWORK).to_target().train()
    nn.init.normal_(model.generator.fc_loc[2].weight)
    output = model(torch.rand(4, 3, 40, 24))
    with Watch():
        output.features.square().sum().backward()
    masks = [mask for shape, mask in asked if shape == model.generator.localization[0].weight.shape]
    assert [mask[:2] for mask in masks] == [[True, False]] and any(mask[1] for _, mask in asked)

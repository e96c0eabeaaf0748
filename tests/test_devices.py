"""On a GPU, where there is one, the core gives what it gives on the CPU."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from people import ADAPT, NETWORK, SIZE, pairs, write_set

from paul.data.batches import batches, on_device
from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.data.transforms import random_flip, random_shift, surrogates
from paul.engine.optim import parameter_groups, prepare, sgd
from paul.losses import cyclic_ranking, ipfl_loss, pedal_loss, triplet_loss
from paul.memory import ImageCenters, PatchMemory
from paul.metrics import evaluate
from paul.objective import PaulLoss
from paul.patches import pool_patches, sample_patches
from paul.patchnet import PatchNet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
g = torch.Generator().manual_seed(0)
CUDA = torch.device("cuda:0")


def draw(*shape):
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def whole(high, *shape):
    return torch.randint(high, shape, generator=g)


OWNER = torch.arange(6).repeat(2)
CASES = {
    "pedal": (pedal_loss, draw(3, 5, 8), draw(3, 40, 8), whole(40, 5)),
    "ranking": (cyclic_ranking, draw(12, 8), draw(6, 8), OWNER),
    "ipfl": (ipfl_loss, draw(12, 8), draw(6, 8), OWNER),
    "triplet": (triplet_loss, draw(12, 8), whole(4, 12)),
    "sample": (sample_patches, draw(2, 3, 7, 5), draw(2, 4, 2, 3)),
    "pool": (pool_patches, draw(2, 3, 7, 5), draw(2, 4, 2, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    function, first, *others = CASES[name]
    results = []
    for device in ("cpu", "cuda"):
        x = first.to(device).requires_grad_()
        out = function(x, *(other.to(device) for other in others))
        assert out.device.type == device
        if out.requires_grad:
            out.sum().backward()
        results.append((out.detach().cpu(), None if x.grad is None else x.grad.cpu()))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_memories():
    index, features, views = torch.tensor([1, 4, 1]), draw(2, 3, 5), draw(3, 2, 5)
    results = []
    for device in ("cpu", "cuda"):
        bank, centers = PatchMemory(6, 2, 5).double().to(device), ImageCenters(6, 5).double().to(device)
        for _ in range(2):
            bank.update(index.to(device), features.to(device))
            out = centers.update(index.to(device), views.to(device))
        results.append((bank.bank.cpu(), bank.filled.cpu(), out.cpu()))
    torch.testing.assert_close(*results)


def test_scores_ties_included():
    query, gallery = (torch.randint(-2, 3, (n, 3), generator=g).float() for n in (9, 50))
    labels = whole(4, 9), whole(3, 9), whole(4, 50), whole(3, 50)
    ours = [
        evaluate(query.to(device), *labels[:2], gallery.to(device), *labels[2:], chunk=4) for device in ("cpu", "cuda")
    ]
    assert ours[0].percent() == pytest.approx(ours[1].percent(), rel=1e-12)
    assert torch.equal(ours[0].cmc, ours[1].cmc) and ours[1].cmc.device.type == "cpu"


@pytest.mark.parametrize("place", ["device", "memory", "disk"])
def test_batches_are_the_cpus_wherever_images_live(place, tmp_path):
    split = ReidDataset.load(write_set(tmp_path / "set", {"train": pairs(range(1, 9), 3)})).split("train")
    kept = on_device(load_images(split, SIZE, place=place, folder=tmp_path), CUDA)
    assert kept.device.type == ("cuda" if place == "device" else "cpu")
    images = load_images(split, SIZE, place="memory")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1)).split(5)
    seen = list(batches(kept, order, CUDA))  # all at once: a buffer used again too early would show
    assert len(seen) == len(order)
    for rows, x in seen:
        assert x.device.type == "cuda" and torch.equal(x.cpu(), images[rows].float() / 255)


def test_transformations_are_the_cpus():
    x = torch.rand(20, 3, 40, 24, generator=torch.Generator().manual_seed(2))
    for change in (random_flip, random_shift, surrogates, partial(surrogates, mode="one", padding="border")):
        ours, theirs = (change(x.to(device), torch.Generator().manual_seed(3)).cpu() for device in ("cuda", "cpu"))
        # sums in another order and fused multiply-adds; sampling coordinates up to 40 pixels in float32
        torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


def test_a_network_is_set_up_for_a_gpu():
    model = prepare(PatchNet(NETWORK).to_target(), CUDA)
    weight = model.backbone[0].weight
    assert weight.is_cuda and weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.allow_tf32
    optimizer = sgd(parameter_groups(model), CUDA, 0.1, 0.9, 1e-4)
    assert optimizer.defaults["fused"]
    again = PatchNet(NETWORK).to_target()
    again.load_state_dict(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[name].cpu()) for name, value in again.state_dict().items())


def test_some_steps_in_float32_are_the_cpus():
    """Network, losses and fused optimiser together; two steps, since small differences grow with training."""
    ends = []
    for device in (torch.device("cpu"), CUDA):
        torch.manual_seed(0)
        model = prepare(PatchNet(NETWORK).to_target(), device).train()
        loss = PaulLoss(model, 12, replace(ADAPT, s=5.0)).to(device)
        optimizer = sgd(parameter_groups(model), device, 0.01, 0.9, 1e-4)
        images = torch.rand(12, 3, *SIZE, generator=torch.Generator().manual_seed(4))
        loss.memory.update(
            torch.arange(12).to(device),
            torch.nn.functional.normalize(torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(5)), dim=2).to(
                device
            ),
        )
        for rows in torch.arange(12).split(6):
            x = torch.cat([images[rows], images[rows].flip(3)])
            losses = loss(model(x.to(device)), rows.to(device))
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
        ends.append(
            {name: value.cpu() for name, value in model.state_dict().items()}
            | {name: value.detach().cpu() for name, value in losses.items()}
        )
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-3, atol=1e-4)

"""bf16 autocast with islands of float32: which results keep their digits, and that features rank as float32's do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from people import NETWORK, PRETRAIN, picture, pretrain
from torch import nn

from paul.data.passes import extract
from paul.data.transforms import normalize
from paul.engine.device import autocast
from paul.experiments.profiles import PROFILES
from paul.losses import cyclic_ranking, ipfl_loss, pedal_loss, pull_loss, triplet_loss
from paul.metrics import evaluate
from paul.objective import PaulLoss
from paul.options import AdaptOptions, PatchNetOptions
from paul.patches import pool_patches
from paul.patchnet import PatchNet

DEVICES = [
    torch.device("cpu"),
    pytest.param(torch.device("cuda"), marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def draw(*shape, device, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.fixture(params=DEVICES, ids=lambda device: device.type)
def device(request):
    return request.param


ISLANDS = {
    "pedal": lambda x, bank, index: pedal_loss(x, bank, index, s=5.0, k=3),
    "pull": lambda x, bank, index: pull_loss(x, bank, index, s=5.0, k=3),
    "ipfl": lambda x, bank, index: ipfl_loss(x[0], bank[0, :6], index, r=2),
    "ranking": lambda x, bank, index: cyclic_ranking(x[0], bank[0, :6], index, r=2).float(),
    "triplet": lambda x, bank, index: triplet_loss(x[0], index // 2),
}


@pytest.mark.parametrize("name", ISLANDS)
def test_losses_under_autocast_have_float32s_digits(name, device):
    x, bank, index = draw(2, 6, 16, device=device), draw(2, 40, 16, device=device, seed=1), torch.arange(6).to(device)
    results = []
    for precision in ("float32", "bf16"):
        leaf = x.clone().requires_grad_()
        with autocast(device, precision):
            value = ISLANDS[name](leaf, bank, index)
        if value.requires_grad:
            value.backward()
        results.append((value.detach(), leaf.grad))
    assert results[1][0].dtype == torch.float32
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-6)


def test_memories_under_autocast_keep_small_steps(device):
    loss = PaulLoss(PatchNet(NETWORK).to_target(), 4, AdaptOptions()).to(device)
    index, old = torch.arange(4, device=device), torch.ones(2, 4, 8, device=device)
    with autocast(device, "bf16"):
        loss.memory.update(index, old)
        loss.memory.update(index, old + 1e-3)  # a tenth of it: 1e-4, which bf16 next to 1 rounds away
    torch.testing.assert_close(loss.memory.bank, old + 1e-4, rtol=0, atol=1e-6)


def test_weights_of_pooled_patches_are_made_in_float32(device):
    """Where a patch lies has float32's digits: with the map in float32 the whole result has them."""
    x, theta = draw(2, 3, 24, 8, device=device), draw(2, 4, 2, 3, device=device, seed=1) / 2
    with autocast(device, "bf16"):
        inside = pool_patches(x.double(), theta)  # autocast leaves float64 products alone
    torch.testing.assert_close(inside, pool_patches(x.double(), theta), rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batch_norm_sums_its_statistics_in_float32(layout, device):
    """Of 16-bit inputs: a sum in bf16 would stop growing after 256 ones. Autocast itself leaves batch norm alone."""
    x = (1 + draw(32, 4, 24, 8, device=device) / 10).bfloat16().to(memory_format=layout)
    norm = nn.BatchNorm2d(4, momentum=1.0).to(device).train()
    with autocast(device, "bf16"):
        out = norm(x)
    assert out.dtype == torch.bfloat16 and norm.running_mean.dtype == torch.float32
    exact = x.double()
    torch.testing.assert_close(norm.running_mean.double(), exact.mean((0, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_var.double(), exact.transpose(0, 1).flatten(1).var(1), rtol=1e-4, atol=0)


def test_the_options_decide_the_precision_and_not_the_device(device):
    """The network's own passes, whoever asks for them: convolutions of a network in bf16 give 16 bits, others 32."""
    seen = {}
    for precision in ("float32", "bf16"):
        model = PatchNet(replace(NETWORK, precision=precision)).to(device).eval()
        model.backbone.register_forward_hook(
            lambda _, __, found, name=precision: seen.setdefault(name, []).append(found)
        )
        x = normalize(torch.rand(2, 3, 40, 24).to(device))
        with torch.no_grad():
            for look in (model, model.describe, model.theta):
                look(x)
    assert {name: {found.dtype for found in maps} for name, maps in seen.items()} == {
        "float32": {torch.float32},
        "bf16": {torch.bfloat16},
    }
    with pytest.raises(ValueError, match="precision must be 'float32' or 'bf16', got 'fp16'"):
        PatchNetOptions(precision="fp16")
    assert PROFILES["paper"].network.precision == "float32"


def test_descriptors_and_cosines_are_of_unit_length_in_float32(device):
    model = PatchNet(NETWORK).to_target().to(device).eval()
    with torch.no_grad(), autocast(device, "bf16"):
        output = model(normalize(torch.rand(4, 3, 40, 24).to(device)))
    assert output.features.dtype == output.embeddings.dtype == torch.float32
    torch.testing.assert_close(output.features.norm(dim=-1), torch.ones(2, 4, device=device), rtol=1e-6, atol=0)


def noisy(people, cameras, seed):
    """uint8 images of these people: so much noise that a small network takes some for others."""
    rng = np.random.default_rng(seed)
    images = [picture(person, camera, rng) for person in people for camera in cameras]
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    noise = 90 * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + noise).clamp(0, 255).to(torch.uint8), np.repeat(people, len(cameras))


def test_features_in_bf16_rank_as_float32s_do(tmp_path):
    model = pretrain(
        *noisy(range(1, 41), (1, 2), 0),
        replace(NETWORK, dim=16, num_patches=3),
        replace(PRETRAIN, epochs=8, batch=40, peak_rate=0.1),
        folder=tmp_path,
    )
    people = range(41, 341)
    (queries, ids), (gallery, gallery_ids) = noisy(people, (1,), 1), noisy(people, (2, 2), 2)
    scores, descriptors = [], []
    for precision in ("float32", "bf16"):
        model.options = replace(model.options, precision=precision)
        descriptors.append(extract(model, queries))
        scores.append(
            evaluate(
                descriptors[-1], ids, np.ones(300, int), extract(model, gallery), gallery_ids, np.full(600, 2)
            ).percent()
        )
    assert descriptors[1].dtype == torch.float32 and not torch.equal(*descriptors)
    assert 10 < scores[0]["map_step"] < 90  # neither guessing nor solved: ranks can change, and some do
    for name in ("map_step", "map_trapezoid"):
        assert 0 < abs(scores[1][name] - scores[0][name]) < 0.2

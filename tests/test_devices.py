"""On a GPU, where there is one, the core gives what it gives on the CPU."""

import pytest
import torch

from paul.losses import cyclic_ranking, ipfl_loss, pedal_loss, triplet_loss
from paul.memory import ImageCenters, PatchMemory
from paul.metrics import evaluate
from paul.patches import pool_patches, sample_patches

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
g = torch.Generator().manual_seed(0)


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
    ours = [evaluate(query.to(device), *labels[:2], gallery.to(device), *labels[2:], chunk=4)
            for device in ("cpu", "cuda")]
    assert ours[0].percent() == pytest.approx(ours[1].percent(), rel=1e-12)
    assert torch.equal(ours[0].cmc, ours[1].cmc) and ours[1].cmc.device.type == "cpu"

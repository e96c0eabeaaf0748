"""Signs that need no labels, against their definitions by loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paul.retrieval.agreement import bank_drift, neighbours, patch_agreement, purity


def by_hand(features, image, k, cameras=None):
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    order = (-(unit @ unit[image])).argsort().tolist()
    return [j for j in order if j != image and (cameras is None or cameras[j] != cameras[image])][:k]


@given(seed=st.integers(0, 10**6), count=st.integers(8, 20), chunk=st.integers(1, 25), other=st.booleans())
def test_neighbours_are_the_nearest_and_never_oneself(seed, count, chunk, other):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 5, generator=generator)
    cameras = torch.arange(count) % 3 if other else None
    near = neighbours(features, 3, cameras, chunk)
    assert near.tolist() == [by_hand(features, i, 3, cameras) for i in range(count)]


def test_agreement_is_the_mean_share_over_pairs_of_patches():
    features, k = torch.randn(30, 4 * 6, generator=torch.Generator().manual_seed(0)), 5
    cameras = torch.arange(30) % 2
    expected = []
    for i in range(30):
        near = [set(by_hand(part, i, k, cameras)) for part in features.split(6, dim=1)]
        shares = [len(near[a] & near[b]) / k for a in range(4) for b in range(a + 1, 4)]
        expected.append(sum(shares) / len(shares))
    torch.testing.assert_close(patch_agreement(features, 4, k, cameras), torch.tensor(expected))


def test_agreement_at_its_ends():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(400, 6, generator=generator)
    assert (patch_agreement(one.repeat(1, 3), 3) == 1).all()  # all patches say the same
    random = patch_agreement(torch.randn(400, 3 * 6, generator=generator), 3).mean().item()
    assert random == pytest.approx(10 / 399, rel=0.1)


def test_drift_of_a_bank_that_rests_turns_and_points_back():
    bank = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    turned = torch.stack([-bank[..., 1], bank[..., 0], -bank[..., 3], bank[..., 2]], -1)
    for after, expected in ((bank, 0), (2 * bank, 0), (turned, 1), (-bank, 2)):
        assert bank_drift(bank, after) == pytest.approx(expected, abs=1e-6)


def test_purity_counts_the_own_person():
    near = torch.tensor([[1, 2], [0, 2], [3, 0], [2, 1]])
    assert purity(near, [5, 5, 6, 6]).tolist() == [0.5, 0.5, 0.5, 0.5]
    assert purity(near, [5, 5, 5, 5]).tolist() == [1] * 4 and purity(near, [1, 2, 3, 4]).tolist() == [0] * 4


def test_too_few_to_compare_with_are_named():
    with pytest.raises(ValueError, match="fewer than k = 5"):
        neighbours(torch.randn(6, 3), 5, [1, 1, 1, 2, 2, 2])
    with pytest.raises(ValueError, match="only one"):
        patch_agreement(torch.randn(6, 3), 1)

"""The losses against their equations read aloud, autograd, and what must hold whatever the numbers."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from paul.bench import literal as reference
from paul.losses import cyclic_ranking, ipfl_loss, pedal_loss, triplet_loss

EXACT = dict(rtol=1e-9, atol=1e-9)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def gradient(loss, features):
    """Value and gradient of loss(features)."""
    features = features.detach().clone().requires_grad_()
    value = loss(features)
    value.backward()
    return value.detach(), features.grad


# --- PEDAL -----------------------------------------------------------------------------------------------------------


def a_bank(seed, patches=3, images=5, entries=23, dim=6, unit=True, dtype=torch.float64):
    g = generator(seed)
    features = torch.randn(patches, images, dim, generator=g, dtype=dtype)
    bank = torch.randn(patches, entries, dim, generator=g, dtype=dtype)
    index = torch.randint(entries, (images,), generator=g)
    return (F.normalize(features, dim=2), F.normalize(bank, dim=2), index) if unit else (features, bank, index)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), s=st.floats(0.1, 40), k=st.integers(1, 30), unit=st.booleans())
def test_pedal_is_its_equation(seed, s, k, unit):
    features, bank, index = a_bank(seed, unit=unit)
    ours = gradient(lambda x: pedal_loss(x, bank, index, s=s, k=k), features)
    literal = gradient(lambda x: reference.pedal_loss(x, bank, index, s=s, k=k), features)
    torch.testing.assert_close(ours, literal, **EXACT)


def test_pedal_has_the_papers_defaults():
    features, bank, index = a_bank(0)
    assert pedal_loss(features, bank, index) == pedal_loss(features, bank, index, s=30.0, k=10)


def test_pedal_gradcheck():
    features, bank, index = a_bank(1)
    assert torch.autograd.gradcheck(lambda x: pedal_loss(x, bank, index, s=8.0, k=4), features.requires_grad_())


def test_pedal_by_hand():
    # One patch, s = 2: squared distances 1 (near) and 4 (far); the own entry, at 0, doesn't count.
    bank = torch.tensor([[[0.0], [1.0], [-2.0]]], dtype=torch.float64)
    loss = pedal_loss(torch.zeros(1, 1, 1, dtype=torch.float64), bank, torch.tensor([0]), s=2.0, k=1)
    torch.testing.assert_close(loss, torch.tensor(1 + torch.e**-3, dtype=torch.float64).log())


@pytest.mark.parametrize("k", [22, 23, 1000])
def test_pedal_is_zero_once_all_others_attract(k):
    features, bank, index = a_bank(2)
    value, grad = gradient(lambda x: pedal_loss(x, bank, index, k=k), features)
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_pedal_never_looks_at_an_images_own_entry(seed):
    features, bank, index = a_bank(seed, images=1)
    moved = bank.clone()
    moved[:, index] = features  # as near as can be
    ours = [gradient(lambda x: pedal_loss(x, w, index), features) for w in (bank, moved)]
    torch.testing.assert_close(ours[0], ours[1], **EXACT)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), s=st.floats(0.1, 40))
def test_pedal_shrinks_as_more_entries_attract(seed, s):
    features, bank, index = a_bank(seed)
    losses = [pedal_loss(features, bank, index, s=s, k=k).item() for k in range(1, 23)]
    assert all(a >= b - 1e-12 for a, b in zip(losses, losses[1:])) and losses[-1] >= -1e-12


def test_pedal_is_a_mean_over_images_and_patches():
    features, bank, index = a_bank(3)
    alone = torch.stack(
        [
            pedal_loss(features[m : m + 1, b : b + 1], bank[m : m + 1], index[b : b + 1])
            for m in range(3)
            for b in range(5)
        ]
    )
    torch.testing.assert_close(pedal_loss(features, bank, index), alone.mean(), **EXACT)


def test_pedal_follows_a_permuted_bank():
    features, bank, index = a_bank(4)
    order = torch.randperm(23, generator=generator(4))
    torch.testing.assert_close(
        pedal_loss(features, bank[:, order], order.argsort()[index]), pedal_loss(features, bank, index), **EXACT
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pedal_works_in_float32_under_autocast(dtype):
    features, bank, index = a_bank(5, dtype=torch.float32)
    expected = gradient(lambda x: pedal_loss(x, bank, index), features)
    with torch.autocast("cpu", dtype=dtype):
        ours = gradient(lambda x: pedal_loss(x, bank, index), features)
        assert pedal_loss(features.to(dtype), bank, index).dtype == torch.float32
    assert torch.equal(ours[0], expected[0]) and torch.equal(ours[1], expected[1])


def test_pedal_survives_a_large_scale():
    features, bank, index = a_bank(6, dtype=torch.float32)
    value, grad = gradient(lambda x: pedal_loss(x, bank, index, s=3000.0, k=2), features)
    assert value.isfinite() and grad.isfinite().all()


def test_pedal_keeps_nothing_of_the_size_of_all_distances():
    features, bank, index = a_bank(7, dim=2)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        pedal_loss(features.requires_grad_(), bank, index)
    assert saved and all(23 not in shape for shape in saved)


def test_pedal_gives_no_gradient_to_the_bank():
    features, bank, index = a_bank(8)
    bank.requires_grad_()
    pedal_loss(features.requires_grad_(), bank, index).backward()
    assert bank.grad is None


@pytest.mark.parametrize(
    "change",
    [
        dict(s=0.0),
        dict(s=-1.0),
        dict(s=float("nan")),
        dict(k=0),
        dict(k=-3),
        dict(bank=torch.ones(3, 23, 5)),
        dict(bank=torch.ones(2, 23, 6)),
        dict(bank=torch.ones(3, 1, 6)),
        dict(index=torch.zeros(4, dtype=torch.long)),
        dict(features=torch.ones(5, 6)),
    ],
    ids=str,
)
def test_pedal_refuses(change):
    features, bank, index = a_bank(9, dtype=torch.float32)
    with pytest.raises(ValueError):
        pedal_loss(**dict(features=features, bank=bank, index=index) | change)


# --- Cyclic ranking and IPFL -----------------------------------------------------------------------------------------


def a_batch(seed, images=9, views=2, dim=5, spread=1.0):
    """Centres of a batch, and its anchors scattered about them: real images, then surrogates."""
    g = generator(seed)
    centers = torch.randn(images, dim, generator=g, dtype=torch.float64)
    owner = torch.arange(images).repeat(views)
    return centers[owner] + spread * torch.randn(images * views, dim, generator=g, dtype=torch.float64), centers, owner


walks = dict(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 12),
    spread=st.floats(0.01, 3),
    r=st.integers(1, 14),
    include_self=st.booleans(),
    max_candidates=st.integers(1, 15),
)


@settings(max_examples=150, deadline=None)
@given(**walks)
def test_cyclic_ranking_is_the_walk(seed, images, spread, r, include_self, max_candidates):
    features, centers, owner = a_batch(seed, images, spread=spread)
    options = dict(r=r, include_self=include_self, max_candidates=max_candidates)
    assert torch.equal(
        cyclic_ranking(features, centers, owner, **options),
        reference.cyclic_ranking(features, centers, owner, **options),
    )


@settings(max_examples=80, deadline=None)
@given(**walks, margin=st.floats(0, 4), no_negative=st.sampled_from(["zero", "skip"]))
def test_ipfl_is_its_equation(seed, images, spread, margin, **options):
    features, centers, owner = a_batch(seed, images, spread=spread)
    ours = gradient(lambda x: ipfl_loss(x, centers, owner, margin=margin, **options), features)
    literal = gradient(lambda x: reference.ipfl_loss(x, centers, owner, margin=margin, **options), features)
    torch.testing.assert_close(ours, literal, **EXACT)


def test_ipfl_has_the_papers_defaults():
    features, centers, owner = a_batch(0, images=40)
    defaults = dict(r=3, include_self=True, max_candidates=15)
    assert ipfl_loss(features, centers, owner) == ipfl_loss(
        features, centers, owner, margin=2.0, no_negative="zero", **defaults
    )
    assert torch.equal(cyclic_ranking(features, centers, owner), cyclic_ranking(features, centers, owner, **defaults))


def test_a_walk_done_by_hand():
    centers = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    anchor, owner = torch.tensor([[0.0]]), torch.tensor([0])

    def pick(**options):
        return cyclic_ranking(anchor, centers, owner, **options).item()

    # Candidate 1's list: itself, then the anchor. Candidate 2's: itself, 3, 1, the anchor.
    assert pick(r=1) == 1
    assert pick(r=2) == 2
    assert pick(r=1, include_self=False) == 2
    assert pick(r=4) == -1
    assert pick(r=2, max_candidates=1) == -1


def test_ranking_resolves_distances_that_a_gram_matrix_would_round_away():
    features, centers, owner = (t.float() if t.is_floating_point() else t for t in a_batch(1, images=30))
    features, centers = features + 3000, centers + 3000
    expected = reference.cyclic_ranking(features.double(), centers.double(), owner)
    assert torch.equal(cyclic_ranking(features, centers, owner), expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_negative_is_never_the_anchors_own_and_follows_a_permutation(seed):
    features, centers, owner = a_batch(seed)
    picks = cyclic_ranking(features, centers, owner)
    assert (picks != owner).all() and (picks >= -1).all() and (picks < len(centers)).all()
    order = torch.randperm(len(centers), generator=generator(seed))
    moved = cyclic_ranking(features, centers[order], order.argsort()[owner])
    assert torch.equal(torch.where(moved >= 0, order[moved], -1), picks)


def test_ipfl_gradcheck():
    features, centers, owner = a_batch(2)
    assert torch.autograd.gradcheck(lambda x: ipfl_loss(x, centers, owner), features.requires_grad_())


def test_an_anchor_on_its_centre_has_a_finite_gradient():
    _, centers, owner = a_batch(3)
    value, grad = gradient(lambda x: ipfl_loss(x, centers, owner, margin=100.0), centers[owner])
    assert value.isfinite() and grad.isfinite().all()
    # The pull is 0 there: what is left is the unit push away from the negative.
    torch.testing.assert_close(grad.norm(dim=1), torch.full((len(owner),), 1 / len(owner), dtype=torch.float64))


def test_two_images_alike_have_a_finite_gradient():
    features, owner = torch.ones(4, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    _, grad = gradient(lambda x: ipfl_loss(x, features[:2], owner, r=1), features)
    assert grad.isfinite().all()


def test_without_a_negative():
    features, centers, owner = a_batch(4, images=1)
    to_own = (features - centers[owner]).norm(dim=1)
    torch.testing.assert_close(ipfl_loss(features, centers, owner, margin=2.0), (2 + to_own).mean())
    value, grad = gradient(lambda x: ipfl_loss(x, centers, owner, no_negative="skip"), features)
    assert value == 0 and (grad == 0).all()


def test_ipfl_gives_no_gradient_to_the_centres():
    features, centers, owner = a_batch(5)
    centers.requires_grad_()
    ipfl_loss(features.requires_grad_(), centers.detach(), owner).backward()
    assert centers.grad is None


def test_ipfl_works_in_float32_under_autocast():
    features, centers, owner = (t.float() if t.is_floating_point() else t for t in a_batch(6))
    expected = ipfl_loss(features, centers, owner)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ipfl_loss(features, centers, owner), expected)


@pytest.mark.parametrize(
    "change",
    [
        dict(r=0),
        dict(max_candidates=0),
        dict(no_negative="maybe"),
        dict(centers=torch.ones(9, 4)),
        dict(owner=torch.zeros(3, dtype=torch.long)),
    ],
    ids=str,
)
def test_ipfl_refuses(change):
    features, centers, owner = a_batch(7)
    with pytest.raises(ValueError):
        ipfl_loss(**dict(features=features, centers=centers, owner=owner) | change)


# --- Source triplet --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 12),
    people=st.integers(1, 6),
    margin=st.floats(0, 3),
    positive=st.sampled_from(["nearest", "hardest"]),
    normalize=st.booleans(),
)
def test_triplet_is_its_definition_singletons_included(seed, images, people, margin, positive, normalize):
    g = generator(seed)
    embeddings = torch.randn(images, 4, generator=g, dtype=torch.float64)
    person_ids = torch.randint(people, (images,), generator=g)
    ours = gradient(
        lambda x: triplet_loss(x, person_ids, margin=margin, positive=positive, normalize=normalize), embeddings
    )
    literal = gradient(
        lambda x: reference.triplet_loss(
            F.normalize(x, dim=1) if normalize else x, person_ids, margin=margin, positive=positive
        ),
        embeddings,
    )
    torch.testing.assert_close(ours, literal, **EXACT)


def test_triplet_of_images_alike_has_a_finite_gradient():
    embeddings = torch.ones(4, 3, dtype=torch.float64)
    _, grad = gradient(lambda x: triplet_loss(x, torch.tensor([0, 0, 1, 1])), embeddings)
    assert grad.isfinite().all()


def test_triplet_refuses_an_unknown_positive():
    with pytest.raises(ValueError, match="positive"):
        triplet_loss(torch.ones(4, 3), torch.tensor([0, 0, 1, 1]), positive="middle")

"""The memories against lists updated one image at a time, and closed forms of a moving average."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paul.bench import literal as reference
from paul.memory import ImageCenters, PatchMemory

EXACT = dict(rtol=1e-9, atol=1e-9)
IMAGES, PATCHES, DIM = 7, 3, 4

streams = dict(
    seed=st.integers(0, 10**6),
    rate=st.floats(0, 1),
    batches=st.lists(st.lists(st.integers(0, IMAGES - 1), min_size=1, max_size=9), min_size=1, max_size=5),
)


def draws(seed):
    g = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)


@settings(max_examples=100, deadline=None)
@given(**streams)
def test_bank_is_the_list_of_averages_repeated_images_in_order(seed, rate, batches):
    draw = draws(seed)
    ours = PatchMemory(IMAGES, PATCHES, DIM, rate=rate).double()
    literal = reference.ListMemory(IMAGES, PATCHES, DIM, rate=rate)
    for batch in batches:
        index, features = torch.tensor(batch), draw(PATCHES, len(batch), DIM)
        ours.update(index, features)
        literal.update(index, features)
        assert ours.filled.tolist() == literal.filled
        torch.testing.assert_close(ours.bank, literal.bank.double(), **EXACT)


@settings(max_examples=100, deadline=None)
@given(**streams, views=st.integers(1, 3))
def test_centres_are_the_list_of_averages_repeated_images_in_order(seed, rate, batches, views):
    draw = draws(seed)
    ours = ImageCenters(IMAGES, DIM, rate=rate).double()
    literal = reference.CenterList(IMAGES, rate=rate)
    for batch in batches:
        index, features = torch.tensor(batch), draw(len(batch), views, DIM)
        torch.testing.assert_close(ours.update(index, features), literal.update(index, features), **EXACT)


def test_the_first_visit_copies_and_the_next_ones_average():
    memory = PatchMemory(IMAGES, PATCHES, DIM, rate=0.25).double()
    draw, index = draws(0), torch.tensor([4, 2])
    first, second = draw(PATCHES, 2, DIM), draw(PATCHES, 2, DIM)
    memory.update(index, first)
    assert torch.equal(memory.bank[:, index], first)
    assert memory.filled.tolist() == [i in (2, 4) for i in range(IMAGES)]
    for _ in range(5):
        memory.update(index, second)
    left = 0.75**5
    torch.testing.assert_close(memory.bank[:, index], left * first + (1 - left) * second, **EXACT)


def test_the_other_entries_stay_bit_for_bit():
    memory, draw = PatchMemory(IMAGES, PATCHES, DIM), draws(1)
    memory.update(torch.arange(IMAGES), draw(PATCHES, IMAGES, DIM))
    before = memory.bank.clone()
    memory.update(torch.tensor([3, 3]), draw(PATCHES, 2, DIM))
    others = [i for i in range(IMAGES) if i != 3]
    assert torch.equal(memory.bank[:, others], before[:, others]) and not torch.equal(memory.bank, before)


def test_entries_are_not_brought_back_to_unit_length_unless_asked():
    features = torch.nn.functional.normalize(draws(2)(2, PATCHES, 1, DIM), dim=-1).float()
    for renormalize in (False, True):
        memory = PatchMemory(IMAGES, PATCHES, DIM, rate=0.5, renormalize=renormalize)
        for x in features:
            memory.update(torch.tensor([0]), x)
        norms = memory.bank[:, 0].norm(dim=1)
        assert torch.allclose(norms, torch.ones(PATCHES)) == renormalize


def test_memories_are_buffers_that_a_checkpoint_keeps():
    draw = draws(3)
    for memory, fresh, features in (
        (PatchMemory(IMAGES, PATCHES, DIM), PatchMemory(IMAGES, PATCHES, DIM), draw(PATCHES, 2, DIM)),
        (ImageCenters(IMAGES, DIM), ImageCenters(IMAGES, DIM), draw(2, 2, DIM)),
    ):
        assert not list(memory.parameters())
        features.requires_grad_()
        memory.update(torch.tensor([1, 5]), features)
        fresh.load_state_dict(memory.state_dict())
        memory.update(torch.tensor([5, 0]), features)
        fresh.update(torch.tensor([5, 0]), features)
        for ours, theirs in zip(memory.buffers(), fresh.buffers()):
            assert torch.equal(ours, theirs) and not ours.requires_grad


def test_centres_come_back_in_the_order_of_the_batch_and_detached():
    centers = ImageCenters(IMAGES, DIM)
    features = draws(4)(3, 2, DIM).float().requires_grad_()
    out = centers.update(torch.tensor([6, 0, 3]), features)
    torch.testing.assert_close(out, features.detach().mean(1))
    assert not out.requires_grad
    assert torch.equal(centers.centers[torch.tensor([6, 0, 3])], out)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_averages_are_float32_under_autocast(dtype):
    draw, index = draws(5), torch.tensor([1, 1, 2])
    memories = [PatchMemory(IMAGES, PATCHES, DIM) for _ in range(2)]
    first, second = draw(PATCHES, 3, DIM).float(), draw(PATCHES, 3, DIM).to(dtype)
    memories[0].update(index, first)
    memories[0].update(index, second.float())
    with torch.autocast("cpu", dtype=dtype):
        memories[1].update(index, first)
        memories[1].update(index, second)
    torch.testing.assert_close(memories[1].bank, memories[0].bank)
    assert memories[1].bank.dtype == torch.float32


@pytest.mark.parametrize(
    "index, shape",
    [
        ([0, 1], (PATCHES, 3, DIM)),
        ([0, 1], (PATCHES, 2, DIM + 1)),
        ([0, 1], (PATCHES + 1, 2, DIM)),
        ([[0, 1]], (PATCHES, 2, DIM)),
        ([0.0, 1.0], (PATCHES, 2, DIM)),
    ],
)
def test_patch_memory_refuses_what_does_not_fit(index, shape):
    memory = PatchMemory(IMAGES, PATCHES, DIM)
    with pytest.raises(ValueError):
        memory.update(torch.tensor(index), torch.ones(shape))
    assert not memory.filled.any()


def test_an_index_beyond_the_memory_is_refused():
    with pytest.raises((ValueError, IndexError)):
        PatchMemory(IMAGES, PATCHES, DIM).update(torch.tensor([IMAGES]), torch.ones(PATCHES, 1, DIM))


@pytest.mark.parametrize("arguments", [(0, 3, 4), (7, 0, 4), (7, 3, 0), (7, 3, 4, -0.1), (7, 3, 4, 1.1)])
def test_patch_memory_refuses_impossible_sizes(arguments):
    with pytest.raises(ValueError):
        PatchMemory(*arguments)


@pytest.mark.parametrize("shape", [(3, 2, DIM), (2, DIM), (2, 2, DIM + 1)])
def test_centres_refuse_what_does_not_fit(shape):
    with pytest.raises(ValueError):
        ImageCenters(IMAGES, DIM).update(torch.tensor([0, 1]), torch.ones(shape))

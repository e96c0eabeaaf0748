"""Sampling and pooling of patches against torch's own grid sampler, and where the three generators put them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paul.bench import literal as reference
from paul.patches import EqualStripes, PatchGenerator, RandomPatches, pool_patches, sample_patches

# torch warns that grids of one row or column changed in its version 1.3; we mean today's.
pytestmark = pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid")
EXACT = dict(rtol=1e-9, atol=1e-9)

cuts = dict(
    seed=st.integers(0, 10**6),
    patches=st.integers(1, 4),
    rows=st.integers(1, 7),
    columns=st.integers(1, 6),
    reach=st.sampled_from([0.3, 1.0, 3.0]),
    size=st.one_of(st.none(), st.tuples(st.integers(1, 8), st.integers(1, 8))),
)


def a_map(seed, patches, rows, columns, reach=1.0, batch=2, channels=3):
    """A feature map and affine matrices of any kind: sheared, mirrored, larger than the map, beyond its border."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, rows, columns, generator=g, dtype=torch.float64)
    return x, reach * torch.randn(batch, patches, 2, 3, generator=g, dtype=torch.float64)


def gradients(pooled, x, theta):
    """Output, and the gradients of a fixed weighting of it to the map and to theta."""
    x, theta = x.clone().requires_grad_(), theta.clone().requires_grad_()
    out = pooled(x, theta)
    weights = torch.arange(1, out.numel() + 1, dtype=out.dtype).view_as(out).sin()
    (out * weights).sum().backward()
    return out.detach(), x.grad, theta.grad


@settings(max_examples=60, deadline=None)
@given(**cuts)
def test_patches_are_cut_as_the_grid_sampler_cuts(seed, patches, rows, columns, reach, size):
    x, theta = a_map(seed, patches, rows, columns, reach)
    ours = gradients(lambda x, theta: sample_patches(x, theta, size), x, theta)
    literal = gradients(lambda x, theta: reference.sample_patches(x, theta, size), x, theta)
    torch.testing.assert_close(ours, literal, **EXACT)


@settings(max_examples=100, deadline=None)
@given(**cuts)
def test_pooled_patches_are_the_means_of_the_patches(seed, patches, rows, columns, reach, size):
    x, theta = a_map(seed, patches, rows, columns, reach)
    ours = gradients(lambda x, theta: pool_patches(x, theta, size), x, theta)
    literal = gradients(lambda x, theta: reference.pool_patches(x, theta, size), x, theta)
    torch.testing.assert_close(ours, literal, **EXACT)
    torch.testing.assert_close(ours[0], sample_patches(x, theta, size).mean((3, 4)), **EXACT)


@settings(max_examples=60, deadline=None)
@given(**cuts)
def test_both_conventions_for_corners_are_the_grid_samplers(seed, patches, rows, columns, reach, size):
    """With corners that are not aligned, too: the mean of what torch's own sampler cuts, and its gradients."""
    x, theta = a_map(seed, patches, rows, columns, reach)

    def literal(x, theta):
        cut = []
        for place in range(patches):
            shape = [len(x), 1, *(size or (rows, columns))]
            grid = torch.nn.functional.affine_grid(theta[:, place], shape, align_corners=False)
            cut.append(torch.nn.functional.grid_sample(x, grid, align_corners=False).mean((2, 3)))
        return torch.stack(cut)

    ours = gradients(lambda x, theta: pool_patches(x, theta, size, align_corners=False), x, theta)
    torch.testing.assert_close(ours, gradients(literal, x, theta), **EXACT)
    torch.testing.assert_close(ours[0], sample_patches(x, theta, size, align_corners=False).mean((3, 4)), **EXACT)


def test_pooling_gradcheck():
    x, theta = a_map(0, patches=2, rows=4, columns=3, reach=0.5)
    assert torch.autograd.gradcheck(pool_patches, (x.requires_grad_(), theta.requires_grad_()))


def test_pooling_on_the_pixels_themselves_differentiates_as_the_sampler_does():
    # The identity puts each sampling point on a pixel, where the tent function has a kink.
    x, _ = a_map(1, patches=1, rows=5, columns=4)
    theta = torch.eye(2, 3, dtype=torch.float64).expand(2, 1, 2, 3)
    ours, literal = (gradients(f, x, theta) for f in (pool_patches, reference.pool_patches))
    torch.testing.assert_close(ours[:2], literal[:2], **EXACT)
    torch.testing.assert_close(ours[0], x.mean((2, 3))[None], **EXACT)


def test_a_patch_outside_the_map_is_zero():
    x, theta = a_map(2, patches=1, rows=5, columns=4)
    theta = torch.tensor([[1.0, 0, 5], [0, 1, 5]], dtype=torch.float64).expand_as(theta)
    out, to_map, to_theta = gradients(pool_patches, x, theta)
    assert not out.any() and not to_map.any() and not to_theta.any()


def test_pooling_leaves_a_constant_map_alone():
    x = torch.full((2, 3, 12, 5), 4.0)
    for generator in (EqualStripes(5), RandomPatches(5), PatchGenerator(3, 5, channels=4, hidden=4)):
        pooled = pool_patches(x, generator(x))
        torch.testing.assert_close(pooled, torch.full((5, 2, 3), 4.0))


def test_pooling_in_16_bits_under_autocast_stays_near_float32():
    x, theta = (t.float() for t in a_map(3, patches=3, rows=12, columns=6, reach=0.5))
    expected = pool_patches(x, theta)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(pool_patches(x, theta).float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("num_patches", [1, 4, 6, 7, 8])
def test_equal_stripes_tile_the_map(num_patches):
    theta = EqualStripes(num_patches)(torch.zeros(3, 2, 24, 8))
    assert theta.shape == (3, num_patches, 2, 3) and (theta == theta[:1]).all()
    stripes = theta[0].double()
    top, bottom = (stripes[:, 1, 2] + sign * stripes[:, 1, 1] for sign in (-1, 1))
    torch.testing.assert_close(top[1:], bottom[:-1], rtol=0, atol=1e-6)
    assert top[0].item() == pytest.approx(-1, abs=1e-6) and bottom[-1].item() == pytest.approx(1, abs=1e-6)
    assert (stripes[:, 0] == torch.tensor([1.0, 0, 0])).all() and (stripes[:, 1, 0] == 0).all()


def test_a_stripe_sampled_on_one_row_is_the_map_at_the_middle_of_the_stripe():
    x, _ = a_map(4, patches=1, rows=4, columns=3)
    middles = pool_patches(x, EqualStripes(4).double()(x), size=(1, 3))
    for m, stripe in enumerate(middles):
        y = (2 * m + 1) / 4 * 3 / 2  # in rows: the map's height, from first to last row's centre, is 3
        above, share = int(y), y - int(y)
        rows = (1 - share) * x[:, :, above] + share * x[:, :, above + 1]
        torch.testing.assert_close(stripe, rows.mean(2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_patches", [1, 4, 6, 8])
def test_the_generator_starts_from_equal_stripes_whatever_it_sees(num_patches):
    x = torch.randn(4, 5, 9, 6, generator=torch.Generator().manual_seed(0))
    theta = PatchGenerator(5, num_patches, channels=8, hidden=4)(x)
    torch.testing.assert_close(theta, EqualStripes(num_patches)(x))


def test_the_generator_learns_where_to_cut():
    torch.manual_seed(0)
    generator = PatchGenerator(5, 3, channels=8, hidden=4)
    x = torch.randn(4, 5, 9, 6, generator=torch.Generator().manual_seed(1))
    pool_patches(x, generator(x)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())
    assert generator.fc_loc[-1].bias.grad.abs().sum() > 0


def test_the_released_generator_has_78_million_parameters():
    with torch.device("meta"):
        generator = PatchGenerator(2048, 6)
    assert sum(p.numel() for p in generator.parameters()) == pytest.approx(77.6e6, rel=1e-3)


@pytest.mark.parametrize("num_patches", [1, 4, 6])
def test_random_patches_lie_inside_the_map_and_differ(num_patches):
    torch.manual_seed(0)
    generator, x = RandomPatches(num_patches), torch.zeros(50, 2, 24, 8)
    theta = generator(x)
    scale, shift = theta[..., :2].diagonal(dim1=-2, dim2=-1), theta[..., 2]
    assert (scale > 0).all() and (scale.abs() + shift.abs() <= 1 + 1e-6).all()
    assert (theta[:, :, 0, 1] == 0).all() and (theta[:, :, 1, 0] == 0).all()
    if num_patches > 1:
        assert not torch.equal(theta, generator(x))
        assert torch.equal(generator.eval()(x), generator.eval()(x))


@pytest.mark.parametrize("build", [EqualStripes, RandomPatches, lambda m: PatchGenerator(3, m, channels=4, hidden=4)])
@pytest.mark.parametrize("num_patches", [0, -1])
def test_there_is_at_least_one_patch(build, num_patches):
    with pytest.raises(ValueError, match="num_patches"):
        build(num_patches)

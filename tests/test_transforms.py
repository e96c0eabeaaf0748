"""Colour changes against torchvision's, resampling against a plain loop over pixels, and what the draws look like."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import ColorJitter, RandomRotation
from torchvision.transforms import functional as tv
from torchvision.transforms.v2 import functional as v2

from paul.data import transforms as augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, height=12, width=7, seed=0):
    return torch.rand(count, 3, height, width, generator=generator(seed))


COLOURS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
NOTHING = [augment.BRIGHTNESS, 1.0]


@pytest.mark.parametrize("change", [augment.BRIGHTNESS, augment.CONTRAST, augment.SATURATION])
@pytest.mark.parametrize("place", [0, 6])
def test_colour_change_is_torchvisions(change, place):
    x, factors = images(6), torch.tensor([0.0, 0.5, 0.8, 1.0, 1.2, 3.0])
    slots = torch.tensor([NOTHING] * 7).repeat(6, 1, 1)
    slots[:, 3] = 0.0  # no turn of the hue
    slots[:, place, 0], slots[:, place, 1] = change, factors
    expected = torch.stack([COLOURS[change](one, float(factor)) for one, factor in zip(x, factors)])
    # sums in another order, and hue's way to HSV and back: a few units of float32's last place at 1
    torch.testing.assert_close(augment.apply_jitter(x, slots), expected, atol=1e-6, rtol=0)


def test_hue_is_torchvisions():
    x = torch.cat(
        [
            images(6),
            torch.zeros(1, 3, 12, 7),
            torch.ones(1, 3, 12, 7),
            torch.eye(3)[:, :, None, None].expand(3, 3, 12, 7),
        ]
    )  # black, white and the primaries, where channels tie
    for turn in (-0.5, -0.1, 0.0, 0.07, 0.1, 0.5):
        expected = torch.stack([tv.adjust_hue(one, turn) for one in x])
        torch.testing.assert_close(augment.hue(x, torch.full((len(x),), turn)), expected, atol=2e-6, rtol=0)


def steps_of(slots):
    """(change, factor) pairs of one image, in order, without the slots that do nothing."""
    return [
        (int(change), factor)
        for place, (change, factor) in enumerate(slots.tolist())
        if place == 3 or [change, factor] != NOTHING
    ]


def test_jitter_draws_each_image_its_own_order_and_factors_as_torchvision_does():
    count = 12_000
    drawn = [steps_of(slots) for slots in augment.draw_jitter(count, generator(), jitter=0.2, hue_turn=0.1)]
    orders = Counter(tuple(change for change, _ in steps) for steps in drawn)
    assert len(orders) == 24 and all(set(order) == {0, 1, 2, 3} for order in orders)
    assert all(abs(seen - count / 24) < 5 * math.sqrt(count / 24) for seen in orders.values())
    torch.manual_seed(0)
    jitter = ColorJitter(0.2, 0.2, 0.2, 0.1)
    theirs = [
        jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(count)
    ]
    assert Counter(tuple(order.tolist()) for order, *_ in theirs).keys() == orders.keys()
    for change in range(4):
        ours = [dict(steps)[change] for steps in drawn]
        assert ks_2samp(ours, [parameters[1 + change] for parameters in theirs]).pvalue > 1e-3


def test_jitter_of_a_batch_is_torchvisions_image_by_image_in_each_ones_order():
    x, slots = images(60), augment.draw_jitter(60, generator(1), jitter=0.4, hue_turn=0.3)
    expected = []
    for one, own in zip(x, slots):
        for change, factor in steps_of(own):
            one = COLOURS[change](one, factor)
        expected.append(one)
    # four changes, each within a few units of float32's last place at 1
    torch.testing.assert_close(augment.apply_jitter(x, slots), torch.stack(expected), atol=4e-6, rtol=0)


def parameters(theta, height, width):
    """Angle, crop width and height as shares, and the crop's centre in [-1, 1], read back from affine matrices."""
    theta = theta.double().numpy()
    to_pixels = np.array([width, height])
    linear = theta[:, :, :2] * to_pixels[:, None] / to_pixels
    across, down = np.linalg.norm(linear[:, :, 0], axis=1), np.linalg.norm(linear[:, :, 1], axis=1)
    angle = np.arctan2(linear[:, 1, 0], linear[:, 0, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    shift = theta[:, :, 2] * to_pixels
    centre = np.stack([cos * shift[:, 0] + sin * shift[:, 1], -sin * shift[:, 0] + cos * shift[:, 1]], 1) / to_pixels
    assert np.allclose((linear[:, :, 0] * linear[:, :, 1]).sum(1), 0, atol=1e-6)  # no shear
    return angle, across, down, centre


def test_rotation_and_crop_draw_what_the_paper_says():
    theta = augment.rotation_and_crop(12_000, 128, 64, generator())
    angle, across, down, centre = parameters(theta, 128, 64)
    limit = math.radians(10)
    assert kstest(angle, "uniform", (-limit, 2 * limit)).pvalue > 1e-3
    assert kstest(across * down, "uniform", (0.70, 0.25)).pvalue > 1e-3
    assert (across <= 1 + 1e-6).all() and (down <= 1 + 1e-6).all()
    assert (across / down < 0.8).any() and (across / down > 1.25).any()  # free aspect
    room = 1 - np.stack([across, down], 1)
    assert (np.abs(centre) <= room + 1e-6).all()  # the crop lies inside the image
    for place in (centre / room).T:
        assert kstest(place, "uniform", (-1, 2)).pvalue > 1e-3


def plain_rotation_and_crop(image, angle, across, down, centre):
    """Every output pixel looks up its place: crop first, then the rotation about the middle; black outside."""
    channels, height, width = image.shape
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x = width / 2 * (1 + centre[0] + across * (2 * (column + 0.5) / width - 1)) - width / 2
            y = height / 2 * (1 + centre[1] + down * (2 * (row + 0.5) / height - 1)) - height / 2
            source_x = math.cos(angle) * x - math.sin(angle) * y + width / 2 - 0.5
            source_y = math.sin(angle) * x + math.cos(angle) * y + height / 2 - 0.5
            left, top = math.floor(source_x), math.floor(source_y)
            for r in (top, top + 1):
                for c in (left, left + 1):
                    if 0 <= r < height and 0 <= c < width:
                        share = (1 - abs(source_y - r)) * (1 - abs(source_x - c))
                        out[:, row, column] += share * image[:, r, c]
    return out


def test_rotation_and_crop_move_pixels_as_a_plain_loop_does():
    x = images(5, 12, 7).double()
    theta = augment.rotation_and_crop(5, 12, 7, generator(3), degrees=25)
    seen = augment.resample(x, theta.double()).numpy()
    for image, found, values in zip(x.numpy(), seen, zip(*parameters(theta, 12, 7))):
        np.testing.assert_allclose(found, plain_rotation_and_crop(image, *values), atol=1e-6)


BILINEAR = tv.InterpolationMode.BILINEAR


def through_torchvision(image, angle, across, down, centre):
    """Torchvision's own sampling of an affine map: crop of float size, then rotation; centre in [-1, 1]."""
    height, width = image.shape[1:]
    cos, sin = math.cos(angle), math.sin(angle)
    left, top = width / 2 * (centre[0] - across), height / 2 * (centre[1] - down)  # from the middle of the image
    coefficients = [
        cos * across,
        -sin * down,
        cos * left - sin * top + width / 2,
        sin * across,
        cos * down,
        sin * left + cos * top + height / 2,
        0.0,
        0.0,
    ]
    return v2.perspective(image, None, None, interpolation=BILINEAR, coefficients=coefficients)


def test_rotation_and_crop_are_torchvisions_sampling_of_the_same_map():
    x = images(8, 48, 24)
    theta = augment.rotation_and_crop(8, 48, 24, generator(3), degrees=25)
    expected = torch.stack(
        [through_torchvision(image, *values) for image, values in zip(x, zip(*parameters(theta, 48, 24)))]
    )
    # coordinates up to 48 in float32 are off by some 1e-6 pixels, and neighbours differ by up to 1
    torch.testing.assert_close(augment.resample(x, theta), expected, atol=2e-5, rtol=0)


def test_rotation_alone_is_torchvisions():
    x, nothing = images(8, 48, 24), torch.zeros(8)
    theta = augment.rotation_and_crop(8, 48, 24, generator(4), crop=nothing)
    angles = np.degrees(parameters(theta, 48, 24)[0])
    expected = torch.stack([v2.rotate(image, float(angle), interpolation=BILINEAR) for image, angle in zip(x, angles)])
    torch.testing.assert_close(augment.resample(x, theta), expected, atol=2e-5, rtol=0)  # as above


def test_a_crop_of_whole_pixels_is_torchvisions_but_for_its_outermost_pixels():
    """Torchvision cuts first and repeats the cut's edge; one sampling sees the image's own pixels beyond it."""
    x = images(4, 48, 24)
    for image, (top, left, height, width) in zip(x, ((0, 0, 48, 18), (5, 3, 40, 20), (9, 4, 39, 20), (2, 1, 44, 22))):
        theta = torch.tensor(
            [[[width / 24, 0, (2 * left + width) / 24 - 1], [0, height / 48, (2 * top + height) / 48 - 1]]]
        )
        expected = v2.resized_crop(image, top, left, height, width, [48, 24], interpolation=BILINEAR, antialias=False)
        seen = augment.resample(image[None], theta)[0]
        torch.testing.assert_close(seen[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=2e-5, rtol=0)  # as above


def test_surrogates_are_distributed_as_torchvisions_transforms_one_image_at_a_time():
    """10,000 surrogates of one image, jittered, rotated and cropped in a batch, and as many made one by one."""
    count, picture, rng = 10_000, images(1, 8, 6, seed=9)[0], np.random.default_rng(0)
    ours = augment.surrogates(picture.expand(count, -1, -1, -1), generator(5))
    torch.manual_seed(5)
    jitter, theirs = ColorJitter(0.2, 0.2, 0.2, 0.1), []
    for _ in range(count):
        angle = math.radians(RandomRotation.get_params([-10.0, 10.0]))
        area = rng.uniform(0.70, 0.95)
        across = rng.uniform(area, 1)
        down = area / across
        centre = rng.uniform(-1, 1) * (1 - across), rng.uniform(-1, 1) * (1 - down)
        theirs.append(through_torchvision(jitter(picture), angle, across, down, centre))
    theirs = torch.stack(theirs)
    statistics = {
        "mean of a channel": lambda x: x.mean((2, 3)),
        "spread of a channel": lambda x: x.flatten(2).std(2),
        "a corner": lambda x: x[:, :, 0, 0],
        "the middle": lambda x: x[:, :, 4, 3],
        "an edge": lambda x: x[:, :, 4, 5],
        "red less blue": lambda x: (x[:, :1] - x[:, 2:]).mean((2, 3)),
    }
    for name, statistic in statistics.items():
        for one, other in zip(statistic(ours).T, statistic(theirs).T):
            assert ks_2samp(one.numpy(), other.numpy()).pvalue > 1e-3, name
            assert one.std() > 0.005  # there is something to compare


def test_the_flips_of_an_image_and_of_its_surrogate_are_independent():
    x, draws = torch.tensor([0.0, 1.0]).expand(10_000, 3, 1, 2), generator(6)
    first, second = (augment.random_flip(x, draws)[:, 0, 0, 0] for _ in range(2))
    seen = Counter(zip(first.tolist(), second.tolist()))
    assert len(seen) == 4 and all(abs(n - 2500) < 5 * math.sqrt(2500 * 0.75) for n in seen.values())


def test_each_image_draws_its_own_surrogate_and_a_seed_repeats_it():
    x = images(1, 16, 8).expand(6, -1, -1, -1)
    for mode in ("all", "one"):
        once, again = (augment.surrogates(x, generator(1), mode=mode) for _ in range(2))
        assert torch.equal(once, again)
        assert once.shape == x.shape and once.min() >= 0 and once.max() <= 1 + 1e-6
        assert len({tuple(image.flatten().tolist()) for image in once}) == 6


def changed_share(x, **settings):
    surrogate = augment.surrogates(x, generator(), mode="one", padding="border", **settings)
    return ((surrogate - x).abs().flatten(1).amax(1) > 1e-4).double().mean().item()


def test_one_surrogate_in_three_is_of_each_kind():
    plain = torch.tensor([0.7, 0.4, 0.2]).view(1, 3, 1, 1).expand(3000, 3, 4, 4)  # only colour can change it
    pattern = images(1, 8, 4).expand(3000, -1, -1, -1)
    still = dict(jitter=0.0, hue_turn=0.0)
    shares = [
        changed_share(plain),
        changed_share(pattern, degrees=0.0, **still),
        changed_share(pattern, area=(1.0, 1.0), **still),
    ]
    assert all(abs(share - 1 / 3) < 5 * math.sqrt(2 / 9 / 3000) for share in shares)


def test_all_applies_every_transformation():
    x = images(1, 8, 4).expand(50, -1, -1, -1)
    still = dict(jitter=0.0, hue_turn=0.0)
    for settings in (dict(degrees=0.0, area=(1.0, 1.0)), dict(area=(1.0, 1.0), **still), dict(degrees=0.0, **still)):
        assert ((augment.surrogates(x, generator(), **settings) - x).abs().flatten(1).amax(1) > 1e-4).all()
    nothing = augment.surrogates(x, generator(), degrees=0.0, area=(1.0, 1.0), **still)
    torch.testing.assert_close(nothing, x, atol=1e-5, rtol=0)


def test_padding_decides_what_lies_outside_a_rotated_image():
    white = torch.ones(20, 3, 32, 16)
    settings = dict(jitter=0.0, hue_turn=0.0, area=(1.0, 1.0))
    assert augment.surrogates(white, generator(), padding="zeros", **settings).amin() < 0.1
    torch.testing.assert_close(augment.surrogates(white, generator(), padding="border", **settings), white)


@pytest.mark.parametrize(("aspect", "share"), [(2.0, 0.1736), (3.0, 0.2605), (1.5, 0.1302)])
def test_a_rotation_moves_the_top_edge_by_half_the_aspect_times_the_sine_of_its_width(aspect, share):
    """Whatever size the image was resized to: what counts is what it was rotated at (ledger 33)."""
    height, width, degrees = 384, 128, 10.0
    drawn = augment.rotation_and_crop(
        2000, height, width, generator(), degrees, (1.0, 1.0), aspect=torch.full((2000,), aspect)
    )
    top = torch.tensor([0.0, -1.0, 1.0])  # the middle of the upper edge, as (x, y, 1)
    moved = (drawn @ top)[:, 0] / 2  # in widths
    sine = moved / (aspect / 2)  # of each image's own angle
    assert moved.abs().max() == pytest.approx(share, abs=0.002)
    torch.testing.assert_close((drawn @ top)[:, 1], -(1 - sine.square()).sqrt(), rtol=1e-4, atol=1e-5)
    x = torch.zeros(1, 1, height, width)
    x[..., :8, :] = torch.arange(width) / width  # the upper edge says where along the width it is
    turned = augment.resample(x, drawn[:1], "border")[0, 0, 0, width // 2]
    assert abs(turned.item() - 0.5) == pytest.approx(moved[0].abs().item(), abs=0.02)


def test_each_image_is_rotated_at_its_own_aspect_and_at_the_pictures_by_default():
    draw = [
        augment.rotation_and_crop(3, 30, 10, generator(), aspect=aspect) for aspect in (None, torch.full((3,), 3.0))
    ]
    assert torch.equal(*draw)
    x = images(3, 30, 10)
    mixed = augment.surrogates(x, generator(), aspect=torch.tensor([3.0, 2.0, 3.0]))
    plain = augment.surrogates(x, generator())
    assert [torch.equal(one, other) for one, other in zip(mixed, plain)] == [True, False, True]


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'all' or 'one', got 'some'"):
        augment.surrogates(images(1), generator(), mode="some")


def test_flip_mirrors_half_of_the_images():
    x = images(1000)
    flipped = augment.random_flip(x, generator())
    same, mirrored = ((flipped == other).flatten(1).all(1) for other in (x, x.flip(3)))
    assert (same ^ mirrored).all()
    assert abs(mirrored.double().mean() - 0.5) < 5 * math.sqrt(0.25 / 1000)


def test_shift_moves_and_scales_within_its_amount():
    size = 41
    across = torch.linspace(0, 1, size).expand(size, size)
    x = torch.stack([across, across.T, torch.full_like(across, 0.3)]).expand(500, -1, -1, -1)
    seen = augment.random_shift(x, generator(), amount=0.06)
    middle, one = size // 2, 1 / (size - 1)
    torch.testing.assert_close(seen[:, 2], x[:, 2])  # the border repeats: no black comes in
    scale = (seen[:, 0, middle, middle + 1] - seen[:, 0, middle, middle - 1]) / (2 * one)
    assert kstest(scale.numpy(), "uniform", (0.94, 0.12)).pvalue > 1e-3
    for channel in (0, 1):
        moved = (seen[:, channel, middle, middle] - 0.5) / (one * size)
        assert kstest(moved.numpy(), "uniform", (-0.06, 0.12)).pvalue > 1e-3

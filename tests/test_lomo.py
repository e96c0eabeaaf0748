"""LOMO against slow versions that go pixel by pixel, the length that its paper states, what light may not change."""

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from people import picture
from scipy.ndimage import gaussian_filter

from paul.rivals.lomo import LomoOptions
from paul.rivals.lomo import descriptor as lomo


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def people(count=3, size=(64, 32)):
    rng = np.random.default_rng(0)
    return torch.stack([torch.from_numpy(picture(p, 1, rng, size).copy()).permute(2, 0, 1) for p in range(count)])


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20))
def test_hsv_is_colorsys(colours):
    x = torch.tensor(colours, dtype=torch.float64).T.view(1, 3, 1, -1) / 255
    expected = torch.tensor(
        [colorsys.rgb_to_hsv(*(value / 255 for value in colour)) for colour in colours], dtype=torch.float64
    )
    turns = (lomo.hsv(x)[0, :, 0].T - expected).abs()
    turns[:, 0] = torch.minimum(turns[:, 0], 1 - turns[:, 0])  # 0 and 1 are one hue
    assert turns.max() < 1e-9


def test_colour_codes_number_the_joint_bins():
    colours = {
        (0, 0, 0): 0,
        (255, 255, 255): 7 * 64,
        (255, 0, 0): 7 * 64 + 7 * 8,
        (0, 255, 255): 7 * 64 + 7 * 8 + 4,
        (128, 128, 128): 4 * 64,
    }
    x = torch.tensor(list(colours), dtype=torch.float32).T.view(1, 3, 1, -1) / 255
    assert lomo.colour_codes(x, 8).flatten().tolist() == list(colours.values())


def siltp_by_loops(x, radius, tau):
    height, width = len(x), len(x[0])
    codes = [[0] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            for place, (down, right) in enumerate([(0, 1), (-1, 0), (0, -1), (1, 0)]):
                r = min(max(row + radius * down, 0), height - 1)
                c = min(max(column + radius * right, 0), width - 1)
                if x[r][c] < (1 - tau) * x[row][column]:
                    codes[row][column] += 3**place
                elif x[r][c] > (1 + tau) * x[row][column]:
                    codes[row][column] += 2 * 3**place
    return codes


def test_siltp_of_a_picture_made_by_hand():
    x = torch.tensor([[10.0, 10, 10], [10, 10, 20], [10, 5, 10]])
    # the middle: right is brighter (2), above and left are equal, below is darker (1 * 27)
    assert lomo.siltp(x[None], 1, 0.3)[0, 1, 1] == 2 + 27


@pytest.mark.parametrize("radius", [1, 3, 5])
def test_siltp_is_its_loops(radius):
    x = noise(2, 14, 12).double() / 255
    for image, found in zip(x, lomo.siltp(x, radius, 0.3)):
        assert found.tolist() == siltp_by_loops(image.tolist(), radius, 0.3)


@given(st.sampled_from([0.25, 0.5, 2.0, 8.0]), st.integers(0, 99))
def test_a_brighter_light_changes_no_texture_code(light, seed):
    x = noise(1, 16, 12, seed=seed).float()
    assert torch.equal(lomo.siltp(light * x, 3, 0.3), lomo.siltp(x, 3, 0.3))


def test_maximal_occurrence_is_its_loops():
    codes, bins, window, step = noise(2, 27, 22).long() % 5, 5, 10, 5
    found = lomo.maximal_occurrence(codes, bins, window, step)
    for image, strips in zip(codes.tolist(), found.tolist()):
        tops = range(0, 27 - window + 1, step)
        assert len(strips) == len(tops) == 4
        for top, strip in zip(tops, strips):
            expected = [0] * bins
            for left in range(0, 22 - window + 1, step):
                inside = [image[r][c] for r in range(top, top + window) for c in range(left, left + window)]
                expected = [max(most, inside.count(code)) for code, most in enumerate(expected)]
            assert strip == expected


def test_blur_is_scipys():
    x = noise(2, 3, 40, 24).double()
    expected = gaussian_filter(x.numpy(), (0, 0, 2.0, 2.0), mode="nearest", truncate=3)
    assert np.allclose(lomo.blurred(x, 2.0), expected)
    wide = lomo.blurred(torch.full((1, 3, 30, 12), 7.0), 20.0)
    assert torch.allclose(wide, torch.full_like(wide, 7.0))


def test_an_even_light_hardly_changes_the_retinex():
    x = 0.2 + 0.4 * noise(2, 3, 64, 32) / 255
    plain, brighter = lomo.retinex(x, (5.0, 20.0)), lomo.retinex(1.6 * x, (5.0, 20.0))
    assert (plain - brighter).abs().max() < 0.02 and plain.amin() == 0 and plain.amax() == 1
    tinted = lomo.retinex(x * torch.tensor([1.0, 0.7, 1.3]).view(1, 3, 1, 1), (5.0, 20.0))
    assert (plain - tinted).abs().max() < 0.02


def test_the_length_at_the_papers_size_is_the_papers():
    assert lomo.describe(noise(1, 3, 128, 48)).shape == (1, 26_960)
    assert (24 + 11 + 5) * (8**3 + 2 * 3**4) == 26_960


@pytest.mark.parametrize("size", [(96, 48), (40, 24), (64, 64)])
def test_other_sizes_have_other_strips(size):
    strips, (height, width) = 0, size
    for _ in range(3):
        strips += (height - 10) // 5 + 1 if min(height, width) >= 10 else 0
        height, width = height // 2, width // 2
    assert lomo.describe(noise(2, 3, *size)).shape == (2, strips * 674)


def test_each_part_is_of_unit_length_and_a_batch_changes_nothing():
    images = people(3)
    found = lomo.describe(images)
    sizes = [found.shape[1] * bins // 674 for bins in (512, 81, 81)]
    for part in found.split(sizes, 1):
        assert torch.allclose(part.norm(dim=1), torch.ones(3))
    assert torch.equal(found, lomo.describe(images, batch=1)) and torch.equal(found, lomo.describe(images))
    assert not torch.allclose(found[0], found[1])


def test_the_descriptor_is_the_log_of_the_counts_scaled_to_length_one():
    image, options = people(1), LomoOptions(levels=1, surrounds=(), radii=())
    counts = lomo.maximal_occurrence(lomo.colour_codes(image / 255, 8), 512, 10, 5).flatten().tolist()
    logs = [math.log(1 + count) for count in counts]
    length = math.sqrt(sum(value**2 for value in logs))
    assert lomo.describe(image, options)[0].tolist() == pytest.approx([value / length for value in logs], abs=1e-6)


def test_images_smaller_than_a_window_are_refused():
    with pytest.raises(ValueError, match="windows of 10 pixels do not fit into images of 9x20"):
        lomo.describe(noise(1, 3, 9, 20))

"""BoW against slow versions that go patch by patch; its colour names against published tables."""

import math
import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import XKCD_COLORS, to_rgb
from people import picture
from skimage.color import rgb2lab

from paul.rivals.bow import BowOptions
from paul.rivals.bow import descriptor as bow
from paul.rivals.bow.descriptor import Codebook

SMALL = BowOptions(size=(40, 24), words=12, assigned=3, strips=4)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pictures = [picture(person, camera, rng) for person in range(8) for camera in (1, 2)]
    return torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in pictures])


@pytest.fixture(scope="module")
def book(images):
    return Codebook.fit(images, SMALL)


def test_the_names_stand_where_the_survey_put_them():
    assert len(bow.COLOUR_NAMES) == 11
    for name, colour in bow.COLOUR_NAMES.items():
        assert np.allclose(np.array(colour) / 255, to_rgb(XKCD_COLORS[f"xkcd:{name}"]))


def test_cielab_is_scikit_images():
    rgb = torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rgb = torch.cat([rgb, 0.02 * rgb, torch.zeros(1, 3), torch.ones(1, 3)])
    assert np.allclose(bow.cielab(rgb).numpy(), rgb2lab(rgb.numpy()), atol=0.01)


def test_every_name_is_likeliest_where_it_stands_and_the_names_share_a_colour():
    table = bow.name_table(20.0)
    assert table.shape == (32**3, 11) and torch.allclose(table.sum(1), torch.ones(32**3))
    pixels = torch.tensor(list(bow.COLOUR_NAMES.values()), dtype=torch.uint8)
    found = bow.patch_names(pixels.view(11, 3, 1, 1).expand(-1, -1, 4, 4), BowOptions())
    assert found[:, 0, 0].argmax(1).tolist() == list(range(11))
    assert bow.name_table(5.0).amax(1).mean() > table.amax(1).mean()


def histogram_by_loops(book, image):
    """Straight from the description, for one uint8 image [3, H, W]."""
    options, words, table = book.options, book.words.tolist(), bow.name_table(book.options.name_width)
    rows, columns = image.shape[1] // options.patch, image.shape[2] // options.patch
    votes, often = [[0.0] * len(words) for _ in range(options.strips)], [0] * len(words)
    for row in range(rows):
        for column in range(columns):
            names = [0.0] * 11
            for y in range(row * options.patch, (row + 1) * options.patch):
                for x in range(column * options.patch, (column + 1) * options.patch):
                    r, g, b = (int(value) // 8 for value in image[:, y, x])
                    for place, p in enumerate(table[(r * 32 + g) * 32 + b].tolist()):
                        names[place] += p / options.patch**2
            ranked = sorted((math.dist(names, word), place) for place, word in enumerate(words))
            down, right = 2 * row / (rows - 1) - 1, 2 * column / (columns - 1) - 1
            for distance, word in ranked[: options.assigned]:
                weight = math.exp(-distance / options.sigma**2) * math.exp(-(down**2 + right**2) / options.mask**2)
                votes[row * options.strips // rows][word] += weight
                often[word] += 1
    return [vote / math.sqrt(max(count, 1)) for strip in votes for vote, count in zip(strip, often)]


def test_a_histogram_is_its_loops(images, book):
    found = book.histograms(images[:3])
    for image, histogram in zip(images, found.tolist()):
        assert histogram == pytest.approx(histogram_by_loops(book, image), abs=1e-5)


def test_mean_and_term_weights_are_those_of_the_training_images(images, book):
    histograms = [histogram_by_loops(book, image) for image in images]
    for place in range(len(book.mean)):
        column = [histogram[place] for histogram in histograms]
        assert book.mean[place].item() == pytest.approx(sum(column) / len(column), abs=1e-5)
        with_word = max(sum(value > 0 for value in column), 1)
        assert book.weight[place].item() == pytest.approx(math.sqrt(math.log(len(images) / with_word)), abs=1e-5)


def test_a_descriptor_is_the_weighted_histogram_scaled_to_length_one(images, book):
    found = book.describe(images)
    expected = (book.histograms(images) - book.mean) * book.weight
    assert torch.allclose(found * expected.norm(dim=1, keepdim=True), expected, atol=1e-6)
    assert torch.allclose(found, book.describe(images, batch=5), atol=1e-6)


def test_images_of_one_person_lie_closer_than_those_of_others(images, book):
    found = book.describe(images)
    nearest = (found @ found.T).fill_diagonal_(-1).argmax(1)
    assert (nearest // 2 == torch.arange(len(images)) // 2).float().mean() > 0.5


def test_the_length_at_the_papers_size_is_the_papers():
    images = torch.randint(0, 256, (2, 3, 128, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    book = Codebook(torch.rand(350, 11), BowOptions())
    assert book.describe(images).shape == (2, 5600)
    word, weight = book.votes(images)
    assert word.shape == weight.shape == (2, 32, 16, 10)
    assert (weight[..., 1:] <= weight[..., :-1]).all()


def test_the_seed_decides_the_codebook(images, book):
    again, other = Codebook.fit(images, SMALL), Codebook.fit(images, SMALL, seed=1)
    assert all(torch.equal(getattr(again, name), getattr(book, name)) for name in ("words", "mean", "weight"))
    assert not torch.equal(other.words, book.words)


def test_what_cannot_be_fitted_is_refused(images, monkeypatch):
    with pytest.raises(ValueError, match="60 patches of 1 images make no 350 words"):
        Codebook.fit(images[:1])
    with pytest.raises(ValueError, match="10 rows of patches, too few for 16 strips"):
        Codebook.fit(images, BowOptions(words=12))
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"paul-book\[baselines\]"):
        Codebook.fit(images, SMALL)

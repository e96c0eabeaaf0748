"""Decoding: sizes and colours, files that cannot be read, and the two scales of pixel values."""

import numpy as np
import pytest
import torch
from people import picture, write_set
from PIL import Image

from paul.data.datasets import ReidDataset
from paul.data.images import read_image, readable
from paul.data.pixels import load_images
from paul.data.transforms import normalize, unit_range


@pytest.fixture
def split(tmp_path):
    folder = write_set(tmp_path, {"train": [(1, 1), (1, 2), (2, 1), (2, 2)]})
    return ReidDataset.load(folder).split("train")


def test_pixels_are_the_files(split):
    images = load_images(split, (40, 24))
    assert images.shape == (4, 3, 40, 24) and images.dtype == torch.uint8
    rng = np.random.default_rng(0)
    for image, (person, camera) in zip(images, [(1, 1), (1, 2), (2, 1), (2, 2)]):
        assert np.array_equal(image.permute(1, 2, 0), picture(person, camera, rng))


def test_another_size_is_pillows_bilinear(split):
    with Image.open(split.files[2]) as image:
        expected = np.asarray(image.resize((10, 30), Image.Resampling.BILINEAR))
    assert np.array_equal(load_images(split, (30, 10))[2].permute(1, 2, 0), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    image = Image.fromarray(picture(1, 1, np.random.default_rng(0))).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    assert read_image(path).shape == (40, 24, 3)


def break_files(split):
    """A JPEG cut in half, a page in place of an image, and a missing file; the last one is left whole."""
    cut, page, missing, _ = split.files
    Image.fromarray(picture(1, 1, np.random.default_rng(0), (200, 100))).save(cut, "JPEG")
    cut.write_bytes(cut.read_bytes()[:2000])
    page.write_text("<html>")
    missing.unlink()
    return cut, page, missing


def test_an_unreadable_image_is_named(split):
    for path in break_files(split):
        with pytest.raises(ValueError, match=f"cannot read the image .*{path.name}.*skip_unreadable=True"):
            read_image(path, (40, 24))
    with pytest.raises(ValueError, match=f"cannot read the image .*{split.files[0].name}"):
        load_images(split, (40, 24))


def test_unreadable_images_are_left_out_and_reported_when_asked(split):
    broken, reports = break_files(split), []
    kept = readable(split, report=reports.append)
    assert kept.files == split.files[3:] and kept.person_ids.tolist() == [2]
    assert len(reports) == 3
    assert all(
        report.startswith("left out: cannot read") and path.name in report
        for path, report in zip(broken, sorted(reports))
    )
    assert load_images(kept, (40, 24)).shape == (1, 3, 40, 24)


def test_values_are_what_imagenet_networks_expect():
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    x = unit_range(images)
    assert x.flatten().tolist() == pytest.approx([0, 128 / 255, 1])
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert normalize(x).flatten().tolist() == pytest.approx(expected)

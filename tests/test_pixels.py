"""Decoded images on disk: the same pixels as in memory, decoded once, whatever happened to an earlier attempt."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from people import pairs, write_set
from PIL import Image

from paul.data import pixels as store
from paul.data.datasets import ReidDataset
from paul.data.images import read_image
from paul.data.pixels import load_pixels

SIZE = (20, 12)


@pytest.fixture
def split(tmp_path):
    return ReidDataset.load(write_set(tmp_path / "set", {"train": pairs(range(1, 6), 2)}, size=SIZE)).split("train")


@pytest.fixture
def reads(monkeypatch):
    """Which files were decoded."""
    seen = []
    monkeypatch.setattr(store, "read_image", lambda path, size=None: seen.append(path) or read_image(path, size))
    return seen


def on_disk(split, tmp_path, size=SIZE):
    return load_pixels(split, size, place="disk", folder=tmp_path / "a cache")


def test_a_map_holds_the_pixels_and_is_decoded_once(split, tmp_path, reads):
    expected = load_pixels(split, SIZE, place="memory")
    reads.clear()
    first, second = (on_disk(split, tmp_path) for _ in range(2))
    assert reads == split.files and all(torch.equal(one.images, expected.images) for one in (first, second))
    assert first.images.dtype == torch.uint8 and first.file.stat().st_size == expected.images.nbytes
    assert expected.file is None


def test_another_size_another_split_or_a_changed_image_is_decoded_anew(split, tmp_path, reads):
    on_disk(split, tmp_path)
    on_disk(split, tmp_path, size=(10, 6))
    assert len(reads) == 2 * len(split)
    on_disk(split.take([3, 1]), tmp_path)
    assert len(reads) == 2 * len(split) + 2
    split.files[0].write_bytes(split.files[1].read_bytes())
    assert torch.equal(*on_disk(split, tmp_path).images[:2])


def test_files_replaced_with_equal_size_and_time_are_decoded_anew(split, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    for number, path in enumerate(split.files[:2]):
        Image.fromarray(colours[number]).save(path, "BMP")  # a PNG by its name, of a size that its pixels decide
        os.utime(path, ns=(0, 0))
    on_disk(split, tmp_path)
    status = split.files[0].stat()
    split.files[0].write_bytes(split.files[1].read_bytes())
    os.utime(split.files[0], ns=(0, 0))
    assert (split.files[0].stat().st_size, split.files[0].stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert torch.equal(on_disk(split, tmp_path).images[0].permute(1, 2, 0), torch.from_numpy(colours[1]))


def test_the_same_pictures_elsewhere_and_touched_are_not_decoded_again(split, tmp_path, reads):
    on_disk(split, tmp_path)
    reads.clear()
    moved = split.root.rename(tmp_path / "moved")
    for path in moved.rglob("*.png"):
        os.utime(path, ns=(0, 0))
    on_disk(ReidDataset.load(moved).split("train"), tmp_path)
    assert not reads


def test_other_rules_or_another_pillow_decode_anew(split, tmp_path, reads, monkeypatch):
    for name, value in (("RULES", 0), ("PIL.__version__", "0")):
        monkeypatch.setattr(f"paul.data.pixels.{name}", value)
        reads.clear()
        on_disk(split, tmp_path)
        assert reads == split.files


def test_without_a_wish_the_free_memory_decides(split, tmp_path, monkeypatch):
    for free, file in ((0, True), (10**9, False)):
        monkeypatch.setattr(store, "free_memory", lambda: free)
        assert bool(load_pixels(split, SIZE, folder=tmp_path).file) == file
    with pytest.raises(ValueError, match="images can live in device, memory, disk, not in 'tape'"):
        load_pixels(split, SIZE, place="tape")


def test_free_memory_is_some_and_not_more_than_there_is():
    assert 0 < store.free_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("stop", [1, 7, 8, 19])
def test_interrupted_decoding_goes_on_where_it_was(split, tmp_path, reads, monkeypatch, stop):
    monkeypatch.setattr(store, "CHUNK", 4)
    expected = load_pixels(split, SIZE, place="memory").images

    def fail(path, size=None):
        if path == split.files[stop]:
            raise KeyboardInterrupt
        return read_image(path, size)

    with monkeypatch.context() as broken:
        broken.setattr(store, "read_image", fail)
        with pytest.raises(KeyboardInterrupt):
            on_disk(split, tmp_path)
    reads.clear()
    assert torch.equal(on_disk(split, tmp_path).images, expected)
    # of what had been decoded, at most the last chunk is decoded again
    assert max(0, len(split) - stop) <= len(reads) <= len(split) - max(0, stop // 4 * 4 - 4)


@pytest.mark.parametrize("first, last", [(0, 20), (0, 1), (3, 4), (3, 5), (19, 20)])
def test_what_is_overwritten_is_decoded_again_and_nothing_else(split, tmp_path, reads, monkeypatch, first, last):
    """Zeros are also what a machine that goes down may leave in a file of the right length."""
    monkeypatch.setattr(store, "CHUNK", 4)
    pixels = on_disk(split, tmp_path)
    expected, image = pixels.images.clone(), pixels.images[0].nbytes
    reads.clear()
    with pixels.file.open("r+b") as file:
        file.seek(first * image)
        file.write(bytes((last - first) * image))
    assert torch.equal(on_disk(split, tmp_path).images, expected)
    assert reads == split.files[first // 4 * 4 : -(-last // 4) * 4]


@pytest.mark.parametrize("damage", [lambda sums: sums.unlink(), lambda sums: os.truncate(sums, 40)])
def test_without_checksums_nothing_is_trusted(split, tmp_path, reads, monkeypatch, damage):
    monkeypatch.setattr(store, "CHUNK", 4)
    pixels = on_disk(split, tmp_path)
    expected = pixels.images.clone()
    damage(pixels.file.with_suffix(".sha256"))
    for _ in range(2):
        reads.clear()
        assert torch.equal(on_disk(split, tmp_path).images, expected)
    assert not reads, "repaired"


def test_a_map_that_is_whole_is_read_where_nothing_can_be_written(split, tmp_path, monkeypatch):
    expected = on_disk(split, tmp_path).images.clone()
    monkeypatch.setattr(store, "FileLock", lambda path: pytest.fail("writes"))
    assert torch.equal(on_disk(split, tmp_path).images, expected)


def test_two_that_want_the_same_map_decode_it_once(split, tmp_path, reads):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: on_disk(split, tmp_path), range(2))
    assert torch.equal(first.images, second.images) and len(reads) == len(split)


def test_a_file_of_the_wrong_length_is_decoded_anew(split, tmp_path):
    pixels = on_disk(split, tmp_path)
    expected = pixels.images.clone()
    os.truncate(pixels.file, 100)
    assert torch.equal(on_disk(split, tmp_path).images, expected)


def test_an_unreadable_image_is_named_and_a_folder_that_takes_no_file(split, tmp_path):
    split.files[4].unlink()
    with pytest.raises(ValueError, match=f"cannot read the image .*{split.files[4].name}"):
        on_disk(split, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not keep decoded images in .*file.*it takes 0.0 MiB; free some space"):
        load_pixels(split.take([0]), SIZE, place="disk", folder=tmp_path / "file")


def test_a_map_larger_than_the_memory_is_opened_at_once(tmp_path):
    """A sparse file stands for ten million images; a batch reads the pages that it wants."""
    path, shape = tmp_path / "sparse.uint8", (10_000_000, 3, 128, 64)
    with path.open("wb") as file:
        file.truncate(int(np.prod(shape)))
        file.seek(9_999_999 * 3 * 128 * 64)
        file.write(b"\7")
    images = store.opened(path, shape)
    assert images[torch.tensor([5, 9_999_999])][:, 0, 0, 0].tolist() == [0, 7]

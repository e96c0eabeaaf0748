"""Search in a gallery: exact in blocks against a full sort, FAISS against exact."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from paul.search import Index, search


def clusters(count: int, width: int = 32, people: int = 200, seed: int = 0) -> torch.Tensor:
    """Descriptors as retrieval meets them: several of each person, scattered around a centre."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(people, width, generator=torch.Generator().manual_seed(99))
    rows = torch.randint(people, (count,), generator=generator)
    return centres[rows] + 0.5 * torch.randn(count, width, generator=generator)


def sorted_by_hand(queries, gallery, k):
    """All similarities in float64, sorted by similarity and then by position."""
    q, g = (F.normalize(x.double(), dim=1).numpy() for x in (queries, gallery))
    similarity = q @ g.T
    order = np.lexsort((np.arange(len(g))[None].repeat(len(q), 0), -similarity), axis=1)[:, :k]
    return np.take_along_axis(similarity, order, 1), order


@given(queries=st.integers(1, 7), gallery=st.integers(1, 40), k=st.integers(1, 50), block=st.integers(1, 41))
def test_blocks_find_what_a_full_sort_finds(queries, gallery, k, block):
    a, b = clusters(queries, 8, seed=1), clusters(gallery, 8, seed=2)
    found = Index(b, "exact", block=block).search(a, k)
    similarity, position = sorted_by_hand(a, b, k)
    assert found.similarity.shape == found.position.shape == (queries, min(k, gallery))
    np.testing.assert_allclose(found.similarity, similarity, atol=1e-6)
    np.testing.assert_array_equal(found.position, position)


@given(seed=st.integers(0, 1000), k=st.integers(1, 30), block=st.integers(1, 30))
def test_equal_similarities_come_in_the_order_of_the_gallery(seed, k, block):
    # rows of one +-2 and zeros have norm 2 and exact products, so that equal means equal
    generator = torch.Generator().manual_seed(seed)
    gallery = 2 * F.one_hot(torch.randint(3, (30,), generator=generator), 4).float()
    queries = torch.tensor([[2.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 2]])
    found = Index(gallery, "exact", block=block).search(queries, k)
    np.testing.assert_array_equal(found.position, sorted_by_hand(queries, gallery, k)[1])


def test_it_ranks_as_the_evaluation_does():
    patches = F.normalize(clusters(60, 3 * 16).view(60, 3, 16), dim=2).flatten(1)  # PatchNet's: unit patches
    nearest = torch.cdist(patches[:10].double(), patches.double()).argsort(1)
    np.testing.assert_array_equal(search(patches[:10], patches, 60).position, nearest)


@pytest.mark.parametrize("kind", ["tensor", "array", "float16 array", "memory map"])
def test_galleries_of_any_kind(kind, tmp_path):
    gallery, queries = clusters(500).half().float(), clusters(5, seed=3)
    array = gallery.numpy()
    if kind == "memory map":
        array.tofile(tmp_path / "gallery.f32")
        array = np.memmap(tmp_path / "gallery.f32", np.float32, "r", shape=array.shape)
    given_as = {"tensor": gallery, "float16 array": array.astype(np.float16)}.get(kind, array)
    for method in ("exact", "flat"):
        found = Index(given_as, method, block=64).search(queries.numpy(), 7)
        np.testing.assert_array_equal(found.position, sorted_by_hand(queries, gallery, 7)[1])


def test_flat_faiss_equals_exact():
    gallery, queries = clusters(3000), clusters(50, seed=3)
    exact, flat = (search(queries, gallery, 20, method) for method in ("exact", "flat"))
    torch.testing.assert_close(flat.similarity, exact.similarity, rtol=0, atol=1e-6)
    assert torch.equal(flat.position, exact.position)
    assert Index(gallery, "flat").recall(queries, 20) == 1


def test_inverted_lists_find_nearly_all_and_their_recall_is_measured():
    gallery, queries = clusters(20_000, people=2000), clusters(100, people=2000, seed=3)
    few, many = Index(gallery, "ivf", probes=2), Index(gallery, "ivf", probes=32)
    found, exact = many.search(queries, 10).position, search(queries, gallery, 10, "exact").position
    by_hand = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist())])
    assert many.recall(queries, 10) == pytest.approx(by_hand) and by_hand > 0.95
    assert few.recall(queries, 10) < many.recall(queries, 10)
    everything = Index(gallery, "ivf", probes=10**6)
    assert torch.equal(everything.search(queries, 10).position, exact)


def test_lists_that_hold_too_few_leave_places_empty():
    found = Index(clusters(40), "ivf", probes=1).search(clusters(3, seed=3), 40)
    empty = found.position < 0
    assert empty.any() and (found.similarity[empty] == -torch.inf).all() and (found.similarity[~empty] > -2).all()
    assert (found.similarity.diff(dim=1)[~empty[:, 1:]] <= 0).all()


def test_auto_is_exact_until_the_gallery_is_large(monkeypatch):
    gallery = clusters(300)
    assert Index(gallery).method == "exact"
    monkeypatch.setattr("paul.search.LARGE", 299)
    assert Index(gallery).method == Index(gallery, queries=10_000).method == "ivf"
    assert Index(gallery, queries=100).method == "exact"  # clustering costs more than it saves
    monkeypatch.setattr("paul.search.LARGE", 300)
    assert Index(gallery).method == "exact"


def test_without_faiss_auto_is_exact_and_asking_for_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("paul.search.LARGE", 10)
    assert Index(clusters(30)).method == "exact"
    with pytest.raises(RuntimeError, match=r"paul-book\[search\]"):
        Index(clusters(30), "flat")


def test_bad_input_is_named():
    good = clusters(5)
    for gallery, queries, k, message in (
        (good, good[:, :3], 1, "queries must be"),
        (good, good[0], 1, "queries must be"),
        (good, good, 0, "k must"),
        (good[:0], good, 1, "gallery must be a matrix"),
        (good[0], good, 1, "gallery must be a matrix"),
        (good, good * torch.nan, 1, "queries are not finite, first in row 0"),
    ):
        with pytest.raises(ValueError, match=message):
            search(queries, gallery, k)
    broken = good.clone()
    broken[3, 1] = torch.inf
    for method in ("exact", "flat"):
        with pytest.raises(ValueError, match="gallery are not finite, first in row 3"):
            search(good, broken, 1, method)
    with pytest.raises(ValueError, match="auto, exact, flat, ivf, got 'fast'"):
        search(good, good, 1, "fast")
    assert search(good[:0], good, 2).position.shape == (0, 2)


def test_memory_beside_the_gallery_is_a_block(tmp_path):
    """A gallery of 512 MB is searched from disk by a process that may allocate 100 MB."""
    shape = (1_000_000, 128)
    with open(tmp_path / "gallery.f32", "wb") as file:
        file.truncate(4 * shape[0] * shape[1])
    array = np.memmap(tmp_path / "gallery.f32", np.float32, "r+", shape=shape)
    array[::1000] = 1
    del array
    code = f"""
import resource, numpy as np, torch
from paul.search import search
gallery = np.memmap({str(tmp_path / "gallery.f32")!r}, np.float32, "r", shape={shape})
search(torch.ones(4, 128), gallery[:10], 5, "exact")
data = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1])
resource.setrlimit(resource.RLIMIT_DATA, (1024 * data + 100 * 2**20,) * 2)  # allocating more than 100 MB fails
print(search(torch.ones(4, 128), gallery, 5, "exact").position[0].tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[0, 1000, 2000, 3000, 4000]", done.stderr

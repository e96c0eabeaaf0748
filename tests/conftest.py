"""What all tests share: one torch thread, property tests that draw the same examples at every run, and a few people."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; kernels and worker processes inherit it

import pytest
from hypothesis import settings
from people import ADAPT, CONTRAST, NETWORK, PRETRAIN, PUL, SIZE, TINY, with_history, write_study

from paul.data.datasets import ReidDataset
from paul.data.pixels import load_images
from paul.experiments.profiles import PROFILES
from paul.rivals import cluster_contrast, pul

settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    """The whole book at smoke first: whichever of two processes takes it, the other has the rest to do meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_pages.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def source(data):
    split = ReidDataset.load(data / "smoke/source").split("train")
    return load_images(split, SIZE), split.person_ids


@pytest.fixture(scope="module")
def target(data):
    return load_images(ReidDataset.load(data / "smoke/market").split("train"), SIZE)


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    """A source model, the folder it was trained in, never stopped, and its history."""
    folder = tmp_path_factory.mktemp("source")
    model, history = with_history["pretrain"](*source, NETWORK, PRETRAIN, folder=folder)
    return model, folder, history


@pytest.fixture(scope="module")
def adapted(trained, target, tmp_path_factory):
    """The same, adapted."""
    folder = tmp_path_factory.mktemp("target")
    model, history = with_history["adapt"](trained[0], target, ADAPT, folder=folder)
    return model, folder, history


@pytest.fixture
def tiny_smoke(monkeypatch):
    """The profile `smoke` for images of this size."""
    monkeypatch.setitem(PROFILES, "smoke", TINY)
    monkeypatch.setitem(pul.AT, "smoke", PUL)
    monkeypatch.setitem(cluster_contrast.AT, "smoke", CONTRAST)

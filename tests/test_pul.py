"""PUL: which images are kept, by hand; rounds that start from the source again, repeat and resume bit for bit."""

import os
import signal
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from people import NETWORK, PRETRAIN, PUL, SIZE, pretrain, same_weights

from paul.data.passes import extract
from paul.data.transforms import random_shift
from paul.experiments.profiles import PROFILES
from paul.rivals.kmeans import kmeans
from paul.rivals.pul import PulOptions, at
from paul.rivals.pul import training as module
from paul.rivals.pul.training import reliable_labels

with_history = partial(module.pul, device="cpu")


def pul(*given, **named):
    """The network alone."""
    return with_history(*given, **named)[0]


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    return pretrain(*source, NETWORK.image_level(), PRETRAIN, folder=tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def finished(trained, target, tmp_path_factory):
    return with_history(trained, target, PUL, folder=tmp_path_factory.mktemp("pul"))


def unit(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_images_near_their_clusters_centre_are_kept():
    # two clusters; in the first the image nearest to the mean is the one at 20 degrees, in the second that at 100
    features, labels = unit(0, 20, 45, 100, 95, 170), torch.tensor([0, 0, 0, 1, 1, 1])
    means = torch.stack([features[:3].mean(0), features[3:].mean(0)])
    assert reliable_labels(features, means, labels, 0.93).tolist() == [0, 0, -1, 1, 1, -1]  # cos 20 = 0.940, 25: 0.906
    assert reliable_labels(features, means, labels, 0.9).tolist() == [0, 0, 0, 1, 1, -1]
    assert reliable_labels(features, means, labels, 0.999).tolist() == [-1, 0, -1, 1, -1, -1]
    assert (reliable_labels(features, means, labels, -1.1) == labels).all()


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(-0.5, 0.99))
def test_selection_is_its_loops(seed, clusters, reliability):
    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(20, 3, generator=generator, dtype=torch.float64), dim=1)
    means, labels = kmeans(features, clusters, seed % 1000)
    found = reliable_labels(features, means, labels, reliability).tolist()
    for cluster in range(clusters):
        members = [i for i in range(20) if labels[i] == cluster]
        away = {i: float((features[i] - means[cluster]).norm()) for i in members}
        # two images are equally far from their mean, but for the last bit: either may be the centre
        centre = next(i for i in members if away[i] < min(away.values()) + 1e-9 and found[i] == cluster)
        for i in members:
            assert found[i] == (cluster if float(features[i] @ features[centre]) > reliability else -1)


def test_kmeans_finds_groups_and_repeats():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(60) % 3
    points = torch.eye(3)[groups] + 0.05 * torch.randn(60, 3, generator=generator)
    means, labels = kmeans(points, 3, seed=1)
    assert len({(int(a), int(b)) for a, b in zip(groups, labels)}) == 3
    for cluster in range(3):
        assert torch.allclose(means[cluster], points[labels == cluster].mean(0), atol=1e-5)
    again = kmeans(points, 3, seed=1)
    assert torch.equal(means, again[0]) and torch.equal(labels, again[1])
    with pytest.raises(ValueError, match="2 points make no 3 clusters"):
        kmeans(points[:2], 3, seed=0)


def test_a_new_classifier_is_all_that_is_new(trained):
    fresh = module.with_new_classifier(trained, 7)
    assert fresh.classifier.weight.shape == (1, 7, trained.options.dim) and fresh.classifier.weight.std() < 2e-3
    state = trained.state_dict()
    kept = {name: value for name, value in fresh.state_dict().items() if "classifier" not in name}
    assert kept and all(torch.equal(value, state[name]) for name, value in kept.items())


def test_the_curve_has_a_line_per_round(finished, trained, target):
    assert [line["epoch"] for line in finished[1]] == [1, 2, 3]
    features = extract(trained, target)
    means, labels = kmeans(features, 4, seed=0)
    share = (reliable_labels(features, means, labels, 0.8) >= 0).float().mean().item()
    assert finished[1][0]["kept"] == pytest.approx(share)
    assert all(0.4 <= line["kept"] <= 1 and line["loss"] > 0 for line in finished[1])


def test_each_round_learns_from_the_source_again(trained, target, tmp_path, monkeypatch):
    before = []

    def seen(features, means, labels, reliability):
        before.append(features)
        return reliable_labels(features, means, labels, reliability)

    monkeypatch.setattr(module, "reliable_labels", seen)
    still = replace(PUL, lr=0.0, rounds=2)
    out = pul(trained, target, still, folder=tmp_path / "still")
    weights = dict(trained.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in out.named_parameters() if "classifier" not in name)
    assert torch.equal(before[0], extract(trained, target))
    one = pul(trained, target, replace(PUL, rounds=1), folder=tmp_path / "one")
    pul(trained, target, replace(PUL, rounds=2), folder=tmp_path / "two")
    assert torch.equal(before[-1], extract(one, target))  # but it is the round before that describes


def test_the_source_model_stays_as_it_is(trained, finished, source, tmp_path):
    again = pretrain(*source, NETWORK.image_level(), PRETRAIN, folder=tmp_path)
    assert same_weights(trained, again) and finished[0].image_size == SIZE


def test_a_seed_repeats_bit_for_bit_and_another_differs(trained, target, finished, tmp_path):
    assert same_weights(finished[0], pul(trained, target, PUL, folder=tmp_path / "again"))
    assert not same_weights(finished[0], pul(trained, target, PUL, folder=tmp_path / "other", seed=1))


def test_statistics_become_the_targets_when_asked(trained, target, tmp_path):
    out = pul(trained, target, replace(PUL, lr=0.0, rounds=1, refresh_statistics=True), folder=tmp_path)
    moved = {
        name
        for name, value in out.state_dict().items()
        if "classifier" not in name and not torch.equal(value, trained.state_dict()[name])
    }
    assert moved and all("running" in name or "num_batches" in name for name in moved)


def test_stopped_between_rounds_it_ends_the_same(trained, target, finished, tmp_path, monkeypatch):
    calls = []

    def stop(*arguments):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return kmeans(*arguments)

    monkeypatch.setattr(module, "kmeans", stop)
    with pytest.raises(KeyboardInterrupt):
        pul(trained, target, PUL, folder=tmp_path)
    monkeypatch.undo()
    out, history = with_history(trained, target, PUL, folder=tmp_path)
    assert same_weights(out, finished[0])
    assert [line["kept"] for line in history] == [line["kept"] for line in finished[1]]


def test_stopped_within_a_round_it_ends_the_same(trained, target, finished, tmp_path, monkeypatch):
    calls, clusterings = [], []

    def shift(*arguments):
        calls.append(None)
        if len(calls) == 7:  # in the middle of a round, whatever was kept
            os.kill(os.getpid(), signal.SIGTERM)
        return random_shift(*arguments)

    monkeypatch.setattr(module, "random_shift", shift)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        pul(trained, target, PUL, folder=tmp_path)
    monkeypatch.setattr(module, "kmeans", lambda *arguments: clusterings.append(None) or kmeans(*arguments))
    assert same_weights(pul(trained, target, PUL, folder=tmp_path), finished[0])
    assert len(clusterings) < PUL.rounds  # the labels of the round at hand were kept


def test_what_cannot_be_trained_is_refused(trained, target, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="20 images make no 21 clusters; lower pul.clusters"):
        pul(trained, target, replace(PUL, clusters=21), folder=tmp_path)
    with pytest.raises(ValueError, match="two clusters, one round"):
        PulOptions(rounds=0)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"paul-book\[baselines\]"):
        pul(trained, target, PUL, folder=tmp_path)


def test_the_defaults_are_the_authors_and_every_profile_has_its_own_data_in_mind():
    assert at("paper", "market") == PulOptions()
    assert [at("paper", name).clusters for name in ("market", "duke")] == [750, 700]
    assert len({at(name, "market").clusters for name in PROFILES}) == len(PROFILES)

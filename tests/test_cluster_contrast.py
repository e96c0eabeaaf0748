"""Cluster-Contrast: neighbours and loss against loops, clusters by hand, and trainings that repeat and resume."""

import os
import signal
import sys
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from people import CONTRAST, NETWORK, PRETRAIN, SIZE, TINY, pretrain, same, same_weights

from paul.bench import literal as reference
from paul.data.passes import extract
from paul.data.transforms import random_shift
from paul.experiments.plan import work_of
from paul.experiments.profiles import PROFILES
from paul.experiments.specs import Spec
from paul.rivals.cluster_contrast import METHOD, ClusterContrastOptions, at, neighbours
from paul.rivals.cluster_contrast import training as module
from paul.rivals.cluster_contrast.memory import ClusterMemory, cluster_nce
from paul.rivals.cluster_contrast.neighbours import dbscan, jaccard_distances
from paul.rivals.cluster_contrast.training import draw_batches

EXACT = dict(rtol=1e-9, atol=1e-9)
contrast = partial(module.cluster_contrast, device="cpu")


def generator(seed):
    return torch.Generator().manual_seed(seed)


def units(seed, *shape):
    return F.normalize(torch.randn(*shape, generator=generator(seed), dtype=torch.float64), dim=-1)


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    return pretrain(*source, NETWORK.image_level(), PRETRAIN, folder=tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def finished(trained, target, tmp_path_factory):
    return contrast(trained, target, CONTRAST, folder=tmp_path_factory.mktemp("contrast"))


# --- neighbours ---


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.integers(2, 14), st.integers(1, 5), st.booleans())
def test_jaccard_distances_are_their_definition(seed, k1, k2, in_blocks):
    with pytest.MonkeyPatch.context() as patch:
        if in_blocks:  # of a few images each
            patch.setattr(neighbours, "ROWS", 5)
            patch.setattr(neighbours, "ENTRIES", 200)
        x = units(seed, 24, 3)
        found = jaccard_distances(x, k1, min(k1, k2))
    expected = reference.jaccard_distances(x, k1, min(k1, k2))
    np.testing.assert_allclose(found.toarray(), expected, **EXACT)
    assert (found != found.T).nnz == 0 and found.diagonal().max() < 1e-12


def test_what_is_farther_than_asked_is_not_kept():
    x = units(0, 30, 4)
    whole, near = jaccard_distances(x, 8, 3).toarray(), jaccard_distances(x, 8, 3, within=0.5).tocoo()
    assert set(zip(near.row, near.col)) == set(zip(*(whole <= 0.5).nonzero())) and 30 < near.nnz < 600
    np.testing.assert_array_equal(near.data, whole[near.row, near.col])


def test_reciprocal_neighbours_stand_in_each_others_list():
    near = np.array([[0, 1], [1, 0], [2, 3], [3, 2], [4, 3]])
    assert neighbours.reciprocal(near).toarray().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],  # 4 does not stand in the list of 3
    ]


def test_more_neighbours_than_images_are_all_images():
    x = units(1, 6, 3)
    assert (jaccard_distances(x, 30, 6) != jaccard_distances(x, 6, 6)).nnz == 0


def test_dbscan_finds_groups_and_leaves_outliers_out():
    middle = F.normalize(torch.eye(5)[:4] + 0.2, dim=1)
    x = F.normalize(middle[torch.arange(40) % 4] + 0.02 * torch.randn(40, 5, generator=generator(0)), dim=1)
    x = torch.cat([x, -torch.ones(1, 5) / 5**0.5])
    labels = dbscan(jaccard_distances(x, 10, 3, within=0.5), 0.5, 4)
    assert labels[:40].tolist() == [n % 4 for n in range(40)] and labels[40] == -1
    assert labels.tolist() == dbscan(jaccard_distances(x, 10, 3), 0.5, 4).tolist()  # the rest is not looked at
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dbscan(jaccard_distances(x, 10, 3, within=0.5), 0.5, 41).tolist() == [-1] * 41


# --- loss and memory ---


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.03, 2.0))
def test_the_loss_is_its_equation(seed, temperature):
    features, centroids = units(seed, 7, 5).requires_grad_(), units(seed + 1, 4, 5)
    clusters = torch.randint(4, (7,), generator=generator(seed))
    ours = cluster_nce(features, centroids, clusters, temperature=temperature)
    literal = reference.cluster_nce(features, centroids, clusters, temperature)
    torch.testing.assert_close(ours, literal, **EXACT)
    slopes = [torch.autograd.grad(loss, features)[0] for loss in (ours, literal)]
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-7)


def test_the_loss_by_hand_and_its_gradient():
    q, centroids = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    loss = cluster_nce(q, centroids, torch.tensor([0]), temperature=0.5)  # scores 2 and 0
    torch.testing.assert_close(loss, torch.tensor(1 + torch.e**-2, dtype=torch.float64).log())
    assert cluster_nce(q, centroids[:1], torch.tensor([0])) == 0  # one cluster: nothing to tell apart
    x, clusters = units(0, 3, 4).requires_grad_(), torch.tensor([0, 2, 1])
    fixed = units(1, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cluster_nce(x, fixed.detach(), clusters, temperature=0.3), x)
    cluster_nce(x, fixed, clusters).backward()
    assert fixed.grad is None
    half = x.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cluster_nce(half, fixed.detach().float(), clusters).dtype == torch.float32


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0, 1))
def test_centroids_follow_each_image_in_turn(seed, instances, momentum):
    memory = ClusterMemory(0, torch.device("cpu"))
    memory.centroids = before = units(seed, 6, 3)
    chosen = torch.randperm(6, generator=generator(seed))[:4]
    features = units(seed + 1, 4, instances, 3)
    expected = reference.updated_centroids(
        before, features.flatten(0, 1), chosen.repeat_interleave(instances), momentum
    )
    memory.centroids = before.clone()
    memory.update(chosen, features, momentum)
    torch.testing.assert_close(memory.centroids, expected, **EXACT)


def test_an_epoch_begins_with_mean_features_of_unit_length():
    memory, x = ClusterMemory(6, torch.device("cpu")), units(0, 6, 3)
    labels = torch.tensor([1, 0, -1, 1, 0, 1])
    memory.fill(x, labels)
    for cluster, members in enumerate(([1, 4], [0, 3, 5])):
        torch.testing.assert_close(memory.centroids[cluster], F.normalize(x[members].mean(0), dim=0), **EXACT)
    assert memory.kept == pytest.approx(5 / 6)
    other = ClusterMemory(6, torch.device("cpu"))
    other.load_state_dict(memory.state_dict())
    assert same(other.state_dict(), memory.state_dict())


# --- batches ---


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(2, 5), st.integers(1, 6), st.integers(1, 9))
def test_batches_hold_so_many_images_of_so_many_clusters(seed, count, clusters, instances, steps):
    labels = torch.randint(-1, count, (40,), generator=generator(seed))
    labels[:count] = torch.arange(count)
    options = replace(CONTRAST, clusters=clusters, instances=instances, steps=steps)
    batches = draw_batches(labels, options, generator(seed))
    together, shown = min(clusters, count), torch.zeros(count)
    assert len(batches) == steps
    for batch in batches:
        own = labels[batch].view(together, instances)
        assert (own >= 0).all() and (own == own[:, :1]).all() and len(own[:, 0].unique()) == together
        for row in batch.view(together, instances):
            times = row.bincount()[row.unique()]
            assert times.max() - times.min() <= 1 and len(times) == min(
                instances, int((labels == labels[row[0]]).sum())
            )
        shown[own[:, 0]] += 1
    turns = -(-steps // (count // together))
    assert shown.max() <= turns  # in a turn each cluster stands once at most


def test_fewer_than_two_clusters_make_no_batch():
    for labels in (torch.full((9,), -1), torch.tensor([0] * 8 + [-1])):
        assert draw_batches(labels, CONTRAST, generator(0)) == []


# --- training ---


def test_the_curve_has_a_line_per_epoch(finished, trained, target):
    assert [line["epoch"] for line in finished[1]] == [1, 2, 3]
    distances = jaccard_distances(extract(trained, target), CONTRAST.k1, CONTRAST.k2, CONTRAST.eps)
    labels = dbscan(distances, CONTRAST.eps, CONTRAST.min_samples)
    assert finished[1][0]["clusters"] == labels.max() + 1 > 1
    assert finished[1][0]["kept"] == pytest.approx((labels >= 0).float().mean().item())
    assert all(line["loss"] > 0 for line in finished[1])


def test_the_source_model_stays_as_it_is_and_the_other_describes_without_it(
    trained, finished, source, target, tmp_path
):
    assert same_weights(trained, pretrain(*source, NETWORK.image_level(), PRETRAIN, folder=tmp_path))
    assert finished[0].image_size == SIZE and finished[0].stage == "target"
    assert extract(finished[0], target).shape == extract(trained, target).shape


def test_a_seed_repeats_bit_for_bit_and_another_differs(trained, target, finished, tmp_path):
    again = contrast(trained, target, CONTRAST, folder=tmp_path / "again")
    assert same_weights(finished[0], again[0])
    assert not same_weights(finished[0], contrast(trained, target, CONTRAST, folder=tmp_path / "other", seed=1)[0])


def test_the_rate_falls_to_a_tenth_time_and_again(trained, target, tmp_path, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a: rates.append(self.param_groups[0]["lr"]) or step(self, *a)
    )
    options = replace(CONTRAST, epochs=5, steps=1, lr=1.0e-4, decay_every=2)
    contrast(trained, target, options, folder=tmp_path)
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6])


def test_statistics_become_the_targets_when_asked(trained, target, tmp_path):
    options = replace(CONTRAST, lr=0.0, epochs=1, refresh_statistics=True)
    out, _ = contrast(trained, target, options, folder=tmp_path)
    before = trained.state_dict()
    moved = {name for name, value in out.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all("running" in name or "num_batches" in name for name in moved)


@pytest.mark.parametrize(
    ("change", "found", "advice"),
    [({"min_samples": 20}, "no clusters", "raise"), ({"eps": 0.999, "k1": 20}, "one cluster", "lower")],
)
def test_an_epoch_without_two_clusters_is_skipped_and_says_so(trained, target, change, found, advice, tmp_path):
    said = f"epoch [123]: skipped, DBSCAN found {found} among 20 images; {advice} cluster_contrast.eps"
    with pytest.warns(UserWarning, match=said) as warned:
        out, history = contrast(trained, target, replace(CONTRAST, **change), folder=tmp_path)
    assert len(warned) == 3
    assert [(line["loss"], line["clusters"]) for line in history] == [(0.0, float(found == "one cluster"))] * 3
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in out.state_dict().items())
    again = contrast(trained, target, replace(CONTRAST, **change), folder=tmp_path)
    assert again[1] == history and same_weights(again[0], out)


def test_stopped_between_epochs_it_ends_the_same(trained, target, finished, tmp_path, monkeypatch):
    calls = []

    def stop(*arguments):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return dbscan(*arguments)

    monkeypatch.setattr(module, "dbscan", stop)
    with pytest.raises(KeyboardInterrupt):
        contrast(trained, target, CONTRAST, folder=tmp_path)
    monkeypatch.undo()
    out, history = contrast(trained, target, CONTRAST, folder=tmp_path)
    assert same_weights(out, finished[0])
    assert [line["loss"] for line in history] == [line["loss"] for line in finished[1]]


def test_stopped_within_an_epoch_it_ends_the_same(trained, target, finished, tmp_path, monkeypatch):
    calls, clusterings = [], []

    def shift(*arguments):
        calls.append(None)
        if len(calls) == CONTRAST.steps + 2:  # in the middle of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return random_shift(*arguments)

    monkeypatch.setattr(module, "random_shift", shift)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        contrast(trained, target, CONTRAST, folder=tmp_path)
    monkeypatch.setattr(module, "dbscan", lambda *arguments: clusterings.append(None) or dbscan(*arguments))
    assert same_weights(contrast(trained, target, CONTRAST, folder=tmp_path)[0], finished[0])
    assert len(clusterings) == 1  # clusters and centroids of the epoch at hand were kept


# --- options and plans ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"k1": 1}, "cluster_contrast.k1 is too low: 1"),
        ({"clusters": 1}, "cluster_contrast.clusters is too low: 1"),
        ({"steps": 0}, "cluster_contrast.steps is too low: 0"),
        ({"eps": 1.0}, "eps is a Jaccard distance between 0 and 1, got 1.0"),
        ({"momentum": 1.5}, "momentum in .0, 1. and a temperature above 0"),
        ({"temperature": 0.0}, "momentum in .0, 1. and a temperature above 0"),
    ],
)
def test_options_that_train_nothing_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        ClusterContrastOptions(**change)


def test_without_scikit_learn_it_says_what_to_install(trained, target, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"paul-book\[baselines\]"):
        contrast(trained, target, CONTRAST, folder=tmp_path)


def test_the_defaults_are_the_authors_on_either_set_and_every_profile_has_its_own():
    assert at("paper", "market") == at("paper", "duke") == ClusterContrastOptions()
    assert len({at(name, "market") for name in PROFILES}) == len(PROFILES)


def test_a_plan_knows_its_passes_and_its_memory(data, tiny_smoke):
    work = work_of(Spec("cluster_contrast", "market", 0, "smoke"), str(data))
    # an epoch describes 20 images and takes 3 steps of 2 x 3, forward and twice that backward; 11 are tested
    assert work.adapt / work.cost.flops == 3 * (20 + 3 * 3 * 6) + 11
    refreshed = replace(CONTRAST, refresh_statistics=True)
    assert METHOD.passes(refreshed, 20) == METHOD.passes(CONTRAST, 20) + 3 * 20
    assert (
        METHOD.memory_bytes(CONTRAST, TINY.network.image_level(), 20) == 4 * 8 * (20 // CONTRAST.min_samples) * 2
    )  # one patch of twice the dim

"""The two stages on a few tiny images: what they compute, what every option does, what they refuse."""

from copy import deepcopy
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from people import ADAPT, NETWORK, PRETRAIN, adapt, pretrain, same, same_weights, with_history
from torch.nn import functional as F

from paul import adapt as target_stage
from paul import pretrain as source_stage
from paul.adapt import fill_bank
from paul.bench import literal as reference
from paul.data import passes as features
from paul.data.batches import split
from paul.data.transforms import normalize, unit_range
from paul.engine import device
from paul.objective import PATCH_LOSSES, PaulLoss
from paul.options import PretrainOptions
from paul.patchnet import PatchNet, PatchNetOutput
from paul.pretrain import Partners

# --- source stage ---


def test_source_loss_is_the_sum_of_cross_entropies_and_the_triplet(source, tmp_path, monkeypatch):
    images, ids = source
    seen = []
    monkeypatch.setattr(source_stage, "random_flip", lambda x, generator: x)
    batch_of = source_stage.batch_of
    monkeypatch.setattr(
        source_stage, "batch_of", lambda images, rows, device: seen.append(rows) or batch_of(images, rows, device)
    )
    options = replace(PRETRAIN, epochs=1, batch=len(images), shift=0.0)
    _, history = with_history["pretrain"](images, ids, NETWORK, options, folder=tmp_path, seed=3)
    (rows,) = seen

    real, partner = rows.chunk(2)
    assert sorted(real.tolist()) == list(range(len(images))) and (real != partner).all()
    assert (ids[real] == ids[partner]).all()
    torch.manual_seed(3)
    model = PatchNet(NETWORK, num_classes=6).train()
    output = model(normalize(images[rows].float() / 255))
    labels = torch.tensor(ids[rows]) - 1
    identity = sum(F.cross_entropy(output.logits[m], labels, label_smoothing=0.1) for m in range(2))
    together = torch.cat([output.embeddings[0], output.embeddings[1]], 1)
    triplet = reference.triplet_loss(together / together.norm(dim=1, keepdim=True), labels)
    assert history[0]["identity"] == pytest.approx(identity.item(), rel=1e-4)
    assert history[0]["triplet"] == pytest.approx(triplet.item(), rel=1e-4)
    assert history[0]["loss"] == pytest.approx(identity.item() + 0.1 * triplet.item(), rel=1e-4)


def test_source_stage_learns_its_people(source, tmp_path):
    _, history = with_history["pretrain"](*source, NETWORK, replace(PRETRAIN, epochs=10), folder=tmp_path)
    guessing = NETWORK.num_patches * np.log(6)
    assert history[0]["identity"] > 0.8 * guessing and history[-1]["identity"] < 0.6 * guessing


def test_the_paper_schedule_leaves_the_pgn_alone_at_first(source, tmp_path):
    options = PretrainOptions(epochs=1, batch=8)
    model = pretrain(*source, NETWORK, options, folder=tmp_path)
    torch.manual_seed(0)
    before = PatchNet(NETWORK, num_classes=6)
    assert same(dict(model.generator.named_parameters()), dict(before.generator.named_parameters()))
    assert not torch.equal(model.branch.weight, before.branch.weight)


def test_what_the_source_stage_refuses(source, tmp_path):
    images, ids = source
    for call, message in (
        (
            lambda: pretrain(images, ids, NETWORK, replace(PRETRAIN, batch=25), folder=tmp_path),
            "batch 25 is larger than the set of 24 images; lower pretrain.batch",
        ),
        (lambda: pretrain(images, np.ones(24), NETWORK, PRETRAIN, folder=tmp_path), "at least two people"),
        (lambda: pretrain(images, ids[:-1], NETWORK, PRETRAIN, folder=tmp_path), "24 images but 23 person ids"),
        (lambda: replace(PRETRAIN, schedule="step"), "schedule must be .*'step'"),
        (lambda: replace(PRETRAIN, epochs=0), "epochs and batch must be at least 1, got 0"),
        (
            lambda: pretrain(images, ids, NETWORK, replace(PRETRAIN, positive="far"), folder=tmp_path),
            "positive must be .*'far'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_partners_are_never_the_image_itself_and_cover_all_others_alike():
    ids = np.array([5, 3, 5, 9, 5, 3, 5])  # person 9 has a single image
    partners, generator = Partners(ids), torch.Generator().manual_seed(0)
    drawn = partners.draw(torch.arange(7).repeat(6000), generator).view(6000, 7)
    for image, person in enumerate(ids):
        others = [j for j in range(7) if ids[j] == person and j != image] or [image]
        counts = torch.bincount(drawn[:, image], minlength=7)
        assert set(counts.nonzero().flatten().tolist()) == set(others)
        expected = 6000 / len(others)
        assert all(abs(int(counts[j]) - expected) <= 5 * expected**0.5 for j in others)


# --- target stage ---


def test_adapting_leaves_the_given_model_and_the_pgn_alone(trained, target, adapted):
    model = trained[0]
    assert model.stage == "source" and model.classifier is not None and adapted[0].stage == "target"
    for part in ("generator", "embedding"):
        assert same(dict(getattr(adapted[0], part).named_parameters()), dict(getattr(model, part).named_parameters()))
    for part in ("backbone", "branch", "branch_norm"):
        assert not same(
            dict(getattr(adapted[0], part).named_parameters()), dict(getattr(model, part).named_parameters())
        )


def test_paul_loss_is_the_papers_sum_with_both_memories():
    """Three batches, the last of them with an image that came before, against loops over lists."""
    torch.manual_seed(0)
    model = PatchNet(NETWORK).to_target()
    options = replace(ADAPT, s=5.0, k=3, r=2, lam=2.0)
    loss, bank, centers = PaulLoss(model, 12, options), reference.ListMemory(12, 2, 8), reference.CenterList(12)
    everyone = F.normalize(torch.randn(2, 12, 8), dim=-1)
    loss.memory.update(torch.arange(12), everyone)
    bank.update(torch.arange(12), everyone)
    for index in (torch.tensor([3, 1, 4, 0]), torch.tensor([5, 9, 2, 6]), torch.tensor([3, 11, 10, 7])):
        output = PatchNetOutput(F.normalize(torch.randn(2, 8, 8), dim=-1), torch.randn(2, 8, 4), None)
        found = loss(output, index)
        real = output.features[:, :4]
        bank.update(index, real)
        together = torch.cat([output.embeddings[0], output.embeddings[1]], 1)
        own = centers.update(index, torch.stack([together[:4], together[4:]], 1))
        loss_c = reference.pedal_loss(real, bank.bank, index, s=5.0, k=3)
        loss_v = reference.ipfl_loss(together, own, torch.arange(4).repeat(2), r=2)
        torch.testing.assert_close(found["loss_c"], loss_c, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["loss_v"], loss_v, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["loss"], loss_v + 2 * loss_c, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_bank_starts_as_the_features_of_all_images(trained, target, mode, monkeypatch):
    monkeypatch.setattr(target_stage, "random_flip", lambda x, *_: x)
    model = deepcopy(trained[0]).to_target()
    before = deepcopy(model)
    loss = PaulLoss(model, len(target), replace(ADAPT, bank_init=mode, batch=10))  # all 20 images at once
    fill_bank(loss, model, target, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = before.train(mode == "train")(normalize(unit_range(target))).features
    torch.testing.assert_close(loss.memory.bank, expected, atol=1e-5, rtol=1e-4)
    assert loss.memory.filled.all() and model.training
    assert same_weights(model, trained[0].to_target()) is False if mode == "train" else same_weights(model, before)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_last_single_image_enters_the_bank_with_the_batch_before_it(trained, target, mode):
    model = deepcopy(trained[0]).to_target()
    loss = PaulLoss(model, 17, replace(ADAPT, bank_init=mode))
    filled = seen_in(model, lambda: fill_bank(loss, model, target[:17], torch.Generator().manual_seed(0)))
    assert filled == [17] and loss.memory.filled.all()
    torch.testing.assert_close(loss.memory.bank.norm(dim=2), torch.ones(2, 17))


def steps_taken(call, monkeypatch):
    sizes = []
    with monkeypatch.context() as patched:
        call_loss = PaulLoss.forward
        patched.setattr(
            PaulLoss, "forward", lambda self, output, index: sizes.append(len(index)) or call_loss(self, output, index)
        )
        call()
    return sizes


@pytest.mark.parametrize("losses", [{}, {"loss_v": False}, {"loss_c": None}])
def test_one_rule_for_a_small_last_batch_holds_in_every_arm(trained, target, losses, tmp_path, monkeypatch):
    options = replace(ADAPT, epochs=2, min_batch=2, **losses)
    for changes, sizes in (({}, [8, 9]), ({"drop_last": True}, [8, 8])):  # the latter leaves nothing to join
        given, folder = replace(options, **changes), tmp_path / str(sizes[-1])
        taken = steps_taken(lambda o=given, f=folder: adapt(trained[0], target[:17], o, folder=f), monkeypatch)
        assert taken == sizes * 2


@settings(max_examples=200, deadline=None)
@given(count=st.integers(1, 60), batch=st.integers(1, 20), least=st.integers(1, 20))
def test_batches_hold_every_image_once_and_none_is_small(count, batch, least):
    order = torch.arange(count).flip(0)
    parts = split(order, batch, least)
    assert torch.equal(torch.cat(parts), order)
    assert all(len(part) == batch for part in parts[:-1])
    assert len(parts) == 1 or least <= len(parts[-1]) or len(parts[-1]) >= batch
    assert len(parts[-1]) < batch + min(batch, least) or len(parts) == 1


def seen_in(model, call):
    """How many images the network was given in each pass."""
    sizes = []
    with model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0]))):
        call()
    return sizes


def test_surrogates_in_the_first_pass_move_batch_norm_and_are_not_stored(trained, target):
    models, banks = [], []
    for beside, sizes in ((False, [16, 4]), (True, [16, 16, 8])):
        model = deepcopy(trained[0]).to_target()
        loss = PaulLoss(model, len(target), replace(ADAPT, bank_surrogates=beside, bank_init="train"))
        filled = seen_in(model, lambda m=model, p=loss: fill_bank(p, m, target, torch.Generator().manual_seed(0)))
        assert filled == sizes and loss.memory.filled.all()
        models.append(model)
        banks.append(loss.memory.bank)
    assert not torch.allclose(models[0].branch_norm.running_var, models[1].branch_norm.running_var)
    assert not torch.allclose(*banks)  # they are normalised together with them
    # at rest nothing is normalised together, and what is stored are the real images alone
    rest = []
    for beside in (False, True):
        model = deepcopy(trained[0]).to_target()
        loss = PaulLoss(model, 8, replace(ADAPT, bank_surrogates=beside, bank_init="eval", batch=8))
        with mock.patch.object(target_stage, "random_flip", lambda x, *_: x):
            fill_bank(loss, model, target[:8], torch.Generator().manual_seed(0))
        rest.append(loss.memory.bank)
    torch.testing.assert_close(*rest)


def test_idle_surrogates_pass_the_network_and_no_loss_reads_them(trained, target, tmp_path):
    options = replace(ADAPT, loss_v=False, epochs=1)
    generator = torch.Generator().manual_seed(0)
    assert len(target_stage.views(unit_range(target[:4]), options, generator)) == 4
    both = replace(options, idle_surrogates=True)
    assert len(target_stage.views(unit_range(target[:4]), both, generator)) == 8
    loss = PaulLoss(trained[0], 20, both)
    loss.memory.update(torch.arange(20), F.normalize(torch.randn(2, 20, 8), dim=-1))
    found = F.normalize(torch.randn(2, 8, 8), dim=-1)
    other = torch.cat([found[:, :4], -found[:, 4:]], 1)
    index = torch.arange(4)
    values = [deepcopy(loss)(PatchNetOutput(x, x, None), index) for x in (found, other)]
    assert values[0] == values[1] and set(values[0]) == {"loss", "loss_c"}
    alone, beside = (adapt(trained[0], target, o, folder=tmp_path / str(o.idle_surrogates)) for o in (options, both))
    assert not torch.equal(alone.branch_norm.running_mean, beside.branch_norm.running_mean)


@pytest.mark.parametrize("loss_c", ["pedal", "pull"])
def test_the_bank_takes_a_batch_up_before_the_loss_or_after_it(trained, loss_c):
    index, features = torch.tensor([3, 1, 4]), F.normalize(torch.randn(2, 3, 8), dim=-1)
    function = PATCH_LOSSES[loss_c]
    for when in ("before", "after"):
        loss = PaulLoss(trained[0], 12, replace(ADAPT, loss_v=False, loss_c=loss_c, bank_update=when, k=3))
        loss.memory.update(torch.arange(12), F.normalize(torch.randn(2, 12, 8), dim=-1))
        old, memory = loss.memory.bank.clone(), deepcopy(loss.memory)
        memory.update(index, features)
        x, y = (features.clone().requires_grad_() for _ in range(2))
        found = loss.patch_level(x, index)
        expected = function(y, memory.bank if when == "before" else old, index, s=ADAPT.s, k=3)
        found.backward()
        expected.backward()
        torch.testing.assert_close((found, x.grad), (expected, y.grad))
        assert torch.equal(loss.memory.bank, memory.bank)


def test_refreshed_statistics_are_all_that_differs(trained, target, adapted, tmp_path):
    refreshed = adapt(trained[0], target, replace(ADAPT, refresh_statistics=True), folder=tmp_path)
    assert same(dict(refreshed.named_parameters()), dict(adapted[0].named_parameters()))
    assert not torch.equal(refreshed.branch_norm.running_mean, adapted[0].branch_norm.running_mean)


def test_what_the_target_stage_refuses(trained, target, tmp_path):
    for options, message in (({"batch": 21}, "batch 21 is larger than the set of 20 images; lower adapt.batch"),):
        with pytest.raises(ValueError, match=message):
            adapt(trained[0], target, replace(ADAPT, **options), folder=tmp_path)
    for options, message in (
        ({"batch": 1}, "batch at least 2, got 2 and 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"k": 0}, "s and k must be positive, got 10.0 and 0"),
        ({"s": -1.0}, "s and k must be positive"),
        ({"loss_c": None, "loss_v": False}, "nothing to train"),
        ({"loss_c": "push"}, "loss_c must be one of"),
        ({"surrogate": "none"}, "surrogate must be one of 'all', 'one', got 'none'"),
        ({"ipfl_space": "image"}, "ipfl_space must be"),
        ({"ipfl_targets": "mean"}, "ipfl_targets must be"),
        ({"bank_init": "zero"}, "bank_init must be"),
        ({"bank_update": "never"}, "bank_update must be"),
        ({"rotation": "file"}, "rotation must be"),
        ({"min_batch": 1}, "min_batch must be at least 2, which batch norm needs, got 1"),
        ({"no_negative": "one"}, "no_negative must be"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(ADAPT, **options)


# --- statistics and features ---


def test_adabn_averages_over_batches_and_changes_no_weight(trained, target):
    model = deepcopy(trained[0])
    features.refresh_statistics(model, target, batch=7)
    assert same(dict(model.named_parameters()), dict(trained[0].named_parameters()))
    assert model.training == trained[0].training

    plain = deepcopy(trained[0]).train()
    x = normalize(target.float() / 255)
    first, means, variances = plain.backbone[0], [], []
    for start in range(3):  # 20 images in batches of at most 7, each spread over the set
        y = first(x[start::3]).detach()
        means.append(y.mean((0, 2, 3)))
        variances.append(y.transpose(0, 1).flatten(1).var(1))
    torch.testing.assert_close(model.backbone[1].running_mean, sum(means) / 3, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.backbone[1].running_var, sum(variances) / 3, atol=1e-5, rtol=1e-4)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert all(norm.num_batches_tracked == 3 and norm.momentum == 0.1 for norm in norms)
    with pytest.raises(ValueError, match="at least two images, got 1"):
        features.refresh_statistics(model, target[:1])


def test_adabn_reaches_a_pgn_that_is_otherwise_fixed(source, target, tmp_path):
    network = replace(NETWORK, freeze_pgn="eval")
    model = pretrain(*source, network, replace(PRETRAIN, epochs=1), folder=tmp_path).to_target()
    before = model.generator.localization[1].running_mean.clone()
    features.refresh_statistics(model, target)
    assert not torch.equal(model.generator.localization[1].running_mean, before)
    assert not model.generator.training and model.backbone.training


def test_extract_describes_each_image_and_leaves_the_model_as_it_was(trained, target):
    model = deepcopy(trained[0]).train()
    found = features.extract(model, target, batch=7)
    assert model.training and same_weights(model, trained[0]) and found.shape == (20, 16)
    with torch.no_grad():
        expected = torch.cat([model.eval().describe(normalize(one[None].float() / 255)) for one in target])
    torch.testing.assert_close(found.clone(), expected, atol=1e-5, rtol=1e-4)


def test_device_that_is_not_there():
    here = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"device='cuda:{here}': this machine has {here} usable GPUs; leave it out"):
        device.pick_device(f"cuda:{here}")
    with pytest.raises(ValueError, match="device='gpu': no such device; it is cpu, cuda or"):
        device.pick_device("gpu")

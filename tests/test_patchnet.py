"""PatchNet against a literal loop over its branches with the same weights, in both stages; what freezing freezes."""

from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paul.bench.literal import sample_patches
from paul.options import PatchNetOptions
from paul.patches import PatchGenerator
from paul.patchnet import PatchNet, concatenate

SMALL = dict(backbone="small", dim=8, pgn_channels=8, pgn_hidden=8)
X = torch.rand(5, 3, 48, 32, generator=torch.Generator().manual_seed(0))


def network(num_patches=3, num_classes=4, seed=0, **options):
    torch.manual_seed(seed)
    model = PatchNet(PatchNetOptions(num_patches=num_patches, **{**SMALL, **options}), num_classes)
    for name, value in model.state_dict().items():  # batch norms that do something
        if value.is_floating_point() and value.ndim == 1 and "running_var" not in name and "fc_loc" not in name:
            value.add_(0.1 * torch.randn(value.shape))
    return model


def branches(model, x):
    """Per patch: cut it out, convolve 1x1, batch norm, as modules of their own; features before the ReLU."""
    feature_map = model.backbone(x)
    patches = sample_patches(feature_map, model.generator(feature_map))
    dim, outputs = model.options.dim, []
    for m, patch in enumerate(patches):
        down = nn.Conv2d(feature_map.shape[1], dim, 1)
        norm = nn.BatchNorm2d(dim).train(model.training)
        down.weight.data, down.bias.data = model.branch.weight[m][:, :, None, None], model.branch.bias[m]
        own = slice(m * dim, (m + 1) * dim)
        for part in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, part).data = getattr(model.branch_norm, part)[own].detach().clone()
        outputs.append(norm(down(patch.mean((2, 3), keepdim=True))).flatten(1))
    return outputs


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("generator", ["pgn", "equal"])
def test_source_stage_is_a_loop_over_branches(generator, training):
    model = network(generator=generator).train(training)
    with torch.no_grad():
        expected = [y.relu() for y in branches(model, X)]
        found = model(X)
    for m, feature in enumerate(expected):
        torch.testing.assert_close(found.features[m], feature, atol=1e-5, rtol=1e-4)
        for layer, output in ((model.embedding, found.embeddings), (model.classifier, found.logits)):
            torch.testing.assert_close(
                output[m], F.linear(feature, layer.weight[m], layer.bias[m]), atol=1e-5, rtol=1e-4
            )
    assert found.features.shape == (3, 5, 8) and found.embeddings.shape == (3, 5, 4)
    assert found.logits.shape == (3, 5, 4)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_target_stage_has_no_relu_unit_length_and_cosines(training):
    model = network().to_target().train(training)
    with torch.no_grad():
        expected = branches(model, X)
        found = model(X)
    assert found.logits is None and model.classifier is None
    for m, y in enumerate(expected):
        feature = y / y.norm(dim=1, keepdim=True)
        torch.testing.assert_close(found.features[m], feature, atol=1e-5, rtol=1e-4)
        rows = model.embedding.weight[m]  # the bias is dropped
        cosines = torch.stack([F.cosine_similarity(feature, row[None]) for row in rows], 1)
        torch.testing.assert_close(found.embeddings[m], cosines, atol=1e-5, rtol=1e-4)
    assert (found.features < 0).any()


def test_describe_is_the_target_feature_in_either_stage():
    model = network().eval()
    with torch.no_grad():
        source, target = model.describe(X), network().to_target().eval()
        assert source.shape == (5, 3 * 8)
        assert torch.equal(source, target.describe(X))
        assert torch.equal(source, concatenate(target(X).features))
    for m in range(3):
        torch.testing.assert_close(source[:, 8 * m : 8 * m + 8].norm(dim=1), torch.ones(5))


def test_theta_is_where_the_patches_lie():
    model = network(num_patches=4).eval()
    with torch.no_grad():
        assert model.theta(X).shape == (5, 4, 2, 3)
        assert torch.equal(model.theta(X), model.generator(model.backbone(X)))


def test_image_level_twin_is_global_average_pooling():
    options = PatchNetOptions(num_patches=3, **SMALL)
    twin = options.image_level()
    assert (twin.num_patches, twin.dim, twin.embedding_dim) == (1, 24, 12)
    torch.manual_seed(0)
    model = PatchNet(twin, num_classes=4).eval()
    with torch.no_grad():
        pooled = model.backbone(X).mean((2, 3))
        y = F.linear(pooled, model.branch.weight[0], model.branch.bias[0]) / (1 + model.branch_norm.eps) ** 0.5
        torch.testing.assert_close(model(X).features, y.relu()[None], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(model.describe(X), F.normalize(y), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("num_patches", [1, 2, 5, 9])
@pytest.mark.parametrize("generator", ["pgn", "equal", "random"])
def test_any_number_of_patches(generator, num_patches):
    model = network(num_patches, generator=generator)
    output = model(X)
    assert output.features.shape == (num_patches, 5, 8)
    output.logits.sum().backward()
    assert all(p.grad is not None for p in model.branch.parameters())
    assert model.to_target().describe(X).shape == (5, 8 * num_patches)


def test_a_batch_of_one_is_refused_in_train_mode_only():
    model = network()
    for stage in (model, network().to_target()):
        with pytest.raises(ValueError, match="batch of one image"):
            stage.train()(X[:1])
        with torch.no_grad():
            alone, together = stage.eval().describe(X[:1]), stage.describe(X)[:1]
        torch.testing.assert_close(alone, together, atol=1e-6, rtol=1e-4)


def moved(model, before):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("freeze", ["lr0", "eval", "detach"])
def test_freezing_the_pgn(freeze):
    model = network(freeze_pgn=freeze).to_target().train()
    model.generator.fc_loc[2].weight.data.normal_(std=0.1)  # theta depends on the map
    before = {name: value.clone() for name, value in model.state_dict().items()}

    model.backbone.eval()  # so that the map is the same below
    through = []
    model.branch.weight.data.normal_()
    features = model(X).features
    features[0, 0, 0].backward()
    through.append(model.backbone[0].weight.grad.clone())
    model.zero_grad()

    fixed = model.generator(model.backbone(X)).detach()
    model.generator.forward = lambda x: fixed
    model(X).features[0, 0, 0].backward()
    through.append(model.backbone[0].weight.grad.clone())

    assert torch.allclose(*through, atol=1e-7) is (freeze == "detach")
    changed = {name for name in moved(model, before) if name.startswith("generator.")}
    norm = {f"generator.localization.1.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed == (set() if freeze == "eval" else norm)
    assert all(p.grad is None and not p.requires_grad for p in model.generator.parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.embedding.parameters())


@pytest.mark.parametrize("freeze", ["lr0", "eval", "detach"])
def test_train_and_eval_reach_everything_but_a_pgn_in_eval(freeze):
    model = network(freeze_pgn=freeze)
    assert model.generator.training
    model.to_target()
    assert model.backbone.training and model.generator.training is (freeze != "eval")
    assert not any(module.training for module in model.eval().modules())
    model.train()
    assert model.backbone.training and model.generator.training is (freeze != "eval")


def test_options_build_the_same_network_and_read_back():
    options = PatchNetOptions(num_patches=2, generator="equal", freeze_pgn="eval", embedding_dim=5, **SMALL)
    model = PatchNet(options, num_classes=3)
    assert model.options == options == PatchNetOptions(**asdict(options))
    assert model.embedding.weight.shape == (2, 5, 8) and model.classifier.weight.shape == (2, 3, 8)
    assert PatchNet(options).classifier is None


def test_paper_network_has_the_paper_size():
    options = PatchNetOptions()
    assert (options.num_patches, options.dim, options.backbone, options.freeze_pgn) == (6, 256, "resnet50", "lr0")
    with torch.device("meta"):
        pgn = PatchGenerator(2048, options.num_patches, options.pgn_channels, options.pgn_hidden)
    weights = 9 * 2048 * 4096 + 4096 * 512 + 512 * 36  # conv 3x3 2048 -> 4096, FC -> 512, FC -> 6 M (ledger 21)
    assert sum(p.numel() for p in pgn.parameters()) == weights + (4096 + 2 * 4096) + 512 + 36


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(generator="grid"), "generator must be one of .*got 'grid'"),
        (dict(freeze_pgn="no"), "freeze_pgn must be .*got 'no'"),
        (dict(num_patches=0), "num_patches and dim must be at least 1, got 0"),
        (dict(dim=0), "num_patches and dim must be at least 1"),
        (dict(generator="image"), "exactly one patch, got num_patches=6"),
    ],
)
def test_options_that_make_no_network(options, message):
    with pytest.raises(ValueError, match=message):
        PatchNet(PatchNetOptions(**{**SMALL, **options}))

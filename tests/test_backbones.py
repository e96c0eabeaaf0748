"""Feature maps of any torchvision classifier against torchvision's own forward pass; weight files, right and wrong."""

import pickle

import pytest
import torch
import torchvision

from paul.backbones import build_backbone


def rows_and_columns(body, height=128, width=64):
    with torch.no_grad():
        return tuple(body.eval()(torch.zeros(1, 3, height, width)).shape[1:])


def test_small_backbone():
    body, channels = build_backbone("small")
    assert rows_and_columns(body, 96, 48) == (channels, 12, 6)
    assert 150_000 < sum(p.numel() for p in body.parameters()) < 250_000


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (512, 8, 4)),
        ("resnet50", (2048, 8, 4)),
        ("mobilenet_v2", (1280, 8, 4)),
        ("shufflenet_v2_x0_5", (1024, 8, 4)),
        ("regnet_y_400mf", (440, 8, 4)),
        ("squeezenet1_1", (512, 7, 3)),
        ("densenet121", (1024, 4, 2)),  # pooling halves their last stage, and stays
    ],
)
def test_last_stride_is_one_where_a_convolution_strides(name, shape):
    body, channels = build_backbone(name)
    assert rows_and_columns(body) == shape and channels == shape[0]


def test_paper_size_gives_the_paper_map():
    assert rows_and_columns(build_backbone("resnet50")[0], 384, 128) == (2048, 24, 8)


def test_resnet_is_torchvisions_with_one_stride_changed():
    torch.manual_seed(0)
    body, _ = build_backbone("resnet18")
    theirs = torchvision.models.resnet18()
    theirs.layer4[0].conv1.stride = theirs.layer4[0].downsample[0].stride = (1, 1)
    theirs.load_state_dict(body.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 32)
    theirs.eval()
    expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        expected = layer(expected)
    assert torch.equal(body.eval()(x), expected)
    assert body.training is False and build_backbone("resnet18")[0].training is True


@pytest.mark.parametrize("name", ["resnet51", "fcn_resnet50", "r3d_18", ""])
def test_unknown_name(name):
    with pytest.raises(ValueError, match=f"unknown backbone '{name}'.*resnet50"):
        build_backbone(name)


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_a_transformer_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} cannot serve as a backbone"):
        build_backbone(name)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(1)
    return torchvision.models.resnet18().state_dict()


@pytest.mark.parametrize("counters", [True, False], ids=["new file", "file of an old torch"])
def test_local_weights_are_loaded(weights, counters, tmp_path):
    file = {key: value for key, value in weights.items() if counters or not key.endswith("num_batches_tracked")}
    torch.save(file, tmp_path / "w.pth")
    body, _ = build_backbone("resnet18", str(tmp_path / "w.pth"))
    loaded = body.state_dict()
    assert loaded and all(torch.equal(value, weights[key]) for key, value in loaded.items())


def test_local_weights_without_the_classifier_will_do(weights, tmp_path):
    torch.save({key: value for key, value in weights.items() if not key.startswith("fc")}, tmp_path / "w.pth")
    assert torch.equal(
        build_backbone("resnet18", str(tmp_path / "w.pth"))[0].state_dict()["conv1.weight"], weights["conv1.weight"]
    )


def test_weights_of_the_small_backbone(tmp_path):
    body, _ = build_backbone("small")
    torch.save(body.state_dict(), tmp_path / "w.pth")
    again, _ = build_backbone("small", str(tmp_path / "w.pth"))
    assert all(torch.equal(a, b) for a, b in zip(body.state_dict().values(), again.state_dict().values()))
    with pytest.raises(ValueError, match="small backbone has no ImageNet weights"):
        build_backbone("small", "imagenet")


def test_missing_weight_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weight file at .*w.pth"):
        build_backbone("resnet18", str(tmp_path / "w.pth"))


class Mischief:
    def __reduce__(self):
        return exec, ("raise AssertionError('code in the file was run')",)


def damaged(tmp_path, weights):
    torch.save(weights, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"conv1.weight": Mischief()}, protocol=2))
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    (tmp_path / "empty.pth").touch()
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({**weights, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    torch.save({"state_dict": weights}, tmp_path / "wrapped.pth")
    return ("cut", "code", "text", "empty", "list", "grey", "wrapped")


def test_wrong_weight_files_are_named(tmp_path, weights):
    for name in damaged(tmp_path, weights):
        with pytest.raises(ValueError, match=f"{name}.pth (cannot be read|is not a weight file)"):
            build_backbone("resnet18", str(tmp_path / f"{name}.pth"))
    with pytest.raises(ValueError, match="whole.pth is not a weight file of this backbone"):
        build_backbone("mobilenet_v2", str(tmp_path / "whole.pth"))

"""Backbones: any convolutional torchvision classifier, cut before its pooling, and a small network for CPUs."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torchvision
from torch import Tensor, nn

from paul.weights import HEAD, load_file, load_imagenet


class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        return (out + self.shortcut(x)).relu_()


def small() -> nn.Sequential:
    """A residual network of 0.2 million weights: 96x48 images become maps of 96 channels and 12x6 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        _Residual(16, 32, 2),
        _Residual(32, 64, 2),
        _Residual(64, 96, 1),
    )


def _torchvision(name: str, weights: str | None) -> nn.Module:
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(
            f"unknown backbone {name!r}: 'small' or a torchvision classification model such as "
            "'resnet50' or 'mobilenet_v2'"
        )
    network = torchvision.models.get_model_builder(name)(weights=None)
    if weights == "imagenet":
        load_imagenet(network, name)
    elif weights is not None:
        load_file(network, weights)
    return network


def _without_head(network: nn.Module) -> nn.Module:
    if isinstance(getattr(network, "features", None), nn.Module):
        return network.features
    return nn.Sequential(OrderedDict((key, child) for key, child in network.named_children() if key not in HEAD))


@torch.no_grad()
def _last_stride_to_one(body: nn.Module) -> None:
    """Keep the resolution in the last stage, where it is convolutions that halve it (a pooling layer stays)."""
    strided = []

    def note(module, inputs, _output):
        stride = module.stride if isinstance(module.stride, tuple) else (module.stride,) * 2
        if max(stride) > 1:
            strided.append((inputs[0].shape[2], module))

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [m.register_forward_hook(note) for m in body.modules() if isinstance(m, kinds)]
    was_training = body.training
    body.eval()(torch.zeros(1, 3, 128, 64))
    body.train(was_training)
    for hook in hooks:
        hook.remove()
    last = [module for rows, module in strided if rows == min(rows for rows, _ in strided)] if strided else []
    if all(isinstance(module, nn.Conv2d) for module in last):
        for module in last:
            module.stride = (1, 1)


def build_backbone(name: str = "resnet50", weights: str | None = None) -> tuple[nn.Module, int]:
    """A network from images [B, 3, H, W] to feature maps [B, C, h, w], and C (paper Sec. 3.1).

    Args:
        name: "small", or any convolutional classification model of torchvision; its pooling and classifier are
            removed and its last stage keeps the resolution (last stride 1) where a convolution would halve it.
        weights: None, "imagenet" (through torchvision), or the path of a weight file; see `paul.weights`.

    Raises:
        ValueError: an unknown name, a model without a feature map, weights that are damaged or do not fit.
        FileNotFoundError, OSError: no such weight file; the download failed.
    """
    if name == "small":
        body = small()
        if weights == "imagenet":
            raise ValueError("the small backbone has no ImageNet weights")
        if weights is not None:
            load_file(body, weights)
        return body, 96
    body = _without_head(_torchvision(name, weights))
    try:
        _last_stride_to_one(body)
        was_training = body.training
        with torch.no_grad():
            probe = body.eval()(torch.zeros(1, 3, 128, 64))
        body.train(was_training)
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{name} cannot serve as a backbone: its layers before the classifier do not make a feature map ({error})"
        ) from error
    if probe.ndim != 4 or probe.shape[2] < probe.shape[3]:  # the probe is twice as tall as wide, so a map is tall
        raise ValueError(f"{name} cannot serve as a backbone: it gives {tuple(probe.shape)}, not a [B, C, h, w] map")
    return body, probe.shape[1]

"""How a network and its optimiser are set up for training on a device, and whose learning rate is whose."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def prepare(model: nn.Module, device: torch.device, compile: bool | str = False) -> nn.Module:
    """The network on its device, laid out and set up for training there; returns the same module.

    Channels last, which a GPU's convolutions in 16 bits want, and a CPU trains in 1.2 to 1.3 times as fast.
    On a GPU also kernels chosen by trial, and no TF32: what autocast leaves in float32 (distances, log-sums, norms) is
    left there for its digits. These settings hold for the process.

    Args:
        model: in place; its state keeps its names and values.
        device: where to.
        compile: also `torch.compile` the forward pass; a word names a mode, such as "reduce-overhead", which records
            CUDA graphs. Off by default: at the paper's sizes convolutions fill the GPU, and compiling takes minutes.
    """
    model.to(device, memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
    if compile:
        model.compile(mode=compile if isinstance(compile, str) else None)
    return model


def sgd(
    groups: Iterable, device: torch.device, lr: float, momentum: float, weight_decay: float = 0.0
) -> torch.optim.SGD:
    """SGD over parameter groups; on a GPU one fused kernel takes the step."""
    return torch.optim.SGD(
        groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True if device.type == "cuda" else None
    )


def adam(groups: Iterable, device: torch.device, lr: float, weight_decay: float = 0.0) -> torch.optim.Adam:
    """Adam over parameter groups; on a GPU one fused kernel takes the step."""
    return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay, fused=True if device.type == "cuda" else None)


def parameter_groups(model: nn.Module) -> list[dict]:
    """Trainable parameters by the name of their learning rate: those of `model.backbone` and of its patch `generator`,
    and new, all others."""
    groups = {"backbone": model.backbone, "patch_generator": model.generator}
    taken = {id(p) for module in groups.values() for p in module.parameters()}
    members = {name: list(module.parameters()) for name, module in groups.items()}
    members["new"] = [p for p in model.parameters() if id(p) not in taken]
    return [
        {"params": [p for p in params if p.requires_grad], "name": name}
        for name, params in members.items()
        if any(p.requires_grad for p in params)
    ]


def set_learning_rates(optimizer: torch.optim.Optimizer, rates: dict[str, float]) -> None:
    """Give each group the rate that bears its name."""
    for group in optimizer.param_groups:
        group["lr"] = rates[group["name"]]

"""Checkpoints: plain tensors and numbers, written atomically, read without running any code in them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from paul.engine.files import first_line, in_full, read, write_atomically
from paul.options import PatchNetOptions, image_size
from paul.patchnet import PatchNet

FORMAT = 1


def describe(model: PatchNet) -> dict:
    """What a file says of a network beside its weights: enough to build it again."""
    return {
        "format": FORMAT,
        "options": asdict(model.options),
        "stage": model.stage,
        "num_classes": model.num_classes,
        "image_size": model.image_size,
    }


def save(path: str | Path, model: PatchNet, **training) -> None:
    """Write a network, its options, image size and any training state (tensors, numbers, strings, dicts and lists)."""
    state = {**describe(model), "model": model.state_dict(), "training": training}
    write_atomically(path, lambda file: torch.save(state, file))


def _holds(state: dict, name: str, wanted: Tensor) -> bool:
    """Whether a state dict has the tensor, in full."""
    found = state.get(name)
    return (
        isinstance(found, Tensor)
        and found.shape == wanted.shape
        and found.dtype.is_floating_point == wanted.dtype.is_floating_point
        and in_full(found)
    )


def build(path: str | Path, state: dict) -> PatchNet:
    """The network that a file describes, with its weights; built only when the file is known to fill it.

    Args:
        path: of the file, for messages.
        state: of `describe`, and "model": the state dict.

    Raises:
        ValueError: an option that is none, or weights that do not fit the options.
    """
    try:
        options = PatchNetOptions(**state["options"])
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} comes from another version of paul ({first_line(error)})") from error
    try:
        with torch.device("meta"):  # shapes without memory
            shapes = PatchNet(options, num_classes=state["num_classes"])
        if state["stage"] not in ("source", "target"):
            raise ValueError(f"stage {state['stage']!r}")
        if state["stage"] == "target":
            shapes.to_target()
        wanted, weights = shapes.state_dict(), state["model"]
        unfit = [name for name in wanted if not _holds(weights, name, wanted[name])]
        unfit += [name for name in weights if name not in wanted]
        if unfit:
            raise ValueError(f"{unfit[0]} and {len(unfit) - 1} others")
        size = state.get("image_size")  # files written before sizes were kept have none
        size = None if size is None else image_size(size)
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path} does not fit its own options ({first_line(error)})") from error
    model = PatchNet(options, num_classes=shapes.num_classes)  # a target network never has classifiers to make
    if state["stage"] == "target":
        model.to_target()
    model.load_state_dict(weights)
    model.image_size = size
    return model.to(memory_format=torch.channels_last)  # as trained: describes an image by the same bits


def load(path: str | Path, options: PatchNetOptions | None = None) -> tuple[PatchNet, dict]:
    """Rebuild the network of a checkpoint; returns it and the training state saved with it.

    Args:
        path: written by `save`.
        options: what the caller expects; None accepts any architecture.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, of another format, of another architecture than expected, or its training's spec is no
            JSON.
    """
    state = read(path)
    if not isinstance(state, dict) or str(state.get("format")) != str(FORMAT):
        raise ValueError(
            f"{path} was not written by paul.checkpoint.save (format {FORMAT}); for the authors' own file "
            "use import_released"
        )
    model = build(path, state)
    found = model.options
    if options is not None and found != options:
        differing = [
            f"{key}: {value!r} in the file, {asdict(options)[key]!r} expected"
            for key, value in state["options"].items()
            if value != asdict(options)[key]
        ]
        raise ValueError(f"{path} holds another architecture ({'; '.join(differing)})")
    training = state.get("training", {})
    try:
        json.loads(training.get("spec", "null"))
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not say how it was trained ({first_line(error)}); use an earlier one") from error
    return model, training


def _wanted(state: dict[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise ValueError(f"{name} is missing")
    return state[name]


def _stack(state: dict[str, Tensor], name: str, count: int) -> Tensor:
    return torch.stack([_wanted(state, name.format(i)) for i in range(count)])


def import_released(path_or_dict: str | Path | dict, stage: str = "target") -> PatchNet:
    """The network of a checkpoint that the authors' code wrote (ResNet-50, PGN, 256-d patches; ledger 9, 19-21).

    Args:
        path_or_dict: the file, or its state dict with keys such as `module.backbone.conv1.weight`,
            `module.new.down.0.0.weight`, `module.patch_proposal.fc_loc.2.bias`.
        stage: "target" or "source" (the latter needs the classifiers `module.new.fc_list`).

    Raises:
        ValueError: a key is missing or does not fit; the message names it, and the file.
    """
    if stage not in ("source", "target"):
        raise ValueError(f"stage must be 'source' or 'target', got {stage!r}")
    state = path_or_dict if isinstance(path_or_dict, dict) else read(path_or_dict)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    try:
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise ValueError("it holds no weights by name")
        for key, value in state.items():
            if isinstance(value, Tensor) and not in_full(value):
                raise ValueError(f"{key} claims more than the file holds")
        model = _released({key.removeprefix("module."): value for key, value in state.items()}, stage)
    except (ValueError, IndexError, TypeError, RuntimeError, AttributeError) as error:  # any shapes, or no tensors
        name = "this" if isinstance(path_or_dict, dict) else path_or_dict
        raise ValueError(f"{name} is not a released PAUL checkpoint: {first_line(error)}") from error
    model.image_size = 384, 128  # what their code resizes images to
    return model.to_target() if stage == "target" else model


def _released(state: dict[str, Tensor], stage: str) -> PatchNet:
    patches = max(1, sum(key.startswith("new.down.") and key.endswith(".0.weight") for key in state))
    down = _stack(state, "new.down.{}.0.weight", patches).flatten(2)
    embedding = _stack(state, "new.embedding.{}.weight", patches)
    classes = len(state["new.fc_list.0.weight"]) if "new.fc_list.0.weight" in state else None
    options = PatchNetOptions(
        num_patches=patches,
        dim=down.shape[1],
        embedding_dim=embedding.shape[1],
        pgn_channels=len(_wanted(state, "patch_proposal.localization.0.weight")),
        pgn_hidden=len(_wanted(state, "patch_proposal.fc_loc.0.weight")),
    )
    classes = classes if stage == "source" else None
    with torch.device("meta"):  # shapes without memory: a length may be that of empty rows
        ours = PatchNet(options, num_classes=classes).state_dict()
    renamed = {key: value for key, value in state.items() if key.startswith("backbone.")}
    renamed |= {
        key.replace("patch_proposal.", "generator."): value
        for key, value in state.items()
        if key.startswith("patch_proposal.")
    }
    renamed |= {
        "branch.weight": down,
        "branch.bias": _stack(state, "new.down.{}.0.bias", patches),
        "embedding.weight": embedding,
        "embedding.bias": _stack(state, "new.embedding.{}.bias", patches),
    }
    for part in ("weight", "bias", "running_mean", "running_var"):
        renamed[f"branch_norm.{part}"] = _stack(state, f"new.down.{{}}.1.{part}", patches).flatten()
    counter = "new.down.0.1.num_batches_tracked"  # absent from files of the oldest torch versions
    renamed["branch_norm.num_batches_tracked"] = state.get(counter, torch.tensor(0))
    if stage == "source":
        renamed |= {
            "classifier.weight": _stack(state, "new.fc_list.{}.weight", patches),
            "classifier.bias": _stack(state, "new.fc_list.{}.bias", patches),
        }
    shapes = {key: value.shape for key, value in ours.items() if not key.endswith("num_batches_tracked")}
    unfit = [key for key, shape in shapes.items() if key not in renamed or renamed[key].shape != shape]
    unfit += [key for key in renamed if key not in ours]
    if unfit:
        raise ValueError(f"{unfit[0]} and {len(unfit) - 1} others do not fit")
    model = PatchNet(options, num_classes=classes)
    model.load_state_dict(renamed, strict=False)
    return model

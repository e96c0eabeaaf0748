"""Weights that a backbone starts from: ImageNet's, through torchvision, or a file's; hashes checked, no code run."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from paul.engine.files import first_line, in_full, read_tensors

HEAD = ("avgpool", "fc", "classifier", "dropout", "head", "heads", "AuxLogits", "aux1", "aux2")


def published(backbone: str):
    """torchvision's ImageNet weights of a backbone: the paper's time's (IMAGENET1K_V1) where there are some."""
    every = torchvision.models.get_model_weights(backbone)
    return getattr(every, "IMAGENET1K_V1", every.DEFAULT)


def imagenet_file(backbone: str) -> Path:
    """Where torchvision keeps the ImageNet weights of a backbone, and looks before it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(published(backbone).url).name


@lru_cache(maxsize=8)
def _sha256(path: str, size: int, modified: int) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def sha256(path: str | Path) -> str:
    """Hash of a file's bytes; FileNotFoundError where there is none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}; give weights='imagenet', a file, or nothing")
    about = path.stat()
    return _sha256(str(path), about.st_size, about.st_mtime_ns)


def hash_in(name: str) -> str:
    """The beginning of the sha256 that torchvision writes into a file's name (`resnet50-0676ba61.pth`), "" for none."""
    found = re.search(r"-([0-9a-f]{8,64})\.pth?$", name)
    return found[1] if found else ""


def content_of(backbone: str, weights: str | None) -> str | None:
    """What decides a training about the weights it starts from: their content, wherever the file lies.

    Args:
        backbone: name of the network.
        weights: None, "imagenet" or the path of a file.

    Returns:
        None, "imagenet" (torchvision's file too, under any name), or "sha256:" and 16 digits of the file's hash.
    """
    if weights in (None, "imagenet"):
        return weights
    found = sha256(weights)
    if backbone != "small" and found.startswith(hash_in(published(backbone).url)):
        return "imagenet"
    return f"sha256:{found[:16]}"


def load_file(network: nn.Module, path: str | Path) -> None:
    """Put the weights of a file into a network, classifier apart.

    Raises:
        FileNotFoundError: no such file.
        ValueError: its hash is not the one in its name, it holds more than tensors, or it is of another network.
    """
    found, named = sha256(path), hash_in(Path(path).name)
    if not found.startswith(named):
        raise ValueError(
            f"{path} cannot be read as weights: damaged or cut short, since its sha256 begins with "
            f"{found[: len(named)]} and its name says {named}; delete it and fetch it again"
        )
    try:
        state = read_tensors(path)
    except Exception as error:  # there is no list of what reading a damaged file can raise
        reason = "it names code" if isinstance(error, pickle.UnpicklingError) else first_line(error)
        raise ValueError(f"{path} cannot be read as weights: damaged, or more than tensors ({reason})") from error
    _fit(network, state, path)


def _holds(found, shape: torch.Size) -> bool:
    return isinstance(found, Tensor) and found.shape == shape and in_full(found)


def _fit(network: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a weight file: it holds a {type(state).__name__}")
    # files of the oldest torch versions have no num_batches_tracked
    wanted = {
        name: value
        for name, value in network.state_dict().items()
        if not name.startswith(HEAD) and (name in state or not name.endswith("num_batches_tracked"))
    }
    unfit = [name for name, value in wanted.items() if not _holds(state.get(name), value.shape)]
    if unfit:
        raise ValueError(
            f"{path} is not a weight file of this backbone: {unfit[0]} and {len(unfit) - 1} others are "
            "missing or of another shape"
        )
    network.load_state_dict({name: state[name] for name in wanted}, strict=False)


def load_imagenet(network: nn.Module, backbone: str) -> None:
    """Put torchvision's ImageNet weights into its network; downloaded by it, once, and checked against their hash.

    Raises:
        OSError: the download failed; says which file to put where.
        ValueError: the file that is there is damaged.
    """
    place, best = imagenet_file(backbone), published(backbone)
    if not place.is_file():
        try:
            quiet = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
            state = best.get_state_dict(progress=not quiet, check_hash=True, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, HTTPException) as error:
            raise OSError(
                f"the ImageNet weights of {backbone} could not be downloaded from {best.url} ({error}). "
                f"Fetch that file elsewhere and put it at {place}, or name it: weights=FILE"
            ) from error
        return _fit(network, state, place)
    load_file(network, place)

"""A trained network for others: safetensors with a model card beside it, and ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from paul import checkpoint
from paul.data.transforms import MEAN, STD
from paul.engine.files import fingerprint, first_line, write_atomically
from paul.engine.regular import check_regular
from paul.patchnet import PatchNet

FORMAT = "paul-1"


def open_model(path: str | Path) -> tuple[PatchNet, dict]:
    """The network of a checkpoint or of a .safetensors file, and the training state saved with it (its spec, mostly).

    Raises:
        FileNotFoundError, ValueError: no such file; damaged, or of another kind.
    """
    return load_safetensors(path) if Path(path).suffix == ".safetensors" else checkpoint.load(path)


def save_safetensors(model: PatchNet, path: str | Path, training: dict | None = None) -> None:
    """Write weights and statistics as safetensors; how to rebuild the network stands in the file's metadata.

    Args:
        model: any PatchNet; its `image_size` goes along.
        path: of the new file.
        training: of `open_model`; its "spec" goes along.
    """
    safetensors = _package("safetensors.torch", "safetensors")
    about = json.dumps(checkpoint.describe(model))
    metadata = {"format": FORMAT, "paul": about, "spec": (training or {}).get("spec", "null")}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, lambda file: file.write(safetensors.save(tensors, metadata)))


def load_safetensors(path: str | Path) -> tuple[PatchNet, dict]:
    """The network of a file by `save_safetensors`, and {"spec": how it was trained} where that is known.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not written by `save_safetensors`.
        RuntimeError: safetensors is not installed.
    """
    safetensors, path = _package("safetensors", "safetensors"), Path(path)
    try:
        check_regular(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ValueError("'paul export' did not write it")
        state = {**json.loads(metadata["paul"]), "model": tensors}
        training = {"spec": metadata["spec"]} if json.loads(metadata["spec"]) else {}
    except FileNotFoundError:
        raise FileNotFoundError(f"no model at {path}") from None
    except Exception as error:  # there is no list of what reading a damaged file can raise
        raise ValueError(f"{path} is damaged, or no exported model ({first_line(error)})") from error
    return checkpoint.build(path, state), training


class _Descriptor(nn.Module):
    """uint8 images [B, 3, H, W] -> descriptors [B, M*D], nothing to prepare outside."""

    def __init__(self, model: PatchNet):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.model.describe((images.float() / 255 - self.mean) / self.std)


def save_onnx(model: PatchNet, path: str | Path) -> None:
    """Write the descriptor network as ONNX: "images" uint8 [batch, 3, H, W], RGB at the network's image size, in;
    "features" float32 [batch, M*D] out. Scaling and normalisation are inside; any batch size will do.

    Raises:
        ValueError: an image size that is not known; random patches, which are drawn anew at every call.
        RuntimeError: the packages onnx and onnxscript are not installed.
    """
    _package("onnxscript", "onnx and onnxscript")
    if model.image_size is None:
        raise ValueError("the network does not say which image size it was trained at: set image_size=(rows, columns)")
    if model.options.generator == "random":
        raise ValueError(
            "random patches are drawn anew at every call, which ONNX cannot repeat; export another generator's network"
        )
    was_training, device = model.training, next(model.parameters()).device
    try:
        # strict: traced from the source, so that len(x) stays the batch's size and does not become the example's
        program = torch.export.export(
            _Descriptor(model.cpu().eval()),
            (torch.zeros(2, 3, *model.image_size).byte(),),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            strict=True,
        )
        exported = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=["features"],
            dynamo=True,
            dynamic_shapes={"images": {0: "batch"}},
            verbose=False,
        )
    finally:
        model.to(device).train(was_training)
    write_atomically(path, lambda file: file.write(exported.model_proto.SerializeToString()))


def model_card(model: PatchNet, name: str, training: dict | None = None, trained_on: str = "") -> str:
    """What somebody who gets the file has to know, as Markdown.

    Args:
        model: the network.
        name: of the files, without their ending.
        training: of `open_model`: what its spec says about data and options is listed.
        trained_on: words of your own about the data.
    """
    o, size = model.options, model.image_size
    count = sum(value.numel() for value in model.parameters())
    shape = f"{size[0]} x {size[1]} (rows x columns)" if size else "of a size that the checkpoint did not say"
    spec = json.loads((training or {}).get("spec", "null"))
    stages = "\n".join([trained_on + "\n"] * bool(trained_on) + _stages(spec)) or "The checkpoint does not say."
    return f"""# {name}

A PatchNet (Yang et al., *Patch-based Discriminative Feature Learning for Unsupervised Person Re-identification*, CVPR
2019) that describes images of people cut out by a detector, so that images of one person lie near each other.

| | |
|---|---|
| backbone | {o.backbone}, {count:,} weights in all |
| input | RGB, {shape}, resized bilinearly |
| values | divided by 255, then minus {list(MEAN)}, divided by {list(STD)} (ONNX: done inside) |
| output | {o.num_patches * o.dim} numbers: {o.num_patches} patches of {o.dim}, each of unit length |
| compare by | cosine, or Euclidean distance: the order is the same |
| weights | {fingerprint(*model.state_dict().values())} |

## What it was trained on

{stages}

## Loading it

    from paul import Extractor
    features = Extractor("{name}.safetensors")(["a.jpg", "b.jpg"])      # [2, {o.num_patches * o.dim}]

    import onnxruntime                                                   # or, without PyTorch
    session = onnxruntime.InferenceSession("{name}.onnx")
    features = session.run(None, {{"images": images}})[0]                 # uint8 [batch, 3, rows, columns]

## What it may be used for

Finding one person in several cameras is surveillance. Use it only where those in the pictures and the law allow it,
and check each match by eye: a similarity is no identity, and errors do not fall on everybody alike. The descriptors of
people are personal data as their pictures are. The weights were made from the data above: its terms bind them, too.
How well the network does on other cameras is not known until it is measured there.
"""


def _stages(spec) -> list[str]:
    """A line per training stage, the first one first."""
    lines = []
    while isinstance(spec, dict):
        data, options = spec.get("data"), spec.get("options")
        if isinstance(data, dict):
            known = ("images", "title", "source", "licence", "fingerprint")
            kept = [f"{key} {data[key]}" for key in known if data.get(key)]
            where = f"{data.get('name')} ({'; '.join(kept)})"
        else:
            where = f"images with hash {spec.get('images', 'unknown')}, in a set that the checkpoint does not name"
        if isinstance(options, dict):
            options = ", ".join(f"{key} {value}" for key, value in options.items())
        lines.append(f"- {spec.get('stage')} stage: {where}. Seed {spec.get('seed')}; {options}.")
        spec = spec.get("from")
    return [f"- Starting from `{spec}`."] * bool(spec) + lines[::-1]


def _package(name: str, words: str):
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise RuntimeError(f"this needs {words}: install paul-book[export]") from error

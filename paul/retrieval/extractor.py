"""Images in, descriptors out: a trained network behind one call."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from paul import options
from paul.data.images import DAMAGED, read_image, to_rgb
from paul.data.passes import extract
from paul.engine.device import pick_device
from paul.engine.files import fingerprint
from paul.patchnet import PatchNet
from paul.retrieval.export import open_model


class Extractor:
    """Describes images with a trained network: `Extractor("model.pt")(["a.jpg", "b.jpg"])` -> [2, M*D].

    An item is a path, an array uint8 [H, W, 3] (RGB; OpenCV's arrays are BGR: pass `array[..., ::-1]`), a PIL image
    (`paul.data.images.to_rgb` says what becomes of each mode), or a tensor [3, H, W], uint8 or floating point in [0, 1]
    (rounded to the 256 levels that a file holds).
    Items may differ in kind and size. Whatever the kind, the same pixels give the same descriptor.

    Args:
        model: the path of a checkpoint or of an exported .safetensors file, or a PatchNet, which is used as it is and
            not copied.
        image_size: rows and columns that images are resized to; by default what the checkpoint says. Any other than
            the training's costs accuracy.
        device: where the network runs: a GPU when there is one, for a PatchNet where it lies.
        batch: images per pass.

    Attributes:
        width: M*D, numbers in a descriptor.
        fingerprint: hash of weights and image size; descriptors of one fingerprint may be compared.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, or it is damaged; an image size that is not
            known; weights that are not finite.
    """

    def __init__(
        self,
        model: str | Path | PatchNet,
        image_size: tuple[int, int] | None = None,
        device: str | None = None,
        batch: int = 64,
    ):
        name = "the network" if isinstance(model, PatchNet) else str(model)
        if not isinstance(model, PatchNet):
            model, _ = open_model(model)
            model.to(pick_device(device))
        elif device is not None:
            model.to(pick_device(device))
        size = image_size or model.image_size
        if size is None:
            raise ValueError(
                f"{name} does not say which image size it was trained at: give image_size=(rows, columns), "
                "as in its training's profile"
            )
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.image_size = options.image_size(size)
        for key, value in model.state_dict().items():
            if not value.isfinite().all():
                raise ValueError(f"{name} holds weights that are not finite ({key}): use an earlier one or train again")
        self.model, self.batch = model, batch
        self.width = model.options.num_patches * model.options.dim
        self.fingerprint = fingerprint(torch.tensor(self.image_size), *model.state_dict().values())

    def __call__(self, images, bar: tqdm | None = None) -> Tensor:
        """Descriptors of one item or of many -> float32 [N, M*D] on the CPU, rows of norm sqrt(M) (paper Sec. 3.1).

        Args:
            images: one item; a list or any other iterable of items, read as it goes; a tensor [N, 3, H, W]; an array
                uint8 [N, H, W, 3].
            bar: a progress bar to move in place of its own.

        Raises:
            ValueError, TypeError: an item cannot be read; the message says which, counted from 0.
        """
        if isinstance(images, Tensor):
            images = _as_bytes(images[None] if images.ndim == 3 else images, 0)
            if images.shape[2:] == self.image_size:  # stays on its device
                return self._describe(images.split(self.batch), len(images), bar)
        elif isinstance(images, (str, Path, Image.Image)) or isinstance(images, np.ndarray) and images.ndim == 3:
            images = [images]
        return self._describe(self._decoded(images), len(images) if hasattr(images, "__len__") else None, bar)

    def _describe(self, batches, total: int | None, bar: tqdm | None) -> Tensor:
        parts = [torch.empty(0, self.width)]
        own = {"total": total, "desc": "describing", "unit": "image", "leave": False, "delay": 1}
        with nullcontext(bar) if bar is not None else tqdm(**own) as moving:
            for images in batches:
                described = extract(self.model, images, self.batch).float().cpu()
                if not described.isfinite().all():  # finite weights can overflow
                    raise ValueError("the network's descriptors are not finite: its weights are no good")
                parts.append(described)
                moving.update(len(images))
        return torch.cat(parts)

    def _decoded(self, items):
        """Batches uint8 [B, 3, *image_size]; while one is with the network, the next is being decoded."""
        numbered = enumerate(items)
        with ThreadPoolExecutor() as pool:
            waiting = deque()
            while True:
                jobs = [pool.submit(self._decode, *pair) for pair in islice(numbered, self.batch)]
                if jobs:
                    waiting.append(jobs)
                if waiting and (not jobs or len(waiting) > 1):
                    yield torch.stack([job.result() for job in waiting.popleft()])
                elif not jobs:
                    return

    def _decode(self, place: int, item) -> Tensor:
        """One item -> uint8 [3, *image_size]."""
        if isinstance(item, (str, Path)):
            try:
                pixels = read_image(item, self.image_size)
            except ValueError as error:
                raise ValueError(f"image {place}: cannot read {item}: {error.__cause__}") from error
            return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        if isinstance(item, Tensor):
            item = _as_bytes(item[None], place)[0].permute(1, 2, 0).cpu().numpy()
        if isinstance(item, np.ndarray):
            if item.ndim != 3 or item.shape[2] != 3 or item.dtype != np.uint8 or item.size == 0:
                raise ValueError(f"image {place}: an array must be uint8 [H, W, 3], got {item.dtype} {item.shape}")
            item = Image.fromarray(np.ascontiguousarray(item))
        if not isinstance(item, Image.Image):
            raise TypeError(f"image {place}: a {type(item).__name__} is no path, array, PIL image or tensor")
        try:
            pixels = to_rgb(item)
        except DAMAGED as error:  # a PIL image reads its file only now
            raise ValueError(f"image {place}: cannot be decoded: {error}") from error
        if pixels.size != self.image_size[::-1]:
            pixels = pixels.resize(self.image_size[::-1], Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def _as_bytes(images: Tensor, first: int) -> Tensor:
    """Tensors [B, 3, H, W] as uint8; `first` is the number of the first one, for messages."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(
            f"image {first}: a tensor must be [3, H, W], or [N, 3, H, W] for many, got "
            f"{tuple(images.shape)} (counted with a leading N)"
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"image {first}: a tensor must be uint8, or floating point in [0, 1], got {images.dtype}")
    good = ((images >= 0) & (images <= 1)).flatten(1).all(1)
    if not good.all():
        bad = int((~good).nonzero()[0, 0])
        raise ValueError(
            f"image {first + bad}: floating point values must lie in [0, 1], got "
            f"{images[bad].min():.4g} to {images[bad].max():.4g}"
        )
    return (images * 255).round().to(torch.uint8)

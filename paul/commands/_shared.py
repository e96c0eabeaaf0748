"""What several commands share: their options, and how words on the command line become them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import typing
from pathlib import Path

from paul.options import LARGEST_SEED

PYTHON = {"None": "null", "True": "true", "False": "false"}  # as messages and pages write them, and as JSON does


def whole_number(low: int, high: int = 10**6):
    """For argparse: text to a whole number of that range, by default to more than any machine takes of anything."""

    def read(text: str) -> int:
        if not (text.isdecimal() and len(text) <= len(str(high)) and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text[:40]}: must be a whole number from {low} to {high}")
        return int(text)

    return read


def as_type(hint, value):
    """The value as the type that a dataclass states, numbers widened.

    Raises:
        TypeError: it is not of that type.
    """
    kinds = [hint] if typing.get_origin(hint) in (None, tuple) else typing.get_args(hint)
    for kind in kinds:
        if typing.get_origin(kind) is tuple and isinstance(value, list) and len(value) == len(typing.get_args(kind)):
            return tuple(map(as_type, typing.get_args(kind), value))
        if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:  # neither inf nor nan
            return float(value)
        if type(value) is kind and kind is not float:  # not isinstance: True is no number here
            return value
    raise TypeError(" or ".join(getattr(kind, "__name__", str(kind)).replace("NoneType", "null") for kind in kinds))


def overridden(options, prefix: str, settings: list[str]):
    """The dataclass with every --set prefix.key=value applied."""
    hints = typing.get_type_hints(type(options))
    known = {field.name: hints[field.name] for field in dataclasses.fields(options)}
    changes = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        part, _, key = name.partition(".")
        if part != prefix:
            continue
        if not equals or key not in known:
            raise ValueError(
                f"--set {setting}: write --set {prefix}.KEY=VALUE with KEY one of {', '.join(sorted(known))}"
            )
        value = PYTHON.get(value, value)
        with contextlib.suppress(ValueError, RecursionError):  # else a word
            value = json.loads(value)
        try:
            changes[key] = as_type(known[key], value)
        except TypeError as wanted:
            raise ValueError(f"--set {setting}: {key} must be {wanted}") from None
    try:
        return dataclasses.replace(options, **changes)
    except ValueError as error:
        raise ValueError(f"--set {prefix}: {error}") from error


def check_settings(settings: list[str], prefixes: tuple[str, ...]) -> None:
    """Raises ValueError for a --set that belongs to another command."""
    for setting in settings:
        if setting.partition(".")[0] not in prefixes:
            raise ValueError(f"--set {setting}: options of this command begin with {' or '.join(prefixes)}")


def use_cores(device: str | None, backbone: str) -> None:
    """Give a training on the CPU the threads that suit it, unless OMP_NUM_THREADS says how many."""
    import torch

    from paul.engine.device import default_threads, pick_device

    if pick_device(device).type == "cpu":
        torch.set_num_threads(default_threads(backbone))


def training_images(folder: str, size, skip: bool, place: str | None = None):
    """The training split of a set and its `Pixels`; `skip` leaves out what cannot be decoded."""
    from paul.data.datasets import ReidDataset
    from paul.data.images import readable
    from paul.data.pixels import load_pixels

    split = ReidDataset.load(folder).split("train")
    if skip:
        split = readable(split, report=lambda line: print(line, file=sys.stderr))
    return split, load_pixels(split, size, progress=True, place=place)


def described(folder: str, images: int) -> dict:
    """What a model card says about the data that a network was trained on."""
    from paul.data.datasets import ReidDataset

    dataset = ReidDataset.load(folder)
    known = {key: dataset.card[key] for key in ("title", "source", "licence") if dataset.card.get(key)}
    return {"name": dataset.name, **known, "images": images, "fingerprint": dataset.fingerprint}


def initial_model(args):
    """The network of --init or --released, and what its file says about its training.

    Raises:
        ValueError: neither is given, or both.
    """
    from paul.checkpoint import import_released
    from paul.retrieval.export import open_model

    if bool(args.init) == bool(args.released):
        raise ValueError("give either --init CHECKPOINT or --released FILE")
    return open_model(args.init) if args.init else (import_released(args.released), {})


def network_size(args, model):
    """The profile asked for, else mini for the small backbone and paper for others, and the rows and columns of images
    for the network: those it was trained on, the profile's where its file does not say.

    Raises:
        ValueError: the profile was asked for, and has images of another size.
    """
    from paul.experiments.profiles import profile

    p = profile(args.profile or ("mini" if model.options.backbone == "small" else "paper"))
    if model.image_size is None:
        return p, p.image_size
    if args.profile and p.image_size != model.image_size:
        theirs, ours = ("x".join(map(str, size)) for size in (model.image_size, p.image_size))
        raise ValueError(
            f"--profile {p.name} has images of {ours}, but {args.init or args.released} was trained "
            f"on {theirs}; leave --profile out, or name the one it was trained with"
        )
    return p, model.image_size


def common(command, profile: str | None = "mini") -> None:
    """Options of every command that computes; with profile None the network's file may decide."""
    command.add_argument(
        "--profile",
        default=profile,
        help="smoke, mini, gpu or paper"
        + (
            ""
            if profile
            else "; by default mini for the small backbone and paper for others, with images of the size "
            "that the checkpoint was trained on"
        ),
    )
    command.add_argument("--device", help="cpu, cuda, cuda:1; a GPU when there is one")


def training(command, default_out: str | None = None) -> None:
    """Options of both training stages; `default_out` says where they write when --out may be left out."""
    command.add_argument(
        "--out",
        required=default_out is None,
        help="folder for checkpoint and log; the same command "
        "resumes" + (f" (default: {default_out})" if default_out else ""),
    )
    command.add_argument("--seed", type=whole_number(0, LARGEST_SEED), default=0)
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.KEY=VALUE",
        help="change one option of the profile, e.g. adapt.s=10 or adapt.loss_c=null; values as in JSON (None, True "
        "and False are understood, too); may be repeated",
    )
    command.add_argument(
        "--images",
        choices=("device", "memory", "disk"),
        help="where decoded images are kept: on the "
        "GPU, in memory, or in a file below build/images; the first that has room by default",
    )
    command.add_argument("--skip-unreadable", action="store_true", help="leave out images that cannot be decoded")
    command.add_argument(
        "--low-memory",
        action="store_true",
        help="forget activations and compute them again: less memory, the same result, slower",
    )
    command.add_argument("--compile", action="store_true", help="torch.compile the network")
    command.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")


def starting(command) -> None:
    """Where the network comes from."""
    command.add_argument("--init", help="checkpoint to start from")
    command.add_argument("--released", help="checkpoint of the authors' code to start from")


def study(command) -> None:
    """Folders and processes of the experiments."""
    command.add_argument("--data", default="data")
    command.add_argument("--results", default="results")
    command.add_argument("--models", default="build/models", help="checkpoints")
    command.add_argument("--workers", type=whole_number(1), default=2, help="processes on a CPU")


def judging(command) -> None:
    """Where the claims and the paper's own figures are."""
    command.add_argument(
        "--book",
        default="book",
        metavar="FOLDER",
        help="folder that holds claims.toml and the published tables in paper/",
    )


def book_of(args, needs=("claims.toml", "paper")) -> Path:
    """The folder that `judging` asks for.

    Raises:
        FileNotFoundError: it does not hold what the command needs, for tables and verdicts by default.
    """
    book = Path(args.book)
    for needed in (book / name for name in needs):
        if not needed.exists():
            raise FileNotFoundError(
                f"--book {args.book}: {needed} does not exist; run the command from the repository's "
                "root, or name its folder book"
            )
    return book


def image_size(text: str) -> tuple[int, int]:
    """ "384x128" -> rows and columns."""
    from paul import options

    rows, _, columns = text.partition("x")
    try:
        return options.image_size((int(rows), int(columns)))
    except ValueError:
        raise ValueError(
            f"--image-size {text}: write ROWSxCOLUMNS, such as 384x128, each at most {options.LARGEST_SIDE}"
        ) from None


def describing(command) -> None:
    """Options of commands that describe images by a trained network."""
    command.add_argument("--init", required=True, metavar="CHECKPOINT", help="the network: model.pt of 'paul adapt'")
    command.add_argument("--image-size", metavar="ROWSxCOLUMNS", help="where the checkpoint does not say it")
    command.add_argument("--batch", type=whole_number(1), default=64, help="images per pass")
    command.add_argument("--device", help="cpu, cuda, cuda:1; a GPU when there is one")


def extractor_of(args):
    """The `Extractor` that the options of `describing` ask for."""
    from paul.retrieval.extractor import Extractor

    size = image_size(args.image_size) if args.image_size else None
    return Extractor(args.init, image_size=size, device=args.device, batch=args.batch)

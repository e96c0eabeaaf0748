"""`paul adapt`: adapt a source model to unlabelled images of a target set."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from paul.commands._shared import (
    check_settings,
    common,
    described,
    initial_model,
    network_size,
    overridden,
    starting,
    training,
    training_images,
    use_cores,
)

HELP = "adapt a source model to unlabelled images of a target set"


def options(command) -> None:
    """Of the command line."""
    common(command, None)
    training(command, default_out="models/NAME, with the name of the data's folder; models/NAME-adabn with --adabn")
    starting(command)
    command.add_argument(
        "--data",
        help="folder with index.csv, such as data/mine; ids in it are not read; the profile's target by default",
    )
    command.add_argument(
        "--target",
        help="whose options to use: market or duke; by default the profile's general ones with --data, market without",
    )
    command.add_argument(
        "--adabn", action="store_true", help="only set batch-norm statistics: the control, tried first"
    )


def run(args) -> None:
    from paul import checkpoint
    from paul.adapt import adapt
    from paul.data.passes import refresh_statistics
    from paul.engine import distributed
    from paul.engine.device import pick_device

    model, before = initial_model(args)
    p, size = network_size(args, model)
    use_cores(args.device, model.options.backbone)
    check_settings(args.set, ("adapt",))
    target = args.target or (None if args.data else "market")
    if target not in (None, *p.targets):
        raise ValueError(f"--target {target}: profile {p.name} has {', '.join(p.targets)}")
    options = overridden(p.adapt_options(target) if target else p.adapt, "adapt", args.set)
    folder = args.data or f"data/{p.folders[target]}"
    out = Path(args.out or Path("models", Path(folder).resolve().name + ("-adabn" if args.adabn else "")))
    split, images = training_images(folder, size, args.skip_unreadable, args.images)
    if args.adabn:
        model.to_target().to(pick_device(args.device))
        refresh_statistics(model, images)
        model.image_size, made = size, "batch-norm statistics of the target"
    else:
        model, history = adapt(
            model,
            images,
            options,
            folder=out,
            seed=args.seed,
            device=args.device,
            tensorboard=args.tensorboard,
            low_memory=args.low_memory,
            compile=args.compile,
        )
        made = f"{options.epochs} epochs, last loss {history[-1]['loss']:.3f}"
    distributed.leave()
    if int(os.environ.get("RANK", "0")):  # under torchrun the main process writes
        return
    spec = {
        "stage": "target",
        "data": described(folder, len(split)),
        "seed": args.seed,
        "options": "batch-norm statistics only" if args.adabn else asdict(options),
        "from": json.loads(before.get("spec", "null")) or args.init or args.released,
    }
    checkpoint.save(out / "model.pt", model, spec=json.dumps(spec))
    print(f"{out}/model.pt: {made}")

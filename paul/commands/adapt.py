"""`paul adapt`: adapt a source model to unlabelled images of a target set."""

from __future__ import annotations

from pathlib import Path

from paul.commands._shared import (
    check_settings, common, initial_model, network_size, overridden, starting, training, training_images)

HELP = "adapt a source model to unlabelled images of a target set"


def options(command) -> None:
    """Of the command line."""
    common(command, None)
    training(command)
    starting(command)
    command.add_argument("--target", default="market", help="whose options to use: market or duke")
    command.add_argument("--data", help="folder with index.csv; the profile's target by default")
    command.add_argument("--adabn", action="store_true", help="only set batch-norm statistics (the control)")


def run(args) -> None:
    from paul import checkpoint
    from paul.adapt import adapt
    from paul.device import pick_device
    from paul.features import refresh_statistics

    model, _ = initial_model(args)
    p, size = network_size(args, model)
    check_settings(args.set, ("adapt",))
    if args.target not in p.targets:
        raise ValueError(f"--target {args.target}: profile {p.name} has {', '.join(p.targets)}")
    options = overridden(p.adapt_options(args.target), "adapt", args.set)
    split, images = training_images(args.data or f"data/{p.folders[args.target]}", size, args.skip_unreadable)
    if args.adabn:
        model.to_target().to(pick_device(args.device))
        refresh_statistics(model, images)
        model.image_size = size
    else:
        model = adapt(model, images, options, folder=args.out, seed=args.seed, device=args.device,
                      tensorboard=args.tensorboard)
    checkpoint.save(Path(args.out) / "model.pt", model)
    print(f"{args.out}/model.pt: " + ("batch-norm statistics of the target" if args.adabn else
                                      f"{options.epochs} epochs, last loss {model.history[-1]['loss']:.3f}"))

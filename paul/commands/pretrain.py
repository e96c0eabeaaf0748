"""`paul pretrain`: train PatchNet on a labelled source set."""

from __future__ import annotations

from pathlib import Path

from paul.commands._shared import check_settings, common, overridden, training, training_images, use_cores

HELP = "train PatchNet on a labelled source set"


def options(command) -> None:
    """Of the command line."""
    common(command)
    training(command)
    command.add_argument("--data", help="folder with index.csv; the profile's source by default")
    command.add_argument("--weights", help="'imagenet' or a weight file for the backbone")


def run(args) -> None:
    from paul.backbones import build_backbone
    from paul.experiments.profiles import profile
    from paul.pretrain import pretrain

    p = profile(args.profile)
    check_settings(args.set, ("network", "pretrain"))
    network, options = overridden(p.network, "network", args.set), overridden(p.pretrain, "pretrain", args.set)
    use_cores(args.device, network.backbone)
    weights, folder = args.weights or p.weights, args.data or f"data/{p.folders['source']}"
    if weights and not Path(args.out, "checkpoint.pt").is_file():
        build_backbone(network.backbone, weights)  # found, fetched and checked before hours go into images
    split, images = training_images(folder, p.image_size, args.skip_unreadable, args.images)
    if (split.person_ids < 1).any():
        raise ValueError(
            f"--data {folder}: the source stage needs labelled people, and {(split.person_ids < 1).sum()} "
            "training images have none (person_id below 1)"
        )
    _, history = pretrain(
        images,
        split.person_ids,
        network,
        options,
        folder=args.out,
        seed=args.seed,
        weights=weights,
        device=args.device,
        tensorboard=args.tensorboard,
        low_memory=args.low_memory,
        compile=args.compile,
    )
    print(f"{args.out}/checkpoint.pt: {options.epochs} epochs, last loss {history[-1]['loss']:.3f}")

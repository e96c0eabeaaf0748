"""`paul pretrain`: train PatchNet on a labelled source set."""

from __future__ import annotations

from paul.commands._shared import check_settings, common, overridden, training, training_images, use_cores

HELP = "train PatchNet on a labelled source set"


def options(command) -> None:
    """Of the command line."""
    common(command)
    training(command)
    command.add_argument("--data", help="folder with index.csv; the profile's source by default")
    command.add_argument("--weights", help="'imagenet' or a weight file for the backbone")


def run(args) -> None:
    from paul.pretrain import pretrain
    from paul.profiles import profile

    p = profile(args.profile)
    check_settings(args.set, ("network", "pretrain"))
    network, options = overridden(p.network, "network", args.set), overridden(p.pretrain, "pretrain", args.set)
    use_cores(args.device, network.backbone)
    split, images = training_images(args.data or f"data/{p.folders['source']}", p.image_size, args.skip_unreadable,
                                    args.images)
    if (split.person_ids < 1).any():
        raise ValueError(f"--data {args.data}: the source stage needs labelled people, and {(split.person_ids < 1).sum()} "
                         "training images have none (person_id below 1)")
    model = pretrain(images, split.person_ids, network, options, folder=args.out, seed=args.seed,
                     weights=args.weights or p.weights, device=args.device, tensorboard=args.tensorboard, low_memory=args.low_memory,
                     compile=args.compile)
    print(f"{args.out}/checkpoint.pt: {options.epochs} epochs, last loss {model.history[-1]['loss']:.3f}")

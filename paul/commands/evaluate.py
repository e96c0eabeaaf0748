"""`paul evaluate`: CMC, both mAPs and mINP on a set's query and gallery."""

from __future__ import annotations

from paul.commands._shared import common, initial_model, network_size, starting

HELP = "CMC, both mAPs and mINP on a set's query and gallery"


def options(command) -> None:
    """Of the command line."""
    common(command, None)
    starting(command)
    command.add_argument("--data", required=True, help="folder with index.csv")
    command.add_argument("--splits", default="query,gallery", help="query,gallery or val_query,val_gallery")


def run(args) -> None:
    from paul.engine.device import pick_device
    from paul.experiments.runner import evaluate_model

    model, _ = initial_model(args)
    model.to(pick_device(args.device)).eval()
    _, size = network_size(args, model)
    splits = args.splits.split(",")
    if len(splits) != 2:
        raise ValueError(f"--splits {args.splits}: name two, such as query,gallery")
    scores = evaluate_model(model, args.data, size, *splits)
    for name, value in scores.percent().items():
        note = {"map_trapezoid": "  (area under the curve, the paper's)", "map_step": "  (step, most frameworks')"}
        print(f"{name:14} {value:6.2f} %{note.get(name, '')}")
    print(f"{scores.queries} queries; {scores.left_out} left out: no image of theirs from another camera")

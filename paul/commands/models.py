"""`paul models`: which trained networks a folder holds."""

from __future__ import annotations

HELP = "say which trained networks a folder holds: stage, rows, seed, data, profile"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("--models", default="build/models", help="folder of the checkpoints of 'paul run' or the book")


def run(args) -> None:
    from paul.experiments.models import models_in

    found = models_in(args.models)
    if not found:
        raise FileNotFoundError(f"--models {args.models}: no trained networks below it; 'paul run' puts its own there")
    for model in found:
        print(f"{model.file}\n    {model}")

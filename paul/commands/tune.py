"""`paul tune`: choose the target stage's options on validation people."""

from __future__ import annotations

from paul.commands._shared import common, study

HELP = "choose the target stage's options on validation people"


def options(command) -> None:
    """Of the command line."""
    common(command)
    study(command)


def run(args) -> None:
    from paul.experiments.specs import Places
    from paul.experiments.tuning import tune

    found = tune(args.profile, Places(args.data, args.results, args.models, args.device), args.workers)
    for line in found["trials"]:
        print(f"{line['option']:8} {line['value']:<8} {line['score']:.2f}")
    print("chosen:", found["chosen"])

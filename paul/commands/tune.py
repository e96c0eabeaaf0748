"""`paul tune`: choose every arm's options on validation people, with one budget."""

from __future__ import annotations

from paul.commands._shared import common, study

HELP = "choose every arm's options on validation people, with as many trials for each"


def options(command) -> None:
    """Of the command line."""
    common(command)
    study(command)


def run(args) -> None:
    from paul.experiments.specs import Places
    from paul.experiments.tuning import lines, tune

    found = tune(args.profile, Places(args.data, args.results, args.models, args.device), args.workers)
    for line in lines(found):
        print(
            f"{line['arm']}: {line['chosen']} ({line['best']:.2f}, the worst of {line['trials']} {line['worst']:.2f})"
        )
    for arm, of in found["arms"].items():
        for name in of["on_edge"]:
            after = f"still on the edge after {len(of['trials'])} trials; widen it in tuning.py"
            print(f"{arm}: {name} {of['chosen'][name]:g} is {after}")

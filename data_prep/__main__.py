"""Command line: `python -m data_prep synthetic --profile mini --out data`; `--help` lists the rest."""

import argparse
import os
import sys
from pathlib import Path

from data_prep.market_layout import DataError


def _synthetic(options):
    from data_prep.synthetic import prepare

    states = prepare(options.out, options.profile, options.seed, options.workers, options.sets, options.overwrite)
    for name, state in states.items():
        print(f"{Path(options.out) / options.profile / name}: {state}")


def _contact(options):
    from data_prep.contact import contact_sheet

    contact_sheet(options.data, options.people, options.views).save(options.out)
    print(options.out)


def _bench(options):
    from data_prep.bench import images_per_second

    for size in ((128, 64), (256, 128)):
        print(f"{size[0]}x{size[1]}: {images_per_second(size, options.images):.0f} images/s on one core, without JPEG")


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value


def _seed(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: a seed is 0 or more")
    return value


def build_parser():
    """The command line; every kind of data is one subcommand."""
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    synthetic = commands.add_parser("synthetic", help="render the embedded source and targets")
    synthetic.add_argument("--profile", choices=("smoke", "mini", "gpu"), default="mini")
    synthetic.add_argument("--out", default="data", help="folder that gets <profile>/<set> (default: data)")
    synthetic.add_argument("--seed", type=_seed, default=0)
    synthetic.add_argument("--workers", type=_positive, default=min(len(os.sched_getaffinity(0)), 16)
                           if hasattr(os, "sched_getaffinity") else os.cpu_count(), help="processes")
    synthetic.add_argument("--sets", nargs="+", choices=("source", "market", "duke"), help="only these (default: all)")
    synthetic.add_argument("--overwrite", action="store_true", help="replace sets that differ")
    synthetic.set_defaults(run=_synthetic)

    contact = commands.add_parser("contact", help="draw people by cameras, for looking at")
    contact.add_argument("--data", default="data/mini", help="folder that holds the sets")
    contact.add_argument("--out", default="contact.png")
    contact.add_argument("--people", type=_positive, default=8, help="people per set")
    contact.add_argument("--views", type=_positive, default=4, help="images per person")
    contact.set_defaults(run=_contact)

    bench = commands.add_parser("bench", help="measure the renderer on one core")
    bench.add_argument("--images", type=_positive, default=640)
    bench.set_defaults(run=_bench)
    return parser


def main(arguments=None):
    """Run one command; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: complete sets were kept; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

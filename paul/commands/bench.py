"""`paul bench`: time the core against literal versions; reads its own options."""

from __future__ import annotations

import argparse

HELP = "time the core against literal versions"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("rest", nargs=argparse.REMAINDER)


def run(args) -> int:
    from paul import bench

    return bench.main(args.rest)

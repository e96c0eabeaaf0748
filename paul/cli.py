"""The command line: paul COMMAND, one file of `paul.commands` each."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from importlib import import_module

from paul import __version__

COMMANDS = (
    "pretrain",
    "adapt",
    "evaluate",
    "run",
    "register",
    "report",
    "tune",
    "bench",
    "embed",
    "rank",
    "export",
    "models",
)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="paul", description="Patch-based unsupervised person re-identification.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        module = import_module(f"paul.commands.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.options(command)
        command.set_defaults(function=module.run)
    return top


# how the library's arguments are called on the command line
FLAGS = {
    "low_memory=True": "--low-memory",
    "skip_unreadable=True": "--skip-unreadable",
    "fresh=True": "--fresh",
    "other_cameras=True": "--other-cameras",
    "image_size=(rows, columns)": "--image-size ROWSxCOLUMNS",
    "weights=FILE": "--weights FILE",
    "take fewer workers": "lower --workers",
    "workers=1": "--workers 1",
}


def in_flags(text: str) -> str:
    """A message of the library in the words of the command line, on one line."""
    for argument, flag in FLAGS.items():
        text = text.replace(argument, flag)
    return " ".join(re.sub(r"\bdevice='([^']*)'", r"--device \1", text).split())


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it went well, 1 with a one-line message when not, 128 and the signal's number when
    interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["bench"]:  # bench reads its own options
        return import_module("paul.bench").main(argv[1:]) or 0
    args = parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(
                f"paul {args.command}: {in_flags(str(message))}", file=sys.stderr
            )
            return args.function(args) or 0
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"paul {args.command}: {in_flags(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"paul {args.command}: interrupted; the same command goes on where it was", file=sys.stderr)
        return getattr(stopped, "exit_code", 130)

"""`paul report`: write results/tables and claims.json from the run records."""

from __future__ import annotations

import sys
from pathlib import Path

from paul.commands._shared import book_of, judging

HELP = "write results/tables and claims.json from the run records"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("--profile", help="one profile; all that have runs by default")
    command.add_argument("--results", default="results")
    command.add_argument("--data", default="data", help="runs on other sets than those there are marked as outdated")
    command.add_argument(
        "--seal", action="store_true", help="write the records' hashes to runs.sha256, which every report compares"
    )
    judging(command)


def run(args) -> None:
    from paul.experiments.records import made_with, read_records
    from paul.report.claims import write_claims
    from paul.report.seal import differences, seal
    from paul.report.tables import write_tables

    book = book_of(args)
    for line in differences(args.results, args.profile):
        print(line, file=sys.stderr)
    profiles = [args.profile] if args.profile else [f.name for f in sorted((Path(args.results) / "runs").glob("*"))]
    for name in profiles:
        for path in write_tables(args.results, name, book / "paper", args.data):
            print(path)
        note = made_with(read_records(args.results, name))
        if note:
            print(f"profile {name}: {note}", file=sys.stderr)
    verdicts = write_claims(args.results, book / "claims.toml", book / "paper", args.data)
    for name, judged in verdicts.items():
        print(f"{name}: " + ", ".join(f"{v['id']} {v['verdict']}" for v in judged))
    if args.seal:
        print(seal(args.results))

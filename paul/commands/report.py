"""`paul report`: write results/tables and claims.json from the run records."""

from __future__ import annotations

from pathlib import Path

HELP = "write results/tables and claims.json from the run records"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("--profile", help="one profile; all that have runs by default")
    command.add_argument("--results", default="results")


def run(args) -> None:
    from paul.claims import write_claims
    from paul.tables import write_tables

    profiles = [args.profile] if args.profile else [f.name for f in sorted((Path(args.results) / "runs").glob("*"))]
    for name in profiles:
        for path in write_tables(args.results, name):
            print(path)
    verdicts = write_claims(args.results)
    for name, judged in verdicts.items():
        print(f"{name}: " + ", ".join(f"{v['id']} {v['verdict']}" for v in judged))

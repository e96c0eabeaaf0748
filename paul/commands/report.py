"""`paul report`: write results/tables and claims.json from the run records."""

from __future__ import annotations

import sys
from pathlib import Path

from paul.commands._shared import book_of, judging

HELP = "write results/tables and claims.json from the run records"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("--profile", help="one profile, mini-w3 for its world 3; all that have runs by default")
    command.add_argument("--results", default="results")
    command.add_argument("--data", default="data", help="runs on other sets than those there are marked as outdated")
    command.add_argument(
        "--seal", action="store_true", help="write the records' hashes to runs.sha256, which every report compares"
    )
    judging(command)


def run(args) -> None:
    write(args.results, book_of(args), args.data, [args.profile] if args.profile else None)
    if args.seal:
        from paul.report.seal import seal

        print(seal(args.results))


def write(results: str, book: Path, data: str, profiles: list[str] | None) -> None:
    """Tables and verdicts of these profiles (mini-w3: of a world), or of all, then with one table for all worlds but
    world 0 of a profile and none for people drawn with other knobs; what is odd about the records goes to stderr.

    Raises:
        FileNotFoundError: there are no records.
        ValueError: an unknown profile.
    """
    from paul.data.worlds import world_of
    from paul.experiments.profiles import profile_in
    from paul.experiments.records import made_with, read_records, recorded_profiles
    from paul.report.claims import write_claims
    from paul.report.seal import differences
    from paul.report.tables import write_tables
    from paul.report.worlds import runs_of_worlds

    names = profiles or recorded_profiles(results)
    found = {name: read_records(results, name) for name in names}
    for line in [line for name in profiles or [None] for line in differences(results, name)]:
        print(line, file=sys.stderr)
    if not any(found.values()):
        raise FileNotFoundError(
            f"--results {results}: there are no run records below {Path(results, 'runs', *(profiles or [])[:1])}; "
            "'paul run' makes them"
        )
    fresh = {profile_in(name) for name in names if world_of(name)[1] and not profiles}
    for name, records in found.items():
        if profiles or profile_in(name) == name:
            for path in write_tables(results, name, book / "paper", data):
                print(path)
        note = made_with(records)
        if note:
            print(f"profile {name}: {note}", file=sys.stderr)
    for own in sorted(fresh):
        runs = runs_of_worlds(results, own, data)
        for path in write_tables(results, f"{own}-worlds", book / "paper", runs=runs[runs["world"] > 0]):
            print(path)
    verdicts = write_claims(results, book / "claims.toml", book / "paper", data)
    for name, judged in verdicts.items():
        print(f"{name}: " + ", ".join(f"{v['id']} {v['verdict']}" for v in judged))

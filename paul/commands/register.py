"""`paul register`: fix contrasts, worlds and power before any run on a fresh world, and hold the runs against it."""

from __future__ import annotations

from paul.commands._shared import book_of, judging

HELP = "show what is, or would be, registered for fresh worlds, write it, or check the runs against it"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("--profile", default="mini", help="whose runs are to be judged")
    command.add_argument("--worlds", type=int, default=8, metavar="N", help="worlds 1 to N, one number each")
    command.add_argument("--results", default="results")
    what = command.add_mutually_exclusive_group()
    what.add_argument(
        "--write", action="store_true", help="write preregistration.toml beside the claims, to be committed"
    )
    what.add_argument(
        "--check",
        action="store_true",
        help="name every record of a registered world that was not made as registered, by a later commit",
    )
    judging(command)


def run(args) -> int:
    from paul.experiments.profiles import profile
    from paul.report.claims import load_claims
    from paul.report.precedence import faults, renderer_of
    from paul.report.registration import FILE, load_registration, register, registration_text, write_registration
    from paul.report.worlds import runs_of_worlds

    book = book_of(args, needs=["claims.toml"])
    claims, path = load_claims(book / "claims.toml"), book / FILE
    if args.check:
        if load_registration(path) is None:
            raise FileNotFoundError(f"{path} does not exist: nothing is registered")
        lines = faults(args.results, path, claims)
        print("\n".join(lines) or f"every record of a registered world was made as {path} says, by a later commit")
        return 1 if lines else 0
    registered = load_registration(path)
    if registered and not args.write:
        print(path.read_text(encoding="utf-8"), end="")
        return 0
    runs = runs_of_worlds(args.results, profile(args.profile).name)
    registration = register(claims, runs[~runs["stale"]], args.profile, args.worlds, renderer_of(book))
    if args.write:
        write_registration(path, registration)
        print(f"{path}: commit it before any of its worlds is rendered or run")
    else:
        print(registration_text(registration), end="")
    return 0

"""`paul run`: run what is missing of the paper's tables, then write tables and claims."""

from __future__ import annotations

from paul.commands._shared import common, study
from paul.commands.report import run as report

HELP = "run what is missing of the paper's tables, then write tables and claims"


def options(command) -> None:
    """Of the command line."""
    command.add_argument("tables", nargs="+", help="table1 table2 table3 table4")
    common(command)
    study(command)
    command.add_argument("--seeds", default="0-2", help="source seeds: 0-2 or 0,3")
    command.add_argument("--targets", help="market,duke; all by default")
    command.add_argument("--rows", help="some rows only, e.g. patch_direct,paul")
    command.add_argument("--fresh", action="store_true", help="compute again what other code or data left behind")
    command.add_argument("--weights", metavar="FILE",
                         help="weight file of the backbone; by default torchvision downloads what the profile wants")
    command.add_argument("--plan", action="store_true", help="list what would be computed, and stop")


def run(args) -> None:
    from paul.experiments import needs_computing, run_table
    from paul.plan import plan
    from paul.profiles import profile
    from paul.rows import Places, seeds_of, specs_of

    targets = args.targets.split(",") if args.targets else None
    rows = args.rows.split(",") if args.rows else None
    places = Places(args.data, args.results, args.models, args.device, args.weights)
    specs = [s for table in args.tables for s in specs_of(table, args.profile, seeds_of(args.seeds), targets, rows,
                                                       args.weights)]
    todo = [spec for spec in dict.fromkeys(specs) if needs_computing(spec, places, args.fresh)]
    print(f"profile {profile(args.profile).name}: {len(set(specs))} runs, {len(todo)} to compute")
    if todo:
        planned = plan(todo, places)
        print("\n".join(f"  {line}" for line in planned.lines()))
        if not args.plan:
            planned.refuse_missing(args.data)
    if args.plan:
        print("\n".join(spec.name for spec in todo))
        return
    for table in args.tables:
        run_table(table, args.profile, args.seeds, targets, args.data, args.results, args.models, args.workers, rows,
                  args.device, args.fresh, args.weights)
    report(args)

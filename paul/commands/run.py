"""`paul run`: run what is missing of the paper's tables here or on a cluster, then write tables and claims."""

from __future__ import annotations

import shlex
from pathlib import Path

from paul.commands._shared import book_of, common, judging, study, whole_number
from paul.commands.report import write

HELP = "run what is missing of the paper's tables, then write tables and claims"


def options(command) -> None:
    """Of the command line."""
    command.add_argument(
        "tables",
        nargs="+",
        help="table1 table2 table3 table4; of variants figure5 ledger alike longer when; or 'registered' alone: all "
        "that the registration of the claims waits for, whatever --profile, --seeds, --targets and --rows say",
    )
    common(command)
    study(command)
    judging(command)
    command.add_argument("--seeds", default="0-2", help="source seeds: 0-2 or 0,3; 100 at most")
    command.add_argument(
        "--adapt-seeds", help="seeds of the adaptations from each source model: 0-1; by default the source's own"
    )
    command.add_argument(
        "--worlds",
        help="whose people, by number: 0 (development, the default), 1-3; with 'registered', all of them by default",
    )
    command.add_argument("--targets", help="market,duke; all by default")
    command.add_argument("--rows", help="some rows only, e.g. patch_direct,paul")
    command.add_argument("--fresh", action="store_true", help="compute again what other code or data left behind")
    command.add_argument(
        "--weights",
        metavar="FILE",
        help="weight file of the backbone; by default torchvision downloads what the profile wants",
    )
    command.add_argument("--plan", action="store_true", help="list what would be computed, and stop")
    cluster = command.add_argument_group("on a cluster, whose machines see the folders under the same names")
    cluster.add_argument(
        "--executor",
        default="local",
        choices=("local", "dask", "slurm"),
        help="processes on this machine; workers of --scheduler; or job arrays to submit",
    )
    cluster.add_argument("--scheduler", help="address of a Dask scheduler, such as tcp://10.0.0.1:8786")
    cluster.add_argument("--scripts", default="build/slurm", help="folder for the Slurm scripts and their logs")
    cluster.add_argument(
        "--sbatch",
        default="",
        metavar="OPTIONS",
        help="more options for Slurm, as one word: --sbatch='--time=4:00:00 --gres=gpu:1'",
    )
    cluster.add_argument(
        "--task", type=whole_number(0), metavar="I", help="compute run I of all that the command names, and stop"
    )
    cluster.add_argument("--source-only", action="store_true", help="with --task: only the source model of that run")


def run(args) -> None:
    from paul.data.worlds import population
    from paul.experiments.plan import plan
    from paul.experiments.runner import needs_computing, run_all, workers_for
    from paul.experiments.specs import Places, seeds_of, specs_of

    targets = args.targets.split(",") if args.targets else None
    rows = args.rows.split(",") if args.rows else None
    places = Places(args.data, args.results, args.models, args.device, args.weights)
    seeds, worlds = seeds_of(args.seeds), seeds_of(args.worlds or "0", "worlds")
    adapt_seeds = seeds_of(args.adapt_seeds, "adapt-seeds") if args.adapt_seeds else None
    if args.tables == ["registered"]:
        specs = _registered(args, worlds if args.worlds else None)
    else:
        specs = list(
            dict.fromkeys(
                spec
                for table in args.tables
                for spec in specs_of(table, args.profile, seeds, targets, rows, args.weights, adapt_seeds, worlds)
            )
        )
    if args.task is not None:
        return _task(args, specs, places)
    todo = [spec for spec in specs if needs_computing(spec, places, args.fresh)]
    names = list(dict.fromkeys(spec.profile for spec in specs))
    print(f"profile {', '.join(names)}: {len(specs)} runs, {len(todo)} to compute")
    if todo:
        planned = plan(todo, places)
        print("\n".join(f"  {line}" for line in planned.lines()))
        if not args.plan:
            planned.refuse_missing(args.data)
            planned.fetch_weights(places)
            if args.executor != "slurm":
                book_of(args)  # before hours go into runs
    if args.plan:
        print("\n".join(spec.name for spec in todo))
        return None
    if args.executor == "slurm" and todo:
        return _slurm(args, specs, todo, places)
    if args.executor == "dask":
        from paul.experiments.schedulers import dask_executor

        if not args.scheduler:
            raise ValueError("--executor dask needs --scheduler ADDRESS; 'dask scheduler' prints it")
        executor = dask_executor(args.scheduler)
    else:
        executor = workers_for(todo, args.workers, args.device)
    with executor as running:
        run_all(specs, running, places, args.fresh)
    chosen = None if args.tables == ["registered"] else [population(args.profile, world) for world in worlds]
    return write(args.results, book_of(args), args.data, chosen)


def _registered(args, worlds: list[int] | None) -> list:
    """The runs of the registration beside the claims, on all of its worlds or on some."""
    from paul.report.registration import FILE, load_registration, registered_specs

    path = book_of(args) / FILE
    registration = load_registration(path)
    if registration is None:
        raise FileNotFoundError(f"{path} does not exist: nothing is registered; 'paul register --write' does that")
    for world in worlds or ():
        if world not in registration.worlds:
            raise ValueError(f"--worlds {args.worlds}: world {world} is not registered in {path}")
    return [spec for spec in registered_specs(registration) if worlds is None or spec.world in worlds]


def _task(args, specs, places) -> None:
    """One run of the list; no tables, since other tasks write records at the same time."""
    from paul.experiments.runner import run_one, source_model

    if not 0 <= args.task < len(specs):
        raise ValueError(f"--task {args.task}: this command names runs 0 to {len(specs) - 1}")
    spec = specs[args.task]
    if args.source_only:
        source_model(spec, places)
    else:
        run_one(spec, places, args.fresh)
        print(places.record(spec))


def _slurm(args, specs, todo, places) -> None:
    """Write the scripts; print what to type."""
    from paul.experiments.schedulers import slurm_scripts

    places = places.absolute()
    words = [
        "run",
        *args.tables,
        "--profile",
        args.profile,
        "--seeds",
        args.seeds,
        "--data",
        places.data,
        "--results",
        places.results,
        "--models",
        places.models,
    ]
    for name in ("worlds", "adapt_seeds", "targets", "rows", "device", "weights"):
        value = getattr(places if name == "weights" else args, name)
        words += [f"--{name.replace('_', '-')}", value] if value else []
    words += ["--fresh"] if args.fresh else []
    print("\n".join(slurm_scripts(specs, todo, words, args.scripts, shlex.split(args.sbatch))))
    book = shlex.quote(str(Path(args.book).absolute()))
    print(f"paul report --results {shlex.quote(places.results)} --book {book}  # when all have ended")

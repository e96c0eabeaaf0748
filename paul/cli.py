"""The command line: paul pretrain | adapt | evaluate | run | report | tune | bench."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import typing
import warnings
from pathlib import Path

from paul import __version__


def _as(hint, value):
    """The value as the type that a dataclass states, numbers widened.

    Raises:
        TypeError: it is not of that type.
    """
    kinds = [hint] if typing.get_origin(hint) in (None, tuple) else typing.get_args(hint)
    for kind in kinds:
        if typing.get_origin(kind) is tuple and isinstance(value, list) and len(value) == len(typing.get_args(kind)):
            return tuple(map(_as, typing.get_args(kind), value))
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is kind:  # not isinstance: True is no number here
            return value
    raise TypeError(" or ".join(getattr(kind, "__name__", str(kind)).replace("NoneType", "null") for kind in kinds))


def _overridden(options, prefix: str, settings: list[str]):
    """The dataclass with every --set prefix.key=value applied."""
    known = typing.get_type_hints(type(options))
    changes = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        part, _, key = name.partition(".")
        if part != prefix:
            continue
        if not equals or key not in known:
            raise ValueError(f"--set {setting}: write --set {prefix}.KEY=VALUE with KEY one of "
                             f"{', '.join(sorted(known))}")
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            pass  # a word
        try:
            changes[key] = _as(known[key], value)
        except TypeError as wanted:
            raise ValueError(f"--set {setting}: {key} must be {wanted}") from None
    try:
        return dataclasses.replace(options, **changes)
    except ValueError as error:
        raise ValueError(f"--set {prefix}: {error}") from error


def _check_settings(settings: list[str], prefixes: tuple[str, ...]) -> None:
    for setting in settings:
        if setting.partition(".")[0] not in prefixes:
            raise ValueError(f"--set {setting}: options of this command begin with {' or '.join(prefixes)}")


def _training_images(folder: str, size, skip: bool):
    from paul.datasets import ReidDataset
    from paul.images import load_images, readable

    split = ReidDataset.load(folder).split("train")
    if skip:
        split = readable(split, report=lambda line: print(line, file=sys.stderr))
    return split, load_images(split, size, progress=True)


def pretrain_command(args) -> None:
    from paul.pretrain import pretrain
    from paul.profiles import profile

    p = profile(args.profile)
    _check_settings(args.set, ("network", "pretrain"))
    network, options = _overridden(p.network, "network", args.set), _overridden(p.pretrain, "pretrain", args.set)
    split, images = _training_images(args.data or f"data/{p.folders['source']}", p.image_size, args.skip_unreadable)
    if (split.person_ids < 1).any():
        raise ValueError(f"--data {args.data}: the source stage needs labelled people, and {(split.person_ids < 1).sum()} "
                         "training images have none (person_id below 1)")
    model = pretrain(images, split.person_ids, network, options, folder=args.out, seed=args.seed,
                     weights=args.weights or p.weights, device=args.device, tensorboard=args.tensorboard)
    print(f"{args.out}/checkpoint.pt: {options.epochs} epochs, last loss {model.history[-1]['loss']:.3f}")


def adapt_command(args) -> None:
    from paul import checkpoint
    from paul.adapt import adapt
    from paul.engine import pick_device, refresh_statistics
    from paul.profiles import profile

    p = profile(args.profile)
    _check_settings(args.set, ("adapt",))
    if args.target not in p.targets:
        raise ValueError(f"--target {args.target}: profile {p.name} has {', '.join(p.targets)}")
    options = _overridden(p.adapt_options(args.target), "adapt", args.set)
    split, images = _training_images(args.data or f"data/{p.folders[args.target]}", p.image_size, args.skip_unreadable)
    model, _ = _initial_model(args)
    if args.adabn:
        model.to_target().to(pick_device(args.device))
        refresh_statistics(model, images)
    else:
        model = adapt(model, images, options, folder=args.out, seed=args.seed, device=args.device,
                      tensorboard=args.tensorboard)
    checkpoint.save(Path(args.out) / "model.pt", model)
    print(f"{args.out}/model.pt: " + ("batch-norm statistics of the target" if args.adabn else
                                      f"{options.epochs} epochs, last loss {model.history[-1]['loss']:.3f}"))


def _initial_model(args):
    from paul import checkpoint

    if bool(args.init) == bool(args.released):
        raise ValueError("give either --init CHECKPOINT or --released FILE")
    return checkpoint.load(args.init) if args.init else (checkpoint.import_released(args.released), {})


def evaluate_command(args) -> None:
    from paul.engine import pick_device
    from paul.experiments import evaluate_model
    from paul.profiles import profile

    model, _ = _initial_model(args)
    model.to(pick_device(args.device)).eval()
    p = profile(args.profile)
    splits = args.splits.split(",")
    if len(splits) != 2:
        raise ValueError(f"--splits {args.splits}: name two, such as query,gallery")
    scores = evaluate_model(model, args.data, p.image_size, *splits)
    for name, value in scores.percent().items():
        note = {"map_trapezoid": "  (area under the curve, the paper's)", "map_step": "  (step, most frameworks')"}
        print(f"{name:14} {value:6.2f} %{note.get(name, '')}")
    print(f"{scores.queries} queries; {scores.left_out} left out: no image of theirs from another camera")


def run_command(args) -> None:
    from paul.experiments import Places, needs_computing, run_table, seeds_of, specs_of
    from paul.profiles import profile

    targets = args.targets.split(",") if args.targets else None
    rows = args.rows.split(",") if args.rows else None
    places = Places(args.data, args.results, args.models, args.device)
    specs = [s for table in args.tables for s in specs_of(table, args.profile, seeds_of(args.seeds), targets, rows)]
    todo = [spec for spec in dict.fromkeys(specs) if needs_computing(spec, places, args.fresh)]
    print(f"profile {profile(args.profile).name}: {len(set(specs))} runs, {len(todo)} to compute")
    if args.plan:
        print("\n".join(spec.name for spec in todo))
        return
    for table in args.tables:
        run_table(table, args.profile, args.seeds, targets, args.data, args.results, args.models, args.workers, rows,
                  args.device, args.fresh)
    report_command(args)


def report_command(args) -> None:
    from paul.claims import write_claims
    from paul.tables import write_tables

    profiles = [args.profile] if args.profile else [f.name for f in sorted((Path(args.results) / "runs").glob("*"))]
    for name in profiles:
        for path in write_tables(args.results, name):
            print(path)
    verdicts = write_claims(args.results)
    for name, judged in verdicts.items():
        print(f"{name}: " + ", ".join(f"{v['id']} {v['verdict']}" for v in judged))


def tune_command(args) -> None:
    from paul.experiments import Places
    from paul.tuning import tune

    found = tune(args.profile, Places(args.data, args.results, args.models, args.device), args.workers)
    for line in found["trials"]:
        print(f"{line['option']:8} {line['value']:<8} {line['score']:.2f}")
    print("chosen:", found["chosen"])


def bench_command(args) -> int:
    from paul import bench

    return bench.main(args.rest)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="paul", description="Patch-based unsupervised person re-identification.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True)

    def add(name, function, text):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        return command

    def training(command):
        command.add_argument("--out", required=True, help="folder for checkpoint and log; the same command resumes")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--set", action="append", default=[], metavar="PART.KEY=VALUE",
                             help="change one option of the profile, e.g. adapt.s=10; may be repeated")
        command.add_argument("--skip-unreadable", action="store_true", help="leave out images that cannot be decoded")
        command.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")

    def common(command, profile="mini"):
        command.add_argument("--profile", default=profile, help="smoke, mini, gpu or paper")
        command.add_argument("--device", help="cpu, cuda, cuda:1; a GPU when there is one")

    def starting(command):
        command.add_argument("--init", help="checkpoint to start from")
        command.add_argument("--released", help="checkpoint of the authors' code to start from")

    command = add("pretrain", pretrain_command, "train PatchNet on a labelled source set")
    common(command)
    training(command)
    command.add_argument("--data", help="folder with index.csv; the profile's source by default")
    command.add_argument("--weights", help="'imagenet' or a weight file for the backbone")

    command = add("adapt", adapt_command, "adapt a source model to unlabelled images of a target set")
    common(command)
    training(command)
    starting(command)
    command.add_argument("--target", default="market", help="whose options to use: market or duke")
    command.add_argument("--data", help="folder with index.csv; the profile's target by default")
    command.add_argument("--adabn", action="store_true", help="only set batch-norm statistics (the control)")

    command = add("evaluate", evaluate_command, "CMC, both mAPs and mINP on a set's query and gallery")
    common(command)
    starting(command)
    command.add_argument("--data", required=True, help="folder with index.csv")
    command.add_argument("--splits", default="query,gallery", help="query,gallery or val_query,val_gallery")

    def study(command):
        command.add_argument("--data", default="data")
        command.add_argument("--results", default="results")
        command.add_argument("--models", default="build/models", help="checkpoints")
        command.add_argument("--workers", type=int, default=2, help="processes on a CPU")

    command = add("run", run_command, "run what is missing of the paper's tables, then write tables and claims")
    command.add_argument("tables", nargs="+", help="table1 table2 table3 table4")
    common(command)
    study(command)
    command.add_argument("--seeds", default="0-2", help="source seeds: 0-2 or 0,3")
    command.add_argument("--targets", help="market,duke; all by default")
    command.add_argument("--rows", help="some rows only, e.g. patch_direct,paul")
    command.add_argument("--fresh", action="store_true", help="compute again what other code or data left behind")
    command.add_argument("--plan", action="store_true", help="list what would be computed, and stop")

    command = add("report", report_command, "write results/tables and claims.json from the run records")
    command.add_argument("--profile", help="one profile; all that have runs by default")
    command.add_argument("--results", default="results")

    command = add("tune", tune_command, "choose the target stage's options on validation people")
    common(command)
    study(command)

    command = add("bench", bench_command, "time the core against literal versions")
    command.add_argument("rest", nargs=argparse.REMAINDER)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it went well, 1 with a one-line message when not, 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["bench"]:  # bench reads its own options
        from paul import bench

        return bench.main(argv[1:]) or 0
    args = parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"paul {args.command}: {message}", file=sys.stderr)
            return args.function(args) or 0
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"paul {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"paul {args.command}: interrupted; the same command goes on from the last whole epoch", file=sys.stderr)
        return 130

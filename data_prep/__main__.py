"""Command line: `python -m data_prep synthetic --profile mini --out data`; `--help` lists the rest."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from data_prep.market_layout import DataError
from paul.engine.regular import check_regular

# a world's knobs: type of the value, what it is
KNOBS = {
    "people": (int, "training people of each set"),
    "images": (int, "images of a person by each camera that they pass"),
    "cameras": (int, "cameras of each set"),
    "gap": (float, "times the targets' distance from the source; 0: none (default: 1)"),
    "shared": (float, "share of a target's garments that the source's people wear, too (default: 0.5)"),
    "alike": (float, "share of people whom clothes alone don't tell apart (default: 0.1)"),
    "size": (int, "height and width of the images"),
}


def _synthetic(options):
    from data_prep.expected import rendering
    from data_prep.synthetic import prepare
    from data_prep.worlds import SETS, World

    knobs = {name: value for name in KNOBS if (value := getattr(options, name)) is not None}
    world = World(options.world, **knobs)
    folder = Path(options.out) / world.folder(options.profile)
    for name in options.sets or SETS:
        if options.plan or not (folder / name / "card.json").is_file():
            print(f"{folder / name}: {rendering(options.profile, name, options.workers, world)}", flush=True)
    if options.plan:
        return
    states = prepare(options.out, options.profile, world, options.workers, options.sets, options.overwrite)
    for name, state in states.items():
        print(f"{folder / name}: {state}")


def _contact(options):
    from data_prep.contact import contact_sheet

    sheet = contact_sheet(options.data, options.people, options.views)
    try:
        if Path(options.out).exists():
            check_regular(options.out)
        sheet.save(options.out)
    except (ValueError, OSError) as error:
        raise DataError(f"--out {options.out}: {error}") from error
    print(options.out)


def _statistics(options):
    from data_prep.statistics import by_camera, compare, table

    cameras = by_camera(options.folder, options.count)
    lines = compare(cameras)
    print(f"{options.folder}: people of {len(cameras)} cameras beside street photographs\n{table(lines)}")
    if options.out:
        held = {
            "folder": str(options.folder),
            "images_per_camera": options.count,
            "lines": [
                {**asdict(line), "ratio": line.ratio, "near": line.near, "inside": line.inside} for line in lines
            ],
            "cameras": cameras,
        }
        Path(options.out).write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def _bench(options):
    from data_prep.bench import images_per_second, open_long_index

    if options.index:
        seconds, cpu, peak = open_long_index(options.index)
        print(
            f"an index of {options.index:,} rows opens in {seconds:.1f} s ({cpu:.1f} s of processor time), with "
            f"{peak / 1e9:.2f} GB at the peak"
        )
        return
    for size in ((128, 64), (256, 128)):
        print(f"{size[0]}x{size[1]}: {images_per_second(size, options.images):.0f} images/s on one core, without JPEG")


def _real(options):
    from data_prep import real

    own = {key: getattr(options, key) for key in options.own}
    states = real.prepare(
        getattr(real, f"plan_{options.command}")(**own),
        options.raw,
        options.out,
        not options.copy,
        options.accept_counts,
        options.overwrite,
    )
    for name, state in states.items():
        print(f"{Path(options.out) / name}: {state}")


def _verify(options):
    from data_prep.verify import verify

    for folder in options.folders:
        card = verify(folder)
        images = sum(split["images"] for split in card["counts"].values())
        print(f"{folder}: {images:,} images as indexed, fingerprint {card['fingerprint'][:12]}")
        for line in card.get("accepted", []):
            print(f"  accepted when prepared: {line}")


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value


def _number(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: a world's number is 0 or more")
    return value


class _Pair(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(values))


def build_parser():
    """The command line; every kind of data is one subcommand."""
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    synthetic = commands.add_parser("synthetic", help="render the embedded source and targets")
    synthetic.add_argument("--profile", choices=("smoke", "mini", "gpu"), default="mini")
    synthetic.add_argument(
        "--out", default="data", help="folder that gets <profile>/<set>, or <profile>-w<world>/<set> (default: data)"
    )
    synthetic.add_argument(
        "--world", type=_number, default=0, help="0: the development world; others have people and cameras of their own"
    )
    for name, (kind, text) in KNOBS.items():
        pair = {"nargs": 2, "metavar": ("HEIGHT", "WIDTH"), "action": _Pair} if name == "size" else {}
        synthetic.add_argument(f"--{name}", type=kind, help=text, **pair)
    synthetic.add_argument(
        "--workers",
        type=_positive,
        default=min(len(os.sched_getaffinity(0)), 16) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        help="processes",
    )
    synthetic.add_argument("--sets", nargs="+", choices=("source", "market", "duke"), help="only these (default: all)")
    synthetic.add_argument("--overwrite", action="store_true", help="replace sets that differ")
    synthetic.add_argument("--plan", action="store_true", help="say what rendering will take, and stop")
    synthetic.set_defaults(run=_synthetic)

    contact = commands.add_parser("contact", help="draw people by cameras, for looking at")
    contact.add_argument("--data", default="data/mini", help="folder that holds the sets")
    contact.add_argument("--out", default="contact.png")
    contact.add_argument("--people", type=_positive, default=5, help="people per set")
    contact.add_argument("--views", type=_positive, default=4, help="images per person")
    contact.set_defaults(run=_contact)

    stats = commands.add_parser("statistics", help="compare rendered people with street photographs, in 17 figures")
    stats.add_argument("folder", metavar="DIR", help="a prepared set such as data/mini/market")
    stats.add_argument("--count", type=_positive, default=200, help="images of each camera (default: 200)")
    stats.add_argument("--out", metavar="JSON", help="write the figures here, too")
    stats.set_defaults(run=_statistics)

    bench = commands.add_parser("bench", help="measure the renderer on one core, or how a long index opens")
    bench.add_argument("--images", type=_positive, default=640)
    bench.add_argument("--index", type=_positive, metavar="ROWS", help="write an index of so many rows and open it")
    bench.set_defaults(run=_bench)
    _add_real(commands)
    verify = commands.add_parser("verify", help="check prepared sets: index against files, both against the card")
    verify.add_argument("folders", nargs="+", metavar="FOLDER", help="such as data/market1501")
    verify.set_defaults(run=_verify)
    return parser


def _add_real(commands):
    """A subcommand for each real set; `own` names its own options."""

    def add(name, text, *own):
        command = commands.add_parser(name, help=text, description=f"{text}. Nothing is downloaded.")
        command.add_argument("--raw", required=True, help="archive as downloaded (zip, tar, tar.gz) or unpacked folder")
        command.add_argument("--out", default="data", help="folder that gets the prepared set (default: data)")
        how = command.add_mutually_exclusive_group()
        how.add_argument(
            "--link",
            action="store_true",
            help="images of an unpacked folder become links, so that folder must stay (default)",
        )
        how.add_argument("--copy", action="store_true", help="copy them instead")
        command.add_argument(
            "--accept-counts", action="store_true", help="go on when files are extra or missing, without those named"
        )
        command.add_argument("--overwrite", action="store_true", help="replace what is there")
        command.set_defaults(run=_real, own=own)
        return command

    add("market1501", "Market-1501, to data/market1501")
    duke = add("dukemtmc", "DukeMTMC-reID, withdrawn in 2019: only your own copy, to data/dukemtmc", "right")
    duke.add_argument(
        "--i-have-the-right", dest="right", action="store_true", help="you hold a copy and may use it where you are"
    )
    msmt = add("msmt17", "MSMT17 V1 or V2, to data/msmt17", "train")
    msmt.add_argument(
        "--train",
        choices=("all", "train"),
        default="all",
        help="all: every image is for training, as the released code does; train: keep query and gallery",
    )
    cuhk = add("cuhk03", "CUHK03, new protocol, to data/cuhk03_detected and data/cuhk03_labelled", "boxes", "splits")
    cuhk.add_argument("--boxes", choices=("detected", "labelled", "both"), default="both")
    cuhk.add_argument(
        "--splits",
        help="split file (cuhk03_new_protocol_config_*.mat) or its folder; looked for in and beside --raw by default",
    )
    own = add("folder", "your own images, to data/<name>", "name", "table", "pattern", "split")
    own.add_argument("--name", default="mine", help="of the prepared set (default: mine)")
    own.add_argument("--csv", dest="table", help="file,split,person_id,camera_id; the ids of train may be blank")
    own.add_argument(
        "--pattern",
        default="",
        help="regular expression over paths below --raw with groups such as "
        r"(?P<person_id>\d+)_c(?P<camera_id>\d+); also split, sequence, frame",
    )
    own.add_argument("--split", default="train", help="of images whose pattern has no group split (default: train)")


def main(arguments=None):
    """Run one command; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        fault = f"{error.filename}: {error.strerror}" if error.filename else error
        print(f"error: {fault}; --out must be a folder that can be written, and what is read readable", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: complete sets were kept; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

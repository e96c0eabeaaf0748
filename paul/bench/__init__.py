"""`python -m paul bench`: how fast the core is, against literal versions and against what the device can do at most.

Six suites: `ops` (losses, memory, sampler), `step`, `epoch`, `eval`, `data`, `scale` (how cost grows). Each case times
ours against the literal version in `paul.bench.literal`, which walks over samples, keeps the bank in a list and cuts
whole patches. The sides take turns; a row states the median, the spread over repeats, the ratio, and the bound that
follows from the device's peaks, which are measured first. Nothing fails when a machine is slower.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from importlib import import_module
from pathlib import Path

import torch

from paul.bench.case import Bench, Case
from paul.bench.peaks import measure_peaks
from paul.engine.device import one_thread, pick_device
from paul.experiments.provenance import code_hash, commit, machine, versions
from paul.experiments.records import write_record

SUITES = {"ops": "ops", "step": "step", "epoch": "epoch", "eval": "evaluation", "data": "data", "scale": "scale"}


def cases(suite: str) -> dict[str, Case]:
    """The cases of a suite by name."""
    return import_module(f"paul.bench.{SUITES[suite]}").CASES


def device_name(device: torch.device) -> str:
    """In words, as records state it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else machine()


def device_folder(device: torch.device) -> str:
    """The folder of a device's records."""
    return re.sub(r"[^a-z0-9]+", "-", device_name(device).split(",")[0].lower()).strip("-")


def _line(name, ours, other, ratio, share="", spread="", expected="", met="", title="") -> str:
    return (f"{name:<20}{ours:>11}{other:>12}{ratio:>8}{share:>8}{spread:>8}  {expected:<22}{met:<5}{title}").rstrip()


def _report(name: str, row: dict) -> str:
    times = (f"{1000 * row[f'{side}_seconds']:.4g} ms" for side in ("ours", "other"))
    met = {True: "yes", False: "no"}.get(row.get("as_expected"), "")
    lines = [
        _line(
            name,
            *times,
            f"{row['ratio']:.2f}",
            f"{row['share_of_bound']:.0%}",
            f"{row['ours_spread']:.0%}",
            row.get("expected", ""),
            met,
            f"{row['title']}; {row['size']}",
        )
    ]
    for curve in row.get("curves", []):
        lines.append(f"{'':20}{curve['name']}: seconds grow with {curve['of']} to the power {curve['exponent']:.2f}")
    if "peak_mb" in row:
        on_gpu = f"; {row['gpu_mb']:.0f} MB on the GPU" if row["gpu_mb"] else ""
        lines.append(
            f"{'':20}in a process of its own: peak {row['peak_mb']:.0f} MB, {row['imports_mb']:.0f} of them "
            f"imports{on_gpu}"
        )
    for key, text in (
        ("images_per_second", "{:,.0f} images/s"),
        ("data_wait_share", "waiting for data: {:.2%}"),
        ("save_share", "saving: {:.2%}"),
        ("product_share", "the matrix product alone: {:.1%}"),
        ("over_features_mb", "{:.0f} MB over the features"),
    ):
        if key in row:
            lines.append(f"{'':20}" + text.format(row[key]))
    return "\n".join(lines)


def _origin(device: torch.device, quick: bool) -> dict:
    """Where a row comes from; the load says whether others used the machine meanwhile."""
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "quick": quick,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "machine": device_name(device),
        "load": load,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        "code": code_hash(),
        "commit": commit(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paul bench",
        description="Ours against literal versions and against the device's bounds: on a CPU in CPU "
        "seconds of one thread, on a GPU by its events.",
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the JSON files")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1; the CPU by default")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the embedded people")
    parser.add_argument("--suite", action="append", choices=list(SUITES), help="one suite; may be repeated")
    parser.add_argument("--only", metavar="CASE", help="one case of those suites; the other rows stay as they were")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs; ratios mean nothing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks, print a line each, write a JSON file per suite after each; 0 unless something is missing."""
    parser = _parser()
    options = parser.parse_args(argv)
    chosen = {suite: cases(suite) for suite in options.suite or SUITES}
    if options.only:
        chosen = {suite: {options.only: of[options.only]} for suite, of in chosen.items() if options.only in of}
        if not chosen:
            parser.error(
                f"--only {options.only}: no such case; there are "
                + ", ".join(name for suite in options.suite or SUITES for name in cases(suite))
            )
    try:
        device = pick_device(options.device)
    except ValueError as error:
        print(f"paul bench: {error}", file=sys.stderr)
        return 1
    folder = options.out / (device_folder(device) + ("-quick" if options.quick else ""))
    try:
        with one_thread(device):
            _measure(chosen, device, folder, options)
    except KeyboardInterrupt:
        print(f"paul bench: interrupted; what was measured is in {folder}{os.sep}", file=sys.stderr)
        return 130
    print(f"\nwritten to {folder}{os.sep}")
    return 0


def _measure(chosen, device, folder: Path, options) -> None:
    print(f"{device_name(device)}: measuring its peaks", flush=True)
    peaks = measure_peaks(device, options.quick)
    rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in peaks.flops_per_second.items())
    print(f"copy {peaks.bytes_per_second / 1e9:.1f} GB/s; {rates}\n", flush=True)
    write_record(folder / "peaks.json", {**peaks.as_dict(), **_origin(device, options.quick)})
    bench = Bench(device, peaks, quick=options.quick, data=options.data)
    print(_line("case", "ours", "other", "ratio", "bound", "spread", "expected", "met"))
    for suite, of in chosen.items():
        rows = read_rows(folder / f"{suite}.json") if options.only else {}
        for name, case in of.items():
            rows[name] = {**case.measure(bench), **_origin(device, options.quick)}
            print(_report(f"{suite} {name}", rows[name]), flush=True)
            write_record(folder / f"{suite}.json", {"suite": suite, "rows": rows})


def read_rows(path: Path) -> dict[str, dict]:
    """The rows of a suite's file by case; {} when there is none. Raises ValueError where it holds something else."""
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        if not all(isinstance(row, dict) for row in rows.values()):
            raise ValueError("a row that is none")
        return rows
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds no measured rows ({error}); measure the suite whole, or delete it") from error

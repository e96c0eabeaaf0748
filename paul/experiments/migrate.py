"""python -m paul.experiments.migrate RESULTS: run records of the earlier layout, rewritten for this one.

Those named options by stage ("adapt", "adabn", "freeze_pgn") and were current as long as a hash of some sources was.
Now a run's options stand under its method, and `NUMERICS` say whether the arithmetic has moved since. Nothing measured
is touched: a record is rewritten only if its own options are those of the same run today, and every other field stays.
"""

from __future__ import annotations

import sys
from pathlib import Path

from paul.experiments.records import outdated, read_records, spec_of, write_record
from paul.experiments.specs import Places, Spec

GONE = ("tables", "file")  # what rows.py says anyhow; where it was read from


def options_of(record: dict) -> dict | None:
    """What the record's spec says in today's words; None where it says something that no method of today does."""
    old, source = record["spec"], record["spec"].get("source", {})
    shared = {"target": old["target"]}
    if "method" in old:  # PUL, and rows without a network
        freeze = {"source": source, "freeze_pgn": "lr0"} if source else {}
        return {"method": old["method"], **shared, **freeze, "options": old["options"]}
    method = "paul" if old["adapt"] else "adabn" if old["adabn"] else "direct"
    return {
        "method": method,
        **shared,
        "source": source,
        "freeze_pgn": old["freeze_pgn"],
        "options": old["adapt"] or {},
    }


def migrated(record: dict) -> tuple[Spec, dict]:
    """The run that a record is of, and the record in today's layout.

    Raises:
        ValueError: its options are not those of that run today.
    """
    spec = spec_of(record)
    if spec is None or options_of(record) != spec.data():
        raise ValueError(f"{record['file']}: its options are not today's; compute it again")
    kept = {name: value for name, value in record.items() if name not in GONE}
    head = {name: kept.pop(name) for name in ("row", "target", "seed", "profile")}
    new = {**head, "weights": spec.weights, "spec": spec.data(), "spec_hash": spec.hash, "numerics": spec.numerics}
    return spec, {**new, **{name: value for name, value in kept.items() if name not in new}}


def migrate(results: str) -> list[Path]:
    """Rewrite every record of the earlier layout below a results folder; returns the files written.

    All are checked before the first is written, and one that is in today's layout is left alone.
    """
    found = [
        record
        for profile in sorted((Path(results) / "runs").iterdir())
        for record in read_records(results, profile.name)
        if outdated(record)
    ]
    pairs = [(Path(record["file"]), *migrated(record)) for record in found]
    written = []
    for old, spec, record in pairs:
        new = Places(results=results).record(spec)
        write_record(new, record)
        if new != old:
            old.unlink()
        written.append(new)
    return written


if __name__ == "__main__":
    try:
        print(f"{len(migrate(*sys.argv[1:]))} records rewritten")
    except (ValueError, OSError, TypeError) as error:
        sys.exit(f"{' '.join(str(error).split())}\nusage: python -m paul.experiments.migrate RESULTS")

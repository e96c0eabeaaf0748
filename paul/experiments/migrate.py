"""python -m paul.experiments.migrate RESULTS: run records from before options were added, rewritten for today's spec.

An option that is new has the value under which everything before it ran (`BEFORE`), so that a record is still of the
same run: it is rewritten only if its options and those values are the options of that run today. Nothing measured is
touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

from paul.experiments.records import outdated, read_records, spec_of, write_record
from paul.experiments.specs import Places, Spec

# Part of a record's spec -> what records from before an option say nothing of, and did: not the options' defaults,
# which may move.
BEFORE: dict[str, dict] = {
    "network": {"align_corners": True, "precision": "float32"},
    "pretrain": {"min_batch": 1},
    "paul": {
        "bank_surrogates": False,
        "bank_update": "before",
        "idle_surrogates": False,
        "min_batch": 1,
        "rotation": "network",
    },
    "pul": {"min_batch": 1},
}


def completed(said: dict) -> dict:
    """A record's spec in today's words: what it says, and `BEFORE` where it says nothing."""
    parts = {part: BEFORE[part] for part in ("network", "pretrain")}
    source = said.get("source") and {
        **said["source"],
        **{part: {**values, **said["source"][part]} for part, values in parts.items()},
    }
    options = {**BEFORE.get(said["method"], {}), **said["options"]}
    return {**said, **({"source": source} if source else {}), "options": options}


def migrated(record: dict) -> tuple[Spec, dict]:
    """The run that a record is of, and the record with today's spec.

    Raises:
        ValueError: its options are not those of that run today.
    """
    spec = spec_of(record)
    if spec is None or record.get("numerics") != spec.numerics or completed(record["spec"]) != spec.data():
        raise ValueError(f"{record['file']}: its options are not today's; compute it again")
    numbers = {"adapt_seed": spec.adapt_seed, "world": spec.world}
    head = {name: record[name] for name in ("row", "target", "seed")}
    rest = {name: value for name, value in record.items() if name != "file"}
    return spec, {**head, **numbers, **rest, **numbers, "spec": spec.data(), "spec_hash": spec.hash}


def migrate(results: str) -> list[Path]:
    """Rewrite every record of a results folder that today's spec has outgrown; returns the files written.

    All are checked before the first is written, and one that is current is left alone.
    """
    found = [
        record
        for profile in sorted((Path(results) / "runs").iterdir())
        for record in read_records(results, profile.name)
        if outdated(record) or "adapt_seed" not in record
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
    except (ValueError, OSError, TypeError, KeyError) as error:
        sys.exit(f"{' '.join(str(error).split())}\nusage: python -m paul.experiments.migrate RESULTS")

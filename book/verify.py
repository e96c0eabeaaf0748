"""Whether the committed records still say what their runs say: the index of hashes, then some of them computed anew."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from .toc import BookError


def verify(
    results: Path,
    data: Path,
    profile: str = "mini",
    *,
    row: str | None = None,
    count: int = 1,
    everything: bool = False,
    pick: int | None = None,
    workers: int = 2,
    device: str | None = None,
    tolerance: float | None = None,
    say: Callable[..., None] = print,
) -> int:
    """Compute `count` random records of a profile's worlds again, or `everything`; returns 1 if any differs, else 0.

    An edited or missing record is one that differs. `row` leaves the choice to the records of one row; `pick` is the
    number that decides it. A record of options or arithmetic that today's code no longer has can't be computed again.

    Raises BookError when there is no record to compute, or no data to compute it from.
    """
    from paul.experiments.plan import plan
    from paul.experiments.records import outdated, spec_of
    from paul.experiments.runner import workers_for
    from paul.experiments.specs import Places
    from paul.experiments.verify import TOLERANCE, compute_anew, differences, kind_of_machine
    from paul.report.seal import broken, unsealed
    from paul.report.worlds import folders_of, records_of_worlds

    damage = [line for name in folders_of(results, profile) for line in broken(results, name)]
    for line in damage:
        say(line)
    places = Places(str(data), str(results), device=device)
    new = {str(Path(results) / name) for name in unsealed(results)}
    committed = [record for record in records_of_worlds(results, profile) if record["file"] not in new]
    chosen = [record for record in committed if row in (None, record["row"])]
    current = [record for record in chosen if not outdated(record, places)]
    if len(current) < len(chosen):
        old = len(chosen) - len(current)
        say(f"{old} of {len(chosen)} records are of other options, arithmetic or data than today's")
    if not current:
        raise BookError(f"no record of profile {profile}{f', row {row},' if row else ''} in {results} to compute again")
    if not everything:
        pick = random.randrange(10**6) if pick is None else pick
        current = random.Random(pick).sample(current, min(count, len(current)))
        say(f"chosen by --pick {pick}")
    specs = [spec_of(record) for record in current]
    planned = plan(specs, places)
    say("\n".join(planned.lines()))
    try:
        planned.refuse_missing(str(data))
    except FileNotFoundError as error:
        raise BookError(str(error)) from error
    tolerance = TOLERANCE if tolerance is None else tolerance
    with workers_for(specs, workers, device) as executor:
        computed = compute_anew(current, places, executor if len(specs) > 1 else None)
    wrong = 0
    for recorded, anew in zip(current, computed):
        lines = differences(recorded, anew, tolerance)
        alike = kind_of_machine(recorded) == kind_of_machine(anew)
        rule = "the same bits" if alike else f"within {tolerance:g} points, on another kind of machine"
        say(f"{recorded['file']}: {'; '.join(lines) or rule}")
        wrong += bool(lines)
    say(f"{len(current) - wrong} of {len(current)} records computed again agree")
    return 1 if wrong or damage else 0

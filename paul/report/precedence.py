"""Registration first, runs after: every record of a registered world against the file and its repository's history."""

from __future__ import annotations

import re
import subprocess
from functools import cache, partial
from pathlib import Path

from paul.experiments.provenance import git
from paul.report.registration import Registration, RegistrationError, load_registration, options_hash, predicate_hash
from paul.report.worlds import records_of_worlds, row_of


def renderer_of(folder: Path, commit: str = "") -> int:
    """The renderer's version in the repository around a folder: of a commit, or of the files as they are.

    Raises:
        RegistrationError: no file, or more than one, says `RENDERER = n`.
    """
    try:
        found = git(folder, "grep", "-hE", "^RENDERER = [0-9]+", *filter(None, [commit]), "--", ":/*.py").splitlines()
    except (OSError, subprocess.CalledProcessError):
        found = []
    versions = [int(match[0]) for line in found if (match := re.search(r"\d+", line))]
    if len(versions) != 1:
        raise RegistrationError(f"{len(versions)} files around {folder} say RENDERER = n, where one should")
    return versions[0]


def registering_commit(path: Path) -> str:
    """The commit that last changed the registration: a change after the runs would undo it for all of them.

    Raises:
        RegistrationError: no git, or the file as it is was never committed.
    """
    try:
        found = git(path.parent, "log", "-1", "--format=%H", "--", path.name)
        changed = git(path.parent, "status", "--porcelain", "--", path.name)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RegistrationError(f"{path}: only a git repository can tell what came first ({error})") from error
    if not found or changed:
        raise RegistrationError(f"{path}: is not committed as it is; commit it before its worlds run")
    return found


_renderer_at = cache(renderer_of)  # many records, few commits


@cache
def _descends(folder: Path, commit: str, ancestor: str) -> bool:
    try:
        git(folder, "merge-base", "--is-ancestor", ancestor, commit)
    except subprocess.CalledProcessError:  # it does not, or this repository lacks the commit
        return False
    return True


def fault(record: dict, registration: Registration, path: Path, registered: str) -> str:
    """Why a record is not one of the registered kind, "" for nothing."""
    commit = str(record.get("commit", ""))
    if not re.fullmatch("[0-9a-f]{40}", commit):
        return "was made from sources that no commit holds"
    if registration.fresh and not _descends(path.parent, commit, registered):
        return f"was made by commit {commit[:8]}, which does not descend from {registered[:8]}, the registration"
    if _renderer_at(path.parent, commit) != registration.renderer:
        return "was rendered by another version of the renderer"
    wanted = registration.options.get(f"{record['row']}/{record['target']}")
    if wanted and options_hash(record["spec"], record.get("numerics")) != wanted:
        return "has other options or arithmetic than its row was registered with"
    return ""


def seen_before(records: list[dict], registration: Registration, path: Path, registered: str) -> list[str]:
    """A line for every contrast whose two rows ran on a world before the registration, on worlds that are not fresh."""
    early = {
        (row_of(record), record["target"], record.get("world", 0))
        for record in records
        if not _descends(path.parent, str(record.get("commit", "")), registered)
    }
    return [
        f"world {world}: {contrast.name} on {target} ran before {registered[:8]}, the registration"
        for contrast in (planned.contrast for planned in registration.planned)
        for world in registration.worlds
        for target in contrast.targets
        if {(row, target, world) for row in (contrast.a, contrast.b)} <= early
    ]


def faults(results, path: Path, claims) -> list[str]:
    """A line for every registered claim whose tests have changed and every record of a registered world that was not
    made as registered, afterwards (`seen_before` where worlds are not fresh); [] without a registration.

    Raises:
        RegistrationError: as `registering_commit`, or the file is no registration.
    """
    path = Path(path).absolute()
    registration = load_registration(path)
    if registration is None:
        return []
    now = {claim.id: predicate_hash(claim) for claim in claims}
    lines = [
        f"claim {name}: its words or tests are not those that were registered"
        for name, found in registration.predicates.items()
        if now.get(name) != found
    ]
    registered = registering_commit(path)
    why = partial(fault, registration=registration, path=path, registered=registered)
    records = [
        record
        for record in records_of_worlds(results, registration.profile)
        if record.get("world", 0) in registration.worlds
    ]
    lines += [] if registration.fresh else seen_before(records, registration, path, registered)
    return lines + [f"{record['file']} {reason}" for record in records if (reason := why(record))]

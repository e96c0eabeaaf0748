"""Puts a finished folder in place in one step, so that an interrupted preparation leaves nothing half-done."""

import errno
import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from data_prep.market_layout import DataError, fingerprint, read_card


@contextmanager
def locked(path):
    """Hold the lock file `path`; the system lets go of it however the process ends.  Raises DataError when held."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # which does not wait, whatever stands there
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{path.parent}: another preparation is writing here; wait for it to end") from error
        yield
    finally:
        os.close(lock)


def check_kept(folder, recipe, overwrite):
    """True where `folder` already holds the set of this recipe, undamaged; False where it has to be written.

    Raises DataError where the folder holds something else and `overwrite` is not given.
    """
    if overwrite or not folder.exists():
        return False
    card = read_card(folder)
    if card is None:
        raise DataError(
            f"{folder}: exists but has no card.json, so it was not written here; "
            "move it away, or give --overwrite to replace it"
        )
    wanted = json.loads(json.dumps(recipe))
    differing = sorted(key for key in wanted if card.get(key) != wanted[key])
    if differing:
        details = ", ".join(f"{key}: {card.get(key)} on disk, {wanted[key]} wanted" for key in differing)
        raise DataError(f"{folder}: holds another set ({details}); give --overwrite to replace it, or another --out")
    try:
        intact = fingerprint(folder) == card["fingerprint"]
    except (OSError, KeyError, TypeError, ValueError, DataError):
        intact = False
    if not intact:
        raise DataError(
            f"{folder}: its files no longer match the fingerprint in card.json; give --overwrite to redo it"
        )
    return True


def replace_folder(folder, recipe, overwrite, write, resume=False):
    """Keep `folder` where it fits `recipe`, else call `write(partial folder)` and rename the result into place.

    With `resume`, what a failed write left in the partial folder is there at the next try, for `write` to judge.
    Returns "kept" or "written".  Raises DataError; a failed write leaves what was there before untouched.
    """
    folder = Path(folder)
    with locked(folder.parent / ".lock"):
        if check_kept(folder, recipe, overwrite):
            return "kept"
        partial, old = folder.parent / f".{folder.name}.partial", folder.parent / f".{folder.name}.old"
        for leftover in (old,) if resume else (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=resume)
        try:
            write(partial)
        except BaseException as error:
            if not resume or not any(partial.iterdir()):
                shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                kept = "what was placed is kept for the next try" if resume else f"nothing was kept of {folder.name}"
                raise DataError(
                    f"{folder.parent}: no space left on the disk; {kept}; free some and run the same command"
                ) from error
            raise
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    return "written"

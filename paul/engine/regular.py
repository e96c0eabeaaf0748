"""Regular files told from pipes, sockets and devices, which are never opened: reading one may wait for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a disk"))


def check_regular(path: str | Path) -> None:
    """Raises OSError: no such file, or a folder, pipe, socket or device, without opening it."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(f"it is {next((name for test, name in _KINDS if test(mode)), 'special')}, no regular file")

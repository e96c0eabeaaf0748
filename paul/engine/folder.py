"""The folder of a training: one process at a time writes it, and it holds the last two checkpoints and a log."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from paul.engine.files import first_line, read, write_atomically


class FolderInUse(RuntimeError):
    """Another process trains in the folder."""


class TrainingFolder:
    """checkpoint.pt, the one before it as checkpoint.previous.pt, and log.jsonl.

    Args:
        path: of the folder; made when it is locked.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = FileLock(self.path / ".lock")

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def previous(self) -> Path:
        return self.path / "checkpoint.previous.pt"

    @property
    def started(self) -> bool:
        """Whether an earlier process left a checkpoint here."""
        return self.checkpoint.is_file() or self.previous.is_file()

    def lock(self) -> bool:
        """Become the one who writes; False while another process is.

        Raises:
            OSError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            return True
        except Timeout:
            return False
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written ({first_line(error)}); choose another folder, or make it writable and "
                "run the same command again"
            ) from error

    def version(self) -> list[tuple[int, int]]:
        """Changes with every save."""
        found = []
        for path in (self.checkpoint, self.previous):
            with contextlib.suppress(FileNotFoundError):  # not there, or just being renamed by another process
                found.append((path.stat().st_ino, path.stat().st_mtime_ns))
        return found

    def unlock(self) -> None:
        """Let others write; nothing where it was not locked."""
        self._lock.release()

    def clean(self) -> None:
        """Delete what a killed process left half-written."""
        for pattern in (".checkpoint*", ".log.jsonl.*", "checkpoint.next.pt"):
            for left_behind in self.path.glob(pattern):
                left_behind.unlink()

    def load(self) -> dict:
        """The last checkpoint that can be read; the one before the last comes with a warning.

        Raises:
            ValueError: neither can.
        """
        try:
            return read(self.checkpoint)
        except FileNotFoundError:  # between two renames: a process was killed there, or is there now
            return read(self.previous)
        except ValueError as error:
            if not self.previous.is_file():
                raise
            state = read(self.previous)
            warnings.warn(f"{error}; going on from the checkpoint before it, {self.previous.name}", stacklevel=5)
            return state

    def save(self, state: dict, history: list[dict]) -> None:
        """Write log and checkpoint; the log first, since an epoch is done once its checkpoint is.

        Raises:
            OSError: the disk does not take them; the checkpoints that were there still are.
        """
        lines = "".join(json.dumps(row) + "\n" for row in history)
        write_atomically(self.path / "log.jsonl", lambda file: file.write(lines.encode()))
        fresh = self.path / "checkpoint.next.pt"
        write_atomically(fresh, lambda file: torch.save(state, file))
        if self.checkpoint.is_file():
            os.replace(self.checkpoint, self.previous)
        os.replace(fresh, self.checkpoint)

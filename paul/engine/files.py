"""Files that others may have damaged or made, and files written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import pickle
import secrets
import zipfile
from pathlib import Path

import torch
from torch import Tensor


def fingerprint(*tensors: Tensor) -> str:
    """Hash of the tensors' bytes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().view(-1).numpy())
    return found.hexdigest()[:16]


def first_line(error: Exception) -> str:
    """What an error says, shortened to a line."""
    return str(error).partition("\n")[0] or type(error).__name__


def write_atomically(path: str | Path, write) -> None:
    """Call write(file object) on a temporary sibling, then rename: readers see the old file or the new one, whole.

    Raises:
        OSError: the disk is full or not writable; the message names the file, and what stood there still does.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, (OSError, RuntimeError)):  # torch reports a failing disk as RuntimeError
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(
                f"could not write {path} ({first_line(reason)}); what was there before is untouched. Free "
                "some space or choose another folder, and run the same command again"
            ) from error
        raise


def read(path: str | Path) -> dict:
    """The contents of a checkpoint file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, no checkpoint, or a pickle that would run code (refused).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if zipfile.is_zipfile(path):  # torch itself does not look at the checksums
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                    raise zipfile.BadZipFile("it claims to unpack to more than it holds")
                damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it is no checkpoint, or holds more than tensors and numbers, and loading "
            "it could run code"
        ) from error
    except Exception as error:  # there is no list of what reading a damaged file can raise
        raise ValueError(
            f"{path} is truncated, damaged or no checkpoint ({first_line(error)}); use an earlier one or train again"
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file or none of it; errors as `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))

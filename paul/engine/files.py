"""Files that others may have damaged or made, and files written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import pickle
import pickletools
import secrets
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from paul.engine.regular import check_regular

LONGEST_NAME = 200  # of a class or function in a pickle


def fingerprint(*tensors: Tensor) -> str:
    """Hash of the tensors' bytes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().view(-1).numpy())
    return found.hexdigest()[:16]


def first_line(error: Exception) -> str:
    """What an error says, shortened to a line of at most 200 characters: a damaged file may have filled it."""
    line = str(error).partition("\n")[0][:200] or type(error).__name__
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


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


def open_archive(path: str | Path) -> zipfile.ZipFile:
    """A zip archive in a regular file whose entries are stored as they are, so that it unpacks to what it holds.

    Raises:
        OSError, zipfile.BadZipFile: no regular file, no such archive, or entries that are compressed or overlap.
    """
    check_regular(path)
    archive = zipfile.ZipFile(path)
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise zipfile.BadZipFile("its entries are compressed, and nothing bounds what they unpack to")
    if sum(entry.file_size for entry in entries) > Path(path).stat().st_size:
        raise zipfile.BadZipFile("it claims to unpack to more than it holds")
    return archive


def read_tensors(path: str | Path) -> dict:
    """What `torch.save` wrote, without running code in it. Raises anything at all for a damaged file."""
    check_regular(path)
    with open(path, "rb") as file:
        zipped = file.read(4) == b"PK\3\4"  # as torch tells them apart: an archive at the end of others is none
    if zipped:  # torch itself does not look at the checksums
        with open_archive(path) as archive:
            damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
            for entry in archive.infolist():
                if entry.filename.lower().endswith("data.pkl"):
                    _check_pickle(io.BytesIO(archive.read(entry)))
    else:  # as torch wrote before 1.6: magic number, version, machine, contents, names of tensors
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for _ in range(5):
                _check_pickle(content)
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_pickle(content) -> None:
    """Refuse what torch's own reader of pickles does not stand: names of what makes memory out of a number alone, and
    names of any length, which it searches in a time that grows with their square."""
    try:
        for opcode, name, _ in pickletools.genops(content):
            if opcode.name == "GLOBAL" and (len(name) > LONGEST_NAME or name.endswith(("bytearray", "Tensor"))):
                raise pickle.UnpicklingError(f"it names {name[:LONGEST_NAME]}")
    except ValueError as error:  # cut short, or another kind of file
        raise pickle.UnpicklingError(str(error)[:LONGEST_NAME]) from None


def in_full(found: Tensor) -> bool:
    """Whether a tensor's numbers are there: a view can claim any shape of a few bytes, or of none."""
    return (
        found.device.type == "cpu"
        and found.layout == torch.strided
        and not found.is_quantized
        and found.untyped_storage().nbytes() >= found.nbytes
    )


def read(path: str | Path) -> dict:
    """The contents of a checkpoint file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, no checkpoint, or a pickle that would run code (refused).
    """
    try:
        return read_tensors(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint at {path}") from None
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

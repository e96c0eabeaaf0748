"""Unpacks an archive as downloaded and trusts nothing in it: plain files only, all below one folder, within limits."""

import errno
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path

from data_prep.market_layout import DataError
from data_prep.progress import bar
from paul.data.files import safe_parts

# what the readers raise for damaged contents; OSError for gzip and bz2, and for places before a file's beginning
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)
HEADER_BYTES = 2**20  # a tar header that carries a long name is read whole into memory
_CARRIERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: members, bytes unpacked, and bytes unpacked per byte of the archive.

    The largest set named here has 130,000 files and photographs hardly compress, so only a bomb comes near.
    """

    members: int = 1_000_000
    bytes: int = 100 * 2**30
    ratio: int = 100


class _Header(tarfile.TarInfo):
    """A tar header that refuses to describe another header of absurd length, or anything of less than no length."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _CARRIERS and header.size > HEADER_BYTES):
            raise tarfile.TarError(f"a header of {header.size:,} bytes")
        return header


def _zip_members(archive):
    """(name, kind, bytes, function that opens it) of each member."""
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise DataError(
                f"{archive.filename}: {info.filename} is encrypted; unpack it with its password, then give the folder"
            )
        form = stat.S_IFMT(info.external_attr >> 16)
        kind = "folder" if info.is_dir() else "file" if form in (0, stat.S_IFREG) else "link or device"
        yield info.filename, kind, info.file_size, lambda info=info: archive.open(info)


def _tar_members(archive):
    for info in archive:
        kind = "folder" if info.isdir() else "file" if info.isreg() else "link or device"
        kind = "sparse file" if info.issparse() else kind
        if info.size < 0:
            raise tarfile.TarError(f"a member of {info.size:,} bytes")
        yield info.name, kind, info.size, lambda info=info: archive.extractfile(info)


def _allowed(archive, limits):
    return min(limits.bytes, limits.ratio * archive.stat().st_size)


def _checked(members, archive, limits):
    """The members, each as (parts, kind, bytes, open); raises DataError at the first that breaks a rule."""
    total, seen, allowed = 0, set(), _allowed(archive, limits)
    for number, (name, kind, size, opened) in enumerate(members, 1):
        parts = safe_parts(name)
        if parts is None:
            raise DataError(f"{archive}: its member {name!r} would be written outside the folder; do not trust it")
        if kind not in ("file", "folder"):
            raise DataError(f"{archive}: its member {name!r} is a {kind}, and no set here has one; do not trust it")
        if kind == "file" and tuple(parts) in seen:
            raise DataError(f"{archive}: holds {name!r} twice")
        seen.add(tuple(parts))
        total += size
        if number > limits.members or total > allowed:
            raise DataError(
                f"{archive}: unpacks to more than {limits.members:,} members or {allowed:,} bytes, which "
                "no set named here does; if you trust it, unpack it yourself and give the folder"
            )
        yield parts, kind, size, opened


def unpack(archive, folder, limits=Limits(), progress=True):
    """Unpack a zip, tar, tar.gz, tar.bz2 or tar.xz file into `folder`; members that are there already are kept.

    Raises DataError, and deletes the folder, where the archive is damaged, cut short, encrypted, holds a path that
    leaves the folder, a link, a device, or more than `limits` allows.  An interruption keeps what is there.
    """
    archive, folder = Path(archive), Path(folder)
    identity = archive.stat()
    # a file that is replaced can keep size and time of change, but no system lets it keep the other two as well
    status = identity.st_size, identity.st_mtime_ns, identity.st_ctime_ns, identity.st_ino
    origin = f"{archive.resolve()} {status}\n"
    marker = folder / ".from"
    state = marker.read_text(encoding="utf-8") if marker.is_file() else ""
    if state == origin + "complete\n":
        return
    if state != origin:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(origin, encoding="utf-8")
    try:
        with open(archive, "rb") as stream:
            zipped = stream.read(2) == b"PK"
        with zipfile.ZipFile(archive) if zipped else tarfile.open(archive, tarinfo=_Header) as opened:
            members = _zip_members(opened) if zipped else _tar_members(opened)
            _write(
                _checked(members, archive, limits),
                folder,
                archive,
                len(opened.infolist()) if zipped else None,
                progress,
            )
            if not zipped:  # to the very end, where what packs a tar keeps its checksum
                for _ in range(-(-_allowed(archive, limits) // 2**20)):
                    if not opened.fileobj.read(2**20):
                        break
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # the disk's, not the archive's
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(
            f"{archive}: no zip or tar archive, or damaged or cut short ({error}); "
            "fetch it again, or give the unpacked folder"
        ) from error
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    marker.write_text(origin + "complete\n", encoding="utf-8")


def _write(members, folder, archive, number, progress):
    members = bar(members, progress, desc=f"unpacking {archive.name}", total=number, unit="file")
    for parts, kind, size, opened in members:
        target = folder.joinpath(*parts)
        try:
            if kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
            elif not target.is_file() or target.stat().st_size != size:  # an earlier try was interrupted here
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, open(target, "wb") as stream:
                    shutil.copyfileobj(source, stream, 2**20)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise DataError(f"{archive}: its member {'/'.join(parts)!r} is a file and a folder at once") from error

"""The built pages as one file, to be sent and opened without network."""

from __future__ import annotations

import zipfile
from pathlib import Path

from paul.engine.files import write_atomically

from .toc import BookError

FOLDER = "paul-book"  # what the file unpacks to
DATE = (2019, 6, 16, 0, 0, 0)  # the same pages make the same file


def pack(site: Path, out: Path) -> Path:
    """Write every file of `site` into the zip file `out`, whole or not at all, and return it.

    Raises BookError when there are no pages, or `out` lies among them; OSError when it can't be written.
    """
    site, out = Path(site).resolve(), Path(out).resolve()
    if not (site / "index.html").is_file():
        raise BookError(f"no pages in {site}: 'make book' makes them, or 'python -m book build' of chapters that ran")
    if out.is_relative_to(site):
        raise BookError(f"--out {out} lies among the pages: name a file beside {site}")

    def write(file) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
            for path in sorted(path for path in site.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(f"{FOLDER}/{path.relative_to(site).as_posix()}", DATE)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                packed.writestr(entry, path.read_bytes(), compresslevel=9)

    write_atomically(out, write)
    return out

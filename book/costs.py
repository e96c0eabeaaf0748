"""Measured times, from the last run's manifest into book.toml. Nobody types them."""

from __future__ import annotations

from pathlib import Path

from .manifest import read_manifest, write_text
from .toc import Book, BookError

MARK = "# --- measured: written by 'python -m book costs' from a manifest; don't edit below ---\n"


def write_costs(book: Book, manifest_path: Path) -> list[str]:
    """Put the seconds of every chapter that ran into book.toml, by profile; returns 'profile/slug' of each.

    Raises BookError when the manifest holds no chapter that ran.
    """
    measured = {profile: {**table, "seconds": dict(table["seconds"])} for profile, table in book.measured.items()}
    written = []
    for slug, entry in read_manifest(manifest_path)["chapters"].items():
        if entry["status"] == "ran":
            table = measured.setdefault(entry["profile"], {"seconds": {}})
            table |= {"machine": entry["machine"], "date": entry["at"][:10]}
            table["seconds"][slug] = entry["seconds"]
            written.append(f"{entry['profile']}/{slug}")
    if not written:
        raise BookError(f"{manifest_path}: no chapter that ran; start with 'python -m book run'")
    head = book.path.read_text(encoding="utf-8").split(MARK)[0].rstrip()
    write_text(book.path, f"{head}\n\n{MARK}\n" + "\n".join(_table(*item) for item in sorted(measured.items())))
    return written


def _table(profile: str, table: dict) -> str:
    quoted = {key: '"' + str(table[key]).replace("\\", "").replace('"', "") + '"' for key in ("machine", "date")}
    lines = [f"[measured.{profile}]", *(f"{key} = {text}" for key, text in quoted.items()), ""]
    lines += [f"[measured.{profile}.seconds]"]
    lines += [f"{slug} = {value}" for slug, value in sorted(table["seconds"].items())]
    return "\n".join(lines) + "\n"

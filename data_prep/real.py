"""Real sets: from an archive or a folder that you hold to data/<name> with index and card. Nothing is downloaded."""

import filecmp
import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from data_prep import bounding_boxes, cuhk03, folder, msmt17
from data_prep.archives import unpack
from data_prep.market_layout import DataError, write_card, write_index
from data_prep.progress import bar
from data_prep.published import PUBLISHED, Published, counts_of, differences
from data_prep.raw import first
from data_prep.store import locked, replace_folder
from paul.data.files import read_bytes, short, unfit_text
from paul.data.images import DAMAGED, open_image
from paul.engine.regular import check_regular

LAYOUT = 1  # raise it whenever the index or the folder of a prepared set changes
COLUMNS = {
    "file": "below this folder",
    "split": "train, query, gallery, val_query or val_gallery",
    "person_id": "-1 junk in a gallery (skipped in evaluation) or unlabelled in train, 0 distractor in a gallery",
    "camera_id": "-1 unknown, only in train",
    "sequence": "blank where the set has none",
    "frame": "as in the file's name, blank where the set has none",
}
OWN = Published(
    "your own cameras", "your own", "-", "Yours to know: were the people asked, and may you keep the images?"
)


@dataclass(frozen=True)
class Plan:
    """One set to write: its name, how it is read, what it should hold, and the options that decide its content.

    `read(folder, work, beside)` returns Found; `work` is a folder for files of our own, `beside` holds what was given.
    `rearrange(rows)` acts after the check.
    """

    name: str
    read: Callable
    options: dict = field(default_factory=dict)
    rearrange: Callable = list

    @property
    def recipe(self):
        return {"name": self.name, "layout": LAYOUT, "options": self.options}


def plan_market1501():
    """Market-1501 -> data/market1501."""
    return [Plan("market1501", lambda raw, *_: bounding_boxes.read(raw, bounding_boxes.parse_market))]


def plan_dukemtmc(right=False):
    """DukeMTMC-reID -> data/dukemtmc; raises DataError unless the user says that they hold it rightly."""
    if not right:
        raise DataError(
            "DukeMTMC-reID was withdrawn by its university in 2019, because the people in it were never "
            "asked. Nothing here fetches it. If you hold a copy and may use it where you are, say so with "
            "--i-have-the-right; Market-1501 alone is enough for most of the book"
        )
    return [Plan("dukemtmc", lambda raw, *_: bounding_boxes.read(raw, bounding_boxes.parse_duke))]


def plan_msmt17(train="all"):
    """MSMT17 -> data/msmt17; train "all" puts every image into train, "train" keeps query and gallery (ledger 24)."""
    rearrange = {"rearrange": msmt17.all_for_training} if train == "all" else {}
    return [Plan("msmt17", lambda raw, *_: msmt17.read(raw), {"train": train}, **rearrange)]


def plan_cuhk03(boxes="both", splits=None, progress=True):
    """CUHK03 -> data/cuhk03_detected and data/cuhk03_labelled, or one of them."""
    kinds = tuple(cuhk03.SPLIT_FILES) if boxes == "both" else (boxes,)
    return [
        Plan(f"cuhk03_{kind}", lambda *places, kind=kind: cuhk03.read(*places, kind, splits, progress), {"boxes": kind})
        for kind in kinds
    ]


def plan_folder(name="mine", table=None, pattern="", split="train"):
    """Any folder of images -> data/<name>, by a table or by a pattern over file names."""
    if name in PUBLISHED or name.startswith(".") or Path(name).name != name or not name or unfit_text(name):
        raise DataError(f"--name {short(name)}: choose a plain name that is not that of a published set")
    if table is not None and pattern:
        raise DataError("give either --csv or --pattern")
    if table is not None and not Path(table).exists():
        raise DataError(f"--csv {table}: no such file")
    try:
        digest = hashlib.sha256(read_bytes(table)).hexdigest() if table is not None else None
    except OSError as error:
        raise DataError(f"--csv {table}: {error.strerror or error}") from error
    return [
        Plan(
            name,
            lambda raw, *_: folder.read(raw, table, pattern, split),
            {"table": digest, "pattern": pattern, "split": split},
        )
    ]


def prepare(plans, raw, out, link=True, accept=False, overwrite=False, published=PUBLISHED, progress=True):
    """Write every planned set below `out`; one that is there, whole and of the same options is kept.

    Args: plans, raw (archive or folder), out (folder), link (images of a raw folder become hard links, or symbolic
    ones across disks; else copies), accept (go on without files that do not belong, and with other counts than
    published), overwrite (replace what is there), published ({name: Published}), progress (show bars).
    Returns {name: "kept" | "written"}.  Raises DataError naming the file or option at fault, OSError for what the
    system does not let read or write; what was there before stays, and what an interrupted try had done is used at the
    next.
    """
    raw, out = Path(raw), Path(out)
    if not raw.exists():
        raise DataError(f"--raw {raw}: no such file or folder")
    if not raw.is_dir():
        try:
            check_regular(raw)
        except OSError as error:
            raise DataError(f"--raw {raw}: {error}; name a folder, or an archive as downloaded") from error
    work = out / f".{raw.resolve().name}.unpacked"
    states = {}
    try:
        for plan in plans:
            target = out / plan.name
            if raw.resolve().is_relative_to(target.resolve()):
                raise DataError(f"--raw {raw}: lies in {target}, which is about to be written; move it away")
            writing = _Writing(plan, raw, work, link, accept, published.get(plan.name, OWN), progress)
            states[plan.name] = replace_folder(target, plan.recipe, overwrite, writing, resume=True)
        with locked(out / ".lock"):
            shutil.rmtree(work, ignore_errors=True)
    finally:
        with suppress(OSError):
            work.rmdir()  # holds something only where the next try can use it
    return states


@dataclass(frozen=True)
class _Writing:
    """Writes one set into a partial folder: unpack, read, check, place; the card comes last."""

    plan: Plan
    raw: Path
    work: Path
    link: bool
    accept: bool
    published: Published
    progress: bool

    def __call__(self, partial):
        top, how = self.raw, "linked" if self.link else "copied"
        if not self.raw.is_dir():
            top, how = self.work / "archive", "unpacked"
            unpack(self.raw, top, progress=self.progress)
        found = self.plan.read(top, self.work, self.raw.resolve().parent)
        accepted = self._check(found)
        found.rows = self.plan.rearrange(found.rows)
        found.sort()
        write_index(partial, found.rows)
        known = {"index.csv", *(row["file"] for row in found.rows)}
        for stray in [path for path in partial.rglob("*") if not path.is_dir() or path.is_symlink()]:
            if stray.relative_to(partial).as_posix() not in known:  # left by a try with other files
                stray.unlink()
        digest = hashlib.sha256((partial / "index.csv").read_bytes())
        for row in self._bar(found.rows, "placing"):
            source, target = found.files[row["file"]], partial / row["file"]
            place(source, target, "unpacked" if self.work in source.parents else how)
            digest.update(target.read_bytes())
        write_card(
            partial,
            {
                **self.plan.recipe,
                **found.notes,
                "title": self.published.title,
                "source": self.published.source,
                "citation": self.published.citation,
                "licence": self.published.licence,
                "raw": self.raw.resolve().name,
                "images": how,
                "columns": COLUMNS,
                "counts": counts_of(found.rows),
                "accepted": accepted,
                "fingerprint": digest.hexdigest(),
            },
        )

    def _bar(self, items, what):
        return bar(items, self.progress, desc=f"{what} {self.plan.name}", unit="image")

    def _check(self, found):
        """What is not as published, accepted; raises DataError unless --accept-counts was given."""
        unreadable = {
            row["file"] for row in self._bar(found.rows, "checking") if not readable(found.files[row["file"]])
        }
        found.drop(unreadable)
        lines = differences(found.rows, self.published)
        for what, names in (("extra", found.extra), ("missing", found.missing), ("not images", sorted(unreadable))):
            if names:
                lines.append(f"{what}: {first(names)}")
        if not found.rows:
            raise DataError(f"--raw {self.raw}: holds no image of {self.published.title}; " + "; ".join(lines))
        if lines and not self.accept:
            raise DataError(
                f"--raw {self.raw}: not {self.published.title} as it should be:\n  "
                + "\n  ".join(lines)
                + "\nIf that is what you want, --accept-counts goes on without the files named here"
            )
        return lines


def readable(path):
    """Whether a file is there and begins like an image; what follows is decoded at training."""
    try:
        with open_image(path):
            return True
    except DAMAGED:
        return False


def place(source, target, how):
    """Make `target` hold `source`, whole or not at all; left alone where an interrupted try had done so.

    Args: source, target (paths), how ("linked": hard link, or symbolic across disks; "copied"; "unpacked": our own
    file, hard link, or a copy on disks without).
    """
    if _placed(source, target, how):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if how != "copied":
        try:
            return os.link(source.resolve(), target)
        except OSError:
            if how == "linked":
                return target.symlink_to(source.resolve())
    half = target.with_name(".half")
    shutil.copy2(source, half)
    os.replace(half, target)


def _placed(source, target, how):
    if not target.is_file():
        return False
    if how != "copied":
        return target.samefile(source)
    return not target.samefile(source) and filecmp.cmp(source, target, shallow=False)

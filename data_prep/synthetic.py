"""The embedded benchmark: which sets there are, who appears where, and the work of rendering them.

A labelled source and two unlabelled targets of people who do not exist.  Every random draw comes from a SeedSequence
keyed by (world, set, purpose, number), and work is cut into the same batches whatever the number of workers, so a set
is the same bit for bit on any number of processes.
"""

import io
import itertools
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.camera import Shot, sample_camera, sample_shot
from data_prep.market_layout import FOLDERS, DataError, ImageName, count, fingerprint, write_card, write_index
from data_prep.people import carry, describe, sample_people
from data_prep.photograph import render
from data_prep.progress import bar
from data_prep.seeding import rng_for
from data_prep.store import replace_folder
from data_prep.wardrobe import sample_wardrobe
from data_prep.worlds import DEVELOPMENT, SETS, World

RENDERER = 4  # raise it whenever a change alters pixels
BATCH_PIXELS = 12 * 128 * 64  # a batch's fragments fit the processor's cache


@dataclass(frozen=True)
class Sizes:
    """How many people and images: a person walks past 3-5 cameras (4 on average, exactly), each of which takes
    `per_camera` images."""

    train: int
    test: int
    val: int
    per_camera: int
    junk: int
    distractors: int


@dataclass(frozen=True)
class Profile:
    """Image size (height, width) in pixels, and the sizes of the source and of each target."""

    size: tuple
    source: Sizes
    target: Sizes


# Targets' images come out at a multiple of the batch (40 at mini; 40 and 42 at gpu), so that no last batch is small:
# 140 people x 4 cameras x 3 images = 42 x 40; 525 x 4 x 4 = 210 x 40 = 200 x 42.
PROFILES = {
    "smoke": Profile((128, 64), Sizes(24, 6, 0, 2, 2, 4), Sizes(16, 12, 8, 2, 4, 8)),
    "mini": Profile((128, 64), Sizes(300, 40, 0, 2, 10, 20), Sizes(140, 120, 60, 3, 40, 80)),
    "gpu": Profile((256, 128), Sizes(1040, 100, 0, 5, 50, 100), Sizes(525, 320, 110, 4, 150, 300)),
}


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the first pixel: cameras, and per image its shot and its row of the index."""

    name: str
    size: tuple
    cameras: tuple
    shots: tuple
    rows: tuple


def sizes_of(name, profile, world):
    """The sizes of one set: the profile's, but for what the world turns."""
    sizes = PROFILES[profile].source if name == "source" else PROFILES[profile].target
    return replace(sizes, train=world.people or sizes.train, per_camera=world.images or sizes.per_camera)


def walks(rng, people, cameras):
    """How many cameras each of `people` passes: 3, 4 and 5 equally often, so that a set's size is no matter of luck."""
    third = people // 3
    number = np.array([3, 5] * third + [4] * (people - 2 * third))
    return np.minimum(rng.permutation(number), cameras)


def plan_set(name, profile, world=DEVELOPMENT):
    """Decide who appears where.

    Args: name of a set in SETS, name of a profile in PROFILES, world (worlds.World).
    Returns a Plan.
    """
    key, gap, number = SETS[name].key, world.gap_of(name), world.number
    size, sizes = world.size or PROFILES[profile].size, sizes_of(name, profile, world)
    cameras = tuple(
        sample_camera(rng_for(number, key, "camera", c), c, gap, (number, key, c))
        for c in range(1, world.cameras_of(name) + 1)
    )
    groups = [("train", sizes.train), ("test", sizes.test), ("val", sizes.val)]
    strangers = sizes.distractors
    wardrobe = sample_wardrobe(number, key, gap, world.shared)
    people = sample_people(number, key, wardrobe, [n for _, n in groups] + [strangers], world.alike)
    shots, rows = [], []

    def add(split, person_id, camera_id, sequence, frame, box, shot):
        file = f"{FOLDERS[split]}/{ImageName(person_id, camera_id, sequence, frame, box)}"
        shots.append(shot)
        rows.append(
            {
                "file": file,
                "split": split,
                "person_id": person_id,
                "camera_id": camera_id,
                "sequence": sequence,
                "frame": frame,
                **shot.truth(),
                **describe(shot.person),
            }
        )

    for group, (label, _) in enumerate(groups):
        lengths = walks(rng_for(number, key, "walks", group), len(people[group]), len(cameras))
        for person, length in zip(people[group], lengths):
            rng = rng_for(number, key, "walk", person.person_id)
            passes = rng.choice(len(cameras), size=int(length), replace=False) + 1
            for camera_id in sorted(passes.tolist()):
                tracklet = rng_for(number, key, "tracklet", person.person_id, camera_id)
                today = carry(tracklet, person)
                sequence, start = int(tracklet.integers(1, 7)), int(tracklet.integers(1, 9000)) * 10
                taken = sample_shot(tracklet, today, cameras[camera_id - 1], sizes.per_camera)
                chosen = int(tracklet.integers(sizes.per_camera))
                for order, shot in enumerate(taken):
                    split = label
                    if label != "train":
                        role = "query" if order == chosen else "gallery"
                        split = role if label == "test" else f"val_{role}"
                    add(split, person.person_id, camera_id, sequence, start + 25 * order, 1, shot)
    for kind, total in (("junk", sizes.junk), ("distractor", sizes.distractors)):
        for order in range(total):
            rng = rng_for(number, key, kind, order)
            camera_id = int(rng.integers(1, len(cameras) + 1))
            person = people[1][int(rng.integers(len(people[1])))] if kind == "junk" else people[3][order]
            (shot,) = sample_shot(rng, person, cameras[camera_id - 1], 1)
            shot = spoil(rng, shot, empty=kind == "distractor" and order % 2 == 0)
            add("gallery", -1 if kind == "junk" else 0, camera_id, int(rng.integers(1, 7)), 100_000 + order, 2, shot)
    order = sorted(range(len(rows)), key=lambda i: (list(FOLDERS).index(rows[i]["split"]), rows[i]["file"]))
    return Plan(name, size, cameras, tuple(shots[i] for i in order), tuple(rows[i] for i in order))


def spoil(rng, shot, empty):
    """A detector's mistake: a box far off its person (junk, distractor), or one around nobody (distractor)."""
    if empty:
        return replace(shot, person=None)
    side = rng.choice([-1.0, 1.0], 2)
    return replace(
        shot,
        box_dx=float(side[0] * rng.uniform(0.15, 0.45)),
        box_dy=float(side[1] * rng.uniform(0.2, 0.45)),
        box_scale=float(rng.uniform(0.6, 1.6)),
    )


def batch_size(size):
    """Images rendered together; it depends on their size alone, never on the number of workers."""
    return max(1, BATCH_PIXELS // (size[0] * size[1]))


def _begin():
    """In a worker: Ctrl-C is for the process that made it, and whatever ends that one ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _encode(task):
    """Render one batch and encode it; runs in a worker."""
    cameras, shots, size = task
    encoded = []
    for shot, image in zip(shots, render(shots, cameras, size)):
        stream = io.BytesIO()
        quality = cameras[shot.camera_id - 1].quality
        Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling="4:2:0" if quality < 88 else "4:4:4")
        encoded.append(stream.getvalue())
    return encoded


def _batches(plan):
    number = batch_size(plan.size)
    for start in range(0, len(plan.shots), number):
        yield plan.cameras, plan.shots[start : start + number], plan.size


def recipe(name, profile, world=DEVELOPMENT):
    """What determines a set's content: a set on disk with the same recipe need not be rendered again."""
    return {
        "name": f"{name}-{world.folder(profile)}",
        "profile": profile,
        "world": world.number,
        "knobs": world.knobs(),
        "renderer": RENDERER,
        "gap": world.gap_of(name),
        "cameras": world.cameras_of(name),
        "size": list(world.size or PROFILES[profile].size),
        "sizes": asdict(sizes_of(name, profile, world)),
    }


COLUMNS = {
    "file": "below this folder",
    "split": "train, query, gallery, val_query or val_gallery",
    "person_id": "-1 junk (skipped in evaluation), 0 distractor",
    "camera_id": "from 1",
    "sequence": "from 1",
    "frame": "25 a second",
    "box_dx": "person's centre right of the box's, in box widths",
    "box_dy": "person's centre below the box's, in box heights",
    "box_scale": "person's size over the size that fits",
    "yaw": "degrees; 0 faces the camera, 180 walks away",
    "occluder": "what stands before the person",
    "lookalike": "person id whose clothes this person wears, but for a local detail where clothes is own",
    "clothes": "own, or why others wear the very same: uniform, twins, changing bag",
    **{name: "what the person looks like" for name in describe(None) if name not in ("lookalike", "clothes")},
}


def write_set(folder, name, profile, world, workers, progress=True):
    """Render a whole set into `folder`, which must not exist yet; the card is written last."""
    plan = plan_set(name, profile, world)
    folder = Path(folder)
    for split in {row["split"] for row in plan.rows}:
        (folder / FOLDERS[split]).mkdir(parents=True)
    files = iter(plan.rows)
    tasks = _batches(plan)
    with bar(show=progress, total=len(plan.rows), desc=f"{name} ({world.folder(profile)})", unit="image") as shown:
        with _pool(workers) as spread:
            for encoded in spread(_encode, tasks):
                for data, row in zip(encoded, itertools.islice(files, len(encoded))):
                    (folder / row["file"]).write_bytes(data)
                shown.update(len(encoded))
    write_index(folder, plan.rows)
    write_card(
        folder,
        {
            **recipe(name, profile, world),
            "title": SETS[name].title,
            "description": "Procedurally rendered images of people who do not exist; no photograph was used.",
            "licence": "CC0-1.0 (public domain)",
            "columns": COLUMNS,
            "counts": count(plan.rows),
            "fingerprint": fingerprint(folder),
        },
    )


class _pool:
    """`map` over processes, or in this one: `with _pool(2) as spread: for x in spread(f, tasks)`."""

    def __init__(self, workers):
        self.workers = workers

    def __enter__(self):
        if self.workers == 1:
            self.executor = None
            return map
        # spawn: a notebook that already runs threads must not be forked
        try:
            self.executor = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _begin)
        except OSError as error:
            raise DataError(
                f"no processes can work together here ({error.strerror}): the system keeps semaphores in /dev/shm, "
                "which must be writable; --workers 1 does without"
            ) from error
        return self.executor.map

    def __exit__(self, kind, value, trace):
        if self.executor:
            self.executor.shutdown(wait=True, cancel_futures=kind is not None)


def prepare(out, profile="mini", world=DEVELOPMENT, workers=1, names=None, overwrite=False, progress=True):
    """Make sure that every set of a world exists below `out`; a complete one of the same recipe is kept.

    Args: out (folder), profile, world (worlds.World), workers (processes), names (sets; None for all), overwrite
    (replace a set that differs), progress (show a bar).
    Returns {set: "kept" | "written"}.  Raises DataError where a folder holds something else, or another run holds it.
    """
    root = Path(out) / world.folder(profile)
    return {
        name: replace_folder(
            root / name,
            recipe(name, profile, world),
            overwrite,
            lambda folder, name=name: write_set(folder, name, profile, world, workers, progress),
        )
        for name in (names or SETS)
    }


__all__ = ["PROFILES", "RENDERER", "SETS", "Shot", "World", "plan_set", "prepare", "recipe", "render", "write_set"]

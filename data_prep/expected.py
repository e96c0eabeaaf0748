"""How many images a set will have before it is there: published counts, and the arithmetic of the rendered ones."""

from pathlib import PurePath

from data_prep.published import PUBLISHED
from data_prep.synthetic import PROFILES, sizes_of
from data_prep.worlds import DEVELOPMENT, SETS, read_folder

BYTES_PER_PIXEL = 0.47  # of a JPEG, as the mini profile's came out
PIXELS_PER_SECOND = 2.3e6  # of one process, JPEG included; `data_prep bench` measures it without
WALKS = 4  # cameras that a rendered person walks past, on average


def expected_images(folder):
    """{split: images} of a prepared set by its folder's name, such as data/market1501 or data/mini-w3/duke.

    Exact for published sets (MSMT17 with every image in train) and for rendered ones of five cameras or more; None for
    any other folder.
    """
    *_, parent, name = "", *PurePath(folder).parts
    profile, world = read_folder(parent) or (parent, None)
    if world and profile in PROFILES and name in SETS:
        sizes = sizes_of(name, profile, world)
        views = {
            "train": sizes.train * sizes.per_camera,
            "query": sizes.test,
            "val_query": sizes.val,
            "gallery": sizes.test * (sizes.per_camera - 1),
            "val_gallery": sizes.val * (sizes.per_camera - 1),
        }
        images = {split: WALKS * number for split, number in views.items() if number}
        return {**images, "gallery": images.get("gallery", 0) + sizes.junk + sizes.distractors}
    if name not in PUBLISHED:
        return None
    published = PUBLISHED[name]
    if name == "msmt17":
        return {"train": sum(published.images.values())}
    return {**published.images, "gallery": published.images["gallery"] + published.junk}


def rendering(profile, name, workers, world=DEVELOPMENT):
    """What rendering a set will take, in words: images, size on disk and time."""
    images = sum(expected_images(f"{world.folder(profile)}/{name}").values())
    height, width = world.size or PROFILES[profile].size
    seconds = images * height * width / PIXELS_PER_SECOND / workers
    time = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
    return (
        f"about {images:,} images of {height}x{width}, {images * height * width * BYTES_PER_PIXEL / 1e6:,.0f} MB, "
        f"{time} on {workers} {'process' if workers == 1 else 'processes'}"
    )

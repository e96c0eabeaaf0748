"""How many images a set will have before it is there: published counts, and the arithmetic of the rendered ones."""

from pathlib import PurePath

from data_prep.published import PUBLISHED
from data_prep.synthetic import PROFILES, WORLDS

BYTES_PER_PIXEL = 0.55  # of a JPEG, as the mini profile's came out
PIXELS_PER_SECOND = 3.5e6  # of one process, JPEG included; `data_prep bench` measures it without
WALKS = 4  # each rendered person walks past 3 to 5 cameras


def expected_images(folder):
    """{split: images} of a prepared set by its folder's name, such as data/market1501 or data/gpu/duke.

    Exact for published sets (MSMT17 with every image in train), a mean for rendered ones; None for any other folder.
    """
    *_, parent, name = "", *PurePath(folder).parts
    if parent in PROFILES and name in WORLDS:
        sizes = PROFILES[parent].source if name == "source" else PROFILES[parent].target
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


def rendering(profile, name, workers):
    """What rendering a set will take, in words: images, size on disk and time."""
    images, (height, width) = sum(expected_images(f"{profile}/{name}").values()), PROFILES[profile].size
    seconds = images * height * width / PIXELS_PER_SECOND / workers
    time = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
    return (
        f"about {images:,} images of {height}x{width}, {images * height * width * BYTES_PER_PIXEL / 1e6:,.0f} MB, "
        f"{time} on {workers} {'process' if workers == 1 else 'processes'}"
    )

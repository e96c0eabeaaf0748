"""How near rendered people come to photographs: 17 statistics of a folder of crops, camera by camera.

Images are compared at 128 x 64 (bilinear), as sRGB in 0..1.  The person is looked for in rows 13-114 and columns 20-43,
the background in the outer eight columns on either side.  `photographs.json` holds what street photographs measure.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.market_layout import DataError, read_index
from paul.data.images import read_image

HEIGHT, WIDTH = 128, 64
PERSON = (slice(None), slice(13, 115), slice(20, 44))
EDGES = np.r_[0:8, 56:64]
FREQUENCY = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.fftfreq(WIDTH)[None, :])  # cycles a pixel
HANN = np.hanning(HEIGHT)[:, None] * np.hanning(WIDTH)
RINGS = np.linspace(0.05, 0.4, 15)  # of frequency, over which the spectral slope is fitted
HUES = 36
CHUNK = 100  # images held at once
PHOTOGRAPHS = json.loads((Path(__file__).parent / "photographs.json").read_text(encoding="utf-8"))["statistics"]


def statistics(images):
    """The 17 statistics of some images, {name: number}.

    Args: images (an iterable of uint8 [height, width, 3]).  Figures are means over images, but for the last two, which
    are of all images together: the entropy of their hues, and how much the person's luma varies from image to image.
    """
    images, parts, hues = list(images), [], np.zeros(HUES)
    for first in range(0, len(images), CHUNK):
        rgb = np.stack([_resized(image) for image in images[first : first + CHUNK]])
        figures, counted = _measured(rgb)
        parts.append(figures)
        hues += counted
    each = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    found = {name: float(values.mean()) for name, values in each.items()}
    share = hues[hues > 0] / max(hues.sum(), 1)
    found["hue entropy, bits"] = float(-(share * np.log2(share)).sum())
    found["spread of foreground luma between images"] = float(each["foreground luma"].std())
    return found


def _resized(image):
    return np.asarray(Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)) / 255.0


def _measured(rgb):
    """Of images [N, 128, 64, 3]: ({name: [N]}, number of coloured pixels by hue)."""
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    brightest = rgb.max(3)
    chroma = brightest - rgb.min(3)
    saturation = np.divide(chroma, brightest, out=np.zeros_like(chroma), where=brightest > 0)
    slope = np.hypot(*np.gradient(luma, axis=(1, 2)))
    person, edges = rgb[PERSON].mean((1, 2)), rgb[:, :, EDGES].mean((1, 2))

    def share(of, where=True):
        return np.mean(of, axis=(1, 2), where=where)

    power = np.abs(np.fft.fft2((luma - luma.mean((1, 2), keepdims=True)) * HANN)) ** 2
    ring = np.digitize(FREQUENCY, RINGS)
    radial = np.stack([power[:, ring == number].mean(1) for number in range(1, len(RINGS))], 1)
    middles = np.log((RINGS[1:] + RINGS[:-1]) / 2)
    low, high = np.percentile(luma, (5, 95), axis=(1, 2))
    figures = {
        "background gradient": share(slope[:, :, EDGES]),
        "foreground gradient": share(slope[PERSON]),
        "pixels with gradient above 0.1": share(slope > 0.1),
        "chroma": share(chroma),
        "pixels with chroma above 0.1": share(chroma > 0.1),
        "foreground saturation": share(saturation[PERSON]),
        "foreground luma": share(luma[PERSON]),
        "background luma": share(luma[:, :, EDGES]),
        "foreground-background colour difference": np.abs(person - edges).mean(1),
        "luma deviation": luma.std((1, 2)),
        "luma, 5th percentile": low,
        "luma, 95th percentile": high,
        "pixels with luma below 0.1": share(luma < 0.1),
        "power above 0.2 cycles a pixel": power[:, FREQUENCY > 0.2].sum(1) / np.maximum(power.sum((1, 2)), 1e-300),
        "spectral slope": np.polyfit(middles, np.log(radial + 1e-12).T, 1)[0],
    }
    return figures, np.histogram(_hue(rgb, brightest, chroma)[chroma > 0.05], HUES, (0, 1))[0]


def _hue(rgb, brightest, chroma):
    """The hexagon's angle as a share of its turn: red 0, green 1/3, blue 2/3."""
    red, green, blue = np.moveaxis(rgb, 3, 0)
    width = np.maximum(chroma, 1e-9)
    sector = [((green - blue) / width) % 6, (blue - red) / width + 2, (red - green) / width + 4]
    return np.select([brightest == red, brightest == green], sector[:2], sector[2]) / 6


def by_camera(folder, count):
    """{camera id: statistics} of a prepared set's people, from at most `count` images of each camera.

    Boxes that a detector got wrong (junk and distractors) are left out.  Raises DataError where there are no images.
    """
    files = {}
    for row in read_index(folder):
        if int(row["person_id"]) > 0:
            files.setdefault(int(row["camera_id"]), []).append(Path(folder) / row["file"])
    if not files:
        raise DataError(f"{folder}: no images of people; name a prepared set such as data/mini/market")
    return {
        camera: statistics(read_image(path) for path in _spread(paths, count))
        for camera, paths in sorted(files.items())
    }


def _spread(paths, count):
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[number] for number in chosen]


@dataclass(frozen=True)
class Line:
    """One statistic: its mean over cameras, the photographs', the smallest and largest of the cameras."""

    name: str
    ours: float
    theirs: float
    low: float
    high: float

    @property
    def ratio(self):
        return self.ours / self.theirs

    @property
    def near(self):
        """Within a third of the photographs'."""
        return abs(self.ratio - 1) <= 1 / 3

    @property
    def inside(self):
        """The photographs' lies between cameras."""
        return self.low <= self.theirs <= self.high


def compare(cameras):
    """`by_camera`'s result beside the photographs', as Lines."""
    values = {name: [found[name] for found in cameras.values()] for name in PHOTOGRAPHS}
    return [
        Line(name, float(np.mean(values[name])), theirs, min(values[name]), max(values[name]))
        for name, theirs in PHOTOGRAPHS.items()
    ]


def table(lines):
    """Lines as text."""
    rows = [f"{'':42s} {'ours':>7s} {'photographs':>11s} {'ratio':>6s} {'cameras':>17s}  within a third, inside"]
    for line in lines:
        spread = f"{line.low:.3f} to {line.high:.3f}"
        judged = f"{'yes' if line.near else 'NO':>3s} {'yes' if line.inside else 'NO':>3s}"
        rows.append(f"{line.name:42s} {line.ours:7.3f} {line.theirs:11.3f} {line.ratio:6.2f} {spread:>17s}  {judged}")
    return "\n".join(rows)

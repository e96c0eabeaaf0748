"""Takes the pictures: street, passers-by, shadow, person, occluder, and then the camera's own optics and colours."""

from functools import lru_cache

import numpy as np

from data_prep.occluders import occlude
from data_prep.people import sample_people
from data_prep.render import figures
from data_prep.scene import paint_scene
from data_prep.seeding import rng_for
from data_prep.wardrobe import sample_wardrobe

FILL = 0.94  # a person of box_scale 1 fills this much of the box's height
BYSTANDERS = 8  # passers-by that each camera keeps ready


@lru_cache(maxsize=64)
def studio(camera, size):
    """What a camera's shots share: (scene, passers-by [n, H, W, 4] with coverage last, its 256 x 256 x 3 noise)."""
    rng = rng_for(*camera.key, "bystanders")
    scene = paint_scene(camera, size)
    crowd = int(rng.integers(2**31))  # a crowd of its own, in clothes of its own
    (people,) = sample_people(crowd, 0, sample_wardrobe(crowd, 0, 0.3, 0.0), [BYSTANDERS])
    number = np.arange(BYSTANDERS)
    colour, cover = figures(
        people,
        rng.uniform(0, 2 * np.pi, BYSTANDERS),
        number * 0.8,
        rng.uniform(0.1, 0.5, BYSTANDERS),
        rng.uniform(0.1, 0.5, BYSTANDERS),
        np.full(BYSTANDERS, camera.pitch),
        [camera] * BYSTANDERS,
        np.full(BYSTANDERS, 0.94 * size[0]),
        np.full(BYSTANDERS, size[1] / 2),
        np.full(BYSTANDERS, 0.97 * size[0]),
        size,
    )
    noise = rng.standard_normal((256 + size[0], 256 + size[1], 3), np.float32) * np.float32(0.6)
    noise += rng.standard_normal(noise.shape[:2], np.float32)[..., None] * np.float32(0.8)
    return scene, np.concatenate([colour, cover[..., None]], -1), noise


def render(shots, cameras, size):
    """Take shots.

    Args: shots (a sequence of camera.Shot), cameras (camera.Camera in order of camera id from 1), size (height, width).
    Returns uint8 [B, height, width, 3].
    """
    height, width = size
    taken_by = [cameras[shot.camera_id - 1] for shot in shots]
    pitch = np.array([camera.pitch for camera in taken_by])
    scale = np.array([shot.box_scale for shot in shots]) * FILL * height
    x = width * (0.5 + np.array([shot.box_dx for shot in shots]))
    # the point between the feet: the person's middle (half a height up) lies box_dy off the box's centre
    y = height * (0.5 + np.array([shot.box_dy for shot in shots])) + 0.5 * scale * np.cos(pitch)
    there = np.array([shot.person is not None for shot in shots])
    colour, cover = np.zeros((len(shots), *size, 3), np.float32), np.zeros((len(shots), *size), np.float32)
    if there.any():
        some = [shot for shot in shots if shot.person is not None]
        yaw, phase, stride, lift = np.array([(s.yaw, s.phase, s.stride, s.lift) for s in some]).T
        colour[there], cover[there] = figures(
            [s.person for s in some],
            yaw,
            phase,
            stride,
            lift,
            pitch[there],
            [c for c, t in zip(taken_by, there) if t],
            scale[there],
            x[there],
            y[there],
            size,
        )
    shade = shadows(cover, taken_by, x, y, scale)
    # image by image from here on: one image fits the processor's cache, a batch does not
    return np.stack(
        [
            _finish(shot, camera, colour[i], cover[i], shade[i], x[i], y[i], scale[i], size)
            for i, (shot, camera) in enumerate(zip(shots, taken_by))
        ]
    )


def shadows(cover, cameras, x, y, scale):
    """How much light each pixel of the ground loses [B, H, W]: the silhouette laid flat, and a soft contact."""
    images, height, width = cover.shape
    sun = np.array([camera.sun_from for camera in cameras])
    tilt = np.sin([camera.pitch for camera in cameras]) + 0.1
    strength = np.array([camera.sun for camera in cameras], np.float32)[:, None, None]
    rise = (sun[:, 2] / sun[:, 1] * tilt)[:, None, None]
    rise = np.where(rise < 0, -1, 1) * np.maximum(np.abs(rise), 0.12)
    rows, columns = np.arange(0, height, 2)[:, None] + 1.0, np.arange(0, width, 2)[None, :] + 1.0
    foot, middle = y[:, None, None], x[:, None, None]
    above = (foot - 0.012 * scale[:, None, None] - rows) / rise
    from_x = columns + above * (sun[:, 0] / sun[:, 1])[:, None, None]
    row, column = (foot - above).astype(np.int64), from_x.astype(np.int64)
    inside = (above > 0) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    flat = (np.arange(images)[:, None, None] * height + row) * width + column
    laid = np.where(inside, cover.ravel()[np.where(inside, flat, 0)], 0).astype(np.float32)
    laid[:, 1:-1] = (laid[:, :-2] + 2 * laid[:, 1:-1] + laid[:, 2:]) * 0.25
    laid[:, :, 1:-1] = (laid[:, :, :-2] + 2 * laid[:, :, 1:-1] + laid[:, :, 2:]) * 0.25
    reach = scale[:, None, None]
    there = cover.any((1, 2))[:, None, None]
    contact = there * np.exp(-(((columns - middle) / (0.13 * reach)) ** 2) - ((rows - foot) / (0.028 * reach)) ** 2)
    dark = (laid * strength * 0.9 + contact.astype(np.float32) * 0.45).clip(0, 0.75)
    return dark.astype(np.float32).repeat(2, 1).repeat(2, 2)


def _finish(shot, camera, colour, cover, shade, x, y, scale, size):
    scene, bystanders, noise = studio(camera, size)
    rng = np.random.Generator(np.random.PCG64(shot.key))
    foot_x, foot_y, metre = scene.foot(shot.place)
    step = metre * 1.7 / scale
    image = scene.crop(foot_x + (0.5 - x) * step, foot_y + (0.5 - y) * step, step, size)
    if rng.random() < 0.25:
        _walk_past(rng, image, bystanders, y, scale, camera)
    _smooth(shade, np.float32(0.25))
    image *= ((1 - shade) * (1 - cover))[..., None]
    image += colour
    if shot.occluder != "none":
        occlude(rng, image, shot.occluder, bystanders)
    return develop(rng, image, shot, camera, noise)


def _walk_past(rng, image, bystanders, y, scale, camera):
    """Someone farther away, smaller and higher up in the box, and a little out of focus."""
    height, width = image.shape[:2]
    far = rng.uniform(1.25, 2.4)  # how many times farther than the person
    size = scale / far
    # the horizon lies camera height / person height above the feet; feet move towards it with distance
    base = y - scale * camera.height / 1.7 * (1 - 1 / far)
    person = bystanders[int(rng.integers(len(bystanders)))]
    x = rng.uniform(-0.1, 1.1) * width
    rows = np.arange(max(0, int(base - size * 1.02)), min(height, int(base + size * 0.03)))
    half = size * width / height * 0.5
    columns = np.arange(max(0, int(x - half)), min(width, int(x + half)))
    if not len(rows) or not len(columns):
        return
    r = np.clip((rows - base) / size * 0.94 * height + 0.97 * height, 0, height - 2).astype(np.intp)
    c = np.clip((columns - x) / size * 0.94 * height + 0.5 * width, 0, width - 2).astype(np.intp)
    patch = (person[r][:, c] + person[r + 1][:, c] + person[r][:, c + 1] + person[r + 1][:, c + 1]) * np.float32(0.25)
    view = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    view *= 1 - patch[..., 3:]
    view += patch[..., :3]


def develop(rng, image, shot, camera, noise):
    """The camera's optics, sensor and processing: light float32 [H, W, 3] -> uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    variance = (camera.blur * height / 128) ** 2
    for _ in range(int(np.ceil(variance / 0.6))):
        _smooth(image, np.float32(min(variance, 0.6) / 2))
        variance -= 0.6
    if camera.vignette:
        image *= _vignette(camera.vignette, height, width)
    light = np.asarray(camera.tint) * camera.gain * np.exp(shot.light)
    # written out rather than as a matrix product, whose rounding depends on the processor
    grey = (image[..., 0] + image[..., 1] + image[..., 2]) * np.float32(1 / 3)
    top, left = rng.integers(256, size=2)
    sharp = grey.copy()
    _smooth(sharp, np.float32(0.25))  # halos are of brightness alone
    sharp = (grey - sharp) * np.float32(2 * camera.sharpen) + grey * np.float32(1 - camera.saturation)
    image *= (camera.saturation * light).astype(np.float32)
    image += sharp[..., None] * light.astype(np.float32)
    image += np.float32(camera.noise) * noise[top : top + height, left : left + width]
    np.clip(image, 0, 1, out=image)
    return _curve(camera.gamma, camera.contrast, camera.veil)[(image * np.float32(1023)).astype(np.uint16)]


def _smooth(image, side):
    """Blur by (side, 1 - 2 side, side) along rows and columns, in place."""
    middle = 1 - 2 * side
    inner = image[:-2] + image[2:]
    image[1:-1] *= middle
    image[1:-1] += side * inner
    inner = image[:, :-2] + image[:, 2:]
    image[:, 1:-1] *= middle
    image[:, 1:-1] += side * inner


@lru_cache(maxsize=64)
def _curve(gamma, contrast, veil):
    """The tone curve of 1,024 levels: a power, then that much of the way to a steep S, from a veiled black."""
    level = np.linspace(0, 1, 1024) ** gamma
    low = np.clip((level - 0.03) / 0.90, 0, 1)
    bent = low * low * (3 - 2 * low)
    level = veil + (1 - veil) * np.clip(level + contrast * (bent - level), 0, 1)
    return (level * 255 + 0.5).astype(np.uint8)


@lru_cache(maxsize=64)
def _vignette(strength, height, width):
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    return (1 - strength * (0.6 * x * x + 0.4 * y * y))[..., None].astype(np.float32)

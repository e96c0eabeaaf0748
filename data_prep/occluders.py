"""Things that stand between the camera and a person: a pole, a bicycle, a car's bonnet, somebody's shoulder."""

import numpy as np


def occlude(rng, image, kind, bystanders):
    """Draw an occluder into light [H, W, 3], in place."""
    height, width = image.shape[:2]
    u = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / height  # both in box heights
    v = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    edge = np.float32(height)
    colour = np.clip(rng.uniform(0.12, 0.7) + rng.normal(0, 0.08, 3), 0.05, 0.9).astype(np.float32)
    if kind == "passer-by":
        return _shoulder(rng, image, bystanders)
    {"pole": _pole, "bicycle": _bicycle, "car": _car}[kind](rng, image, u, v, edge, colour)


def _lay(image, cover, colour):
    cover = np.clip(cover, 0, 1)[..., None]
    image *= 1 - cover
    image += cover * colour


def _pole(rng, image, u, v, edge, colour):
    middle, radius = rng.choice((0.07, 0.12, 0.37, 0.43)) + rng.normal(0, 0.02), rng.uniform(0.018, 0.04)
    off = (u - middle) / radius + 0 * v
    tone = 0.5 + 0.6 * np.sqrt(np.clip(1 - off * off, 0, 1)) * (0.8 + 0.2 * np.clip(off, -1, 1))
    _lay(image, (1 - np.abs(off)) * radius * edge + 0.5, colour * tone[..., None])


def _segment(u, v, a, b):
    """Distance of every pixel from the segment a-b."""
    du, dv = b[0] - a[0], b[1] - a[1]
    t = np.clip(((u - a[0]) * du + (v - a[1]) * dv) / (du * du + dv * dv), 0, 1)
    return np.hypot(u - a[0] - t * du, v - a[1] - t * dv)


def _bicycle(rng, image, u, v, edge, colour):
    x, y, r = rng.uniform(0.0, 0.35), rng.uniform(0.84, 0.92), rng.uniform(0.12, 0.15)
    side = rng.choice((-1.0, 1.0))

    def at(du, dv):
        return x + side * du, y + dv

    tyre = np.full(image.shape[:2], np.inf, np.float32)
    frame = tyre.copy()
    for hub in (at(0, 0), at(0.30, 0)):
        distance = np.hypot(u - hub[0], v - hub[1])
        tyre = np.minimum(tyre, np.abs(distance - r))
        angle = np.arctan2(v - hub[1], u - hub[0])
        spokes = (np.abs(np.sin(4 * angle)) * distance * 0.25) + np.where(distance < r, 0, 1)
        _lay(image, 0.35 * np.clip(0.6 - spokes * edge, 0, 1), np.float32(0.6))
    joints = {
        "rear": at(0, 0),
        "front": at(0.30, 0),
        "crank": at(0.12, 0.0),
        "seat": at(0.085, -0.16),
        "head": at(0.25, -0.17),
    }
    for a, b in (
        ("rear", "crank"),
        ("rear", "seat"),
        ("crank", "seat"),
        ("crank", "head"),
        ("seat", "head"),
        ("head", "front"),
    ):
        frame = np.minimum(frame, _segment(u, v, joints[a], joints[b]))
    _lay(image, (0.007 - tyre) * edge + 0.5, np.float32(0.07))
    _lay(image, (0.006 - frame) * edge + 0.5, colour)
    _lay(image, (0.012 - _segment(u, v, at(0.06, -0.19), at(0.11, -0.19))) * edge + 0.5, np.float32(0.1))
    _lay(image, (0.006 - _segment(u, v, at(0.25, -0.17), at(0.235, -0.22))) * edge + 0.5, np.float32(0.25))
    _lay(image, (0.007 - _segment(u, v, at(0.20, -0.225), at(0.265, -0.215))) * edge + 0.5, np.float32(0.1))


def _car(rng, image, u, v, edge, colour):
    side, top = rng.choice((-1.0, 1.0)), rng.uniform(0.72, 0.86)
    reach = side * (u - 0.25) + 0.25
    line = top + 0.35 * np.maximum(0.16 - reach, 0) ** 2 * 20 + 0.02 * reach
    depth = v - line
    tone = 0.75 + 0.55 * np.exp(-(((depth - 0.02) / 0.018) ** 2)) - 0.5 * np.clip(depth / 0.3, 0, 1)
    _lay(image, depth * edge + 0.5, colour * tone[..., None])
    seam = np.abs(depth - 0.055 - 0.03 * reach)
    _lay(image, 0.5 * ((0.003 - seam) * edge + 0.5) * (depth > 0), colour * 0.4)
    lamp = 1 - ((reach - 0.10) / 0.05) ** 2 - ((depth - 0.085) / 0.025) ** 2
    _lay(image, lamp * 3, np.float32(0.85))


def _shoulder(rng, image, bystanders):
    """Somebody nearer to the camera, half in the box."""
    height, width = image.shape[:2]
    person = bystanders[int(rng.integers(len(bystanders)))]
    zoom, side = rng.uniform(1.15, 1.5), rng.choice((-1.0, 1.0))
    shift = side * rng.uniform(0.42, 0.6) * width
    drop = rng.uniform(0.05, 0.35) * height
    r = np.clip((np.arange(height) - drop) / zoom, -1, height - 1).astype(np.intp)
    c = (np.arange(width) - width / 2 - shift) / zoom + width / 2
    inside = (c >= 0) & (c < width)
    patch = person[np.maximum(r, 0)][:, np.clip(c, 0, width - 1).astype(np.intp)]
    patch = patch * (inside[None, :] & (np.arange(height) >= drop)[:, None])[..., None]
    image *= 1 - patch[..., 3:]
    image += patch[..., :3]

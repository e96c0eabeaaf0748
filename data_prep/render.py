"""Draws people: capsules -> fragments -> the nearest per sample -> colours -> image, for a batch of images at once.

Orthographic within a box.  Two samples per pixel on a quincunx (the rows of samples at 1/4 and 3/4 of a pixel are
half a pixel apart), which smooths upright and level edges alike at half the price of a 2 x 2 grid.
"""

from dataclasses import dataclass

import numpy as np

from data_prep.body import pose
from data_prep.paint import paint

# glibc hands arrays above a threshold back to the system when they are freed, and every new one costs page faults; the
# threshold follows the largest array freed so far, so freeing one of nearly its limit (32 MiB) lets them be reused.
np.empty(31 << 20, np.uint8)


@dataclass
class Fragments:
    """The V visible samples: flat sample index, capsule, image, and where on the capsule each lies."""

    sample: np.ndarray
    slot: np.ndarray
    image: np.ndarray
    across: np.ndarray  # -1..1 over the capsule's apparent width
    facing: np.ndarray  # 1 where the surface faces the camera, 0 at the outline
    along: np.ndarray  # the capsule's own coordinate: height for the trunk, 0..1 for limbs
    beyond: np.ndarray  # -1..1 past an end
    shade: np.ndarray
    depth: np.ndarray
    sin: np.ndarray  # of the angle about the body's upright axis: 0 in front, 1 at the body's +x side
    cos: np.ndarray
    normal: tuple  # x right, y up, z to the camera; not normalised


def trace(capsules, yaw, pitch, scale, x, y, size):
    """The nearest surface at every sample.

    Args: capsules (body.Capsules, S x B), yaw and pitch [B] in radians, scale [B] (pixels per person height),
    x and y [B] (where the point between the feet lies, in pixels), size (height, width).
    Returns Fragments; `sample` indexes a [B, 2*height, width] grid.
    """
    height, width = size
    rows = 2 * height
    sin, cos = np.sin(yaw), np.cos(yaw)
    tilt, rise = np.sin(pitch), np.cos(pitch)

    def project(point):
        across = point[..., 0] * cos + point[..., 2] * sin
        toward = point[..., 2] * cos - point[..., 0] * sin
        return (
            x + scale * across,
            y - scale * (point[..., 1] * rise - toward * tilt),
            scale * (point[..., 1] * tilt + toward * rise),
        )

    x0, y0, z0 = project(capsules.low)
    x1, y1, z1 = project(capsules.high)
    # the elliptic cross-section as seen from `yaw`: apparent width, and depth as a linear map of (across, facing)
    ratio = np.sqrt(cos**2 + (capsules.deep * sin) ** 2)
    skew = (capsules.deep**2 - 1) * sin * cos / ratio**2
    bulge = capsules.deep / ratio**2
    w0, w1 = capsules.wide[..., 0] * ratio * scale, capsules.wide[..., 1] * ratio * scale
    dx, dy = x1 - x0, y1 - y0
    length = np.maximum(np.hypot(dx, dy), 1e-3)
    ux, uy = dx / length, dy / length
    flip = np.where(uy > 0, -1.0, 1.0)
    table = (
        np.stack(
            [
                x0,
                y0,
                ux,
                uy,
                1 / length,
                length,
                w0,
                w1 - w0,
                1 / np.maximum(w0 * capsules.cap[..., 0], 0.3),
                1 / np.maximum(w1 * capsules.cap[..., 1], 0.3),
                z0,
                z1 - z0,
                skew,
                bulge,
                flip,
            ]
        )
        .astype(np.float32)
        .reshape(15, -1)
    )

    # scan conversion: per capsule its rows, per row a span that surely covers it
    live = np.flatnonzero(capsules.present.ravel())
    a, b = np.abs(table[2, live]), np.abs(table[3, live])
    reach0, reach1 = (
        w * np.hypot(a, b * cap) + 0.3
        for w, cap in (
            (w0.ravel()[live], capsules.cap[..., 0].ravel()[live]),
            (w1.ravel()[live], capsules.cap[..., 1].ravel()[live]),
        )
    )
    low = np.minimum(y0.ravel()[live] - reach0, y1.ravel()[live] - reach1)
    high = np.maximum(y0.ravel()[live] + reach0, y1.ravel()[live] + reach1)
    first = np.clip(np.floor(2 * low).astype(np.int64), 0, rows)
    count = np.clip(np.ceil(2 * high).astype(np.int64), 0, rows) - first
    live, first, count = (v[count > 0] for v in (live, first, count))
    span = np.repeat(np.arange(len(live)), count)
    row = np.arange(len(span)) - np.repeat(np.cumsum(count) - count, count) + first[span]
    which = live[span]
    p = table[:, which]
    level = row.astype(np.float32) * 0.5 + 0.25
    wide = np.maximum(p[6], p[6] + p[7])
    steep = p[3] * p[5]
    steep = np.where(np.abs(steep) < 0.05, 0.05, steep)
    lean = np.abs(p[2]) * wide + 0.3
    t0, t1 = np.clip((level - lean - p[1]) / steep, 0, 1), np.clip((level + lean - p[1]) / steep, 0, 1)
    wide = p[6] + p[7] * np.where(p[7] > 0, np.maximum(t0, t1), np.minimum(t0, t1)) + 0.3
    xa, xb = p[0] + p[2] * p[5] * t0, p[0] + p[2] * p[5] * t1
    begin = np.clip(np.floor(np.minimum(xa, xb) - wide).astype(np.int64), 0, width)
    number = np.clip(np.ceil(np.maximum(xa, xb) + wide).astype(np.int64), 0, width) - begin
    keep = number > 0
    row, which, level, begin, number = (v[keep] for v in (row, which, level, begin, number))
    p = table[:, which]
    image = which % len(yaw)
    base = (image * rows + row) * width + begin
    line = np.repeat(np.arange(len(row)), number)
    step = np.arange(len(line)) - np.repeat(np.cumsum(number) - number, number)

    # per row the start and the slope of each linear function of x, then one fused evaluation per fragment
    px, py = begin + np.where(row % 2, 0.75, 0.25).astype(np.float32) - p[0], level - p[1]
    start = np.stack([(px * p[2] + py * p[3]) * p[4], p[2] * p[4], p[14] * (py * p[2] - px * p[3]), -p[14] * p[3]])
    start, step_f = start.astype(np.float32), step.astype(np.float32)
    raw = start[0].take(line) + start[1].take(line) * step_f
    off = start[2].take(line) + start[3].take(line) * step_f
    t = np.clip(raw, 0, 1)
    beyond = raw - t
    beyond *= np.where(beyond < 0, (p[5] * p[8]).take(line), (p[5] * p[9]).take(line))
    half = p[6].take(line) + p[7].take(line) * t
    across = off / half
    facing = 1 - across * across - beyond * beyond
    hit = np.flatnonzero(facing > 0)
    line, t, across, beyond, half = line[hit], t[hit], across[hit], beyond[hit], half[hit]
    facing = np.sqrt(facing[hit])
    sample = base[line] + step[hit]
    depth = p[10].take(line) + p[11].take(line) * t + half * (p[12].take(line) * across + p[13].take(line) * facing)

    # the fragments come capsule by capsule, and no capsule meets a sample twice: one pass per capsule
    nearest = np.full(len(yaw) * rows * width, -1e9, np.float32)
    winner = np.full(len(nearest), -1, np.int32)
    ends = np.searchsorted(line, np.searchsorted(which, np.arange(capsules.deep.shape[0] + 1) * len(yaw)))
    for begin, end in zip(ends[:-1], ends[1:]):
        where = sample[begin:end]
        front = depth[begin:end] > nearest[where]
        where = where[front]
        nearest[where] = depth[begin:end][front]
        winner[where] = np.arange(begin, end, dtype=np.int32)[front]
    seen = np.flatnonzero(winner >= 0)
    pick = winner[seen]
    line, t, across, beyond, facing = line[pick], t[pick], across[pick], beyond[pick], facing[pick]
    which, image = which[line], image[line]
    skew, bulge, ratio = table[12][which], table[13][which], ratio.astype(np.float32).ravel()[which]
    lateral, toward = across, skew * across + bulge * facing
    s, c = sin[image].astype(np.float32), cos[image].astype(np.float32)
    deep = capsules.deep.ravel()[which]
    nz = facing / bulge
    nl = (across - skew * nz) * table[14][which]
    ux, uy = table[2][which], table[3][which]
    (a0, a1), (s0, s1) = (v.reshape(-1, 2).T.copy() for v in (capsules.along, capsules.shade))
    return Fragments(
        seen,
        which // len(yaw),
        image,
        across,
        facing,
        a0[which] + (a1 - a0)[which] * t,
        beyond,
        s0[which] + (s1 - s0)[which] * t,
        depth[pick],
        ratio * (c * lateral - s * toward),
        ratio * (s * lateral + c * toward) / deep,
        (-uy * nl + ux * beyond, -(ux * nl + uy * beyond), nz),
    )


def figures(people, yaw, phase, stride, lift, pitch, cameras, scale, x, y, size):
    """Draw B people.

    Args: people (people.Person), then arrays [B]: yaw, phase, stride, lift, pitch (radians, see body.pose), cameras
    (whose light falls on them), scale (pixels per person height), x and y (the point between the feet, in pixels).
    Returns colours float32 [B, H, W, 3], already multiplied by coverage, and coverage [B, H, W].
    """
    form = {name: np.array([person.form[name] for person in people]) for name in people[0].form}
    capsules = pose(form, phase, stride, lift)
    seen = trace(capsules, yaw, pitch, scale, x, y, size)
    rgb = paint(seen, capsules, form, np.stack([person.colours for person in people]), cameras)
    height, width = size
    grid = np.zeros((len(people) * 2 * height * width, 4), np.float32)
    grid[seen.sample, :3], grid[seen.sample, 3] = rgb.T, 1
    grid = grid.reshape(len(people), height, 2, width, 4)
    grid = (grid[:, :, 0] + grid[:, :, 1]) * np.float32(0.5)
    return grid[..., :3], grid[..., 3]

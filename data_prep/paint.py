"""Colours what the camera sees of a person: cloth, prints, faces, straps, and the light on them."""

from functools import lru_cache

import numpy as np
from PIL import Image

from data_prep.body import ARM, HAIR, HEAD, LEG, PACK, PARTS, SKIRT, TORSO
from data_prep.people import MATERIAL
from data_prep.seeding import rng_for


def paint(seen, capsules, form, colours, cameras):
    """Colours [3, V] of visible fragments, float32 in 0..1 or a little above."""
    image, slot = seen.image, seen.slot
    part = capsules.part[slot]
    material = capsules.material[slot].copy()
    form = {name: value.astype(np.float32) for name, value in form.items()}
    v, front, side = seen.along, seen.cos, seen.sin

    def among(*parts):
        chosen = np.zeros(PARTS, bool)
        chosen[list(parts)] = True
        return chosen[part]

    def on(*parts):
        return np.flatnonzero(among(*parts))

    at = on(ARM)
    material[at[v[at] > form["sleeve_end"][image[at]]]] = MATERIAL["skin"]
    at = on(LEG)
    material[at[v[at] > form["leg_end"][image[at]]]] = MATERIAL["skin"]

    at = on(HEAD)  # hair grows down to the nape, and to the temples
    grown = form["hair_style"][image[at]] < 3.5
    grown &= (front[at] < 0.15 + 0.25 * np.abs(side[at])) & (v[at] > 0.892) | (v[at] > 0.944 + 0.006 * side[at])
    material[at[grown]] = MATERIAL["hair"]

    # cloth patterns on the trunk, the sleeves and the skirt of a coat
    at = np.flatnonzero(material == MATERIAL["top"])
    here = image[at]
    angle = np.arctan2(side[at], front[at])
    run = np.where(part[at] == ARM, v[at] * 0.36, v[at])
    period, kind = form["period"][here], form["texture"][here]
    level, turn = run / period, angle * 0.1 / period
    level_on, turn_on = level - np.floor(level) < 0.45, turn - np.floor(turn) < 0.4
    second = np.select(
        [kind == 1, kind == 2, kind == 3, kind == 4, kind == 5],
        [
            level_on,
            turn_on,
            level_on ^ turn_on,
            np.where(part[at] == ARM, run > 0.12, run < 0.68),
            (level - np.floor(level) < 0.4) & (turn - np.floor(turn) < 0.35),
        ],
        False,
    )
    material[at[second]] = MATERIAL["top2"]

    at = on(TORSO)
    here = image[at]
    wide, tall = side[at], v[at]
    is_front = front[at] > 0
    opening = form["is_open"][here] * (0.24 + 0.9 * np.maximum(tall - 0.66, 0))
    inner = is_front & (np.abs(wide) < opening)
    logo = (np.abs(tall - form["print_y"][here]) < form["print_h"][here]) & (np.abs(wide) < form["print_w"][here])
    logo &= np.where(is_front, form["print_front"][here], form["print_back"][here]) > 0.5
    neck = is_front & (tall > 0.80) & (np.abs(wide) < 0.9 * (tall - 0.79) / 0.045 * 0.45)
    straps = is_front & (form["has_pack"][here] > 0.5) & (np.abs(np.abs(wide) - 0.52) < 0.10) & (tall > 0.64)
    sling = (form["bag_style"][here] == 2) & (np.abs(wide * form["side"][here] * -0.1 - (tall - 0.69) * 0.8) < 0.012)
    zip_ = is_front & (np.abs(wide) < 0.045) & ((form["is_hoodie"] + form["is_coat"] + form["is_shirt"])[here] > 0.5)
    hem = tall < 0.515 - 0.06 * (form["hem"][here] - 0.5)
    for where, name in (
        (zip_, "seam"),
        (hem, "seam"),
        (inner, "inner"),
        (logo, "print"),
        (neck, "skin"),
        (straps, "pack"),
        (sling, "bag"),
    ):
        material[at[where]] = MATERIAL[name]
    rgb = colours[image, material].T.copy()

    at = np.flatnonzero((part == HEAD) & (material == MATERIAL["skin"]))
    rgb[:, at] *= features(side[at], front[at], v[at] + 0.006 * (form["head"][image[at]] - 1), form["beard"][image[at]])

    # light
    nx, ny, nz = seen.normal
    limb = among(ARM, LEG)
    run = np.where(limb, v * 0.45, v)
    bent = np.where(limb, 0.7 + 0.9 * np.exp(-(((v - 0.5) / 0.16) ** 2)), 1.0)  # cloth bunches at elbows and knees
    bent *= form["fold"][image] * (material != MATERIAL["skin"]) * among(ARM, LEG, TORSO, SKIRT, PACK, HAIR)
    bent[part == HAIR] *= 0.9
    turn = np.arctan2(side, front) * (CREASES / 6.2832)
    start = form["fold_phase"][image] * 40 + 37.0 * seen.slot * limb
    down = run * np.where(part == HAIR, 90, 300) + np.where(limb, 0.25, 0.8) * np.abs(turn) + start
    turn = turn * np.where(part == HAIR, 3, 1) + start
    crease = creases()[down.astype(np.int64) % CREASES, turn.astype(np.int64) % CREASES]
    crease = crease * bent
    nx, ny = nx + 0.14 * crease, ny + 0.16 * crease
    size = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-6)
    sun = np.array([camera.sun_from for camera in cameras], np.float32)
    sun /= np.linalg.norm(sun, axis=1, keepdims=True)
    strength = np.array([(camera.ambient, 0.35 + camera.sun) for camera in cameras], np.float32)
    lit = nx * sun[image, 0] + ny * sun[image, 1] + nz * sun[image, 2]
    lit = np.maximum(lit * size, 0)
    sky = (0.78 + 0.22 * ny * size) * (0.55 + 0.45 * seen.facing) * np.clip(1 + 0.14 * crease, 0.6, 1.4)
    # even black cloth sends some light back
    return (rgb + 0.015) * ((strength[image, 0] * sky + strength[image, 1] * lit) * seen.shade)


CREASES = 256  # rows and columns of the crease map, which repeats


@lru_cache(maxsize=1)
def creases():
    """How cloth catches light where it folds: about unit deviation [CREASES, CREASES], the same for everybody.

    Ridges of smooth noise, lit from one side.
    """
    rng, height = rng_for("creases"), np.zeros((CREASES, CREASES), np.float32)
    for rows, columns, strength in ((6, 5, 1.0), (14, 9, 0.5), (36, 18, 0.25)):
        coarse = np.pad(rng.standard_normal((rows, columns)), 2, mode="wrap").astype(np.float32)
        tall, wide = CREASES * (rows + 4) // rows, CREASES * (columns + 4) // columns
        fine = np.asarray(Image.fromarray(coarse).resize((wide, tall), Image.Resampling.BICUBIC))
        top, left = 2 * CREASES // rows, 2 * CREASES // columns
        height += strength * (1 - np.abs(fine[top : top + CREASES, left : left + CREASES]))
    lit = height - np.roll(height, (-5, -3), (0, 1))
    return (lit / lit.std()).astype(np.float32)


def features(side, front, v, beard):
    """What of a face is left at this size: dark sockets, a lit nose, a shadow under it, a mouth, a chin's shade."""

    def blob(x, y, wide, tall):
        return np.exp(-(((side - x) / wide) ** 2) - ((v - y) / tall) ** 2)

    dark = 0.55 * (blob(-0.36, 0.9285, 0.2, 0.006) + blob(0.36, 0.9285, 0.2, 0.006))
    dark += 0.30 * blob(0, 0.907, 0.22, 0.004) + 0.40 * blob(0, 0.899, 0.3, 0.0035)
    dark += (0.25 + 0.45 * beard) * np.exp(-(((v - 0.885) / 0.012) ** 2)) - 0.18 * blob(0, 0.916, 0.14, 0.010)
    tone = 1 - np.clip(dark, -0.3, 0.75) * (front > 0.1)
    return np.stack([tone, tone - 0.03 * (1 - tone), tone - 0.05 * (1 - tone)])

"""Colours what the camera sees of a person: cloth, prints, faces, straps, and the light on them."""

import numpy as np

from data_prep.body import ARM, HEAD, LEG, SKIRT, TORSO
from data_prep.people import MATERIAL


def paint(seen, capsules, form, colours, cameras):
    """Colours [3, V] of visible fragments, float32 in 0..1 or a little above."""
    image, slot = seen.image, seen.slot
    part = capsules.part[slot]
    material = capsules.material[slot].copy()
    form = {name: value.astype(np.float32) for name, value in form.items()}
    v, front, side = seen.along, seen.cos, seen.sin

    def on(*parts):
        return np.flatnonzero(np.isin(part, parts))

    at = on(ARM)
    material[at[v[at] > form["sleeve_end"][image[at]]]] = MATERIAL["skin"]
    at = on(LEG)
    material[at[v[at] > form["leg_end"][image[at]]]] = MATERIAL["skin"]

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
    for where, name in ((inner, "inner"), (logo, "print"), (neck, "skin"), (straps, "pack"), (sling, "bag")):
        material[at[where]] = MATERIAL[name]
    rgb = colours[image, material].T.copy()

    at = on(HEAD)
    eyes = (front[at] > 0.3) & (np.abs(np.abs(side[at]) - 0.36) < 0.15) & (np.abs(v[at] - 0.927) < 0.005)
    mouth = (front[at] > 0.3) & (np.abs(side[at]) < 0.25) & (np.abs(v[at] - 0.899) < 0.003)
    rgb[:, at[eyes]] *= 0.3
    rgb[:, at[mouth]] *= np.array([[0.8], [0.5], [0.5]], np.float32)

    # light
    nx, ny, nz = seen.normal
    fold = form["fold"][image] * np.isin(part, (ARM, LEG, TORSO, SKIRT))
    run = np.where(np.isin(part, (ARM, LEG)), v * 0.4, v)
    start = form["fold_phase"][image]
    wave = np.sin(run * 68 + 4 * side + start) * (0.5 + 0.5 * np.sin(run * 31 - 3 * side + 2.3 * start)) * fold
    nx, ny = nx + 0.35 * wave, ny + 0.45 * wave
    size = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-6)
    sun = np.array([camera.sun_from for camera in cameras], np.float32)
    sun /= np.linalg.norm(sun, axis=1, keepdims=True)
    strength = np.array([(camera.ambient, 0.35 + camera.sun) for camera in cameras], np.float32)
    lit = nx * sun[image, 0] + ny * sun[image, 1] + nz * sun[image, 2]
    lit = np.maximum(lit * size, 0)
    sky = (0.78 + 0.22 * ny * size) * (0.7 + 0.3 * seen.facing)
    return rgb * ((strength[image, 0] * sky + strength[image, 1] * lit) * seen.shade)

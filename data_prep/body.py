"""Poses people: attributes and gait -> tapered elliptic capsules, for a whole batch at once.

Body frame, in units of the person's height: x to the person's left as the camera sees a frontal view to the right,
y up from the ground, z to the front.  A capsule goes from `low` to `high`; `wide` is its half-width along x at either
end, `deep` the ratio of its half-depth to that, `cap` how far each end bulges out (1 a half-sphere, 0.1 cut flat).
"""

from dataclasses import dataclass

import numpy as np

from data_prep.people import MATERIAL

PARTS = 10
PLAIN, HEAD, TORSO, ARM, LEG, PACK, SKIRT, SHOE, HAIR, HAT = range(PARTS)


@dataclass
class Capsules:
    """S capsules for each of B people: ends [S,B,3], wide [S,B,2], deep [S,B], along [S,B,2], shade [S,B,2], ..."""

    low: np.ndarray
    high: np.ndarray
    wide: np.ndarray
    deep: np.ndarray
    cap: np.ndarray
    along: np.ndarray
    shade: np.ndarray
    present: np.ndarray
    part: np.ndarray
    material: np.ndarray


def pose(form, phase, stride, lift):
    """Capsules of B people.

    Args: form {name: [B]} (people.Person.form, stacked), phase [B] of the gait in radians, stride [B] (0 standing to
    about 0.5 radians), lift [B] (how much the arms are bent, in radians).  Returns Capsules.
    """
    made = []
    ones = np.ones_like(phase)
    stride = stride * (1 - 0.45 * np.maximum(form["is_coat"], form["is_skirt"]))  # cloth shortens the step
    girth, hips, shoulders = form["girth"], form["hips"] * form["girth"] ** 0.8, form["shoulders"]
    lean = form["stoop"] + 0.08 * stride

    def add(low, high, wide, deep, cap, part, material, along=(0, 1), shade=(1, 1), present=True):
        full = [np.stack([ones * v for v in group], -1) for group in (low, high, wide, cap, along, shade)]
        made.append(
            (
                full[0],
                full[1],
                full[2],
                deep * ones,
                full[3],
                full[4],
                full[5],
                (present * ones) > 0.5,
                part,
                MATERIAL[material],
            )
        )

    def tip(y):  # the trunk leans forward from the hips
        return np.maximum(y - 0.52, 0.0) * lean

    def trunk(y0, y1, w0, w1, deep, cap, part, material, z=0.0, **more):
        add((0, y0, tip(y0) + z), (0, y1, tip(y1) + z), (w0, w1), deep, cap, part, material, along=(y0, y1), **more)

    coat, skirt = form["is_coat"], form["is_skirt"]
    # trunk
    trunk(0.475, 0.54, 0.078 * hips, 0.088 * hips, 0.74, (0.6, 0.5), PLAIN, "bottom", shade=(0.8, 1))
    low = 0.505 - 0.06 * form["hem"]  # tops hang over the waistband
    trunk(low, 0.60, 0.099 * hips, 0.092 * girth, 0.74, (0.12, 0.5), TORSO, "top", shade=(0.88, 1))
    trunk(0.60, 0.70, 0.092 * girth, 0.101 * girth**0.7 * shoulders, 0.70, (0.5, 0.5), TORSO, "top")
    trunk(0.70, 0.775, 0.101 * girth**0.7 * shoulders, 0.110 * shoulders, 0.64, (0.5, 0.32), TORSO, "top")
    trunk(0.778, 0.846, 0.116 * shoulders, 0.040, 0.60, (0.3, 0.3), TORSO, "top")
    trunk(0.80, 0.875, 0.044 * girth**0.5, 0.033, 1.0, (0.5, 0.5), PLAIN, "skin", z=0.002, shade=(0.75, 0.55))
    trunk(0.815, 0.858, 0.056, 0.047, 0.95, (0.6, 0.3), PLAIN, "top", present=form["collar"], shade=(0.75, 1))
    trunk(0.812, 0.846, 0.058, 0.050, 0.95, (0.7, 0.7), PLAIN, "scarf", present=form["has_scarf"])
    trunk(0.79, 0.825, 0.062, 0.050, 0.9, (0.8, 0.6), PLAIN, "top", z=-0.035, present=form["is_hoodie"], shade=(0.9, 1))
    hem = 0.51 - form["coat"] * 0.75
    trunk(hem, 0.575, 0.118 * hips, 0.102 * hips, 0.86, (0.08, 0.3), SKIRT, "top", present=coat, shade=(0.9, 1))
    hem = 0.50 - form["skirt"]
    trunk(hem, 0.57, 0.126 * hips, 0.098 * hips, 0.95, (0.08, 0.3), SKIRT, "bottom", present=skirt * (1 - coat))

    # head, hair, hat
    head, style = form["head"], form["hair_style"]
    trunk(0.888, 0.945, 0.040 * head, 0.047 * head, 1.18, (1, 1), HEAD, "skin", z=0.010, shade=(0.85, 1))
    big = head * form["hair_big"]
    trunk(
        0.934 - 0.008 * form["fringe"],
        0.956,
        0.051 * big,
        0.048 * big,
        1.14,
        (0.7, 1),
        HAIR,
        "hair",
        z=-0.004,
        present=style < 3.5,
    )
    trunk(0.888, 0.935, 0.040 * big, 0.051 * big, 0.98, (0.4, 0.5), HAIR, "hair", z=-0.016, present=style < 3.5)
    trunk(
        form["hair_low"], 0.93, 0.054 * big, 0.055 * big, 0.72, (0.5, 0.8), HAIR, "hair", z=-0.030, present=style == 1
    )
    trunk(0.955, 0.975, 0.024, 0.022, 1.0, (1, 1), HAIR, "hair", z=-0.046, present=style == 2)
    add(
        (0, 0.80, tip(0.8) - 0.075),
        (0, 0.93, tip(0.9) - 0.045),
        (0.011, 0.019),
        1.0,
        (1, 1),
        HAIR,
        "hair",
        present=style == 3,
    )
    hat = form["hat_style"]
    trunk(0.945, 0.969, 0.052 * head, 0.046 * head, 1.14, (0.25, 0.8), HAT, "hat", z=0.004, present=hat > 0.5)
    trunk(
        0.944,
        0.950,
        0.036 * head,
        0.036 * head,
        1.2,
        (0.1, 0.1),
        PLAIN,
        "hat",
        z=0.052,
        present=hat == 1,
        shade=(0.75, 0.95),
    )

    # legs: side -1 and 1, opposite in phase
    for side in (-1.0, 1.0):
        thigh = stride * np.sin(phase) * side
        bend = stride * (0.35 + 1.1 * np.maximum(0.0, np.cos(phase) * side))
        hip = (side * 0.046 * hips, 0.505, 0.0)
        knee = (side * 0.046, hip[1] - 0.225 * np.cos(thigh), 0.225 * np.sin(thigh))
        shin = thigh - bend
        ankle = (side * 0.043, knee[1] - 0.235 * np.cos(shin), knee[2] + 0.235 * np.sin(shin))
        loose = 1.0 + (0.06 + 0.26 * form["loose"] ** 2) * (form["leg_end"] > 0.9)
        add(
            knee,
            hip,
            (0.040 * girth**0.6 * loose, 0.062 * girth**0.9),
            1.05,
            (0.9, 0.6),
            LEG,
            "bottom",
            (0.5, 0.02),
            (1, 0.72),
        )
        add(
            ankle,
            knee,
            (0.029 * loose**1.5, 0.040 * girth**0.6 * loose),
            1.08,
            (0.4, 0.9),
            LEG,
            "bottom",
            (1.0, 0.5),
            (0.9, 1),
        )
        toe = ankle[1] - 0.04
        add(
            (ankle[0] + side * 0.004, toe, ankle[2] + 0.026),
            (ankle[0], toe + 0.026, ankle[2] + 0.014),
            (0.027, 0.023),
            2.15,
            (0.25, 0.5),
            SHOE,
            "shoe",
            (0, 1),
            (0.8, 1),
        )
        add(
            (ankle[0], toe + 0.01, ankle[2]),
            (ankle[0], ankle[1] + 0.01, ankle[2]),
            (0.026, 0.024),
            1.15,
            (0.3, 0.4),
            SHOE,
            "shoe",
            (0.3, 1.2),
            (0.9, 0.9),
        )

    # arms swing against the legs
    for side in (-1.0, 1.0):
        swing = -0.9 * stride * form["swing"] * np.sin(phase) * side + 0.03
        out = 0.10 + 0.05 * girth
        elbow_bend = np.where((lift > 1) & (form["side"] == side), 0.1, lift) + 0.25 * stride  # one hand stays down
        top = (side * 0.096 * shoulders, 0.766, tip(0.766))
        elbow = (
            top[0] + side * 0.165 * np.sin(out),
            top[1] - 0.165 * np.cos(out) * np.cos(swing),
            top[2] + 0.165 * np.sin(swing),
        )
        fore = swing + elbow_bend
        wrist = (elbow[0] - side * 0.008, elbow[1] - 0.145 * np.cos(fore), elbow[2] + 0.145 * np.sin(fore))
        hand = (wrist[0], wrist[1] - 0.034 * np.cos(fore), wrist[2] + 0.034 * np.sin(fore))
        bulk = girth**0.5 * (1 + 0.25 * (form["sleeve_end"] > 0.9))
        add(elbow, top, (0.028 * bulk, 0.034 * bulk), 1.05, (0.9, 0.7), ARM, "top", (0.5, 0.0), (0.95, 0.95))
        add(wrist, elbow, (0.022 * bulk, 0.029 * bulk), 1.05, (0.3, 0.9), ARM, "top", (1.0, 0.5), (1, 0.95))
        add(hand, wrist, (0.015, 0.017), 0.9, (0.9, 0.5), PLAIN, "skin", (0, 1), (0.95, 0.9))
        carries = (form["bag_style"] == 1) & (form["side"] == side)
        add(
            (hand[0], hand[1] - 0.02 - 0.085 * form["bag_big"], hand[2]),
            (hand[0], hand[1] - 0.015, hand[2]),
            (0.026 * form["bag_big"], 0.018 * form["bag_big"]),
            2.4,
            (0.15, 0.15),
            PLAIN,
            "bag",
            (0, 1),
            (0.85, 1),
            carries,
        )

    # what is worn on the back or at the hip
    deep, pack = 0.068 * girth**0.7, form["pack"]
    trunk(
        0.60,
        0.775,
        0.078 * pack,
        0.066 * pack,
        0.62,
        (0.35, 0.45),
        PACK,
        "pack",
        z=-deep - 0.038,
        present=form["has_pack"],
        shade=(0.85, 1),
    )
    trunk(
        0.61,
        0.67,
        0.060 * pack,
        0.056 * pack,
        0.40,
        (0.2, 0.2),
        PLAIN,
        "pack2",
        z=-deep - 0.076 - 0.02 * (pack - 1),
        present=form["has_pack"],
    )
    hip = form["side"] * 0.105 * hips
    add(
        (hip, 0.45, 0.01),
        (hip, 0.55, 0.01),
        (0.026, 0.024),
        3.0,
        (0.2, 0.2),
        PLAIN,
        "bag",
        (0, 1),
        (0.85, 1),
        form["bag_style"] == 2,
    )
    columns = list(zip(*made))
    return Capsules(
        *(np.stack(c).astype(np.float32) for c in columns[:7]),
        np.stack(columns[7]),
        np.array(columns[8]),
        np.array(columns[9]),
    )

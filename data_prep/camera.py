"""A camera: where it looks from, what it does to colours, and the shots it takes."""

from dataclasses import dataclass

import numpy as np

from data_prep.people import Person
from data_prep.seeding import rng_for


@dataclass(frozen=True)
class Camera:
    """One camera of a set; angles in radians, colours as multipliers, `key` seeds its scene.

    contrast: how far the tone curve bends to an S; veil: where its black begins; blur: of the lens, in pixels at 128
    rows; sharpen: how much of what a blur takes away the camera adds again; quality: of its JPEG."""

    camera_id: int
    key: tuple
    height: float
    pitch: float
    heading: float
    tint: tuple
    gain: float
    gamma: float
    saturation: float
    contrast: float
    veil: float
    blur: float
    sharpen: float
    noise: float
    quality: int
    vignette: float
    sun: float
    sun_from: tuple
    ambient: float
    occlusion: float


@dataclass(frozen=True)
class Shot:
    """One image to take.  box_dx and box_dy: where the person's centre lies off the box's centre, in box widths (right)
    and heights (down); box_scale: the person's size over the size that fits; yaw in radians, 0 facing the camera."""

    person: Person | None
    camera_id: int
    yaw: float
    phase: float
    stride: float
    lift: float
    box_dx: float
    box_dy: float
    box_scale: float
    place: tuple
    light: float
    occluder: str
    key: int

    def truth(self):
        """The truth columns of the index about this image."""
        return {
            "box_dx": round(self.box_dx, 4),
            "box_dy": round(self.box_dy, 4),
            "box_scale": round(self.box_scale, 4),
            "yaw": round(float(np.degrees(self.yaw)) % 360, 1),
            "occluder": self.occluder,
        }


def sample_camera(rng, camera_id, gap, key):
    """Draw a camera; `key` (world, set, camera) names it.

    The draws do not depend on `gap`, which only scales how far they lie from neutral, so difficulty grows with it
    without jumps.  Which way a gap goes is the set's own: near the development world's, and the same for its cameras.
    """
    draw = rng.standard_normal(16)
    far = gap * (GAP + 0.35 * np.abs(GAP) * rng_for(*key[:2], "way of the gap").standard_normal(len(GAP)))
    spread = 1.0 + 0.6 * gap
    warm = 0.02 * spread * draw[0] + far[0]  # light is warm or cold, and hardly ever green or purple
    tint = 1.0 + np.clip(warm * np.array((1.0, -0.1, -0.9)) + 0.012 * draw[[1, 2, 13]], -0.4, 0.4)
    angle = rng.uniform(0, 2 * np.pi)
    height = float(np.clip(2.3 + 0.5 * draw[3] + far[1], 1.4, 4.8))
    sunny = rng.random() < 0.5
    return Camera(
        camera_id,
        key,
        height=height,
        pitch=float(np.arctan((height - 0.9) / 6.5)),
        heading=float(rng.uniform(0, 2 * np.pi)),
        tint=tuple((tint / tint.mean()).tolist()),
        gain=float(np.clip(1.03 + 0.08 * spread * draw[4] + far[2], 0.5, 1.6)),
        gamma=float(np.exp(np.clip(0.08 * spread * draw[5] + far[3], -0.7, 0.9))),
        saturation=float(np.clip(0.86 * np.exp(0.22 * spread * draw[6]) + far[4], 0.25, 1.5)),
        contrast=float(np.clip(0.45 + 0.15 * spread * draw[7] + far[5], 0.0, 1.2)),
        veil=float(np.clip(0.050 + 0.025 * draw[12], 0.0, 0.14)),
        blur=float(np.clip(0.25 + 0.16 * abs(draw[8]) + far[6], 0.15, 1.3)),
        sharpen=float(np.clip(0.68 + 0.35 * draw[10] + far[7], 0.0, 1.9)),
        noise=float(np.clip(0.005 + 0.004 * abs(draw[9]) + far[8], 0.004, 0.06)),
        quality=int(np.clip(86 + 6 * draw[11], 68, 96)),
        vignette=float(rng.uniform(0, 0.25)),
        sun=float(rng.uniform(0.45, 0.8) if sunny else rng.uniform(0.05, 0.3)),
        sun_from=(float(np.cos(angle) * 0.6), float(rng.uniform(0.5, 1.0)), float(abs(np.sin(angle)) * 0.6 + 0.3)),
        ambient=float(rng.uniform(0.40, 0.54) if sunny else rng.uniform(0.44, 0.68)),
        occlusion=0.06,
    )


# a gap of 1, in the units of: tint, height, gain, log gamma, saturation, contrast, blur, sharpen, noise
GAP = np.array((0.12, 1.5, -0.1, 0.9, -0.3, -0.5, 0.15, -0.3, 0.01))


def sample_shot(rng, person, camera, number):
    """`number` shots of one person walking past one camera: one viewpoint with small changes, as in a tracklet."""
    yaw = camera.heading + rng.choice([0.0, np.pi]) + rng.normal(0, 0.45)
    walking = rng.random() < 0.8
    stride = rng.uniform(0.3, 0.5) if walking else rng.uniform(0.0, 0.08)
    lift = rng.uniform(1.2, 2.0) if rng.random() < 0.15 else rng.uniform(0.02, 0.6)  # something in hand, now and then
    phase, light = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.05)
    place = rng.uniform(0, 1, 2)
    shots = []
    for _ in range(number):
        occluded = rng.random() < camera.occlusion
        shots.append(
            Shot(
                person,
                camera.camera_id,
                float(yaw + rng.normal(0, 0.12)),
                float(phase),
                float(stride),
                float(lift),
                float(np.clip(rng.normal(0, 0.06), -0.2, 0.2)),
                float(np.clip(rng.normal(0, 0.06), -0.2, 0.2)),
                float(np.clip(1 + rng.normal(0, 0.08), 0.7, 1.35)),
                tuple(place.tolist()),
                float(light + rng.normal(0, 0.02)),
                str(rng.choice(OCCLUDERS)) if occluded else "none",
                int(rng.integers(2**31)),
            )
        )
        phase = phase + rng.uniform(0.8, 2.2)
        place = np.clip(place + rng.normal(0, 0.03, 2), 0, 1)
    return shots


OCCLUDERS = ("pole", "bicycle", "car", "passer-by")

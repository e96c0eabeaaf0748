"""A camera: where it looks from, what it does to colours, and the shots it takes."""

from dataclasses import dataclass

import numpy as np

from data_prep.people import Person


@dataclass(frozen=True)
class Camera:
    """One camera of a set; angles in radians, colours as multipliers, `key` seeds its scene."""

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
    blur: float
    noise: float
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
    """Draw a camera.  The draws do not depend on `gap`, which only scales how far they lie from neutral, so difficulty
    grows with it without jumps."""
    draw = rng.standard_normal(12)
    spread = 1.0 + 0.6 * gap
    tint = 1.0 + np.clip(0.05 * spread * draw[:3] + gap * np.array((0.50, -0.05, -0.45)), -0.5, 0.5)
    angle = rng.uniform(0, 2 * np.pi)
    height = float(np.clip(2.1 + 0.4 * draw[3] + 1.5 * gap, 1.4, 4.5))
    return Camera(
        camera_id,
        key,
        height=height,
        pitch=float(np.arctan((height - 0.9) / 6.5)),
        heading=float(rng.uniform(0, 2 * np.pi)),
        tint=tuple((tint / tint.mean()).tolist()),
        gain=float(np.clip(1.05 + 0.12 * spread * draw[4] - 0.1 * gap, 0.5, 1.5)),
        gamma=float(np.exp(np.clip(0.12 * spread * draw[5] + 0.9 * gap - 0.05, -0.7, 0.9))),
        saturation=float(np.clip(0.92 + 0.13 * spread * draw[6] - 0.6 * gap, 0.35, 1.4)),
        contrast=float(np.clip(1.0 + 0.10 * spread * draw[7] - 0.6 * gap, 0.6, 1.4)),
        blur=float(np.clip(0.3 + 0.15 * abs(draw[8]) + 0.2 * gap, 0.2, 1.3)),
        noise=float(np.clip(0.010 + 0.006 * abs(draw[9]) + 0.01 * gap, 0.004, 0.06)),
        vignette=float(rng.uniform(0, 0.25)),
        sun=float(rng.choice([0.15, 0.55])),
        sun_from=(float(np.cos(angle) * 0.6), float(rng.uniform(0.5, 1.0)), float(abs(np.sin(angle)) * 0.6 + 0.3)),
        ambient=0.62,
        occlusion=0.08,
    )


def sample_shot(rng, person, camera, number):
    """`number` shots of one person walking past one camera: one viewpoint with small changes, as in a tracklet."""
    yaw = camera.heading + rng.choice([0.0, np.pi]) + rng.normal(0, 0.45)
    walking = rng.random() < 0.8
    stride = rng.uniform(0.3, 0.5) if walking else rng.uniform(0.0, 0.08)
    lift, phase, light = rng.uniform(0.05, 0.5), rng.uniform(0, 2 * np.pi), rng.normal(0, 0.05)
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
                float(np.clip(1 + rng.normal(0, 0.10), 0.7, 1.35)),
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

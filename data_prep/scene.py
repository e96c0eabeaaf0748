"""What lies behind people and in front of them, and what the camera makes of it all."""

import numpy as np

from data_prep.seeding import rng_for


def backdrop(shots, cameras, cover, size):
    """Scenery [B, H, W, 3] behind each shot."""
    height, width = size
    out = np.empty((len(shots), height, width, 3), np.float32)
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    for i, (shot, camera) in enumerate(zip(shots, cameras)):
        rng = rng_for(*camera.key, "scene")
        wall, ground = rng.uniform(0.35, 0.8, 3), rng.uniform(0.3, 0.6, 3)
        out[i] = np.where(ramp < 0.6, wall * (1.1 - 0.3 * ramp), ground * (0.8 + 0.3 * ramp))
    return out


def develop(light, shots, cameras):
    """The camera's own colours: light [B, H, W, 3] -> uint8 of the same shape."""
    def column(name):
        return np.array([getattr(camera, name) for camera in cameras], np.float32).reshape(len(cameras), 1, 1, -1)

    tint, gain = column("tint"), column("gain")
    out = light * (tint * gain)
    grey = out.mean(3, keepdims=True)
    out = grey + (out - grey) * column("saturation")
    out = 0.45 + (out - 0.45) * column("contrast")
    for i, (shot, camera) in enumerate(zip(shots, cameras)):
        rng = np.random.default_rng(shot.key)
        out[i] += shot.light + camera.noise * rng.standard_normal(out[i].shape, np.float32)
    return (np.clip(out, 0, 1) ** column("gamma") * 255 + 0.5).astype(np.uint8)

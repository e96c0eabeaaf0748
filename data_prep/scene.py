"""The street a camera looks at, painted once per camera: sky, facades, ground in perspective, trees, parked cars.

A pinhole camera at `height` metres with a level horizon: a point of the ground at distance D metres lies
focal * height / D pixels below the horizon, and anything there is drawn at focal / D pixels per metre.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from data_prep.seeding import rng_for

NEAR, FAR = 5.0, 8.5  # metres between which people walk
FOCAL = 3.1  # in box heights: a person at 6 m then fills a box


@dataclass(frozen=True)
class Scene:
    """A painted street: `picture` float32 [rows, columns, 3], and the camera's geometry in its pixels."""

    picture: np.ndarray
    horizon: float
    focal: float
    height: float

    def foot(self, place):
        """Where a person stands: place (two numbers in 0..1: across, away) -> (x, y, pixels per metre)."""
        distance = NEAR + (FAR - NEAR) * place[1]
        margin = self.focal * 0.14
        x = margin + place[0] * (self.picture.shape[1] - 2 * margin)
        return x, self.horizon + self.focal * self.height / distance, self.focal / distance

    def crop(self, left, top, step, size):
        """Bilinear crop float32 [H, W, 3] whose pixel (0, 0) is centred on (left, top), `step` picture pixels apart."""

        def taps(start, number, limit):
            at = np.clip(start + step * np.arange(number), 0, limit - 1.001)
            low = at.astype(np.intp)
            return low, (at - low).astype(np.float32)

        r, fr = taps(top, size[0], self.picture.shape[0])
        c, fc = taps(left, size[1], self.picture.shape[1])
        first, last = c.min(), c.max() + 2
        band = self.picture[:, first:last]
        rows = band[r]
        rows += (band[r + 1] - rows) * fr[:, None, None]
        c -= first
        out = rows[:, c]
        out += (rows[:, c + 1] - out) * fc[None, :, None]
        return out


def paint_scene(camera, size):
    """Paint the street of one camera for boxes of `size` (height, width) pixels.  Returns a Scene."""
    rng = rng_for(*camera.key, "scene")
    unit = size[0]
    focal, horizon = FOCAL * unit, rng.uniform(0.3, 0.5) * unit
    rows = int(horizon + focal * camera.height / NEAR + 0.25 * unit)
    painter = Painter(rng, rows, int(4.2 * unit), horizon, focal, camera)
    painter.sky()
    painter.far_trees()
    wall = rng.uniform(9.5, 15)
    painter.ground(wall)
    if rng.random() < 0.75:
        painter.facades(wall)
    else:
        painter.hedge(wall)
    painter.furniture(wall)
    if rng.random() < 0.5:
        painter.railing(wall)
    painter.shadows(camera.sun)
    picture = painter.picture * (1 + 0.06 * painter.clouds(1.2 * unit)[..., None])
    grey = picture.mean(2, keepdims=True)
    picture = np.maximum(grey + 0.55 * (picture - grey), 0.01)  # streets are duller than the paints they are mixed from
    picture *= rng.uniform(0.52, 0.72) / picture.mean()  # the exposure that the camera settles on
    picture -= 0.5 * np.maximum(picture - 0.8, 0)  # it rather loses shadows than lights
    return Scene(np.clip(picture, 0.03, 1.1).astype(np.float32), horizon, focal, camera.height)


class Painter:
    """Paints one picture from far to near; lengths of things are in metres."""

    def __init__(self, rng, rows, columns, horizon, focal, camera):
        self.rng, self.horizon, self.focal, self.camera = rng, horizon, focal, camera
        self.picture = np.zeros((rows, columns, 3), np.float32)
        self.y, self.x = np.mgrid[0:rows, 0:columns].astype(np.float32)
        self.x -= columns / 2

    def clouds(self, cell):
        """Smooth noise of about unit deviation with features of `cell` pixels, [rows, columns]."""
        rows, columns = self.picture.shape[:2]
        coarse = self.rng.standard_normal((int(rows / cell) + 3, int(columns / cell) + 3)).astype(np.float32)
        return np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC))

    def grain(self, *cells):
        return sum(self.clouds(max(c, 1.0)) for c in cells) / len(cells) ** 0.5

    def blend(self, mask, colour, where=Ellipsis):
        part = self.picture[where]
        part += (np.asarray(colour, np.float32) - part) * np.asarray(mask, np.float32)[..., None]

    def earth(self, low, high, warm=0.04):
        """A muted colour, mostly between warm and cold."""
        warm = 0.35 * warm
        cast = self.rng.normal(0, warm) * np.array((1, 0.2, -1)) + self.rng.normal(0, 0.5 * warm, 3)
        return np.clip(self.rng.uniform(low, high) + cast + np.array((0.012, 0, -0.012)), 0.05, 0.97)

    def sky(self):
        top, bottom = self.earth(0.7, 0.9, 0.02) + (-0.04, 0, 0.06), self.earth(0.85, 0.97, 0.02)
        ramp = np.clip(self.y / self.horizon, 0, 1)[..., None]
        self.picture[:] = top + (bottom - top) * ramp

    def far_trees(self):
        line = self.horizon - (0.10 + 0.012 * self.clouds(self.focal * 0.06)[0]) * self.focal
        leaf = 0.30 * np.exp(0.4 * self.grain(2, 4, 9)[..., None])
        self.blend(self.y > line[None], leaf * (0.93, 1.0, 0.82))

    def ground(self, wall):
        """Two surfaces, one near the wall and one under the walkers, seen in perspective."""
        below = np.maximum(self.y - self.horizon, 0.5)
        distance = self.focal * self.camera.height / below
        across = self.x * distance / self.focal
        turn = self.rng.uniform(-0.6, 0.6)
        u = across * np.cos(turn) + distance * np.sin(turn)
        w = distance * np.cos(turn) - across * np.sin(turn)
        fine = np.clip(1 - 0.035 * distance, 0.15, 1)  # joints and grain fade with distance
        kinds = ("paving", "asphalt", "grass", "bricks", "concrete", "setts")
        near = self.rng.choice(kinds, p=(0.3, 0.18, 0.08, 0.16, 0.12, 0.16))
        far = self.rng.choice(("paving", "grass", "concrete", "setts"))
        border = self.rng.uniform(8.2, wall) + across * np.tan(self.rng.uniform(-0.25, 0.25))
        for kind, mask in ((near, self.y > self.horizon), (far, (self.y > self.horizon) & (distance > border))):
            self.blend(mask, self.surface(kind, u, w, fine))
        kerb = np.clip(1 - np.abs(distance - border) / 0.12, 0, 1) * (self.y > self.horizon)
        self.blend(kerb * 0.8, self.earth(0.6, 0.75))
        if near == "asphalt":
            if self.rng.random() < 0.5:  # a zebra crossing, else a line along the kerb
                stripe = (np.mod(u, 1.1) < 0.55) & (np.abs(w - self.rng.uniform(5.5, 7.5)) < 1.5)
            else:
                stripe = np.abs(distance - border + self.rng.uniform(1, 3)) < 0.08
            self.blend(0.7 * stripe * (self.y > self.horizon), (0.85, 0.85, 0.82))
        shade = np.clip(1 - np.abs(distance - wall) / 2.0, 0, 1)
        self.picture *= (1 - 0.25 * shade * (self.y > self.horizon))[..., None]

    def surface(self, kind, u, w, fine):
        if kind == "grass":
            colour = np.array((0.36, 0.40, 0.27)) * self.rng.uniform(0.8, 1.2)
            return colour * np.exp(0.30 * (fine * self.grain(1, 2, 5))[..., None] + 0.10 * self.clouds(30)[..., None])
        colour = {"asphalt": self.earth(0.38, 0.55, 0.01), "concrete": self.earth(0.58, 0.80, 0.02)}.get(
            kind, self.earth(0.50, 0.76, 0.035)
        )
        tone = 1 + 0.11 * fine * self.grain(1, 2) + 0.07 * self.clouds(25)
        pitch = {"paving": self.rng.uniform(0.4, 0.8), "bricks": 0.24, "setts": 0.16, "concrete": 2.6}.get(kind)
        if pitch:
            row = np.floor(w / pitch)
            shift = u / pitch + 0.5 * np.mod(row, 2) * (kind == "bricks")
            column = np.floor(shift)
            tile = np.mod(np.sin(row * 12.99 + column * 78.23) * 437.58, 1) - 0.5  # every slab its own shade
            joint = np.minimum(np.minimum(w / pitch - row, shift - column) * pitch / 0.05, 1)
            tone = tone * (1 + 0.34 * fine * tile) * (1 - 0.5 * fine * (1 - joint))
        return colour * tone[..., None]

    def facades(self, wall):
        """A row of buildings: brick, plaster or concrete, with windows, doors and shop fronts."""
        base = self.horizon + self.focal * self.camera.height / wall
        up, along = (base - self.y) * wall / self.focal, self.x * wall / self.focal
        edge, far_end = -8.5, 8.5
        plinth, cornice = self.earth(0.25, 0.4), self.earth(0.5, 0.7)
        while edge < far_end:
            width = self.rng.uniform(4, 9)
            inside = (along >= edge) & (along < edge + width) & (up > 0)
            local = along - edge
            kind = self.rng.choice(("brick", "plaster", "concrete", "shop", "tiled"))
            colour = {
                "brick": self.earth(0.36, 0.56, 0.03) + (0.06, -0.01, -0.03),
                "plaster": self.earth(0.65, 0.95, 0.04),
                "concrete": self.earth(0.5, 0.75, 0.015),
                "tiled": self.earth(0.55, 0.92, 0.02),
            }.get(kind, self.earth(0.35, 0.75, 0.07))
            tone = 1 + 0.08 * self.grain(1, 4) + 0.05 * self.clouds(30) - 0.12 * np.exp(-np.maximum(up, 0) / 0.5)
            if kind == "brick":
                course = np.floor(up / 0.16)
                shift = local / 0.4 + 0.5 * np.mod(course, 2)
                tone = tone * (1 + 0.4 * (np.mod(np.sin(course * 12.99 + np.floor(shift) * 78.23) * 437.58, 1) - 0.5))
                tone = tone * np.where(np.mod(up / 0.16, 1) < 0.22, 1.35, 1)
                tone = tone * np.where(np.mod(shift, 1) < 0.1, 1.3, 1)
            if kind == "tiled":
                side = self.rng.uniform(0.2, 0.5)
                joint = (np.mod(up / side, 1) < 0.14) | (np.mod(local / side, 1) < 0.14)
                tone = tone * np.where(joint, 0.62, 1)
            self.blend(inside, colour * tone[..., None])
            self.blend(inside & (up < 0.35), plinth)
            self.blend(inside & (np.abs(up - 3.3) < 0.1), cornice)
            self.openings(inside, local, up, width, kind == "shop")
            self.signs(inside, local, up, width)
            edge += width
            if self.rng.random() < 0.3:
                edge += self.rng.uniform(0.8, 2.5)  # an alley

    def openings(self, inside, local, up, width, shop):
        glass, frame = self.earth(0.14, 0.3) + (0, 0.02, 0.05), self.earth(0.3, 0.9, 0.02)
        low, high = (0.5, 2.7) if shop else (self.rng.uniform(0.9, 1.2), self.rng.uniform(2.2, 2.6))
        pitch, share = (2.4, 0.9) if shop else (self.rng.uniform(1.6, 2.6), self.rng.uniform(0.5, 0.65))
        phase = np.mod(local / pitch, 1)
        for floor in (0.0, 3.4):
            level = up - floor
            across = np.abs(phase - 0.5) * pitch
            window = inside & (across < share * pitch / 2) & (level > low) & (level < high) & (local < width - 0.3)
            pane = (across < share * pitch / 2 - 0.07) & (level > low + 0.07) & (level < high - 0.07)
            self.blend(window, frame)
            # the sky mirrors in the upper part of a pane
            mirror = glass + 0.25 * np.clip((level - low) / (high - low) + 0.25 * phase - 0.3, 0, 1)[..., None]
            self.blend(window & pane & (across > 0.03), mirror)
            self.blend(inside & (across < share * pitch / 2 + 0.08) & (np.abs(level - low + 0.05) < 0.06), frame * 0.8)
        door = self.rng.uniform(0.6, width - 1.4)
        leaf = inside & (np.abs(local - door) < 0.5) & (up < 2.1)
        self.blend(leaf, self.earth(0.15, 0.5, 0.15))
        self.blend(leaf & (np.abs(np.abs(local - door) - 0.5) < 0.07), frame * 0.9)
        if shop:
            awning = inside & (up > 2.7) & (up < 3.2)
            one, two = self.earth(0.3, 0.8, 0.3), self.earth(0.5, 0.9, 0.05)
            self.blend(awning, one)
            self.blend(awning & (np.mod(local, 0.8) < 0.4) & (self.rng.random() < 0.5), two)

    def signs(self, inside, local, up, width):
        """Boards and posters with lines of something like writing."""
        for _ in range(int(self.rng.integers(0, 4))):
            left, low = self.rng.uniform(0.2, width - 1), self.rng.uniform(0.5, 2.8)
            wide, tall = self.rng.uniform(0.4, 1.6), self.rng.uniform(0.25, 0.9)
            board = inside & (local > left) & (local < left + wide) & (up > low) & (up < low + tall)
            paper, ink = self.earth(0.1, 0.95, 0.25), self.earth(0.05, 0.95, 0.05)
            line = np.floor((up - low) / 0.11)
            word = np.sin(local * 31 + line * 5.1) + np.sin(local * 73 + line * 9.7)
            self.blend(board, paper)
            self.blend(board & (np.mod((up - low) / 0.11, 1) > 0.45) & (word > 0.1), ink)

    def railing(self, wall):
        """Bars and rails across the whole street, light or dark."""
        distance = self.rng.uniform(FAR + 0.2, wall - 0.3)
        scale = self.focal / distance
        u, up = self.x / scale, (self.horizon + scale * self.camera.height - self.y) / scale
        high, gap = self.rng.uniform(0.9, 1.9), self.rng.uniform(0.11, 0.2)
        bar = np.mod(u, gap) < 0.035 + 0.02 * self.rng.random()
        rail = (np.abs(up - high) < 0.035) | (np.abs(up - 0.12) < 0.03) | (np.mod(u, 2.4) < 0.08)
        ends = self.rng.uniform(-4, 4), self.rng.choice((-1.0, 1.0))
        there = (up > 0) & (up < high + 0.03) & ((u - ends[0]) * ends[1] > 0)
        self.blend((bar | rail) & there, self.earth(0.05, 0.3) if self.rng.random() < 0.6 else self.earth(0.7, 0.95))

    def shadows(self, sun):
        """What trees and houses behind the camera throw onto the street: hard where the sun is."""
        leaves = self.clouds(self.focal * 0.05) + 0.8 * self.clouds(self.focal * 0.15) + 0.4 * self.clouds(3)
        edge = self.x + self.rng.uniform(-0.8, 0.8) * (self.y - self.horizon) + self.rng.uniform(-1, 1) * self.focal
        house = np.clip(edge * self.rng.choice((-1.0, 1.0)) / 2, 0, 1)
        leaves = np.clip(leaves * 3 + self.rng.uniform(-1.5, 1.5), 0, 1)
        shade = np.maximum(leaves * (self.rng.random() < 0.6), house * (self.rng.random() < 0.5))
        self.picture *= (1 + 0.1 * sun - (0.5 * sun) * shade)[..., None]

    def hedge(self, wall):
        base = self.horizon + self.focal * self.camera.height / wall
        up = (base - self.y) * wall / self.focal
        top = self.rng.uniform(1.2, 2.4) + 0.12 * self.clouds(6)
        leaf = np.exp(0.55 * self.grain(1, 2, 4)) + 0.10 * np.clip(up, 0, 2)
        self.blend((up > 0) & (up < top), np.array((0.25, 0.30, 0.20)) * leaf[..., None])
        if self.rng.random() < 0.5:  # a fence in front of it
            along = self.x * wall / self.focal
            rail = (np.mod(along, 0.25) < 0.06) | (np.abs(up - 1.05) < 0.05)
            self.blend(rail & (up > 0) & (up < 1.1), self.earth(0.2, 0.7, 0.02))

    def furniture(self, wall):
        """Things between the wall and the walkers, far ones first."""
        kinds = ("tree", "pillar", "lamp", "car", "bush", "bin", "bicycles")
        number = int(self.rng.integers(5, 11))
        for distance in np.sort(self.rng.uniform(FAR + 0.3, wall - 0.5, number))[::-1]:
            scale = self.focal / distance
            x = self.rng.uniform(-0.5, 0.5) * self.picture.shape[1]
            u, up = (self.x - x) / scale, (self.horizon + scale * self.camera.height - self.y) / scale
            kind = self.rng.choice(kinds, p=(0.2, 0.13, 0.12, 0.2, 0.12, 0.08, 0.15))
            spread = {"car": 2.1, "bush": 0.8, "pillar": 0.35}.get(kind, 0.3)
            shadow = np.exp(-((u / spread) ** 2) - (up / 0.22) ** 2)
            self.picture *= (1 - 0.4 * shadow)[..., None]
            getattr(self, kind)(u, up)

    def bicycles(self, u, up):
        """A rack of them: wheels, and bars between."""
        for place in np.arange(int(self.rng.integers(2, 6))) * self.rng.uniform(0.35, 0.7):
            tone = self.earth(0.05, 0.6, 0.25)
            for hub in (place, place + 1.0):
                self.blend(np.abs(np.hypot(u - hub, up - 0.34) - 0.32) < 0.03, (0.06, 0.06, 0.07))
            bar = np.abs(up - 0.34 - 0.5 * np.abs(np.mod(u - place, 0.5) - 0.0)) < 0.03
            self.blend(bar & (u > place) & (u < place + 1.0), tone)
            self.blend((np.abs(u - place - 0.3) < 0.12) & (np.abs(up - 0.92) < 0.03), (0.08, 0.08, 0.08))

    def tube(self, u, up, radius, top, colour):
        round_ = np.sqrt(np.clip(1 - (u / radius) ** 2, 0, 1)) * (0.75 + 0.25 * np.clip(u / radius, -1, 1))
        self.blend((np.abs(u) < radius) & (up > 0) & (up < top), np.asarray(colour) * (0.45 + 0.65 * round_)[..., None])

    def tree(self, u, up):
        bark = np.array((0.30, 0.24, 0.18)) * (1 + 0.15 * self.grain(1, 3))[..., None]
        self.tube(u + 0.05 * np.sin(up), up, self.rng.uniform(0.12, 0.22), 3.4, bark)
        crown = np.full_like(u, -1)
        for _ in range(9):
            cx, cy, r = self.rng.normal(0, 0.8), self.rng.uniform(2.5, 4.5), self.rng.uniform(0.5, 1.0)
            crown = np.maximum(crown, 1 - ((u - cx) ** 2 + (up - cy) ** 2) / r**2)
        leaf = np.array((0.27, 0.32, 0.21)) * self.rng.uniform(0.8, 1.2)
        tone = (0.8 + 0.4 * crown) * np.exp(0.5 * self.grain(1, 2, 5))
        self.blend(crown + 0.25 * self.grain(2, 4) > 0.2, leaf * tone[..., None])

    def pillar(self, u, up):
        self.tube(u, up, self.rng.uniform(0.2, 0.35), 9, self.earth(0.45, 0.75))

    def lamp(self, u, up):
        self.tube(u, up, 0.06, 9, self.earth(0.15, 0.5, 0.01))

    def bin(self, u, up):
        self.tube(u, up, 0.26, 0.95, self.earth(0.15, 0.5, 0.25))

    def bush(self, u, up):
        shape = 1 - (u / 0.8) ** 2 - ((up - 0.4) / 0.6) ** 2 + 0.25 * self.grain(2, 4)
        tone = (0.8 + 0.35 * up) * np.exp(0.5 * self.grain(1, 2))
        self.blend((shape > 0) & (up > 0), np.array((0.26, 0.32, 0.20)) * tone[..., None])

    def car(self, u, up):
        paint = self.earth(0.1, 0.85, 0.2)
        roof = 1.42 - np.maximum(np.abs(u + 0.1) - 0.8, 0) * 0.75
        shell = (np.abs(u) < 2.1) & (up > 0.25) & ((up < 0.85) | ((up < roof) & (np.abs(u + 0.1) < 1.5)))
        self.blend(shell, paint * (0.75 + 0.35 * np.clip(up, 0, 1.3))[..., None])
        pane = shell & (up > 0.88) & (up < roof - 0.12) & (np.abs(u + 0.1) < 1.3) & (np.abs(u + 0.1) > 0.04)
        self.blend(pane, np.array((0.18, 0.2, 0.23)) + 0.2 * np.clip(up - 0.9, 0, 1)[..., None])
        for wheel in (-1.3, 1.3):
            r = np.hypot(u - wheel, up - 0.3)
            self.blend(r < 0.32, (0.07, 0.07, 0.07))
            self.blend(r < 0.17, (0.5, 0.5, 0.5))

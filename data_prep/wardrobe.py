"""What a set's people can wear: garments with their popularity, some of them in common with the source.

Streets are mostly black, white and grey, so tone alone decides little.  Every garment there is hangs in one of two
halves; the source's vocabulary is drawn from one, and a target's from the source's own and from the other half.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from data_prep.seeding import rng_for
from data_prep.worlds import SETS

COLOURS = {  # name: (red, green, blue), popularity as a top, as a bottom
    "black": ((0.070, 0.070, 0.078), 20, 26),
    "charcoal": ((0.150, 0.152, 0.165), 11, 12),
    "slate": ((0.255, 0.262, 0.285), 9, 7),
    "grey": ((0.430, 0.432, 0.440), 9, 5),
    "silver": ((0.650, 0.652, 0.660), 7, 2),
    "white": ((0.900, 0.898, 0.890), 15, 2),
    "cream": ((0.800, 0.775, 0.720), 4, 1.5),
    "navy": ((0.096, 0.120, 0.233), 9, 12),
    "denim": ((0.220, 0.292, 0.416), 2, 12),
    "pale denim": ((0.431, 0.503, 0.605), 1.5, 6),
    "blue": ((0.154, 0.277, 0.545), 2, 1),
    "sky": ((0.497, 0.627, 0.758), 1.5, 0),
    "teal": ((0.108, 0.296, 0.325), 1, 0.3),
    "green": ((0.162, 0.307, 0.206), 1, 0.2),
    "olive": ((0.273, 0.273, 0.179), 2, 2.5),
    "khaki": ((0.488, 0.423, 0.307), 2, 4),
    "beige": ((0.682, 0.602, 0.465), 2, 3),
    "brown": ((0.277, 0.183, 0.132), 1.5, 2),
    "yellow": ((0.744, 0.613, 0.178), 0.6, 0),
    "orange": ((0.731, 0.354, 0.093), 0.5, 0),
    "red": ((0.611, 0.097, 0.111), 2, 0.3),
    "wine": ((0.320, 0.081, 0.132), 1.5, 0.5),
    "pink": ((0.739, 0.507, 0.550), 1.2, 0.2),
    "purple": ((0.308, 0.192, 0.395), 0.8, 0.1),
}
TOPS = {"t-shirt": 3, "shirt": 2.5, "hoodie": 1.8, "open jacket": 2.2, "coat": 1.2}
TEXTURES = {"plain": 8, "stripes": 1.5, "pinstripes": 0.7, "checks": 1.2, "blocks": 2.2, "dots": 0.5}
BOTTOMS = {"trousers": 3.4, "jeans": 3, "shorts": 1.2, "skirt": 1.0}
TOPS_KEPT, BOTTOMS_KEPT = 120, 36  # garments in a set's vocabulary


@dataclass(frozen=True)
class Wardrobe:
    """A set's vocabulary: tops (cut, texture, colour) and bottoms (cut, colour) with popularity; `dye` shifts all."""

    tops: tuple
    top_taste: np.ndarray
    bottoms: tuple
    bottom_taste: np.ndarray
    dye: np.ndarray


def sample_wardrobe(world, key, gap, shared):
    """The wardrobe of one set.

    Args: world (its number), key (of the set), gap (how far tastes lie from the source's), shared (share of the
    vocabulary taken from the source's).
    Returns a Wardrobe.
    """
    tops = {
        (cut, texture, name): cuts * textures * COLOURS[name][1] ** 0.6
        for (cut, cuts), (texture, textures), name in product(TOPS.items(), TEXTURES.items(), COLOURS)
    }
    bottoms = {(cut, name): cuts * COLOURS[name][2] ** 0.6 for (cut, cuts), name in product(BOTTOMS.items(), COLOURS)}
    taste = rng_for(world, key, "taste")
    chosen = []
    for kind, garments, number in (("tops", tops, TOPS_KEPT), ("bottoms", bottoms, BOTTOMS_KEPT)):
        names = _vocabulary(world, key, kind, garments, number, shared)
        liked = np.array([garments[name] for name in names]) * np.exp(2.0 * gap * taste.standard_normal(number))
        chosen += [tuple(names), liked / liked.sum()]
    return Wardrobe(*chosen, dye=0.25 * gap * taste.standard_normal(3))


def _vocabulary(world, key, kind, garments, number, shared):
    """`number` garments, popular ones first to be chosen."""
    names = [name for name, popularity in garments.items() if popularity > 0]

    def ranked(owner, candidates):  # weighted sampling without replacement: the largest u^(1/popularity) win
        draws = rng_for(world, owner, kind).random(len(names)) ** (1 / np.array([garments[n] for n in names]))
        order = dict(zip(names, draws))
        return sorted(candidates, key=order.get, reverse=True)

    # neighbours in popularity go to different halves, so that both dress a street
    popular = sorted(names, key=garments.get, reverse=True)
    left = rng_for(world, kind, "halves").random(len(names) // 2) < 0.5
    half = {one if first else two for one, two, first in zip(popular[::2], popular[1::2], left)}
    theirs = ranked(SETS["source"].key, half)[:number]
    if key == SETS["source"].key:
        return theirs
    common = ranked(key, theirs)[: round(shared * number)]
    return common + ranked(key, set(names) - half)[: number - len(common)]

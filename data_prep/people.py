"""People who do not exist: what they look like, and the tapered elliptic capsules that make up their bodies."""

from dataclasses import dataclass, field

import numpy as np

from data_prep.seeding import rng_for

COLOURS = {
    "black": (0.10, 0.10, 0.12),
    "charcoal": (0.25, 0.26, 0.29),
    "grey": (0.50, 0.51, 0.53),
    "silver": (0.74, 0.75, 0.77),
    "white": (0.92, 0.92, 0.90),
    "navy": (0.12, 0.16, 0.34),
    "blue": (0.17, 0.33, 0.68),
    "sky": (0.47, 0.66, 0.86),
    "teal": (0.10, 0.45, 0.46),
    "green": (0.16, 0.45, 0.22),
    "olive": (0.38, 0.38, 0.20),
    "lime": (0.60, 0.75, 0.25),
    "yellow": (0.90, 0.78, 0.22),
    "orange": (0.88, 0.47, 0.14),
    "red": (0.74, 0.13, 0.14),
    "wine": (0.40, 0.08, 0.16),
    "pink": (0.90, 0.58, 0.66),
    "purple": (0.42, 0.22, 0.52),
    "brown": (0.36, 0.22, 0.14),
    "beige": (0.78, 0.69, 0.54),
}
BOTTOM_COLOURS = (
    "black",
    "charcoal",
    "grey",
    "navy",
    "blue",
    "sky",
    "olive",
    "brown",
    "beige",
    "white",
    "wine",
    "teal",
    "green",
    "red",
)
SKINS = ((0.93, 0.76, 0.65), (0.85, 0.66, 0.53), (0.74, 0.54, 0.41), (0.56, 0.38, 0.28), (0.38, 0.25, 0.19))
HAIRS = {
    "black": (0.08, 0.07, 0.07),
    "brown": (0.24, 0.15, 0.10),
    "chestnut": (0.38, 0.22, 0.12),
    "blond": (0.72, 0.57, 0.33),
    "grey": (0.58, 0.57, 0.56),
    "red": (0.50, 0.22, 0.10),
}
TOPS = ("t-shirt", "shirt", "hoodie", "open jacket", "coat")
TEXTURES = ("plain", "stripes", "pinstripes", "checks", "blocks", "dots")
BOTTOMS = ("trousers", "jeans", "shorts", "skirt")
HAIR_STYLES = ("short", "long", "bun", "ponytail", "bald")
HATS = ("none", "cap", "beanie")
BAGS = ("none", "handbag", "shoulder bag")
PRINTS = ("none", "chest", "back", "both")
MATERIALS = (
    "skin",
    "hair",
    "top",
    "top2",
    "inner",
    "bottom",
    "bottom2",
    "shoe",
    "sole",
    "pack",
    "pack2",
    "bag",
    "hat",
    "scarf",
    "print",
    "dark",
)
MATERIAL = {name: number for number, name in enumerate(MATERIALS)}
TRUTH = (
    "lookalike",
    "top",
    "top_texture",
    "top_colour",
    "top_second",
    "print",
    "bottom",
    "bottom_colour",
    "shoes",
    "hair",
    "hair_colour",
    "hat",
    "backpack",
    "bag",
    "scarf",
)


@dataclass(frozen=True)
class Person:
    """One person: `look` in words (the truth written to the index), `form` in numbers, `colours` [materials, 3]."""

    person_id: int
    look: dict
    form: dict
    colours: np.ndarray = field(repr=False)


def describe(person):
    """The truth columns of the index about a person; empty where nobody is in the box."""
    return {name: "" if person is None else person.look[name] for name in TRUTH}


def sample_people(seed, key, gap, counts):
    """Groups of people with consecutive ids from 1.

    About a third of them resemble the person before them in their group, but for one or two local details: whole
    images confuse such pairs, a patch tells them apart.
    """
    wardrobe = rng_for(seed, key, "wardrobe")
    colours, bottoms = list(COLOURS), list(BOTTOM_COLOURS)
    taste = np.exp(2.0 * gap * wardrobe.standard_normal(len(colours)))
    bottom_taste = np.exp(2.0 * gap * wardrobe.standard_normal(len(bottoms)))
    textures = np.exp(1.5 * gap * wardrobe.standard_normal(len(TEXTURES))) * (5, 1.3, 0.7, 1, 1.3, 0.5)
    dye = 0.25 * gap * wardrobe.standard_normal(3)
    shop = Shop(
        colours, taste / taste.sum(), bottoms, bottom_taste / bottom_taste.sum(), textures / textures.sum(), dye
    )
    groups, person_id = [], 0
    for total in counts:
        group = []
        for _ in range(total):
            person_id += 1
            rng = rng_for(seed, key, "person", person_id)
            model = group[-1] if group and not group[-1].look["lookalike"] and rng.random() < 0.5 else None
            group.append(_sample_person(rng, person_id, shop, model))
        groups.append(group)
    return groups


@dataclass(frozen=True)
class Shop:
    """What a set's people can wear: colours and textures with their frequencies, and a common shift of dye."""

    colours: list
    taste: np.ndarray
    bottoms: list
    bottom_taste: np.ndarray
    textures: np.ndarray
    dye: np.ndarray


def _pick(rng, options, weights=None):
    weights = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    return options[int(rng.choice(len(options), p=weights))]


def _sample_person(rng, person_id, shop, model):
    top, bottom = _pick(rng, TOPS, (3, 2.5, 1.5, 2, 1.2)), _pick(rng, BOTTOMS, (3, 3, 1.4, 1.4))
    colour = _pick(rng, shop.colours, shop.taste)
    look = {
        "lookalike": "" if model is None else model.person_id,
        "top": top,
        "top_texture": _pick(rng, TEXTURES, shop.textures),
        "top_colour": colour,
        "top_second": _pick(rng, [c for c in COLOURS if c != colour]),
        "print": _pick(rng, PRINTS, (3, 1.2, 0.8, 1)),
        "bottom": bottom,
        "bottom_colour": _pick(rng, shop.bottoms, shop.bottom_taste),
        "shoes": _pick(rng, ("black", "white", "brown", "red", "blue", "grey", "yellow"), (4, 4, 2, 1, 1, 2, 0.6)),
        "hair": _pick(rng, HAIR_STYLES, (5, 3, 0.8, 1.2, 0.6)),
        "hair_colour": _pick(rng, list(HAIRS), (4, 4, 2, 2, 1, 0.6)),
        "hat": _pick(rng, HATS, (7, 1, 0.7)),
        "backpack": _pick(rng, ["none", *COLOURS], [36] + [1] * len(COLOURS)),
        "bag": _pick(rng, BAGS, (5, 1, 1)),
        "scarf": _pick(rng, ["none", *COLOURS], [120] + [1] * len(COLOURS)),
    }
    if model is not None:
        details = (
            ("top_second", "top_texture", "print"),
            ("bottom", "bottom_colour"),
            ("backpack", "bag", "shoes"),
            ("hair", "hair_colour", "hat", "scarf"),
        )
        changed = details[int(rng.integers(len(details)))]
        look = {**model.look, "lookalike": model.person_id, **{name: look[name] for name in changed}}
    form = {
        "height": rng.normal(1.70, 0.08),
        "girth": float(np.clip(rng.normal(1.0, 0.12), 0.78, 1.4)),
        "shoulders": rng.normal(1.0, 0.07),
        "hips": rng.normal(1.0, 0.08),
        "head": rng.normal(1.0, 0.04),
        "stoop": rng.uniform(0.0, 0.10),
        "swing": rng.uniform(0.6, 1.2),
        "texture": TEXTURES.index(look["top_texture"]),
        "period": rng.uniform(0.032, 0.075),
        "print_y": rng.uniform(0.70, 0.75),
        "print_w": rng.uniform(0.3, 0.65),
        "print_h": rng.uniform(0.025, 0.06),
        "fold": rng.uniform(0.15, 0.45),
        "fold_phase": rng.uniform(0, 6.28),
        "sleeve": rng.uniform(0.25, 0.42),
        "leg": rng.uniform(0.40, 0.52),
        "skirt": rng.uniform(0.20, 0.34),
        "side": rng.choice([-1.0, 1.0]),
        "hair_low": rng.uniform(0.76, 0.84),
        "coat": rng.uniform(0.26, 0.40),
        "pack": rng.uniform(0.85, 1.2),
        "seam": float(rng.random() < 0.18),
    }
    if model is not None:
        form = {
            **form,
            **{
                name: model.form[name]
                for name in form
                if name not in ("height", "girth", "shoulders", "hips", "head", "print_y", "print_w", "print_h")
            },
        }
        form["texture"] = TEXTURES.index(look["top_texture"])
    return Person(person_id, look, _code(form, look), _colours(rng, look, shop.dye))


def _code(form, look):
    """The look's words as numbers that vectorised posing and painting can switch on."""
    top, bottom = look["top"], look["bottom"]
    return {
        **{name: float(value) for name, value in form.items()},
        "sleeve_end": form["sleeve"] if top == "t-shirt" else 0.93,
        "leg_end": {"shorts": form["leg"], "skirt": 0.0}.get(bottom, 0.93),
        "is_skirt": float(bottom == "skirt"),
        "is_coat": float(top == "coat"),
        "is_hoodie": float(top == "hoodie"),
        "is_open": {"open jacket": 1.0, "coat": 0.45}.get(top, 0.0),
        "is_jeans": float(bottom == "jeans"),
        "is_shirt": float(top == "shirt"),
        "hair_style": float(HAIR_STYLES.index(look["hair"])),
        "hat_style": float(HATS.index(look["hat"])),
        "has_pack": float(look["backpack"] != "none"),
        "bag_style": float(BAGS.index(look["bag"])),
        "has_scarf": float(look["scarf"] != "none"),
        "print_front": float(look["print"] in ("chest", "both")),
        "print_back": float(look["print"] in ("back", "both")),
    }


def _colours(rng, look, dye):
    def cloth(name):
        return np.clip(np.array(COLOURS[name]) * (1 + dye) + 0.02 * rng.standard_normal(3), 0.03, 0.97)

    skin = np.array(SKINS[int(rng.integers(len(SKINS)))]) * rng.uniform(0.94, 1.05)
    pack = cloth("grey" if look["backpack"] == "none" else look["backpack"])
    bottom = cloth(look["bottom_colour"])
    table = {
        "skin": skin,
        "hair": np.array(HAIRS[look["hair_colour"]]),
        "top": cloth(look["top_colour"]),
        "top2": cloth(look["top_second"]),
        "inner": cloth(_pick(rng, ("white", "grey", "black", look["top_second"]))),
        "bottom": bottom,
        "bottom2": cloth(look["top_second"]),
        "shoe": cloth(look["shoes"]),
        "sole": cloth("white" if rng.random() < 0.5 else "charcoal"),
        "pack": pack,
        "pack2": pack * 0.6 + 0.15,
        "bag": cloth(_pick(rng, ("black", "brown", "beige", "red", "white"))),
        "hat": cloth(_pick(rng, ("black", "red", "white", "navy", "grey", "green"))),
        "scarf": cloth("red" if look["scarf"] == "none" else look["scarf"]),
        "print": cloth(look["top_second"]),
        "dark": cloth("black"),
    }
    return np.clip(np.stack([table[name] for name in MATERIALS]), 0, 1).astype(np.float32)

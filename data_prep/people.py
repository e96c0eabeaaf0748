"""People who do not exist: what they look like, and the tapered elliptic capsules that make up their bodies."""

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

from data_prep.seeding import rng_for
from data_prep.wardrobe import COLOURS, TEXTURES

SKINS = ((0.80, 0.67, 0.59), (0.73, 0.59, 0.50), (0.63, 0.49, 0.40), (0.47, 0.35, 0.28), (0.31, 0.22, 0.18))
HAIRS = {
    "black": (0.08, 0.07, 0.07),
    "brown": (0.17, 0.12, 0.09),
    "chestnut": (0.27, 0.18, 0.12),
    "blond": (0.58, 0.48, 0.33),
    "grey": (0.58, 0.57, 0.56),
    "red": (0.38, 0.20, 0.13),
}
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
    "seam",
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
    "clothes",
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


def sample_people(world, key, wardrobe, counts, alike=0.0):
    """Groups of people with consecutive ids from 1.

    Of each group the share `alike` wears the very clothes of others: clothes alone don't tell them apart.  Of the rest
    about a fifth resemble the person before them but for one or two local details: whole images confuse such pairs, a
    patch tells them apart.
    """
    groups, person_id = [], 0
    for total in counts:
        group = []
        for kind, follows in company(total, alike):
            person_id += 1
            rng = rng_for(world, key, "person", person_id)
            own = kind == "own" and group and group[-1].look["clothes"] == "own" and not group[-1].look["lookalike"]
            model = group[-follows] if follows else group[-1] if own and rng.random() < 0.25 else None
            group.append(_sample_person(rng, person_id, wardrobe, kind, model))
        groups.append(group)
    return groups


def company(total, alike):
    """For each of `total` people: why others wear the same clothes, and how many people before stands the first."""
    left, made = round(alike * total), []
    for kind, size in itertools.cycle((("twins", 2), ("uniform", 3), ("changing bag", 2))):
        if left < 2:
            break
        size = left if left <= 3 else size  # nobody is left alone in a uniform
        made += [(kind, number) for number in range(size)]
        left -= size
    return [("own", 0)] * (total - len(made)) + made


def carry(rng, person):
    """The person as one camera sees them: somebody with a changing bag has another one, or none, each time."""
    if person is None or person.look["clothes"] != "changing bag":
        return person
    look = {**person.look, "backpack": _pick(rng, ("none", *PACKS)), "bag": _pick(rng, BAGS)}
    colours = person.colours.copy()
    if look["backpack"] != "none":
        colours[MATERIAL["pack"]] = COLOURS[look["backpack"]][0]
        colours[MATERIAL["pack2"]] = 0.6 * colours[MATERIAL["pack"]] + 0.05
    return replace(person, look=look, form=_code(person.form, look), colours=colours)


def _pick(rng, options, weights=None):
    weights = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    return options[int(rng.choice(len(options), p=weights))]


# what a lookalike changes: one of these groups
DETAILS = (
    ("print", "top_second"),
    ("bottom", "bottom_colour"),
    ("backpack", "bag", "shoes"),
    ("hair", "hair_colour", "hat", "scarf"),
)
OWN = ("hair", "hair_colour")  # what people in the same clothes have of their own
PACKS = ("black", "charcoal", "slate", "grey", "navy", "blue", "red", "olive", "wine")
PERSONAL = (
    "height",
    "girth",
    "shoulders",
    "hips",
    "head",
    "stoop",
    "swing",
    "hair_low",
    "hair_big",
    "fringe",
    "beard",
)  # of `form`


def _sample_person(rng, person_id, wardrobe, clothes, model):
    top, texture, colour = _pick(rng, wardrobe.tops, wardrobe.top_taste)
    bottom, bottom_colour = _pick(rng, wardrobe.bottoms, wardrobe.bottom_taste)
    others = {name: popularity for name, (_, popularity, _) in COLOURS.items() if name != colour}
    look = {
        "lookalike": "" if model is None else model.person_id,
        "clothes": clothes,
        "top": top,
        "top_texture": texture,
        "top_colour": colour,
        "top_second": _pick(rng, list(others), list(others.values())),
        "print": _pick(rng, PRINTS, (2.5, 1.0, 0.6, 1.2)),
        "bottom": bottom,
        "bottom_colour": bottom_colour,
        "shoes": _pick(rng, ("black", "white", "brown", "red", "navy", "grey"), (4, 4, 2, 1, 1, 2)),
        "hair": _pick(rng, HAIR_STYLES, (5, 3, 0.8, 1.2, 0.4)),
        "hair_colour": _pick(rng, list(HAIRS), (5, 4, 2, 1.2, 1, 0.3)),
        "hat": _pick(rng, HATS, (6, 1, 0.8)),
        "backpack": _pick(rng, ("none", *PACKS), [1.6 * len(PACKS), *[1] * len(PACKS)]),
        "bag": _pick(rng, BAGS, (4, 1, 1.2)),
        "scarf": _pick(rng, ["none", *COLOURS], [500, *(v[1] for v in COLOURS.values())]),
    }
    drawn = dict(look)
    if clothes != "own" and model is not None:
        look = {**model.look, "lookalike": model.person_id, **{name: drawn[name] for name in OWN}}
    elif model is not None:
        differing = [group for group in DETAILS if any(model.look[name] != drawn[name] for name in group)]
        changed = _pick(rng, differing)
        look = {**model.look, "lookalike": model.person_id, **{name: drawn[name] for name in changed}}
    form = {
        "height": rng.normal(1.70, 0.08),
        "girth": float(np.clip(rng.normal(1.0, 0.12), 0.78, 1.4)),
        "shoulders": rng.normal(1.0, 0.07),
        "hips": rng.normal(1.0, 0.08),
        "head": rng.normal(1.0, 0.04),
        "stoop": rng.uniform(0.0, 0.10),
        "swing": rng.uniform(0.6, 1.2),
        "texture": list(TEXTURES).index(look["top_texture"]),
        "period": rng.uniform(0.032, 0.075),
        "print_y": rng.uniform(0.70, 0.75),
        "print_w": rng.uniform(0.3, 0.65),
        "print_h": rng.uniform(0.025, 0.06),
        "fold": rng.uniform(0.35, 0.9),
        "fold_phase": rng.uniform(0, 6.28),
        "sleeve": rng.uniform(0.25, 0.42),
        "leg": rng.uniform(0.40, 0.52),
        "skirt": rng.uniform(0.20, 0.34),
        "side": rng.choice([-1.0, 1.0]),
        "hair_low": rng.uniform(0.76, 0.84),
        "coat": rng.uniform(0.26, 0.40),
        "pack": rng.uniform(0.85, 1.2),
        "hem": rng.uniform(0.0, 1.0),
        "loose": rng.uniform(0.0, 1.0),
        "hair_big": rng.uniform(0.97, 1.12),
        "fringe": rng.uniform(0.0, 1.0),
        "beard": float(rng.random() < 0.2) * rng.uniform(0.3, 1.0),
        "bag_big": rng.uniform(0.8, 1.7),
    }
    if model is not None:
        form = {name: form[name] if name in PERSONAL else model.form[name] for name in form}
        if clothes == "own":
            form["print_w"], form["print_h"] = rng.uniform(0.3, 0.65), rng.uniform(0.025, 0.06)
    colours = _colours(rng, look, wardrobe.dye)
    if model is not None and clothes != "own":
        worn = [number for name, number in MATERIAL.items() if name not in ("skin", "hair")]
        colours[worn] = model.colours[worn]
    return Person(person_id, look, _code(form, look), colours)


def _code(form, look):
    """The look's words as numbers that vectorised posing and painting can switch on."""
    top, bottom = look["top"], look["bottom"]
    return {
        **{name: float(value) for name, value in form.items()},
        "sleeve_end": form["sleeve"] if top == "t-shirt" else 0.96,
        "leg_end": {"shorts": form["leg"], "skirt": 0.0}.get(bottom, 0.93 if form["hem"] > 0.8 else 1.5),
        "is_skirt": float(bottom == "skirt"),
        "is_coat": float(top == "coat"),
        "is_hoodie": float(top == "hoodie"),
        "is_open": {"open jacket": 1.0, "coat": 0.45}.get(top, 0.0),
        "collar": float(top in ("hoodie", "coat", "open jacket") or (top == "shirt" and form["hem"] > 0.4)),
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
        own = 0.045 * rng.standard_normal() + 0.012 * rng.standard_normal(3)
        return np.clip(np.array(COLOURS[name][0]) * (1 + dye) + own, 0.03, 0.97)

    skin = np.array(SKINS[int(rng.integers(len(SKINS)))]) * rng.uniform(0.94, 1.05)
    pack = cloth("grey" if look["backpack"] == "none" else look["backpack"])
    top, bottom = cloth(look["top_colour"]), cloth(look["bottom_colour"])
    table = {
        "skin": skin,
        "hair": np.array(HAIRS[look["hair_colour"]]),
        "top": top,
        "top2": cloth(look["top_second"]),
        "inner": cloth(_pick(rng, ("white", "grey", "black", look["top_second"]))),
        "bottom": bottom,
        "bottom2": cloth(look["top_second"]),
        "seam": 0.62 * top,
        "shoe": cloth(look["shoes"]),
        "sole": cloth("white" if rng.random() < 0.5 else "charcoal"),
        "pack": pack,
        "pack2": pack * 0.6 + 0.05,
        "bag": cloth(_pick(rng, ("black", "brown", "beige", "red", "white"))),
        "hat": cloth(_pick(rng, ("black", "red", "white", "navy", "grey", "green"))),
        "scarf": cloth("red" if look["scarf"] == "none" else look["scarf"]),
        "print": cloth(look["top_second"]),
        "dark": cloth("black"),
    }
    return np.clip(np.stack([table[name] for name in MATERIALS]), 0, 1).astype(np.float32)

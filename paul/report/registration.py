"""What is fixed before any run on a fresh world: contrasts, worlds, seeds, power, and hashes of all that decides a run.

World 0 is development: rules, options and pictures were made while looking at it. Its spread between source seeds is
all that is known beforehand of the spread between worlds, which is no smaller; `cautious` power reckons with more.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from paul.engine.files import write_text
from paul.experiments.methods import METHODS
from paul.experiments.provenance import digest
from paul.experiments.rows import ROWS, STUDIES, TABLES
from paul.experiments.specs import Spec, specs_of
from paul.report.contrasts import PRIMARY, Contrast, contrast_values, contrasts_of
from paul.report.power import cautious_spread, detectable, equivalence_power, power, smallest_n
from paul.report.worlds import row_at

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

FILE = "preregistration.toml"  # beside the claims
ALPHA = 0.025  # one-sided, so that the 95 % interval that is shown is the test
WANTED = 0.8  # the power that `worlds_wanted` is planned for
SCOPE = "rendered people, small network"
# what of a record's options says where it ran and with which chance, not how
PLACE = ("seed", "adapt_seed", "world", "data", "target")


class RegistrationError(ValueError):
    """A registration that can't be made or read; names the file or the claim."""


@dataclass(frozen=True)
class Planned:
    """A registered contrast with what was known of it.

    Attributes:
        spread: its standard deviation between world 0's source seeds, in points.
        seeds: how many those were.
        power: the chance of finding the smallest effect of interest (of "within": of showing a difference of zero to
            lie within the margin), if worlds spread as those seeds did.
        cautious: the same with the upper 80 % limit of that spread.
        detectable: the effect, or margin, in points that `WANTED` power belongs to.
        worlds_wanted: how many worlds `WANTED` power would take; 0 where 1,000 would not do.
    """

    contrast: Contrast
    spread: float
    seeds: int
    power: float
    cautious: float
    detectable: float
    worlds_wanted: int


@dataclass(frozen=True)
class Registration:
    """`book/preregistration.toml`, read.

    Attributes:
        profile: the one whose runs are judged.
        worlds: each takes part with one source seed (`seed`) and one adaptation seed (`adapt_seed`); further seeds in
            some worlds split the variance and have no vote.
        renderer: the renderer's version.
        fresh: whether nothing had run on any of these worlds; else another question had been put to them, and one row
            of a contrast may be older than this registration, never both.
        predicates: claim -> hash of its words and tests.
        options: "row/target" -> hash of its options and of the versions of its arithmetic.
    """

    profile: str
    worlds: tuple[int, ...]
    seed: int
    adapt_seed: int
    renderer: int
    planned: tuple[Planned, ...]
    alpha: float = ALPHA
    metric: str = PRIMARY
    scope: str = SCOPE
    fresh: bool = True
    predicates: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


def predicate_hash(claim) -> str:
    """Of a claim's words and tests."""
    return digest(asdict(claim))


def options_hash(spec: dict, numerics: dict) -> str:
    """Of a run's options (`Spec.data`, a record's "spec") and arithmetic, wherever and with whatever seeds it ran."""

    def kept(part: dict) -> dict:
        return {
            name: kept(value) if isinstance(value, dict) else value for name, value in part.items() if name not in PLACE
        }

    return digest({"options": kept(spec), "numerics": numerics})


def plan_contrast(contrast: Contrast, development: pd.DataFrame, worlds: int) -> Planned:
    """A contrast's power on so many worlds, from the runs of world 0.

    Raises:
        RegistrationError: fewer than two source seeds have all of its runs, or they don't differ.
    """
    values = contrast_values(development, contrast)
    spread = float(values.std(ddof=1))
    if not spread > 0:
        raise RegistrationError(
            f"claim {contrast.claim}: {contrast.name} has {len(values)} source seeds on world 0, whose spread is "
            "needed: run its rows there with three seeds first"
        )
    power_of = equivalence_power if contrast.kind == "within" else power
    at = partial(power_of, contrast.smallest, alpha=ALPHA)
    chance = partial(power_of, spread=spread, n=worlds, alpha=ALPHA)
    return Planned(
        contrast,
        round(spread, 3),
        len(values),
        round(at(spread, n=worlds), 3),
        round(at(cautious_spread(spread, len(values)), n=worlds), 3),
        round(detectable(chance, spread, WANTED), 2),
        smallest_n(lambda n: at(spread, n=n), WANTED) or 0,
    )


def register(
    claims, runs: pd.DataFrame, profile: str, worlds: int, renderer: int, seed: int = 0, adapt_seed: int = 0
) -> Registration:
    """The registration of claims on worlds 1 to `worlds`; `runs` are those recorded at the profile.

    Raises:
        RegistrationError: a registered world has runs already of both rows of a contrast; fewer than two worlds; or as
            `plan_contrast`.
        ValueError: a claim does not say its smallest effect of interest.
    """
    if worlds < 2:
        raise RegistrationError(f"a verdict takes two worlds at least, got {worlds}")
    chosen = tuple(range(1, worlds + 1))
    contrasts = [contrast for claim in claims for contrast in contrasts_of(claim)]
    for contrast in contrasts:
        ran = (set(runs["world"][runs["row"] == row]) for row in (contrast.a, contrast.b))
        early = set(chosen).intersection(*ran)
        if early:
            raise RegistrationError(
                f"world {min(early)} has runs of {contrast.name} already: a registration comes before them"
            )
    development = runs[runs["world"] == 0]
    registered = {contrast.claim for contrast in contrasts}
    specs = [spec for table in (*TABLES, *STUDIES) for spec in specs_of(table, profile, [seed])]
    return Registration(
        profile,
        chosen,
        seed,
        adapt_seed,
        renderer,
        tuple(plan_contrast(contrast, development, worlds) for contrast in contrasts),
        fresh=not set(chosen) & set(runs["world"]),
        predicates={claim.id: predicate_hash(claim) for claim in claims if claim.id in registered},
        options={f"{spec.row}/{spec.target}": options_hash(spec.data(), spec.numerics) for spec in specs},
    )


def registered_specs(registration: Registration) -> list[Spec]:
    """Every run that a verdict waits for: on every registered world all rows of the paper's tables, and whatever else a
    contrast names, with each row's own setting or with one for all."""
    seeds, own, worlds = [registration.seed], [registration.adapt_seed], registration.worlds
    found = [
        spec
        for table in TABLES
        for spec in specs_of(table, registration.profile, seeds, adapt_seeds=own, worlds=worlds)
    ]
    for contrast in (planned.contrast for planned in registration.planned):
        for row, knobs in map(row_at, (contrast.a, contrast.b, contrast.alike.a, contrast.alike.b)):
            profile = "-".join(filter(None, [registration.profile, knobs]))
            method = METHODS[ROWS[row].method]
            adapt_seed = registration.adapt_seed if method.needs_source and method.draws else registration.seed
            found += [
                Spec(row, target, registration.seed, profile, adapt_seed=adapt_seed, world=world)
                for world in worlds
                for target in contrast.targets
            ]
    return list(dict.fromkeys(found))


HEAD = """\
# Written by `paul register --write` and committed before any run on its worlds. `paul register --check` holds every
# record of theirs against it: made by a commit that descends from the one that last changed this file, with this
# renderer, these options and this arithmetic; and the claims as they were. Where worlds are not `fresh`, another
# question had been put to them before: of a contrast's two rows one may be older than this file, never both.
#
# A contrast is the difference of two rows' mAP in points, averaged over its targets, one number a world. One-sided t
# tests at `alpha` on atanh(difference / 100). Supported: every contrast of the claim lies where it says
# (intersection-union; "within" is a pair of one-sided tests). Contradicted: one lies significantly on the other side,
# by Holm over all contrasts below. Else inconclusive. No verdict before every world has run.
#
# Rows are trained with what a search chose for each. A second analysis puts beside each verdict what the same rules say
# of rows that share one setting, PAUL's, as the paper's did; it changes no verdict.
#
# `power` is the chance of finding `smallest` (beyond `margin`; of "within", of placing a difference of zero inside it)
# on these worlds, if they spread as world 0's source seeds did (`spread`, from so many `seeds`); `cautious`, if they
# spread as much as the upper 80 % limit of that. `detectable`: the effect that 80 % power belongs to. `worlds_wanted`:
# how many worlds 80 % power for `smallest` would take.
"""


def registration_text(registration: Registration) -> str:
    """The file; TOML's strings, numbers and lists of them are JSON's."""

    def lines(values: dict) -> str:
        return "".join(
            f"{name if name.isidentifier() else json.dumps(name)} = {json.dumps(value)}\n"
            for name, value in values.items()
        )

    plain = asdict(registration)
    planned, predicates, options = (plain.pop(name) for name in ("planned", "predicates", "options"))
    text = HEAD + "\n" + lines(plain)
    text += f"\n[predicates]\n{lines(predicates)}\n[options]\n{lines(options)}"
    for entry in planned:
        text += f"\n[[contrast]]\n{lines(entry.pop('contrast') | entry)}"
    return text


def write_registration(path: Path, registration: Registration) -> None:
    """Write the file.

    Raises:
        RegistrationError: it is there already.
    """
    if path.exists():
        raise RegistrationError(f"{path} is there already; what is registered stays as it is")
    write_text(path, registration_text(registration))


def load_registration(path) -> Registration | None:
    """The registration in a file, None where there is none.

    Raises:
        RegistrationError: the file holds something else.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RegistrationError(f"{path}: can't be read as TOML ({error})") from error
    try:
        planned = []
        for entry in table.pop("contrast"):
            own = {name: entry.pop(name) for name in Contrast.__dataclass_fields__}
            planned.append(Planned(Contrast(**own | {"targets": tuple(own["targets"])}), **entry))
        return Registration(**table | {"planned": tuple(planned), "worlds": tuple(table["worlds"])})
    except (KeyError, TypeError, AttributeError) as error:
        raise RegistrationError(f"{path}: not as `paul register` writes it ({error})") from error

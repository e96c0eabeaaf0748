"""A claim's primary contrasts: two rows' difference in mAP, averaged over the targets, one number a world."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pandas as pd

from paul.experiments.rows import ALIKE
from paul.report.frames import alike_adapted, draws

PRIMARY = "map_trapezoid"


@dataclass(frozen=True)
class Contrast:
    """Row `a` minus row `b` as a claim takes it, in points of mAP.

    Attributes:
        kind: "higher": the difference lies above `margin`; "within": it lies in (-margin, margin).
        smallest: the smallest effect of interest: beyond the margin of "higher"; of "within" it is the margin.
    """

    claim: str
    a: str
    b: str
    targets: tuple[str, ...]
    kind: str
    margin: float
    smallest: float

    @property
    def claimed(self) -> tuple[float, float]:
        """The open range in which the claim places the mean difference."""
        return (-self.margin, self.margin) if self.kind == "within" else (self.margin, math.inf)

    @property
    def alike(self) -> Contrast:
        """The same between rows that have one setting, PAUL's, where these have each its own."""
        return replace(self, a=ALIKE.get(self.a, self.a), b=ALIKE.get(self.b, self.b))

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.a} - {self.b}"


def contrasts_of(claim) -> list[Contrast]:
    """Of every pair of rows that a claim's tests compare; none for tests of another kind.

    Raises:
        ValueError: a test "higher" does not say its smallest effect of interest.
    """
    found = []
    for test in (test for test in claim.tests if test["kind"] in ("higher", "within")):
        smallest = test["margin"] if test["kind"] == "within" else test.get("smallest")
        if smallest is None:
            raise ValueError(f"claim {claim.id}: field 'smallest' is missing from a test of kind 'higher'")
        found += [
            Contrast(claim.id, a, b, tuple(test["targets"]), test["kind"], test["margin"], smallest)
            for a, b in test["pairs"]
        ]
    return found


def contrast_values(runs: pd.DataFrame, contrast: Contrast) -> pd.Series:
    """The contrast per world and source seed, indexed by both; only where both rows have every target.

    Several adaptation seeds of one source seed are averaged: where both rows draw, those that both have.
    """
    rows = contrast.a, contrast.b
    sides = tuple(runs[(runs["row"] == row) & runs["target"].isin(contrast.targets)] for row in rows)
    if all(map(draws, rows)):
        sides = alike_adapted(*sides)

    def values(side: pd.DataFrame) -> pd.Series:
        each = side.groupby(["world", "seed", "target"])[PRIMARY].mean().unstack("target")
        return each.reindex(columns=list(contrast.targets)).mean(axis=1, skipna=False)

    return (values(sides[0]) - values(sides[1])).dropna()

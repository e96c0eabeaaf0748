"""What a student writes: a function of each chapter, the checks that give points for it, and the hints.

A check is a few calls with inputs drawn from a hidden seed and what a right function returns for them, computed here by
the library. The chapter's own function is the solution; the tests hold every solution, stub and common mistake to these
checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Call:
    """One call of the submitted function, and what a right one gives.

    Attributes:
        arguments: numbers, texts, tensors, lists of these.
        expected: likewise.
        gradient: of the result's sum with respect to this argument, in place of the result.
    """

    arguments: tuple
    expected: Any
    gradient: int | None = None


@dataclass(frozen=True)
class Check:
    """What is looked at, its points, a hint for whom it fails, and its calls, from a random generator."""

    about: str
    points: int
    hint: str
    calls: Callable[[np.random.Generator], list[Call]]


@dataclass(frozen=True)
class Exercise:
    """A function of a chapter, to be written.

    Attributes:
        chapter: its slug.
        function: its name there; the cell that defines it carries the tag `implement`.
        hints: for the notebook, from the general to the particular.
        checks: what it is graded by.
    """

    chapter: str
    function: str
    hints: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def name(self) -> str:
        """ "04 pedal"."""
        return f"{self.chapter[:2]} {self.function}"

    @property
    def points(self) -> int:
        """All that there are to be had."""
        return sum(check.points for check in self.checks)


def tensor(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Standard normal numbers, float64."""
    return torch.from_numpy(rng.standard_normal(shape))


def unit(x: torch.Tensor) -> torch.Tensor:
    """Along the last dimension."""
    return x / x.norm(dim=-1, keepdim=True)


def several(count: int, make: Callable[[np.random.Generator], Call]) -> Callable[[np.random.Generator], list[Call]]:
    """`count` calls of one kind."""
    return lambda rng: [make(rng) for _ in range(count)]


# --- 01: what a gallery image counts as ------------------------------------------------------------------------------

RIGHT, WRONG, LEFT_OUT = 1, 0, -1


def _verdict(person: Callable[[int, int], int], same_camera: bool | None, expected: int):
    """Calls with a query person and a stranger; `person` picks the gallery image's."""

    def make(rng):
        mine, other, here, there = (int(value) for value in rng.choice(np.arange(1, 900), 4, replace=False))
        same = bool(rng.integers(2)) if same_camera is None else same_camera
        return Call((mine, here, person(mine, other), here if same else there), expected)

    return several(6, make)


VERDICT = Exercise(
    "01_problem_and_data",
    "verdict",
    (
        "Three kinds of gallery images count for nothing, right or wrong. Which ones does the text above name?",
        "A junk box carries person -1, a stranger person 0: only one of the two is left out.",
    ),
    (
        Check(
            "the same person in another camera is right",
            1,
            "This is the image that the search is for: return RIGHT.",
            _verdict(lambda mine, other: mine, False, RIGHT),
        ),
        Check(
            "another person is wrong, in any camera",
            1,
            "Somebody else in the query's camera is still somebody else.",
            _verdict(lambda mine, other: other, None, WRONG),
        ),
        Check(
            "the same person in the query's own camera is left out",
            1,
            "The next frame of one passage would be found by its background: compare cameras, too.",
            _verdict(lambda mine, other: mine, True, LEFT_OUT),
        ),
        Check(
            "a junk box (-1) is left out", 1, "Person -1 is a cut-off person.", _verdict(lambda *_: -1, None, LEFT_OUT)
        ),
        Check("a distractor (0) is wrong", 1, "Person 0 is nobody in particular.", _verdict(lambda *_: 0, None, WRONG)),
    ),
)


# --- 02: average precision by trapezoids -----------------------------------------------------------------------------


def trapezoid_ap(ranks: list[int]) -> float:
    """The area under the walk down a list whose right images stand at `ranks`, from the library."""
    from paul.metrics import evaluate_distances

    length = max(ranks) + 1
    right = [int(rank in ranks) for rank in range(1, length + 1)]
    one = torch.arange(1, length + 1, dtype=torch.float32)[None]
    ids = torch.tensor([1 if hit else 2 for hit in right])
    scores = evaluate_distances(one, torch.tensor([1]), ids, torch.tensor([1]), torch.full((length,), 2))
    return float(scores.map_trapezoid)


def _ranks(pick: Callable[[np.random.Generator], list[int]]):
    def make(rng):
        ranks = sorted(int(rank) for rank in pick(rng))
        return Call((ranks,), trapezoid_ap(ranks))

    return several(6, make)


TRAPEZOID = Exercise(
    "02_evaluation",
    "trapezoid_ap",
    (
        "Each right image adds a piece of width 1/n; its height is the mean of two precisions.",
        "Just before the i-th right image there are i - 1 right ones among the first r_i - 1.",
    ),
    (
        Check(
            "one right image, not at the top",
            1,
            "Before it nothing was right, at it one of r: the mean of 0 and 1/r.",
            _ranks(lambda rng: [rng.integers(2, 40)]),
        ),
        Check(
            "a right image at the top",
            1,
            "Before the first rank there is nothing to divide by; the text says what the term is then.",
            _ranks(lambda rng: [1, *rng.choice(np.arange(2, 40), 3, replace=False)]),
        ),
        Check(
            "a perfect list gives 1",
            1,
            "Every precision is 1: look at the ends of your sum.",
            _ranks(lambda rng: list(range(1, int(rng.integers(2, 9))))),
        ),
        Check(
            "any list",
            2,
            "Compare with `area(order, True)` of the chapter on a list of your own.",
            _ranks(lambda rng: rng.choice(np.arange(1, 60), int(rng.integers(2, 8)), replace=False)),
        ),
    ),
)


# --- 03: how much each pixel of the map counts in a patch's mean ------------------------------------------------------


def weight_map(theta: torch.Tensor, H: int, W: int) -> torch.Tensor:
    """A [H, W]: what `pool_patches` makes of a map that is one at one pixel, for each pixel."""
    from paul.patches import pool_patches

    pixels = torch.eye(H * W, dtype=theta.dtype).reshape(1, H * W, H, W)
    return pool_patches(pixels, theta[None, None]).reshape(H, W)


def _theta(rng, tilt: float) -> torch.Tensor:
    scale, shift = rng.uniform(0.3, 0.6, 2), rng.uniform(-0.3, 0.3, 2)
    theta = torch.from_numpy(np.column_stack([np.diag(scale), shift]))
    return (theta + tilt * tensor(rng, 2, 3)).float()


def _weights(tilt: float):
    def make(rng):
        H, W = (int(size) for size in rng.integers(4, 13, 2))
        theta = _theta(rng, tilt)
        return Call((theta, H, W), weight_map(theta, H, W))

    return several(4, make)


def _whole(rng):
    theta = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    return [Call((theta, H, W), torch.full((H, W), 1 / (H * W))) for H, W in ((4, 3), (7, 5))]


def _beyond(rng):
    """Patches that reach over the edge, where the map reads zero; the sum, and so the gradient, depends on theta."""
    calls = []
    for _ in range(4):
        H, W = (int(size) for size in rng.integers(4, 10, 2))
        theta = _theta(rng, 0.05) + torch.tensor([[0, 0, 0.8], [0, 0, -0.7]])
        calls.append(Call((theta, H, W), weight_map(theta, H, W)))
    return calls


def _slopes(rng):
    calls = []
    for call in _beyond(rng):
        leaf = call.arguments[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(weight_map(leaf, *call.arguments[1:]).sum(), leaf)
        calls.append(Call(call.arguments, slope, gradient=0))
    return calls


WEIGHT_MAP = Exercise(
    "03_patchnet",
    "weight_map",
    (
        "A patch has H x W points (u, v) on [-1, 1]; theta moves them; a point between pixels counts for its four "
        "neighbours by its nearness.",
        "-1 and 1 are the centres of the outermost pixels: column = (x + 1) (W - 1) / 2.",
        "max(0, 1 - |x_p - j|) for all points and columns is a matrix [P, W], and the same for rows [P, H].",
    ),
    (
        Check("the whole map: every pixel counts the same", 1, "Divide by the number of points.", _whole),
        Check(
            "upright patches",
            2,
            "Is x the column and y the row? Do -1 and 1 fall on the centres of the outermost pixels?",
            _weights(0.0),
        ),
        Check("tilted patches", 1, "Every point needs both its x and its y from theta.", _weights(0.1)),
        Check("patches beyond the edge", 1, "Outside the map a point reads zero and counts for no pixel.", _beyond),
        Check(
            "the gradient with respect to theta",
            1,
            "It is what the PGN learns from: no rounding, no detach, no tensor made anew from numbers.",
            _slopes,
        ),
    ),
)


# --- 04: PEDAL -------------------------------------------------------------------------------------------------------


def _pedal(k=None, s=None, patches=None, short=False, gradient=False):
    from functools import partial

    def make(rng):
        from paul.losses import pedal_loss

        M, B, N, D = patches or int(rng.integers(2, 5)), 5, 14, 6
        x, bank = unit(tensor(rng, M, B, D)), unit(tensor(rng, M, N, D))
        if short:
            bank = bank * torch.from_numpy(rng.uniform(0.4, 1.0, (M, N, 1)))
        index = torch.from_numpy(rng.choice(N, B, replace=False))
        bank[:, index] = unit(x + 0.1 * tensor(rng, M, B, D))  # the own entry is near, as in training
        arguments = (x, bank, index, s or float(rng.uniform(2, 12)), k or int(rng.integers(2, 6)))
        loss = partial(pedal_loss, bank=bank, index=index, s=arguments[3], k=arguments[4])
        if not gradient:
            return Call(arguments, loss(x))
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf), leaf)
        return Call(arguments, slope, gradient=0)

    return several(4, make)


PEDAL = Exercise(
    "04_pedal",
    "pedal",
    (
        "Work on one patch of one image first: its squared distances to all entries of that patch position.",
        "The own entry, bank[m][index], takes part in neither sum.",
        "The mean goes over the patches and the batch.",
    ),
    (
        Check("one patch position", 2, "Check the sign, s / 2, and that k counts the nearest.", _pedal(patches=1)),
        Check("several patch positions", 1, "Each patch meets the bank of its own position; then the mean.", _pedal()),
        Check(
            "k = 1: the own entry is not the nearest",
            1,
            "Strike the own entry out before you look for the nearest.",
            _pedal(k=1),
        ),
        Check("k as large as the bank gives 0", 1, "All others are pulled: both sums are the same.", _pedal(k=13)),
        Check(
            "entries shorter than 1",
            1,
            "The distance is |x|^2 + |w|^2 - 2 x.w, and |w|^2 differs between entries.",
            _pedal(short=True),
        ),
        Check("the gradient with respect to the features", 1, "No detach, no item().", _pedal(gradient=True)),
    ),
)


# --- 05: cyclic ranking ----------------------------------------------------------------------------------------------


def _ask(r=3, most=15, spread=0.05):
    def make(rng):
        from paul.losses import cyclic_ranking

        people = np.repeat(np.arange(5), 4)
        centers = unit(tensor(rng, 5, 6))[people] + spread * tensor(rng, 20, 6)
        owner = torch.from_numpy(rng.choice(20, 6, replace=False))
        features = centers[owner] + spread * tensor(rng, 6, 6)
        picked = cyclic_ranking(features, centers, owner, r=r, max_candidates=most)
        return Call((features, centers, owner, r, most), picked)

    return several(5, make)


ASK_BACK = Exercise(
    "05_ipfl",
    "ask_back",
    (
        "Go through the other centres from the nearest on; the first that doesn't have you among its own r is it.",
        "In the released code a candidate is the first of its own nearest (ledger 12).",
        "When no candidate was found the answer is -1.",
    ),
    (
        Check("r = 3", 2, "Who is the nearest of a centre? Itself, first.", _ask()),
        Check("r = 1: the nearest other centre", 1, "With r = 1 a candidate has only itself in its list.", _ask(r=1)),
        Check("r = 6", 1, "Ask whether the anchor's image, owner[i], is among the candidate's nearest.", _ask(r=6)),
        Check(
            "features far from their centres", 1, "Distances start at the feature, not at its centre.", _ask(spread=0.6)
        ),
        Check("two candidates at most", 1, "After max_candidates give up: -1.", _ask(r=4, most=2)),
    ),
)


# --- 07: an interval -------------------------------------------------------------------------------------------------


def _interval(make: Callable[[np.random.Generator], np.ndarray]):
    def call(rng):
        from paul.report.statistics import mean_interval

        values = [float(value) for value in make(rng)]
        interval = mean_interval(values)
        return Call((values,), [interval.low, interval.high])

    return several(5, call)


INTERVAL = Exercise(
    "07_tables_1_and_2",
    "interval_from_scratch",
    (
        "Mean, standard deviation with n - 1, the square root of n, and t of the closed form above.",
        "For differences paired by seed it is the same function: hand it the differences.",
    ),
    (
        Check(
            "three equal values: no width",
            1,
            "Without spread both ends are the mean.",
            _interval(lambda rng: np.full(3, rng.uniform(20, 80))),
        ),
        Check(
            "three values",
            3,
            "n - 1 = 2 in the variance; t of two degrees of freedom, not 1.96.",
            _interval(lambda rng: rng.normal(55, 3, 3)),
        ),
        Check(
            "paired differences, some negative", 1, "No absolute values.", _interval(lambda rng: rng.normal(0, 2, 3))
        ),
    ),
)


# --- 09: random patches ----------------------------------------------------------------------------------------------


def _random(pick: Callable[[torch.Tensor], torch.Tensor] = lambda draw: draw):
    """`pick` changes draws [M, 4]; what they give follows from the rectangle's edges, in float64."""

    def make(rng):
        M = int(rng.integers(2, 9))
        draw = pick(torch.from_numpy(rng.uniform(size=(M, 4))).float())
        size = 1 / M + (1 - 1 / M) * draw[:, :2].double()  # as a share of the map
        left = draw[:, 2:].double() * (1 - size)  # as a share of the map, from its left or upper edge
        theta = torch.zeros(M, 2, 3, dtype=torch.float64)
        theta[:, [0, 1], [0, 1]] = size
        theta[:, :, 2] = 2 * (left + size / 2) - 1  # its middle, on [-1, 1]
        return Call((draw,), theta)

    return several(4, make)


def _with(draw: torch.Tensor, columns: slice, value: float) -> torch.Tensor:
    draw[:, columns] = value
    return draw


RANDOM = Exercise(
    "09_table4",
    "random_from_scratch",
    (
        "theta of an upright rectangle is (width, 0, x; 0, height, y): shares of the map, and its middle on [-1, 1].",
        "A rectangle of width w has its middle between -(1 - w) and 1 - w.",
    ),
    (
        Check(
            "as large as the map",
            1,
            "A draw of 1 is the whole map, and there is no room left to move.",
            _random(lambda draw: _with(draw, slice(0, 2), 1.0)),
        ),
        Check(
            "in the middle",
            1,
            "A place of one half is 0 on [-1, 1].",
            _random(lambda draw: _with(draw, slice(2, 4), 0.5)),
        ),
        Check(
            "at the left and upper edge",
            1,
            "The whole rectangle stays on the map: its middle is not at -1.",
            _random(lambda draw: _with(draw, slice(2, 4), 0.0)),
        ),
        Check("any draw", 2, "Width goes with x and stands first; the smallest size is 1 / M, not 0.", _random()),
    ),
)


# --- 10: an interval for a purity ------------------------------------------------------------------------------------


def _people(pick: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]):
    def make(rng):
        import pandas as pd

        values, people = pick(rng)
        means = pd.Series(values).groupby(people).mean()
        t = float(rng.uniform(1.9, 3.0))
        middle, half = float(means.mean()), t * float(means.sem())
        return Call((values, people, t), [middle - half, middle + half])

    return several(4, make)


def _purities(rng, repeats) -> tuple[np.ndarray, np.ndarray]:
    people = np.repeat(rng.choice(np.arange(1, 500), len(repeats), replace=False), repeats)
    order = rng.permutation(len(people))
    return np.clip(rng.normal(0.5, 0.2, len(people)) + 0.1 * (people % 3), 0, 1)[order], people[order]


PEOPLE = Exercise(
    "10_own_cameras",
    "interval_over_people",
    (
        "One number a person first: the mean of their images. From there on forget the images.",
        "n is the number of people, also below the square root.",
    ),
    (
        Check(
            "one image a person",
            1,
            "Then it is the interval of chapter 07, with the t that is given.",
            _people(lambda rng: _purities(rng, np.ones(12, int))),
        ),
        Check(
            "as many images for everyone",
            2,
            "Is n the number of people, or that of images? Is the spread that of people's means, with n - 1?",
            _people(lambda rng: _purities(rng, np.full(9, 5))),
        ),
        Check(
            "unequally many images",
            2,
            "Everyone counts once, however many images they have.",
            _people(lambda rng: _purities(rng, rng.integers(1, 12, 10))),
        ),
    ),
)

EXERCISES = (VERDICT, TRAPEZOID, WEIGHT_MAP, PEDAL, ASK_BACK, INTERVAL, RANDOM, PEOPLE)

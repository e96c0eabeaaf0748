"""Learning rates of the two stages, by epoch (counted from 0) for {"backbone", "new", "patch_generator"}."""

from __future__ import annotations

import math


def source_learning_rates(epoch: int) -> dict[str, float]:
    """The source stage's rates over 60 epochs (ledger 22): everything divides by 10 at epoch 40, and the patch
    generation network moves in epochs 25-39 only."""
    late = epoch >= 40
    return {
        "backbone": 0.001 if late else 0.01,
        "new": 0.01 if late else 0.1,
        "patch_generator": 1e-5 if 25 <= epoch < 40 else 0.0,
    }


def target_learning_rates(epoch: int, base: float = 1e-4, decay_epoch: int = 50) -> dict[str, float]:
    """The target stage's rates over 60 epochs: `base`, a tenth from `decay_epoch` on; PGN fixed (ledger 18, 27)."""
    rate = base / 10 if epoch >= decay_epoch else base
    return {"backbone": rate, "new": rate, "patch_generator": 0.0}


def cosine_learning_rates(
    progress: float, peak: float, warm_up: float = 0.1, pgn_share: float = 0.1, pgn_start: float = 0.15
) -> dict[str, float]:
    """One cycle for short trainings from scratch: linear warm-up, then a cosine to zero.

    Args:
        progress: share of all steps done, in [0, 1).
        peak: highest rate.
        warm_up: share of the steps that the warm-up takes.
        pgn_share: the PGN's rate over everybody else's.
        pgn_start: share of the steps before which the PGN stays put.
    """
    if progress < warm_up:
        rate = peak * (progress + 1e-3) / (warm_up + 1e-3)
    else:
        rate = peak * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))
    return {"backbone": rate, "new": rate, "patch_generator": pgn_share * rate if progress >= pgn_start else 0.0}

"""What changes with the run's progress: learning rate, sparsity, k. Pure functions; progress goes from 0 to 1."""

from __future__ import annotations

import math

LR_SCHEDULES = ("linear", "cosine", "constant")


def decay_default(lr_schedule: str, warmup_fraction: float) -> float:
    """Share of the run in which the rate falls if nothing is said: a quarter, or for a cosine all after the rise."""
    return {"linear": 0.25, "cosine": 1 - warmup_fraction, "constant": 0.0}[lr_schedule]


def lr_factor(progress: float, lr_schedule: str, warmup_fraction: float, decay_fraction: float) -> float:
    """Share of the peak learning rate, 0 to 1: a linear rise from 0, level, then the fall that the schedule names.

    The fall takes the last `decay_fraction` of the run: `linear` goes straight to 0, `cosine` along half a cosine
    (Loshchilov & Hutter 2017, equation 5, without restarts), `constant` does not fall.
    """
    rise = progress / warmup_fraction if warmup_fraction else 1.0
    left = (1 - progress) / decay_fraction if decay_fraction else 1.0
    if lr_schedule == "constant":
        left = 1.0
    elif lr_schedule == "cosine":
        left = (1 - math.cos(math.pi * min(1.0, max(0.0, left)))) / 2
    return max(0.0, min(1.0, rise, left))


def sparsity_factor(progress: float, warmup_fraction: float) -> float:
    """Share of the sparsity coefficient, 0 to 1: a linear rise from 0, then level (Anthropic, April 2024)."""
    return min(1.0, progress / warmup_fraction) if warmup_fraction else 1.0


def annealed_k(progress: float, k: int, k_from: int | None, fraction: float) -> int:
    """Active features now: from `k_from` in a straight line to `k` in the first `fraction` of the run, then k."""
    if k_from is None or progress >= fraction:
        return k
    return round(k_from + (k - k_from) * progress / fraction)

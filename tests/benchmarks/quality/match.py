"""Seek the sparsity coefficient at which a trainer ends with a wanted L0. For ours.py and peers.py: no saewidgets."""

from __future__ import annotations

import math
from collections.abc import Callable

TOLERANCE = 0.03


def match_l0(train: Callable[[float], float], first: float, wanted: float, most: int = 6) -> float:
    """The coefficient whose L0, `train(coefficient)`, came nearest to `wanted`; at most `most` trainings.

    L0 falls about as a power of the coefficient: each try goes on along the line through the two nearest so far.
    """
    seen: list[tuple[float, float]] = []  # log coefficient, log (L0 / wanted)
    guess = math.log(first)
    for _ in range(most):
        off = math.log(max(train(math.exp(guess)), 1e-3) / wanted)
        print(f"  coefficient {math.exp(guess):.4g}: L0 {wanted * math.exp(off):.1f}", flush=True)
        seen.append((guess, off))
        seen.sort(key=lambda point: abs(point[1]))
        if abs(seen[0][1]) < TOLERANCE:
            break
        slope = -0.7
        if len(seen) > 1 and seen[0][0] != seen[1][0]:
            slope = min(-0.1, (seen[0][1] - seen[1][1]) / (seen[0][0] - seen[1][0]))
        guess = seen[0][0] - max(-1.5, min(1.5, seen[0][1] / slope))
    return math.exp(seen[0][0])

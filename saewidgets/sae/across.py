"""What a loss takes from a batch as a whole, where this process may hold only a part of it.

A loss that is no mean over vectors, because it selects among all or divides by what all hold, asks `whole_batch()`.
Alone, a process holds the whole batch; a run on several GPUs says otherwise, for its own thread, with `sharing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


class WholeBatch:
    """A batch of which this process holds all. What is given and what comes back have no gradients."""

    def mean(self, rows: Tensor) -> Tensor:
        """The mean of rows [n, ...] over the vectors of the batch: [...]."""
        return rows.detach().mean(0)

    def sum(self, total: Tensor) -> Tensor:
        """Of sums over the vectors that are here, the sum over the batch."""
        return total.detach()

    def least(self, smallest: Tensor) -> Tensor:
        """Of the smallest that is here, the smallest of the batch."""
        return smallest.detach()

    def largest(self, candidates: Tensor, k: int) -> Tensor:
        """Which of the candidates [n, m] are among the n k largest of the batch, ascending: places in the flat tensor.

        Their number is n k. Of a part of a batch it is whatever falls to this part.
        """
        n = candidates.shape[0]
        return candidates.detach().reshape(-1).topk(n * k, sorted=False).indices.sort().values


_batch: ContextVar[WholeBatch | None] = ContextVar("batch", default=None)


def whole_batch() -> WholeBatch:
    """What answers for the batch that is worked on."""
    # torch.compile cannot look a context variable up, and what processes share is not compiled (see `RankLoop`)
    return WholeBatch() if torch.compiler.is_compiling() else _batch.get() or WholeBatch()


@contextmanager
def sharing(batch: WholeBatch) -> Iterator[None]:
    """Let `batch` answer for a batch that this process holds a part of."""
    token = _batch.set(batch)
    try:
        yield
    finally:
        _batch.reset(token)

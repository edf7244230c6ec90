"""Means over a batch of which this process may hold only a part.

A loss that is no mean over vectors, because it divides by what the whole batch holds, asks here. Alone, a process holds
the whole batch; a run on several GPUs says otherwise, for its own thread, with `sharing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_mean: ContextVar[Callable[[Tensor], Tensor] | None] = ContextVar("mean", default=None)


def batch_mean(rows: Tensor) -> Tensor:
    """The mean of rows [n, ...] over the whole batch, without gradient: [...]."""
    mean = _mean.get()
    return rows.detach().mean(0) if mean is None else mean(rows.detach())


@contextmanager
def sharing(mean: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let `mean` take the means of a batch that this process holds a part of."""
    token = _mean.set(mean)
    try:
        yield
    finally:
        _mean.reset(token)

"""The order of the batches of an epoch, which the stream and the cache share.

An epoch is a row of vectors. It is cut into batches, and some batches make a block: a block is read into memory,
shuffled there as a whole, and given out batch by batch. So each block is a pure function of (seed, epoch, block).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Batch = Tensor | tuple[Tensor, Tensor]
"""Vectors `[n, d_in]`; from two hooks, those and their targets `[n, d_out]`."""

Memory = tuple[Tensor, ...]
"""Rows to read into: one tensor, or two of which the second is for targets."""

Room = Callable[[int], Memory]
"""`room(rows)`: memory for so many vectors."""

Fill = Callable[[int, Memory, int, int], None]
"""`fill(epoch, memory, low, high)`: write vectors number low to high of the epoch into the first rows."""

Ask = Callable[[], bool]
"""Asked between two forwards whether to go on; may wait before it answers. False raises `BrokenOff`."""


class BrokenOff(Exception):
    """Reading ended in the middle of a block, because who reads it said so."""


@dataclass(frozen=True)
class Blocks:
    """How the vectors of an epoch are cut."""

    n_vectors: int
    """Vectors in one epoch."""
    batch_size: int
    """Vectors in one batch."""
    block_batches: int
    """Fewest batches in a block; an epoch that has fewer is one block."""
    seed: int
    """Of the shuffling inside the blocks."""
    takes: int | None = None
    """Vectors that the reader takes at most; None: all."""

    def for_a_reader_of(self, vectors: int | None) -> Blocks:
        """The same epoch for one who takes so many of its vectors at most, and is not to wait for more of them.

        Where that is less than the first block, the first block ends there; what it has left is then a block by itself.
        Longer readers find the blocks as they are.
        """
        return replace(self, takes=vectors)

    @property
    def n_batches(self) -> int:
        """Whole batches in one epoch; vectors that do not fill one give a single smaller batch."""
        return max(1, self.n_vectors // self.batch_size)

    @property
    def bounds(self) -> list[int]:
        """The batch at which each block begins, and the end of the last."""
        n_blocks = max(1, self.n_batches // self.block_batches)
        bounds = [block * self.n_batches // n_blocks for block in range(n_blocks + 1)]
        taken = self.n_batches if self.takes is None else -(-self.takes // self.batch_size)
        return [0, *([taken] if taken < bounds[1] else []), *bounds[1:]]

    @property
    def rows(self) -> int:
        """Vectors in the largest block."""
        bounds = self.bounds
        most = max(b - a for a, b in zip(bounds, bounds[1:], strict=False))
        return min(most * self.batch_size, self.n_vectors)

    def after(self, high: int) -> tuple[int, int]:
        """The vectors of the block behind number `high`, from and to; none if the reader does not come to it."""
        if self.takes is not None and high >= self.takes:
            return high, high
        ends = [min(bound * self.batch_size, self.n_vectors) for bound in self.bounds]
        return high, next((end for end in ends if end > high), high)

    def check(self, start: int) -> None:
        """Raise ValueError if `start` is not a batch of the epoch."""
        if not 0 <= start <= self.n_batches:
            raise ValueError(f"start={start} is out of range: an epoch has batches 0 to {self.n_batches - 1}.")

    def batches(self, epoch: int, start: int, room: Room, fill: Fill) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on, float32, each in memory of its own."""
        bounds, memory = self.bounds, None
        for block, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
            if last <= start:
                continue
            low, high = first * self.batch_size, min(last * self.batch_size, self.n_vectors)
            if memory is None or len(memory[0]) < high - low:
                memory = None  # what is too small is given back first
                memory = room(self.rows if self.after(high)[1] > high else high - low)
            fill(epoch, memory, low, high)
            mixed = torch.randperm(high - low, generator=generator(self.seed, epoch, block)).to(memory[0].device)
            for batch in range(max(first, start), last):
                where = mixed[(batch - first) * self.batch_size : (batch - first + 1) * self.batch_size]
                # index_select: five times as fast as memory[where] on a CPU
                rows = [m.index_select(0, where).to(torch.float32) for m in memory]
                yield rows[0] if len(rows) == 1 else (rows[0], rows[1])


def check_sizes(**sizes: int) -> None:
    """Raise ValueError if one of them is below 1, by its name."""
    for name, number in sizes.items():
        if number < 1:
            raise ValueError(f"{name}={number} is not possible; it must be at least 1.")


def generator(*numbers: int) -> torch.Generator:
    """A generator that depends on all of the numbers."""
    digest = hashlib.sha256(":".join(map(str, numbers)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

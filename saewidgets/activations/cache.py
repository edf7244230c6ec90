"""Activations kept on disk: a stream that needs no model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saewidgets.activations.blocks import Batch, Blocks, Memory, check_sizes, generator
from saewidgets.activations.shards import (
    DTYPES,
    HELD_OUT,
    META,
    UNFINISHED,
    Rows,
    Shard,
    check_shard,
    read_page,
    read_small,
)
from saewidgets.sae.config import SAEMetadata

if TYPE_CHECKING:
    from saewidgets.activations.contexts import Contexts
    from saewidgets.activations.splice import SpliceScorer
    from saewidgets.sae.sae import SAE

_READ_BYTES = 1 << 18
"""Read at one go: so many neighbours stay together in all epochs, and a disk is nearly as fast as in one sweep."""


class ActivationCache:
    """Batches `[batch_size, d_in]` (float32) of activation vectors on disk, written by `ActivationStream.cache`.

    A stream like `ActivationStream`, and a pure function of (seed, epoch, block) too: runs of neighbours, 256 kB each,
    are permuted over all shards; those of `block_batches` batches are read into memory and shuffled there as a whole.
    A cache of pairs gives (x, target). Neither a model nor TransformerLens is loaded, unless `model` is given.

    Disk: n_vectors * d_in bytes, times 2 for float16 and bfloat16, times 4 for float32 (pairs: d_in + d_out). 100
    million vectors of width 768 are 154 GB in float16. Memory: block_batches * batch_size * d_in * the same bytes.
    """

    def __init__(
        self, folder: Path, page: dict[str, Any], batch_size: int, seed: int, block_batches: int, model: Any
    ) -> None:
        """Use `open`."""
        self.path = folder
        self.model = model
        self.batch_size, self.seed, self.block_batches = batch_size, seed, block_batches
        self._page = page
        self._shards = [Shard(**entry) for entry in page["shards"]]
        self._widths = [self.d_in] if self.target_hook_name is None else [self.d_in, self.d_out]
        run = max(1, _READ_BYTES // (self._widths[0] * self.dtype.itemsize))
        starts = [(i, row) for i, shard in enumerate(self._shards) for row in range(0, shard.n_vectors, run)]
        # of each run: its shard, its first row there, its length
        self._runs = torch.tensor([(i, row, min(run, self._shards[i].n_vectors - row)) for i, row in starts])

    @classmethod
    def open(
        cls,
        path: str | Path,
        batch_size: int = 2048,
        seed: int = 0,
        block_batches: int = 50,
        verify: bool = False,
        model: Any = None,
    ) -> ActivationCache:
        """Open what `ActivationStream.cache` wrote.

        Args:
            batch_size: Activation vectors per batch.
            seed: Of all shuffling.
            block_batches: Fewest batches that are held in memory and shuffled together.
            verify: Read every shard once and compare its hash with the one that was taken when it was written.
            model: The model that the activations are from, for CE loss recovered on the held-out text.

        Raises:
            FileNotFoundError: no cache there, or one that was not finished.
            ValueError: a damaged or cut-off shard, by name; a model that is another one; a size below 1.
        """
        folder = Path(path).expanduser()
        check_sizes(batch_size=batch_size, block_batches=block_batches)
        if not (folder / META).is_file():
            if (folder / UNFINISHED).is_file():
                raise FileNotFoundError(
                    f"The activation cache {str(folder)!r} was not finished. Call cache(path) on the same stream "
                    "again: it goes on where it ended."
                )
            raise FileNotFoundError(f"{str(folder)!r} is no activation cache. ActivationStream.cache(path) writes one.")
        page = read_page(folder / META)
        for entry in page["shards"]:
            check_shard(folder, Shard(**entry), verify)
        if model is not None:
            from saewidgets.models.tokens import fingerprint

            if fingerprint(model) != page["fingerprints"]["model weights"]:
                raise ValueError(
                    f"The activations in {str(folder)!r} are from {page['metadata']['model_name']!r} with other "
                    f"weights than the given {model.cfg.model_name!r} has. Pass that model, or none."
                )
        return cls(folder, page, batch_size, seed, block_batches, model)

    @property
    def d_in(self) -> int:
        """The width of one vector."""
        return int(self._page["d_in"])

    @property
    def d_out(self) -> int:
        """The width of a target; of a vector itself if there are none."""
        return int(self._page["d_out"])

    @property
    def dtype(self) -> torch.dtype:
        """What the vectors are kept as; the batches are float32."""
        return DTYPES[self._page["dtype"]]

    @property
    def hook_name(self) -> str:
        """The hook the activations are from."""
        return str(self._page["metadata"]["hook_name"])

    @property
    def target_hook_name(self) -> str | None:
        """The hook the targets are from; None if the batches are no pairs."""
        name: str | None = self._page["target_hook_name"]
        return name

    @property
    def n_vectors(self) -> int:
        """Activation vectors in the cache."""
        return int(self._page["n_vectors"])

    @property
    def n_batches(self) -> int:
        """Batches in one epoch."""
        return self._blocks.n_batches

    @property
    def metadata(self) -> SAEMetadata:
        """What an SAE that is trained on this cache has to remember."""
        return SAEMetadata.from_dict(self._page["metadata"])

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def __repr__(self) -> str:
        target = "" if self.target_hook_name is None else f"to {self.target_hook_name!r}, d_out={self.d_out}, "
        return (
            f"ActivationCache({self.hook_name!r}, d_in={self.d_in}, {target}{self.n_vectors:,} vectors in "
            f"{len(self._shards)} shards of {self._page['dtype']}, batch_size={self.batch_size}, seed={self.seed})"
        )

    def fingerprints(self) -> dict[str, str]:
        """Everything that decides the bits of the batches, by name."""
        digest = hashlib.sha256("".join(shard.sha256 for shard in self._shards).encode())
        return {
            "vectors": digest.hexdigest(),
            "batch_size": str(self.batch_size),
            "seed": str(self.seed),
            "block_batches": str(self.block_batches),
        }

    def batches(self, epoch: int = 0, start: int = 0, takes: int | None = None) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; the same tensors that skipping would give.

        `takes`: vectors of the epoch that the reader takes at most, see `ActivationStream.batches`.

        Raises:
            ValueError: `start` is not a batch of the epoch; while reading, a shard that is damaged, by name.
        """
        blocks = self._blocks.for_a_reader_of(takes)
        blocks.check(start)
        return blocks.batches(epoch, start, self._memory, partial(self._fill, blocks))

    def ce_loss_recovered(self, sae: SAE) -> float:
        """CE loss recovered by an SAE, or a transcoder, on the held-out contexts.

        NaN if the cache was opened without its model, or if the text was too short to hold any out.
        """
        score = self.scorer()
        return score(sae) if score is not None else float("nan")

    def scorer(self) -> SpliceScorer | None:
        """`ce_loss_recovered` for many SAEs: what is the same for all of them is computed once, for the first.

        None if the cache was opened without its model.
        """
        if self.model is None:
            return None
        from saewidgets.activations.hooks import hook_site
        from saewidgets.activations.splice import SpliceScorer

        kept = read_small(self.path / HELD_OUT)
        site = hook_site(self.model, self.hook_name)
        target = None if self.target_hook_name is None else hook_site(self.model, self.target_hook_name)
        return SpliceScorer(self.model, kept["tokens"], kept["mask"], site, target)

    def excerpt(self, at_most: int) -> Contexts:
        """Held-out contexts that give up to `at_most` vectors, to look things up in; none if none were held out.

        Which text each is from was not kept: each counts as one of its own.
        """
        from saewidgets.activations.contexts import Contexts, asked, fitting

        kept = read_small(self.path / HELD_OUT)
        contexts = Contexts(kept["tokens"], kept["mask"].bool(), torch.arange(len(kept["tokens"])))
        return contexts[: fitting(asked(contexts.mask, self.metadata.excluded_positions).sum(1), at_most)]

    @property
    def _blocks(self) -> Blocks:
        return Blocks(self.n_vectors, self.batch_size, self.block_batches, self.seed)

    def _memory(self, rows: int) -> Memory:
        return tuple(torch.empty(rows, width, dtype=self.dtype) for width in self._widths)

    def _fill(self, blocks: Blocks, epoch: int, memory: Memory, low: int, high: int) -> None:
        self._expect(epoch, low, high)  # the first block; of others it was said before
        runs = self._runs_of(epoch, low, high)
        for key, width, into in zip(("vectors", "targets"), self._widths, memory, strict=False):
            for rows, some in self._open(runs, key, width):
                for _, row, length, begin in some:
                    rows.read(row, into[begin : begin + length])
        self._expect(epoch, *blocks.after(high))

    def _expect(self, epoch: int, low: int, high: int) -> None:
        """Let the disk read these vectors while others are worked on; what is wrong with them, the reading says."""
        runs = self._runs_of(epoch, low, high) if low < high else []
        with suppress(ValueError):
            for key, width in zip(("vectors", "targets"), self._widths, strict=False):
                for rows, some in self._open(runs, key, width):
                    for _, row, length, _ in some:
                        rows.expect(row, length)

    def _runs_of(self, epoch: int, low: int, high: int) -> list[list[int]]:
        """The runs that hold vectors low to high of an epoch, as they lie on the disk.

        Of each what is between low and high: its shard, its first row there, its length, and which of the vectors from
        low on it begins with.
        """
        order = torch.randperm(len(self._runs), generator=generator(self.seed, epoch))
        ends = self._runs[order, 2].cumsum(0)
        first = int(torch.searchsorted(ends, low, right=True))
        last = int(torch.searchsorted(ends, high)) + 1
        chosen = order[first:last]
        by_place = torch.argsort(chosen)
        shard, row, length = self._runs[chosen[by_place]].unbind(1)
        begin = ends[first:last][by_place] - length - low
        before = (-begin).clamp_min(0)  # a run on a block's border belongs to both
        length = torch.minimum(length, high - low - begin) - before
        runs: list[list[int]] = torch.stack([shard, row + before, length, begin + before], dim=1).tolist()
        return runs

    def _open(self, runs: list[list[int]], key: str, width: int) -> Iterator[tuple[Rows, Iterator[list[int]]]]:
        """Each shard, open, with its runs."""
        for index, some in groupby(runs, key=itemgetter(0)):
            shard = self._shards[index]
            with closing(Rows(self.path, shard, key, (shard.n_vectors, width), self.dtype)) as rows:
                yield rows, some

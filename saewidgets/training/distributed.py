"""One run on several processes, each with its own GPU: the batch is shared, or the features are.

Every process takes the same steps in the same order with the same batches, and torch's collectives carry what one has
to know of the others. All that differs from a run alone is the architecture's loss: `shared_batch` and (in `sharded`)
`ShardedTopK` put collectives into it. Optimizer, schedules, dead features and metrics are those of every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from saewidgets.activations.blocks import Batch, Memory
from saewidgets.sae import SAE, SAEConfig, SAEMetadata
from saewidgets.sae.across import WholeBatch, sharing
from saewidgets.sae.architectures import Architecture, Knobs, Losses, get_architecture


class Ranks:
    """The processes of a run: torch's default group, or this process alone where there is none."""

    def __init__(self) -> None:
        there = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if there else (0, 1)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of everyone's tensor; the same bits on all."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone()
        # the gradient of W_enc lies in memory the other way round, and shall stay so
        dist.all_reduce(total if total.is_contiguous() else total.t())
        return total

    def gather(self, tensor: Tensor) -> Tensor:
        """Everyone's tensor, one after the other: [size, ...]."""
        if self.size == 1:
            return tensor.detach()[None]
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, tensor.detach().contiguous())
        return torch.stack(parts)

    def in_turn(self, tensor: Tensor) -> Iterator[Tensor]:
        """In process 0 everyone's tensor, one after the other, in the same memory; in the others nothing: they send."""
        if self.rank > 0:
            dist.send(tensor, 0)
            return
        yield tensor
        received = torch.empty_like(tensor)
        for rank in range(1, self.size):
            dist.recv(received, rank)
            yield received

    def rows(self, n: int) -> slice:
        """This process's rows of a batch of n. All of them, for everyone, if there are fewer than processes."""
        if n < self.size:
            return slice(0, n)
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)


class RankSAE(SAE):
    """An SAE that is trained by several processes together: it has an architecture of its own."""

    def __init__(
        self, cfg: SAEConfig, architecture: Architecture, metadata: SAEMetadata | None, device: str | torch.device
    ) -> None:
        super().__init__(cfg, metadata, device)
        self._architecture = architecture

    @property
    def architecture(self) -> Architecture:
        return self._architecture


# ── data parallel ──────────────────────────────────────────────────────────────────────────────────────────────────


def data_parallel(cfg: SAEConfig, ranks: Ranks, device: str | torch.device = "cpu") -> RankSAE:
    """An SAE of which each process has a whole copy, and trains on its part of each batch.

    Gradients are averaged over the processes (in `rank_loop.TogetherGradients`), so that all copies stay the same bits.
    They are those of the whole batch: what an architecture takes from a batch as a whole (the n k
    largest of batchtopk, the quotients of p_anneal), it takes from everyone's parts together.
    """
    return RankSAE(cfg, shared_batch(get_architecture(cfg.architecture), ranks), None, device)


class PartOfBatch(WholeBatch):
    """This process's part of a batch of n vectors."""

    def __init__(self, ranks: Ranks, n: int) -> None:
        self._ranks, self._n = ranks, n

    def mean(self, rows: Tensor) -> Tensor:
        return self.sum(rows.detach().sum(0)) / self._n

    def sum(self, total: Tensor) -> Tensor:
        return self._ranks.sum(total.detach())

    def least(self, smallest: Tensor) -> Tensor:
        return self._ranks.gather(smallest).amin(0)

    def largest(self, candidates: Tensor, k: int) -> Tensor:
        flat, wanted = candidates.detach().reshape(-1), self._n * k
        most = min(wanted, -(-self._n // self._ranks.size) * candidates.shape[1])  # that any process may have
        best = flat.topk(min(most, len(flat)), sorted=False).values
        best = torch.nn.functional.pad(best, (0, most - len(best)), value=-torch.inf)
        everyones = self._ranks.gather(best).view(-1).topk(wanted, sorted=False).values
        smallest = everyones.amin()
        # equal vectors, as those of a first token, tie: the earlier processes' stay, until they are n k
        tied = (flat == smallest).nonzero().squeeze(1)
        before = self._ranks.gather(flat.new_tensor(len(tied)))[: self._ranks.rank].sum()
        left = int((everyones == smallest).sum() - before)
        return torch.cat([(flat > smallest).nonzero().squeeze(1), tied[: max(0, left)]]).sort().values


def shared_batch(inner: Architecture, ranks: Ranks) -> Architecture:
    """The same architecture, whose loss is given whole batches and works on this process's part."""
    base: Any = type(inner)

    class SharedBatch(base):
        def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
            n, mine = len(x), ranks.rows(len(x))
            if n < ranks.size:  # everyone has the same few vectors
                losses: Losses = super().loss(sae, x, target, knobs, dead)
                return losses
            part = x[mine]
            goal = part if target is x else target[mine]
            weight = len(part) * ranks.size / n  # parts are not always of one size
            with sharing(PartOfBatch(ranks, n)):
                losses = super().loss(sae, part, goal, knobs, dead)
            told = torch.stack([losses.loss.detach(), *losses.extra.values()]) * weight
            loss, *extra = ranks.sum(told) / ranks.size
            residual = losses.residual.new_zeros(n, losses.residual.shape[1])
            residual[mine] = losses.residual
            # the value of all, the gradient of this part: the mean of everyone's is the batch's
            own = losses.loss * weight
            return Losses(
                own + (loss - own).detach(),
                ranks.sum(residual),
                ranks.sum(losses.fired),
                dict(zip(losses.extra, extra, strict=True)),
            )

    architecture: Architecture = SharedBatch()
    return architecture


class Together:
    """A stream of which several processes read each block together: each runs its part of the forwards.

    The batches are, to the bit, those that one process alone would read.
    """

    def __init__(self, acts: Any, ranks: Ranks) -> None:
        self._acts, self._ranks = acts, ranks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._acts, name)

    def batches(self, epoch: int = 0, start: int = 0, takes: int | None = None) -> Iterator[Batch]:
        blocks = self._acts.blocks.for_a_reader_of(takes)
        blocks.check(start)
        batches: Iterator[Batch] = blocks.batches(epoch, start, self._acts.memory, self._fill)
        return batches

    def _fill(self, epoch: int, memory: Memory, low: int, high: int) -> None:
        filled = [rows[: high - low] for rows in memory]
        for rows in filled:
            rows.zero_()
        self._acts.fill(epoch, memory, low, high, (self._ranks.rank, self._ranks.size))
        for rows in filled:
            dist.all_reduce(rows)  # every row is somebody's, and zero of all others


def together(acts: Any, ranks: Ranks) -> Any:
    """The stream as several processes read it; a cache and other iterables are read whole by each."""
    from saewidgets.activations import ActivationStream

    return Together(acts, ranks) if ranks.size > 1 and isinstance(acts, ActivationStream) else acts

"""Where a run's vectors come from: an `ActivationStream`, or whatever iterates over [batch, d_in] tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEMetadata

SAMPLE = 16_384
"""Vectors that the input's mean and scale are estimated from."""


class Vectors:
    """The batches of a stream, epoch after epoch, on the SAE's device and in its type."""

    def __init__(self, acts: Any, sae: SAE) -> None:
        self.metadata: SAEMetadata = getattr(acts, "metadata", None) or sae.metadata
        self.n_vectors: int | None = getattr(acts, "n_vectors", None)
        self.batch_size: int = getattr(acts, "batch_size", None) or 1
        self._acts, self._sae = acts, sae
        self._kept: list[Tensor] = []
        self._batches = self._read()
        d_in = getattr(acts, "d_in", None)
        if d_in is None or not (hasattr(acts, "batches") or hasattr(acts, "__iter__")):
            raise TypeError(
                "The activations must iterate over tensors [batch, d_in] and have a d_in, as ActivationStream "
                f"does; got {type(acts).__name__}."
            )
        if d_in != sae.cfg.d_in:
            hook = f" of {self.metadata.hook_name}" if self.metadata.hook_name else ""
            raise ValueError(
                f"The SAE reads vectors of size {sae.cfg.d_in} (d_in), but the activations{hook} have size {d_in}. "
                f"Make the SAE with SAEConfig(d_in={d_in}, ...), or read another hook."
            )

    def sample(self, at_most: int, may_go_on: Callable[[], bool]) -> Tensor | None:
        """The first vectors, [n, d_in], about SAMPLE of them, or the first epoch. `next` gives them again.

        None if `may_go_on` said no.
        """
        n = 0
        while n < min(SAMPLE, at_most):
            if not may_go_on():
                return None
            batch = next(self._batches)
            if batch is None:
                break
            # a stream may reuse its memory, so what is kept is copied
            self._kept.append(batch.clone())
            n += batch.shape[0]
        self.batch_size = max(self.batch_size, *(len(batch) for batch in self._kept))
        return torch.cat(self._kept)

    def next(self) -> Tensor:
        """The next batch, [batch, d_in]."""
        while True:
            batch = self._kept.pop(0) if self._kept else next(self._batches)
            if batch is not None:
                return batch

    def metadata_after(self, step: int, tokens: int) -> SAEMetadata:
        """The metadata of the SAE after a step."""
        return self.metadata.replace(n_tokens_trained=tokens, extra={**self.metadata.extra, "step": step})

    def _read(self) -> Iterator[Tensor | None]:
        """Batches, and None where an epoch ends."""
        epoch, like = 0, self._sae.W_dec
        while True:
            n = 0
            batches = self._acts.batches(epoch) if hasattr(self._acts, "batches") else iter(self._acts)
            for batch in batches:
                if not isinstance(batch, Tensor) or batch.ndim != 2 or batch.shape[1] != self._sae.cfg.d_in:
                    got = tuple(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
                    raise ValueError(
                        f"The activations gave {got} where a tensor [batch, {self._sae.cfg.d_in}] was expected."
                    )
                if len(batch):
                    n += len(batch)
                    yield batch.to(like.device, like.dtype)
            if not n:
                again = " It can be gone through only once: give a list, or a stream." if epoch else ""
                raise ValueError(f"The activations ended: epoch {epoch + 1} has no vectors.{again}")
            if self.n_vectors is None:
                self.n_vectors = n
            epoch += 1
            yield None


def held_out_score(acts: Any, texts: Sequence[str] | None) -> Callable[[SAE], float] | None:
    """A function that gives an SAE's CE loss recovered: on `texts`, else on the stream's own held-out share."""
    if texts is None:
        return getattr(acts, "ce_loss_recovered", None)
    if getattr(acts, "model", None) is None:
        raise ValueError(
            "held_out texts need the model that the activations come from, but these activations have none. "
            "Leave held_out out, or train on an ActivationStream."
        )
    from saewidgets.activations import hook_site, pack, splice_scores

    metadata = acts.metadata
    site = hook_site(acts.model, metadata.hook_name)
    contexts = pack(acts.model, texts, metadata.context_size, prepend_bos=metadata.prepend_bos)

    def score(sae: SAE) -> float:
        return float(splice_scores(sae, acts.model, contexts.tokens, contexts.mask, site).ce_loss_recovered)

    return score

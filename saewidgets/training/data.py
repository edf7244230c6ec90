"""Where a run's vectors come from: an `ActivationStream`, a tensor, or whatever iterates over [batch, d_in] tensors."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEMetadata
from saewidgets.sae.options import check_count

SAMPLE = 16_384
"""Vectors that the input's mean and scale are estimated from."""

Batch = tuple[Tensor, Tensor]
"""What the SAE reads, [batch, d_in], and what it is to give, [batch, d_out]: the same tensor for an autoencoder."""


class TensorStream:
    """Vectors [n, d_in] that are in memory, as a stream: shuffled anew each epoch, by the seed.

    What `train(sae, vectors, ...)` makes of a bare tensor or numpy array, whose memory it reads; make one yourself to
    choose the batch size.
    """

    def __init__(self, vectors: Tensor | np.ndarray, batch_size: int = 2048, seed: int = 0) -> None:
        if isinstance(vectors, np.ndarray) and vectors.dtype in (np.float16, np.float32, np.float64):
            vectors = _tensor_of(vectors)
        if not isinstance(vectors, Tensor) or vectors.ndim != 2 or not vectors.is_floating_point():
            known = isinstance(vectors, (Tensor, np.ndarray))
            got = f"{vectors.dtype} {tuple(vectors.shape)}" if known else type(vectors).__name__
            raise TypeError(
                f"Expected a tensor or an array [n, d_in] of floating-point numbers, a vector per row; got {got}. "
                "Flatten what comes before the last dimension: x.flatten(0, -2).float(), and of an array "
                "x.reshape(-1, x.shape[-1]).astype('float32')."
            )
        if not len(vectors):
            raise ValueError(f"The tensor of shape {tuple(vectors.shape)} holds no vectors to train on.")
        check_count("TensorStream", "batch_size", batch_size)
        self.vectors, self.seed = vectors.detach(), seed
        self.n_vectors, self.d_in = vectors.shape
        self.batch_size = min(batch_size, self.n_vectors)

    def __iter__(self) -> Iterator[Tensor]:
        return self.batches()

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Tensor]:
        """The batches of an epoch from number `start` on. The last one may be smaller."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        # copied once an epoch: a copy to a GPU is waited for
        order = torch.randperm(self.n_vectors, generator=generator).to(self.vectors.device).split(self.batch_size)
        return (self.vectors[rows] for rows in order[start:])

    def fingerprints(self) -> dict[str, str]:
        """What decides the bits of the batches, by name."""
        raw = self.vectors.cpu().contiguous().view(torch.uint8).numpy().tobytes()
        kind = f"{self.vectors.dtype} {tuple(self.vectors.shape)}"
        return {
            "vectors": f"{kind} {hashlib.sha256(raw).hexdigest()}",
            "batch_size": str(self.batch_size),
            "seed": str(self.seed),
        }


def _tensor_of(array: np.ndarray) -> Tensor:
    """The same numbers as a tensor, in the same memory where they lie there row after row."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # nothing here writes into them
        return torch.from_numpy(np.ascontiguousarray(array))


class Vectors:
    """The batches of a stream, epoch after epoch, on the SAE's device and in its type.

    `position`: the (epoch, batch) that comes next; `seek` goes there without giving what comes before. `takes`: how
    many vectors the run takes in all, which a stream that reads in blocks is told: it decides the order of a run that
    is shorter than a block. None: nobody said so.
    """

    def __init__(self, acts: Any, sae: SAE) -> None:
        if isinstance(acts, (Tensor, np.ndarray)):
            acts = TensorStream(acts, seed=sae.cfg.seed)
        self.metadata: SAEMetadata = getattr(acts, "metadata", None) or sae.metadata
        self.n_vectors: int | None = getattr(acts, "n_vectors", None)
        self.batch_size: int = getattr(acts, "batch_size", None) or 1
        self.position = (0, 0)
        self.takes: int | None = None
        self.acts, self._sae = acts, sae
        self._told: dict[str, str] | None = None
        self._kept: deque[tuple[tuple[int, int], Batch | None]] = deque()
        self._batches = self._read(0, 0)
        self._may_go_on: Callable[[], bool] = lambda: True
        batches = getattr(acts, "batches", None)
        self._options = {"may_go_on", "takes"} & set(inspect.signature(batches).parameters if batches else ())
        d_in = getattr(acts, "d_in", None)
        if d_in is None or not (hasattr(acts, "batches") or hasattr(acts, "__iter__")):
            raise TypeError(
                "The activations must be a tensor or array [n, d_in], or iterate over tensors [batch, d_in] and have a "
                f"d_in, as ActivationStream does; got {type(acts).__name__}. "
                "Put a list of tensors together: torch.cat(tensors)."
            )
        if d_in != sae.cfg.d_in:
            hook = f" of {self.metadata.hook_name}" if self.metadata.hook_name else ""
            raise ValueError(
                f"The SAE reads vectors of size {sae.cfg.d_in} (d_in), but the activations{hook} have size {d_in}. "
                f"Make the SAE with SAEConfig(d_in={d_in}, ...), or read another hook."
            )
        if hasattr(acts, "target_hook_name"):
            self._check_paired(acts.target_hook_name is not None)

    def _check_paired(self, paired: bool) -> None:
        """Raise ValueError if there is a second hook and the architecture has no use for it, or the other way round."""
        name, wanted = self._sae.cfg.architecture, self._sae.architecture.predicts_target
        if paired and not wanted:
            raise ValueError(
                f"These activations are pairs of two hooks, but {name!r} reconstructs what it reads. "
                "Leave the second hook out, or train a transcoder."
            )
        if wanted and not paired:
            raise ValueError(
                f"{name!r} predicts the vectors of a second hook, but these activations are of one. Pass pairs: "
                "ActivationStream(..., target_hook_name='blocks.2.hook_mlp_out')."
            )

    def sample(self, at_most: int, may_go_on: Callable[[], bool]) -> Batch | None:
        """The first batches as one, about SAMPLE vectors, or the first epoch. `next` gives them again.

        None, or BrokenOff from inside a block, if `may_go_on` said no.
        """
        n = 0
        self._may_go_on = may_go_on
        while n < min(SAMPLE, at_most):
            if not may_go_on():
                return None
            after, batch = next(self._batches)
            self._kept.append((after, batch))
            if batch is None:
                break
            # a stream may reuse its memory, so what is kept is copied
            x = batch[0].clone()
            self._kept[-1] = (after, (x, x if batch[1] is batch[0] else batch[1].clone()))
            n += len(x)
        batches = [batch for _, batch in self._kept if batch is not None]
        self.batch_size = max(self.batch_size, *(len(x) for x, _ in batches))
        x = torch.cat([x for x, _ in batches])
        paired = any(x is not target for x, target in batches)
        return x, torch.cat([target for _, target in batches]) if paired else x

    def next(self, may_go_on: Callable[[], bool] | None = None) -> Batch:
        """The next batch, [batch, d_in] and [batch, d_out]. BrokenOff if `may_go_on` said no inside a block."""
        if may_go_on is not None:
            self._may_go_on = may_go_on
        while True:
            self.position, batch = self._kept.popleft() if self._kept else next(self._batches)
            if batch is not None:
                return batch

    def seek(self, epoch: int, batch: int) -> None:
        """Make this batch the next one."""
        self.position = (epoch, batch)
        self._kept.clear()
        self._batches = self._read(epoch, batch)

    def fingerprints(self) -> dict[str, str] | None:
        """What the stream said decides its bits when it was first asked, by name; None if it says nothing."""
        told = getattr(self.acts, "fingerprints", None)
        if told is not None and self._told is None:
            self._told = {str(name): str(value) for name, value in told().items()}
        return self._told

    def metadata_after(self, step: int, tokens: int) -> SAEMetadata:
        """The metadata of the SAE after a step."""
        return self.metadata.replace(n_tokens_trained=tokens, extra={**self.metadata.extra, "step": step})

    def _read(self, epoch: int, start: int) -> Iterator[tuple[tuple[int, int], Batch | None]]:
        """Batches, each with the position after it; None where an epoch ends."""
        while True:
            n = 0
            for index, given in enumerate(self._epoch(epoch, start), start):
                batch = self._checked(given)
                if len(batch[0]):
                    n += len(batch[0])
                    yield (epoch, index + 1), batch
            if not n and not start:
                again = " It can be gone through only once: give a list, or a stream." if epoch else ""
                raise ValueError(f"The activations ended: epoch {epoch + 1} has no vectors.{again}")
            if self.n_vectors is None and not start:
                self.n_vectors = n
            epoch, start = epoch + 1, 0
            yield (epoch, 0), None

    def _epoch(self, epoch: int, start: int) -> Iterator[Any]:
        """What the stream gives of an epoch from a batch on. What cannot seek is read over."""
        if not hasattr(self.acts, "batches"):
            return itertools.islice(iter(self.acts), start, None)
        told = {"may_go_on": lambda: self._may_go_on(), "takes": None if epoch else self.takes}
        options = {name: value for name, value in told.items() if name in self._options}
        batches: Iterator[Any] = self.acts.batches(epoch, *([start] if start else []), **options)
        return batches

    def _checked(self, given: Any) -> Batch:
        """What the stream gave as (x, target) on the SAE's device; ValueError if it is neither."""
        cfg, like = self._sae.cfg, self._sae.W_dec
        self._check_paired(isinstance(given, tuple))
        pair = given if isinstance(given, tuple) and len(given) == 2 else (given, given)
        sizes = (cfg.d_in, getattr(cfg, "d_out", None) or cfg.d_in)
        for tensor, size in zip(pair, sizes, strict=True):
            if not isinstance(tensor, Tensor) or tensor.ndim != 2 or tensor.shape[1] != size:
                got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ValueError(f"The activations gave {got} where a tensor [batch, {size}] was expected.")
        x = _moved(pair[0], like)
        if pair[1] is pair[0]:
            return x, x
        if len(pair[1]) != len(x):
            raise ValueError(f"The activations gave {len(x)} vectors to read, but {len(pair[1])} to give.")
        return x, _moved(pair[1], like)


def _moved(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor where another one is. To a GPU it goes from memory that need not be waited for."""
    if like.is_cuda and tensor.device.type == "cpu":
        return tensor.pin_memory().to(like.device, like.dtype, non_blocking=True)
    return tensor.to(like.device, like.dtype)


def held_out_score(acts: Any, texts: Sequence[str] | None) -> Callable[[SAE], float] | None:
    """A function that gives an SAE's CE loss recovered: on `texts`, else on the stream's own held-out share.

    It is one run's, or one sweep's: it keeps what does not depend on the SAE.
    """
    if texts is None:
        held = getattr(acts, "held_out", None)
        if isinstance(held, Sized) and not len(held):  # of a text too short to hold any out
            return None
        scorer = getattr(acts, "scorer", None)
        return getattr(acts, "ce_loss_recovered", None) if scorer is None else scorer()
    if getattr(acts, "model", None) is None:
        raise ValueError(
            "held_out texts need the model that the activations come from, but these activations have none. "
            "Leave held_out out, or train on an ActivationStream."
        )
    from saewidgets.activations import SpliceScorer, hook_site, pack

    metadata, target = acts.metadata, getattr(acts, "target_hook_name", None)
    contexts = pack(acts.model, texts, metadata.context_size, prepend_bos=metadata.prepend_bos)
    return SpliceScorer(
        acts.model,
        contexts.tokens,
        contexts.mask,
        hook_site(acts.model, metadata.hook_name),
        None if target is None else hook_site(acts.model, target),
    )

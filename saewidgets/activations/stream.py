"""Activations of a text as shuffled batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saewidgets.activations.contexts import Contexts, Texts, pack
from saewidgets.activations.harvest import harvest
from saewidgets.activations.hooks import hook_site
from saewidgets.activations.splice import splice_scores
from saewidgets.models.lock import share
from saewidgets.models.tokens import device_of, fingerprint
from saewidgets.sae.config import SAEMetadata

if TYPE_CHECKING:
    from saewidgets.sae.sae import SAE

_HELD_OUT_SHARE, _HELD_OUT_MOST, _HELD_OUT_FROM = 0.02, 64, 10


class ActivationStream:
    """Batches `[batch_size, d_in]` (float32) of a model's activations at one hook; one epoch per `iter()`.

    A pure function of (seed, epoch, block): the seed permutes the contexts of an epoch, and each block of at least
    `block_batches` batches is shuffled as a whole, so `batches(epoch, start)` gives exactly what skipping would. A
    block larger than the text becomes the text. What is left of an epoch behind its last whole batch is dropped;
    it is another part of the text in every epoch.

    Documents never share a context (see `contexts.pack`). The last 2% of the contexts, at most 64, are held out.
    """

    def __init__(
        self,
        model: Any,
        texts: Texts,
        hook_name: str,
        context_size: int = 128,
        batch_size: int = 2048,
        seed: int = 0,
        contexts_per_forward: int | None = None,
        block_batches: int = 50,
        exclude_positions: Sequence[int] = (0,),
        prepend_bos: bool = True,
    ) -> None:
        """Cut the texts into contexts; nothing is run but a forward of a few tokens.

        Args:
            model: A `TransformerBridge`.
            texts: A list of strings, of token id arrays, or a Hugging Face dataset.
            hook_name: A residual stream, mlp_out, attn_out or z hook; z is flattened to heads * d_head.
            context_size: Tokens per context, BOS included.
            batch_size: Activation vectors per batch.
            seed: Of all shuffling.
            contexts_per_forward: Contexts in one forward of the model, for which others wait: 8 on a CPU, else 32.
            block_batches: Fewest batches that are held in memory and shuffled together.
            exclude_positions: Positions in the context that are left out; position 0 is an outlier in most models.
            prepend_bos: Begin every context with BOS.

        Raises:
            ValueError: an unknown hook, a context size that does not fit, no text, or text so short that no
                activation vector comes out of it.
        """
        share(model)
        if contexts_per_forward is None:
            contexts_per_forward = 8 if device_of(model).type == "cpu" else 32
        sizes = {
            "batch_size": batch_size,
            "contexts_per_forward": contexts_per_forward,
            "block_batches": block_batches,
        }
        for name, number in sizes.items():
            if number < 1:
                raise ValueError(f"{name}={number} is not possible; it must be at least 1.")
        self.model = model
        self.site = hook_site(model, hook_name)
        self.batch_size = batch_size
        self.seed = seed
        self.context_size = context_size
        self.prepend_bos = prepend_bos
        self.excluded_positions = tuple(exclude_positions)
        self.contexts_per_forward = contexts_per_forward
        self.block_batches = block_batches
        packed = pack(model, texts, context_size, prepend_bos)
        cut = _cut(packed)
        self._contexts, self._held_out = packed[:cut], packed[cut:]
        counts = self._wanted(self._contexts.mask).sum(1)
        self._contexts, self._counts = self._contexts[counts > 0], counts[counts > 0]
        if self.n_vectors == 0:
            raise ValueError(
                f"The texts are too short: with position{'s' if len(self.excluded_positions) > 1 else ''} "
                f"{', '.join(map(str, self.excluded_positions))} left out, no token gives an activation vector. "
                "Pass longer texts, or exclude_positions=()."
            )

    @property
    def hook_name(self) -> str:
        """The hook the activations are from."""
        return self.site.hook_name

    @property
    def d_in(self) -> int:
        """The width of one vector."""
        return self.site.d_in

    @property
    def n_vectors(self) -> int:
        """Activation vectors in the text, held-out contexts not counted."""
        return int(self._counts.sum())

    @property
    def n_batches(self) -> int:
        """Batches in one epoch; a text that does not fill one gives a single smaller batch."""
        return max(1, self.n_vectors // self.batch_size)

    @property
    def held_out_tokens(self) -> Tensor:
        """Tokens `[n, context_size]` of the contexts that are not streamed; none if the text is very short."""
        return self._held_out.tokens

    @property
    def metadata(self) -> SAEMetadata:
        """What an SAE that is trained on this stream has to remember."""
        processed = bool(getattr(self.model, "compatibility_mode", False))
        return SAEMetadata(
            model_name=self.model.cfg.model_name,
            hook_name=self.hook_name,
            context_size=self.context_size,
            prepend_bos=self.prepend_bos,
            weights_processing="compatibility_mode" if processed else "none",
            excluded_positions=self.excluded_positions,
        )

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Tensor]:
        return self.batches()

    def __repr__(self) -> str:
        return (
            f"ActivationStream({self.hook_name!r}, d_in={self.d_in}, {self.n_vectors:,} vectors in "
            f"{self.n_batches:,} batches of {self.batch_size}, context_size={self.context_size}, seed={self.seed})"
        )

    def fingerprints(self) -> dict[str, str]:
        """Everything that decides the bits of the batches, by name: short values as they are, long ones as sha256.

        A run that is taken up again compares them one by one, so that it can say what differs.
        """
        digest = hashlib.sha256()
        for part in (self._contexts, self._held_out):
            for tensor in (part.tokens, part.mask, part.doc):
                digest.update(str(tuple(tensor.shape)).encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        return {
            "texts": digest.hexdigest(),
            "model weights": fingerprint(self.model),
            "hook_name": self.hook_name,
            "context_size": str(self.context_size),
            "batch_size": str(self.batch_size),
            "seed": str(self.seed),
            "prepend_bos": str(self.prepend_bos),
            "exclude_positions": str(self.excluded_positions),
            "block_batches": str(self.block_batches),
            "contexts_per_forward": str(self.contexts_per_forward),
            "device": device_of(self.model).type,
        }

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Tensor]:
        """The batches of an epoch from number `start` on; the same tensors that skipping would give.

        Raises:
            ValueError: `start` is not a batch of the epoch.
        """
        if not 0 <= start <= self.n_batches:
            raise ValueError(f"start={start} is out of range: an epoch has batches 0 to {self.n_batches - 1}.")
        return self._batches(epoch, start)

    def _batches(self, epoch: int, start: int) -> Iterator[Tensor]:
        order = torch.randperm(len(self._contexts), generator=_generator(self.seed, epoch))
        ends = self._counts[order].cumsum(0)
        n_blocks = max(1, self.n_batches // self.block_batches)
        bounds = [block * self.n_batches // n_blocks for block in range(n_blocks + 1)]
        rows = max(b - a for a, b in zip(bounds, bounds[1:], strict=False)) * self.batch_size
        memory = torch.empty(min(rows, self.n_vectors), self.d_in, device=device_of(self.model))
        for block in range(n_blocks):
            first, last = bounds[block], bounds[block + 1]
            if last <= start:
                continue
            low, high = first * self.batch_size, min(last * self.batch_size, self.n_vectors)
            self._fill(memory, order, ends, low, high)
            mixed = torch.randperm(high - low, generator=_generator(self.seed, epoch, block)).to(memory.device)
            for batch in range(max(first, start), last):
                where = mixed[(batch - first) * self.batch_size : (batch - first + 1) * self.batch_size]
                yield memory[where]

    def _fill(self, memory: Tensor, order: Tensor, ends: Tensor, low: int, high: int) -> None:
        """Vectors number `low` to `high` of the permuted text into the first rows of `memory`."""
        first = int(torch.searchsorted(ends, low, right=True))
        last = int(torch.searchsorted(ends, high)) + 1
        chosen = order[first:last]
        starts = ends[first:last] - self._counts[chosen] - low  # row of each context's first vector
        tokens, mask = self._contexts.tokens[chosen], self._contexts.mask[chosen]
        lengths = mask.sum(1)
        # contexts of like length share a forward, cut to the longest of them: padding costs next to nothing
        by_length = torch.argsort(lengths, descending=True, stable=True)
        for some in by_length.split(self.contexts_per_forward):
            width = int(lengths[some[0]])
            found = harvest(self.model, tokens[some, :width], self.site)
            wanted = self._wanted(mask[some, :width])
            rows = (starts[some, None] + wanted.cumsum(1) - 1)[wanted]
            inside = (rows >= 0) & (rows < high - low)  # a context on a block's border belongs to both
            vectors = found[wanted.to(found.device)]
            if not bool(inside.all()):
                rows, vectors = rows[inside], vectors[inside.to(vectors.device)]
            memory[rows.to(memory.device)] = vectors.to(memory.dtype)

    def _wanted(self, mask: Tensor) -> Tensor:
        wanted = mask.clone()
        wanted[:, [p for p in self.excluded_positions if p < mask.shape[1]]] = False
        return wanted

    def ce_loss_recovered(self, sae: SAE) -> float:
        """CE loss recovered by an SAE on the held-out contexts; NaN if the text was too short to hold any out."""
        if len(self._held_out) == 0 or int(self._wanted(self._held_out.mask)[:, :-1].sum()) == 0:
            return float("nan")
        scores = splice_scores(sae, self.model, self._held_out.tokens, self._held_out.mask, self.site)
        return scores.ce_loss_recovered


def _cut(contexts: Contexts) -> int:
    """Where the held-out contexts begin: with a document of their own, where the text has more than one."""
    n = len(contexts)
    if n < _HELD_OUT_FROM:
        return n
    cut = n - min(_HELD_OUT_MOST, max(1, round(n * _HELD_OUT_SHARE)))
    fresh = cut
    while fresh < n and contexts.doc[fresh] == contexts.doc[fresh - 1]:
        fresh += 1
    return fresh if fresh < n else cut


def _generator(*numbers: int) -> torch.Generator:
    digest = hashlib.sha256(":".join(map(str, numbers)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

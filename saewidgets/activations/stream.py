"""Activations of a text as shuffled batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saewidgets.activations.blocks import Ask, Batch, Blocks, Memory, check_sizes, generator
from saewidgets.activations.contexts import Contexts, asked, digest, fitting, held_out_from, pack
from saewidgets.activations.harvest import harvest_rows
from saewidgets.activations.hooks import HookSite, hook_site
from saewidgets.activations.keywords import says_its_options
from saewidgets.activations.sources import Texts
from saewidgets.activations.splice import SpliceScorer
from saewidgets.models.lock import share
from saewidgets.models.tokens import device_of, fingerprint
from saewidgets.progress import Report
from saewidgets.sae.config import SAEMetadata

if TYPE_CHECKING:
    from pathlib import Path

    from saewidgets.activations.cache import ActivationCache
    from saewidgets.sae.sae import SAE


class ActivationStream:
    """Batches `[batch_size, d_in]` (float32) of a model's activations at one hook; one epoch per `iter()`.

    A pure function of (seed, epoch, block): the seed permutes the contexts of an epoch, and each block of at least
    `block_batches` batches is shuffled as a whole, so `batches(epoch, start)` gives exactly what skipping would. A
    block larger than the text becomes the text, one larger than a run the run. What is left of an epoch behind its last
    whole batch is dropped; it is another part of the text in every epoch.

    With a `target_hook_name` the batches are pairs (x `[batch_size, d_in]`, target `[batch_size, d_out]`), both read in
    one forward at the same tokens: what a transcoder is trained on.

    Documents never share a context (see `contexts.pack`). The last 2% of the contexts, at most 64, are held out.
    """

    @says_its_options("sw.ActivationStream(model, texts, hook_name='blocks.2.hook_resid_post')", layer="hook_name")
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
        target_hook_name: str | None = None,
        max_texts: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Cut the texts into contexts; nothing is run but a forward of a few tokens.

        The texts are read here, once, and kept as token ids (8 bytes a token); a streaming dataset only as far as
        `max_texts` or `max_tokens` say.

        Args:
            model: A `TransformerBridge`.
            texts: A list of strings, the `Path` of a text file (`<|endoftext|>` between documents, else blank lines),
                a Hugging Face dataset (a streaming one needs a bound), token ids as a list of arrays or as one array
                (numpy or torch, a row a document).
            hook_name: A hook that gives a vector per token. In block N: `blocks.N.hook_resid_pre`, `hook_resid_mid` and
                `hook_resid_post` (the residual stream before, between and after attention and MLP), `hook_attn_out`,
                `hook_mlp_out`, `mlp.hook_in` (what the MLP reads), `attn.hook_z` (flattened to heads * d_head).
            context_size: Tokens per context, BOS included.
            batch_size: Activation vectors per batch.
            seed: Of all shuffling.
            contexts_per_forward: Contexts in one forward of the model, for which others wait: 8 on a CPU, else 32.
            block_batches: Fewest batches that are held in memory and shuffled together.
            exclude_positions: Positions in the context that are left out; position 0 is an outlier in most models.
            prepend_bos: Begin every context with BOS.
            target_hook_name: A second hook, of which the batches hold the vectors too.
            max_texts: Documents to read at most. `max_tokens`: tokens, where the last document is then cut.

        Raises:
            ValueError: an unknown hook, a context size that does not fit, no text, or text so short that no
                activation vector comes out of it.
            FileNotFoundError: no such text file.
        """
        share(model)
        if contexts_per_forward is None:
            contexts_per_forward = 8 if device_of(model).type == "cpu" else 32
        check_sizes(batch_size=batch_size, contexts_per_forward=contexts_per_forward, block_batches=block_batches)
        self.model = model
        self.site = hook_site(model, hook_name)
        self.target_site = None if target_hook_name is None else hook_site(model, target_hook_name)
        self.batch_size = batch_size
        self.seed = seed
        self.context_size = context_size
        self.prepend_bos = prepend_bos
        self.excluded_positions = tuple(exclude_positions)
        self.contexts_per_forward = contexts_per_forward
        self.block_batches = block_batches
        packed = pack(model, texts, context_size, prepend_bos, max_texts, max_tokens)
        cut = held_out_from(packed)
        self._contexts, self._held_out = packed[:cut], packed[cut:]
        counts = asked(self._contexts.mask, self.excluded_positions).sum(1)
        self._contexts, self._counts = self._contexts[counts > 0], counts[counts > 0]
        if self.n_vectors == 0:
            raise ValueError(
                f"The texts are too short: with exclude_positions={self.excluded_positions} no token gives a vector. "
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
    def target_hook_name(self) -> str | None:
        """The hook the targets are from; None if the batches are no pairs."""
        return None if self.target_site is None else self.target_site.hook_name

    @property
    def d_out(self) -> int:
        """The width of what an SAE trained on this has to give: of a target, else of a vector itself."""
        return (self.target_site or self.site).d_in

    @property
    def n_vectors(self) -> int:
        """Activation vectors in the text, held-out contexts not counted."""
        return int(self._counts.sum())

    @property
    def n_batches(self) -> int:
        """Batches in one epoch; a text that does not fill one gives a single smaller batch."""
        return self.blocks.n_batches

    @property
    def held_out(self) -> Contexts:
        """The contexts that are not streamed and have something to score; none if the text is very short."""
        mask = self._held_out.mask
        return self._held_out[(asked(mask, self.excluded_positions)[:, :-1] & mask[:, 1:]).any(1)]

    @property
    def held_out_tokens(self) -> Tensor:
        """Tokens `[n, context_size]` of the contexts that are not streamed."""
        return self._held_out.tokens

    def excerpt(self, at_most: int) -> Contexts:
        """Contexts that give up to `at_most` vectors, to look things up in: those held out, then the first streamed."""
        held_out = self.held_out
        # each context gives a vector or more, so no more of them are needed
        n = fitting(torch.cat([asked(held_out.mask, self.excluded_positions).sum(1), self._counts[:at_most]]), at_most)
        return held_out[:n] + self._contexts[: max(0, n - len(held_out))]

    @property
    def metadata(self) -> SAEMetadata:
        """What an SAE that is trained on this stream has to remember."""
        return SAEMetadata(
            model_name=self.model.cfg.model_name,
            hook_name=self.hook_name,
            context_size=self.context_size,
            prepend_bos=self.prepend_bos,
            weights_processing="compatibility_mode" if getattr(self.model, "compatibility_mode", False) else "none",
            excluded_positions=self.excluded_positions,
            extra={} if self.target_site is None else {"target_hook_name": self.target_hook_name},
        )

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def __repr__(self) -> str:
        target = "" if self.target_site is None else f"to {self.target_hook_name!r}, d_out={self.d_out}, "
        return (
            f"ActivationStream({self.hook_name!r}, d_in={self.d_in}, {target}{self.n_vectors:,} vectors in "
            f"{self.n_batches:,} batches of {self.batch_size}, context_size={self.context_size}, seed={self.seed})"
        )

    def fingerprints(self) -> dict[str, str]:
        """Everything that decides the bits of the batches, by name: short values as they are, long ones as sha256.

        A run that is taken up again compares them one by one, so that it can say what differs.
        """
        return {
            "texts": digest(self._contexts, self._held_out),
            "model weights": fingerprint(self.model),
            "hook_name": self.hook_name,
            "target_hook_name": str(self.target_hook_name),
            "context_size": str(self.context_size),
            "batch_size": str(self.batch_size),
            "seed": str(self.seed),
            "prepend_bos": str(self.prepend_bos),
            "exclude_positions": str(self.excluded_positions),
            "block_batches": str(self.block_batches),
            "contexts_per_forward": str(self.contexts_per_forward),
            "device": device_of(self.model).type,
        }

    def batches(
        self, epoch: int = 0, start: int = 0, may_go_on: Ask | None = None, takes: int | None = None
    ) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; the same tensors that skipping would give.

        A block takes many forwards: `may_go_on` is asked before each, so that a run can pause inside a block. `takes`:
        vectors of the epoch that the reader takes at most. Where that is less than the first block, the block ends
        there, so that no more is read: the same text in front, in another order than a longer reader has it.

        Raises:
            ValueError: `start` is not a batch of the epoch.
            BrokenOff: `may_go_on` said no.
        """
        blocks = self.blocks.for_a_reader_of(takes)
        blocks.check(start)
        return blocks.batches(epoch, start, self.memory, partial(self.fill, may_go_on=may_go_on))

    def cache(
        self,
        path: str | Path,
        dtype: str = "float16",
        shard_vectors: int | None = None,
        on_progress: Report | None = None,
    ) -> ActivationCache:
        """Write every vector of the text to a folder, once, and open it; see `ActivationCache`.

        It takes n_vectors * d_in * (2 bytes, or 4 for float32) of disk. What was interrupted is taken up where it
        ended; a folder that holds this cache already is opened.

        Args:
            path: The folder; made if it is not there.
            dtype: "float16", "bfloat16" or "float32".
            shard_vectors: Vectors in one file, and so in memory at once; by default what fits into 128 MB.
            on_progress: Called with a phase and the share done; by default a bar is shown under IPython.

        Raises:
            FileExistsError: the folder holds something else.
            ValueError: an unknown dtype, or vectors that are not finite (in float16: larger than 65,504).
        """
        from saewidgets.activations.cache_writing import write_cache

        return write_cache(self, path, dtype, shard_vectors, on_progress)

    @property
    def blocks(self) -> Blocks:
        """How an epoch is cut into batches."""
        return Blocks(self.n_vectors, self.batch_size, self.block_batches, self.seed)

    def memory(self, rows: int) -> Memory:
        """Room for so many vectors, and their targets, on the model's device."""
        return tuple(torch.empty(rows, site.d_in, device=device_of(self.model)) for site in self._sites)

    def fill(
        self,
        epoch: int,
        memory: Memory,
        low: int,
        high: int,
        share: tuple[int, int] = (0, 1),
        may_go_on: Ask | None = None,
    ) -> None:
        """Vectors number `low` to `high` of an epoch's permuted text into the first rows of `memory`.

        `share` (i, n): only every n-th forward is run, from number i on, and other rows are left as they are: n
        processes fill a block together.
        """
        order = torch.randperm(len(self._contexts), generator=generator(self.seed, epoch))
        ends = self._counts[order].cumsum(0)
        first = int(torch.searchsorted(ends, low, right=True))
        last = int(torch.searchsorted(ends, high)) + 1
        contexts = self._contexts[order[first:last]]
        wanted = asked(contexts.mask, self.excluded_positions)
        starts = ends[first:last] - wanted.sum(1) - low  # row of each context's first vector
        rows = starts[:, None] + wanted.cumsum(1) - 1
        rows[~wanted | (rows < 0) | (rows >= high - low)] = -1  # a context on a block's border belongs to both blocks
        harvest_rows(self.model, contexts, rows, self._sites, memory, self.contexts_per_forward, share, may_go_on)

    @property
    def _sites(self) -> list[HookSite]:
        return [self.site] if self.target_site is None else [self.site, self.target_site]

    def ce_loss_recovered(self, sae: SAE) -> float:
        """CE loss recovered by an SAE, or a transcoder, on the held-out contexts.

        NaN if the text was too short to hold any out.
        """
        return self.scorer()(sae)

    def scorer(self) -> SpliceScorer:
        """`ce_loss_recovered` for many SAEs: what is the same for all of them is computed once, for the first."""
        kept = self.held_out
        return SpliceScorer(self.model, kept.tokens, kept.mask, self.site, self.target_site)

"""What putting an SAE's reconstruction in place of the activation does to the model's prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from saewidgets.activations.contexts import asked
from saewidgets.activations.harvest import harvest
from saewidgets.activations.hooks import HookSite
from saewidgets.activations.resume import Halfway, run_halfway, run_on
from saewidgets.models.tokens import device_of

if TYPE_CHECKING:
    from saewidgets.sae.sae import SAE

_LOGITS_AT_ONCE = 16 * 1024 * 1024  # numbers in one tensor of logits: 64 MB in float32
_CONTEXTS_AT_ONCE = 8

KEPT_BYTES = 256 * 1024 * 1024
"""Of activations that a `SpliceScorer` keeps."""

Look = Callable[[Tensor, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class SpliceScores:
    """Cross entropies in nats per predicted token, over the same tokens."""

    ce_clean: float
    """Of the model left alone."""
    ce_spliced: float
    """With the SAE's reconstruction in place of the activation."""
    ce_zero: float
    """With zeros in place of the activation (zero ablation)."""
    kl: float
    """KL(clean || spliced) of the next-token distributions, nats per token."""
    n_tokens: int
    """How many predictions were scored."""

    @property
    def ce_loss_recovered(self) -> float:
        """(zero - spliced) / (zero - clean): 1 is as good as the model itself, 0 as bad as zero ablation."""
        return recovered(self.ce_clean, self.ce_spliced, self.ce_zero)


def recovered(clean: float, spliced: float, zero: float) -> float:
    """CE loss recovered; NaN if zero ablation does no harm at all."""
    return (zero - spliced) / (zero - clean) if zero > clean else float("nan")


@torch.no_grad()
def splice_scores(
    sae: SAE,
    model: Any,
    tokens: Tensor,
    mask: Tensor,
    site: HookSite,
    on_vectors: Look | None = None,
    target_site: HookSite | None = None,
) -> SpliceScores:
    """Score an SAE by the model's own loss.

    Args:
        tokens: `[n, pos]` token ids.
        mask: `[n, pos]` bool, false for padding. A prediction counts where its token and the next are text and its
            own activation was spliced.
        site: Where the SAE belongs. Positions in `sae.metadata.excluded_positions` are left as they are and are not
            counted.
        on_vectors: Called with the vectors `[k, d_out]` that were replaced, their reconstruction, and the values and
            indices of the active features, batch after batch: other scores of the same pass.
        target_site: For a transcoder, where its prediction takes the activation's place; it reads at `site`.

    Raises:
        ValueError: nothing to score.
    """
    total = torch.zeros(4, dtype=torch.float64)
    count = 0
    for passage in _passages(model, tokens, mask, sae.metadata.excluded_positions):
        halfway, vectors = _read(model, passage, site, target_site)
        read, where = vectors[passage.where].float(), passage.where
        values, indices = sae.encode_sparse(read)
        reconstruction = sae.decode_sparse(values, indices, read).to(halfway.activation.device)
        if on_vectors is not None:
            on_vectors(halfway.vectors[where].float(), reconstruction, values, indices)
        clean = passage.log_probs(halfway.logits)
        spliced = passage.log_probs(run_on(model, halfway, replace_at(halfway.site, where, reconstruction)))
        zero = passage.log_probs(run_on(model, halfway, zeros_at(halfway.site, where)))
        ce = [passage.cross_entropy(scores) for scores in (clean, spliced, zero)]
        kl = functional.kl_div(spliced, clean, log_target=True, reduction="sum")
        total += torch.stack([*ce, kl]).cpu().double()
        count += len(passage.targets)
    ce_clean, ce_spliced, ce_zero, kl_mean = (total / count).tolist()
    return SpliceScores(ce_clean, ce_spliced, ce_zero, kl_mean, count)


class SpliceScorer:
    """CE loss recovered by one SAE after another on the same contexts, to the bit what `splice_scores` gives for each.

    The clean and the zero-ablated forward do not depend on the SAE: they are run for the first one, and their cross
    entropies kept, so every other costs the layers behind the hook once. Kept too, up to KEPT_BYTES, are the
    activations those layers start from; where they are too many, the clean forward is run again.

    The model is taken to stay as it is at the first call, but for its device. Used by one thread.
    """

    def __init__(
        self, model: Any, tokens: Tensor, mask: Tensor, site: HookSite, target_site: HookSite | None = None
    ) -> None:
        """`tokens`, `mask` `[n, pos]`, `site`, `target_site`: as in `splice_scores`."""
        self.model, self.tokens, self.mask, self.site, self.target_site = model, tokens, mask, site, target_site
        self._kept_for: tuple[tuple[int, ...], torch.device] | None = None  # positions it leaves out, and where it is
        self._passages: list[_Passage] = []
        self._kept: dict[int, tuple[Halfway, Tensor]] = {}
        self._ends = torch.zeros(2, dtype=torch.float64)  # cross entropies, clean and zero, summed

    @torch.no_grad()
    def __call__(self, sae: SAE) -> float:
        """CE loss recovered; NaN if there are no contexts. ValueError if none of them has anything to score."""
        if not len(self.tokens):
            return float("nan")
        wanted = sae.metadata.excluded_positions, device_of(self.model)
        if self._kept_for != wanted:
            self._run_ends(sae.metadata.excluded_positions)
            self._kept_for = wanted
        total = torch.zeros((), dtype=torch.float64)
        for number, passage in enumerate(self._passages):
            halfway, vectors = self._kept.get(number) or _read(self.model, passage, self.site, self.target_site)
            read = vectors[passage.where].float()
            reconstruction = sae.decode_sparse(*sae.encode_sparse(read), read).to(halfway.activation.device)
            logits = run_on(self.model, halfway, replace_at(halfway.site, passage.where, reconstruction))
            total += passage.cross_entropy(passage.log_probs(logits)).cpu().double()
        count = sum(len(passage.targets) for passage in self._passages)
        clean, zero = (self._ends / count).tolist()
        return recovered(clean, float(total / count), zero)

    def release(self) -> None:
        """Give back the memory of what is kept. The next call runs the model clean and with zeros again."""
        self._kept_for = None  # first: what follows may be broken off by an error
        self._kept.clear()
        self._passages.clear()
        self._ends.zero_()

    def _run_ends(self, excluded: tuple[int, ...]) -> None:
        """Run the model clean and with zeros, and keep what the next SAE needs of it."""
        self.release()
        self._passages += _passages(self.model, self.tokens, self.mask, excluded)
        room = KEPT_BYTES
        for number, passage in enumerate(self._passages):
            halfway, vectors = _read(self.model, passage, self.site, self.target_site)
            zeroed = run_on(self.model, halfway, zeros_at(halfway.site, passage.where))
            ce = [passage.cross_entropy(passage.log_probs(logits)) for logits in (halfway.logits, zeroed)]
            self._ends += torch.stack(ce).cpu().double()
            kept = (halfway.activation, halfway.residual, vectors)  # of one memory where it is one hook
            room -= sum({t.data_ptr(): t.nbytes for t in kept if t is not None}.values())
            if room >= 0:
                # the logits are as large as the vocabulary, and are not asked for again
                self._kept[number] = replace(halfway, logits=halfway.logits.new_empty(0)), vectors


@dataclass(frozen=True)
class _Passage:
    """Contexts of like length that share a forward, cut to the longest of them."""

    tokens: Tensor
    """`[rows, pos]`."""
    where: Tensor
    """`[rows, pos]` bool: what is spliced."""
    scored: Tensor
    """`[rows, pos - 1]` bool: predictions that count."""

    @property
    def targets(self) -> Tensor:
        """The tokens that are to be predicted, [m]."""
        return self.tokens[:, 1:][self.scored]

    def log_probs(self, logits: Tensor) -> Tensor:
        """[m, vocabulary] from `[rows, pos, vocabulary]`."""
        return functional.log_softmax(logits[:, :-1][self.scored].float(), dim=-1)

    def cross_entropy(self, log_probs: Tensor) -> Tensor:
        """Summed over the predictions that count."""
        return functional.nll_loss(log_probs, self.targets, reduction="sum")


def _passages(model: Any, tokens: Tensor, mask: Tensor, excluded: Sequence[int]) -> Iterator[_Passage]:
    """What is scored of `tokens` `[n, pos]`, on the model's device. ValueError, before the first, if nothing is."""
    device = device_of(model)
    spliced_at = asked(mask, excluded)
    if not bool((spliced_at[:, :-1] & mask[:, 1:]).any()):
        raise ValueError(
            "There is nothing to score: no text is longer than the positions that the SAE leaves out. "
            "Pass longer texts."
        )
    rows = max(1, min(_CONTEXTS_AT_ONCE, _LOGITS_AT_ONCE // (tokens.shape[1] * int(model.cfg.d_vocab))))
    for some in torch.argsort(mask.sum(1), descending=True, stable=True).split(rows):
        width = int(mask[some[0]].sum())
        where = spliced_at[some, :width]
        if bool(where.any()):
            scored = where[:, :-1] & mask[some, 1:width]
            yield _Passage(tokens[some, :width].to(device), where.to(device), scored.to(device))


def _read(model: Any, passage: _Passage, site: HookSite, target_site: HookSite | None) -> tuple[Halfway, Tensor]:
    """The clean forward, halfway at what is replaced, and the vectors `[rows, pos, d_in]` that an SAE reads."""
    halfway = run_halfway(model, passage.tokens, target_site or site)
    return halfway, halfway.vectors if target_site is None else harvest(model, passage.tokens, site)


def replace_at(site: HookSite, where: Tensor, vectors: Tensor) -> Callable[..., Tensor]:
    """A hook function that puts vectors `[k, d_in]` where `where` `[batch, pos]` is true."""

    def hook(activation: Tensor, hook: Any) -> Tensor:
        changed = (activation.flatten(2) if site.flatten else activation).clone()
        changed[where] = vectors.to(changed.dtype)
        return changed.reshape(activation.shape)

    return hook


def zeros_at(site: HookSite, where: Tensor) -> Callable[..., Tensor]:
    """A hook function that puts zeros where `where` `[batch, pos]` is true."""
    return replace_at(site, where, torch.zeros(int(where.sum()), site.d_in, device=where.device))

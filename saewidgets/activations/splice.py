"""What putting an SAE's reconstruction in place of the activation does to the model's prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from saewidgets.activations.harvest import harvest
from saewidgets.activations.hooks import HookSite
from saewidgets.activations.resume import run_halfway, run_on
from saewidgets.models.tokens import device_of

if TYPE_CHECKING:
    from saewidgets.sae.sae import SAE

_LOGITS_AT_ONCE = 16 * 1024 * 1024  # numbers in one tensor of logits: 64 MB in float32
_CONTEXTS_AT_ONCE = 8

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
        on_vectors: Called with the spliced vectors `[k, d_in]`, their reconstruction, and the values and indices of
            the active features, batch after batch: other scores of the same pass.
        target_site: For a transcoder, where its prediction takes the activation's place; it reads at `site`.

    Raises:
        ValueError: nothing to score.
    """
    device = device_of(model)
    spliced_at = mask.clone()
    spliced_at[:, [p for p in sae.metadata.excluded_positions if p < tokens.shape[1]]] = False
    if not bool((spliced_at[:, :-1] & mask[:, 1:]).any()):
        raise ValueError(
            "There is nothing to score: no text is longer than the positions that the SAE leaves out. "
            "Pass longer texts."
        )
    total = torch.zeros(4, dtype=torch.float64)
    count = 0
    rows = max(1, min(_CONTEXTS_AT_ONCE, _LOGITS_AT_ONCE // (tokens.shape[1] * int(model.cfg.d_vocab))))
    # contexts of like length share a forward, cut to the longest of them
    for some in torch.argsort(mask.sum(1), descending=True, stable=True).split(rows):
        width = int(mask[some[0]].sum())
        batch, where = tokens[some, :width].to(device), spliced_at[some, :width].to(device)
        if not bool(where.any()):
            continue
        halfway = run_halfway(model, batch, target_site or site)
        read = halfway.vectors if target_site is None else harvest(model, batch, site)
        vectors = read[where].float()
        values, indices = sae.encode_sparse(vectors)
        reconstruction = sae.decode_sparse(values, indices, vectors).to(device)
        if on_vectors is not None:
            on_vectors(vectors, reconstruction, values, indices)
        scored = where[:, :-1] & mask[some, 1:width].to(device)
        targets = batch[:, 1:][scored]
        clean = _log_probs(halfway.logits, scored)
        spliced = _log_probs(run_on(model, halfway, replace_at(halfway.site, where, reconstruction)), scored)
        zero = _log_probs(
            run_on(model, halfway, replace_at(halfway.site, where, torch.zeros_like(reconstruction))), scored
        )
        ce = [functional.nll_loss(scores, targets, reduction="sum") for scores in (clean, spliced, zero)]
        kl = functional.kl_div(spliced, clean, log_target=True, reduction="sum")
        total += torch.stack([*ce, kl]).cpu().double()
        count += len(targets)
    ce_clean, ce_spliced, ce_zero, kl_mean = (total / count).tolist()
    return SpliceScores(ce_clean, ce_spliced, ce_zero, kl_mean, count)


def replace_at(site: HookSite, where: Tensor, vectors: Tensor) -> Callable[..., Tensor]:
    """A hook function that puts vectors `[k, d_in]` where `where` `[batch, pos]` is true."""

    def hook(activation: Tensor, hook: Any) -> Tensor:
        changed = (activation.flatten(2) if site.flatten else activation).clone()
        changed[where] = vectors.to(changed.dtype)
        return changed.reshape(activation.shape)

    return hook


def _log_probs(logits: Tensor, scored: Tensor) -> Tensor:
    return functional.log_softmax(logits[:, :-1][scored].float(), dim=-1)

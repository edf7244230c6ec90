"""What putting an SAE's reconstruction in place of the activation does to the model's prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from saewidgets.activations.hooks import HookSite
from saewidgets.models.lock import forward_hooks
from saewidgets.models.tokens import device_of

if TYPE_CHECKING:
    from saewidgets.sae.sae import SAE

_LOGITS_AT_ONCE = 64 * 1024 * 1024  # numbers in one tensor of logits: 256 MB in float32


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


def replace_at(site: HookSite, keep: Tensor, new: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A hook that puts `new(x)` in place of the activation where `keep` [batch, pos] is true; x is [k, d_in]."""

    def hook(activation: Tensor, hook: Any) -> Tensor:
        vectors = activation.flatten(2) if site.flatten else activation
        changed = vectors.clone()
        changed[keep] = new(vectors[keep].float()).to(vectors.dtype)
        return changed.reshape(activation.shape)

    return hook


@torch.no_grad()
def splice_scores(sae: SAE, model: Any, tokens: Tensor, mask: Tensor, site: HookSite) -> SpliceScores:
    """Score an SAE by the model's own loss.

    Args:
        tokens: `[n, pos]` token ids.
        mask: `[n, pos]` bool, false for padding. A prediction counts where its token and the next are text and its
            own activation was spliced.
        site: Where the SAE belongs. Positions in `sae.metadata.excluded_positions` are left as they are and are not
            counted.

    Raises:
        ValueError: nothing to score.
    """
    device = device_of(model)
    spliced_at = mask.to(device).clone()
    excluded = [p for p in sae.metadata.excluded_positions if p < tokens.shape[1]]
    spliced_at[:, excluded] = False
    total = torch.zeros(4, dtype=torch.float64, device="cpu")
    count = 0
    rows = max(1, min(16, _LOGITS_AT_ONCE // (tokens.shape[1] * int(model.cfg.d_vocab))))
    for start in range(0, len(tokens), rows):
        here = slice(start, start + rows)
        width = max(2, int(mask[here].sum(1).max())) if bool(mask[here].any()) else 2
        batch, where = tokens[here, :width].to(device), spliced_at[here, :width]
        scored = where[:, :-1] & mask[here, 1:width].to(device)
        n = int(scored.sum())
        if n == 0:
            continue
        targets = batch[:, 1:][scored]

        def reconstruct(x: Tensor) -> Tensor:
            output: Tensor = sae(x.to(sae.device)).to(x.device)
            return output

        clean = _log_probs(model, batch, scored, None)
        spliced = _log_probs(model, batch, scored, (site.hook_name, replace_at(site, where, reconstruct)))
        zero = _log_probs(model, batch, scored, (site.hook_name, replace_at(site, where, torch.zeros_like)))
        ce = [functional.nll_loss(scores, targets, reduction="sum") for scores in (clean, spliced, zero)]
        kl = functional.kl_div(spliced, clean, log_target=True, reduction="sum")
        total += torch.stack([*ce, kl]).double().cpu()
        count += n
    if count == 0:
        raise ValueError(
            "There is nothing to score: no text is longer than the positions that the SAE leaves out. "
            "Pass longer texts."
        )
    ce_clean, ce_spliced, ce_zero, kl_mean = (total / count).tolist()
    return SpliceScores(ce_clean, ce_spliced, ce_zero, kl_mean, count)


def _log_probs(model: Any, tokens: Tensor, scored: Tensor, hook: tuple[str, Any] | None) -> Tensor:
    with forward_hooks(model, [hook] if hook else []):
        logits = model(tokens, return_type="logits")
    return functional.log_softmax(logits[:, :-1][scored].float(), dim=-1)

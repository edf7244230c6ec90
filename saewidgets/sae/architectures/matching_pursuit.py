"""Matching pursuit (Mallat & Zhang 1993; as an SAE, Costa et al. 2025, "From Flat to Hierarchical")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.architectures.topk import check_k
from saewidgets.sae.kernels import Places

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE


@register("matching_pursuit")
class MatchingPursuit(Architecture):
    """Features are taken one by one, each for what the ones before have left over:

        r_0     = x - b_dec
        j_t     = argmax_j  r_t . W_dec_j                      k times
        f_{j_t} += relu(r_t . W_dec_{j_t})
        r_{t+1} = r_t - relu(r_t . W_dec_{j_t}) W_dec_{j_t}
        xhat    = f W_dec + b_dec = x - r_k
        L       = ||r_k||^2 / d_in

    Mean over the batch. The encoder is the dictionary itself, so W_enc = W_dec^T always, and b_enc is not used;
    nothing revives a dead feature. Decoder rows have length 1. A step costs k encoder products, not one.
    (sae-lens's stops when a vector's set of features no longer changes; this one after k.)
    """

    reads = frozenset({"k"})

    def validate(self, cfg: SAEConfig) -> None:
        check_k(cfg)

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        indices = self._choose(sae, x, sae.cfg.k)
        steps, _ = self._pursue(sae, x, indices)
        return _merge(steps, indices), indices

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        indices = self._choose(sae, x, knobs.k)
        steps, difference = self._pursue(sae, x, indices)
        f = _merge(steps.detach(), indices)
        fired = Places.even(indices, sae.cfg.d_sae).count((f > 0).to(x.dtype))
        return Losses(difference.square().mean(), difference.detach(), fired)

    def after_step(self, sae: SAE, losses: Losses, good: Tensor) -> None:
        sae.W_enc.copy_(sae.W_dec.t())

    @torch.no_grad()
    def _choose(self, sae: SAE, x: Tensor, k: int) -> Tensor:
        """Which features, in the order that they are taken: [n, k]."""
        left, chosen = x - sae.b_dec, []
        for _ in range(k):
            step, which = (left @ sae.W_enc).max(1)
            chosen.append(which)
            left = left - step.relu().unsqueeze(1) * sae.W_dec[which]
        return torch.stack(chosen, 1)

    def _pursue(self, sae: SAE, x: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """How far along each chosen feature, [n, k], and what is left over, [n, d_in]."""
        rows = sae.W_dec[indices]
        # the dictionary reads as it writes; folded weights differ by the square of the scale
        ratio = (sae.W_enc.t().norm() / sae.W_dec.norm()).detach()
        left, steps = x - sae.b_dec, []
        for t in range(indices.shape[1]):
            steps.append((left * rows[:, t]).sum(1).relu() * ratio)
            left = left - steps[-1].unsqueeze(1) * rows[:, t]
        return torch.stack(steps, 1), left


def _merge(steps: Tensor, indices: Tensor) -> Tensor:
    """A feature taken more than once has its sum where it was first taken, and 0 later."""
    merged = [steps[:, 0]]
    for t in range(1, steps.shape[1]):
        again = indices[:, :t] == indices[:, t : t + 1]
        first = again & (again.cumsum(1) == 1)
        merged = [value + steps[:, t] * first[:, i] for i, value in enumerate(merged)]
        merged.append(steps[:, t] * ~again.any(1))
    return torch.stack(merged, 1)

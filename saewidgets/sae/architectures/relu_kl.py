"""ReLU with a KL-divergence penalty on firing rates (Ng, "Sparse autoencoder", CS294A lecture notes, 2011)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.selection import everywhere, places_above

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE

MEMORY = 0.9
"""Share of the rate that one step keeps."""


@register("relu_kl")
class ReLUKL(Architecture):
    """Every feature is to be active in the same share of the vectors, rho = `target_rate`:

        h     = (x - b_dec) W_enc + b_enc
        f     = relu(h)
        xhat  = f W_dec + b_dec
        L     = ||x - xhat||^2 / d_in  +  beta / d_sae sum_i KL(rho || rate_i)
        KL(rho || r) = rho log(rho / r) + (1 - rho) log((1 - rho) / (1 - r))

    Mean over the batch; beta = `sparsity_coefficient`. The notes have sigmoid units and take the mean activation for
    the rate. The activations of a ReLU have no upper bound, so the mean says little of how often it fires: here rate_i
    is the share of vectors with h_i > 0, a moving average over the steps, in which a batch has a weight of 0.1. A share
    has no gradient; that of the smooth share, the mean of sigmoid(h_i / bandwidth), is taken for it.

    What is held is how often a feature fires, not how strongly: nothing shrinks, and a feature that falls silent is
    pulled back, for KL grows without bound when the rate goes to 0. So nothing dies, and L0 is rho d_sae. The
    gradient reaches all preactivations, also of what is not active, so the step is dense, [batch, d_sae]. Decoder rows
    have length 1.
    """

    reads = frozenset({"sparsity_coefficient", "target_rate", "bandwidth"})

    def default_sparsity(self, cfg: SAEConfig) -> float:
        return 1.0

    def validate(self, cfg: SAEConfig) -> None:
        if not cfg.target_rate < 1:
            raise ValueError(f"SAEConfig: target_rate must be below 1, got {cfg.target_rate!r}.")

    def buffers(self, cfg: SAEConfig) -> dict[str, Tensor]:
        return {"rate": torch.full((cfg.d_sae,), cfg.target_rate, dtype=getattr(torch, cfg.dtype))}

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        h, places = places_above(x, sae.W_enc, sae.b_enc, sae.b_dec, 0.0)
        return places.pad(h)

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        h, where = everywhere(x, sae.W_enc, sae.b_enc, sae.b_dec)
        f, n, rho = h.relu(), x.shape[0], sae.cfg.target_rate
        fired = (h.detach() > 0).sum(0).to(x.dtype)
        difference = target - where.decode(f, sae.W_dec, sae.b_dec)
        smooth = torch.sigmoid(h / sae.cfg.bandwidth).mean(0)
        known = MEMORY * sae.get_buffer("rate") + (1 - MEMORY) * fired / n
        rate = known.clamp(rho / 100, 1 - rho / 100) + smooth - smooth.detach()
        divergence = rho * torch.log(rho / rate) + (1 - rho) * torch.log((1 - rho) / (1 - rate))
        loss = difference.square().mean() + knobs.sparsity * divergence.mean()
        return Losses(loss, difference.detach(), fired, {"kl": divergence.detach().mean()})

    def after_step(self, sae: SAE, losses: Losses, good: Tensor) -> None:
        rate, now = sae.get_buffer("rate"), losses.fired / losses.residual.shape[0]
        rate.copy_(torch.where(good, MEMORY * rate + (1 - MEMORY) * now, rate))

    def describe(self, cfg: SAEConfig) -> str:
        return f"target_rate={cfg.target_rate:g}"

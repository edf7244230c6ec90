"""ReLU with a KL-divergence penalty on firing rates (Ng, "Sparse autoencoder", CS294A lecture notes, 2011)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.across import whole_batch
from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.selection import column, everywhere, places_above

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE

MEMORY = 0.9
"""Share of the rate that one step keeps."""

GAIN = 0.02
"""How fast the multipliers move."""


@register("relu_kl")
class ReLUKL(Architecture):
    """Every feature is to be active in the same share of the vectors, rho = `target_rate`:

        h     = (x - b_dec) W_enc + b_enc
        f     = relu(h)
        xhat  = f W_dec + b_dec
        L     = ||x - xhat||^2 / d_in  +  beta / d_sae sum_i (KL(rho || rate_i) + pressure_i rate_i)
        KL(rho || r) = rho log(rho / r) + (1 - rho) log((1 - rho) / (1 - r))

    Mean over the batch; beta = `sparsity_coefficient`. The notes have sigmoid units and take the mean activation for
    the rate. The activations of a ReLU have no upper bound, so the mean says little of how often it fires: here rate_i
    is the share of vectors with h_i > 0, a moving average over the steps, in which a batch has a weight of 0.1. A share
    has no gradient; that of the smooth share, the mean of sigmoid(h_i / bandwidth), is taken for it.

    A penalty alone stops short of rho, where it balances the error. So each feature has a multiplier, pressure_i, that
    grows while the rate is above rho and falls while it is below, by 0.02 dKL/drate (cut to -1 .. 1) each step: the
    method of multipliers for the constraint rate_i = rho.

    What is held is how often a feature fires, not how strongly: nothing shrinks, and a feature that falls silent is
    pulled back, for KL grows without bound when the rate goes to 0. So nothing dies, and L0 is rho d_sae. The
    gradient reaches all preactivations, also of what is not active, so the step is dense, [batch, d_sae]. Decoder rows
    have length 1.
    """

    reads = frozenset({"sparsity_coefficient", "target_rate", "bandwidth"})
    saved_as = "standard"

    def default_sparsity(self, cfg: SAEConfig) -> float:
        return 3.0

    def validate(self, cfg: SAEConfig) -> None:
        if not cfg.target_rate < 1:
            raise ValueError(f"SAEConfig: target_rate must be below 1, got {cfg.target_rate!r}.")

    def buffers(self, cfg: SAEConfig) -> dict[str, Tensor]:
        dtype = getattr(torch, cfg.dtype)
        rate = torch.full((cfg.d_sae,), cfg.target_rate, dtype=dtype)
        return {"rate": rate, "pressure": torch.zeros(cfg.d_sae, dtype=dtype)}

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        h, places = places_above(x, sae.W_enc, sae.b_enc, sae.b_dec, 0.0)
        return places.pad(h)

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        return column(x, sae.W_enc, sae.b_enc, sae.b_dec, feature).relu()

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        h, where = everywhere(x, sae.W_enc, sae.b_enc, sae.b_dec)
        f, rho = h.relu(), sae.cfg.target_rate
        active = (h.detach() > 0).to(x.dtype)
        difference = target - where.decode(f, sae.W_dec, sae.b_dec)
        smooth = torch.sigmoid(h / sae.cfg.bandwidth).mean(0)
        rate = _clamp(_moved(sae, whole_batch().mean(active)), rho) + smooth - smooth.detach()
        divergence = rho * torch.log(rho / rate) + (1 - rho) * torch.log((1 - rho) / (1 - rate))
        penalty = (divergence + sae.get_buffer("pressure") * rate).mean()
        loss = difference.square().mean() + knobs.sparsity * penalty
        return Losses(loss, difference.detach(), active.sum(0), {"kl": divergence.detach().mean()})

    def after_step(self, sae: SAE, losses: Losses, good: Tensor) -> None:
        rate, pressure, rho = sae.get_buffer("rate"), sae.get_buffer("pressure"), sae.cfg.target_rate
        rate.copy_(torch.where(good, _moved(sae, losses.fired / losses.residual.shape[0]), rate))
        known = _clamp(rate, rho)
        slope = (known - rho) / (known * (1 - known))
        pressure.add_(torch.where(good, GAIN * slope.clamp(-1.0, 1.0), 0.0))

    def save(self, sae: SAE) -> dict[str, Tensor]:
        # rates and multipliers are the training's
        return {name: value for name, value in super().save(sae).items() if name not in ("rate", "pressure")}

    def describe(self, cfg: SAEConfig) -> str:
        return f"target_rate={cfg.target_rate:g}"


def _moved(sae: SAE, share: Tensor) -> Tensor:
    """The rates with a batch in them, of whose vectors this share has the features active."""
    return MEMORY * sae.get_buffer("rate") + (1 - MEMORY) * share


def _clamp(rate: Tensor, rho: float) -> Tensor:
    """Rates for which KL and its slope are finite."""
    return rate.clamp(rho / 100, 1 - rho / 100)

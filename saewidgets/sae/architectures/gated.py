"""Gated SAE (Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.architectures.relu import l1_default
from saewidgets.sae.selection import ROUNDING, above, column, places_above

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE


@register("gated")
class Gated(Architecture):
    """One half says which features are active, the other how much, so that the penalty need not shrink them:

        pi   = (x - b_dec) W_enc + b_enc                         the gate; its bias is called b_gate in the source
        mag  = exp(r_mag) (pi - b_enc) + b_mag                   the same weights, another scale and bias
        f    = 1[pi > 0] relu(mag)
        xhat = f W_dec + b_dec
        L    = (||x - xhat||^2 + lambda sum_i relu(pi_i) + ||x - xhat_gate||^2) / d_in
        xhat_gate = relu(pi) W_dec + b_dec, with W_dec and b_dec held fixed

    Means over the batch; lambda = `sparsity_coefficient`, by itself 10 sqrt(d_in / 4096), for the error counts twice.
    The last term teaches the gate, which gets no gradient through the step 1[pi > 0]. Decoder rows have length 1; dead
    features are resampled.
    """

    reads = frozenset({"sparsity_coefficient"})
    resamples = True
    saved_as = "gated"

    def default_sparsity(self, cfg: SAEConfig) -> float:
        return 2 * l1_default(cfg)

    def validate(self, cfg: SAEConfig) -> None:
        pass

    def parameters(self, cfg: SAEConfig, generator: Generator) -> dict[str, Tensor]:
        zeros = torch.zeros(cfg.d_sae, dtype=getattr(torch, cfg.dtype))
        return {"r_mag": zeros, "b_mag": zeros.clone()}

    def scale_code(self, sae: SAE, by: Tensor) -> None:
        super().scale_code(sae, by)
        sae.get_parameter("b_mag").mul_(by)

    def save(self, sae: SAE) -> dict[str, Tensor]:
        tensors = super().save(sae)
        b_gate = tensors.pop("b_enc")
        return {**tensors, "b_gate": b_gate}

    def load(self, sae: SAE, tensors: Mapping[str, Tensor]) -> None:
        super().load(sae, {"b_enc" if name == "b_gate" else name: value for name, value in tensors.items()})

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        pi, places = places_above(x, sae.W_enc, sae.b_enc, sae.b_dec, 0.0)
        return places.pad(_magnitude(sae, pi, places).relu())

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        pi = column(x, sae.W_enc, sae.b_enc, sae.b_dec, feature)
        scale, bias = sae.get_parameter("r_mag")[feature].exp(), sae.get_parameter("b_mag")[feature]
        return (scale * (pi - sae.b_enc[feature]) + bias).relu() * (pi > -ROUNDING)

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        pi, where = above(x, sae.W_enc, sae.b_enc, sae.b_dec, 0.0)
        f = _magnitude(sae, pi, where).relu() * (pi > 0)
        gate = pi.relu()
        difference = target - where.decode(f, sae.W_dec, sae.b_dec)
        by_gate = target - where.decode(gate, sae.W_dec.detach(), sae.b_dec.detach())
        penalty = gate.sum() / x.shape[0]
        loss = difference.square().mean() + by_gate.square().mean() + knobs.sparsity / sae.cfg.d_in * penalty
        fired = where.count((f.detach() > 0).to(x.dtype))
        return Losses(loss, difference.detach(), fired, {"l1": penalty.detach()})


def _magnitude(sae: SAE, pi: Tensor, where: object) -> Tensor:
    r_mag, b_mag = sae.get_parameter("r_mag"), sae.get_parameter("b_mag")
    gather = where.gather  # type: ignore[attr-defined]
    return gather(r_mag.exp()) * (pi - gather(sae.b_enc)) + gather(b_mag)

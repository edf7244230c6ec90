"""TopK with AuxK against dead features (Gao et al. 2024, "Scaling and evaluating sparse autoencoders")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.kernels import decode, encode_topk, topk_code
from saewidgets.sae.revival import aux_k_loss
from saewidgets.sae.selection import column, outdone

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE

MULTI_WEIGHT = 1 / 8
"""Weight of the multi-TopK loss beside the reconstruction loss, that of Gao et al. 2024."""


@register("topk")
class TopK(Architecture):
    """The k largest preactivations stay, and are positive:

        h    = (x - b_dec) W_enc + b_enc
        f    = relu(TopK_k(h))                              TopK sets all but the k largest to 0
        xhat = f W_dec + b_dec

        L    = ||x - xhat||^2 / d_in  +  aux_coefficient * L_aux  +  1/8 L_multi
        e    = x - xhat, without gradient
        ehat = relu(TopK_aux_k(h_dead)) W_dec[dead]         the same encoder, dead features only
        L_aux = ||e - ehat||^2 / ||e - mean(e)||^2
        L_multi = ||x - xhat_multi||^2 / d_in               xhat with multi_k in place of k; only where multi_k is set

    Means over the batch are taken of all. L_aux gives its gradient to W_enc, b_enc and W_dec of the dead features, and
    to nothing else. L_multi (their "Multi-TopK") keeps the code useful when it is cut at another k than it was
    trained with.
    """

    reads = frozenset({"k", "aux_k", "aux_coefficient", "multi_k"})
    saved_as = "topk"

    def validate(self, cfg: SAEConfig) -> None:
        check_k(cfg)
        if cfg.multi_k is not None and not cfg.k < cfg.multi_k <= cfg.d_sae:
            raise ValueError(
                f"SAEConfig: multi_k must be above k ({cfg.k}) and at most d_sae ({cfg.d_sae}), got {cfg.multi_k}."
            )

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() and (x.requires_grad or sae.W_enc.requires_grad):
            values, indices, _ = encode_topk(x, sae.W_enc, sae.b_enc, sae.b_dec, sae.cfg.k)
            return values, indices
        return topk_code(x, sae.W_enc, sae.b_enc, sae.b_dec, sae.cfg.k)

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        return column(x, sae.W_enc, sae.b_enc, sae.b_dec, feature).relu()

    def outdone(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        return outdone(x, sae.W_enc, sae.b_enc, sae.b_dec, sae.cfg.k, feature)

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        values, _, places = encode_topk(x, sae.W_enc, sae.b_enc, sae.b_dec, knobs.k)
        difference = target - decode(values, places, sae.W_dec, sae.b_dec)
        residual = difference.detach()
        loss, extra = difference.square().mean(), {}
        if dead is not None:
            auxiliary = aux_k_loss(sae, x, residual, dead, sae.b_dec)
            loss, extra["aux_loss"] = loss + sae.cfg.aux_coefficient * auxiliary, auxiliary.detach()
        if sae.cfg.multi_k is not None:
            many, _, their_places = encode_topk(x, sae.W_enc, sae.b_enc, sae.b_dec, sae.cfg.multi_k)
            multi = (target - decode(many, their_places, sae.W_dec, sae.b_dec)).square().mean()
            loss, extra["multi_loss"] = loss + MULTI_WEIGHT * multi, multi.detach()
        return Losses(loss, residual, places.count((values.detach() > 0).to(x.dtype)), extra)


def check_k(cfg: SAEConfig) -> None:
    """Raise unless k is a whole number from 1 to d_sae."""
    if isinstance(cfg.k, bool) or not isinstance(cfg.k, int):
        raise TypeError(f"SAEConfig: k must be a whole number, got {cfg.k!r}.")
    if cfg.k < 1:
        raise ValueError(f"SAEConfig: k must be at least 1, got {cfg.k}.")
    if cfg.k > cfg.d_sae:
        raise ValueError(
            f"SAEConfig: k is {cfg.k}, but there are only {cfg.d_sae} features (d_sae). "
            "Choose a k of at most d_sae, or a larger d_sae."
        )

"""AbsTopK: features with two directions (Zhu et al. 2025, "AbsTopK", arXiv 2510.00404)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.architectures.topk import check_k
from saewidgets.sae.kernels import Places, decode, largest, preactivations_at
from saewidgets.sae.revival import aux_k_loss
from saewidgets.sae.selection import column, outdone

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE


@register("abstopk")
class AbsTopK(Architecture):
    """The k preactivations of the largest magnitude stay, with their signs:

        f    = AbsTopK_k((x - b_dec) W_enc + b_enc)
        xhat = f W_dec + b_dec
        L    = ||x - xhat||^2 / d_in  +  aux_coefficient * L_aux                (L_aux as in `topk`)

    So one feature stands for a direction and its opposite, as of a contrast ("male" against "female"), which other
    architectures spend two features on. Dead features come back by their positive side. Decoder rows have length 1.
    `sw.split_signs` makes a `topk` SAE of it with a feature for each side: what a feature index is built on.
    """

    reads = frozenset({"k", "aux_k", "aux_coefficient"})
    saved_as = "abstopk"

    def validate(self, cfg: SAEConfig) -> None:
        check_k(cfg)

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        h, indices, _ = self._code(sae, x, sae.cfg.k)
        return h, indices

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        return column(x, sae.W_enc, sae.b_enc, sae.b_dec, feature).relu()

    def outdone(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        return outdone(x, sae.W_enc, sae.b_enc, sae.b_dec, sae.cfg.k, feature, magnitude=True)

    def without_signs(self, cfg: SAEConfig) -> SAEConfig:
        # the k largest of |h| are the k largest of h and -h
        return dataclasses.replace(cfg, architecture="topk", d_sae=2 * cfg.d_sae)

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        f, _, places = self._code(sae, x, knobs.k)
        difference = target - decode(f, places, sae.W_dec, sae.b_dec)
        residual = difference.detach()
        losses = Losses(difference.square().mean(), residual, places.count((f.detach() != 0).to(x.dtype)))
        if dead is not None:
            auxiliary = aux_k_loss(sae, x, residual, dead, sae.b_dec)
            losses.loss = losses.loss + sae.cfg.aux_coefficient * auxiliary
            losses.extra["aux_loss"] = auxiliary.detach()
        return losses

    def _code(self, sae: SAE, x: Tensor, k: int) -> tuple[Tensor, Tensor, Places]:
        """Values [n, k] with gradients, indices [n, k], and their places."""
        with torch.no_grad():
            h, which = largest(x, sae.W_enc, sae.b_enc, sae.b_dec, k, magnitude=True)
            places = Places.even(which, sae.cfg.d_sae)
        return preactivations_at(h, places, x, sae.W_enc, sae.b_enc, sae.b_dec), which, places

"""TopK with AuxK against dead features (Gao et al. 2024, "Scaling and evaluating sparse autoencoders")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.architectures import Architecture, Losses, register
from saewidgets.sae.kernels import count_by_feature, decode, encode_topk, topk_code

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE


@register("topk")
class TopK(Architecture):
    """The k largest preactivations stay, and are positive:

        h    = (x - b_dec) W_enc + b_enc
        f    = relu(TopK_k(h))                              TopK sets all but the k largest to 0
        xhat = f W_dec + b_dec

        L    = ||x - xhat||^2 / d_in  +  aux_coefficient * L_aux
        e    = x - xhat, without gradient
        ehat = relu(TopK_aux_k(h_dead)) W_dec[dead]         the same encoder, dead features only
        L_aux = ||e - ehat||^2 / ||e - mean(e)||^2

    Means over the batch are taken of both. L_aux gives its gradient to W_enc, b_enc and W_dec of the dead
    features, and to nothing else.
    """

    def validate(self, cfg: SAEConfig) -> None:
        if isinstance(cfg.k, bool) or not isinstance(cfg.k, int):
            raise TypeError(f"SAEConfig: k must be a whole number, got {cfg.k!r}.")
        if cfg.k < 1:
            raise ValueError(f"SAEConfig: k must be at least 1, got {cfg.k}.")
        if cfg.k > cfg.d_sae:
            raise ValueError(
                f"SAEConfig: k is {cfg.k}, but there are only {cfg.d_sae} features (d_sae). "
                "Choose a k of at most d_sae, or a larger d_sae."
            )

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x * sae.input_scale
        if torch.is_grad_enabled() and (x.requires_grad or sae.W_enc.requires_grad):
            values, indices, _ = encode_topk(x, sae.W_enc, sae.b_enc, sae.b_dec, sae.cfg.k)
            return values, indices
        return topk_code(x, sae.W_enc, sae.b_enc, sae.b_dec, sae.cfg.k)

    def loss(self, sae: SAE, x: Tensor, dead: Tensor | None) -> Losses:
        values, indices, by_feature = encode_topk(x, sae.W_enc, sae.b_enc, sae.b_dec, sae.cfg.k)
        difference = x - decode(values, indices, sae.W_dec, sae.b_dec, by_feature)
        residual = difference.detach()
        loss = difference.square().mean()
        if dead is not None:
            loss = loss + sae.cfg.aux_coefficient * self.auxiliary_loss(sae, x, residual, dead)
        fired = count_by_feature((values.detach() > 0).to(x.dtype), indices, sae.cfg.d_sae)
        return Losses(loss, residual, fired)

    def auxiliary_loss(self, sae: SAE, x: Tensor, residual: Tensor, dead: Tensor) -> Tensor:
        """L_aux of the class docstring: how badly the dead features explain what is left over."""
        aux_k = min(sae.cfg.aux_k or 1, dead.shape[0])
        h = (x - sae.b_dec.detach()) @ sae.W_enc.t()[dead].t() + sae.b_enc[dead]
        f = h.relu()
        if aux_k < dead.shape[0]:
            f = f * (h >= h.detach().topk(aux_k, dim=-1).values.amin(-1, keepdim=True))
        error = (residual - f @ sae.W_dec[dead]).square().sum()
        variance = (residual - residual.mean(0)).square().sum()
        # a perfect reconstruction leaves nothing to explain: 0, not 0 / 0
        explained = error / variance.clamp_min(torch.finfo(x.dtype).tiny)
        return torch.where(variance > 0, explained, torch.zeros_like(error))

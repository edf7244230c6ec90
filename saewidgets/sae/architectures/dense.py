"""The plain autoencoder of a course's first lesson: nothing makes its code sparse."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.selection import column, everywhere

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE

ACTIVATIONS = {"relu": torch.relu, "linear": lambda h: h, "sigmoid": torch.sigmoid}


@register("dense")
class Dense(Architecture):
    """An autoencoder of any size, below d_in (a bottleneck) or above it:

        f    = activation((x - b_dec) W_enc + b_enc)
        xhat = f W_dec + b_dec
        L    = ||x - xhat||^2 / d_in

    Mean over the batch. `activation`: "relu"; "linear", whose best code of d_sae numbers is the one of a principal
    component analysis (Baldi & Hornik 1989), and may be negative; or "sigmoid", the units of Ng's lecture notes
    ("Sparse autoencoder", CS294A, 2011). Decoder rows have no set length. The code is dense, so no step is sparse.
    """

    reads = frozenset({"activation"})
    unit_norm_decoder = False

    def validate(self, cfg: SAEConfig) -> None:
        pass

    def encode(self, sae: SAE, x: Tensor) -> Tensor:
        return ACTIVATIONS[sae.cfg.activation](everywhere(x, sae.W_enc, sae.b_enc, sae.b_dec)[0])

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.encode(sae, x)
        return f, torch.arange(f.shape[1], device=f.device).repeat(f.shape[0], 1)

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        return ACTIVATIONS[sae.cfg.activation](column(x, sae.W_enc, sae.b_enc, sae.b_dec, feature))

    def without_signs(self, cfg: SAEConfig) -> SAEConfig | None:
        if cfg.activation != "linear":
            return None
        return dataclasses.replace(cfg, activation="relu", d_sae=2 * cfg.d_sae)

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        f = self.encode(sae, x)
        difference = target - torch.addmm(sae.b_dec, f, sae.W_dec)
        return Losses(difference.square().mean(), difference.detach(), (f.detach() != 0).sum(0).to(x.dtype))

    def describe(self, cfg: SAEConfig) -> str:
        return f"activation={cfg.activation!r}"

"""Matryoshka SAE on BatchTopK (Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka SAEs")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.architectures import Knobs, Losses, register
from saewidgets.sae.architectures.batchtopk import BatchTopK
from saewidgets.sae.kernels import Places, decode, preactivations_at
from saewidgets.sae.selection import batch_top

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE


@register("matryoshka")
class Matryoshka(BatchTopK):
    """`batchtopk`, of which the first features must do without the later ones:

        f      = relu(BatchTopK((x - b_dec) W_enc + b_enc))
        xhat_m = f[:m] W_dec[:m] + b_dec,       m in `matryoshka_widths` = (m_1 < ... < d_sae)
        L      = mean_m ||x - xhat_m||^2 / d_in  +  aux_coefficient * L_aux

    So the first features stay general, and later ones add detail, where one dictionary would split the general ones up.
    The code, the threshold and L_aux are those of `batchtopk`, the residual is that of the whole dictionary. (The
    source adds the losses of the nested dictionaries up; their mean differs by a factor.)
    """

    reads = frozenset({"k", "aux_k", "aux_coefficient", "matryoshka_widths"})

    def validate(self, cfg: SAEConfig) -> None:
        super().validate(cfg)
        widths = cfg.matryoshka_widths or ()
        whole = all(isinstance(width, int) and width >= 1 for width in widths)
        if not widths or not whole or list(widths) != sorted(set(widths)) or widths[-1] != cfg.d_sae:
            raise ValueError(
                "SAEConfig: matryoshka_widths must be whole numbers in ascending order, the last one d_sae "
                f"({cfg.d_sae}), got {cfg.matryoshka_widths!r}."
            )

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        n, widths = x.shape[0], sae.cfg.matryoshka_widths or ()
        with torch.no_grad():
            found, places = batch_top(x, sae.W_enc, sae.b_enc, sae.b_dec, knobs.k)
            # the part of a vector that a ring (what a dictionary adds to the one before) explains is decoded as if it
            # were a vector of its own: places sorted by vector, then ring
            # not by torch.bucketize: a GPU would wait for the list of widths to be copied
            part = places.rows * len(widths)
            for width in widths[:-1]:
                part += places.features >= width
            part, order = part.sort(stable=True)
            rows, features = places.rows[order], places.features[order]
            places = Places.uneven(rows, features, n, sae.cfg.d_sae)
            parts = Places.uneven(part, features, n * len(widths), sae.cfg.d_sae)
        f = preactivations_at(found[order], places, x, sae.W_enc, sae.b_enc, sae.b_dec).relu()
        of_rings = decode(f, parts, sae.W_dec, torch.zeros_like(sae.b_dec)).view(n, len(widths), -1)
        difference = target.unsqueeze(1) - (of_rings.cumsum(1) + sae.b_dec)
        residual = difference[:, -1].detach()
        losses = Losses(difference.square().mean(), residual, places.count((f.detach() > 0).to(x.dtype)))
        return self.finish(sae, x, losses, f.detach(), dead)

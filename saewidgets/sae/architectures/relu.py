"""ReLU with an L1 penalty (Anthropic, April 2024 update on training SAEs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.selection import above, column, places_above

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE


@register("relu")
class ReLU(Architecture):
    """Whatever is positive stays, and its size is penalised:

        f    = relu((x - b_dec) W_enc + b_enc)
        xhat = f W_dec + b_dec
        L    = (||x - xhat||^2 + lambda sum_i f_i ||W_dec_i||) / d_in

    Mean over the batch; lambda = `sparsity_coefficient`, by itself 5 sqrt(d_in / 4096): the 5 of the source, for a
    residual stream of its size, where vectors have length sqrt(d_in) and so activations grow with it. The norms in
    the penalty make it blind to the scale of W_dec, which therefore needs no constraint; its rows begin with length
    0.1. Dead features are resampled.

    L1 shrinks: of a feature alone with its direction, f ends lambda / 2 below the true activation, for the penalty
    pulls with the same force however large f is. So f under-estimates, and the reconstruction is too short.
    """

    reads = frozenset({"sparsity_coefficient"})
    unit_norm_decoder = False
    decoder_norm = 0.1
    resamples = True
    saved_as = "standard"

    def default_sparsity(self, cfg: SAEConfig) -> float:
        return l1_default(cfg)

    def validate(self, cfg: SAEConfig) -> None:
        pass

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        h, places = places_above(x, sae.W_enc, sae.b_enc, sae.b_dec, 0.0)
        return places.pad(h)

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        return column(x, sae.W_enc, sae.b_enc, sae.b_dec, feature).relu()

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        h, where = above(x, sae.W_enc, sae.b_enc, sae.b_dec, 0.0)
        f = h.relu()
        difference = target - where.decode(f, sae.W_dec, sae.b_dec)
        penalty = (f * where.gather(sae.W_dec.norm(dim=1))).sum() / x.shape[0]
        loss = difference.square().mean() + knobs.sparsity / sae.cfg.d_in * penalty
        fired = where.count((f.detach() > 0).to(x.dtype))
        return Losses(loss, difference.detach(), fired, {"l1": penalty.detach()})


def l1_default(cfg: SAEConfig) -> float:
    """5 for a d_in of 4096, less for less."""
    return 5.0 * (cfg.d_in / 4096) ** 0.5

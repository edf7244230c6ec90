"""p-annealing (Karvonen et al. 2024, "Measuring Progress in Dictionary Learning with Board Game Models")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saewidgets.sae.architectures import Knobs, Losses, register
from saewidgets.sae.architectures.relu import ReLU, l1_default
from saewidgets.sae.selection import above

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE

SOFT = 0.01
"""Keeps the penalty's slope at 0 finite."""


@register("p_anneal")
class PAnneal(ReLU):
    """`relu`, whose penalty turns from L1 to something closer to the L0 while it trains:

        f    = relu((x - b_dec) W_enc + b_enc)
        xhat = f W_dec + b_dec
        S_p  = sum_i ((f_i + 0.01)^p - 0.01^p)
        L    = (||x - xhat||^2 + lambda (S_1 / S_p) S_p) / d_in,    the quotient without gradient
        p    = 1 + (p_final - 1) progress

    Sums over features, means over the batch; lambda = `sparsity_coefficient`, by itself 3 sqrt(d_in / 4096). The
    quotient keeps the penalty as large as it is under L1 when p falls, as the source's lambda_s does (from recent
    batches; here from this one).
    The smaller p, the less large activations are pulled down, and the more small ones. Decoder rows have length 1, for
    a power is not blind to their scale; dead features are resampled.
    """

    reads = frozenset({"sparsity_coefficient", "p_final"})
    unit_norm_decoder = True
    decoder_norm = 1.0

    def default_sparsity(self, cfg: SAEConfig) -> float:
        return 0.6 * l1_default(cfg)

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        h, where = above(x, sae.W_enc, sae.b_enc, sae.b_dec, 0.0)
        f = h.relu()
        difference = target - where.decode(f, sae.W_dec, sae.b_dec)
        p = 1 + (sae.cfg.p_final - 1) * knobs.progress
        plain = f.detach().sum() / x.shape[0]
        powers = ((f + SOFT) ** p - SOFT**p).sum() / x.shape[0]
        penalty = powers * plain / powers.detach().clamp_min(1e-12)
        loss = difference.square().mean() + knobs.sparsity / sae.cfg.d_in * penalty
        fired = where.count((f.detach() > 0).to(x.dtype))
        return Losses(loss, difference.detach(), fired, {"l1": plain})

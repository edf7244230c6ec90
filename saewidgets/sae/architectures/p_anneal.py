"""p-annealing (Karvonen et al. 2024, "Measuring Progress in Dictionary Learning with Board Game Models")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.across import whole_batch
from saewidgets.sae.architectures import Knobs, Losses, register
from saewidgets.sae.architectures.relu import ReLU, l1_default
from saewidgets.sae.selection import above

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE

SOFT = 0.01
"""Keeps the penalty's slope at 0 finite."""

TINY = 1e-6
"""A sum of powers below this is taken for next to nothing."""


@register("p_anneal")
class PAnneal(ReLU):
    """`relu`, whose penalty turns from L1 to something closer to the L0 while it trains:

        f    = relu((x - b_dec) W_enc + b_enc)
        xhat = f W_dec + b_dec
        g_i  = (f_i + 0.01)^p - 0.01^p
        L    = (||x - xhat||^2 + lambda sum_i q_i g_i) / d_in,    q_i = mean(f_i) / mean(g_i), without gradient
        p    = 1 + (p_final - 1) progress

    Means over the batch; lambda = `sparsity_coefficient`, by itself 3 sqrt(d_in / 4096). The smaller p, the less large
    activations are pulled down, and the more small ones. Decoder rows have length 1, for a power is not blind to their
    scale; dead features are resampled.

    q_i keeps the penalty of each feature as large as it is under L1 when p falls. The source's lambda_s, from recent
    batches, does so for all features together. Then a small p takes the pull off features with large activations and
    lays it on those with small ones, which fade and end silent. With a quotient for each, no feature's penalty is more
    than under L1. The pull on its activations, the slope of the penalty, can still be: where all of them are alike it
    falls with p, but one of 10 among 99 of 0.02 leaves, at p = 0.2, a pull of 0.03 on the large one and of 3.6 on each
    small one, 361 together, where L1 has 100.
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
        powers = (f + SOFT) ** p - SOFT**p
        everyones = whole_batch().sum
        all_f, all_powers = everyones(where.count(f)), everyones(where.count(powers))
        # of next to nothing the limit, which the difference of two powers is too coarse for
        quotient = torch.where(all_powers > TINY, all_f / all_powers, SOFT ** (1 - p) / p)
        penalty = (powers * where.gather(quotient)).sum() / x.shape[0]
        loss = difference.square().mean() + knobs.sparsity / sae.cfg.d_in * penalty
        fired = where.count((f.detach() > 0).to(x.dtype))
        return Losses(loss, difference.detach(), fired, {"l1": plain})

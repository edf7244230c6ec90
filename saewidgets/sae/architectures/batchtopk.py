"""BatchTopK (Bussmann et al. 2024, "BatchTopK Sparse Autoencoders")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saewidgets.sae.across import whole_batch
from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.architectures.topk import check_k
from saewidgets.sae.kernels import decode
from saewidgets.sae.revival import aux_k_loss
from saewidgets.sae.selection import ROUNDING, batch_top, column, places_above

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE

MEMORY = 0.5
"""Share of the threshold that one step keeps. The threshold falls all through a run, and an average over many steps
says what it was: with 0.99, a run of 50 steps had 7 active features where k is 16 (tests/benchmarks/short_runs.py)."""


@register("batchtopk")
class BatchTopK(Architecture):
    """The n k largest preactivations of a batch of n vectors stay, so that a vector may use more or fewer than k:

        h    = (x - b_dec) W_enc + b_enc
        f    = relu(BatchTopK(h))                     in training
        f    = h 1[h > threshold]                     elsewhere: what a vector gives must not depend on its neighbours
        xhat = f W_dec + b_dec
        L    = ||x - xhat||^2 / d_in  +  aux_coefficient * L_aux                (L_aux as in `topk`)

    threshold: a moving average, over the training steps, of the smallest positive activation that stayed (the mean of
    it in the source); 0 before the first step. In training a vector has at most 4 k active features. Decoder rows have
    length 1.
    """

    reads = frozenset({"k", "aux_k", "aux_coefficient"})
    saved_as = "jumprelu"

    def validate(self, cfg: SAEConfig) -> None:
        check_k(cfg)

    def buffers(self, cfg: SAEConfig) -> dict[str, Tensor]:
        return {"threshold": torch.zeros((), dtype=getattr(torch, cfg.dtype))}

    def scale_code(self, sae: SAE, by: Tensor) -> None:
        super().scale_code(sae, by)
        # one threshold for all: rows that were of one length, as those of our own files are, keep their function
        sae.get_buffer("threshold").mul_(by.mean())

    def save(self, sae: SAE) -> dict[str, Tensor]:
        tensors = super().save(sae)
        return {**tensors, "threshold": tensors["threshold"].expand(sae.cfg.d_sae)}

    def load(self, sae: SAE, tensors: Mapping[str, Tensor]) -> None:
        super().load(sae, {**tensors, "threshold": tensors["threshold"].amax()})

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        h, places = places_above(x, sae.W_enc, sae.b_enc, sae.b_dec, sae.get_buffer("threshold"))
        return places.pad(h)

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        h = column(x, sae.W_enc, sae.b_enc, sae.b_dec, feature)
        return h.relu() * (h > sae.get_buffer("threshold") * (1 - ROUNDING))

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        f, places = batch_top(x, sae.W_enc, sae.b_enc, sae.b_dec, knobs.k)
        difference = target - decode(f, places, sae.W_dec, sae.b_dec)
        residual = difference.detach()
        losses = Losses(difference.square().mean(), residual, places.count((f.detach() > 0).to(x.dtype)))
        return self.finish(sae, x, losses, f.detach(), dead)

    def finish(self, sae: SAE, x: Tensor, losses: Losses, f: Tensor, dead: Tensor | None) -> Losses:
        """The batch's threshold, and AuxK where features are dead."""
        smallest = torch.where(f > 0, f, torch.inf)
        losses.extra["threshold"] = whole_batch().least(smallest.amin() if len(f) else f.new_tensor(torch.inf))
        if dead is not None:
            auxiliary = aux_k_loss(sae, x, losses.residual, dead, sae.b_dec)
            losses.loss = losses.loss + sae.cfg.aux_coefficient * auxiliary
            losses.extra["aux_loss"] = auxiliary.detach()
        return losses

    def after_step(self, sae: SAE, losses: Losses, good: Tensor) -> None:
        threshold, now = sae.get_buffer("threshold"), losses.extra["threshold"]
        moved = torch.where(threshold > 0, MEMORY * threshold + (1 - MEMORY) * now, now)
        threshold.copy_(torch.where(good & torch.isfinite(now), moved, threshold))

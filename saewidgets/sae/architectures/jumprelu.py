"""JumpReLU with a learned threshold (Rajamanoharan et al. 2024, "Jumping Ahead"; Anthropic, January 2025 update)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from saewidgets.sae.architectures import Architecture, Knobs, Losses, register
from saewidgets.sae.selection import ROUNDING, above, column, places_above

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE

INITIAL_THRESHOLD = 0.5
TANH_SCALE = 4.0
"""c of the tanh penalty, that of the source."""

PULL = 1e-3
"""Weight of the pull on dead features, beside the sparsity coefficient."""


@register("jumprelu")
class JumpReLU(Architecture):
    """What is above the feature's own threshold stays, whole:

        h     = (x - b_dec) W_enc + b_enc
        theta = exp(log_threshold)
        f     = h 1[h > theta]
        xhat  = f W_dec + b_dec
        L     = ||x - xhat||^2 / d_in  +  lambda S  +  PULL lambda sum_{i dead} relu(theta_i - h_i)
        S     = sum_i 1[h_i > theta_i]                     penalty="step": the L0 itself
        S     = sum_i tanh(4 f_i ||W_dec_i||)              penalty="tanh"

    Means over the batch; lambda = `sparsity_coefficient`: a feature pays for itself in a vector if it explains more
    than this share of the vector's squared length. The thresholds get their gradient from the preactivations
    within `bandwidth` / 2 of them (eq. 11 and 12 of the first source):

        d f / d theta           = -(theta / bandwidth) 1[|h - theta| < bandwidth / 2]
        d 1[h > theta] / d theta = -(1 / bandwidth) 1[|h - theta| < bandwidth / 2]

    Its logarithm is learned, in float32 or better whatever the weights are, for a threshold in bfloat16 stops moving
    long before it arrives; at three times the learning rate, for Adam moves a logarithm by the rate itself, so a
    threshold needs 1 / rate steps to grow by a factor of e. All begin at 0.5. The last term of L, from the second
    source, draws dead features back. Decoder rows have length 1.
    """

    reads = frozenset({"sparsity_coefficient", "bandwidth", "penalty"})
    saved_as = "jumprelu"
    lr_scale = {"log_threshold": 3.0}

    def default_sparsity(self, cfg: SAEConfig) -> float:
        return 2e-3

    def validate(self, cfg: SAEConfig) -> None:
        pass

    def parameters(self, cfg: SAEConfig, generator: Generator) -> dict[str, Tensor]:
        dtype = torch.promote_types(getattr(torch, cfg.dtype), torch.float32)
        return {"log_threshold": torch.full((cfg.d_sae,), math.log(INITIAL_THRESHOLD), dtype=dtype)}

    def scale_code(self, sae: SAE, by: Tensor) -> None:
        super().scale_code(sae, by)
        log_threshold(sae).add_(by.log())

    def save(self, sae: SAE) -> dict[str, Tensor]:
        tensors = super().save(sae)
        threshold = tensors.pop("log_threshold").exp()
        return {**tensors, "threshold": threshold}

    def load(self, sae: SAE, tensors: Mapping[str, Tensor]) -> None:
        threshold = tensors["threshold"].to(log_threshold(sae).dtype)
        # a file may have thresholds of 0, or below, which mean the same
        logarithm = threshold.clamp_min(torch.finfo(threshold.dtype).tiny).log()
        rest = {name: value for name, value in tensors.items() if name != "threshold"}
        super().load(sae, {**rest, "log_threshold": logarithm})

    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        h, places = places_above(x, sae.W_enc, sae.b_enc, sae.b_dec, log_threshold(sae).detach().exp())
        return places.pad(h)

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        h = column(x, sae.W_enc, sae.b_enc, sae.b_dec, feature)
        return h.relu() * (h > log_threshold(sae).detach()[feature].exp() * (1 - ROUNDING))

    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        theta = log_threshold(sae).exp().to(x.dtype)
        width = sae.cfg.bandwidth
        # those a little below the threshold take no part in the code, but in the threshold's gradient
        h, where = above(x, sae.W_enc, sae.b_enc, sae.b_dec, theta.detach() - width / 2)
        thresholds = where.gather(theta)
        f = _Jump.apply(h, thresholds, width)
        difference = target - where.decode(f, sae.W_dec, sae.b_dec)
        if sae.cfg.penalty == "step":
            active = _Step.apply(h, thresholds, width)
        else:
            active = torch.tanh(TANH_SCALE * f * where.gather(sae.W_dec.norm(dim=1)))
        penalty = active.sum() / x.shape[0]
        loss = difference.square().mean() + knobs.sparsity * penalty
        if dead is not None:
            low = (x - sae.b_dec.detach()) @ sae.W_enc.t()[dead].t() + sae.b_enc[dead]
            loss = loss + PULL * knobs.sparsity * (theta[dead] - low).relu().sum() / x.shape[0]
        fired = where.count((f.detach() > 0).to(x.dtype))
        return Losses(loss, difference.detach(), fired, {"threshold": theta.detach().mean()})


def log_threshold(sae: SAE) -> Tensor:
    """The logarithms of the thresholds, [d_sae]."""
    return sae.get_parameter("log_threshold")


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(h, theta)
        ctx.width = width
        return h * (h > theta)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        h, theta = ctx.saved_tensors
        near = (h - theta).abs() < ctx.width / 2
        return gradients[0] * (h > theta), gradients[0] * near * theta / -ctx.width, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(h, theta)
        ctx.width = width
        return (h > theta).to(h.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        h, theta = ctx.saved_tensors
        near = (h - theta).abs() < ctx.width / 2
        return None, gradients[0] * near / -ctx.width, None

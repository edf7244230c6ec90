"""Bringing vectors to size one by one, as `SAEConfig.normalize` says; the factor that all share is the SAE's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BY_ITSELF = ("unit_norm", "constant_norm", "layer_norm")
"""Values of `SAEConfig.normalize` for which each vector has a size of its own."""

LAYER_NORM_EPS = 1e-5


class OwnSize(NamedTuple):
    """What is taken off each vector, and what it is divided by, both [n, 1]."""

    shift: Tensor
    size: Tensor


def own_size(x: Tensor, normalize: str) -> OwnSize | None:
    """Those of vectors [n, d_in], without gradient; None where all vectors share one factor.

    unit_norm and constant_norm differ by a factor that all share, 1 / sqrt(d_in), so their size is the same here:
    ||x|| / sqrt(d_in). layer_norm: mean and standard deviation of the components (as sae-lens takes them, over
    d_in - 1 and with 1e-5 added). A vector without a size keeps what it is.
    """
    if normalize not in BY_ITSELF:
        return None
    x = x.detach()
    if normalize == "layer_norm":
        return OwnSize(x.mean(1, keepdim=True), x.std(1, keepdim=True) + LAYER_NORM_EPS)
    length = x.norm(dim=1, keepdim=True)
    size = torch.where(length > 0, length / x.shape[1] ** 0.5, torch.ones_like(length))
    return OwnSize(torch.zeros_like(size), size)


def shared_scale(sample: Tensor, normalize: str) -> Tensor:
    """The factor that all vectors share, [], from sample vectors [n, d_in] that are brought to their own size."""
    d_in = sample.shape[1]
    if normalize == "unit_norm":
        return torch.full((), d_in**-0.5, dtype=sample.dtype, device=sample.device)
    length = sample.norm(dim=1).mean()
    if normalize != "expected_norm" or not length > 0:
        return torch.ones_like(length)
    return d_in**0.5 / length


def geometric_median(sample: Tensor, iterations: int = 30) -> Tensor:
    """The point with the least summed distance to vectors [n, d]: [d] (Weiszfeld's iteration)."""
    point = sample.mean(0)
    for _ in range(iterations):
        weight = 1 / (sample - point).norm(dim=1, keepdim=True).clamp_min(1e-6)
        point = (weight * sample).sum(0) / weight.sum()
    return point

"""Which features are active: the rules that leave another number of them in each vector.

A rule gives the preactivations h = (x - b_in) W_enc + b_enc where a feature may be active, with gradients, and says
where that is: `Places`, or `Everywhere`, the plain [n, d_sae] form with the same methods.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saewidgets.sae.across import whole_batch
from saewidgets.sae.kernels import Places, largest, preactivation_chunks, preactivations_at

MAX_DENSITY = 0.12
"""Share of active features above which plain matrix products are as fast as sums over places, on a CPU (measured: they
meet at 0.16, for d_in 512, d_sae 8192 and for d_in 288, d_sae 2304; at 0.01 the sums are 4 times faster)."""

MOST = 4
"""In `batch_top`, a vector has at most so many times k active features."""


ROUNDING = 1e-4
"""By what share two ways to compute the same preactivation may differ: generous for float32, as a sum may cancel."""

_LOOKED_AT, _GROWTH, _AT_ONCE = 128, 4, 1 << 22
"""In `outdone`: features that all vectors are held against first, times as many for those left, numbers at once."""


class Everywhere:
    """All places of n vectors and d_sae features: what `Places` is, for a code that is one [n, d_sae] tensor."""

    def __init__(self, n: int, d_sae: int) -> None:
        self.n, self.d_sae = n, d_sae

    def gather(self, per_feature: Tensor) -> Tensor:
        """[n, d_sae] from [d_sae]."""
        return per_feature.expand(self.n, self.d_sae)

    def decode(self, values: Tensor, W_dec: Tensor, b_dec: Tensor) -> Tensor:
        """values W_dec + b_dec: [n, d_out]."""
        return torch.addmm(b_dec, values, W_dec)

    def count(self, weights: Tensor) -> Tensor:
        """For each feature, the sum of its weights: [d_sae]."""
        return weights.sum(0)


def everywhere(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor) -> tuple[Tensor, Everywhere]:
    """All preactivations, [n, d_sae]."""
    return torch.addmm(b_enc, x - b_in, W_enc), Everywhere(x.shape[0], W_enc.shape[1])


def column(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor, feature: int) -> Tensor:
    """The preactivations of one feature: [n]."""
    return (x - b_in) @ W_enc[:, feature] + b_enc[feature]


@torch.no_grad()
def outdone(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor, k: int, feature: int, magnitude: bool = False
) -> Tensor:
    """The vectors on which k features or more are clearly larger than one whose preactivation is above 0: bool [n].

    Vectors are held against some features, and those of which it is not known yet against more, up to half of all: a
    vector on which the feature is one of many is known after a few. The others may be outdone or not. `magnitude`: it
    is the absolute values that compete.
    """
    h = column(x, W_enc, b_enc, b_in, feature)
    limit, x = h + ROUNDING * h.abs(), x - b_in
    left = torch.arange(len(x), device=x.device)
    larger = torch.zeros_like(left)
    at, size = 0, _LOOKED_AT
    while at < W_enc.shape[1] // 2 and len(left):
        size = min(size, max(_LOOKED_AT, _AT_ONCE // len(left)))
        others = torch.addmm(b_enc[at : at + size], x[left], W_enc[:, at : at + size])
        larger = larger + ((others.abs() if magnitude else others) > limit[left, None]).sum(1)
        at, size = at + size, size * _GROWTH
        left, larger = left[larger < k], larger[larger < k]
    return torch.ones(len(x), dtype=torch.bool, device=x.device).index_fill_(0, left, False)


def above(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor, threshold: Tensor | float
) -> tuple[Tensor, Places | Everywhere]:
    """The preactivations above `threshold` (a number, or [d_sae]), in the form that is faster to train with.

    `Everywhere` also holds those below, so what comes next must cut them off itself. It is taken on a CPU for codes in
    which more than MAX_DENSITY of the features are active, as at the beginning of a run under a penalty; and always on
    a GPU, where the host would have to read the number of places.
    """
    if x.device.type == "cpu":
        found = _search(x, W_enc, b_enc, b_in, threshold, MAX_DENSITY)
        if found is not None:
            h, places = found
            return preactivations_at(h, places, x, W_enc, b_enc, b_in), places
    return everywhere(x, W_enc, b_enc, b_in)


def places_above(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor, threshold: Tensor | float
) -> tuple[Tensor, Places]:
    """The preactivations above `threshold`, however many they are: [places]."""
    found = _search(x, W_enc, b_enc, b_in, threshold, 1.0)
    assert found is not None  # noqa: S101  (no density is above 1)
    h, places = found
    return preactivations_at(h, places, x, W_enc, b_enc, b_in), places


@torch.no_grad()
def _search(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor, threshold: Tensor | float, max_density: float
) -> tuple[Tensor, Places] | None:
    """What is above the threshold; None if that is more than `max_density` of some chunk."""
    d_sae = W_enc.shape[1]
    values, flat = [x.new_empty(0)], [torch.empty(0, dtype=torch.int64, device=x.device)]
    for start, chunk in preactivation_chunks(x, W_enc, b_enc, b_in):
        mask = chunk > threshold
        if max_density < 1 and int(mask.sum()) > max_density * mask.numel():
            return None
        found = mask.view(-1).nonzero().squeeze(1)
        values.append(chunk.view(-1)[found])
        flat.append(found + start * d_sae)
    place = torch.cat(flat)
    return torch.cat(values), Places.uneven(place // d_sae, place % d_sae, x.shape[0], d_sae)


def batch_top(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_in: Tensor, k: int) -> tuple[Tensor, Places]:
    """relu of the n k largest preactivations of the whole batch: [n k], k a vector on average (at most MOST k).

    Each vector first gives up its MOST k largest, then the largest of all are taken. Nothing here is read by the host,
    but for a batch that several processes share: how many of the n k fall to this one.
    """
    n, d_sae = x.shape[0], W_enc.shape[1]
    with torch.no_grad():
        most = min(d_sae, MOST * k)
        values, indices = largest(x, W_enc, b_enc, b_in, most)
        chosen = whole_batch().largest(values, k)
        places = Places.uneven(chosen // most, indices.view(-1)[chosen], n, d_sae)
        h = values.view(-1)[chosen].relu_()
    return preactivations_at(h, places, x, W_enc, b_enc, b_in).relu(), places

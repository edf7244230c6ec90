"""The vectors on which one feature is most active, without the code of all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from saewidgets.sae.sae import SAE

_FIRST, _GROWTH, _MOST = 256, 4, 4096  # vectors whose whole code is taken at once: the first time, then more, at most


@torch.no_grad()
def strongest(sae: SAE, x: Tensor, feature: int, n: int) -> tuple[Tensor, Tensor]:
    """The n of the vectors `x` [m, d_in] on which a feature is most active: (values, rows), strongest first.

    Both are [at most n], float32 and int64, on the CPU; vectors on which it is silent (or negative) are left out, and
    of equal ones the earlier comes first. `x` may be in half precision and on another device than the SAE.

    Whether a feature is active on a vector may depend on all others (those with a k), so a vector's whole code has to
    be taken. But the feature's own column says what its activation is at most (`Architecture.bound`): one product
    [m, d_in] x [d_in]. So vectors are taken in the order of that, and no more of them than can be among the n. An
    architecture without such a bound has the code of all vectors taken.

    Raises ValueError for a feature that the SAE does not have.
    """
    sae.check_features(torch.tensor([feature]))
    bound = _bounds(sae, x, feature)
    order = torch.argsort(bound, descending=True, stable=True)
    order = order[bound[order] > 0]
    values, rows = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    at, size = 0, max(_FIRST, 2 * n)
    while at < len(order):
        some = order[at : at + size]
        found = sae.encode_features(x[some.to(x.device)].float(), torch.tensor([feature]))[:, 0].float().cpu()
        values, rows = torch.cat([values, found[found > 0]]), torch.cat([rows, some[found > 0]])
        best = torch.argsort(rows, stable=True)
        best = best[torch.argsort(values[best], descending=True, stable=True)][:n]
        values, rows = values[best], rows[best]
        at, size = at + len(some), min(_MOST, size * _GROWTH)
        if len(values) == n and at < len(order) and values[-1] >= bound[order[at]]:
            break
    return values, rows


def _bounds(sae: SAE, x: Tensor, feature: int) -> Tensor:
    """What the activation on each vector is at most, [m]; infinity where the architecture does not say."""
    found = [torch.zeros(0)]
    for some in x.split(_MOST):
        bound = sae.architecture.bound(sae, sae.scaled(some.float()), feature)
        found.append(torch.full((len(some),), torch.inf) if bound is None else bound.float().cpu())
    return torch.cat(found)

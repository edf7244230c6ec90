"""The vectors on which one feature is most active, without the code of all of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saewidgets.sae.architectures import Architecture
from saewidgets.sae.sae import SAE
from saewidgets.sae.selection import ROUNDING

_FIRST, _GROWTH, _MOST = 64, 4, 4096  # vectors looked at together: the first time, times as many then, at most


def strongest(sae: SAE, x: Tensor, feature: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The vectors of `x` [m, d_in] on which a feature is active, strongest first, in groups: (values, rows) of each.

    Both are float32 and int64, on the CPU; no value of a later group is above one of an earlier, so whoever wants n
    stops there. Vectors on which it is silent (or negative) are left out, and of equal ones the earlier comes first,
    up to rounding. `x` may be in half precision and on another device than the SAE.

    A feature's own column says what its activation is at most (`Architecture.upper_bound`): one product [m, d_in] x
    [d_in]. Vectors are looked at in the order of that, until those found are above what is left. The two are computed
    in different ways, so they have to be by a margin, `selection.ROUNDING`. Whether the feature is active may depend
    on all others (those with a k): then a vector is held against some of them first (`Architecture.outdone`), and only
    of those that remain is the whole code taken. So a feature that is seldom active costs little too. An architecture
    without such a bound has the code of all vectors taken.

    Raises ValueError for a feature that the SAE does not have.
    """
    sae.check_features(torch.tensor([feature]))
    return _groups(sae, x, feature)


@torch.no_grad()
def _groups(sae: SAE, x: Tensor, feature: int) -> Iterator[tuple[Tensor, Tensor]]:
    most = torch.cat([torch.zeros(0), *(_upper_bounds(sae, some, feature) for some in x.split(_MOST))])
    order = torch.argsort(most, descending=True, stable=True)
    order = order[most[order] > 0]
    values, rows = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    at, size = 0, _FIRST
    while at < len(order):
        some = order[at : at + size]
        found, which = active(sae, x[some.to(x.device)], feature)
        values, rows = torch.cat([values, found]), torch.cat([rows, some[which]])
        best = torch.argsort(rows, stable=True)
        best = best[torch.argsort(values[best], descending=True, stable=True)]
        values, rows = values[best], rows[best]
        at, size = at + len(some), min(_MOST, size * _GROWTH)
        left = float(most[order[at]]) * (1 + ROUNDING) if at < len(order) else 0.0
        sure = int((values >= left).sum())
        if sure:
            yield values[:sure], rows[:sure]
        values, rows = values[sure:], rows[sure:]


@torch.no_grad()
def active(sae: SAE, x: Tensor, feature: int) -> tuple[Tensor, Tensor]:
    """The vectors of `x` [m, d_in] on which a feature is above 0, in their order: (values, rows), on the CPU.

    As `sae.encode_features` says, but without the code of those of which the own column, or a few of the other
    features, tell that it is silent.
    """
    rows = (_upper_bounds(sae, x, feature) > 0).nonzero()[:, 0]
    x = x[rows.to(x.device)].float()
    if len(rows) and _of_its_own_code(sae.architecture, "outdone"):
        silent = sae.architecture.outdone(sae, sae.scaled(x), feature)
        if silent is not None:
            rows, x = rows[~silent.cpu()], x[~silent.to(x.device)]
    if not len(rows):
        return torch.zeros(0), rows
    values = sae.encode_features(x, torch.tensor([feature]))[:, 0].float().cpu()
    return values[values > 0], rows[values > 0]


def _upper_bounds(sae: SAE, x: Tensor, feature: int) -> Tensor:
    """What the activation on each vector is at most, [m]; infinity where the architecture does not say."""
    found = None
    if _of_its_own_code(sae.architecture, "upper_bound"):
        found = sae.architecture.upper_bound(sae, sae.scaled(x.float()), feature)
    return torch.full((len(x),), torch.inf) if found is None else found.float().cpu()


def _of_its_own_code(architecture: Architecture, method: str) -> bool:
    """Whether a method belongs to the code that the architecture has: what is inherited belongs to the parent's."""
    for cls in type(architecture).__mro__:
        if method in vars(cls):
            return True
        if not vars(cls).keys().isdisjoint(("encode", "encode_sparse")):
            return False
    return False

"""Activations at a hook, or at several of one forward, for tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saewidgets.activations.blocks import Ask, BrokenOff, Memory
from saewidgets.activations.contexts import Contexts
from saewidgets.activations.hooks import HookSite, capture
from saewidgets.models.tokens import device_of


def harvest(model: Any, tokens: Tensor, site: HookSite) -> Tensor:
    """Activations `[n, pos, d_in]` at a site for `tokens` `[n, pos]`, without gradients, under the model's lock.

    The model runs only up to the hook. Steering that this thread does is in them, another thread's never.
    """
    return harvest_all(model, tokens, [site])[0]


def harvest_all(model: Any, tokens: Tensor, sites: list[HookSite]) -> list[Tensor]:
    """`harvest` at several sites, read in one forward."""
    found = capture(model, tokens.to(device_of(model)), *(site.hook_name for site in sites))
    vectors = []
    for site, activation in zip(sites, found, strict=True):
        if activation is None:
            raise ValueError(f"The hook {site.hook_name!r} did not fire. Was it switched off after it was looked up?")
        vectors.append(activation.flatten(2) if site.flatten else activation)
    return vectors


def harvest_rows(
    model: Any,
    contexts: Contexts,
    rows: Tensor,
    sites: list[HookSite],
    memory: Memory,
    per_forward: int,
    share: tuple[int, int] = (0, 1),
    may_go_on: Ask | None = None,
) -> None:
    """Write activations of contexts into rows of `memory`, of each site into its own; rows not named stay as they are.

    Args:
        rows: Where the activation of each of their tokens goes, `[n, context_size]`; -1: nowhere.
        per_forward: Contexts in one forward of the model.
        share: (i, n): only every n-th forward is run, from number i on.
        may_go_on: Asked before each forward.

    Raises:
        BrokenOff: `may_go_on` said no.
    """
    # contexts of like length share a forward, cut to the longest of them: padding costs next to nothing
    lengths = contexts.mask.sum(1)
    by_length = torch.argsort(lengths, descending=True, stable=True)
    for some in by_length.split(per_forward)[share[0] :: share[1]]:
        if may_go_on is not None and not may_go_on():
            raise BrokenOff
        width = int(lengths[some[0]])
        into = rows[some, :width].flatten()
        places = (into >= 0).nonzero().squeeze(1)  # where they stand in the forward
        for found, kept in zip(harvest_all(model, contexts.tokens[some, :width], sites), memory, strict=True):
            vectors = found.flatten(0, 1).index_select(0, places.to(found.device))
            kept.index_copy_(0, into[places].to(kept.device), vectors.to(kept.dtype))

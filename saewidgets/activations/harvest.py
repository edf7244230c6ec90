"""Activations at a hook, or at several of one forward, for tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor

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

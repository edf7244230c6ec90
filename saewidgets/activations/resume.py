"""Run a model once, then only the layers after a hook, again and again with its activation changed.

This is what makes a slider fast and a splice cheap. TransformerLens' `start_at_layer` still runs the blocks before it
and drops what they say; here they are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saewidgets.activations.hooks import HookSite
from saewidgets.models.lock import forward_hooks, lock_of

Change = Callable[..., "Tensor | None"]
"""A hook function, `(activation, hook) -> activation`, in the hook's own shape."""


@dataclass(frozen=True)
class Halfway:
    """A clean forward, stopped in thought at a hook."""

    tokens: Tensor
    """What was read, `[batch, pos]`."""
    site: HookSite
    """The hook."""
    activation: Tensor
    """The activation there, in the hook's own shape."""
    logits: Tensor
    """What the model says when nothing is changed, `[batch, pos, vocabulary]`."""
    residual: Tensor | None
    """The residual stream that enters the hook's block; None if the hook stands outside of the blocks."""
    passable: bool
    """Whether the blocks before can be passed over: each gave a plain tensor."""

    @property
    def vectors(self) -> Tensor:
        """The activation as vectors, `[batch, pos, d_in]`."""
        return self.activation.flatten(2) if self.site.flatten else self.activation


@torch.no_grad()
def run_halfway(model: Any, tokens: Tensor, site: HookSite) -> Halfway:
    """One clean forward of `tokens` `[batch, pos]` that keeps what `run_on` needs."""
    kept: dict[str, Tensor] = {}
    plain: list[bool] = []

    def keep(name: str) -> Callable[..., None]:
        def hook(activation: Tensor, hook: Any) -> None:
            kept[name] = activation

        return hook

    hooks = [(site.hook_name, keep("activation"))]
    if site.layer is not None:
        hooks.append((f"blocks.{site.layer}.hook_resid_pre", keep("residual")))
    with lock_of(model):
        looks = [
            block.register_forward_hook(lambda module, args, output: plain.append(isinstance(output, Tensor)))
            for block in (model.blocks[: site.layer] if site.layer is not None else ())
        ]
        try:
            with forward_hooks(model, hooks):
                logits = model(tokens, return_type="logits")
        finally:
            for look in looks:
                look.remove()
    return Halfway(tokens, site, kept["activation"], logits, kept.get("residual"), all(plain))


@torch.no_grad()
def run_on(model: Any, halfway: Halfway, change: Change) -> Tensor:
    """Logits `[batch, pos, vocabulary]` of the same tokens with the activation changed.

    Exactly the logits that a full forward with `change` hung up at the hook gives.
    """
    site = halfway.site
    hooks = [(site.hook_name, change)]
    if halfway.residual is None or site.layer is None:
        with forward_hooks(model, hooks):
            whole: Tensor = model(halfway.tokens, return_type="logits")
        return whole
    start, entering = site.layer, halfway.residual
    after = site.layer + 1
    if site.hook_name == f"blocks.{site.layer}.hook_resid_post" and after < len(model.blocks):
        changed = change(halfway.activation, hook=model.hook_dict[site.hook_name])
        start, entering, hooks = after, halfway.activation if changed is None else changed, []
    with lock_of(model), forward_hooks(model, hooks), _passed_over(model, start if halfway.passable else 0):
        logits: Tensor = model(entering, start_at_layer=start, return_type="logits")
    return logits


@contextmanager
def _passed_over(model: Any, layer: int) -> Iterator[None]:
    """The first `layer` blocks hand on what they get; the caller holds the lock."""
    blocks = list(model.blocks[:layer])
    for block in blocks:
        block.__dict__["forward"] = _hand_on
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]


def _hand_on(*args: Any, **kwargs: Any) -> Any:
    return args[0] if args else kwargs["hidden_states"]

"""Steering a model with edits of an SAE's features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saewidgets.activations.hooks import HookSite, check_fits
from saewidgets.interventions.edits import Edits, check_edits
from saewidgets.models.lock import forward_hooks, token_positions
from saewidgets.sae.normalize import own_size

if TYPE_CHECKING:
    from saewidgets.sae.sae import SAE


@contextmanager
def steering(sae: SAE, model: Any, edits: Edits, hook_name: str | None = None) -> Iterator[Any]:
    """Steer every forward of this thread inside the `with` block; other threads see nothing of it.

    At each token the activation x becomes x + sum over the edited features of (f' - f) W_dec[feature], times the
    vector's own size where the SAE brings each vector to size by itself (`SAEConfig.normalize`). Positions that the SAE
    leaves out (`sae.metadata.excluded_positions`, BOS) are not edited, in generation with a cache neither.

    Args:
        edits: Feature id to `Clamp`, `Add`, `Scale` or `Ablate`.
        hook_name: Where the SAE belongs, if its metadata does not say.

    Raises:
        ValueError: a feature id out of range, or an SAE that does not fit the model.
    """
    with forward_hooks(model, edit_hooks(sae, model, edits, hook_name)):
        yield model


def edit_hooks(
    sae: SAE, model: Any, edits: Edits, hook_name: str | None = None
) -> list[tuple[str, Callable[..., Tensor | None]]]:
    """The same edits as a list of hooks, for `continuations` and `forward_hooks`; empty if nothing is edited."""
    site = check_fits(sae, model, hook_name)
    check_edits(sae, edits)
    if not edits:
        return []
    if any(weight.requires_grad for weight in sae.parameters()):
        sae = sae.clone()  # it may be in training: never read what is being written
    return [(site.hook_name, _edit_hook(sae, model, edits, site))]


def _edit_hook(sae: SAE, model: Any, edits: Edits, site: HookSite) -> Callable[..., Tensor | None]:
    features = torch.tensor([int(feature) for feature in edits], device=sae.device)
    directions = torch.stack([edit.direction(sae, int(feature)) for feature, edit in edits.items()])
    excluded = torch.tensor(sae.metadata.excluded_positions, dtype=torch.long)

    @torch.no_grad()
    def change(x: Tensor) -> Tensor:
        f = sae.encode_features(x, features)
        wanted = torch.stack([edit.target(f[:, i]) for i, edit in enumerate(edits.values())], dim=1)
        own = own_size(x, sae.cfg.normalize)
        return (wanted - f) @ directions * (1.0 if own is None else own.size)

    def hook(activation: Tensor, hook: Any) -> Tensor | None:
        vectors = activation.flatten(2) if site.flatten else activation
        positions = token_positions(model, vectors.shape[1]).cpu()
        edited = ~torch.isin(positions, excluded).expand(vectors.shape[:2]).to(vectors.device)
        if not bool(edited.any()):
            return None
        moved = torch.zeros_like(vectors)
        moved[edited] = change(vectors[edited].detach().float()).to(vectors.device, vectors.dtype)
        return (vectors + moved).reshape(activation.shape)

    return hook

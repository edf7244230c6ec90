"""Where a hook is in a model, and whether an SAE fits there."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saewidgets.models.lock import forward_hooks, hook_point, layer_of, lock_of
from saewidgets.models.tokens import device_of

if TYPE_CHECKING:
    from saewidgets.sae.sae import SAE


@dataclass(frozen=True)
class HookSite:
    """A place in a model where activations are read and written."""

    hook_name: str
    """The name, as TransformerLens knows it: `blocks.2.hook_resid_post`."""
    layer: int | None
    """The block it stands in; None outside of the blocks."""
    d_in: int
    """The width of one activation vector."""
    stop_at_layer: int | None
    """The first block that isn't needed to get there; None if all are."""
    flatten: bool
    """Whether the hook's own shape is [batch, pos, heads, d_head], of which a vector is the last two flattened."""


_sites: weakref.WeakKeyDictionary[Any, dict[str, HookSite]] = weakref.WeakKeyDictionary()
_PROBE = 7  # tokens in the probing forward
_OPTIONAL = {
    "mlp_in": ("set_use_hook_mlp_in", "mlp.hook_in", "what the MLP reads, after the norm"),
    "attn_in": ("set_use_attn_in", "attn.hook_in", "what the attention reads, after the norm"),
    "q_input": ("set_use_split_qkv_input", "attn.hook_in", "what the attention reads, after the norm"),
    "k_input": ("set_use_split_qkv_input", "attn.hook_in", "what the attention reads, after the norm"),
    "v_input": ("set_use_split_qkv_input", "attn.hook_in", "what the attention reads, after the norm"),
    "result": ("set_use_attn_result", "hook_attn_out", "the sum over the heads"),
}
"""Hooks that TransformerLens fires only once a setter is called: the setter, and what fires in their place."""


def hook_site(model: Any, hook_name: str) -> HookSite:
    """Where a hook is and how wide its vectors are, measured once by a forward of a few tokens.

    Raises:
        ValueError: no such hook (the nearest names are offered), one that never fires, or one that does not give a
            vector per token.
    """
    known = _sites.setdefault(model, {})
    if hook_name not in known:
        known[hook_name] = _probe(model, hook_name)
    return known[hook_name]


def _probe(model: Any, hook_name: str) -> HookSite:
    point = hook_point(model, hook_name)
    tokens = torch.arange(_PROBE, device=device_of(model))[None] % model.cfg.d_vocab
    (found,) = capture(model, tokens, hook_name)
    if found is None:
        raise ValueError(f"The hook {hook_name!r} never fires in {model.cfg.model_name!r}{_remedy(model, hook_name)}")
    per_token = isinstance(found, Tensor) and found.ndim in (3, 4) and tuple(found.shape[:2]) == (1, _PROBE)
    if not per_token or found.shape[-2:] == (_PROBE, _PROBE):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"The hook {hook_name!r} does not give one vector per token: its shape for 1 text of {_PROBE} tokens is "
            f"{shape}. Use a residual stream, mlp_out, attn_out or z hook."
        )
    layer = layer_of(hook_name) if layer_of(hook_name) is not None else layer_of(getattr(point, "name", "") or "")
    last = layer is None or layer + 1 >= model.cfg.n_layers
    stop = 0 if "embed" in hook_name and layer is None else None if last else (layer or 0) + 1
    return HookSite(hook_name, layer, found.shape[2:].numel(), stop, found.ndim == 4)


def _remedy(model: Any, hook_name: str) -> str:
    """The end of the sentence about a hook that never fires: the setter it waits for, and what is there without."""
    setter, instead, what = _OPTIONAL.get(hook_name.rpartition("hook_")[2], (None, "hook_resid_post", "the stream"))
    layer = layer_of(hook_name) or 0
    named = f"blocks.{layer}.{instead}"
    offered = f"{named!r}, {what}" if named in model.hook_dict else "another hook of model.hook_dict"
    if setter is None or not hasattr(model, setter):
        return f": its forward does not pass there. Use {offered}."
    per_head = "" if setter == "set_use_hook_mlp_in" else ", with a vector of each head"
    return f" until model.{setter}(True) is called{per_head}. Call it, or use {offered}, which needs no call."


def capture(model: Any, tokens: Tensor, *hook_names: str) -> list[Tensor | None]:
    """The activation at each hook for `tokens` [batch, pos], in the hook's own shape; None if it never fires.

    One forward, which ends at the last of the hooks: nothing behind it is computed.
    """
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    seen: dict[str, Tensor] = {}
    wanted = set(hook_names)

    def look(name: str) -> Callable[..., None]:
        def hook(activation: Tensor, hook: Any) -> None:
            if len(seen.keys() | {name}) < len(wanted):
                # the forward goes on, and may write into its own tensors
                seen[name] = activation.clone() if isinstance(activation, Tensor) else activation
                return
            seen[name] = activation
            raise StopAtLayerException(activation)

        return hook

    with torch.no_grad(), lock_of(model), forward_hooks(model, [(name, look(name)) for name in sorted(wanted)]):
        model(tokens)
    return [seen.get(name) for name in hook_names]


def check_fits(sae: SAE, model: Any, hook_name: str | None = None) -> HookSite:
    """The site an SAE belongs to: `hook_name`, or the hook its metadata names.

    Raises:
        ValueError: the SAE names no hook and none is given, the model has no such hook, or its vectors are not as
            wide as the SAE's input.
    """
    name = hook_name or sae.metadata.hook_name
    if name is None:
        width, pass_it = int(model.cfg.d_model), "hook_name='blocks.2.hook_resid_post'"
        if sae.cfg.d_in == width:
            raise ValueError(f"The SAE does not say which hook it was trained at. Pass it: {pass_it}.")
        raise ValueError(
            f"The SAE does not say which hook it was trained at, and it reads vectors of {sae.cfg.d_in} numbers, but "
            f"the residual stream of {model.cfg.model_name!r} gives {width}. Pass the model that it belongs to, and "
            f"the hook: {pass_it}."
        )
    site = hook_site(model, name)
    if site.d_in != sae.cfg.d_in:
        trained = f" It was trained on {sae.metadata.model_name!r}." if sae.metadata.model_name else ""
        raise ValueError(
            f"The SAE reads vectors of {sae.cfg.d_in} numbers, but {name!r} of {model.cfg.model_name!r} gives "
            f"{site.d_in}.{trained} Pass the model and the hook it belongs to."
        )
    return site


def target_of(sae: SAE, model: Any, target_hook_name: str | None = None) -> HookSite | None:
    """Where a transcoder's prediction belongs: `target_hook_name`, or the hook its metadata names. None: no transcoder.

    Raises:
        ValueError: the transcoder names no such hook and none is given, the model has no such hook, or its vectors are
            not as wide as the prediction; a hook given for an SAE that reconstructs what it reads.
    """
    if not sae.architecture.predicts_target:
        if target_hook_name is not None:
            raise ValueError(
                f"{sae.cfg.architecture!r} reconstructs what it reads: leave target_hook_name out, or pass a "
                "transcoder."
            )
        return None
    name = target_hook_name or sae.metadata.extra.get("target_hook_name")
    if name is None:
        raise ValueError(
            "The transcoder does not say which hook it predicts. Pass it: target_hook_name='blocks.2.hook_mlp_out'."
        )
    site = hook_site(model, name)
    if site.d_in != sae.cfg.d_out:
        raise ValueError(
            f"The transcoder predicts vectors of {sae.cfg.d_out} numbers, but {name!r} of {model.cfg.model_name!r} "
            f"gives {site.d_in}. Pass the model and the hook it belongs to."
        )
    return site

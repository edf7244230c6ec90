"""Continuing a prompt, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from saewidgets.models.lock import forward_hooks, lock_of
from saewidgets.models.tokens import device_of, to_ids

Hooks = Sequence[tuple[str, Callable[..., "Tensor | None"]]]


def continuations(
    model: Any,
    prompt_ids: Tensor | Sequence[int],
    hooks: Hooks = (),
    n_tokens: int = 30,
    temperature: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """The ids of the tokens that continue a prompt, one at a time; the model is locked for each one only.

    The same seed gives the same text, whatever other threads do. Sampling takes the largest of logit / temperature +
    Gumbel noise, and the noise of step i depends on the seed alone: a steered and a plain continuation share their
    luck, and part only where steering moved the distribution.

    Args:
        prompt_ids: Token ids, as `to_ids` gives them (BOS included if there shall be one).
        hooks: `(hook_name, function)` pairs, such as `edit_hooks(sae, model, edits)`; none for the model itself.
        n_tokens: At most so many; it ends sooner at the end of a text (EOS or BOS) or of the model's context.
        temperature: 0 takes the likeliest token.

    Raises:
        ValueError: a prompt that is empty, too long or out of range, or a negative temperature.
    """
    ids = to_ids(model, prompt_ids, prepend_bos=False)
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be 0 (the likeliest token) or more.")
    if n_tokens < 0:
        raise ValueError(f"n_tokens={n_tokens} must be 0 or more.")
    return _continued(model, ids, list(hooks), min(n_tokens, int(model.cfg.n_ctx) - ids.shape[1]), temperature, seed)


def _continued(
    model: Any, ids: Tensor, hooks: list[Any], n_tokens: int, temperature: float, seed: int
) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    tokenizer = model.tokenizer
    ends = {tokenizer.eos_token_id, tokenizer.bos_token_id} if tokenizer is not None else set()
    cached = bool(getattr(model.adapter, "supports_kv_cache", True))
    cache: Any = None
    for _ in range(n_tokens):
        # the hooks are up for this forward only: between two tokens the thread may do something else
        with torch.no_grad(), lock_of(model), forward_hooks(model, hooks):
            if cache is None:
                logits, cache = _forward(model, ids, cached)
            else:
                # with the mask, the positions of the new token are never guessed from the cache alone
                logits, cache = model(
                    ids[:, -1:],
                    return_type="logits_and_cache",
                    past_key_values=cache,
                    attention_mask=torch.ones_like(ids),
                )
        token = _choose(logits[0, -1].float().cpu(), temperature, generator)
        if token in ends:
            return
        yield token
        ids = torch.cat([ids, torch.tensor([[token]], device=device_of(model))], dim=1)


def _forward(model: Any, ids: Tensor, cached: bool) -> tuple[Tensor, Any]:
    if not cached:
        return model(ids, return_type="logits"), None
    logits, cache = model(ids, return_type="logits_and_cache", use_cache=True)
    return logits, cache


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    noise = -torch.empty_like(logits).exponential_(generator=generator).log()
    return int((logits if temperature == 0 else logits / temperature + noise).argmax())

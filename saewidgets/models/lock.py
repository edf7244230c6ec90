"""One lock per bridge, and hooks that belong to a thread.

A `TransformerBridge` keeps hooks, `stop_at_layer` and its generation cache as state on its modules, so two
threads that run it at once corrupt each other. `share` makes a bridge safe to share: its `forward` takes the
bridge's one lock, and what a thread hung up with `forward_hooks` is on the modules only while a forward of
that same thread runs. Generation goes through `forward` token by token, so it never keeps others waiting
longer than one token.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from saewidgets.models.fair_lock import FairLock

HookFunction = Callable[..., "Tensor | None"]


class _ThreadState(threading.local):
    """What belongs to one thread of a shared bridge."""

    def __init__(self) -> None:
        self.hooks: list[tuple[str, Any, HookFunction]] = []
        self.n_hung = 0  # how many of them are on the modules now
        self.positions: Tensor | int | None = None
        self.generation: dict[str, Any] = {}


class _Shared:
    """The lock of a bridge and its threads' states. A copy of a bridge gets fresh ones."""

    def __init__(self) -> None:
        self.lock = FairLock()
        self.thread = _ThreadState()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return _Shared()

    def __reduce__(self) -> tuple[type[_Shared], tuple[()]]:
        return (_Shared, ())


_sharing = threading.Lock()


def share(model: Any) -> Any:
    """Make a `TransformerBridge` safe to share between threads; the same object is returned.

    Its class becomes a subclass that takes the lock in `forward`, `run_with_hooks`, `run_with_cache`,
    `hooks` (while the `with` block lasts) and `to_tokens`. Calling it again changes nothing.

    Raises:
        TypeError: the model is not a `TransformerBridge` around a torch model.
    """
    if "_shared" in getattr(model, "__dict__", {}):
        return model
    if not isinstance(model, nn.Module) or not hasattr(model, "hook_dict") or not hasattr(model, "run_with_hooks"):
        raise TypeError(
            f"Expected a TransformerBridge, got {type(model).__name__}. Load one with sw.load_model(), or boot "
            "your own with transformer_lens.model_bridge.TransformerBridge.boot_transformers(...)."
        )
    with _sharing:
        if "_shared" not in model.__dict__:
            shared = _Shared()
            kind: Any = type(model)
            model.__class__ = _shared_class(kind)
            model.__dict__["_shared"] = shared
    return model


def lock_of(model: Any) -> FairLock:
    """The one re-entrant lock of a bridge (which becomes shared by this): `with lock_of(model): ...`."""
    lock: FairLock = share(model).__dict__["_shared"].lock
    return lock


@contextmanager
def forward_hooks(model: Any, hooks: Sequence[tuple[str, HookFunction]]) -> Iterator[Any]:
    """Apply `fn(tensor, hook)` at named hooks in this thread's forwards, and in nobody else's.

    A function that returns a tensor replaces the activation, one that returns None only looks. Hooks of
    nested blocks add up in the order in which they were entered.

    Raises:
        ValueError: no hook of that name; the nearest names are offered.
    """
    state: _ThreadState = share(model).__dict__["_shared"].thread
    before = state.hooks
    state.hooks = before + [(name, hook_point(model, name), fn) for name, fn in hooks]
    try:
        yield model
    finally:
        state.hooks = before


def hook_point(model: Any, name: str) -> Any:
    """The hook point of that name, canonical or legacy.

    Raises:
        ValueError: no hook of that name; the nearest names are offered.
    """
    points = model.hook_dict
    if name not in points:
        near = difflib.get_close_matches(str(name), points, n=3, cutoff=0.5)
        offer = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        raise ValueError(
            f"The model {model.cfg.model_name!r} has no hook named {name!r}.{offer} model.hook_dict lists all of them."
        )
    return points[name]


def token_positions(model: Any, n_tokens: int) -> Tensor:
    """Absolute positions `[1 or batch, n_tokens]` of the tokens in the forward that runs now in this thread.

    For the functions given to `forward_hooks`: with a KV cache a forward sees only the newest token, which is
    not position 0, and with left padding the first real token is not at index 0.
    """
    known = share(model).__dict__["_shared"].thread.positions
    if isinstance(known, Tensor):
        return known[:, -n_tokens:]
    offset = known or 0
    return torch.arange(offset, offset + n_tokens)[None]


def layer_of(hook_name: str) -> int | None:
    """The block a hook stands in, or None outside of the blocks."""
    found = re.match(r"blocks\.(\d+)\.", hook_name)
    return int(found.group(1)) if found else None


def _positions_from(kwargs: dict[str, Any]) -> Tensor | int:
    position_ids, mask, past = (kwargs.get(k) for k in ("position_ids", "attention_mask", "past_key_values"))
    if isinstance(position_ids, Tensor) and position_ids.ndim == 2:
        return position_ids
    if isinstance(mask, Tensor) and mask.ndim == 2 and not bool(mask.all()):
        return (mask.long().cumsum(-1) - 1).clamp_min(0)
    return 0 if past is None else int(past.get_seq_length())


def _is_before(hook_name: str, start_at_layer: int | None) -> bool:
    """Whether a hook stands in the part that `start_at_layer` skips (it would see something else's residual)."""
    if start_at_layer is None:
        return False
    layer = layer_of(hook_name)
    if layer is None:
        return hook_name.startswith(("embed.", "pos_embed.", "hook_embed", "hook_pos_embed", "hook_tokens"))
    return layer < start_at_layer


@contextmanager
def _hung_up(model: Any, start_at_layer: int | None) -> Iterator[None]:
    """This thread's hooks on the modules, for one forward; the lock is held by the caller."""
    state: _ThreadState = model.__dict__["_shared"].thread
    if start_at_layer is not None and start_at_layer < 0:
        start_at_layer += len(model.blocks)
    outer = state.n_hung, state.positions
    placed: list[tuple[Any, Any]] = []

    def read(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        state.positions = _positions_from(kwargs)

    reader = model.original_model.register_forward_pre_hook(read, with_kwargs=True)
    try:
        # what is on the modules already is run_with_cache's or a forward's around this one: it shall see the effect of
        # ours, so they go in front, the last one first
        for name, point, fn in reversed(state.hooks[state.n_hung :]):
            if not _is_before(getattr(point, "name", None) or name, start_at_layer):
                placed.append((point, point.add_hook(fn, prepend=True)))
        state.n_hung = len(state.hooks)
        yield
    finally:
        for point, handle in placed:
            handle.hook.remove()
            point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]
        reader.remove()
        state.n_hung, state.positions = outer


def _generation_state(name: str) -> property:
    """`generate` keeps its cache on the bridge; here each thread has its own."""

    def read(self: Any) -> Any:
        try:
            return self.__dict__["_shared"].thread.generation[name]
        except KeyError:
            raise AttributeError(name) from None

    def write(self: Any, value: Any) -> None:
        self.__dict__["_shared"].thread.generation[name] = value

    def delete(self: Any) -> None:
        self.__dict__["_shared"].thread.generation.pop(name, None)

    return property(read, write, delete)


def _rebuild(base: type) -> Any:
    made = _shared_class(base)
    return made.__new__(made)


@functools.cache
def _shared_class(base: Any) -> Any:
    signature = inspect.signature(base.forward)

    class Shared(base):
        _capture_hf_cache = _generation_state("_capture_hf_cache")
        _last_hf_cache = _generation_state("_last_hf_cache")

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            shared: _Shared = self.__dict__["_shared"]
            with shared.lock:
                if not shared.thread.hooks:
                    return super().forward(*args, **kwargs)
                start = signature.bind(self, *args, **kwargs).arguments.get("start_at_layer")
                with _hung_up(self, start):
                    return super().forward(*args, **kwargs)

        def generate(self, *args: Any, **kwargs: Any) -> Any:
            # a progress bar on a stream would end up in the outputs of a committed notebook
            if "verbose" not in inspect.signature(base.generate).bind_partial(self, *args, **kwargs).arguments:
                kwargs["verbose"] = False
            return super().generate(*args, **kwargs)

        @contextmanager
        def hooks(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
            with lock_of(self), super().hooks(*args, **kwargs) as model:
                yield model

        def __reduce_ex__(self, protocol: Any) -> Any:
            return (_rebuild, (base,), *super().__reduce_ex__(protocol)[2:])

    def locked(name: str, *, with_hooks: bool) -> None:
        original = getattr(base, name, None)
        if original is None:
            return

        @functools.wraps(original)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            shared: _Shared = self.__dict__["_shared"]
            with shared.lock:
                if not with_hooks or not shared.thread.hooks:
                    return original(self, *args, **kwargs)
                with _hung_up(self, None):
                    return original(self, *args, **kwargs)

        setattr(Shared, name, method)

    # these change hooks on the modules outside of forward, or use the tokenizer, which isn't thread-safe
    for name in ("run_with_hooks", "run_with_cache", "to_tokens", "add_hook", "reset_hooks", "remove_all_hook_fns"):
        locked(name, with_hooks=False)
    # these run the wrapped Hugging Face model past forward
    for name in ("hf_generate", "diffusion_generate", "encoder_output"):
        locked(name, with_hooks=True)
    Shared.__name__, Shared.__qualname__, Shared.__module__ = base.__name__, base.__qualname__, base.__module__
    Shared.__doc__ = base.__doc__
    return Shared

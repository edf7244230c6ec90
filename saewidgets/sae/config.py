"""What an SAE is (`SAEConfig`) and where it came from (`SAEMetadata`)."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from saewidgets.sae.architectures import get_architecture

T = TypeVar("T")

DTYPES = ("float32", "float64")


def strict(cls: type[T]) -> type[T]:
    """Make a dataclass refuse unknown keywords with a sentence that offers the nearest field."""
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    original = cls.__init__

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **keywords: Any) -> None:
        for name in keywords:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{cls.__name__} has no option {name!r}.{hint} Its options: {', '.join(names)}.")
        original(self, *args, **keywords)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def check_count(owner: str, name: str, value: Any) -> None:
    """Raise unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} must be a whole number, got {value!r}.")
    if value < 1:
        raise ValueError(f"{owner}: {name} must be at least 1, got {value}.")


@strict
@dataclass(frozen=True)
class SAEConfig:
    """The shape and the sparsity rule of a sparse autoencoder.

    Raises ValueError for values out of range (k > d_sae among them) and for an unknown architecture, and
    TypeError for a keyword it does not have.
    """

    d_in: int
    """Size of the vectors that the SAE reads and reconstructs."""

    d_sae: int
    """Number of features."""

    architecture: str = "topk"
    """Name of a registered architecture, see `saewidgets.sae.architectures`."""

    k: int = 32
    """Features active for each vector (topk)."""

    aux_k: int | None = None
    """Dead features that AuxK uses for each vector; None is d_in / 2 (Gao et al. 2024), at most d_sae."""

    aux_coefficient: float = 1 / 32
    """Weight of the AuxK loss beside the reconstruction loss (Gao et al. 2024: 1/32); 0 turns AuxK off."""

    dtype: str = "float32"
    """Type that the weights are kept and computed in: float32 or float64."""

    seed: int = 0
    """Seed of the initial weights; the global generator of torch is never touched."""

    def __post_init__(self) -> None:
        check_count("SAEConfig", "d_in", self.d_in)
        check_count("SAEConfig", "d_sae", self.d_sae)
        if self.aux_k is None:
            object.__setattr__(self, "aux_k", min(max(self.d_in // 2, 1), self.d_sae))
        check_count("SAEConfig", "aux_k", self.aux_k)
        if not self.aux_coefficient >= 0:
            raise ValueError(f"SAEConfig: aux_coefficient must be 0 or more, got {self.aux_coefficient!r}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"SAEConfig: dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")
        get_architecture(self.architecture).validate(self)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@strict
@dataclass(frozen=True)
class SAEMetadata:
    """Which activations an SAE was trained on. Written by `train` from the stream's, and by every loader."""

    model_name: str | None = None
    """Name of the language model."""

    hook_name: str | None = None
    """TransformerLens hook that the vectors were read at."""

    context_size: int | None = None
    """Tokens in a training context, BOS included."""

    prepend_bos: bool = True
    """Whether each context began with the BOS token."""

    weights_processing: str = "none"
    """How the model's weights were changed before reading; "none" is raw Hugging Face weights."""

    excluded_positions: tuple[int, ...] = (0,)
    """Positions of a context whose vectors were left out of training."""

    n_tokens_trained: int | None = None
    """Activation vectors seen in training."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else a file or a run says; JSON values."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "excluded_positions", tuple(self.excluded_positions))
        object.__setattr__(self, "extra", dict(self.extra))

    def replace(self, **changes: Any) -> SAEMetadata:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A flat JSON-able dict: the named fields, and the entries of `extra` beside them."""
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        named["excluded_positions"] = list(self.excluded_positions)
        return {**self.extra, **named}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SAEMetadata:
        """Reverse of `to_dict`: entries that are not fields go to `extra`; a None keeps the default."""
        fields = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        named = {name: value for name, value in values.items() if name in fields and value is not None}
        return cls(**named, extra={name: value for name, value in values.items() if name not in fields})

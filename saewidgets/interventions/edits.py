"""Edits of one feature: what its activation becomes, and along which direction that moves the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from saewidgets.sae.sae import SAE


LARGEST = 1e30
"""An edit beyond this would overflow float32 on its way through the model."""


class Edit(ABC):
    """x <- x + (f' - f) d: f is the feature's activation at a token, f' = `target(f)`, d its decoder row."""

    @abstractmethod
    def target(self, f: Tensor) -> Tensor:
        """The activation that is wanted in place of f, in the units of f."""

    @abstractmethod
    def describe(self) -> str:
        """What the edit does, in a few words."""

    def direction(self, sae: SAE, feature: int) -> Tensor:
        """The direction d `[d_in]` along which the activation moves: the feature's row of W_dec."""
        return sae.W_dec.detach()[feature]


@dataclass(frozen=True)
class _Number(Edit, ABC):
    """An edit with one finite number."""

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name)
            if isinstance(given, bool) or not isinstance(given, Real):
                raise TypeError(f"{type(self).__name__}({given!r}) needs a number.")
            number = float(given)  # numpy's numbers too: index.table().loc[feature, "max"]
            if not abs(number) <= LARGEST:
                raise ValueError(f"{type(self).__name__}({given!r}) needs a finite number of at most {LARGEST:g}.")
            object.__setattr__(self, field.name, number)


@dataclass(frozen=True)
class Clamp(_Number):
    """Hold a feature's activation at a value, on every token."""

    value: float
    """The activation, in the units of f."""

    def target(self, f: Tensor) -> Tensor:
        return torch.full_like(f, self.value)

    def describe(self) -> str:
        return f"clamp to {self.value:g}"


@dataclass(frozen=True)
class Add(_Number):
    """Add to a feature's activation, on every token."""

    value: float
    """What is added, in the units of f."""

    def target(self, f: Tensor) -> Tensor:
        return f + self.value

    def describe(self) -> str:
        return f"add {self.value:g}"


@dataclass(frozen=True)
class Scale(_Number):
    """Multiply a feature's activation; tokens on which it is silent are left alone."""

    factor: float
    """What f is multiplied with: 0 takes the feature out, 1 changes nothing."""

    def target(self, f: Tensor) -> Tensor:
        return f * self.factor

    def describe(self) -> str:
        return f"scale by {self.factor:g}"


@dataclass(frozen=True)
class Ablate(Edit):
    """Take a feature out: its activation becomes 0."""

    def target(self, f: Tensor) -> Tensor:
        return torch.zeros_like(f)

    def describe(self) -> str:
        return "ablate"


@dataclass(frozen=True)
class RandomDirection(Edit):
    """A control: the change of another edit, (f' - f), along a random direction as long as the decoder row."""

    edit: Edit
    """The edit whose size it takes."""
    seed: int = 0
    """Of the direction."""

    def target(self, f: Tensor) -> Tensor:
        return self.edit.target(f)

    def describe(self) -> str:
        return f"{self.edit.describe()}, along a random direction of equal norm (seed {self.seed})"

    def direction(self, sae: SAE, feature: int) -> Tensor:
        row = self.edit.direction(sae, feature)
        # the multiplier keeps (seed, feature) pairs apart
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + feature)
        random = torch.randn(row.shape, generator=generator).to(row.device, row.dtype)
        return random * (row.norm() / random.norm())


Edits = Mapping[int, Edit]


def random_direction_edit(sae: SAE, feature: int | None, edits: Edits, seed: int = 0) -> dict[int, Edit]:
    """The same edits, with one feature's (or every one's, if None) along a random direction of equal norm.

    At each token each edit moves the activation exactly as far as it did, along a direction of its own. Several edits
    along rows that point the same way add up to more than their controls do.

    Raises:
        ValueError: the feature is not edited, or is none of the SAE's.
    """
    check_edits(sae, edits)
    if feature is not None and feature not in edits:
        raise ValueError(f"Feature {feature} is not among the edits, which are of {sorted(edits)}.")
    return {i: RandomDirection(edit, seed) if feature is None or i == feature else edit for i, edit in edits.items()}


def check_edits(sae: SAE, edits: Edits) -> None:
    """Refuse what is no edit of the SAE's features.

    Raises:
        TypeError: edits that are no dict of feature id to edit.
        ValueError: a feature id out of range.
    """
    if not isinstance(edits, Mapping):
        raise TypeError(f"Edits are a dict such as {{412: sw.Clamp(8.0)}}, got {type(edits).__name__}.")
    for feature, edit in edits.items():
        if isinstance(feature, bool) or not isinstance(feature, int) and not hasattr(feature, "__index__"):
            raise TypeError(f"A feature is a whole number, got {feature!r}.")
        if not isinstance(edit, Edit):
            raise TypeError(
                f"The edit of feature {feature} is {edit!r}; expected sw.Clamp(value), sw.Add(value), "
                "sw.Scale(factor) or sw.Ablate()."
            )
    sae.check_features(torch.tensor([int(feature) for feature in edits], dtype=torch.long))

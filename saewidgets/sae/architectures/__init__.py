"""The ways to make a code sparse: one file each, found by registration.

To add one, write a file in this folder (or a cell in a notebook):

    @register("mine")
    class Mine(Architecture):
        def validate(self, cfg): ...
        def encode_sparse(self, sae, x): ...
        def loss(self, sae, x, dead): ...

and `SAEConfig(architecture="mine")` finds it. Nothing else needs to change.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE


@dataclass
class Losses:
    """What one training batch gives: everything the trainer needs, nothing read back to the host."""

    loss: Tensor
    """Scalar with a graph; its gradient trains the SAE."""

    residual: Tensor
    """x - xhat, [n, d_in], without a graph."""

    fired: Tensor
    """Vectors of the batch that each feature was active in, [d_sae]; their sum over n is the L0."""


class Architecture(ABC):
    """An encoder rule and a training loss. It has no state: the weights are the SAE's."""

    name: ClassVar[str]
    unit_norm_decoder: ClassVar[bool] = True
    """Whether the trainer keeps every decoder row at length 1."""

    @abstractmethod
    def validate(self, cfg: SAEConfig) -> None:
        """Raise ValueError, as a sentence, for a config that this architecture cannot use."""

    @abstractmethod
    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [n, d_in] to the (values >= 0, feature ids) of their active features, both [n, k]."""

    @abstractmethod
    def loss(self, sae: SAE, x: Tensor, dead: Tensor | None) -> Losses:
        """The loss of a batch of *scaled* vectors x~ [n, d_in] under the raw weights (no `input_scale`).

        `dead`: ids of the features now counted as dead, [n_dead], or None where nothing is to be revived in
        this step.
        """


_REGISTRY: dict[str, Architecture] = {}


def register(name: str) -> Callable[[type[Architecture]], type[Architecture]]:
    """Class decorator: makes an `Architecture` available as `SAEConfig(architecture=name)`."""

    def add(cls: type[Architecture]) -> type[Architecture]:
        cls.name = name
        _REGISTRY[name] = cls()
        return cls

    return add


def get_architecture(name: str) -> Architecture:
    """The architecture of that name; ValueError naming the known ones if there is none."""
    if name not in _REGISTRY:
        near = difflib.get_close_matches(str(name), _REGISTRY, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no architecture {name!r}.{hint} Known: {', '.join(sorted(_REGISTRY))}.")
    return _REGISTRY[name]


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

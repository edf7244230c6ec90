"""The ways to make a code sparse: one file each, found by registration.

To add one, write a file in this folder (or a cell in a notebook) with an `Architecture` under `@register("mine")`, and
`SAEConfig(architecture="mine")` finds it. Nothing else needs to change. README.md here has one that trains.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from saewidgets.sae.config import SAEConfig
    from saewidgets.sae.sae import SAE


@dataclass(frozen=True)
class Knobs:
    """What a schedule or a person sets at a step: plain numbers, passed in by the trainer."""

    sparsity: float
    """Weight of the sparsity penalty now; 0 while it warms up."""

    k: int
    """Active features for each vector now; `cfg.k` where nothing anneals it."""

    progress: float
    """How far the run is, from 0 to 1."""


@dataclass
class Losses:
    """What one training batch gives: everything the trainer needs, nothing read back to the host."""

    loss: Tensor
    """Scalar with a graph; its gradient trains the SAE."""

    residual: Tensor
    """target - xhat, [n, d_out], without a graph."""

    fired: Tensor
    """Vectors of the batch that each feature was active in, [d_sae]; their sum over n is the L0."""

    extra: dict[str, Tensor] = field(default_factory=dict)
    """Scalars without a graph that are worth a column of the metrics, as means over the steps between two rows."""


class Architecture(ABC):
    """An encoder rule and a training loss. It has no state: the weights are the SAE's.

    Everywhere here x and target are *scaled* vectors, in the units that the weights belong to (see `SAE`), and for
    an autoencoder target is x, the same tensor.
    """

    name: ClassVar[str]

    reads: ClassVar[frozenset[str] | None] = None
    """Fields of `SAEConfig` that it reads beside those that all do; another one that is given is refused. None: no
    field is refused."""

    unit_norm_decoder: ClassVar[bool] = True
    """Whether the trainer keeps every decoder row at length 1."""

    decoder_norm: ClassVar[float] = 1.0
    """Length of the decoder's rows at the beginning."""

    resamples: ClassVar[bool] = False
    """Whether the trainer gives dead features new directions (Bricken et al. 2023)."""

    lr_scale: ClassVar[Mapping[str, float]] = {}
    """Learning rates of single parameters, as multiples of the run's."""

    predicts_target: ClassVar[bool] = False
    """Whether it reads one hook and predicts another: a transcoder."""

    skips: ClassVar[bool] = False
    """Whether a part of the output comes from the input directly, see `skip`."""

    saved_as: ClassVar[str | None] = None
    """Name, in the SAELens layout, of the architecture that computes the same from the tensors of `save`; None: there
    is none, and the own name is written."""

    @abstractmethod
    def validate(self, cfg: SAEConfig) -> None:
        """Raise ValueError, as a sentence, for a config that this architecture cannot use."""

    @abstractmethod
    def encode_sparse(self, sae: SAE, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [n, d_in] to the (values, feature ids) of their active features, both [n, m], padded with value 0."""

    @abstractmethod
    def loss(self, sae: SAE, x: Tensor, target: Tensor, knobs: Knobs, dead: Tensor | None) -> Losses:
        """The loss of a batch: x [n, d_in], target [n, d_out].

        `dead`: ids of the features now counted as dead, [n_dead], or None where nothing is to be revived in this step.
        """

    def default_sparsity(self, cfg: SAEConfig) -> float | None:
        """What `SAEConfig.sparsity_coefficient` is unless it is given; None where nothing is penalised."""
        return None

    def parameters(self, cfg: SAEConfig, generator: Generator) -> dict[str, Tensor]:
        """Initial values of what is trained beside W_enc, b_enc, W_dec, b_dec, by name; attributes of the SAE."""
        return {}

    def buffers(self, cfg: SAEConfig) -> dict[str, Tensor]:
        """Initial values of what is kept, but not trained by gradient, by name; attributes of the SAE."""
        return {}

    def encode(self, sae: SAE, x: Tensor) -> Tensor:
        """Vectors [n, d_in] to f [n, d_sae]."""
        values, indices = self.encode_sparse(sae, x)
        # padding has value 0 and the id of some feature, which it must not overwrite
        return values.new_zeros(values.shape[0], sae.cfg.d_sae).scatter_add(1, indices, values)

    def upper_bound(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        """What the activation of one feature on vectors [n, d_in] is at most, [n], from its own column alone.

        Up to rounding, see `selection.ROUNDING`; 0 or less where it is silent. None: only the whole code tells. Where
        it is known, the strongest vectors are found without the code of all. It holds for the code of the class that
        defines it: of a subclass that overrides `encode` or `encode_sparse` only what it defines itself is asked.
        """
        return None

    def outdone(self, sae: SAE, x: Tensor, feature: int) -> Tensor | None:
        """Vectors [n, d_in], of a positive `upper_bound`, on which others keep a feature silent for sure: bool [n].

        None: nothing does, or only the whole code tells. Holds for the code of the class that defines it, as above.
        """
        return None

    def skip(self, sae: SAE, x: Tensor) -> Tensor | None:
        """What of the output comes from x [n, d_in] directly: [n, d_out]. Asked where `skips`."""
        return None

    def prepare(self, sae: SAE, x: Tensor, target: Tensor) -> None:  # noqa: B027
        """Set what depends on the data, from the first vectors [n, d_in] and targets [n, d_out]; before the first step.

        b_dec is the targets' mean by then. Not called for an SAE that has learned already.
        """

    def after_step(self, sae: SAE, losses: Losses, good: Tensor) -> None:  # noqa: B027
        """What to change after a step, on the device. `good`: whether the step counted (bool, [])."""

    def rescale(self, sae: SAE, read: Tensor, write: Tensor) -> None:  # noqa: B027
        """Bring `parameters` and `buffers` to new units: x is 1 / `read` times, the output `write` times as large.

        W_enc, W_dec and b_dec are brought there already; preactivations stay as they are.
        """

    def scale_code(self, sae: SAE, by: Tensor) -> None:
        """Make the activations of each feature `by` [d_sae] times as large, and the decoder's rows smaller."""
        sae.W_enc.mul_(by)
        sae.b_enc.mul_(by)
        sae.W_dec.div_(by.unsqueeze(1))

    def save(self, sae: SAE) -> dict[str, Tensor]:
        """The tensors to write to a file, by name, of an SAE whose scales are folded."""
        return {name: value for name, value in sae.state_dict().items() if not name.endswith("_scale")}

    def load(self, sae: SAE, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights from what `save` wrote; shapes are checked."""
        own = sae.state_dict()
        for name, value in tensors.items():
            own[name].copy_(value)

    def without_signs(self, cfg: SAEConfig) -> SAEConfig | None:
        """Of an SAE whose codes have signs: what computes the same from a feature for each sign, see `split_signs`.

        None: activations are 0 or more, or there is no such SAE.
        """
        return None

    def describe(self, cfg: SAEConfig) -> str:
        """What to say of `cfg` beside its sizes: "k=32", or nothing."""
        return f"k={cfg.k}" if self.reads is None or "k" in self.reads else ""


_REGISTRY: dict[str, Architecture] = {}


def register(name: str) -> Callable[[type[Architecture]], type[Architecture]]:
    """Class decorator: makes an `Architecture` available as `SAEConfig(architecture=name)`.

    A name of one's own may be given again, as a cell is run again. ValueError for that of one of saewidgets's.
    """

    def add(cls: type[Architecture]) -> type[Architecture]:
        known = type(_REGISTRY[name]).__module__ if name in _REGISTRY else cls.__module__
        if known.startswith(__name__) and known != cls.__module__:
            raise ValueError(f"saewidgets has an architecture {name!r} itself. Give yours another name.")
        cls.name = name
        _REGISTRY[name] = cls()
        return cls

    return add


ELSEWHERE = {"standard": "relu", "vanilla": "relu", "l1": "relu", "kl": "relu_kl", "matryoshka_batchtopk": "matryoshka"}
"""What other libraries and papers call an architecture that has another name here."""


def get_architecture(name: str) -> Architecture:
    """The architecture of that name; ValueError naming the known ones if there is none."""
    if name not in _REGISTRY:
        known_as = ELSEWHERE.get(str(name))
        near = [known_as] if known_as else difflib.get_close_matches(str(name), _REGISTRY, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no architecture {name!r}.{hint} Known: {', '.join(sorted(_REGISTRY))}.")
    return _REGISTRY[name]


def architectures() -> list[str]:
    """Names of all architectures, in alphabetical order."""
    return sorted(_REGISTRY)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

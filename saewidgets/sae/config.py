"""What an SAE is (`SAEConfig`) and where it came from (`SAEMetadata`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from saewidgets.sae.architectures import Architecture, get_architecture
from saewidgets.sae.options import check_count, strict

CHOICES = {
    "dtype": ("float32", "float64"),
    "normalize": ("none", "expected_norm", "unit_norm", "constant_norm", "layer_norm"),
    "init_b_dec": ("mean", "geometric_median", "zeros"),
    "activation": ("relu", "linear", "sigmoid"),
    "penalty": ("step", "tanh"),
}
"""What options with a few possible values may be."""

SHARED = frozenset({"d_in", "d_sae", "architecture", "dtype", "normalize", "init_b_dec", "seed"})
"""Options that every architecture reads."""


@strict
@dataclass(frozen=True)
class SAEConfig:
    """The shape and the sparsity rule of a sparse autoencoder.

    Beside the first three, each option belongs to the architectures named in its description; given to another one,
    it is refused. Raises ValueError for that, for values out of range (k > d_sae among them) and for an unknown
    architecture, and TypeError for a keyword it does not have.
    """

    EXAMPLE: ClassVar[str] = 'sw.SAEConfig(d_in=288, d_sae=2048, architecture="topk", k=32)'
    ELSEWHERE: ClassVar[Mapping[str, str]] = {
        "expansion_factor": "Give the width itself: d_sae=8 * d_in.",
        "num_latents": "It is d_sae.",
        "normalize_activations": "It is normalize.",
        "apply_b_dec_to_input": "All architectures take b_dec off their input.",
        "activation_fn": "The rule of the code is the architecture: architecture='topk', k=32.",
        "l1_coefficient": "It is sparsity_coefficient.",
        "l0_coefficient": "It is sparsity_coefficient, of architecture='jumprelu'.",
        "lr": "It is the training's: TrainConfig(lr=...).",
        "learning_rate": "It is the training's: TrainConfig(lr=...).",
        "hook_name": "It is the stream's: ActivationStream(model, texts, hook_name='blocks.2.hook_resid_post').",
        "layer": "It is in the stream's hook: ActivationStream(model, texts, hook_name='blocks.2.hook_resid_post').",
        "device": "It is the SAE's: SAE(cfg, device='cuda').",
    }

    d_in: int
    """Size of the vectors that the SAE reads and reconstructs."""

    d_sae: int
    """Number of features."""

    architecture: str = "topk"
    """Name of a registered architecture, see `saewidgets.sae.architectures`."""

    k: int = 32
    """Features active for each vector: exactly (topk, abstopk, transcoder, skip_transcoder), at most
    (matching_pursuit), or on average over a batch (batchtopk, matryoshka)."""

    aux_k: int | None = None
    """Dead features that AuxK uses for each vector (topk, batchtopk, matryoshka, abstopk, transcoder,
    skip_transcoder); None is d_in / 2 (Gao et al. 2024), at most d_sae."""

    aux_coefficient: float = 1 / 32
    """Weight of the AuxK loss beside the reconstruction loss (Gao et al. 2024: 1/32); 0 turns AuxK off. Of those that
    read `aux_k`."""

    multi_k: int | None = None
    """Features of a second reconstruction that is trained too, above k, usually 4 k (topk); None: no second one."""

    sparsity_coefficient: float | None = None
    """Weight of the sparsity penalty beside the squared error per component (relu, relu_kl, jumprelu, gated,
    p_anneal); None is the architecture's own. 0 penalises nothing."""

    target_rate: float = 0.02
    """Share of the vectors that each feature is to be active in (relu_kl)."""

    penalty: str = "step"
    """What is counted as active (jumprelu): "step", or "tanh" of the activation."""

    bandwidth: float = 0.5
    """Width, in units of the preactivation, of the window about the threshold that its gradient comes from
    (jumprelu); of the logistic slope about 0 (relu_kl)."""

    p_final: float = 0.2
    """The power that the penalty on the activations ends with, having begun with 1 (p_anneal)."""

    matryoshka_widths: tuple[int, ...] | None = None
    """How many of the first features each nested dictionary has, in ascending order, the last one d_sae (matryoshka);
    None is d_sae / 16, / 8, / 4, / 2 and d_sae."""

    activation: str = "relu"
    """What the encoder applies (dense): "relu", "linear" or "sigmoid"."""

    d_out: int | None = None
    """Size of the vectors that are predicted (transcoder, skip_transcoder); None is d_in."""

    normalize: str = "expected_norm"
    """How the input is brought to size. By one factor: "none", or "expected_norm", which makes the mean length
    sqrt(d_in) and is folded into the weights when the SAE is saved. Each vector by itself: "unit_norm" to length 1,
    "constant_norm" to length sqrt(d_in), "layer_norm" to mean 0 and standard deviation 1."""

    init_b_dec: str = "mean"
    """What b_dec begins with: the "mean" of the first vectors, their "geometric_median", or "zeros"."""

    dtype: str = "float32"
    """Type that the weights are kept and computed in: float32 or float64."""

    seed: int = 0
    """Seed of the initial weights; the global generator of torch is never touched."""

    def __post_init__(self) -> None:
        check_count("SAEConfig", "d_in", self.d_in)
        check_count("SAEConfig", "d_sae", self.d_sae)
        architecture = get_architecture(self.architecture)
        self._refuse_unread(architecture)
        self._fill_in(architecture)
        for name in ("aux_k", "multi_k", "d_out"):
            if getattr(self, name) is not None:
                check_count("SAEConfig", name, getattr(self, name))
        for name in ("aux_coefficient", "sparsity_coefficient"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"SAEConfig: {name} must be 0 or more, got {value!r}.")
        for name in ("target_rate", "p_final"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"SAEConfig: {name} must be above 0 and at most 1, got {getattr(self, name)!r}.")
        if not 0 < self.bandwidth < math.inf:
            raise ValueError(f"SAEConfig: bandwidth must be above 0, got {self.bandwidth!r}.")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"SAEConfig: {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        architecture.validate(self)

    def _refuse_unread(self, architecture: Architecture) -> None:
        """An option that would be ignored is refused, unless it is the default."""
        if architecture.reads is None:
            return
        readable = SHARED | architecture.reads
        for option in dataclasses.fields(self):
            if option.name not in readable and getattr(self, option.name) != option.default:
                raise ValueError(
                    f"SAEConfig: the architecture {architecture.name!r} does not use {option.name} "
                    f"(got {getattr(self, option.name)!r}). Leave it out, or choose another architecture; "
                    f"this one uses {', '.join(sorted(architecture.reads)) or 'none of the special options'}."
                )

    def _fill_in(self, architecture: Architecture) -> None:
        """Values that depend on others, where None was given."""

        def reads(name: str) -> bool:
            return architecture.reads is None or name in architecture.reads

        if self.aux_k is None and reads("aux_k"):
            object.__setattr__(self, "aux_k", min(max(self.d_in // 2, 1), self.d_sae))
        if self.sparsity_coefficient is None:
            object.__setattr__(self, "sparsity_coefficient", architecture.default_sparsity(self))
        if self.d_out is None and architecture.predicts_target:
            object.__setattr__(self, "d_out", self.d_in)
        if reads("matryoshka_widths"):
            widths = self.matryoshka_widths
            if widths is None and architecture.reads is not None:
                widths = tuple(sorted({max(1, self.d_sae // share) for share in (16, 8, 4, 2, 1)}))
            # a file gives a list
            object.__setattr__(self, "matryoshka_widths", widths if widths is None else tuple(widths))

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

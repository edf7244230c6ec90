"""How long and how to train an SAE."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from saewidgets.sae.options import check_count, strict
from saewidgets.training.schedule import LR_SCHEDULES, decay_default, lr_factor

OPTIMIZERS = ("adam", "muon", "signum")
PRECISIONS = ("float32", "bf16")


@strict
@dataclass(frozen=True)
class TrainConfig:
    """Options of a training run. Every length scales with the run, so that short runs have all phases too.

    Raises ValueError for values out of range, TypeError for a keyword it does not have.
    """

    EXAMPLE: ClassVar[str] = "sw.TrainConfig(n_tokens=1_000_000)"
    ELSEWHERE: ClassVar[Mapping[str, str]] = {
        "learning_rate": "It is lr.",
        "training_tokens": "It is n_tokens.",
        "epochs": "Give n_tokens: the vectors are gone through again until so many were trained on.",
        "n_epochs": "Give n_tokens: the vectors are gone through again until so many were trained on.",
        "batch_size": "It is the stream's: ActivationStream(..., batch_size=2048).",
        "train_batch_size_tokens": "It is the stream's: ActivationStream(..., batch_size=2048).",
        "lr_warm_up_steps": "It is warmup_fraction, a share of the run.",
        "lr_decay_steps": "It is decay_fraction, a share of the run.",
        "l1_warm_up_steps": "It is sparsity_warmup_fraction, a share of the run.",
        "n_checkpoints": "It is checkpoint_every, in vectors, with a checkpoint_dir.",
        "autocast": "It is precision='bf16'.",
        "seed": "It is the SAE's and the stream's: SAEConfig(seed=...), ActivationStream(..., seed=...).",
        "log_to_wandb": "It is a callback: train(..., on_metrics=...), see saewidgets.training.tracking.",
        "wandb_project": "It is a callback: train(..., on_metrics=...), see saewidgets.training.tracking.",
        "l1_coefficient": "It is the SAE's: SAEConfig(sparsity_coefficient=...).",
        "sparsity_coefficient": "It is the SAE's: SAEConfig(sparsity_coefficient=...), or run.set(sparsity=...).",
        "k": "It is the SAE's: SAEConfig(k=...), or run.set(k=...).",
        "device": "The SAE says where it trains: SAE(cfg, device='cuda').",
    }

    n_tokens: int
    """Activation vectors to train on; the stream is gone through again when it ends."""

    lr: float | None = None
    """Peak learning rate; None scales it with the optimizer, the dictionary and the run, see `peak_lr`."""

    optimizer: str = "adam"
    """"adam" (fused), "muon" (torch.optim.Muon for the matrices, Adam for the vectors) or "signum" (the sign of the
    momentum)."""

    lr_schedule: str = "linear"
    """How the learning rate falls at the end: "linear", "cosine" or "constant" (it does not)."""

    warmup_fraction: float = 0.05
    """Share of the run in which the learning rate rises from 0."""

    decay_fraction: float | None = None
    """Share of the run, at its end, in which the learning rate falls to 0. None is a quarter for "linear", and all
    that follows the rise for "cosine"."""

    sparsity_warmup_fraction: float = 0.05
    """Share of the run in which the weight of the sparsity penalty rises from 0 (architectures that have one)."""

    k_anneal_from: int | None = None
    """Active features at the start, from where k goes in a straight line to the SAE's own (architectures with k)."""

    k_anneal_fraction: float = 0.2
    """Share of the run in which k is annealed, if `k_anneal_from` is given."""

    clip_norm: float | None = None
    """Largest norm of all gradients together; a longer gradient is scaled down to it. None clips nothing."""

    precision: str = "float32"
    """"float32": everything in the SAE's own type. "bf16": products in bfloat16 where the device has it, weights and
    optimizer in the SAE's own type."""

    compile: bool = False
    """Compile the architecture's loss and its gradients with `torch.compile`, which takes up to a minute and a C++
    compiler. On a CPU it gains nothing (tests/benchmarks/compiled.py: 0.94 to 1.03 of the step), so it is off. It is
    for a GPU and the architectures whose code is dense there (dense, relu, relu_kl, jumprelu, gated, p_anneal). A
    resumed run is then not the same to the bit, for what is compiled depends on what came before."""

    dead_window: int | None = None
    """A feature silent for so many vectors counts as dead; None is 5% of n_tokens, at most 10 million."""

    aux_every: int = 4
    """AuxK works on every so many-th step, if features are dead."""

    n_logs: int = 100
    """Rows of `run.metrics`."""

    n_evaluations: int | None = None
    """How many of the rows also measure CE loss recovered on held-out text, the last one among them. Each runs the
    model some times, which takes seconds on a CPU; 0 leaves them out. None is one for each 125,000 vectors, from 2 to
    8."""

    n_snapshots: int = 8
    """How many of the rows keep the weights of that moment in half precision, for `run.sae_at`: in `checkpoint_dir`,
    or in memory, where they are fewer if they would take more than 512 MiB. 0 keeps none."""

    checkpoint_dir: str | os.PathLike[str] | None = None
    """Folder for checkpoints, from which `resume_training` goes on; one run's own. None writes none."""

    checkpoint_every: int | None = None
    """Vectors between two checkpoints; None is 5% of n_tokens. One is also written when the run ends or is stopped."""

    keep_last: int = 2
    """How many checkpoints stay; older ones are deleted once a newer one is whole, so the disk needs room for one
    more."""

    def __post_init__(self) -> None:
        check_count("TrainConfig", "n_tokens", self.n_tokens)
        self._choose("optimizer", OPTIMIZERS)
        self._choose("lr_schedule", LR_SCHEDULES)
        self._choose("precision", PRECISIONS)
        if not isinstance(self.compile, bool):
            raise TypeError(f"TrainConfig: compile must be True or False, got {self.compile!r}.")
        self._check_shares()
        if self.dead_window is None:
            object.__setattr__(self, "dead_window", max(1, min(10_000_000, self.n_tokens // 20)))
        for name in ("dead_window", "aux_every", "n_logs", "keep_last"):
            check_count("TrainConfig", name, getattr(self, name))
        if self.k_anneal_from is not None:
            check_count("TrainConfig", "k_anneal_from", self.k_anneal_from)
        for name in ("lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < self._number(name) < float("inf"):
                raise ValueError(f"TrainConfig: {name} must be above 0 and finite, got {value!r}.")
        if self.n_evaluations is None:
            object.__setattr__(self, "n_evaluations", max(2, min(8, self.n_tokens // 125_000)))
        for name in ("n_evaluations", "n_snapshots"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"TrainConfig: {name} must be 0 or a whole number, got {value!r}.")
        self._check_checkpoints()

    def _choose(self, name: str, known: tuple[str, ...]) -> None:
        if getattr(self, name) not in known:
            raise ValueError(f"TrainConfig: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")

    def _number(self, name: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"TrainConfig: {name} must be a number, got {value!r}.")
        return value

    def _check_shares(self) -> None:
        if self.lr_schedule == "constant" and self.decay_fraction:
            raise ValueError(
                f"TrainConfig: lr_schedule='constant' does not fall, but decay_fraction is {self.decay_fraction!r}. "
                "Leave it out, or choose 'linear' or 'cosine'."
            )
        for name in ("warmup_fraction", "decay_fraction", "sparsity_warmup_fraction", "k_anneal_fraction"):
            value = getattr(self, name)
            if name == "decay_fraction" and value is None:
                object.__setattr__(self, name, decay_default(self.lr_schedule, self.warmup_fraction))
            elif not 0 <= self._number(name) <= 1:
                raise ValueError(f"TrainConfig: {name} must be from 0 to 1, got {value!r}.")

    def _check_checkpoints(self) -> None:
        if self.checkpoint_dir is None:
            if self.checkpoint_every is not None:
                raise ValueError(
                    "TrainConfig: checkpoint_every is given, but no folder to write to. Add checkpoint_dir='my-run'."
                )
            return
        object.__setattr__(self, "checkpoint_dir", os.fspath(self.checkpoint_dir))
        if self.checkpoint_every is None:
            object.__setattr__(self, "checkpoint_every", max(1, self.n_tokens // 20))
        check_count("TrainConfig", "checkpoint_every", self.checkpoint_every)

    def peak_lr(self, d_sae: int, n_steps: int) -> float:
        """The given rate; else for Adam 5e-3, less for large dictionaries and long runs.

        Above 2048 features it falls as 1 / sqrt(d_sae) (Gao et al. 2024), above 500 steps as 1 / sqrt(n_steps): what
        a short run cannot do without, kills features in a long one. Muon's updates are scaled to the size of Adam's
        and take the same rate; every update of Signum is as large as Adam's largest, so that it takes a quarter. Both
        measured: tests/benchmarks/run_options.py.
        """
        if self.lr is not None:
            return self.lr
        largest = 1.25e-3 if self.optimizer == "signum" else 5e-3
        return largest * min(1.0, 2048 / d_sae) ** 0.5 * min(1.0, 500 / n_steps) ** 0.5

    def lr_factor(self, progress: float) -> float:
        """Share of the peak rate at `progress` (0 to 1) of the run, see `schedule.lr_factor`."""
        decay = self.decay_fraction or 0.0
        return lr_factor(progress, self.lr_schedule, self.warmup_fraction, decay)

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

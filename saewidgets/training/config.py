"""How long and how to train an SAE."""

from __future__ import annotations

from dataclasses import dataclass

from saewidgets.sae.config import check_count, strict


@strict
@dataclass(frozen=True)
class TrainConfig:
    """Options of a training run. Every length scales with the run, so that short runs have all phases too.

    Raises ValueError for values out of range, TypeError for a keyword it does not have.
    """

    n_tokens: int
    """Activation vectors to train on; the stream is gone through again when it ends."""

    lr: float | None = None
    """Peak learning rate of Adam; None scales it with the dictionary and the run, see `peak_lr`."""

    warmup_fraction: float = 0.05
    """Share of the run in which the learning rate rises from 0."""

    decay_fraction: float = 0.25
    """Share of the run, at its end, in which the learning rate falls to 0."""

    dead_window: int | None = None
    """A feature silent for so many vectors counts as dead; None is 5% of n_tokens, at most 10 million."""

    aux_every: int = 4
    """AuxK works on every so many-th step, if features are dead."""

    n_logs: int = 100
    """Rows of `run.metrics`."""

    n_evaluations: int = 8
    """How many of the rows also measure CE loss recovered on held-out text, the last one among them."""

    def __post_init__(self) -> None:
        if self.dead_window is None:
            object.__setattr__(self, "dead_window", max(1, min(10_000_000, self.n_tokens // 20)))
        for name in ("n_tokens", "dead_window", "aux_every", "n_logs"):
            check_count("TrainConfig", name, getattr(self, name))
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"TrainConfig: lr must be above 0, got {self.lr!r}.")
        for name in ("warmup_fraction", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"TrainConfig: {name} must be from 0 to 1, got {getattr(self, name)!r}.")
        if isinstance(self.n_evaluations, bool) or not isinstance(self.n_evaluations, int) or self.n_evaluations < 0:
            raise ValueError(f"TrainConfig: n_evaluations must be 0 or a whole number, got {self.n_evaluations!r}.")

    def peak_lr(self, d_sae: int, n_steps: int) -> float:
        """The given rate; else 5e-3, less for large dictionaries and long runs.

        Above 2048 features it falls as 1 / sqrt(d_sae) (Gao et al. 2024), above 500 steps as 1 / sqrt(n_steps): what
        a short run cannot do without, kills features in a long one.
        """
        if self.lr is not None:
            return self.lr
        return 5e-3 * min(1.0, 2048 / d_sae) ** 0.5 * min(1.0, 500 / n_steps) ** 0.5

    def lr_factor(self, progress: float) -> float:
        """Share of the peak rate at `progress` (0 to 1) of the run: linear rise, level, linear fall to 0."""
        rise = progress / self.warmup_fraction if self.warmup_fraction else 1.0
        fall = (1 - progress) / self.decay_fraction if self.decay_fraction else 1.0
        return max(0.0, min(1.0, rise, fall))

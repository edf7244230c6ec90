"""A training run in its own thread: `TrainingRun` watches and steers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.sae import turn_of
from saewidgets.training.background import BackgroundRun, OnMetrics
from saewidgets.training.config import TrainConfig
from saewidgets.training.live import Value, events_table
from saewidgets.training.loop import Loop
from saewidgets.training.metrics import figure, table

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class TrainingRun(BackgroundRun):
    """A run made by `train`. Everything here may be called from any thread.

    `state` is "running", "paused", "finished", "stopped" or "failed". `error`: the exception that failed the
    run, or None.
    """

    def __init__(self, loop: Loop, on_metrics: Sequence[OnMetrics], threads: int) -> None:
        self._loop, self._sae = loop, loop.sae
        super().__init__(loop, on_metrics, threads)

    @property
    def title(self) -> str:
        cfg, hook = self.cfg, self._vectors.metadata.hook_name
        return (
            f"TrainingRun({cfg.architecture}, d_sae={cfg.d_sae}, hook_name={hook!r}, n_tokens={self.config.n_tokens:_})"
        )

    @property
    def config(self) -> TrainConfig:
        """How long and how it trains."""
        return self._loop.config

    @property
    def cfg(self) -> SAEConfig:
        """The config of the SAE in training."""
        return self._loop.cfg

    @property
    def acts(self) -> Any:
        """The activations that it trains on, as `train` was given them; a bare tensor as a stream."""
        return self._vectors.acts

    # ── watching ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def sae(self) -> SAE:
        """The trained SAE when the run is over; until then a frozen copy, taken between two steps.

        `metadata.extra["step"]` says after which step.
        """
        return self._sae if self._done.is_set() else self._sae.clone()

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each logged step; see `saewidgets.training.metrics.COLUMNS`."""
        return table(self._loop.rows)

    @property
    def events(self) -> pd.DataFrame:
        """What was changed while it ran: step, tokens, name, old, new; a row for each `set`, in order."""
        return events_table(self._loop.events)

    @property
    def knobs(self) -> dict[str, Value]:
        """What `set` can change, as it is set now; None: the architecture has none, or (lr) it is yet to be chosen."""
        return self._loop.settings.values()

    @property
    def measures_ce_loss(self) -> bool:
        """Whether CE loss recovered is measured: there is a model and text to do it with, and rows that are to."""
        return self._loop.score is not None and bool(self.config.n_evaluations)

    @property
    def snapshots(self) -> list[int]:
        """The steps that `sae_at` knows."""
        return self._loop.snapshots.steps

    def sae_at(self, step: int) -> SAE:
        """A frozen copy of the SAE as it was after `step` steps, from half-precision weights, on the CPU.

        It goes wherever an SAE goes, while the run is paused and while it goes on: all features of that step are in
        `sw.FeatureBrowser(sw.FeatureIndex.build(run.sae_at(step), model, texts, f"step-{step}"))`.

        ValueError for a step that is not one of `snapshots`.
        """
        return self._loop.snapshots.sae_at(step)

    @property
    def checkpoint_errors(self) -> list[str]:
        """Sentences on checkpoints and snapshots that could not be written or read; they never stop the training."""
        return self._loop.checkpoint_errors

    @property
    def can_go_on(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self._loop.saved

    def plot(self) -> go.Figure:
        """The curves of `metrics` as a plotly figure, with a line at each of `events`."""
        return figure(self.metrics, self.config, self._loop.events)

    # ── steering ──────────────────────────────────────────────────────────────────────────────────────────────

    def set(self, **changes: float | bool) -> None:
        """Change `lr`, `sparsity`, `k` or `revive`, from the next step on; running or paused.

        lr: the peak learning rate, which the schedule's factor goes on multiplying. sparsity: the coefficient of the
        penalty, likewise. k: active features; an annealing of k ends, and the SAE's config follows. revive: whether
        dead features are worked on. Each change is a row of `events`.

        Raises TypeError for an unknown name, ValueError for a value out of range or a setting that the architecture
        does not have, RuntimeError if the run is over. Then nothing is changed.
        """
        with turn_of(self._sae):
            self._check_going("run")
            self._loop.set(changes)
        self._subscribers.notify(self)

    def _what_stays(self) -> str:
        sentences = ["The SAE keeps what it has learned (run.sae)."] if self.step else []
        if self.can_go_on:
            sentences.append(self._loop.goes_on)
        return " ".join(sentences)

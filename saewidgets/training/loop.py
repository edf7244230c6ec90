"""The work of a run: steps, rows, snapshots, checkpoints. When a step is taken, others decide."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from saewidgets.sae import SAE, SAEConfig
from saewidgets.sae.sae import turn_of
from saewidgets.training import checkpoints
from saewidgets.training.config import TrainConfig
from saewidgets.training.data import Batch, Vectors
from saewidgets.training.gradients import check_precision
from saewidgets.training.live import Settings
from saewidgets.training.optimizers import check_optimizer
from saewidgets.training.saved import put_back, state_of, tensors_of
from saewidgets.training.snapshots import Snapshots
from saewidgets.training.step import MAX_SKIPPED, Step, Steps, prepare
from saewidgets.training.subscribers import Stopwatch

DEAD_LOOKUPS = 200
"""How often in a run the list of dead features that are to be revived is renewed."""

RESAMPLINGS = 40
"""How often in a run dead features are resampled, where the architecture does that, up to LAST_RESAMPLING."""

LAST_RESAMPLING = 0.8
"""Share of the run after which no feature is resampled: the new ones need time to learn."""

Score = Callable[[SAE], float]


class Loop:
    """All that a run has done so far, and the next step of it. A checkpoint holds exactly what is here.

    Used by one thread; others may read. `step`, `tokens`: taken so far. `rows`, `events`: the record. `planned`: steps
    of the run as it was known when it began. `position`: of the stream, after the last batch that was taken. `logged`,
    `marked`: tokens, and seconds spent on steps, at the last row. `saved_at`: tokens at the last checkpoint, or the
    last attempt at one; `saved`: whether there is one to go on from.
    """

    def __init__(self, sae: SAE, vectors: Vectors, config: TrainConfig, score: Score | None) -> None:
        # said now and not from the thread, after the first activations were read
        check_optimizer(config.optimizer)
        check_precision(config.precision, sae)
        self.sae, self.vectors, self.config, self.score = sae, vectors, config, score
        vectors.takes = config.n_tokens
        self.step = self.tokens = 0
        self.rows: list[dict[str, float]] = []
        self.events: list[dict[str, Any]] = []
        self.settings = Settings(sae, config)
        self.snapshots = Snapshots(sae, config.n_snapshots, config.n_logs, config.checkpoint_dir)
        self.clock = Stopwatch()
        self.checkpoint_errors: list[str] = []
        self.steps: Steps | None = None
        self.planned, self.position = 0, vectors.position
        self.logged, self.marked = 0, 0.0
        self.saved_at, self.saved = 0, False

    @property
    def saes(self) -> list[SAE]:
        """The SAE, as all that a step changes."""
        return [self.sae]

    @property
    def failure(self) -> None:
        """One SAE has no part that could fail while the rest goes on."""
        return None

    @property
    def cfg(self) -> SAEConfig:
        """The config of the SAE in training."""
        return self.sae.cfg

    @property
    def goes_on(self) -> str:
        """How the run is taken up from its last checkpoint, in a sentence."""
        return f"sw.resume_training({self.config.checkpoint_dir!r}, acts) goes on from the last checkpoint."

    @property
    def n_tokens(self) -> int:
        """Vectors of the whole run."""
        return self.config.n_tokens

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return self.step + math.ceil((self.config.n_tokens - self.tokens) / self.vectors.batch_size)

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, may_go_on: Callable[[], bool]) -> bool:
        """Get ready from the first vectors of the stream, if that was not done; False if `may_go_on` said no."""
        if self.steps is not None:
            return True
        sample = self.vectors.sample(self.config.n_tokens, may_go_on)
        if sample is not None:
            self.begin_from(sample)
        return sample is not None

    def begin_from(self, sample: Batch) -> None:
        """Get ready from these vectors."""
        x, target = sample
        with turn_of(self.sae):
            centre = prepare(self.sae, x, None if target is x else target)
        self.planned = self.n_steps
        self.get_ready(centre)

    def get_ready(self, centre: Tensor) -> Steps:
        """Make the steps, once the SAE's first weights are there."""
        peak = self.config.peak_lr(self.sae.cfg.d_sae, self.planned)
        if self.settings.lr is None:
            self.settings.lr = peak
        for event in self.events:
            if event["name"] == "lr" and event["old"] is None:  # changed before the length of the run was known
                event["old"] = peak
        self.steps = Steps(self.sae, self.config, self.planned, centre)
        return self.steps

    def begun(self) -> Steps:
        """The steps. RuntimeError before there are any."""
        if self.steps is None:
            raise RuntimeError("The run has not begun: there are no steps to speak of.")
        return self.steps

    def take(self, batch: Batch) -> None:
        """One step, on a batch of the stream."""
        steps, step = self.begun(), self.plan(batch)
        micro = steps.gradients.micro_batch
        steps.take(*step)
        self.took(step)
        if steps.gradients.micro_batch != micro:
            self.note("micro_batch", micro or len(step.x), steps.gradients.micro_batch)

    def plan(self, batch: Batch) -> Step:
        """The step that comes next, on a batch of the stream."""
        steps, config, settings = self.begun(), self.config, self.settings
        x, target = batch
        if len(x) > config.n_tokens - self.tokens:
            x = x[: config.n_tokens - self.tokens]
            target = x if batch[1] is batch[0] else target[: len(x)]
        if self.step % max(1, self.n_steps // DEAD_LOOKUPS) == 0:
            steps.find_dead()
        progress = self.tokens / config.n_tokens
        revive = settings.revive is not False and self.step % config.aux_every == 0
        return Step(x, target, settings.knobs_at(progress), settings.lr_at(progress), revive)

    def took(self, step: Step) -> None:
        """The step was taken: resample where it is time for that, and count it."""
        due = self.step % max(1, self.n_steps // RESAMPLINGS) == 0 and step.knobs.progress < LAST_RESAMPLING
        if due and self.settings.revive is not False:
            self.begun().resample()
        self.step, self.tokens = self.step + 1, self.tokens + len(step.x)
        self.position = self.vectors.position
        self.sae.metadata = self.vectors.metadata_after(self.step, self.tokens)

    def set(self, changes: Mapping[str, Any], call: int | None = None) -> None:
        """Make changes between two steps, and write them down. Raises, as a sentence, if one cannot be made.

        `call`: the number of the call that makes them, where one call changes several loops.
        """
        self.settings.check(changes)
        for name, old, new in self.settings.apply(changes):
            self.note(name, old, new, call)

    def note(self, name: str, old: Any, new: Any, call: int | None = None) -> None:
        """Write an event down."""
        event = {"step": self.step, "tokens": self.tokens, "name": name, "old": old, "new": new, "call": call}
        self.events.append(event)

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────

    def log_if_due(self) -> list[dict[str, float]]:
        """A new row of the metrics, if it is time for one, else none."""
        n_logs, n_tokens = self.config.n_logs, self.config.n_tokens
        before, now = n_logs * self.logged // n_tokens, n_logs * self.tokens // n_tokens
        if now == before:
            return []
        row = self._log(before, now)
        if any(before < number <= now for number in self.snapshots.rows):
            self._snapshot()
        return [row]

    def log_rest(self) -> list[dict[str, float]]:
        """A row of what was done since the last one, when a run is stopped."""
        n_logs = self.config.n_logs
        return [self._log(n_logs - 1, n_logs)] if self.tokens > self.logged else []

    def _log(self, before: int, now: int) -> dict[str, float]:
        """Read the sums of the last steps from the device and write them as a row, number `now`."""
        steps, config, n_vectors = self.begun(), self.config, self.vectors.n_vectors
        readings, seconds = steps.read(), self.clock.seconds
        worked = seconds - self.clock.aside
        progress = self.tokens / config.n_tokens
        knobs, settings = self.settings.knobs_at(progress), self.settings
        n = config.n_evaluations or 0
        due = any(before < round(config.n_logs * (i + 1) / n) <= now for i in range(n))
        recovered = math.nan
        if self.score is not None and due:
            with self.clock.beside():
                recovered = self.score(self.sae.clone())
        row: dict[str, float] = {
            "step": self.step,
            "tokens": self.tokens,
            "epoch": self.tokens / n_vectors if n_vectors else math.nan,
            "loss": readings.loss,
            "explained_variance": readings.explained_variance,
            "l0": readings.l0,
            "dead_fraction": readings.dead_fraction,
            "dead_window": config.dead_window or 0,
            "deaths": readings.deaths,
            "births": readings.births,
            "lr": settings.lr_at(progress),
            "sparsity": knobs.sparsity if settings.sparsity is not None else math.nan,
            "k": float(knobs.k) if settings.k is not None else math.nan,
            "vectors_per_second": (self.tokens - self.logged) / max(worked - self.marked, 1e-9),
            "seconds": seconds,
            "ce_loss_recovered": recovered,
            "skipped_steps": readings.skipped,
            **readings.extra,
        }
        self.rows.append(row)
        self.logged, self.marked = self.tokens, worked
        if readings.skipped_in_a_row >= MAX_SKIPPED:
            raise ArithmeticError(
                f"{readings.skipped_in_a_row} steps in a row gave NaN or infinities. The SAE keeps the weights "
                "from before them. Look at the activations (torch.isfinite), or choose a smaller learning rate."
            )
        return row

    # ── what stays ────────────────────────────────────────────────────────────────────────────────────────────

    def _snapshot(self) -> None:
        cfg, knobs = self.sae.cfg, self.settings.knobs_at(self.tokens / self.config.n_tokens)
        if self.settings.k is not None and knobs.k != cfg.k:
            cfg = dataclasses.replace(cfg, k=knobs.k)  # while k is annealed: what it is trained with now
        try:
            self.snapshots.keep(self.sae, cfg, self.step)
        except Exception as error:
            self._excuse("snapshot", error)

    @property
    def save_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        every = self.config.checkpoint_every
        return every is not None and self.tokens // every > self.saved_at // every

    def save_if_due(self) -> None:
        """Write a checkpoint, if it is time for one."""
        if self.save_due:
            self.save()

    def fold(self) -> None:
        """Leave the SAE in the units of the data: the end of a run."""
        self.sae.fold_()

    def release(self) -> None:
        """Give back the memory that only the scores need: a run that is over is kept for its record."""
        release = getattr(self.score, "release", None)  # cleared, for the frames of an error may hold it too
        if release is not None:
            release()

    def save(self) -> None:
        """Write a checkpoint, if the run has a folder and began, and delete the oldest."""
        self.write()
        self.prune()

    def rescue(self) -> None:
        """Write a checkpoint when the stream has failed."""
        self.save()

    def write(self, **more: Any) -> bool:
        """Add a checkpoint of now to those in the folder, and `more` to its state.

        False if it cannot be written: why, is kept in `checkpoint_errors`, and the run is none the worse.
        """
        folder = self.config.checkpoint_dir
        if folder is None or self.steps is None or self.saved_at == self.tokens:
            return True
        self.saved_at = self.tokens
        try:
            checkpoints.write(folder, self.step, {**state_of(self), **more}, tensors_of(self))
        except Exception as error:  # whatever it is, it is not worth the run
            self._excuse("checkpoint", error)
            return False
        self.saved = True
        return True

    def prune(self) -> None:
        """Delete all but the newest checkpoints."""
        if self.config.checkpoint_dir is not None:
            checkpoints.prune(self.config.checkpoint_dir, self.config.keep_last)

    def _excuse(self, what: str, error: Exception) -> None:
        self.checkpoint_errors.append(
            f"The {what} of step {self.step} could not be written: {str(error) or type(error).__name__}. "
            "The run goes on without it."
        )

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go back to where a checkpoint was written."""
        put_back(self, state, tensors)

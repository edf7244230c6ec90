"""A training run in its own thread: `train` starts it, `TrainingRun` watches and steers it."""

from __future__ import annotations

import atexit
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from saewidgets.sae import SAE, SAEConfig, SAEMetadata
from saewidgets.sae.architectures import Knobs
from saewidgets.sae.sae import turn_of
from saewidgets.training.config import TrainConfig
from saewidgets.training.data import Vectors, held_out_score
from saewidgets.training.metrics import Progress, figure, table
from saewidgets.training.step import MAX_SKIPPED, Steps, prepare, warm_up
from saewidgets.training.subscribers import Stopwatch, Subscribers

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

DEAD_LOOKUPS = 200
"""How often in a run the list of dead features that AuxK works on is renewed."""

RESAMPLINGS = 40
"""How often in a run dead features are resampled, where the architecture does that, up to LAST_RESAMPLING."""

LAST_RESAMPLING = 0.8
"""Share of the run after which no feature is resampled: the new ones need time to learn."""

_live: weakref.WeakSet[TrainingRun] = weakref.WeakSet()
_live_lock = threading.Lock()


def train(
    sae: SAE,
    acts: Any,
    config: TrainConfig,
    held_out: Sequence[str] | None = None,
    on_metrics: Callable[[dict[str, float]], None] | None = None,
) -> TrainingRun:
    """Start to train `sae` on activation vectors, in place, in a thread of its own; returns at once.

    `acts`: an `ActivationStream`, or anything that iterates over tensors [batch, d_in] (an epoch each time it is
    iterated) and has a `d_in`; `batches(epoch, start)`, `batch_size`, `n_vectors`, `metadata` and
    `ce_loss_recovered(sae)` are used where it has them. `held_out`: texts that CE loss recovered is measured on,
    instead of the stream's own held-out share. `on_metrics` is called from the training thread with each new
    row of the metrics.

    The first batches give the scale and the mean of the input (`input_scale`, b_dec); the scale is folded into
    the weights when the run ends. Same seeds, same stream, same number of threads: the same SAE, bit for bit.

    Raises ValueError if the vectors do not fit the SAE, RuntimeError if the SAE is being trained already. What
    goes wrong in the thread is kept in `.error` and raised by `.wait()`.
    """
    if not isinstance(sae, SAE):
        raise TypeError(f"train needs an SAE first, got {type(sae).__name__}.")
    if not isinstance(config, TrainConfig):
        raise TypeError(f"train needs a TrainConfig, got {type(config).__name__}: TrainConfig(n_tokens=1_000_000).")
    vectors = Vectors(acts, sae)
    score = held_out_score(acts, held_out)
    run = TrainingRun(sae, vectors, config, score, on_metrics)
    with _live_lock:
        if any(other._sae is sae for other in _live):
            raise RuntimeError(
                "This SAE is being trained by another run. Stop that run first (run.stop()), wait for it "
                "(run.wait()), or train a copy."
            )
        _live.add(run)
    run._thread.start()
    return run


class TrainingRun:
    """A run made by `train`. Everything here may be called from any thread.

    `state` is "running", "paused", "finished", "stopped" or "failed". `error`: the exception that failed the
    run, or None.
    """

    def __init__(
        self,
        sae: SAE,
        vectors: Vectors,
        config: TrainConfig,
        score: Callable[[SAE], float] | None,
        on_metrics: Callable[[dict[str, float]], None] | None,
    ) -> None:
        self.config = config
        self.error: BaseException | None = None
        self.step = 0
        self.tokens = 0
        self._sae, self._vectors, self._score, self._on_metrics = sae, vectors, score, on_metrics
        self._rows: list[dict[str, float]] = []
        self._subscribers, self._clock = Subscribers(), Stopwatch()
        self._state, self._announced = "running", ""
        self._change = threading.Condition()
        self._stopping = False
        self._done = threading.Event()
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._main, name=repr(self), daemon=True)

    def __repr__(self) -> str:
        cfg, hook = self._sae.cfg, self._vectors.metadata.hook_name
        return (
            f"TrainingRun({cfg.architecture}, d_sae={cfg.d_sae}, hook_name={hook!r}, n_tokens={self.config.n_tokens:_})"
        )

    @property
    def cfg(self) -> SAEConfig:
        """The config of the SAE in training."""
        return self._sae.cfg

    @property
    def metadata(self) -> SAEMetadata:
        """Where the activations come from."""
        return self._vectors.metadata

    # ── watching ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> str:
        return self._state

    @property
    def sae(self) -> SAE:
        """The trained SAE when the run is over; until then a frozen copy, taken between two steps.

        `metadata.extra["step"]` says after which step.
        """
        return self._sae if self._done.is_set() else self._sae.clone()

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return self.step + math.ceil((self.config.n_tokens - self.tokens) / self._vectors.batch_size)

    @property
    def seconds(self) -> float:
        """Time spent training, without the pauses."""
        return self._clock.seconds

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each logged step; see `saewidgets.training.metrics.COLUMNS`."""
        return table(self._rows)

    @property
    def progress(self) -> Progress:
        """How far the run is, at this moment."""
        n_tokens, n_vectors = self.config.n_tokens, self._vectors.n_vectors
        seconds, tokens = self.seconds, self.tokens
        rate = tokens / seconds if tokens and seconds else None
        return Progress(
            state=self._state,
            step=self.step,
            n_steps=self.n_steps,
            tokens=tokens,
            n_tokens=n_tokens,
            epoch=tokens / n_vectors if n_vectors else None,
            n_epochs=n_tokens / n_vectors if n_vectors else None,
            vectors_per_second=rate,
            seconds_left=(n_tokens - tokens) / rate if rate else None,
            error=str(self.error) if self.error else None,
        )

    def plot(self) -> go.Figure:
        """The curves of `metrics` as a plotly figure."""
        return figure(self.metrics, self.config)

    def subscribe(self, callback: Callable[[TrainingRun], None]) -> Callable[[], None]:
        """Call `callback(run)` at each change of state and, while it trains, up to five times a second.

        From the training thread: it should be quick. Returns a function that ends the subscription.
        """
        return self._subscribers.add(callback)

    @property
    def callback_errors(self) -> list[Exception]:
        """Exceptions of `on_metrics` and of subscribers; they never stop the training."""
        return self._subscribers.errors

    # ── steering ──────────────────────────────────────────────────────────────────────────────────────────────

    def pause(self) -> None:
        """Hold the run: when this returns, the step in progress is over and no other begins."""
        with self._change:
            if self._state == "running":
                self._state = "paused"
                self._change.notify_all()
        if threading.current_thread() is not self._thread:
            with turn_of(self._sae):
                pass

    def resume(self) -> None:
        """Go on after a pause."""
        with self._change:
            if self._state == "paused":
                self._state = "running"
                self._change.notify_all()

    def stop(self) -> None:
        """End the run after the step in progress; the SAE stays as trained so far.

        Waits up to five seconds for the thread: a stream may be in the middle of a block.
        """
        with self._change:
            self._stopping = True
            self._change.notify_all()
        if threading.current_thread() is not self._thread:
            self._done.wait(5.0)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the run is over, or `timeout` seconds; a paused run is waited for until someone resumes it.

        Raises RuntimeError, with the original as its cause, if the run failed. A kernel interrupt
        (KeyboardInterrupt) while waiting pauses the run and says so.
        """
        try:
            over = self._done.wait(timeout)
        except KeyboardInterrupt:
            if self._done.is_set():
                raise
            self.pause()
            raise KeyboardInterrupt(
                f"The run is paused at step {self.step} of {self.n_steps}. "
                "run.resume() goes on, run.stop() ends it and keeps the SAE."
            ) from None
        if over and self.error is not None:
            raise RuntimeError(f"The run failed at step {self.step}: {self.error}") from self.error

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self) -> None:
        outcome = "failed"
        try:
            torch.set_num_threads(self._threads)  # a new thread starts with the default of the machine
            self._train()
            outcome = "stopped" if self.tokens < self.config.n_tokens else "finished"
        except BaseException as error:
            self.error = error
        finally:
            self._clock.stop()
            with turn_of(self._sae):
                self._sae.fold_()
            with _live_lock:
                _live.discard(self)
            with self._change:
                self._state = outcome
            self._notify()
            self._done.set()

    def _train(self) -> None:
        sae, config, vectors = self._sae, self.config, self._vectors
        warm_up(sae.device)
        self._clock.start()
        if not self._may_go_on():
            return
        sample = vectors.sample(config.n_tokens, self._may_go_on)
        if sample is None:
            return
        with turn_of(sae):
            centre = prepare(sae, sample)
        del sample
        steps = Steps(sae, config, self.n_steps, centre)
        peak_lr = config.peak_lr(sae.cfg.d_sae, self.n_steps)
        logged, marked = 0, self.seconds  # tokens and seconds at the last row
        while self.tokens < config.n_tokens and self._may_go_on():
            x = vectors.next()[: config.n_tokens - self.tokens]
            taken = False
            while not taken and self._may_go_on():
                with turn_of(sae):
                    if self._state == "paused":  # since _may_go_on: pause() may have returned already
                        continue
                    if self.step % max(1, self.n_steps // DEAD_LOOKUPS) == 0:
                        steps.find_dead()
                    progress = self.tokens / config.n_tokens
                    knobs = Knobs(sae.cfg.sparsity_coefficient or 0.0, sae.cfg.k, progress)
                    lr = peak_lr * config.lr_factor(progress)
                    steps.take(x, x, knobs, lr, revive=self.step % config.aux_every == 0)
                    if progress < LAST_RESAMPLING and self.step % max(1, self.n_steps // RESAMPLINGS) == 0:
                        steps.resample()
                    self.step, self.tokens = self.step + 1, self.tokens + x.shape[0]
                    sae.metadata = vectors.metadata_after(self.step, self.tokens)
                    taken = True
            rows = config.n_logs * self.tokens // config.n_tokens
            if rows > config.n_logs * logged // config.n_tokens:
                now = self.seconds
                self._log(steps, rows, (self.tokens - logged) / max(now - marked, 1e-9))
                logged, marked = self.tokens, now
            if self._subscribers.due:
                self._notify()
        if self.tokens > logged:
            self._log(steps, config.n_logs, (self.tokens - logged) / max(self.seconds - marked, 1e-9))

    def _log(self, steps: Steps, row: int, rate: float) -> None:
        """Read the sums of the last steps from the device and write them as a row."""
        readings, config, n_vectors = steps.read(), self.config, self._vectors.n_vectors
        evaluated = [round(config.n_logs * (i + 1) / config.n_evaluations) for i in range(config.n_evaluations)]
        due = row in evaluated or (self.tokens >= config.n_tokens and bool(evaluated))
        recovered = self._score(self._sae.clone()) if self._score is not None and due else math.nan
        values: dict[str, float] = {
            "step": self.step,
            "tokens": self.tokens,
            "epoch": self.tokens / n_vectors if n_vectors else math.nan,
            "loss": readings.loss,
            "explained_variance": readings.explained_variance,
            "l0": readings.l0,
            "dead_fraction": readings.dead_fraction,
            "dead_window": config.dead_window or 0,
            "vectors_per_second": rate,
            "seconds": self.seconds,
            "ce_loss_recovered": recovered,
            "skipped_steps": readings.skipped,
        }
        self._rows.append(values)
        if self._on_metrics is not None:
            self._subscribers.call(self._on_metrics, dict(values))
        if readings.skipped_in_a_row >= MAX_SKIPPED:
            raise ArithmeticError(
                f"{readings.skipped_in_a_row} steps in a row gave NaN or infinities. The SAE keeps the weights "
                "from before them. Look at the activations (torch.isfinite), or choose a smaller learning rate."
            )

    def _may_go_on(self) -> bool:
        """Wait while paused; False once the run is to end."""
        while True:
            if self._announced != self._state:
                self._notify()
            with self._change:
                if self._stopping:
                    return False
                if self._state == "running":
                    self._clock.start()
                    return True
                self._clock.stop()
                if self._announced == self._state:
                    self._change.wait()

    def _notify(self) -> None:
        self._announced = self._state
        self._subscribers.notify(self)


@atexit.register
def _end_all() -> None:
    """A thread inside torch when the interpreter goes away would take the process down with an abort."""
    with _live_lock:
        runs = list(_live)
    for run in runs:
        run.stop()

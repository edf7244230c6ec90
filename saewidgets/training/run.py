"""A training run in its own thread: `TrainingRun` watches and steers it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from saewidgets.sae import SAE, SAEConfig, SAEMetadata
from saewidgets.sae.sae import turn_of
from saewidgets.training.config import TrainConfig
from saewidgets.training.going import claim, release
from saewidgets.training.live import Value, events_table
from saewidgets.training.loop import Loop
from saewidgets.training.metrics import Progress, figure, table
from saewidgets.training.step import warm_up
from saewidgets.training.subscribers import Subscribers

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

OnMetrics = Callable[[dict[str, float]], None]
"""Called from the training thread with each new row of the metrics."""


class TrainingRun:
    """A run made by `train`. Everything here may be called from any thread.

    `state` is "running", "paused", "finished", "stopped" or "failed". `error`: the exception that failed the
    run, or None.
    """

    def __init__(self, loop: Loop, on_metrics: Sequence[OnMetrics], threads: int) -> None:
        self.error: BaseException | None = None
        self._loop, self._on_metrics, self._threads = loop, list(on_metrics), threads
        self._sae, self._vectors = loop.sae, loop.vectors
        self._subscribers = Subscribers()
        self._state, self._announced = "running", ""
        self._change = threading.Condition()
        self._stopping = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._main, name=repr(self), daemon=True)

    def start(self) -> None:
        """Begin, once. RuntimeError if the SAE is in another run's hands."""
        claim(self)
        self._thread.start()

    def __repr__(self) -> str:
        cfg, hook = self._sae.cfg, self._vectors.metadata.hook_name
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
    def step(self) -> int:
        """Steps taken."""
        return self._loop.step

    @property
    def tokens(self) -> int:
        """Activation vectors trained on."""
        return self._loop.tokens

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return self._loop.n_steps

    @property
    def seconds(self) -> float:
        """Time spent training, without the pauses."""
        return self._loop.clock.seconds

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
        """What `set` can change, as it is set now; None for what the architecture does not have."""
        return self._loop.settings.values()

    @property
    def snapshots(self) -> list[int]:
        """The steps that `sae_at` knows."""
        return self._loop.snapshots.steps

    def sae_at(self, step: int) -> SAE:
        """A frozen copy of the SAE as it was after `step` steps, from half-precision weights, on the CPU.

        ValueError for a step that is not one of `snapshots`.
        """
        return self._loop.snapshots.sae_at(step)

    @property
    def checkpoint_errors(self) -> list[str]:
        """Sentences on checkpoints and snapshots that could not be written or read; they never stop the training."""
        return self._loop.checkpoint_errors

    @property
    def progress(self) -> Progress:
        """How far the run is, at this moment."""
        return Progress.of(self._loop, self._state, self.error)

    def plot(self) -> go.Figure:
        """The curves of `metrics` as a plotly figure, with a line at each of `events`."""
        return figure(self.metrics, self.config, self._loop.events)

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

    def set(self, **changes: float | bool) -> None:
        """Change `lr`, `sparsity`, `k` or `revive`, from the next step on; running or paused.

        lr: the peak learning rate, which the schedule's factor goes on multiplying. sparsity: the coefficient of the
        penalty, likewise. k: active features; an annealing of k ends, and the SAE's config follows. revive: whether
        dead features are worked on. Each change is a row of `events`.

        Raises TypeError for an unknown name, ValueError for a value out of range or a setting that the architecture
        does not have, RuntimeError if the run is over. Then nothing is changed.
        """
        with turn_of(self._sae):
            if self._done.is_set():
                raise RuntimeError(f"The run is over ({self._state}): there is nothing left to change.")
            self._loop.set(changes)
        self._subscribers.notify(self)

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
            kept = " The SAE keeps what it has learned (run.sae)." if self.step else ""
            if self._loop.saved:
                kept += f" sw.resume_training({self.config.checkpoint_dir!r}, acts) goes on from the last checkpoint."
            said = str(self.error).rstrip(".") or type(self.error).__name__
            raise RuntimeError(f"The run failed at step {self.step}: {said}.{kept}") from self.error

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
            self._loop.clock.stop()
            with turn_of(self._sae):
                self._sae.fold_()
            release(self)
            with self._change:
                self._state = outcome
            self._notify()
            self._done.set()

    def _train(self) -> None:
        loop = self._loop
        warm_up(self._sae.device)
        loop.clock.start()
        if not self._may_go_on() or not loop.begin(self._may_go_on):
            return
        while loop.tokens < loop.config.n_tokens and self._may_go_on():
            try:
                batch = self._vectors.next()
            except Exception:
                loop.save()  # it is not the training that went wrong
                raise
            taken = False
            while not taken and self._may_go_on():
                with turn_of(self._sae):
                    if self._state == "paused":  # since _may_go_on: pause() may have returned already
                        continue
                    loop.take(batch)
                    taken = True
            if taken:
                self._tell(loop.log_if_due())
                loop.save_if_due()
            if self._subscribers.due:
                self._notify()
        loop.save()  # before the row of what was left, which a run that was not stopped would not have
        self._tell(loop.log_rest())

    def _tell(self, row: dict[str, float] | None) -> None:
        if row is not None:
            for callback in self._on_metrics:
                self._subscribers.call(callback, dict(row))

    def _may_go_on(self) -> bool:
        """Wait while paused; False once the run is to end."""
        while True:
            if self._announced != self._state:
                self._notify()
            with self._change:
                if self._stopping:
                    return False
                if self._state == "running":
                    self._loop.clock.start()
                    return True
                self._loop.clock.stop()
                if self._announced == self._state:
                    self._change.wait()

    def _notify(self) -> None:
        self._announced = self._state
        self._subscribers.notify(self)

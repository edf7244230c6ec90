"""Work in a thread of its own that can be watched, held and ended: what every run is."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol, Self

import torch

from saewidgets.activations import BrokenOff
from saewidgets.sae import SAE, SAEMetadata
from saewidgets.sae.sae import turn_of
from saewidgets.training.data import Batch, Vectors
from saewidgets.training.going import claim, release
from saewidgets.training.metrics import Progress
from saewidgets.training.step import warm_up
from saewidgets.training.subscribers import Stopwatch, Subscribers

Row = dict[str, float]

OnMetrics = Callable[[Row], None]
"""Called from the training thread with each new row of the metrics."""


class Work(Protocol):
    """What is done in the thread, a step at a time: a `Loop`, or several on the same vectors."""

    vectors: Vectors
    clock: Stopwatch

    @property
    def saes(self) -> Sequence[SAE]:
        """All SAEs that a step changes."""

    @property
    def failure(self) -> Exception | None:
        """What went wrong with a part of it without stopping the rest."""

    @property
    def step(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def n_tokens(self) -> int: ...
    @property
    def n_steps(self) -> int: ...
    def begin(self, may_go_on: Callable[[], bool]) -> bool:
        """Get ready; False if `may_go_on` said no."""

    def take(self, batch: Batch) -> None:
        """One step; the caller holds the turns of all `saes`."""

    def log_if_due(self) -> list[Row]: ...
    def log_rest(self) -> list[Row]: ...
    def save_if_due(self) -> None: ...
    def save(self) -> None: ...
    def rescue(self) -> None:
        """Save what there is when the stream has failed."""

    def fold(self) -> None:
        """Leave the SAEs as a run leaves them; the caller holds the turns of all."""

    def release(self) -> None:
        """Give back memory that only a run needs which goes on."""


class BackgroundRun(ABC):
    """A run in its own daemon thread. Everything here may be called from any thread.

    `state` is "running", "paused", "finished", "stopped" or "failed". `error`: the exception that failed the
    run, or None.
    """

    def __init__(self, work: Work, on_metrics: Sequence[OnMetrics], threads: int) -> None:
        self.error: BaseException | None = None
        self._work, self._on_metrics, self._threads = work, list(on_metrics), threads
        self._vectors = work.vectors
        self._subscribers = Subscribers()
        self._state, self._announced = "running", ""
        self._change = threading.Condition()
        self._stopping = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._main, name=self.title, daemon=True)

    @property
    @abstractmethod
    def title(self) -> str:
        """What runs, in a line that is the same however far it is: the text of an executed cell."""

    def __repr__(self) -> str:
        return f"{self.title.removesuffix(')')}, state={self.state!r}, step={self.step:_})"

    @abstractmethod
    def _what_stays(self) -> str:
        """Sentences on what is left of a run that failed, or nothing."""

    def start(self) -> None:
        """Begin, once. RuntimeError if an SAE is in another run's hands."""
        claim(self)
        for sae in self._work.saes:
            # a view of it that is made before the first step must know its hook
            sae.metadata = self._vectors.metadata_after(self.step, self.tokens)
        self._thread.start()

    # ── watching ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def state(self) -> str:
        return self._state

    @property
    def metadata(self) -> SAEMetadata:
        """Where the activations come from."""
        return self._vectors.metadata

    @property
    def step(self) -> int:
        """Steps taken."""
        return self._work.step

    @property
    def tokens(self) -> int:
        """Activation vectors trained on."""
        return self._work.tokens

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return self._work.n_steps

    @property
    def seconds(self) -> float:
        """Time spent training, without the pauses."""
        return self._work.clock.seconds

    @property
    def progress(self) -> Progress:
        """How far the run is, at this moment."""
        return Progress.of(self._work, self._state, self.error)

    def subscribe(self, callback: Callable[[Self], None]) -> Callable[[], None]:
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
            with turns_of(self._work.saes):
                pass

    def resume(self) -> None:
        """Go on after a pause."""
        with self._change:
            if self._state == "paused":
                self._state = "running"
                self._change.notify_all()

    def stop(self) -> None:
        """End the run after the step in progress; what is trained stays as it is by then.

        Waits up to five seconds for the thread: a stream may be in the middle of a forward.
        """
        with self._change:
            self._stopping = True
            self._change.notify_all()
        if threading.current_thread() is not self._thread:
            self._done.wait(5.0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run is over, or `timeout` seconds; a paused run is waited for until someone resumes it.

        Returns whether it is over: False only after a `timeout`.

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
                "run.resume() goes on, run.stop() ends it and keeps what it has learned."
            ) from None
        if over and self.error is not None:
            said = str(self.error).rstrip(".") or type(self.error).__name__
            sentences = f"The run failed at step {self.step}: {said}. {self._what_stays()}"
            raise RuntimeError(sentences.rstrip()) from self.error
        return over

    # ── the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self) -> None:
        outcome = "failed"
        try:
            torch.set_num_threads(self._threads)  # a new thread starts with the default of the machine
            try:
                self._train()
            finally:
                self._work.release()
            self.error = self._work.failure
            if self.error is None:
                outcome = "stopped" if self.tokens < self._work.n_tokens else "finished"
        except BaseException as error:
            self.error = error
        finally:
            self._work.clock.stop()
            with turns_of(self._work.saes):
                self._work.fold()
                release(self)
                with self._change:
                    self._state = outcome  # in the same turn: whoever takes the next one is told that it is over
            self._notify()
            self._done.set()

    def _train(self) -> None:
        work = self._work
        warm_up(work.saes[0].device)
        work.clock.start()
        with suppress(BrokenOff):
            if not self._may_go_on() or not work.begin(self._may_go_on):
                return
        while work.tokens < work.n_tokens and self._may_go_on():
            try:
                batch = self._vectors.next(self._may_go_on)
            except BrokenOff:
                break
            except Exception:
                work.rescue()  # it is not the training that went wrong
                raise
            taken = False
            while not taken and self._may_go_on():
                with turns_of(work.saes):
                    if self._state == "paused":  # since _may_go_on: pause() may have returned already
                        continue
                    work.take(batch)
                    taken = True
            if taken:
                self._tell(work.log_if_due())
                work.save_if_due()
            if self._subscribers.due:
                self._notify()
        work.save()  # before the row of what was left, which a run that was not stopped would not have
        self._tell(work.log_rest())

    def _check_going(self, what: str) -> None:
        """RuntimeError if it is over. The caller holds the turn in which it is changed."""
        if self._state not in ("running", "paused"):
            raise RuntimeError(f"The {what} is over ({self._state}): there is nothing left to change.")

    def _tell(self, rows: list[Row]) -> None:
        for row in rows:
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
                    self._work.clock.start()
                    return True
                self._work.clock.stop()
                if self._announced == self._state:
                    self._change.wait()

    def _notify(self) -> None:
        self._announced = self._state
        self._subscribers.notify(self)


@contextmanager
def turns_of(saes: Sequence[SAE]) -> Iterator[None]:
    """The turns of several SAEs at once. All who take more than one take them in this order."""
    with ExitStack() as stack:
        for sae in saes:
            stack.enter_context(turn_of(sae))
        yield

"""What the monitors share: a view model of anything that runs, and a widget that follows it until it is over."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import traitlets

from saewidgets.widgets._base import Answer, SAEWidget, finite, sentence

OVER = ("finished", "stopped", "failed")
"""States that a run does not leave."""


class RunView(ABC):
    """How far a run is, and its pause, go on and stop. Plain Python; `run` is a TrainingRun or a SweepRun."""

    requests: ClassVar[tuple[str, ...]] = ("rows", "pause", "resume", "stop")

    def __init__(self, run: Any) -> None:
        self.run = run

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What is trained, and on what: does not change while the run goes on."""

    def pause(self) -> Answer:
        """Pause the run; it acts within a step. Returns the state asked for."""
        self.run.pause()
        return {"state": self.run.state}, []

    def resume(self) -> Answer:
        """Let a paused run go on."""
        self.run.resume()
        return {"state": self.run.state}, []

    def stop(self) -> Answer:
        """End the run where it stands; what it has learned stays."""
        self.run.stop()
        return {"state": self.run.state}, []

    def progress(self) -> dict[str, Any]:
        """How far the run is: small enough to be sent five times a second."""
        now = self.run.progress
        return {
            "state": now.state,
            "step": now.step,
            "n_steps": now.n_steps,
            "tokens": now.tokens,
            "n_tokens": now.n_tokens,
            "epoch": finite(now.epoch),
            "n_epochs": finite(now.n_epochs),
            "vectors_per_second": finite(now.vectors_per_second),
            "seconds_left": finite(now.seconds_left),
            "error": None if self.run.error is None else sentence(self.run.error),
        }


class FollowingWidget(SAEWidget):
    """A widget whose `state`, `step` and `progress` follow a run and cannot be set."""

    followed: ClassVar[tuple[str, ...]] = ("state", "step", "progress", "_about")
    """The traits that only the run moves."""

    state = traitlets.Unicode(read_only=True, help="running, paused, finished, stopped or failed.").tag(sync=True)
    step = traitlets.Int(0, read_only=True, help="Training steps done.").tag(sync=True)
    progress = traitlets.Dict(read_only=True, help="How far the run is, and its number of rows.").tag(sync=True)
    _about = traitlets.Dict(read_only=True).tag(sync=True)

    _view: RunView
    _unsubscribe: Callable[[], None] | None = None

    def __init__(self, view: RunView, **options: Any) -> None:
        self._turn = threading.RLock()
        super().__init__(view, **options)
        self.set_trait("_about", view.about())
        self._unsubscribe = _follow(view.run, self)
        self.comm.on_close(_end_of(self))
        self._update()

    def _update(self) -> None:
        """Take over how far the run is. Called from the training thread, at most five times a second."""
        with self._turn:  # read and written in one go: what was read first may not be written last
            now = self._view.progress()
            self.set_trait("step", now["step"])
            self.set_trait("progress", now)
            self._take_over()
            self.set_trait("state", now["state"])
        if now["state"] in OVER:
            self._let_go()

    def _take_over(self) -> None:
        """Set what else follows the run; its state is set after it."""

    def _let_go(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """State set by the browser: what follows the run cannot be set there either, and goes back to what holds."""
        refused = [name for name in sync_data if name in self.followed]
        if refused:
            self.send({"kind": "refused", "message": f"{refused[0]} follows the run; use pause, go on and stop."})
            self.send_state(key=refused)
        super().set_state({name: value for name, value in sync_data.items() if name not in self.followed})

    def close(self) -> None:
        """Let go of the run, which goes on, and of the screen."""
        self._let_go()
        super().close()

    def snapshot(self) -> dict[str, Any]:
        self._update()
        taken = super().snapshot()
        taken["state"].update(self.get_state(list(self.followed)))
        return taken


def _follow(run: Any, monitor: FollowingWidget) -> Callable[[], None]:
    """Tell a monitor how far the run is, until the run is over or the monitor is closed.

    ipywidgets keeps every widget that has a comm for as long as the kernel lives, so a monitor that nobody looks at any
    more is told too while the run goes on; the run itself holds only a weak reference.
    """
    watched = weakref.ref(monitor)

    def hear(_run: object) -> None:
        shown = watched()
        if shown is None:
            unsubscribe()
        else:
            shown._update()

    unsubscribe: Callable[[], None] = run.subscribe(hear)
    return unsubscribe


def _end_of(monitor: FollowingWidget) -> Callable[[object], None]:
    """What happens when the browser closes the comm: nobody can see the monitor any more."""
    watched = weakref.ref(monitor)

    def ended(_message: object) -> None:
        shown = watched()
        if shown is not None:
            shown._let_go()

    return ended

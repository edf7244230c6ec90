"""TrainingMonitor: how a run is doing while it trains, with its pause, go on and stop."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from saewidgets.widgets._base import Params, SAEWidget, Text, feature_in_range
from saewidgets.widgets.training_monitor_view import TrainingMonitorView

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from saewidgets.training import TrainingRun

OVER = ("finished", "stopped", "failed")
"""States that a run does not leave."""

FOLLOWED = ("state", "step", "progress", "_about", "_snapshots")
"""The monitor's traits that only the run moves."""


class TrainingMonitor(SAEWidget):
    """A run's curves as they grow, its progress, and what steers it: pause, go on, stop, and the settings of `run.set`.

    Args:
        run: What `sw.train` returned. Shown late, the monitor begins with all that has happened; several may watch
            one run. Traits below follow the run and cannot be set: `run.pause()` and its sisters do that.
        model: The bridge that the activations come from: then a prompt is shown as a feature saw it at each snapshot.
        prompt: That prompt. Typing another one on the screen sets it here, and setting it here moves the screen.
        feature: That feature; None: the one that fires most strongly on the prompt at the last snapshot.
        snapshot_step: The snapshot that is looked back at, one of `run.snapshots`; None: not looking back.

    Raises:
        ValueError: the model has no such hook, or not of this size.
        traitlets.TraitError: a feature that the SAE does not have, a step at which there is no snapshot.
        TypeError: an unknown option, by name.
    """

    bundle_name: ClassVar[str] = "training_monitor"

    state = traitlets.Unicode(read_only=True, help="running, paused, finished, stopped or failed.").tag(sync=True)
    step = traitlets.Int(0, read_only=True, help="Training steps done.").tag(sync=True)
    progress = traitlets.Dict(read_only=True, help="How far the run is, and its number of rows.").tag(sync=True)
    prompt = Text("", help="The text read at each snapshot.").tag(sync=True)
    feature = traitlets.Int(None, allow_none=True, help="The feature that gives the colour.").tag(sync=True)
    snapshot_step = traitlets.Int(None, allow_none=True, help="The snapshot looked back at.").tag(sync=True)
    _about = traitlets.Dict(read_only=True).tag(sync=True)
    _snapshots = traitlets.List(traitlets.Int(), read_only=True).tag(sync=True)

    _view: TrainingMonitorView
    _unsubscribe: Callable[[], None] | None = None

    def __init__(
        self,
        run: TrainingRun,
        *,
        model: TransformerBridge | None = None,
        prompt: str = "Once upon a time",
        **options: Any,
    ) -> None:
        self._turn = threading.RLock()
        self._run = run
        super().__init__(TrainingMonitorView(run, model), prompt=prompt, **options)
        self.set_trait("_about", self._view.about())
        self._unsubscribe = _follow(run, self)
        self.comm.on_close(_end_of(self))
        self._update()

    @classmethod
    def options(cls) -> list[str]:
        return ["feature", "prompt", "snapshot_step", "layout"]

    @traitlets.validate("feature")
    def _feature_exists(self, proposal: dict[str, Any]) -> int | None:
        return feature_in_range(proposal["value"], self._run.cfg.d_sae)

    @traitlets.validate("snapshot_step")
    def _snapshot_exists(self, proposal: dict[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        steps = self._run.snapshots
        if value is not None and value not in steps:
            there = ", ".join(map(str, steps)) or "none yet"
            raise traitlets.TraitError(f"There is no snapshot of step {value}. There are snapshots of steps: {there}.")
        return value

    def _update(self) -> None:
        """Take over how far the run is. Called from the training thread, at most five times a second."""
        with self._turn:  # read and written in one go: what was read first may not be written last
            now = self._view.progress()
            self.set_trait("step", now["step"])
            self.set_trait("progress", now)
            self.set_trait("_snapshots", self._run.snapshots)
            self.set_trait("state", now["state"])
        if now["state"] in OVER:
            self._let_go()

    def _let_go(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """State set by the browser: what follows the run cannot be set there either, and goes back to what holds."""
        followed = [name for name in sync_data if name in FOLLOWED]
        if followed:
            self.send({"kind": "refused", "message": f"{followed[0]} follows the run; use pause, go on and stop."})
            self.send_state(key=followed)
        super().set_state({name: value for name, value in sync_data.items() if name not in FOLLOWED})

    def close(self) -> None:
        """Let go of the run, which goes on, and of the screen."""
        self._let_go()
        super().close()

    def recorded_requests(self) -> Iterable[tuple[str, Params]]:
        yield "rows", {"since": 0}
        yield "events", {"since": 0}
        if self._about["reads"] and self._snapshots:
            yield "history", {"prompt": self.prompt, "feature": self.feature, "steps": list(self._snapshots)}

    def snapshot(self) -> dict[str, Any]:
        self._update()
        taken = super().snapshot()
        taken["state"].update(self.get_state(list(FOLLOWED)))
        for answer in taken["answers"]:
            if answer["method"] == "history":  # the run may have gone on since
                taken["state"]["_snapshots"] = answer["params"]["steps"]
        return taken

    def shown(self) -> dict[str, Any]:
        return {name: self._about[name] for name in ("architecture", "d_sae", "hook_name")}


def _follow(run: TrainingRun, monitor: TrainingMonitor) -> Callable[[], None]:
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


def _end_of(monitor: TrainingMonitor) -> Callable[[object], None]:
    """What happens when the browser closes the comm: nobody can see the monitor any more."""
    watched = weakref.ref(monitor)

    def ended(_message: object) -> None:
        shown = watched()
        if shown is not None:
            shown._let_go()

    return ended

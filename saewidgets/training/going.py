"""The runs that are going: one for an SAE, and none when the interpreter goes away."""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saewidgets.training.run import TrainingRun

_going: weakref.WeakSet[TrainingRun] = weakref.WeakSet()
_lock = threading.Lock()


def claim(run: TrainingRun) -> None:
    """Count a run as going. RuntimeError if its SAE is in another run's hands."""
    with _lock:
        if any(other._sae is run._sae for other in _going):
            raise RuntimeError(
                "This SAE is being trained by another run. Stop that run first (run.stop()), wait for it "
                "(run.wait()), or train a copy."
            )
        _going.add(run)


def release(run: TrainingRun) -> None:
    """The run is over."""
    with _lock:
        _going.discard(run)


@atexit.register
def _end_all() -> None:
    """A thread inside torch when the interpreter goes away would take the process down with an abort."""
    with _lock:
        runs = list(_going)
    for run in runs:
        run.stop()

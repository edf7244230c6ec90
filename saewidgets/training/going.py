"""The runs that are going: one for an SAE, and none when the interpreter goes away."""

from __future__ import annotations

import atexit
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saewidgets.training.background import BackgroundRun

_going: weakref.WeakSet[BackgroundRun] = weakref.WeakSet()
_lock = threading.Lock()


def claim(run: BackgroundRun) -> None:
    """Count a run as going. RuntimeError if an SAE of it is in another run's hands."""
    with _lock:
        taken = {id(sae) for other in _going for sae in other._work.saes}
        if any(id(sae) in taken for sae in run._work.saes):
            raise RuntimeError(
                "This SAE is being trained by another run. Stop that run first (run.stop()), wait for it "
                "(run.wait()), or train a copy."
            )
        _going.add(run)


def release(run: BackgroundRun) -> None:
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

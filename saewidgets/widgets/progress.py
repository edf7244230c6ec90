"""A bar for long work in a notebook. A widget, never a stream: executed notebooks are compared word for word."""

from __future__ import annotations

import time

import ipywidgets
from IPython.display import display

from saewidgets.progress import Report

REDRAW = 0.1
"""Seconds between two drawings, at least."""


class Progress(ipywidgets.HBox):
    """A title, a bar and the phase it is in; goes away when the work is done."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar = ipywidgets.FloatProgress(0.0, min=0.0, max=1.0, layout={"width": "200px"})
        self._phase = ipywidgets.Label("")
        super().__init__([ipywidgets.Label(title), self._bar, self._phase])

    def show(self, phase: str, fraction: float) -> None:
        """Move the bar to `fraction` (0 to 1) of `phase`."""
        self._bar.value = min(max(fraction, 0.0), 1.0)
        self._phase.value = f"{phase}, {fraction:.0%}"

    def __repr__(self) -> str:
        return f"Progress({self.title!r})"


def bar(title: str) -> Report:
    """Show a bar for work called `title`; returns what the work reports to. Report the phase "done" to end it."""
    progress = Progress(title)
    display(progress)
    drawn = 0.0

    def report(phase: str, fraction: float) -> None:
        nonlocal drawn
        if phase == "done":
            progress.close()
        elif time.monotonic() - drawn > REDRAW or fraction >= 1.0:
            drawn = time.monotonic()
            progress.show(phase, fraction)

    return report

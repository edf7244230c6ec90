"""Long work says how far it is; whoever listens decides what to show.

This module knows no screen. `widgets.progress` listens under IPython and shows a bar; scripts and tests hear nothing
unless they pass their own `on_progress`. Nothing is ever written to a stream: notebooks are compared word for word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

Report = Callable[[str, float], None]
"""Called with a phase ("reading the text") and the share of it done, 0 to 1. The phase "done" ends the bar."""

_listener: str | None = None


def listen(listener: str) -> None:
    """Name ("module:function") who is asked for a `Report` when long work begins. Imported only then."""
    global _listener
    _listener = listener


def reporter(title: str) -> Report:
    """The report function for one piece of long work called `title`; does nothing when nobody listens."""
    if _listener is None:
        return lambda phase, fraction: None
    module, _, name = _listener.partition(":")
    report: Report = getattr(import_module(module), name)(title)
    return report


@contextmanager
def reporting(title: str, on_progress: Report | None = None) -> Iterator[Report]:
    """The report function for a piece of work: `on_progress`, else a listener's. Says "done" however the work ends."""
    report = on_progress or reporter(title)
    try:
        yield report
    finally:
        report("done", 1.0)

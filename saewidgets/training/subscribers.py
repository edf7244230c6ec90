"""Who hears of a run, and how long it ran."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NOTIFY_SECONDS = 0.2
"""Subscribers hear of progress at most five times a second."""

MAX_ERRORS = 100
"""A callback that fails each time must not fill the memory."""


class Subscribers:
    """Callbacks that cannot stop who calls them: their exceptions are kept in `errors`."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self._callbacks: list[Callable[[Any], None]] = []
        self._last = -math.inf

    def add(self, callback: Callable[[Any], None]) -> Callable[[], None]:
        """Subscribe; the function given back ends it."""
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    @property
    def due(self) -> bool:
        """Whether the last notice is long enough ago for another one on progress alone."""
        return time.perf_counter() - self._last >= NOTIFY_SECONDS

    def notify(self, argument: Any) -> None:
        self._last = time.perf_counter()
        for callback in list(self._callbacks):
            self.call(callback, argument)

    def call(self, callback: Callable[[Any], None], argument: Any) -> None:
        try:
            callback(argument)
        except Exception as error:
            if len(self.errors) < MAX_ERRORS:
                self.errors.append(error)


class Stopwatch:
    """Seconds spent running, without the pauses; and how many of them were spent on something beside the steps."""

    def __init__(self, spent: float = 0.0, aside: float = 0.0) -> None:
        self._spent, self.aside = spent, aside
        self._since: float | None = None

    @property
    def running(self) -> bool:
        return self._since is not None

    @property
    def seconds(self) -> float:
        since = self._since
        return self._spent + (time.perf_counter() - since if since is not None else 0.0)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Count what happens inside as time beside the steps."""
        before = self.seconds
        yield
        self.aside += self.seconds - before

    def start(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        if self._since is not None:
            self._spent, self._since = self.seconds, None

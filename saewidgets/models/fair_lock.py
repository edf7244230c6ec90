"""A lock that nobody is starved by."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """A re-entrant lock that is handed over in the order of arrival.

    `threading.RLock` may be taken again by the thread that just let it go, so a loop that harvests would
    starve a slider for seconds. Here a thread waits for at most one forward of each thread before it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._owner: int | None = None
        self._depth = 0
        self._waiting: deque[tuple[threading.Lock, int]] = deque()

    def acquire(self) -> bool:
        me = threading.get_ident()
        with self._guard:
            if self._owner == me:
                self._depth += 1
                return True
            if self._owner is None:
                self._owner, self._depth = me, 1
                return True
            gate = threading.Lock()
            gate.acquire()
            ticket = (gate, me)
            self._waiting.append(ticket)
        try:
            gate.acquire()
        except BaseException:  # a KeyboardInterrupt while waiting: leave the queue, or pass on what we got
            with self._guard:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                else:
                    self._hand_over()
            raise
        return True

    def release(self) -> None:
        with self._guard:
            if self._owner != threading.get_ident():
                raise RuntimeError("The model's lock was released by a thread that does not hold it.")
            self._depth -= 1
            if self._depth == 0:
                self._hand_over()

    def _hand_over(self) -> None:
        if self._waiting:
            gate, self._owner = self._waiting.popleft()
            self._depth = 1
            gate.release()
        else:
            self._owner, self._depth = None, 0

    def __enter__(self) -> FairLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

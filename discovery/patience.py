"""Waiting in the main thread for somebody else, in a way that a signal can end.

What blocks runs in a thread of its own, which is left behind when the wait is over: it ends with its answer, or with
the process.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LOOK_UP_S = 0.1
"""How soon a stop is noticed."""


class Stopped(Exception):  # noqa: N818 - named for what happened
    """The process is to end, so nothing is waited for any more."""


class Patience(Protocol):
    """Whoever decides how long it is worth waiting."""

    def sleep(self, seconds: float) -> None:
        """Wait; Stopped."""

    def wait_for(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, or raise what it raises; Stopped."""


class UntilStopped:
    """Waits until *is_stopped* says that the process is to end."""

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped

    def sleep(self, seconds: float) -> None:
        """Wait; Stopped."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._look_up()
            time.sleep(min(left_s, LOOK_UP_S))
        self._look_up()

    def wait_for(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, or raise what it raises; Stopped."""
        # Not a SimpleQueue, whose get() may overlook that its timeout is over (see daemon/ticker.py).
        outcome: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

        def run() -> None:
            try:
                outcome.put((work(), None))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                outcome.put((None, error))

        threading.Thread(target=run, name="Discovery", daemon=True).start()
        while True:
            self._look_up()
            try:
                value, error = outcome.get(timeout=LOOK_UP_S)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            return value  # type: ignore[return-value]  # what work returned

    def _look_up(self) -> None:
        if self._is_stopped():
            raise Stopped

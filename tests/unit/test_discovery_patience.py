"""Waiting that a signal can end."""

from __future__ import annotations

import threading

import pytest

from discovery.patience import Stopped, UntilStopped


def test_work_is_waited_for() -> None:
    """Its outcome, be it a value or an error, comes to the thread that waits."""
    patience = UntilStopped(lambda: False)
    assert patience.wait_for(lambda: 4) == 4
    with pytest.raises(ZeroDivisionError):
        patience.wait_for(lambda: 1 // 0)
    patience.sleep(0.01)


def test_a_stop_ends_the_wait() -> None:
    """A member that waits for others, perhaps for days, must still end on SIGTERM."""
    stop = threading.Event()
    patience = UntilStopped(stop.is_set)

    def work() -> None:
        stop.set()
        never.wait(10.0)

    never = threading.Event()
    with pytest.raises(Stopped):
        patience.wait_for(work)
    never.set()
    with pytest.raises(Stopped):
        patience.sleep(60.0)

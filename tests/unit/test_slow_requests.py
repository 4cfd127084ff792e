"""Slow requests in the log: enough to see what is slow, never so many that the log is what makes it slow."""

from __future__ import annotations

import structlog

from services.slow_requests import KEPT_MAX, LINES_MAX, PERIOD_S, SlowRequests
from tests.fakes import FakeClock


def test_an_overloaded_server_does_not_drown_its_log() -> None:
    """The first lines say what is slow; of all others one line says how many there were, and nothing is lost in it."""
    clock = FakeClock()
    with structlog.testing.capture_logs() as lines:
        slow = SlowRequests(structlog.get_logger(), clock.wall_s)
        for count in range(1000):
            slow.note("/KV/Put" if count % 4 else "/KV/Txn", "peer", 1.0 + count / 1000, now_s=5.0)
        slow.tick(5.0 + PERIOD_S / 2)
        assert [line["event"] for line in lines] == ["slow request"] * LINES_MAX
        slow.tick(5.0 + PERIOD_S)
        slow.tick(5.0 + PERIOD_S)
    assert lines[LINES_MAX:] == [
        {
            "event": "more slow requests",
            "log_level": "warning",
            "count": 1000 - LINES_MAX,
            "methods": {"/KV/Put": 743, "/KV/Txn": 247},
            "longest_s": 1.999,
            "period_s": PERIOD_S,
        }
    ]
    assert len(slow.newest) == KEPT_MAX


def test_what_comes_later_is_told_one_by_one_again() -> None:
    """A single slow request an hour later is news, even where nobody has ticked since."""
    clock = FakeClock()
    with structlog.testing.capture_logs() as lines:
        slow = SlowRequests(structlog.get_logger(), clock.wall_s)
        for now_s in (1.0, 2.0, 100.0):
            slow.note("/KV/Put", "peer", 0.5, now_s)
        slow.tick(200.0)
    assert [line["event"] for line in lines] == ["slow request"] * 3

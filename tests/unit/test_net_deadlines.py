"""The wheel that ends calls and connections in time."""

from __future__ import annotations

from net.deadlines import BUCKETS_PER_SECOND, Bucket, Deadlines
from tests.unit.net_harness import FakeLoop


class Entry:
    """Notes when it expired."""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop
        self.at_s: list[float] = []

    def expired(self, now_s: float) -> None:
        self.at_s.append(self._loop.now_s)


def test_expires_neither_early_nor_much_too_late() -> None:
    """A deadline is a promise: never early, late by a bucket at most."""
    loop = FakeLoop()
    deadlines = Deadlines(loop.time, loop.call_at)
    entries = [(Entry(loop), loop.now_s + delay_s) for delay_s in (0.0, 0.001, 0.2, 0.2001, 7.0)]
    for entry, at_s in reversed(entries):
        deadlines.add(entry, at_s)
    loop.advance(10)
    for entry, at_s in entries:
        assert len(entry.at_s) == 1
        assert at_s <= entry.at_s[0] <= at_s + 1 / BUCKETS_PER_SECOND


def test_discarded_entries_do_not_expire() -> None:
    """A call that was answered is taken off its bucket, also by another entry of the same bucket."""
    loop = FakeLoop()
    deadlines = Deadlines(loop.time, loop.call_at)
    kept, discarded = Entry(loop), Entry(loop)
    bucket: Bucket

    class Discarding(Entry):
        def expired(self, now_s: float) -> None:
            bucket.pop(discarded)

    deadlines.add(Discarding(loop), loop.now_s + 1)
    bucket = deadlines.add(discarded, loop.now_s + 1)
    assert deadlines.add(kept, loop.now_s + 1) is bucket
    loop.advance(2)
    assert kept.at_s
    assert not discarded.at_s


def test_entry_may_add_itself_again() -> None:
    """Periodic checks add themselves while they expire, without being run twice in one go."""
    loop = FakeLoop()
    deadlines = Deadlines(loop.time, loop.call_at)

    class Periodic(Entry):
        def expired(self, now_s: float) -> None:
            super().expired(now_s)
            deadlines.add(self, now_s + 0.5)

    periodic = Periodic(loop)
    deadlines.add(periodic, loop.now_s)
    loop.advance(2)
    assert 4 <= len(periodic.at_s) <= 5


def test_far_deadlines_are_accepted() -> None:
    """A client may send 99999999 hours, for which the event loop has no timer."""
    loop = FakeLoop()
    deadlines = Deadlines(loop.time, loop.call_at)
    deadlines.add(Entry(loop), loop.now_s + 3600.0 * 99_999_999)
    assert loop.timers[0].at_s < loop.now_s + 11 * 365 * 86_400


def test_close_cancels_the_timer() -> None:
    """A listener that is closed leaves nothing on the loop."""
    loop = FakeLoop()
    deadlines = Deadlines(loop.time, loop.call_at)
    entry = Entry(loop)
    deadlines.add(entry, loop.now_s + 1)
    deadlines.close()
    loop.advance(2)
    assert not entry.at_s
    assert all(timer.canceled for timer in loop.timers)

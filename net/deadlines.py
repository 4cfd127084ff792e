"""What must happen at a time, for everything that one listener owns: calls' deadlines, connections' timeouts.

A wheel of buckets, each a sixty-fourth of a second wide, and a single timer of the event loop for the next bucket.
Adding and discarding an entry are dictionary operations, and a call that was answered leaves nothing behind.
Entries are never expired early, and late by at most a bucket.  Knows neither calls nor connections.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

BUCKETS_PER_SECOND: Final = 64
FARTHEST_S: Final = 10.0 * 365 * 86_400
"""Later than this is kept as this; the event loop does not take arbitrary delays."""


class Expirable(Protocol):
    """What can be put on the wheel."""

    def expired(self, now_s: float) -> None:
        """Notice that its time has come.  It is off the wheel by then."""


Bucket = dict[Expirable, None]
"""An ordered set, so that what expires together does so in the order it was added."""


class Timer(Protocol):
    """A scheduled call of the event loop."""

    def cancel(self) -> None:
        """Do not run it."""


class Deadlines:
    """The wheel.  *call_at* schedules on the loop (as `loop.call_at` does); *now* reads the same clock."""

    def __init__(self, now: Callable[[], float], call_at: Callable[[float, Callable[[], None]], Timer]) -> None:
        self._now = now
        self._call_at = call_at
        self._buckets: dict[int, Bucket] = {}
        self._order: list[int] = []
        self._armed: tuple[int, Timer] | None = None

    def add(self, entry: Expirable, at_s: float) -> Bucket:
        """Expire *entry* at *at_s* unless it is popped from the returned bucket before."""
        number = int(min(at_s, self._now() + FARTHEST_S) * BUCKETS_PER_SECOND) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
            heapq.heappush(self._order, number)
            self._arm()
        bucket[entry] = None
        return bucket

    def close(self) -> None:
        """Forget everything and cancel the timer."""
        self._buckets.clear()
        self._order.clear()
        self._disarm()

    def _arm(self) -> None:
        if self._order and (self._armed is None or self._order[0] < self._armed[0]):
            self._disarm()
            self._armed = (self._order[0], self._call_at(self._order[0] / BUCKETS_PER_SECOND, self._expire))

    def _disarm(self) -> None:
        if self._armed is not None:
            self._armed[1].cancel()
            self._armed = None

    def _expire(self) -> None:
        self._armed = None
        now = self._now()
        # The loop's clock may fire a timer early by its resolution; the bucket it was set for is due all the same.
        due = max(int(now * BUCKETS_PER_SECOND), self._order[0] if self._order else 0)
        buckets: list[Bucket] = []
        while self._order and self._order[0] <= due:
            buckets.append(self._buckets.pop(heapq.heappop(self._order)))
        for bucket in buckets:
            # Expiring one entry may discard others of its bucket.
            while bucket:
                entry = next(iter(bucket))
                del bucket[entry]
                entry.expired(now)
        self._arm()

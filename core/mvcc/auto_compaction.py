"""When a leader compacts by itself, and up to which revision: etcd's two modes, as plain schedules.

A schedule is asked once an interval, on every member; only a leader's answer is acted upon.  It knows neither clock nor
store: both are handed in.  Behaviour: etcd's auto-compaction-mode and -retention.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

COMPACT_EVERY_S_MAX = 3600.0
"""A longer period still compacts once an hour."""

SAMPLES_PER_COMPACTION = 10
"""Revisions noted between two compactions."""

REVISION_CHECK_S = 300.0
"""How often a schedule by revision looks."""


class Schedule(Protocol):
    """Decides what to compact.  Times are monotonic seconds."""

    @property
    def interval_s(self) -> float:
        """How often it wants to be asked."""

    def due(self, now_s: float, revision: int, *, leads: bool) -> int | None:
        """Return the revision to compact at now, if any; the store stands at *revision*."""

    def compacted(self, now_s: float, revision: int) -> None:
        """Take note that the store is compacted at *revision*; until then it is due again at every interval."""


class PeriodicSchedule:
    """Compacts to where the store stood one period ago, once a period or once an hour, whichever is shorter."""

    def __init__(self, period_s: float, now_s: float) -> None:
        """*period_s* is above 0.  The first compaction comes one period after *now_s*."""
        self.interval_s = min(period_s, COMPACT_EVERY_S_MAX) / SAMPLES_PER_COMPACTION
        self._every_s = min(period_s, COMPACT_EVERY_S_MAX)
        self._wait_s = period_s
        self._last_s = now_s
        self._last_revision = 0
        # The oldest is what the store stood at one period ago.
        self._samples: deque[int] = deque(maxlen=int(period_s / self.interval_s + 1e-9) + 1)

    def due(self, now_s: float, revision: int, *, leads: bool) -> int | None:
        """See Schedule.  Members that follow take samples as well, so that a new leader need not begin anew."""
        # The sample of the interval that begins now is not one that a whole period has passed since.
        oldest = self._samples[0] if self._samples else 0
        self._samples.append(revision)
        if not leads or not oldest or oldest == self._last_revision or now_s - self._last_s < self._wait_s:
            return None
        self._wait_s = self._every_s
        return oldest

    def compacted(self, now_s: float, revision: int) -> None:
        """See Schedule."""
        self._last_s, self._last_revision = now_s, revision


class RevisionSchedule:
    """Keeps so many revisions; looks every five minutes."""

    interval_s = REVISION_CHECK_S

    def __init__(self, retention: int) -> None:
        """*retention* is above 0."""
        self._retention = retention
        self._last_revision = 0

    def due(self, now_s: float, revision: int, *, leads: bool) -> int | None:
        """See Schedule."""
        del now_s
        wanted = revision - self._retention
        return wanted if leads and wanted > 0 and wanted != self._last_revision else None

    def compacted(self, now_s: float, revision: int) -> None:
        """See Schedule."""
        del now_s
        self._last_revision = revision

"""What a leader knows of one member's log, and how much it may send there.

A member is probed until its log is known to match, then sent entries ahead of its answers, or waited for while it takes
a snapshot.  Raft paper 5.3 (nextIndex, matchIndex); raft thesis 10.2.1 (pipelining).
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from core.types import Index


class ProgressState(Enum):
    """How a member is being brought up to date."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One member as its leader sees it.

    *match* is known to be in its log, *next* is sent next.  *paused*: nothing more until it answers.  *active*: it has
    been heard from since the last quorum check.  *commit_sent* is the highest commit index it has been told.
    """

    __slots__ = ("active", "commit_sent", "in_flight", "match", "next", "paused", "snapshot_index", "state")

    def __init__(self, next_index: int, match: int = 0, *, active: bool = False) -> None:
        self.state = ProgressState.PROBE
        self.match = Index(match)
        self.next = Index(next_index)
        self.paused = False
        self.active = active
        self.snapshot_index = Index(0)
        self.commit_sent = Index(0)
        self.in_flight: deque[Index] = deque()

    def probe(self) -> None:
        """Send one message at a time: after the match, or after a snapshot that is believed to have arrived."""
        after = max(self.match, self.snapshot_index) if self.state is ProgressState.SNAPSHOT else self.match
        self._enter(ProgressState.PROBE, after + 1)
        self.commit_sent = min(self.commit_sent, after)

    def replicate(self) -> None:
        """Send entries without waiting for answers."""
        self._enter(ProgressState.REPLICATE, self.match + 1)

    def await_snapshot(self, index: Index) -> None:
        """Send nothing until a snapshot at *index* has arrived or failed."""
        self._enter(ProgressState.SNAPSHOT, index + 1)
        self.snapshot_index = self.commit_sent = index

    def end_snapshot(self, *, arrived: bool) -> None:
        """Go back to probing, after the snapshot if it *arrived*; the first probe waits for a word from the member."""
        if not arrived:
            self.snapshot_index = Index(0)
        self.probe()
        self.paused = True

    @property
    def blocked(self) -> bool:
        """Whether nothing at all may be sent now but heartbeats."""
        return self.paused or self.state is ProgressState.SNAPSHOT

    def sent(self, last: Index, *, any_entries: bool, in_flight_max: int) -> None:
        """Note an append message up to *last*."""
        if self.state is ProgressState.REPLICATE:
            if any_entries:
                self.next = Index(last + 1)
                self.in_flight.append(last)
            # A message sent while the window is full is itself a probe: the next one waits for an answer.
            self.paused = len(self.in_flight) >= in_flight_max
        else:
            self.paused = self.paused or any_entries

    def wants_commit(self, commit: Index) -> bool:
        """Whether telling *commit* could move the member's own commit index."""
        return commit > self.commit_sent and self.commit_sent < self.next - 1

    def acknowledged(self, index: Index) -> bool:
        """Take over that the member's log matches up to *index*; False if that was known."""
        if index <= self.match:
            return False
        self.match = index
        self.next = Index(max(self.next, index + 1))
        self.paused = False
        return True

    def release(self, index: Index) -> None:
        """Free the window of every message up to *index*."""
        in_flight = self.in_flight
        while in_flight and in_flight[0] <= index:
            in_flight.popleft()

    def rejected(self, index: Index, hint: Index) -> bool:
        """Step back after a refusal at *index*, to *hint* at best; False if the refusal is out of date."""
        if self.state is ProgressState.REPLICATE:
            if index <= self.match:
                return False
            self.probe()
            return True
        if self.state is ProgressState.SNAPSHOT or index != self.next - 1:
            return False
        self.next = Index(max(min(index, hint + 1), self.match + 1))
        self.commit_sent = min(self.commit_sent, Index(self.next - 1))
        self.paused = False
        return True

    def _enter(self, state: ProgressState, next_index: int) -> None:
        self.state = state
        self.next = Index(next_index)
        self.paused = False
        self.snapshot_index = Index(0)
        self.in_flight.clear()

"""Renewals of leases: many clients' requests, one upstream for each lease at a time.  Pure.

Every request gets an answer of its own.  One that comes while the same lease is being renewed shares that renewal.
Upstream all go over one stream, which a member ends for good if one renewal is refused: then those that were on their
way are tried one by one, so that only the guilty stream hears of it.
"""

from __future__ import annotations

from collections import deque

StreamId = int


class KeepAlives:
    """The renewals of all clients that show the same token."""

    def __init__(self) -> None:
        self._queue: deque[int] = deque()
        self._asking: dict[int, None] = {}
        """Leases asked for upstream, in that order."""
        self._waiting: dict[int, list[StreamId]] = {}
        """By lease, whose requests its answer is for."""
        self._one_by_one = False

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def ask(self, stream: StreamId, lease: int) -> None:
        """Take a request of a client's *stream*."""
        waiting = self._waiting.get(lease)
        if waiting is None:
            self._waiting[lease] = [stream]
            self._queue.append(lease)
        else:
            waiting.append(stream)

    def to_send(self) -> list[int]:
        """Return the leases to ask for upstream now, given that there is a stream."""
        if not self._one_by_one:
            leases = list(self._queue)
            self._queue.clear()
        elif self._queue and not self._asking:
            leases = [self._queue.popleft()]
        else:
            leases = []
        self._asking.update(dict.fromkeys(leases))
        return leases

    def answered(self, lease: int) -> list[StreamId]:
        """Return the streams that an answer about *lease* goes to, one as often as it has asked."""
        self._asking.pop(lease, None)
        if not self._asking and not self._queue:
            self._one_by_one = False
        return self._waiting.pop(lease, [])

    def lost(self) -> None:
        """Take note that the upstream is gone without anybody's fault: all that was asked is asked again."""
        self._queue.extendleft(reversed(self._asking))
        self._asking.clear()

    def refused(self) -> list[StreamId]:
        """Take note that the upstream was ended by a refusal; return the streams that it is meant for."""
        if len(self._asking) != 1:
            self._one_by_one = True
            self.lost()
            return []
        (lease,) = self._asking
        return self.answered(lease)

    def fail_all(self) -> list[StreamId]:
        """Forget every request; return the streams that waited."""
        waited = [stream for streams in self._waiting.values() for stream in streams]
        self._waiting.clear()
        self._queue.clear()
        self._asking.clear()
        self._one_by_one = False
        return waited

    def forget(self, stream: StreamId) -> None:
        """Drop the requests of a *stream* that has ended; renewals that are on their way go on."""
        for lease in [lease for lease, streams in self._waiting.items() if stream in streams]:
            left = [each for each in self._waiting[lease] if each != stream]
            if left or lease in self._asking:
                self._waiting[lease] = left
            else:
                del self._waiting[lease]
                self._queue.remove(lease)

"""What clients were promised about leases, against when the leases ended.

A lease that was granted or renewed lives for its whole TTL from then on, however leaders change; clocks that go too
fast may take as much off it as they are too fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.schedule import Failure

if TYPE_CHECKING:
    from sim.schedule import Schedule


class Leases:
    """Every lease that a client knows of."""

    def __init__(self, schedule: Schedule, fastest_rate: float) -> None:
        self._schedule = schedule
        self._fastest_rate = fastest_rate
        self._lives_until_s: dict[int, float] = {}
        self._revoked: set[int] = set()
        self._ended: set[int] = set()

    def promised(self, lease: int, ttl_s: int, asked_s: float) -> None:
        """Note that a client who asked at *asked_s* was promised so much."""
        until_s = asked_s + ttl_s / self._fastest_rate
        if lease in self._ended and lease not in self._revoked:
            if until_s > self._schedule.now_s:
                raise Failure(f"lease {lease:x} was promised to live until {until_s:.3f}, and has ended already")
            return
        self._lives_until_s[lease] = max(self._lives_until_s.get(lease, 0.0), until_s)

    def revoking(self, lease: int) -> None:
        """Note that a client wants it to end."""
        self._revoked.add(lease)

    def ended(self, lease: int) -> None:
        """Note that some member has applied its end."""
        if lease in self._ended:
            return
        self._ended.add(lease)
        until_s = self._lives_until_s.get(lease, 0.0)
        if lease not in self._revoked and self._schedule.now_s < until_s:
            raise Failure(f"lease {lease:x} ended at {self._schedule.now_s:.3f}; it was promised until {until_s:.3f}")

    def told_gone(self, lease: int) -> None:
        """Note that a client was told that there is no such lease."""
        if lease not in self._revoked and lease not in self._ended:
            raise Failure(f"a client was told that lease {lease:x} is gone, but no member has ended it")

    def overdue(self, slack_s: float) -> list[int]:
        """Return the leases that should have ended *slack_s* ago."""
        now_s = self._schedule.now_s
        return [
            lease
            for lease, until_s in self._lives_until_s.items()
            if lease not in self._ended and until_s + slack_s < now_s
        ]

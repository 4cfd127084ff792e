"""Request ids: unique over all members and restarts, and telling which mailbox waits for the answer.

Layout of the 64 bits, high to low (etcd's ids have the same first two fields; ours keep a few bits for the owner):

    16  low bits of the member id        so that members never make equal ids
    37  milliseconds since 1970          so that ids before and after a restart differ (wraps after four years)
     7  counter                          128,000 ids a second before the clock is outrun
     4  owner                            which of this member's waiters asked
"""

from __future__ import annotations

from core.types import MemberId, RequestId

OWNER_BITS = 4
OWNERS_MAX = 1 << OWNER_BITS
_COUNTER_BITS = 7
_SUFFIX_MASK = (1 << 48) - 1


class RequestIds:
    """Makes the ids of one owner.  Belongs to that owner's actor; not shared."""

    def __init__(self, member: MemberId, owner: int, now_ms: int) -> None:
        """*owner* is 0..15; *now_ms* is the wall clock in milliseconds, read once."""
        assert 0 <= owner < OWNERS_MAX, owner
        self._prefix = (member & 0xFFFF) << 48
        self._owner = owner
        self._next = now_ms << _COUNTER_BITS

    def make(self) -> RequestId:
        """Return the next id; never 0 and never one returned before."""
        self._next += 1
        return RequestId(self._prefix | (self._next << OWNER_BITS & _SUFFIX_MASK) | self._owner)


def owner_of(request_id: RequestId, member: MemberId) -> int | None:
    """Return the owner number if *member* made this id, else None."""
    if request_id >> 48 != member & 0xFFFF:
        return None
    return request_id & (OWNERS_MAX - 1)

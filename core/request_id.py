"""Request ids: unique over all members and restarts, and telling which mailbox waits for the answer.

Layout of the 64 bits, high to low (etcd's ids have the same first two fields; ours keep a few bits for the owner):

    16  low bits of the member id        so that members never make equal ids
    37  milliseconds since 1970          so that ids before and after a restart differ (wraps after four years)
     7  counter                          128,000 ids a second before the clock is outrun
     4  owner                            which of this member's waiters asked
"""

from __future__ import annotations

from typing import Final

from core.mvcc.varint import field, varint
from core.types import MemberId, RequestId

OWNER_BITS: Final = 4
OWNERS_MAX: Final = 1 << OWNER_BITS
_COUNTER_BITS: Final = 7
_SUFFIX_MASK: Final = (1 << 48) - 1


_REQUEST_HEADER_TAG: Final = b"\xa2\x06"
"""Field 100 of InternalRaftRequest."""
_USER_TAG: Final = b"\x12"
_AUTH_REVISION_TAG: Final = b"\x18"
"""Fields 2 and 3 of RequestHeader."""


class RequestIds:
    """Makes the ids of one owner.  Belongs to that owner's actor; not shared."""

    def __init__(self, member: MemberId, owner: int, now_ms: int) -> None:
        """*owner* is 0..15; *now_ms* is the wall clock in milliseconds, read once."""
        assert 0 <= owner < OWNERS_MAX, owner
        self._prefix = (member & 0xFFFF) << 48
        self.owner = owner
        self._next = now_ms << _COUNTER_BITS
        self._high = -1
        self._high_bytes = b""

    def make(self) -> RequestId:
        """Return the next id; never 0 and never one returned before."""
        self._next += 1
        return RequestId(self._prefix | (self._next << OWNER_BITS & _SUFFIX_MASK) | self.owner)

    def make_with_header(self) -> tuple[RequestId, bytes]:
        """Return the next id, and with it InternalRaftRequest's ``header`` field that carries it.

        Spelled out because every put makes one: of the ten bytes of the id's varint only the first two change often.
        """
        self._next += 1
        request_id = RequestId(self._prefix | (self._next << OWNER_BITS & _SUFFIX_MASK) | self.owner)
        high = request_id >> 14
        if high != self._high:
            self._high = high
            self._high_bytes = varint(high)
        low = bytes((request_id & 0x7F | 0x80, request_id >> 7 & 0x7F | 0x80))
        length = 3 + len(self._high_bytes)
        return request_id, b"%b%c\x08%b%b" % (_REQUEST_HEADER_TAG, length, low, self._high_bytes)

    def make_with_identity(self, user: str, auth_revision: int) -> tuple[RequestId, bytes]:
        """Return the next id, and with it the ``header`` field that also says who asks; an empty user is left out."""
        self._next += 1
        request_id = RequestId(self._prefix | (self._next << OWNER_BITS & _SUFFIX_MASK) | self.owner)
        name = field(_USER_TAG, user.encode()) if user else b""
        revision = _AUTH_REVISION_TAG + varint(auth_revision) if auth_revision else b""
        return request_id, field(_REQUEST_HEADER_TAG, b"\x08%b%b%b" % (varint(request_id), name, revision))


def owner_of(request_id: RequestId, member: MemberId) -> int | None:
    """Return the owner number if *member* made this id, else None."""
    if request_id >> 48 != member & 0xFFFF:
        return None
    return request_id & (OWNERS_MAX - 1)

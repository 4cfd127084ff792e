"""Reads that wait until a quorum has confirmed that their leader still leads.

Each read takes the next number of the leader's term; heartbeats carry the highest number given out and their answers
bring it back, so an answer can only confirm reads that came before its heartbeat left.  (Numbers of our own instead of
the askers' contexts: an asker may use a context twice, and an old answer must not confirm the newer read.)  Raft
thesis section 6.4.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from core.raft import quorum
from core.types import Index, MemberId

if TYPE_CHECKING:
    from core.raft.messages import ConfState

NUMBER_BYTES: Final = 8


class Read(NamedTuple):
    """One read: who asked (a member's id), under which name, and the commit index it must see."""

    asker: MemberId
    context: bytes
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class ReadQueue:
    """The unconfirmed reads of one leader in one term, oldest first."""

    def __init__(self, self_id: MemberId) -> None:
        self._self_id = self_id
        self._unconfirmed: deque[Read] = deque()
        self._confirmed_count = 0
        self._reached: dict[MemberId, int] = {}

    def __len__(self) -> int:
        return len(self._unconfirmed)

    def add(self, read: Read) -> None:
        """Let *read* wait for the next heartbeat that leaves."""
        self._unconfirmed.append(read)

    def heartbeat_context(self) -> bytes:
        """Return what a heartbeat that leaves now must carry; empty if no read waits."""
        return self._issued().to_bytes(NUMBER_BYTES, "big") if self._unconfirmed else b""

    def answered(self, member: MemberId, context: bytes) -> None:
        """Take over a heartbeat's answer; a number that was never given out is ignored."""
        number = int.from_bytes(context, "big")
        if len(context) == NUMBER_BYTES and self._reached.get(member, 0) < number <= self._issued():
            self._reached[member] = number

    def take_confirmed(self, conf_state: ConfState) -> list[Read]:
        """Remove and return the reads that a quorum of *conf_state* has confirmed."""
        self._reached[self._self_id] = self._issued()
        count = quorum.agreed(conf_state, self._reached) - self._confirmed_count
        if count <= 0:
            return []
        self._confirmed_count += count
        return [self._unconfirmed.popleft() for _ in range(count)]

    def _issued(self) -> int:
        return self._confirmed_count + len(self._unconfirmed)

"""What raft wants done next, and which of it has been done.

Ready is the one output of RaftNode; Writes remembers which appended entries a finished sync covers.  Neither knows how
a log is written or a message sent.  The order in which a Ready is worked off is in docs/internals/raft-loop.md.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from core.types import Index, Term

if TYPE_CHECKING:
    from core.raft.events import RaftEvent
    from core.raft.messages import Entry, HardState, Message, Snapshot


class ReadState(NamedTuple):
    """A linearizable read, named by its *context*, that may be served once *index* has been applied."""

    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    context: int


class StablePoint(NamedTuple):
    """What to tell RaftNode.stable once a Ready is durable: the node's term and last index when it was taken."""

    term: Term
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class Ready(NamedTuple):
    """All that raft wants done next.

    Write *snapshot*, *entries* and *hard_state* to the log in this order, after those of every earlier Ready, and sync
    when *must_sync*.  *messages* may leave at once.  *after_sync* may leave only when this Ready and all before it are
    durable, so it takes the same queue as the writes even when this Ready itself writes nothing.  When *stable* is
    given, call ``node.stable(*ready.stable)`` at that moment too: once for each such Ready, in their order.
    *committed* may be applied at once: it holds only entries that are already durable here.  A *snapshot* is
    acknowledged by ``node.stable_snapshot`` once the store has been replaced by it.
    """

    entries: tuple[Entry, ...]
    hard_state: HardState | None
    snapshot: Snapshot | None
    messages: tuple[Message, ...]
    after_sync: tuple[Message, ...]
    committed: tuple[Entry, ...]
    reads: tuple[ReadState, ...]
    events: tuple[RaftEvent, ...]
    must_sync: bool
    stable: StablePoint | None


class Writes:
    """Which part of the log is durable, given that writes are asked for in order and finish in order.

    A write in flight may hold entries that the log has lost since.  Its end must then count only up to the place of the
    cut, even if an entry of the same term and index has come back meanwhile: that one is another write, still behind.
    """

    def __init__(self, stable: Index) -> None:
        self.stable = stable
        self._in_flight: deque[tuple[StablePoint, Index]] = deque()

    def __bool__(self) -> bool:
        """Whether any write is still in flight."""
        return bool(self._in_flight)

    def begin(self, point: StablePoint) -> None:
        """Remember a write that makes the log durable up to *point*."""
        self._in_flight.append((point, point.index))

    def cut(self, last: Index) -> None:
        """Note that the log lost everything after *last*."""
        self.stable = min(self.stable, last)
        self._in_flight = deque((point, min(index, last)) for point, index in self._in_flight)

    def finish(self, point: tuple[Term, Index]) -> bool:
        """Note the end of the oldest write named *point*, and of all before it; False if there is none."""
        covered = 0
        for count, (begun, _) in enumerate(self._in_flight, 1):
            if begun == point:
                covered = count
                break
        for _ in range(covered):
            self.stable = self._in_flight.popleft()[1]
        return covered > 0

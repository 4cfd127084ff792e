"""What RaftActor receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import Tick

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.address import Address
    from actors.messages.serve import ReadIndexed, Refused
    from core.raft.messages import ConfChange, ConfChangeV2
    from core.types import Index, MemberId, RequestId, Term


class Propose(NamedTuple):
    """Put these into the log.  Each is the bytes of an InternalRaftRequest, under the id that its answer will bear.

    The answer comes from ApplyActor; only what cannot be proposed is refused from here.
    """

    proposals: Sequence[tuple[RequestId, bytes]]
    refuse_to: Address[Refused]


class ProposeConfChange(NamedTuple):
    """Put a change of the configuration into the log (*data* is its encoded raftpb.ConfChange)."""

    request_id: RequestId
    data: bytes
    refuse_to: Address[Refused]


class ReadIndex(NamedTuple):
    """Find an index that any read answered from now on must have applied."""

    context: int
    """The asker's number for this round; comes back with the answer."""
    answer_to: Address[ReadIndexed]


class Stable(NamedTuple):
    """The log is durable up to here (ignored if the term has moved on)."""

    term: Term
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class Applied(NamedTuple):
    """The state machine holds the effect of everything up to *index*."""

    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class ConfChangeApplied(NamedTuple):
    """The state machine has met this change (None: it was invalid there and changes nothing) and taken it over."""

    change: ConfChange | ConfChangeV2 | None


class TransferLeader(NamedTuple):
    """Hand leadership to *to*."""

    to: MemberId


class ObserveRole(NamedTuple):
    """Tell *observer* at once, and whenever leader, term or own role change."""

    observer: Address[RoleIs]


class RoleIs(NamedTuple):
    """Who leads, as this member sees it."""

    term: Term
    leader: MemberId
    """0 while nobody is known to lead."""
    is_leader: bool


RaftMessage = (
    Propose | ProposeConfChange | ReadIndex | Stable | Applied | ConfChangeApplied | TransferLeader | ObserveRole | Tick
)

"""What RaftActor receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import Tick
from actors.messages.metrics import Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.address import Address, AnyDelivery
    from actors.messages.peer_transport import Send
    from actors.messages.serve import ReadIndexed, Refused
    from core.raft.messages import ConfChange, ConfChangeV2, Message
    from core.raft.node import RaftNode
    from core.types import Index, MemberId, RequestId, Term


class Propose(NamedTuple):
    """Put these into the log.  Each is the bytes of an InternalRaftRequest, under the id that its answer will bear.

    The answer comes from ApplyActor; only what cannot be proposed is refused from here.
    """

    proposals: Sequence[tuple[RequestId, bytes]]
    refuse_to: Address[Refused]
    led_term: Term | None = None
    """What only the leader of this term may decide: refused unless this member leads it, and never passed on."""


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


class Step(NamedTuple):
    """Other members have sent these; *after* is sent when they have been taken."""

    messages: Sequence[Message]
    after: AnyDelivery | None = None


class Unreachable(NamedTuple):
    """Something for this member was lost."""

    member: MemberId


class SnapshotStatus(NamedTuple):
    """The sending of a snapshot has ended."""

    member: MemberId
    ok: bool


class SnapshotInstalled(NamedTuple):
    """The store has been replaced by the snapshot at *index*."""

    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class CarryMessages(NamedTuple):
    """Give messages for other members to *carrier* from now on."""

    carrier: Address[Send]


class AdvanceElection(NamedTuple):
    """The others are there: count so many ticks as passed, if nobody leads yet."""

    ticks: int


class InspectRaft(NamedTuple):
    """Run *question* on the core, on this actor's thread, and let it send its own answer; it must not change anything.

    For rare questions, such as how far a learner has come.
    """

    question: Callable[[RaftNode], None]


class Stable(NamedTuple):
    """The log is durable up to here (ignored if the term has moved on)."""

    term: Term
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class DiskIs(NamedTuple):
    """From WalActor: a sync has not returned for as long as an election takes, or has by now."""

    stalled: bool


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
    Propose
    | ProposeConfChange
    | ReadIndex
    | Step
    | Unreachable
    | SnapshotStatus
    | SnapshotInstalled
    | CarryMessages
    | AdvanceElection
    | InspectRaft
    | Stable
    | DiskIs
    | Applied
    | ConfChangeApplied
    | TransferLeader
    | ObserveRole
    | Tick
    | Measure
)

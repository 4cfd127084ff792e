"""What ApplyActor receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import ClusterIs, Tick
from actors.messages.metrics import Measure
from actors.messages.serve import Answered, TokensUsed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.address import Address
    from actors.messages.lease import LeaseEvent
    from actors.messages.raft import RaftMessage
    from actors.messages.serve import Accepted, AuthEvent, Completed, Published
    from actors.messages.watch import Changed, Restored
    from core.apply.applier import Applier
    from core.raft.messages import Entry, Snapshot
    from core.types import Index, Term


class ApplyEntries(NamedTuple):
    """Committed entries, in order, none missing."""

    entries: Sequence[Entry]
    term: Term
    """The node's current term, for response headers."""
    commit: Index
    raft: Address[RaftMessage]
    """Whom to tell what was applied."""


class InstallSnapshot(NamedTuple):
    """Replace the store by the snapshot that has come from the leader; nothing is applied meanwhile."""

    snapshot: Snapshot
    raft: Address[RaftMessage]
    """Whom to tell when it is done."""


class Observe(NamedTuple):
    """Tell *observer* at once, and after each batch, what may be read."""

    observer: Address[Published]


class ObserveOutcomes(NamedTuple):
    """Tell *waiter* how the requests ended whose ids name this *owner*, and which of them take longer."""

    owner: int
    waiter: Address[Completed | Accepted]


class ObserveChanges(NamedTuple):
    """Tell *observer* at once, with no events, and after each batch, what has changed."""

    observer: Address[Changed | Restored]


class ObserveLeases(NamedTuple):
    """Tell *observer* of the leases there are, and of each that comes or goes."""

    observer: Address[LeaseEvent]


class ObserveAuth(NamedTuple):
    """Tell *observer* at once who may do what, and again whenever that changes."""

    observer: Address[AuthEvent]


class ObserveCluster(NamedTuple):
    """Tell *observer* at once, and at each change, who belongs to the cluster."""

    observer: Address[ClusterIs]


class Inspect(NamedTuple):
    """Run *question* on the state machine, on this actor's thread, and let it send its own answer.

    For rare questions that need what no view holds (keys of a lease, members); it must not change anything.
    """

    question: Callable[[Applier], None]


class Defragment(NamedTuple):
    """Give space back to the file system, beside the traffic; then answer."""

    token: int
    answer_to: Address[Answered]


ApplyMessage = (
    ApplyEntries
    | InstallSnapshot
    | Observe
    | ObserveOutcomes
    | ObserveChanges
    | ObserveLeases
    | ObserveCluster
    | ObserveAuth
    | Inspect
    | Defragment
    | Answered
    | TokensUsed
    | Tick
    | Measure
)

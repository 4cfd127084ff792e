"""What happened inside raft, as values: for logs and metrics, and for tests to compare.

Events leave in Ready.events in the order in which things happened.  Nothing here changes what raft does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.raft.messages import ConfState, MessageType
    from core.types import Index, MemberId, Term


@dataclass(frozen=True, slots=True)
class BecameFollower:
    """The member follows whoever leads *term*."""

    term: Term


@dataclass(frozen=True, slots=True)
class BecamePreCandidate:
    """The member asks whether it would win an election; its *term* has not changed."""

    term: Term


@dataclass(frozen=True, slots=True)
class BecameCandidate:
    """The member stands for election in *term*."""

    term: Term


@dataclass(frozen=True, slots=True)
class BecameLeader:
    """The member won the election of *term*."""

    term: Term


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """Another member leads, as far as this one knows; 0 is nobody."""

    term: Term
    leader_id: MemberId
    previous_id: MemberId


@dataclass(frozen=True, slots=True)
class VoteCast:
    """A (pre-)vote was asked of this member and answered."""

    term: Term
    candidate_id: MemberId
    pre_vote: bool
    granted: bool


@dataclass(frozen=True, slots=True)
class VoteIgnored:
    """A (pre-)vote was not answered since this member has lately heard from a leader."""

    term: Term
    candidate_id: MemberId


@dataclass(frozen=True, slots=True)
class CampaignRefused:
    """The member did not stand for election, for the *reason* given."""

    term: Term
    reason: str


@dataclass(frozen=True, slots=True)
class QuorumLost:
    """The leader stepped down since a quorum had been silent for an election timeout."""

    term: Term


@dataclass(frozen=True, slots=True)
class TruncatedLog:
    """Uncommitted entries from *index* on gave way to those of another leader."""

    index: Index
    term: Term


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """The leader asked for a snapshot to be sent to a member that needs entries compacted here."""

    peer_id: MemberId
    index: Index


@dataclass(frozen=True, slots=True)
class SnapshotRestored:
    """The log now starts after a snapshot from the leader."""

    index: Index
    term: Term


@dataclass(frozen=True, slots=True)
class DiskStalled:
    """This member's disk does not answer: it hands leadership over, to *to* or (0) to whoever wins an election."""

    term: Term
    to: MemberId


@dataclass(frozen=True, slots=True)
class ConfChanged:
    """A configuration took effect."""

    conf_state: ConfState


@dataclass(frozen=True, slots=True)
class ConfChangeRefused:
    """A change of the configuration was left without effect, for the *reason* given."""

    reason: str


@dataclass(frozen=True, slots=True)
class TransferStarted:
    """The leader began to hand over to *peer_id*; it takes no proposals meanwhile."""

    peer_id: MemberId


@dataclass(frozen=True, slots=True)
class TransferAborted:
    """The hand-over to *peer_id* did not happen in time, or became impossible."""

    peer_id: MemberId


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A message made no sense here and was dropped, for the *reason* given."""

    peer_id: MemberId
    type: MessageType
    reason: str


@dataclass(frozen=True, slots=True)
class CommitBeyondLog:
    """The leader counts on entries that this member's log does not have: the log was damaged, cut or replaced."""

    commit_index: Index
    last_index: Index


RaftEvent = (
    BecameFollower
    | BecamePreCandidate
    | BecameCandidate
    | BecameLeader
    | LeaderChanged
    | VoteCast
    | VoteIgnored
    | CampaignRefused
    | QuorumLost
    | TruncatedLog
    | SnapshotSent
    | SnapshotRestored
    | DiskStalled
    | ConfChanged
    | ConfChangeRefused
    | TransferStarted
    | TransferAborted
    | MessageRefused
    | CommitBeyondLog
)

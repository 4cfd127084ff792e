"""What raft keeps and says: entries, hard state, configurations, snapshots, messages.

These are the core's own types; wal/ and net/rafthttp turn them to and from the protobuf forms of the same names
(raftpb, see raft.proto).  Entries and messages are tuples because every put makes some.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from core.types import Index, MemberId, Term

NOBODY: Final = MemberId(0)
"""The member id that stands for no member: no leader known, no vote cast, no transfer under way."""

CAMPAIGN_TRANSFER: Final = b"CampaignTransfer"
"""The context of a vote request whose sender was told to campaign by the leader itself (on the wire: never change)."""


class EntryType(IntEnum):
    """What an entry's data is (on disk: never renumber)."""

    NORMAL = 0
    CONF_CHANGE = 1
    CONF_CHANGE_V2 = 2


class Entry(NamedTuple):
    """One position of the log.  *data* is empty in the entry that a new leader appends for itself."""

    term: Term
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    type: EntryType
    data: bytes


class HardState(NamedTuple):
    """What must be on disk before a message that depends on it may leave (raft paper, figure 2)."""

    term: Term
    vote: MemberId
    commit: Index


@dataclass(frozen=True, slots=True)
class ConfState:
    """Who votes and who learns, as of one applied index.  Ids ascend in each tuple."""

    voters: tuple[MemberId, ...] = ()
    learners: tuple[MemberId, ...] = ()
    voters_outgoing: tuple[MemberId, ...] = ()
    learners_next: tuple[MemberId, ...] = ()
    auto_leave: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotMetadata:
    """Where a snapshot stands: it holds the effect of all entries up to *index*."""

    conf_state: ConfState
    index: Index
    term: Term


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A point that the log may start from; *data* is opaque to raft."""

    metadata: SnapshotMetadata
    data: bytes = b""


class ConfChangeType(IntEnum):
    """What happens to one member (on disk: never renumber)."""

    ADD_NODE = 0
    REMOVE_NODE = 1
    UPDATE_NODE = 2
    ADD_LEARNER_NODE = 3


class ConfChangeTransition(IntEnum):
    """Whether a change passes through a joint configuration, and who ends that (on disk: never renumber)."""

    AUTO = 0
    JOINT_IMPLICIT = 1
    JOINT_EXPLICIT = 2


@dataclass(frozen=True, slots=True)
class ConfChange:
    """One change of one member, the data of a CONF_CHANGE entry.  *node_id* 0 changes nothing (a refused change)."""

    type: ConfChangeType
    node_id: MemberId
    id: int = 0
    context: bytes = b""


@dataclass(frozen=True, slots=True)
class ConfChangeSingle:
    """One step of a ConfChangeV2."""

    type: ConfChangeType
    node_id: MemberId


@dataclass(frozen=True, slots=True)
class ConfChangeV2:
    """Changes that take effect together, the data of a CONF_CHANGE_V2 entry.  Without any it leaves the joint state."""

    transition: ConfChangeTransition = ConfChangeTransition.AUTO
    changes: tuple[ConfChangeSingle, ...] = ()
    context: bytes = b""


class MessageType(IntEnum):
    """What a message asks or answers (on the wire: never renumber).

    Of raftpb's types only these travel between members; the others are calls of RaftNode's own methods here.
    """

    PROPOSE = 2
    APPEND = 3
    APPEND_RESPONSE = 4
    VOTE = 5
    VOTE_RESPONSE = 6
    SNAPSHOT = 7
    HEARTBEAT = 8
    HEARTBEAT_RESPONSE = 9
    TRANSFER_LEADER = 13
    TIMEOUT_NOW = 14
    READ_INDEX = 15
    READ_INDEX_RESPONSE = 16
    PRE_VOTE = 17
    PRE_VOTE_RESPONSE = 18


class Message(NamedTuple):
    """What one member says to another: raftpb.Message, with `from` named *sender*.

    APPEND: entries follow the position (*index*, *log_term*).  APPEND_RESPONSE: the log matches up to *index*, or with
    *reject* it does not match at *index* and (*reject_hint*, *log_term*) is where it may.  VOTE, PRE_VOTE: (*index*,
    *log_term*) is the candidate's last entry.  READ_INDEX and its answer: the one entry's data names the read.
    TRANSFER_LEADER: *sender* is who shall lead.  PROPOSE and READ_INDEX carry term 0.
    """

    type: MessageType
    to: MemberId
    sender: MemberId
    term: Term = Term(0)
    log_term: Term = Term(0)
    index: Index = Index(0)  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    entries: tuple[Entry, ...] = ()
    commit: Index = Index(0)
    reject: bool = False
    reject_hint: Index = Index(0)
    context: bytes = b""
    snapshot: Snapshot | None = None

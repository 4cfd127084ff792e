"""What raft keeps and says: entries, hard state, configurations, snapshots, messages.

These are the core's own types; wal/ and net/rafthttp turn them to and from the protobuf forms of the same names
(raftpb, see raft.proto).  Entries are tuples because every put makes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from core.types import Index, MemberId, Term


class EntryType(IntEnum):
    """What an entry's data is (on disk: never renumber)."""

    NORMAL = 0
    CONF_CHANGE = 1
    CONF_CHANGE_V2 = 2


class Entry(NamedTuple):
    """One position of the log.  *data* is empty in the entry that a new leader appends for itself."""

    term: Term
    index: Index
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

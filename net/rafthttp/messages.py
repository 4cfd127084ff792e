"""Raft messages to and from raftpb.Message, as bytes.

Entries are written by hand, since each put leaves once for every follower; everything else goes through the generated
classes.  What a peer sends is checked here, so that nothing beyond knows of protobuf: whatever is no message between
members raises ValueError.  Format: raftpb of etcd 3.5 (zero scalars may be written or missing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from core.mvcc.varint import varint
from core.raft.messages import (
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)
from core.tuples import make_tuple
from core.types import Index, MemberId, Term
from proto import raft_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_KINDS = {int(kind): kind for kind in MessageType}
_ENTRY_TYPES = tuple(EntryType)
_ENTRIES_TAG = b"\x3a"


class EntryEncoder:
    """Encodes entries; remembers the last batch, which usually goes to every follower in turn."""

    def __init__(self) -> None:
        self._last: Sequence[Entry] = ()
        self._encoded: list[bytes] = []
        self._prefix_of: tuple[int, int] = (-1, -1)
        self._prefix = b""

    def encode(self, entries: Sequence[Entry]) -> list[bytes]:
        """Return each of *entries* as raftpb.Entry."""
        if entries is self._last or entries == self._last:
            return self._encoded
        self._encoded = [self._encode(entry) for entry in entries]
        self._last = entries
        return self._encoded

    def _encode(self, entry: Entry) -> bytes:
        term, index, kind, data = entry
        if (term, kind) != self._prefix_of:
            self._prefix_of = (term, kind)
            self._prefix = b"\x08%b\x10%b\x18" % (varint(kind), varint(term))
        if not data:
            return self._prefix + varint(index)
        return b'%b%b"%b%b' % (self._prefix, varint(index), varint(len(data)), data)


def decode_entry(data: bytes) -> Entry:
    """Return the raftpb.Entry in *data*; ValueError."""
    try:
        entry = raft_pb2.Entry.FromString(data)
    except DecodeError as error:
        raise ValueError("not a raftpb.Entry") from error
    return make_tuple(Entry, (entry.Term, entry.Index, _ENTRY_TYPES[entry.Type], entry.Data))


def encode_message(message: Message, encode_entries: EntryEncoder) -> bytes:
    """Return *message* as raftpb.Message."""
    fields = raft_pb2.Message(
        type=raft_pb2.MessageType.Name(message.type),
        to=message.to,
        term=message.term,
        logTerm=message.log_term,
        index=message.index,
        commit=message.commit,
        reject=message.reject,
        rejectHint=message.reject_hint,
        context=message.context or None,
    )
    setattr(fields, "from", message.sender)
    if message.snapshot is not None:
        fields.snapshot.CopyFrom(_snapshot_fields(message.snapshot))
    head = fields.SerializeToString()
    if not message.entries:
        return head
    pieces = [head]
    for entry in encode_entries.encode(message.entries):
        pieces += (_ENTRIES_TAG, varint(len(entry)), entry)
    return b"".join(pieces)


def decode_message(data: bytes) -> Message | None:
    """Return the raftpb.Message in *data*; None for the link heartbeat, which is from nobody to nobody.

    ValueError for everything that members do not say to each other.
    """
    try:
        fields = raft_pb2.Message.FromString(data)
    except DecodeError as error:
        raise ValueError("not a raftpb.Message") from error
    kind = _KINDS.get(fields.type)
    if kind is None:
        raise ValueError(f"a message of type {fields.type}, which does not travel between members")
    to, sender = fields.to, getattr(fields, "from")
    if kind is MessageType.HEARTBEAT and not to and not sender:
        return None
    return Message(
        kind,
        MemberId(to),
        MemberId(sender),
        Term(fields.term),
        Term(fields.logTerm),
        Index(fields.index),
        tuple(
            Entry(Term(entry.Term), Index(entry.Index), _ENTRY_TYPES[entry.Type], entry.Data)
            for entry in fields.entries
        ),
        Index(fields.commit),
        fields.reject,
        Index(fields.rejectHint),
        fields.context,
        _snapshot(fields.snapshot) if kind is MessageType.SNAPSHOT and fields.HasField("snapshot") else None,
    )


def decode_message_alone(data: bytes) -> Message | None:
    """Return what decode_message does; ValueError also for a snapshot, whose message only comes with its file."""
    message = decode_message(data)
    if message is not None and message.type is MessageType.SNAPSHOT:
        raise ValueError("a snapshot's message without its file")
    return message


LINK_HEARTBEAT = raft_pb2.Message(type="MsgHeartbeat", to=0, term=0).SerializeToString()
"""Says that the connection lives: a heartbeat from nobody to nobody."""


def _snapshot_fields(snapshot: Snapshot) -> raft_pb2.Snapshot:
    metadata = snapshot.metadata
    state = metadata.conf_state
    return raft_pb2.Snapshot(
        data=snapshot.data or None,
        metadata=raft_pb2.SnapshotMetadata(
            conf_state=raft_pb2.ConfState(
                voters=state.voters,
                learners=state.learners,
                voters_outgoing=state.voters_outgoing,
                learners_next=state.learners_next,
                auto_leave=state.auto_leave,
            ),
            index=metadata.index,
            term=metadata.term,
        ),
    )


def _snapshot(fields: raft_pb2.Snapshot) -> Snapshot:
    def ids(numbers: Iterable[int]) -> tuple[MemberId, ...]:
        return tuple(MemberId(number) for number in numbers)

    metadata = fields.metadata
    state = metadata.conf_state
    conf_state = ConfState(
        ids(state.voters),
        ids(state.learners),
        ids(state.voters_outgoing),
        ids(state.learners_next),
        state.auto_leave,
    )
    return Snapshot(SnapshotMetadata(conf_state, Index(metadata.index), Term(metadata.term)), fields.data)

"""Raft's types to and from raftpb and walpb, as bytes.

Entries and hard states are written by hand, because every put makes one of each; the rest goes through the generated
classes.  Scalars are written even when zero, as etcd 3.5 does, and may be missing when read, as from etcd 3.7.
Decoders raise ValueError for anything that is not such a message, and no other error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from google.protobuf.message import DecodeError, Message

from core.mvcc.varint import varint
from core.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Snapshot,
    SnapshotMetadata,
)
from core.types import Index, MemberId, Term
from proto import etcdserver_pb2, raft_pb2, snap_pb2, wal_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

_ENTRY_TYPES: Final = tuple(EntryType)
_UINT64_MAX: Final = (1 << 64) - 1


class Metadata(NamedTuple):
    """Whose log it is; the first data of every segment."""

    node_id: MemberId
    cluster_id: int


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """That a snapshot was saved; *conf_state* is None in what etcd before 3.5 wrote, and in the record of index 0."""

    index: Index
    term: Term
    conf_state: ConfState | None


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at *at* and the position behind it; ValueError where it is cut off or exceeds 64 bits."""
    if at < len(data) and (number := data[at]) < 0x80:
        return number, at + 1
    number = shift = 0
    size = len(data)
    while at < size:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number > _UINT64_MAX:
                break
            return number, at
        shift += 7
        if shift > 63:
            break
    raise ValueError("a number that does not end")


def entry_prefix(term: int, kind: int) -> bytes:
    """Return the bytes of an entry up to its index, which all entries of one term and type share."""
    return b"\x08%b\x10%b\x18" % (varint(kind), varint(term))


def encode_entry(entry: Entry) -> bytes:
    """Return raftpb.Entry; an entry without data has no data field."""
    head = entry_prefix(entry.term, entry.type) + varint(entry.index)
    return b'%b"%b%b' % (head, varint(len(entry.data)), entry.data) if entry.data else head


def decode_entry(data: bytes) -> Entry:
    """Return the raftpb.Entry in *data*."""
    size = len(data)
    kind = term = index = at = 0
    content = b""
    while at < size:
        tag = data[at]
        if tag == 0x22:
            length, start = read_varint(data, at + 1)
            at = start + length
            if at > size:
                raise ValueError("an entry whose data is cut off")
            content = data[start:at]
        elif tag == 0x18:
            index, at = read_varint(data, at + 1)
        elif tag == 0x10:
            term, at = read_varint(data, at + 1)
        elif tag == 0x08:
            kind, at = read_varint(data, at + 1)
        else:
            raise ValueError(f"an entry with the unknown field tag {tag}")
    if kind >= len(_ENTRY_TYPES):
        raise ValueError(f"an entry of the unknown type {kind}")
    return Entry(Term(term), Index(index), _ENTRY_TYPES[kind], content)


def encode_hard_state(state: HardState) -> bytes:
    """Return raftpb.HardState."""
    return b"\x08%b\x10%b\x18%b" % (varint(state.term), varint(state.vote), varint(state.commit))


def decode_hard_state(data: bytes) -> HardState:
    """Return the raftpb.HardState in *data*."""
    numbers = [0, 0, 0, 0]
    at = 0
    while at < len(data):
        tag = data[at]
        if tag not in {0x08, 0x10, 0x18}:
            raise ValueError(f"a hard state with the unknown field tag {tag}")
        numbers[tag >> 3], at = read_varint(data, at + 1)
    _, term, vote, commit = numbers
    return HardState(Term(term), MemberId(vote), Index(commit))


def encode_metadata(metadata: Metadata) -> bytes:
    """Return etcdserverpb.Metadata."""
    message = etcdserver_pb2.Metadata(NodeID=metadata.node_id, ClusterID=metadata.cluster_id)
    return message.SerializeToString(deterministic=True)


def decode_metadata(data: bytes) -> Metadata:
    """Return the etcdserverpb.Metadata in *data*."""
    message = etcdserver_pb2.Metadata()
    _parse(message, data)
    return Metadata(MemberId(message.NodeID), message.ClusterID)


def encode_conf_state(state: ConfState) -> bytes:
    """Return raftpb.ConfState."""
    return _conf_state_message(state).SerializeToString(deterministic=True)


def decode_conf_state(data: bytes) -> ConfState:
    """Return the raftpb.ConfState in *data*."""
    message = raft_pb2.ConfState()
    _parse(message, data)
    return _conf_state(message)


def encode_snapshot_record(record: SnapshotRecord) -> bytes:
    """Return walpb.Snapshot."""
    message = wal_pb2.Snapshot(index=record.index, term=record.term)
    if record.conf_state is not None:
        message.conf_state.CopyFrom(_conf_state_message(record.conf_state))
    return message.SerializeToString(deterministic=True)


def decode_snapshot_record(data: bytes) -> SnapshotRecord:
    """Return the walpb.Snapshot in *data*."""
    message = wal_pb2.Snapshot()
    _parse(message, data)
    conf_state = _conf_state(message.conf_state) if message.HasField("conf_state") else None
    return SnapshotRecord(Index(message.index), Term(message.term), conf_state)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return raftpb.Snapshot."""
    metadata = snapshot.metadata
    message = raft_pb2.Snapshot(
        data=snapshot.data or None,
        metadata=raft_pb2.SnapshotMetadata(
            conf_state=_conf_state_message(metadata.conf_state), index=metadata.index, term=metadata.term
        ),
    )
    return message.SerializeToString(deterministic=True)


def decode_snapshot(data: bytes) -> Snapshot:
    """Return the raftpb.Snapshot in *data*."""
    message = raft_pb2.Snapshot()
    _parse(message, data)
    metadata = message.metadata
    return Snapshot(
        SnapshotMetadata(_conf_state(metadata.conf_state), Index(metadata.index), Term(metadata.term)), message.data
    )


def encode_snapshot_file(content: bytes, crc: int) -> bytes:
    """Return snappb.snapshot: *content* with the *crc* of it."""
    return snap_pb2.snapshot(crc=crc, data=content).SerializeToString(deterministic=True)


def decode_snapshot_file(data: bytes) -> tuple[bytes, int]:
    """Return the content and the checksum of the snappb.snapshot in *data*, unchecked."""
    message = snap_pb2.snapshot()
    _parse(message, data)
    return message.data, message.crc


def encode_conf_change(change: ConfChange) -> bytes:
    """Return raftpb.ConfChange, the data of a CONF_CHANGE entry."""
    message = raft_pb2.ConfChange(
        id=change.id,
        type=raft_pb2.ConfChangeType.Name(change.type),
        node_id=change.node_id,
        context=change.context or None,
    )
    return message.SerializeToString(deterministic=True)


def decode_conf_change(data: bytes) -> ConfChange:
    """Return the raftpb.ConfChange in *data*."""
    message = raft_pb2.ConfChange()
    _parse(message, data)
    return ConfChange(ConfChangeType(message.type), MemberId(message.node_id), message.id, message.context)


def encode_conf_change_v2(change: ConfChangeV2) -> bytes:
    """Return raftpb.ConfChangeV2, the data of a CONF_CHANGE_V2 entry."""
    message = raft_pb2.ConfChangeV2(
        transition=raft_pb2.ConfChangeTransition.Name(change.transition),
        changes=[
            raft_pb2.ConfChangeSingle(type=raft_pb2.ConfChangeType.Name(single.type), node_id=single.node_id)
            for single in change.changes
        ],
        context=change.context or None,
    )
    return message.SerializeToString(deterministic=True)


def decode_conf_change_v2(data: bytes) -> ConfChangeV2:
    """Return the raftpb.ConfChangeV2 in *data*."""
    message = raft_pb2.ConfChangeV2()
    _parse(message, data)
    changes = tuple(ConfChangeSingle(ConfChangeType(one.type), MemberId(one.node_id)) for one in message.changes)
    return ConfChangeV2(ConfChangeTransition(message.transition), changes, message.context)


def decode_change(entry: Entry) -> ConfChange | ConfChangeV2:
    """Return the change that *entry*, of one of the two types that have one, holds; ValueError."""
    if entry.type is EntryType.CONF_CHANGE_V2:
        return decode_conf_change_v2(entry.data)
    return decode_conf_change(entry.data)


def _parse(message: Message, data: bytes) -> None:
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"not a {message.DESCRIPTOR.full_name}") from error


def _conf_state_message(state: ConfState) -> raft_pb2.ConfState:
    return raft_pb2.ConfState(
        voters=state.voters,
        learners=state.learners,
        voters_outgoing=state.voters_outgoing,
        learners_next=state.learners_next,
        auto_leave=state.auto_leave,
    )


def _conf_state(message: raft_pb2.ConfState) -> ConfState:
    def ids(numbers: Iterable[int]) -> tuple[MemberId, ...]:
        return tuple(MemberId(number) for number in numbers)

    return ConfState(
        ids(message.voters),
        ids(message.learners),
        ids(message.voters_outgoing),
        ids(message.learners_next),
        message.auto_leave,
    )

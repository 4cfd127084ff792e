"""Raft's types as bytes: golden ones written out by hand, and agreement with the generated classes."""

from __future__ import annotations

import pytest

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
from proto import raft_pb2
from wal import codec

BIG = (1 << 64) - 1

ENTRIES = {
    "leader's empty entry": (Entry(Term(2), Index(3), EntryType.NORMAL, b""), "0800 1002 1803"),
    "data": (Entry(Term(1), Index(300), EntryType.NORMAL, b"ab"), "0800 1001 18ac02 2202 6162"),
    "conf change": (Entry(Term(1), Index(1), EntryType.CONF_CHANGE, b"c"), "0801 1001 1801 2201 63"),
    "large numbers": (
        Entry(Term(BIG), Index(BIG), EntryType.CONF_CHANGE_V2, b""),
        "0802 10ffffffffffffffffff01 18ffffffffffffffffff01",
    ),
}


@pytest.mark.parametrize(("entry", "encoded"), ENTRIES.values(), ids=ENTRIES)
def test_entries_are_written_as_etcd_3_5_does(entry: Entry, encoded: str) -> None:
    """Type, term and index stand there even when zero, data only when there is any."""
    assert codec.encode_entry(entry) == bytes.fromhex(encoded)
    assert codec.decode_entry(bytes.fromhex(encoded)) == entry


@pytest.mark.parametrize(("entry", "encoded"), ENTRIES.values(), ids=ENTRIES)
def test_entries_agree_with_protobuf(entry: Entry, encoded: str) -> None:
    """The hand-written encoding is what any protobuf implementation makes of the same fields."""
    message = raft_pb2.Entry(Term=entry.term, Index=entry.index, Type=int(entry.type))  # type: ignore[arg-type]  # an enum's number is accepted
    if entry.data:
        message.Data = entry.data
    assert message.SerializeToString() == bytes.fromhex(encoded)


def test_an_entry_without_zeros_is_read() -> None:
    """Etcd 3.7 leaves out what is zero."""
    assert codec.decode_entry(bytes.fromhex("1002 1803")) == Entry(Term(2), Index(3), EntryType.NORMAL, b"")
    assert codec.decode_entry(b"") == Entry(Term(0), Index(0), EntryType.NORMAL, b"")


@pytest.mark.parametrize(
    "encoded",
    ["08", "0880", "2205 61", "0803", "2a00", "0900", "10ffffffffffffffffff02", "10ffffffffffffffffffff01", "22ff"],
)
def test_what_is_no_entry_is_refused(encoded: str) -> None:
    """Cut off, of an unknown type, with an unknown field, with a number beyond 64 bits: ValueError each."""
    with pytest.raises(ValueError, match=r"entry|number"):
        codec.decode_entry(bytes.fromhex(encoded))


def test_hard_states_are_written_with_zeros_and_read_without() -> None:
    """All three numbers are there in 3.5's form; 3.7's lacks zeros."""
    state = HardState(Term(5), MemberId(0), Index(0x123))
    assert codec.encode_hard_state(state) == bytes.fromhex("0805 1000 18a302")
    assert codec.decode_hard_state(bytes.fromhex("0805 18a302")) == state


@pytest.mark.parametrize("encoded", ["08", "2001", "0805 1000 1801 2200"])
def test_what_is_no_hard_state_is_refused(encoded: str) -> None:
    """An entry's bytes must not pass for a hard state when a record's type has lost a bit."""
    with pytest.raises(ValueError, match=r"hard state|number"):
        codec.decode_hard_state(bytes.fromhex(encoded))


def test_metadata_holds_both_ids() -> None:
    """Member and cluster id tell whose log it is."""
    metadata = codec.Metadata(MemberId(0x1234), 0)
    assert codec.encode_metadata(metadata) == bytes.fromhex("08b424 1000")
    assert codec.decode_metadata(bytes.fromhex("08b424")) == metadata


CONF_STATE = ConfState((MemberId(1), MemberId(2)), (MemberId(3),), (MemberId(4),), (MemberId(5),), auto_leave=True)


def test_a_conf_state_lists_its_ids_unpacked() -> None:
    """One tag an id, as proto2 has it, and auto_leave even when false."""
    assert codec.encode_conf_state(ConfState((MemberId(1), MemberId(300)))) == bytes.fromhex("0801 08ac02 2800")
    assert codec.decode_conf_state(bytes.fromhex("0801 08ac02")) == ConfState((MemberId(1), MemberId(300)))
    assert codec.decode_conf_state(codec.encode_conf_state(CONF_STATE)) == CONF_STATE


def test_snapshot_records_may_lack_the_conf_state() -> None:
    """The first record of every log does, and so do those of etcd before 3.5."""
    first = codec.SnapshotRecord(Index(0), Term(0), None)
    assert codec.encode_snapshot_record(first) == bytes.fromhex("0800 1000")
    later = codec.SnapshotRecord(Index(9), Term(2), ConfState((MemberId(1),)))
    assert codec.encode_snapshot_record(later) == bytes.fromhex("0809 1002 1a04 0801 2800")
    for record in (first, later):
        assert codec.decode_snapshot_record(codec.encode_snapshot_record(record)) == record


def test_a_snapshot_keeps_all() -> None:
    """Data first, metadata with its zeros after it."""
    snapshot = Snapshot(SnapshotMetadata(ConfState(), Index(0), Term(1)), b"x")
    assert codec.encode_snapshot(snapshot) == bytes.fromhex("0a01 78 1208 0a02 2800 1000 1801")
    full = Snapshot(SnapshotMetadata(CONF_STATE, Index(7), Term(1)))
    assert codec.decode_snapshot(codec.encode_snapshot(full)) == full


def test_conf_changes_keep_all() -> None:
    """These are the data of entries that etcd must understand."""
    change = ConfChange(ConfChangeType.ADD_NODE, MemberId(2), 0, b"{}")
    assert codec.encode_conf_change(change) == bytes.fromhex("0800 1000 1802 2202 7b7d")
    removal = ConfChange(ConfChangeType.REMOVE_NODE, MemberId(BIG), 77)
    assert codec.decode_conf_change(codec.encode_conf_change(removal)) == removal
    joint = ConfChangeV2(
        ConfChangeTransition.JOINT_EXPLICIT,
        (
            ConfChangeSingle(ConfChangeType.ADD_LEARNER_NODE, MemberId(1)),
            ConfChangeSingle(ConfChangeType.UPDATE_NODE, MemberId(2)),
        ),
        b"c",
    )
    assert codec.decode_conf_change_v2(codec.encode_conf_change_v2(joint)) == joint
    assert codec.decode_conf_change_v2(b"") == ConfChangeV2()

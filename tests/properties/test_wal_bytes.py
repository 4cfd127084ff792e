"""Codecs give back what they were given, and no bytes in a file raise anything but the named errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from wal.errors import SnapshotNotFound, WalCorrupt
from wal.filesystem import MemoryFileSystem
from wal.log import WriteAheadLog, valid_snapshots
from wal.record import ENTRY, RecordReader, frame_crc, frame_entries
from wal.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path("/wal")
NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, (1 << 64) - 1))
TERMS, INDEXES, MEMBERS = NUMBERS.map(Term), NUMBERS.map(Index), NUMBERS.map(MemberId)
MEMBER_LISTS = st.lists(MEMBERS, max_size=4).map(tuple)
ENTRIES = st.builds(Entry, TERMS, INDEXES, st.sampled_from(EntryType), st.binary(max_size=300))
CONF_STATES = st.builds(ConfState, MEMBER_LISTS, MEMBER_LISTS, MEMBER_LISTS, MEMBER_LISTS, st.booleans())
SNAPSHOTS = st.builds(Snapshot, st.builds(SnapshotMetadata, CONF_STATES, INDEXES, TERMS), st.binary(max_size=100))
TYPES = st.sampled_from(ConfChangeType)
CHANGES = st.builds(ConfChange, TYPES, MEMBERS, NUMBERS, st.binary(max_size=20))
JOINT_CHANGES = st.builds(
    ConfChangeV2,
    st.sampled_from(ConfChangeTransition),
    st.lists(st.builds(ConfChangeSingle, TYPES, MEMBERS), max_size=3).map(tuple),
    st.binary(max_size=20),
)

PAIRS = {
    "entry": (ENTRIES, codec.encode_entry, codec.decode_entry),
    "hard state": (st.builds(HardState, TERMS, MEMBERS, INDEXES), codec.encode_hard_state, codec.decode_hard_state),
    "metadata": (st.builds(codec.Metadata, MEMBERS, NUMBERS), codec.encode_metadata, codec.decode_metadata),
    "conf state": (CONF_STATES, codec.encode_conf_state, codec.decode_conf_state),
    "snapshot record": (
        st.builds(codec.SnapshotRecord, INDEXES, TERMS, st.one_of(st.none(), CONF_STATES)),
        codec.encode_snapshot_record,
        codec.decode_snapshot_record,
    ),
    "snapshot": (SNAPSHOTS, codec.encode_snapshot, codec.decode_snapshot),
    "conf change": (CHANGES, codec.encode_conf_change, codec.decode_conf_change),
    "conf change v2": (JOINT_CHANGES, codec.encode_conf_change_v2, codec.decode_conf_change_v2),
}


@pytest.mark.parametrize("name", PAIRS)
@given(data=st.data())
def test_codecs_give_back_what_they_got(name: str, data: st.DataObject) -> None:
    """Encoding loses nothing."""
    values, encode, decode = PAIRS[name]
    value = data.draw(values)
    assert decode(encode(value)) == value  # type: ignore[operator]  # a row's own types


@pytest.mark.parametrize("name", PAIRS)
@given(content=st.binary(max_size=60))
def test_decoders_only_raise_value_error(name: str, content: bytes) -> None:
    """Bytes that mean nothing are refused in the one way that callers are ready for."""
    decode: Callable[[bytes], object] = PAIRS[name][2]
    try:
        decode(content)
    except ValueError:
        return


@given(ENTRIES)
def test_entries_are_those_of_protobuf(entry: Entry) -> None:
    """The hand-written form is read by the generated class."""
    message = raft_pb2.Entry.FromString(codec.encode_entry(entry))
    assert (message.Term, message.Index, int(message.Type), message.Data) == entry


@given(st.lists(ENTRIES, max_size=20), st.integers(0, (1 << 32) - 1))
def test_frames_give_back_entries(entries: list[Entry], crc: int) -> None:
    """Whatever neighbours share or do not share, each entry is framed whole, and the chain holds."""
    pieces, after = frame_entries(entries, crc)
    reader = RecordReader("x", frame_crc(crc) + b"".join(pieces), crc)
    records = list(iter(reader.next, None))[1:]
    assert [codec.decode_entry(record.data) for record in records] == entries
    assert {record.kind for record in records} <= {ENTRY}
    assert reader.crc == after


def sound_segment() -> bytes:
    """The bytes of a small log."""
    fs = MemoryFileSystem()
    log = WriteAheadLog.create(FOLDER, fs, codec.Metadata(MemberId(1), 2), segment_size_bytes=3000)
    for index in range(1, 9):
        entry = Entry(Term(1), Index(index), EntryType.NORMAL, bytes([index]) * 70)
        log.append([entry], HardState(Term(1), MemberId(1), Index(index)))
    log.save_snapshot(Index(4), Term(1), ConfState((MemberId(1),)))
    log.close()
    return content(fs, fs.list(FOLDER)[0])


def content(fs: MemoryFileSystem, name: str) -> bytes:
    """All bytes of a file."""
    file = fs.open(FOLDER / name)
    return file.read_at(0, file.size())


SOUND = sound_segment()
SPLICES = st.lists(
    st.tuples(st.integers(0, len(SOUND)), st.integers(0, 40), st.one_of(st.binary(max_size=40), st.just(bytes(600)))),
    max_size=4,
)


def spliced(data: bytes, splices: list[tuple[int, int, bytes]]) -> bytes:
    """*data* with some ranges replaced."""
    for at, size, replacement in splices:
        data = data[:at] + replacement + data[at + size :]
    return data


def disk_with(name: str, data: bytes) -> MemoryFileSystem:
    """A disk with one file."""
    fs = MemoryFileSystem()
    fs.make_folder(FOLDER)
    file = fs.create(FOLDER / name)
    file.write_at(0, data)
    file.fdatasync()
    file.close()
    return fs


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=200), SPLICES.map(lambda splices: spliced(SOUND, splices))))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """A damaged log is refused by a named error, or read; and a log that was read once is read again the same."""
    fs = disk_with(f"{0:016x}-{0:016x}.wal", data)
    for snapshot in sorted(valid_snapshots(FOLDER, fs)) or [(Index(0), Term(0))]:
        try:
            log, replay = WriteAheadLog.open(FOLDER, fs, snapshot, segment_size_bytes=3000)
        except (WalCorrupt, SnapshotNotFound):
            continue
        log.append([Entry(Term(1 << 60), Index(log_end(snapshot[0], replay.entries)), EntryType.NORMAL, b"x")], None)
        log.close()
        log, again = WriteAheadLog.open(FOLDER, fs, snapshot, segment_size_bytes=3000)
        log.close()
        assert again.entries[:-1] == replay.entries
        assert (again.hard_state, again.metadata, again.cut) == (replay.hard_state, replay.metadata, None)


def log_end(index: int, entries: list[Entry]) -> int:
    """The index of the next entry."""
    return index + len(entries) + 1


@given(SNAPSHOTS, st.one_of(st.binary(max_size=100), SPLICES))
def test_no_bytes_break_a_snapshot(snapshot: Snapshot, damage: bytes | list[tuple[int, int, bytes]]) -> None:
    """A snapshot file is the one that was saved, or it is set aside."""
    fs = MemoryFileSystem()
    fs.make_folder(FOLDER)
    snapshots = Snapshots(FOLDER, fs, 0)
    snapshots.save(snapshot)
    (name,) = fs.list(FOLDER)
    data = content(fs, name)
    data = damage if isinstance(damage, bytes) else spliced(data, damage)
    fs = disk_with(name, data)
    found = Snapshots(FOLDER, fs, 0).newest({(snapshot.metadata.index, snapshot.metadata.term)})
    assert found in {None, snapshot}
    assert fs.list(FOLDER) == [name if found else f"{name}.broken"]

"""The log as a whole, on a fake disk: what it writes, keeps, survives and refuses."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.raft.messages import ConfState, Entry, EntryType, HardState
from core.types import Index, MemberId, Term
from wal.codec import Metadata, encode_entry
from wal.errors import DiskFull, SnapshotNotFound, WalCorrupt, WalFailed, WalLocked
from wal.filesystem import MemoryFileSystem, PosixFileSystem
from wal.log import WriteAheadLog, exists, valid_snapshots
from wal.record import CRC, ENTRY, METADATA, SNAPSHOT, STATE, RecordReader, frame_crc, frame_record

if TYPE_CHECKING:
    from wal.replay import Replay

FOLDER = Path("/data/wal")
METADATA_HERE = Metadata(MemberId(0x1234), 0x5678)
FROM_THE_START = (Index(0), Term(0))
SEGMENT_SIZE_BYTES = 4096
CONF_STATE = ConfState((MemberId(0x1234),))
FIRST_NAME = "0000000000000000-0000000000000000.wal"


def entry(index: int, term: int = 1, size: int = 100) -> Entry:
    """An entry whose data tells its index and holds no zero byte."""
    return Entry(Term(term), Index(index), EntryType.NORMAL, bytes([index % 255 + 1]) * size)


def state(commit: int, term: int = 1) -> HardState:
    """A hard state with a vote."""
    return HardState(Term(term), METADATA_HERE.node_id, Index(commit))


def new_log(fs: MemoryFileSystem, max_wals: int = 0, segment_size_bytes: int = SEGMENT_SIZE_BYTES) -> WriteAheadLog:
    """A new log on a new disk."""
    fs.make_folder(FOLDER.parent)
    return WriteAheadLog.create(FOLDER, fs, METADATA_HERE, segment_size_bytes=segment_size_bytes, max_wals=max_wals)


def open_log(fs: MemoryFileSystem, index: int = 0, term: int = 0, max_wals: int = 0) -> tuple[WriteAheadLog, Replay]:
    """The log that is there."""
    return WriteAheadLog.open(
        FOLDER, fs, (Index(index), Term(term)), segment_size_bytes=SEGMENT_SIZE_BYTES, max_wals=max_wals
    )


def reopened(fs: MemoryFileSystem, index: int = 0, term: int = 0) -> Replay:
    """What the log says to whoever opens it next."""
    log, replay = open_log(fs, index, term)
    log.close()
    return replay


def content(fs: MemoryFileSystem, name: str) -> bytes:
    """All bytes of a file of the log."""
    file = fs.open(FOLDER / name)
    return file.read_at(0, file.size())


def replace(fs: MemoryFileSystem, name: str, data: bytes) -> None:
    """Put other bytes into a file of the log, durably."""
    file = fs.create(FOLDER / name)
    file.write_at(0, data)
    file.fdatasync()
    file.close()


def fill(log: WriteAheadLog, first: int, last: int) -> None:
    """Append and sync entries one by one."""
    for index in range(first, last + 1):
        log.append([entry(index)], state(index))
        log.sync()


def segments(fs: MemoryFileSystem) -> list[str]:
    """The names of all segments."""
    return [name for name in fs.list(FOLDER) if name.endswith(".wal")]


def kinds(data: bytes) -> list[int]:
    """The types of all records in a segment."""
    return [record.kind for record in iter(RecordReader("x", data, None).next, None)]


def test_a_new_log_is_etcds() -> None:
    """Checksum, metadata and the snapshot of index 0, in a preallocated file of that name, and nothing else."""
    fs = MemoryFileSystem()
    assert not exists(FOLDER, fs)
    new_log(fs).close()
    assert exists(FOLDER, fs)
    assert fs.list(FOLDER.parent) == ["wal"]
    assert fs.list(FOLDER) == [FIRST_NAME]
    metadata, crc = frame_record(METADATA, bytes.fromhex("08b424 10f8ac01"), 0)
    snapshot, _ = frame_record(SNAPSHOT, bytes.fromhex("0800 1000"), crc)
    expected = frame_crc(0) + metadata + snapshot
    assert content(fs, FIRST_NAME) == expected.ljust(SEGMENT_SIZE_BYTES, b"\0")


def test_a_new_log_may_begin_with_entries() -> None:
    """They are as durable as the log itself: one without them would be of a member that knows of no cluster."""
    fs = MemoryFileSystem()
    fs.make_folder(FOLDER.parent)
    first = [entry(1), entry(2)]
    WriteAheadLog.create(FOLDER, fs, METADATA_HERE, entries=first, hard_state=state(2))
    fs.crash()
    log, replay = open_log(fs)
    assert (list(replay.entries), replay.hard_state) == (first, state(2))
    log.append([entry(3)], state(3))
    log.close()
    assert [each.index for each in reopened(fs).entries] == [1, 2, 3]


def test_a_new_log_appears_whole_or_not_at_all() -> None:
    """A crash right after creation keeps it; one that is left half built is built again."""
    fs = MemoryFileSystem()
    fs.make_folder(FOLDER.with_name("wal.tmp"))
    fs.create(FOLDER.with_name("wal.tmp") / "left over").close()
    assert not exists(FOLDER, fs)
    new_log(fs)
    fs.crash()
    assert fs.list(FOLDER.parent) == ["wal"]
    replay = reopened(fs)
    assert (replay.metadata, replay.entries, replay.cut) == (METADATA_HERE, [], None)
    assert replay.hard_state == HardState(Term(0), MemberId(0), Index(0))


def test_a_new_log_takes_the_place_of_an_empty_folder() -> None:
    """Whoever made the data folder may have made this one too."""
    fs = MemoryFileSystem()
    fs.make_folder(FOLDER)
    assert not exists(FOLDER, fs)
    new_log(fs).close()
    assert fs.list(FOLDER) == [FIRST_NAME]


def test_a_new_log_removes_nothing() -> None:
    """A folder with anything in it, a log above all, is refused and stays as it was."""
    fs = MemoryFileSystem()
    new_log(fs).close()
    with pytest.raises(WalFailed, match=f"a new log needs an empty folder, and there is {FIRST_NAME}"):
        new_log(fs)
    assert fs.list(FOLDER) == [FIRST_NAME]


def test_a_log_that_is_not_there_is_a_failure() -> None:
    """Neither question about it ends in an error without a name."""
    fs = MemoryFileSystem()
    assert not exists(FOLDER, fs)
    with pytest.raises(WalFailed, match="No such file"):
        valid_snapshots(FOLDER, fs)
    with pytest.raises(WalFailed, match="No such file"):
        open_log(fs)


def test_what_was_synced_survives_a_crash() -> None:
    """That is what a log is for."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    log.append([entry(1), entry(2)], state(0))
    log.append([], state(2))
    log.sync()
    log.append([entry(3)], state(3))
    fs.crash()
    replay = reopened(fs)
    assert (replay.entries, replay.hard_state, replay.cut) == ([entry(1), entry(2)], state(2), None)


def test_a_batch_is_one_write_and_one_sync() -> None:
    """Many entries cost what one costs, and their bytes are told."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    writes, syncs = fs.writes, fs.syncs
    size = log.append([entry(index) for index in range(1, 8)], state(3))
    log.sync()
    assert (fs.writes - writes, fs.syncs - syncs) == (1, 1)
    assert len(content(fs, FIRST_NAME).rstrip(b"\0")) == pytest.approx(size + 100, abs=60)
    log.sync()
    assert log.append([], None) == 0
    assert log.append([], HardState(Term(0), MemberId(0), Index(0))) == 0
    log.sync()
    assert (fs.writes - writes, fs.syncs - syncs) == (1, 1)
    log.close()


def test_a_full_segment_is_followed_by_the_next() -> None:
    """Each starts with the chain's value, the metadata and the last hard state; the one before loses its padding."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 60)
    log.close()
    names = segments(fs)
    assert names[:2] == [FIRST_NAME, "0000000000000001-000000000000001b.wal"]
    assert fs.list(FOLDER) == names
    for name in names[1:]:
        assert kinds(content(fs, name))[:3] == [CRC, METADATA, STATE]
    for name in names[:-1]:
        reader = RecordReader(name, content(fs, name), None)
        assert ENTRY in [record.kind for record in iter(reader.next, None)]
        assert SEGMENT_SIZE_BYTES <= reader.offset == len(content(fs, name)) < SEGMENT_SIZE_BYTES + 200
    assert len(content(fs, names[-1])) == SEGMENT_SIZE_BYTES
    replay = reopened(fs)
    assert replay.entries == [entry(index) for index in range(1, 61)]
    assert replay.hard_state == state(60)


def test_the_next_segment_is_ready_ahead() -> None:
    """Its room is reserved while there is some, and the reserve goes when the log is closed."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 20)
    assert fs.list(FOLDER) == ["0.tmp", FIRST_NAME]
    assert len(content(fs, "0.tmp")) == SEGMENT_SIZE_BYTES
    fill(log, 21, 45)
    assert fs.list(FOLDER) == [*segments(fs), "1.tmp"]
    log.close()
    assert fs.list(FOLDER) == segments(fs)


def test_an_opened_log_goes_on() -> None:
    """The chain, the names and the last hard state carry over a restart, in any segment."""
    fs = MemoryFileSystem()
    new_log(fs).close()
    for first in range(1, 91, 7):
        log, replay = open_log(fs)
        assert replay.entries == [entry(index) for index in range(1, first)]
        assert replay.hard_state.commit == first - 1
        fill(log, first, first + 6)
        log.close()
    assert len(segments(fs)) > 3


def test_a_log_is_held_by_one() -> None:
    """A second writer would destroy it."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 40)
    with pytest.raises(WalLocked, match="fileutil: file already locked"):
        open_log(fs)
    log.close()
    reopened(fs)


def test_a_failed_open_holds_nothing() -> None:
    """After a refusal the log can be opened the right way."""
    fs = MemoryFileSystem()
    new_log(fs).close()
    with pytest.raises(SnapshotNotFound):
        open_log(fs, 5, 1)
    reopened(fs)


def test_later_entries_replace_earlier_ones() -> None:
    """A new leader overwrites what was never committed, from its first index on."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    log.append([entry(index) for index in range(1, 6)], state(2))
    log.append([entry(3, term=2), entry(4, term=2)], state(2, term=2))
    log.close()
    assert reopened(fs).entries == [entry(1), entry(2), entry(3, term=2), entry(4, term=2)]


def test_a_snapshot_is_where_reading_starts() -> None:
    """Entries up to it are left out, and so are segments that end before it."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 60)
    log.save_snapshot(Index(50), Term(1), CONF_STATE)
    fs.crash()
    assert valid_snapshots(FOLDER, fs) == {FROM_THE_START, (50, 1)}
    replace(fs, FIRST_NAME, b"not read")
    replay = reopened(fs, 50, 1)
    assert replay.entries == [entry(index) for index in range(51, 61)]
    assert (replay.hard_state, replay.metadata) == (state(60), METADATA_HERE)


def test_a_snapshot_ahead_of_the_commit_is_not_valid() -> None:
    """Its record was synced, and the hard state that goes with it was not."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    log.append([entry(1)], state(1))
    log.save_snapshot(Index(9), Term(2), CONF_STATE)
    log.close()
    assert valid_snapshots(FOLDER, fs) == {FROM_THE_START}


def test_a_leaders_snapshot_replaces_another_history() -> None:
    """Entries of the old history behind the snapshot must not come back after a restart."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    log.append([entry(index) for index in range(1, 13)], state(2))
    log.save_snapshot(Index(10), Term(3), CONF_STATE)
    log.append([], state(10, term=3))
    log.close()
    assert reopened(fs, 10, 3).entries == []
    log, _ = open_log(fs, 10, 3)
    log.append([entry(11, term=3)], None)
    log.close()
    assert reopened(fs, 10, 3).entries == [entry(11, term=3)]


def test_segments_after_a_leaders_snapshot_are_named_by_it() -> None:
    """The next segment's name must not send a reader who starts at the snapshot too far back, or too far ahead."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    log.append([entry(index) for index in range(1, 41)], state(2))
    log.save_snapshot(Index(1000), Term(3), CONF_STATE)
    log.append([], state(1000, term=3))
    log.sync()
    assert segments(fs)[-1] == f"{1:016x}-{1001:016x}.wal"
    log.append([entry(1001, term=3)], None)
    log.close()
    assert reopened(fs, 1000, 3).entries == [entry(1001, term=3)]


@pytest.mark.parametrize(
    ("index", "term", "message"),
    [(7, 1, "index 7, term 1: the log has no record of it"), (1, 0, "the log has no record of it")],
)
def test_an_unknown_snapshot_is_refused(index: int, term: int, message: str) -> None:
    """Starting from a snapshot that the log does not know would skip or repeat entries."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 10)
    log.close()
    with pytest.raises(SnapshotNotFound, match=message):
        reopened(fs, index, term)


def test_a_snapshot_of_another_term_is_refused() -> None:
    """Two snapshots of one index belong to two histories."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 10)
    log.save_snapshot(Index(5), Term(1), CONF_STATE)
    log.close()
    with pytest.raises(WalCorrupt, match="expected a snapshot of term 2, found term 1"):
        reopened(fs, 5, 2)


def test_release_lets_go_of_old_segments() -> None:
    """What lies wholly before the index is unlocked, and removed beyond the number to keep."""
    fs = MemoryFileSystem()
    log = new_log(fs, max_wals=3)
    fill(log, 1, 200)
    before = segments(fs)
    assert len(before) == 8
    log.remove(log.release(before=Index(1)))
    assert segments(fs) == before
    needless = log.release(before=Index(100))
    log.remove(needless)
    log.remove(needless)  # a round that was asked for before this one had ended
    names = segments(fs)
    held = [name for name in names if int(name[17:33], 16) < 100]
    assert len(held) == 1
    log.remove(log.release(before=Index(201)))
    assert segments(fs) == before[-3:]
    fill(log, 201, 210)
    log.close()
    assert exists(FOLDER, fs)


def test_segments_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes at once would hold up the log's next sync."""
    fs = MemoryFileSystem()
    log = new_log(fs, max_wals=1)
    fill(log, 1, 200)
    removed: list[Path] = []
    monkeypatch.setattr(fs, "remove_in_pieces", removed.append)
    needless = log.release(before=Index(201))
    log.remove(needless)
    assert removed == needless != []
    log.close()


def test_without_a_limit_all_segments_stay() -> None:
    """The limit 0 keeps everything; released segments can be read by others."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 100)
    assert log.release(before=Index(90)) == []
    names = segments(fs)
    assert names[0] == FIRST_NAME
    file = fs.open(FOLDER / FIRST_NAME)
    file.lock()
    file.close()
    log.close()


def test_segments_that_are_gone_are_missed() -> None:
    """A hole in the sequence and a log that starts too late are told apart."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 100)
    log.close()
    names = segments(fs)
    fs.remove(FOLDER / names[1])
    with pytest.raises(WalCorrupt, match="expected segment 0000000000000001, found segment 0000000000000002"):
        reopened(fs)
    fs.remove(FOLDER / names[0])
    with pytest.raises(SnapshotNotFound, match="no segment reaches back that far"):
        reopened(fs)


def test_a_tail_cut_anywhere_gives_a_prefix() -> None:
    """All whole records of a file that ends in the middle of one are recovered; the rest is told of and kept."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    reader = RecordReader("x", content(fs, FIRST_NAME), None)
    list(iter(reader.next, None))
    head = reader.offset
    ends = []
    for index in range(1, 7):
        head += log.append([entry(index, size=40 + index)], None)
        ends.append(head)
    log.close()
    whole = content(fs, FIRST_NAME)
    for size in range(ends[0], ends[-1]):
        data = whole[:size]
        replace(fs, FIRST_NAME, data)
        replay = reopened(fs)
        kept = [index for index, end in enumerate(ends, start=1) if end <= size]
        assert replay.entries == [entry(index, size=40 + index) for index in kept], size
        if size == ends[len(kept) - 1]:
            assert replay.cut is None
        else:
            good = ends[len(kept) - 1]
            assert replay.cut == (FIRST_NAME, good, size - good)
            assert content(fs, f"{FIRST_NAME}.broken") == data
        assert content(fs, FIRST_NAME) == whole[: ends[len(kept) - 1]].ljust(SEGMENT_SIZE_BYTES, b"\0")


def test_a_repaired_log_goes_on() -> None:
    """After a cut the chain continues from the last good record, and the repair is durable."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 5)
    log.close()
    data = content(fs, FIRST_NAME).rstrip(b"\0")
    replace(fs, FIRST_NAME, data[:-60])
    log, replay = open_log(fs)
    fs.crash()
    assert replay.cut is not None
    log, replay = open_log(fs)
    assert replay.cut is None
    last = replay.entries[-1].index
    fill(log, last + 1, 50)
    log.close()
    assert reopened(fs).entries == [entry(index) for index in range(1, 51)]


def test_bytes_behind_the_end_are_cut() -> None:
    """A later sector of a torn write may have survived alone: overwriting half of it would make rot of it."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 2)
    log.close()
    data = bytearray(content(fs, FIRST_NAME))
    end = len(data.rstrip(b"\0")) // 8 * 8 + 8
    data[2048:2560] = b"x" * 512
    replace(fs, FIRST_NAME, bytes(data))
    replay = reopened(fs)
    assert replay.entries == [entry(1), entry(2)]
    assert replay.cut is not None
    assert replay.cut.file == FIRST_NAME
    assert replay.cut.offset <= end
    assert replay.cut.offset + replay.cut.byte_count == 2560
    assert content(fs, FIRST_NAME)[2048:] == bytes(2048)


def test_a_torn_record_before_the_last_segment_is_corruption() -> None:
    """Only the last segment was being written when the crash came."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 60)
    log.close()
    data = content(fs, FIRST_NAME)
    replace(fs, FIRST_NAME, data[:-16])
    with pytest.raises(WalCorrupt, match=FIRST_NAME):
        reopened(fs)
    assert content(fs, FIRST_NAME) == data[:-16]


def test_a_segment_that_ends_early_is_noticed_in_the_next() -> None:
    """Records lost at a whole record's end are missed by the chain."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 60)
    log.close()
    names = segments(fs)
    reader = RecordReader("x", content(fs, FIRST_NAME), None)
    offsets = [record.offset for record in iter(reader.next, None)]
    replace(fs, FIRST_NAME, content(fs, FIRST_NAME)[: offsets[-1]])
    with pytest.raises(WalCorrupt, match="handed on") as caught:
        reopened(fs)
    assert (caught.value.file, caught.value.offset) == (names[1], 0)


@pytest.mark.parametrize("size", [0, 8, 16, 20, 40])
def test_a_segments_head_is_never_torn(size: int) -> None:
    """It was synced before the segment had its name, so damage there is no crash's doing."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 60)
    log.close()
    last = segments(fs)[-1]
    replace(fs, last, content(fs, last)[:size])
    with pytest.raises(WalCorrupt, match=last):
        reopened(fs)


def test_no_flipped_bit_before_the_tail_goes_unnoticed() -> None:
    """Wherever one bit has changed, the log names file and offset and stops, and changes nothing."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    log.append([entry(1, size=30)], state(0))
    log.append([Entry(Term(1), Index(2), EntryType.NORMAL, b"")], state(1))
    log.save_snapshot(Index(1), Term(1), CONF_STATE)
    log.append([entry(3, term=2, size=7)], state(3, term=2))
    log.append([entry(4, term=2, size=20)], None)
    log.append([entry(5, term=2, size=20)], None)
    log.close()
    whole = content(fs, FIRST_NAME)
    reader = RecordReader("x", whole, None)
    offsets = [record.offset for record in iter(reader.next, None)]
    for position in range(offsets[-1]):
        record = max(offset for offset in offsets if offset <= position)
        following = min(offset for offset in offsets if offset > position)
        for bit in range(8):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            replace(fs, FIRST_NAME, bytes(data))
            with pytest.raises(WalCorrupt, match=f"{FIRST_NAME} is corrupt at offset") as caught:
                reopened(fs)
            assert record <= caught.value.offset <= following, (position, bit, str(caught.value))
            assert content(fs, FIRST_NAME) == data


def with_records(*records: tuple[int, bytes]) -> MemoryFileSystem:
    """A new log followed by any records, their checksums right."""
    fs = MemoryFileSystem()
    new_log(fs).close()
    data = content(fs, FIRST_NAME)
    reader = RecordReader("x", data, None)
    list(iter(reader.next, None))
    assert reader.crc is not None
    data, crc = data[: reader.offset], reader.crc
    for kind, record in records:
        frame, crc = frame_record(kind, record, crc)
        data += frame
    replace(fs, FIRST_NAME, data)
    return fs


FOREIGN_RECORDS = {
    "a gap": ([(ENTRY, encode_entry(entry(2)))], "expected an entry up to index 1, found index 2"),
    "a term going back": (
        [(ENTRY, encode_entry(entry(1, term=2))), (ENTRY, encode_entry(entry(2)))],
        "expected an entry of term 2 or later, found term 1",
    ),
    "other metadata": ([(METADATA, b"\x08\x01\x10\x02")], "expected the same metadata everywhere"),
    "an unknown type": ([(6, b"")], "expected a type of record from 1 to 5, found 6"),
    "a state that is none": ([(STATE, b"\xff")], "expected data of its type"),
    "an entry that is none": ([(ENTRY, b"\xff")], "expected data of its type"),
    "a snapshot that is none": ([(SNAPSHOT, b"\x08")], "expected data of its type"),
    "metadata that is none": ([(METADATA, b"\x08")], "expected data of its type"),
    "a term of zero": ([(ENTRY, encode_entry(entry(1, term=0)))], "only looks like one"),
    "a state going back": ([(STATE, b"\x08\x02"), (STATE, b"\x08\x01")], "a hard state of term 2 or later"),
    "a checksum with data": ([(CRC, b"x")], "a checksum record without data"),
}


@pytest.mark.parametrize(("records", "message"), FOREIGN_RECORDS.values(), ids=FOREIGN_RECORDS)
def test_records_that_contradict_each_other_are_refused(records: list[tuple[int, bytes]], message: str) -> None:
    """Right checksums do not make a log whose records cannot belong together."""
    with pytest.raises(WalCorrupt, match=message):
        reopened(with_records(*records))


def test_a_full_disk_takes_back_an_append() -> None:
    """Nothing half-written stays, and the same entries are accepted when there is room."""
    fs = MemoryFileSystem()
    fs.preallocates = False
    log = new_log(fs)
    fill(log, 1, 3)
    before = content(fs, FIRST_NAME)
    fs.capacity_bytes = len(before) + 150
    with pytest.raises(DiskFull, match="no space left on device"):
        log.append([entry(4), entry(5)], state(5))
    assert content(fs, FIRST_NAME) == before
    log.append([entry(4)], None)
    log.sync()
    with pytest.raises(DiskFull):
        log.append([entry(5)], state(5))
    fs.capacity_bytes = None
    fill(log, 5, 60)
    log.close()
    assert reopened(fs).entries == [entry(index) for index in range(1, 61)]


def test_an_append_that_cannot_be_taken_back_is_final() -> None:
    """Half a batch that stays in the file would be read as a whole one by nobody, but overwritten by no one either."""
    fs = MemoryFileSystem(capacity_bytes=300)
    fs.preallocates = False
    log = new_log(fs)
    fs.changes_left = 1
    with pytest.raises(WalFailed, match="power failed"):
        log.append([entry(1, size=400)], None)
    with pytest.raises(WalFailed, match="it failed before"):
        log.sync()


def test_a_sync_without_room_takes_back_what_was_not_durable() -> None:
    """Where room is only found missing at the sync, everything since the last one has to be appended again."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 3)
    log.append([entry(4)], state(4))
    log.append([entry(5)], state(5))
    fs.next_sync_error = errno.ENOSPC
    with pytest.raises(DiskFull):
        log.sync()
    log.append([entry(4)], state(4))
    log.sync()
    fs.crash()
    replay = reopened(fs)
    assert (replay.entries, replay.hard_state) == ([entry(index) for index in range(1, 5)], state(4))


def test_no_room_for_the_next_segment_is_no_error() -> None:
    """The segment grows past its size while it can, and the next one comes when there is room again."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 10)
    fs.capacity_bytes = SEGMENT_SIZE_BYTES + 2000
    fill(log, 11, 35)
    assert fs.list(FOLDER) == [FIRST_NAME]
    assert len(content(fs, FIRST_NAME)) > SEGMENT_SIZE_BYTES
    fs.capacity_bytes = None
    fill(log, 36, 45)
    assert len(segments(fs)) == 2
    log.close()
    assert reopened(fs).entries == [entry(index) for index in range(1, 46)]


def test_the_next_segment_comes_soon_after_there_is_room() -> None:
    """Syncs that found no room to reserve must not put the segment's end off any further."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 10)
    fs.capacity_bytes = SEGMENT_SIZE_BYTES
    fill(log, 11, 24)
    assert fs.list(FOLDER) == [FIRST_NAME]
    fs.capacity_bytes = None
    fill(log, 25, 26)
    assert segments(fs) == [FIRST_NAME, f"{1:016x}-{27:016x}.wal"]
    log.close()


def test_a_next_segment_that_cannot_be_written_is_dropped() -> None:
    """Without reserved room the head of the new segment may fail, and the old one is still whole."""
    fs = MemoryFileSystem()
    fs.preallocates = False
    log = new_log(fs)
    fill(log, 1, 25)
    assert segments(fs) == [FIRST_NAME]
    log.append([entry(26)], state(26))
    fs.capacity_bytes = len(content(fs, FIRST_NAME)) + 10
    log.sync()
    assert len(content(fs, FIRST_NAME)) > SEGMENT_SIZE_BYTES
    assert fs.list(FOLDER) == [FIRST_NAME]
    fs.capacity_bytes = None
    fill(log, 27, 40)
    log.close()
    assert len(segments(fs)) == 2
    assert len(reopened(fs).entries) == 40


def test_no_room_for_a_new_log_is_told() -> None:
    """A disk that is full from the start is a full disk and not damage."""
    fs = MemoryFileSystem(capacity_bytes=20)
    with pytest.raises(DiskFull):
        new_log(fs)
    fs.capacity_bytes = None
    new_log(fs).close()


def test_no_room_for_the_broken_copy_leaves_the_tail() -> None:
    """The torn bytes are cut only when a copy of them is durable."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 5)
    log.close()
    data = content(fs, FIRST_NAME).rstrip(b"\0")[:-60]
    replace(fs, FIRST_NAME, data)
    fs.capacity_bytes = len(data) + 10
    with pytest.raises(DiskFull):
        open_log(fs)
    assert content(fs, FIRST_NAME) == data
    fs.capacity_bytes = None
    assert reopened(fs).cut is not None


def test_a_failed_sync_is_final() -> None:
    """The kernel forgets what it could not write, so a second sync would lie; only opening again tells."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 3)
    log.append([entry(4)], state(4))
    fs.next_sync_error = errno.EIO
    with pytest.raises(WalFailed, match="Input/output error"):
        log.sync()
    for attempt in (
        log.sync,
        lambda: log.append([entry(4)], None),
        lambda: log.save_snapshot(Index(1), Term(1), CONF_STATE),
    ):
        with pytest.raises(WalFailed, match="it failed before"):
            attempt()
    log.close()
    fs.crash()
    assert reopened(fs).entries == [entry(index) for index in range(1, 4)]


def test_a_sync_that_somebody_else_made_counts_as_one() -> None:
    """The kernel can make it while the loop goes on; what it covers then survives as after sync()."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    log.append([entry(1)], state(0))
    log.synced(None)
    syncs = fs.syncs
    log.sync()
    assert fs.syncs == syncs, "it has been synced"
    log.append([entry(2)], state(1))
    with pytest.raises(DiskFull):
        log.synced(OSError(errno.ENOSPC, "no room"))
    log.append([entry(2)], state(1))
    with pytest.raises(WalFailed):
        log.synced(OSError(errno.EIO, "the disk is gone"))
    with pytest.raises(WalFailed, match="failed before"):
        log.append([entry(2)], state(1))


def test_a_sync_that_has_more_to_do_is_not_given_away(tmp_path: Path) -> None:
    """Making the next segment may take the disk long, which belongs where nobody waits."""
    fs = PosixFileSystem()
    log = WriteAheadLog.create(tmp_path / "wal", fs, METADATA_HERE, segment_size_bytes=SEGMENT_SIZE_BYTES)
    given_away = []
    for index in range(1, 41):
        log.append([entry(index, size=200)], None)
        given_away.append(log.descriptor >= 0)
        if given_away[-1]:
            os.fdatasync(log.descriptor)
            log.synced(None)
        else:
            log.sync()
    log.close()
    segments = len(fs.list(tmp_path / "wal"))
    assert segments > 2
    assert given_away.count(False) in {2 * (segments - 1), 2 * segments - 1}, "one to prepare each, one to begin it"
    _, replay = WriteAheadLog.open(tmp_path / "wal", fs, FROM_THE_START, segment_size_bytes=SEGMENT_SIZE_BYTES)
    assert [each.index for each in replay.entries] == list(range(1, 41))


def test_a_segments_end_is_durable_before_the_next_one_has_a_name() -> None:
    """Entries, the new segment's head, and the old one's length: three syncs, and a crash in between loses nothing."""
    fs = MemoryFileSystem()
    log = new_log(fs)
    fill(log, 1, 25)
    log.append([entry(26), entry(27)], state(27))
    syncs = fs.syncs
    log.sync()
    assert fs.syncs - syncs == 3
    fs.crash()
    assert len(segments(fs)) == 2
    assert reopened(fs).entries == [entry(index) for index in range(1, 28)]

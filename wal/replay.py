"""Reading the log back: which segments, what they add up to, and where a crash has cut the last one.

Changes nothing on the disk; wal/log.py repairs what a `Replayer` found.  Format and rules:
docs/internals/wal-format.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from core.raft.messages import Entry, EntryType, HardState
from core.types import Index, MemberId, Term
from wal.codec import Metadata, decode_entry, decode_hard_state, decode_metadata, decode_snapshot_record
from wal.errors import SnapshotNotFound, WalCorrupt
from wal.record import CRC, ENTRY, METADATA, SNAPSHOT, STATE, Record, RecordReader, TornRecord
from wal.segment import Position

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wal.segment import SegmentName

NO_HARD_STATE = HardState(Term(0), MemberId(0), Index(0))
"""What a log holds before the first one is written."""

_ZEROS = bytes(1 << 20)


class CutTail(NamedTuple):
    """What a crash had torn off: *byte_count* bytes from *offset* of *file* on, now in ``<file>.broken``."""

    file: str
    offset: int
    byte_count: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What the log says.  *entries* start right after the snapshot that it was opened from."""

    metadata: Metadata
    hard_state: HardState
    entries: list[Entry]
    cut: CutTail | None


def first_needed(names: Sequence[SegmentName], index: Index, term: Term) -> int:
    """Return the position of the segment that the entries after *index* start in."""
    for position in range(len(names) - 1, -1, -1):
        if names[position].first_index <= index:
            return position
    raise SnapshotNotFound(index, term, "no segment reaches back that far")


class Replayer:
    """Adds up segments, fed in their order."""

    def __init__(self, index: Index, term: Term) -> None:
        self.metadata: Metadata | None = None
        self.hard_state = NO_HARD_STATE
        self.entries: list[Entry] = []
        self.last_index = Index(0)
        self.torn: CutTail | None = None
        self._crc: int | None = None
        self._index = index
        self._term = term
        self._term_at_index = Term(0) if index == 0 else None
        self._found = False

    def read(self, name: str, data: bytes, *, is_last: bool) -> Position:
        """Add the segment *name*, whose bytes are *data*, and return where it ends."""
        reader = RecordReader(name, data, self._crc)
        head = 0
        try:
            while (record := reader.next()) is not None:
                if head < 2:
                    self._check_head(name, record, head)
                    head += 1
                self._take(name, record)
        except TornRecord:
            # A segment gets its name after its head is synced, so no crash has torn that.
            if not is_last or head < 2:
                raise
            self.torn = CutTail(name, reader.offset, len(data) - reader.offset)
        else:
            if head < 2:
                raise WalCorrupt(name, reader.offset, expected="a segment's head", found="the end of the file")
            if is_last and not _is_zero(data, reader.offset):
                self.torn = CutTail(name, reader.offset, len(data.rstrip(b"\0")) - reader.offset)
        assert reader.crc is not None
        self._crc = reader.crc
        return Position(reader.offset, reader.crc)

    def finish(self) -> Replay:
        """Return what all segments add up to.  SnapshotNotFound if none of them told of the snapshot."""
        if not self._found:
            raise SnapshotNotFound(self._index, self._term, "the log has no record of it")
        assert self.metadata is not None
        return Replay(self.metadata, self.hard_state, self.entries, self.torn)

    def _check_head(self, name: str, record: Record, position: int) -> None:
        expected = (CRC, METADATA)[position]
        if record.kind != expected:
            raise _bad(name, record, f"a record of type {expected}", f"one of type {record.kind}")

    def _take(self, name: str, record: Record) -> None:
        kind = record.kind
        try:
            if kind == ENTRY:
                self._take_entry(name, record, decode_entry(record.data))
            elif kind == STATE:
                self._take_hard_state(name, record, decode_hard_state(record.data))
            elif kind == METADATA:
                self._take_metadata(name, record)
            elif kind == SNAPSHOT:
                self._take_snapshot(name, record)
            elif kind != CRC:
                raise _bad(name, record, "a type of record from 1 to 5", str(kind))
        except ValueError as error:
            raise _bad(name, record, "data of its type", str(error)) from error

    def _take_entry(self, name: str, record: Record, entry: Entry) -> None:
        index = entry.index
        if entry.term == 0 or (entry.type is EntryType.CONF_CHANGE and not entry.data):
            raise _bad(name, record, "an entry", f"a record that only looks like one: {entry!r}")
        self.last_index = index
        if index <= self._index:
            if index == self._index:
                self._term_at_index = entry.term
            return
        entries = self.entries
        position = index - self._index - 1
        if position > len(entries):
            raise _bad(name, record, f"an entry up to index {self._index + len(entries) + 1}", f"index {index}")
        if position and entry.term < entries[position - 1].term:
            raise _bad(name, record, f"an entry of term {entries[position - 1].term} or later", f"term {entry.term}")
        if position < len(entries):
            # A new leader has overwritten what was never committed.
            del entries[position:]
        entries.append(entry)

    def _take_hard_state(self, name: str, record: Record, state: HardState) -> None:
        if state.term < self.hard_state.term:
            raise _bad(name, record, f"a hard state of term {self.hard_state.term} or later", f"term {state.term}")
        self.hard_state = state

    def _take_metadata(self, name: str, record: Record) -> None:
        metadata = decode_metadata(record.data)
        if self.metadata is not None and metadata != self.metadata:
            raise _bad(name, record, f"the same metadata everywhere, {self.metadata}", str(metadata))
        self.metadata = metadata

    def _take_snapshot(self, name: str, record: Record) -> None:
        snapshot = decode_snapshot_record(record.data)
        self.last_index = max(self.last_index, snapshot.index)
        if snapshot.index != self._index:
            return
        if snapshot.term != self._term:
            raise _bad(name, record, f"a snapshot of term {self._term}", f"term {snapshot.term}")
        self._found = True
        if self._term_at_index != self._term:
            # The snapshot came from a leader in place of entries that this log did not have: whatever is here behind
            # it belongs to another history.
            self.entries.clear()


def _bad(name: str, record: Record, expected: str, found: str) -> WalCorrupt:
    return WalCorrupt(name, record.offset, expected=expected, found=found)


def _is_zero(data: bytes, start: int) -> bool:
    size = len(_ZEROS)
    return all(data[at : at + size] == _ZEROS[: len(data) - at] for at in range(start, len(data), size))

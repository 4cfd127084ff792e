"""WriteAheadLog: the raft log on disk, in etcd's format.

Owns the wal folder: segments, the spare for the next one, and what is kept of them.  Used by one thread at a time.  It
must not know what entries mean.  Format and rules of recovery: docs/internals/wal-format.md.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self

from core.raft.messages import HardState  # noqa: TC001 - a compiled NamedTuple wants it when it runs
from core.tuples import make_tuple
from core.types import Index, Term
from wal.codec import (
    Metadata,
    SnapshotRecord,
    decode_hard_state,
    decode_snapshot_record,
    encode_hard_state,
    encode_metadata,
    encode_snapshot_record,
)
from wal.errors import DiskFull, WalFailed, failure
from wal.record import METADATA, SNAPSHOT, STATE, frame_crc, frame_entries, frame_record, peek_records
from wal.replay import NO_HARD_STATE, CutTail, Replay, Replayer, first_needed
from wal.segment import (
    SEGMENT_SIZE_BYTES,
    Position,
    Segment,
    SegmentName,
    Spare,
    expect_consecutive,
    reserve,
    segment_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from core.raft.messages import ConfState, Entry
    from wal.filesystem import File, FileSystem

_RETRIES_PER_SEGMENT = 64
"""Where there is no room for the next segment, that is tried again after so small a part of a segment."""


def exists(folder: Path, fs: FileSystem) -> bool:
    """Return whether *folder* holds a log."""
    return fs.exists(folder) and bool(segment_names(folder, fs))


def valid_snapshots(folder: Path, fs: FileSystem) -> set[tuple[Index, Term]]:
    """Return the index and term of each snapshot that the log tells of and that was committed.

    Checksums are not checked and reading ends at whatever cannot be read: `WriteAheadLog.open` judges that.
    """
    snapshots: list[SnapshotRecord] = []
    commit = 0
    try:
        for name in segment_names(folder, fs):
            with suppress(ValueError):
                for kind, content in peek_records(_content(folder / str(name), fs), frozenset({STATE, SNAPSHOT})):
                    if kind == STATE:
                        commit = decode_hard_state(content).commit
                    else:
                        snapshots.append(decode_snapshot_record(content))
    except OSError as error:
        raise failure(str(folder), error) from error
    return {(snapshot.index, snapshot.term) for snapshot in snapshots if snapshot.index <= commit}


def _content(path: Path, fs: FileSystem) -> bytes:
    file = fs.open(path)
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


class _Saved(NamedTuple):
    """What a new segment's head and name are made of."""

    hard_state: HardState
    last_index: Index


class WriteAheadLog:
    """An open log, locked against everybody else.

    After DiskFull it is as it was before the call that raised it and may be used again; after WalFailed only `close`
    is left.
    """

    def __init__(
        self,
        folder: Path,
        fs: FileSystem,
        metadata: Metadata,
        segments: list[Segment],
        saved: _Saved,
        segment_size_bytes: int,
        max_wals: int,
    ) -> None:
        """Take over open *segments*; use `create` or `open` instead."""
        self._folder = folder
        self._fs = fs
        self._metadata = metadata
        self._segments = segments
        self._tail = segments[-1]
        self._saved = self._durable = saved
        self._segment_size_bytes = segment_size_bytes
        self._prepare_at = segment_size_bytes // 2
        self._max_wals = max_wals
        self._spare = Spare(folder, fs, segment_size_bytes)
        self._failure: WalFailed | None = None

    @classmethod
    def create(
        cls,
        folder: Path,
        fs: FileSystem,
        metadata: Metadata,
        *,
        entries: Sequence[Entry] = (),
        hard_state: HardState = NO_HARD_STATE,
        segment_size_bytes: int = SEGMENT_SIZE_BYTES,
        max_wals: int = 0,
    ) -> Self:
        """Make a new log in *folder*, which appears whole or not at all: with *entries* and *hard_state* in it.

        *max_wals* is how many segments `release` leaves, 0 for all.  Raises DiskFull, and WalFailed, also where there
        is a folder that is not empty.
        """
        building = folder.with_name(folder.name + ".tmp")
        name = SegmentName(0, Index(0))
        snapshot = encode_snapshot_record(SnapshotRecord(Index(0), Term(0), None))
        try:
            if fs.exists(folder) and (found := fs.list(folder)):
                raise WalFailed(str(folder), f"a new log needs an empty folder, and there is {found[0]}")
            if fs.exists(building):
                fs.remove_folder(building)
            fs.make_folder(building)
            file = fs.create(building / str(name))
            file.lock()
            reserve(file, segment_size_bytes)
            segment = Segment(file, name, Position(0, 0))
            _write_head(segment, metadata, NO_HARD_STATE)
            segment.write(*frame_record(SNAPSHOT, snapshot, segment.end.crc))
            frames, crc = frame_entries(entries, segment.end.crc)
            if hard_state != NO_HARD_STATE:
                frame, crc = frame_record(STATE, encode_hard_state(hard_state), crc)
                frames.append(frame)
            segment.write(b"".join(frames), crc)
            segment.sync()
            fs.fsync_folder(building)
            if fs.exists(folder):
                fs.remove_folder(folder)
            fs.rename(building, folder)
            fs.fsync_folder(folder.parent)
        except OSError as error:
            raise failure(str(folder), error) from error
        saved = _Saved(hard_state, entries[-1].index if entries else Index(0))
        return cls(folder, fs, metadata, [segment], saved, segment_size_bytes, max_wals)

    @classmethod
    def open(
        cls,
        folder: Path,
        fs: FileSystem,
        from_snapshot: tuple[Index, Term],
        *,
        segment_size_bytes: int = SEGMENT_SIZE_BYTES,
        max_wals: int = 0,
    ) -> tuple[Self, Replay]:
        """Read what follows the snapshot (index, term), (0, 0) for all, and open the log for more.

        A tail torn by a crash is cut off, kept in ``<file>.broken``, and told of.  Raises WalCorrupt for any other
        damage, SnapshotNotFound, WalLocked, DiskFull (no room for the ``.broken`` copy) and WalFailed.
        """
        index, term = from_snapshot
        replayer = Replayer(index, term)
        try:
            names = segment_names(folder, fs)
            names = names[first_needed(names, index, term) :]
            expect_consecutive(names)
            segments, replay = _read_segments(folder, fs, names, replayer, segment_size_bytes)
        except OSError as error:
            raise failure(str(folder), error) from error
        saved = _Saved(replay.hard_state, replayer.last_index)
        return cls(folder, fs, replay.metadata, segments, saved, segment_size_bytes, max_wals), replay

    def append(self, entries: Sequence[Entry], hard_state: HardState | None) -> int:
        """Write *entries* and then *hard_state* in one piece, and return how many bytes that took.

        Nothing of it is durable before `sync`.  DiskFull leaves nothing of it.
        """
        self._expect_usable()
        pieces, crc = frame_entries(entries, self._tail.end.crc)
        state, last_index = self._saved
        if entries:
            last_index = entries[-1].index
        if hard_state is not None and hard_state != NO_HARD_STATE:
            frame, crc = frame_record(STATE, encode_hard_state(hard_state), crc)
            pieces.append(frame)
            state = hard_state
        if not pieces:
            return 0
        frames = b"".join(pieces)
        self._write(frames, crc)
        self._saved = make_tuple(_Saved, (state, last_index))
        return len(frames)

    def sync(self) -> None:
        """Make durable all that was written.  DiskFull takes back every append since the last sync that worked.

        Then, when the segment has reached its size, begin the next.  No room for that is no error: the segment grows
        on, and the next one is tried for again later.
        """
        self._expect_usable()
        if not self._tail.is_durable:
            self._end_sync(self._tail.sync)

    @property
    def descriptor(self) -> int:
        """Of the file that the next sync is about, for who makes it by other means and tells synced() of it.

        -1 where that cannot be, or should not: sync() will have more to do than that.
        """
        self._expect_usable()
        return -1 if self._tail.end.offset >= self._prepare_at else self._tail.descriptor

    def synced(self, error: OSError | None) -> None:
        """Take note of a sync of all that was written, and of what went wrong with it; raises what sync() does."""
        self._expect_usable()
        self._end_sync(partial(self._tail.synced, error))

    def _end_sync(self, sync_tail: Callable[[], None]) -> None:
        try:
            sync_tail()
        except DiskFull:
            self._saved = self._durable
            raise
        except WalFailed as error:
            self._failure = error
            raise
        self._durable = self._saved
        offset = self._tail.end.offset
        if offset < self._prepare_at:
            return
        try:
            if offset < self._segment_size_bytes:
                self._spare.prepare()
                self._prepare_at = self._segment_size_bytes
            else:
                self._cut()
                self._prepare_at = self._segment_size_bytes // 2
        except DiskFull:
            self._prepare_at = offset + self._segment_size_bytes // _RETRIES_PER_SEGMENT
        except WalFailed as error:
            self._failure = error
            raise

    def save_snapshot(self, index: Index, term: Term, conf_state: ConfState) -> None:
        """Note, durably, that a snapshot was saved.  Its file must be durable already.

        DiskFull leaves no record of it, and may take back appends that were not synced before.
        """
        self._expect_usable()
        data = encode_snapshot_record(SnapshotRecord(index, term, conf_state))
        self._write(*frame_record(SNAPSHOT, data, self._tail.end.crc))
        self._saved = _Saved(self._saved.hard_state, max(self._saved.last_index, index))
        self.sync()

    def release(self, *, before: Index) -> list[Path]:
        """Let go of the segments that hold nothing from *before* on; return the oldest beyond *max_wals*, for remove().

        *before* must be covered by a saved snapshot.
        """
        needed = 0
        for position, segment in enumerate(self._segments):
            if segment.name.first_index < before:
                needed = position
        for segment in self._segments[:needed]:
            segment.close()
        del self._segments[:needed]
        if not self._max_wals:
            return []
        names = segment_names(self._folder, self._fs)
        needless = names[: max(0, len(names) - self._max_wals)]
        oldest_held = self._segments[0].name.sequence
        return [self._folder / str(name) for name in needless if name.sequence < oldest_held]

    def remove(self, segments: Sequence[Path]) -> None:
        """Remove what release() returned, also what was removed before.  Slow; for any thread, beside other methods."""
        for path in segments:
            try:
                self._fs.remove_in_pieces(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise WalFailed(path.name, str(error)) from error

    def close(self) -> None:
        """Sync what was written, unless the log has failed, and let go of all files."""
        try:
            if self._failure is None:
                self.sync()
        finally:
            self._spare.discard()
            for segment in self._segments:
                segment.close()

    def _expect_usable(self) -> None:
        if self._failure is not None:
            raise WalFailed(self._failure.file, f"it failed before: {self._failure.reason}")

    def _write(self, frames: bytes, crc: int) -> None:
        try:
            self._tail.write(frames, crc)
        except WalFailed as error:
            self._failure = error
            raise

    def _cut(self) -> None:
        """Go on in a new segment.  All of the old one is durable before the new one has its name."""
        name = SegmentName(self._tail.name.sequence + 1, Index(self._saved.last_index + 1))
        file = self._spare.prepare()
        segment = Segment(file, name, Position(0, self._tail.end.crc))
        try:
            _write_head(segment, self._metadata, self._saved.hard_state)
            segment.sync()
        except DiskFull:
            self._spare.discard()
            raise
        self._tail.trim()
        try:
            self._fs.rename(self._spare.path, self._folder / str(name))
            self._fs.fsync_folder(self._folder)
        except OSError as error:
            raise WalFailed(str(name), str(error)) from error
        self._spare.used()
        self._segments.append(segment)
        self._tail = segment


def _read_segments(
    folder: Path, fs: FileSystem, names: list[SegmentName], replayer: Replayer, segment_size_bytes: int
) -> tuple[list[Segment], Replay]:
    """Lock and read the segments, and make the last one ready for more.  Nothing stays open after an error."""
    with ExitStack() as opened:
        files = []
        for name in names:
            file = fs.open(folder / str(name))
            opened.callback(file.close)
            file.lock()
            files.append(file)
        segments = []
        for name, file in zip(names, files, strict=True):
            data = file.read_at(0, file.size())
            end = replayer.read(str(name), data, is_last=name is names[-1])
            segments.append(Segment(file, name, end))
        replay = replayer.finish()
        if replay.cut is not None:
            _cut_off(folder, fs, files[-1], replay.cut)
        if segments[-1].end.offset < segment_size_bytes:
            reserve(files[-1], segment_size_bytes)
        opened.pop_all()
    return segments, replay


def _write_head(segment: Segment, metadata: Metadata, hard_state: HardState) -> None:
    """Write what every segment starts with, so that it can be read without those before it."""
    crc = segment.end.crc
    head = frame_crc(crc)
    frame, crc = frame_record(METADATA, encode_metadata(metadata), crc)
    head += frame
    if hard_state != NO_HARD_STATE:
        frame, crc = frame_record(STATE, encode_hard_state(hard_state), crc)
        head += frame
    segment.write(head, crc)


def _cut_off(folder: Path, fs: FileSystem, file: File, cut: CutTail) -> None:
    """Copy a torn segment to ``<file>.broken`` and cut it where the damage starts, both durably."""
    copy = fs.create(folder / f"{cut.file}.broken")
    try:
        copy.write_at(0, file.read_at(0, cut.offset + cut.byte_count))
        copy.fdatasync()
    finally:
        copy.close()
    fs.fsync_folder(folder)
    file.truncate(cut.offset)
    file.fdatasync()

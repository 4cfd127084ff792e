"""Whatever is appended and whenever the power fails: what was synced is read back, and only what was written."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.raft.messages import ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata
from core.types import Index, MemberId, Term
from wal.codec import Metadata
from wal.errors import DiskFull, WalFailed
from wal.filesystem import MemoryFileSystem
from wal.log import WriteAheadLog, exists, valid_snapshots
from wal.replay import NO_HARD_STATE
from wal.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path("/data/wal")
METADATA = Metadata(MemberId(1), 2)
SEGMENT_SIZE_BYTES = 6000

SIZES = st.one_of(st.integers(0, 40), st.integers(480, 560), st.integers(0, 3000))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(SIZES, max_size=6), st.integers(0, 3)),
        st.just(("sync",)),
        st.just(("snapshot",)),
        st.tuples(st.just("crash"), st.one_of(st.none(), st.integers(0, 1 << 32))),
        st.just(("reopen",)),
        st.tuples(st.just("full"), st.one_of(st.none(), st.integers(0, 4000))),
        st.just(("sync fails for want of room",)),
    ),
    max_size=40,
)


class Model:
    """What the log must hold: a durable state, and the records since, of which a crash may keep any first part."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.hard_state = NO_HARD_STATE
        self.unsynced: list[Entry | HardState] = []

    def states(self) -> list[tuple[list[Entry], HardState]]:
        """Each state that a crash may leave, the longest last."""
        entries, hard_state = self.entries, self.hard_state
        states = [(entries, hard_state)]
        for record in self.unsynced:
            if isinstance(record, Entry):
                entries = [*entries[: record.index - 1], record]
            else:
                hard_state = record
            states.append((entries, hard_state))
        return states

    def sync(self) -> None:
        """All records are durable."""
        self.entries, self.hard_state = self.states()[-1]
        self.unsynced = []


class Rig:
    """A log on a fake disk beside its model."""

    def __init__(self, *, preallocates: bool) -> None:
        self.fs = MemoryFileSystem()
        self.fs.preallocates = preallocates
        self.fs.make_folder(FOLDER.parent)
        self.log = WriteAheadLog.create(FOLDER, self.fs, METADATA, segment_size_bytes=SEGMENT_SIZE_BYTES)
        self.model = Model()
        self.term = 1

    def append(self, sizes: list[int], back: int) -> None:
        """Append entries; with *back* the first of them replace as many, in a new term, as a new leader does."""
        entries, _ = self.model.states()[-1]
        self.term += back > 0
        first = max(1, len(entries) + 1 - back)
        batch = [
            Entry(Term(self.term), Index(first + position), EntryType.NORMAL, Random(size).randbytes(size))
            for position, size in enumerate(sizes)
        ]
        state = HardState(Term(self.term), MemberId(1), Index(0))
        with suppress(DiskFull):
            self.log.append(batch, state)
            self.model.unsynced += [*batch, state]

    def sync(self) -> None:
        """Sync; where there is no room for it, everything since the last one is taken back."""
        try:
            self.log.sync()
        except DiskFull:
            self.model.unsynced = []
        else:
            self.model.sync()

    def snapshot(self) -> None:
        """Note a snapshot, all before it synced; without room there is no record of it and nothing else changes."""
        self.sync()
        with suppress(DiskFull):
            self.log.save_snapshot(Index(1), Term(1), ConfState((MemberId(1),)))

    def open(self) -> None:
        """Open the log again and compare."""
        self.fs.capacity_bytes = None
        assert valid_snapshots(FOLDER, self.fs)
        self.log, replay = WriteAheadLog.open(
            FOLDER, self.fs, (Index(0), Term(0)), segment_size_bytes=SEGMENT_SIZE_BYTES
        )
        states = self.model.states()
        found = (replay.entries, replay.hard_state)
        assert found in states, (len(replay.entries), replay.hard_state, len(states))
        self.model.entries, self.model.hard_state = found
        self.model.unsynced = []
        self.term = max(self.term, replay.hard_state.term)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, preallocates=st.booleans())
def test_nothing_synced_is_lost(steps: list[tuple], preallocates: bool) -> None:  # type: ignore[type-arg]  # each step has its own shape
    """Random appends, overwrites, cuts, full disks, crashes that tear, and restarts."""
    rig = Rig(preallocates=preallocates)
    for step in steps:
        match step:
            case ("append", sizes, back):
                rig.append(sizes, back)
            case ("sync",):
                rig.sync()
            case ("snapshot",):
                rig.snapshot()
            case ("crash", seed):
                rig.fs.crash(None if seed is None else Random(seed))
                rig.open()
            case ("reopen",):
                with suppress(DiskFull):
                    rig.log.close()
                rig.open()
            case ("full", room):
                rig.fs.capacity_bytes = None if room is None else rig.fs.used_bytes() + room
            case _:
                rig.fs.next_sync_error = errno.ENOSPC
    rig.fs.crash()
    rig.open()


def live(fs: MemoryFileSystem) -> Iterator[tuple[int, int]]:
    """A short life of a log, told as it goes: the last index synced, and the last that a snapshot was noted for."""
    log = WriteAheadLog.create(FOLDER, fs, METADATA, segment_size_bytes=1000, max_wals=1)
    snapshots = Snapshots(FOLDER.parent, fs, 1)
    yield 0, 0
    noted = 0
    for index in range(1, 25):
        log.append([entry_at(index)], HardState(Term(1), MemberId(1), Index(index)))
        log.sync()
        yield index, noted
        if index % 5 == 0:
            snapshots.save(Snapshot(SnapshotMetadata(ConfState(), Index(index), Term(1)), b"state"))
            log.save_snapshot(Index(index), Term(1), ConfState((MemberId(1),)))
            noted = index
            yield index, noted
            snapshots.purge()
            log.release(before=Index(index))
    log.close()


def entry_at(index: int) -> Entry:
    """The one entry that the life of `live` has at an index."""
    return Entry(Term(1), Index(index), EntryType.NORMAL, bytes([index]) * 130)


@pytest.mark.parametrize("seed", range(3))
def test_power_may_fail_at_any_change(seed: int) -> None:
    """However far the disk got, the log is found with all that was synced, from a snapshot that is there.

    The power fails before each single change in turn: a write, a sync, a new name, a removal.
    """
    synced, changes = 0, 0
    while synced < 24:
        fs = MemoryFileSystem()
        fs.make_folder(FOLDER.parent)
        fs.changes_left = changes
        created, synced, noted = False, 0, 0
        with suppress(WalFailed):
            for synced, noted in live(fs):  # noqa: B007 - what was told last is used below
                created = True
        fs.crash(Random(f"{seed} {changes}"))
        changes += 1
        if not exists(FOLDER, fs):
            assert not created
            continue
        snapshot = Snapshots(FOLDER.parent, fs, 1).newest(valid_snapshots(FOLDER, fs))
        start = snapshot.metadata.index if snapshot else Index(0)
        assert start >= noted
        log, replay = WriteAheadLog.open(FOLDER, fs, (start, Term(1 if snapshot else 0)), segment_size_bytes=1000)
        log.close()
        last = start + len(replay.entries)
        assert replay.entries == [entry_at(index) for index in range(start + 1, last + 1)]
        assert last in {synced, synced + 1}
    assert changes > 100

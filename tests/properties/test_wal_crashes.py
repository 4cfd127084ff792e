"""Whatever is appended and whenever the power fails: what was synced is read back, and only what was written."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from core.raft.messages import ConfState, Entry, EntryType, HardState
from core.types import Index, MemberId, Term
from wal.codec import Metadata
from wal.errors import DiskFull
from wal.filesystem import MemoryFileSystem
from wal.log import WriteAheadLog, valid_snapshots
from wal.replay import NO_HARD_STATE

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
        """Note a snapshot, which syncs too."""
        try:
            self.log.save_snapshot(Index(1), Term(1), ConfState((MemberId(1),)))
        except DiskFull:
            return
        self.model.sync()

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

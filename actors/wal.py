"""WalActor: the only writer of the raft log.

All that queues up while one sync runs is written and synced together (architecture decision 3): the first Append of a
batch sends the actor itself a marker, and since a mailbox keeps its order, everything that came before the marker is
staged when it is met.

Where a sync takes place follows from what there is to do meanwhile and from how long syncs take.  While several
clients write, the kernel syncs beside the loop (wal/background_sync.py), which prepares the next batch in that time.
One client alone waits for this very sync: one of 100 microseconds costs less right here, on the loop, than being told
of its end.  Where the kernel cannot, a sync of half a millisecond or more runs on a thread of its own.

A sync of any kind may hang for as long as the disk does.  Where others could lead meanwhile, none is made on the
loop, and RaftActor is told of one that does not return, so that this member leads no longer.

A full disk is survived: writes are refused while hardly any room is left; one that fails all the same leaves the log as
it was, and what is staged is tried again on each tick.  Any other failure ends the process, since a failed sync may
have dropped what it should have written.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, final

from actors.base import Home, NodeActor
from actors.messages.common import Tick
from actors.messages.metrics import Measure, Measured
from actors.messages.raft import DiskIs
from actors.messages.serve import Answered, WritesRefused
from actors.messages.wal import Append, Attend, ObserveSpace, SaveSnapshot, WalMessage
from actors.messages.worker import Work
from core.errors import NoSpace
from core.metrics import SYNC_BOUNDS_S, Histogram, Sample
from wal.errors import DiskFull

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from actors.address import Address, AnyDelivery
    from core.clock import Clock
    from core.raft.messages import Entry, HardState, Snapshot
    from wal.background_sync import BackgroundSync
    from wal.log import WriteAheadLog
    from wal.snapshots import Snapshots

SYNC_HERE_MAX_S = 0.0005
"""While syncs are thought to take longer than this, they run on their own thread."""

SYNC_RISE_WEIGHT = 0.02
SYNC_FALL_WEIGHT = 0.5
"""Of the newest sync in the estimate, by whether it took longer or less: what counts is how fast the disk can be, not
how long others kept the processor from us meanwhile.  A disk that turns slow is noticed within some tens of syncs."""

SLOW_SYNC_S = 1.0
"""A sync that takes longer is worth a warning (etcd's bound)."""

FREE_BYTES_MIN = 32 << 20
"""Below this, writes are refused before they fail: the store behind the log needs room too, and cannot wait for it."""

TEARDOWN_SYNC_S = 5.0
"""How long the end of a sync is waited for when everything ends."""

STAGED_BYTES_MAX = 64 << 20
"""More than this is written without waiting for the rest of the mailbox."""


_SYNCED: Final = 0
_SAVED: Final = 1
_REMOVED: Final = 2
"""Tokens of the work that the syncer and the janitor do."""


class _Flush:
    """A note to self: everything before me is staged."""


class _SyncEnded(NamedTuple):
    """A note to self: the kernel has synced."""

    error: OSError | None


class _Batch:
    """What one sync makes durable, and what leaves after it."""

    __slots__ = ("after", "entries", "hard_state", "must_sync", "size_bytes")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.hard_state: HardState | None = None
        self.after: list[AnyDelivery] = []
        self.must_sync = False
        self.size_bytes = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write and nobody to tell."""
        return not (self.entries or self.hard_state or self.after)

    def followed_by(self, later: _Batch) -> _Batch:
        """Return both in one."""
        both = _Batch()
        both.entries = self.entries + later.entries
        both.hard_state = later.hard_state or self.hard_state
        both.after = self.after + later.after
        both.must_sync = self.must_sync or later.must_sync
        both.size_bytes = self.size_bytes + later.size_bytes
        return both


@final
class WalActor(NodeActor[WalMessage | Answered | _Flush | _SyncEnded]):
    """Makes the log durable.

    Owns: the open segment, the snapshot files.  Tells: whoever is named in a message's *after*; the writers, when the
    disk is full and when it no longer is; the syncer.  Fails when: a write or sync fails for any other reason.
    """

    def __init__(
        self,
        home: Home,
        *,
        log: WriteAheadLog,
        snapshots: Snapshots,
        syncer: Address[Work],
        janitor: Address[Work],
        background: BackgroundSync | None,
        free_bytes: Callable[[], int],
        stall_s: float,
        clock: Clock,
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """*background* syncs in the kernel, on a loop that watches it; *syncer* is a worker of this actor's own.

        *janitor* removes files, which takes many milliseconds.  *free_bytes* tells how much room is left where the data
        lies.  A sync that takes longer than *stall_s* has stalled.
        """
        super().__init__(home)
        self._log = log
        self._snapshots = snapshots
        self._syncer = syncer
        self._janitor = janitor
        self._background = background
        self._free_bytes = free_bytes
        self._clock = clock
        self._logger = logger
        self._writers: list[Address[WritesRefused]] = []
        self._staged = _Batch()
        self._in_flight: _Batch | None = None
        self._in_background = False
        self._to_note: Snapshot | None = None
        self._installing: Snapshot | None = None
        self._saving_installing = False
        self._marked = False
        self._in_flight_since_s = 0.0
        self._stall_s = stall_s
        self._stalled = False
        self._raft: Address[DiskIs] | None = None
        self._alone = False
        self._sync_s = 0.0
        self._full = False
        self._written_bytes = 0
        self._write_times = Histogram(SYNC_BOUNDS_S)
        self._sync_times = Histogram(SYNC_BOUNDS_S)
        self._save_times = Histogram(SYNC_BOUNDS_S)

    def setup(self) -> None:
        """Have the loop watch for the ends of syncs."""
        if self._background is not None:
            self._background.watch(self._notice_end)

    def handle(self, message: WalMessage | Answered | _Flush | _SyncEnded) -> None:
        """Take one message."""
        match message:
            case Append():
                self._stage(message)
            case Attend():
                self._raft, self._alone = message
            case _Flush():
                self._marked = False
                self._flush()
            case _SyncEnded():
                self._finish_sync(
                    self._outcome(partial(self._log.synced, message.error), self._in_flight_since_s), late=True
                )
                self._flush()
            case Answered():
                self._take_answer(message)
            case SaveSnapshot(installs=True):
                self._installing = message.snapshot
                self._save_installing()
            case SaveSnapshot():
                self._syncer.tell(Work(_SAVED, partial(self._save_file, message.snapshot), self.actor_ref))
            case ObserveSpace():
                self._writers.append(message.observer)
                if self._full:
                    message.observer.tell(WritesRefused(NoSpace()))
            case Tick():
                if self._background is not None:
                    self._background.look()  # whatever became of the loop's notice
                self._look_at_space()
                self._look_for_stall(message.now_s)
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))

    def teardown(self) -> None:
        """Write what is staged: a marker behind the stop message is never delivered.

        While the syncer's thread is at the log it stays open, and what is staged is let go: nobody was told of it.
        """
        if self._background is not None:
            self._background.close()
            self._background.ended = lambda _: None  # closing the log syncs once more
            if self._in_background and self._background.wait(TEARDOWN_SYNC_S):
                self._in_flight = None
        if self._in_flight is not None:
            return
        try:
            self._log.append(self._staged.entries, self._staged.hard_state)
            self._log.close()
        except DiskFull as error:
            self._notice_full(str(error))

    def _stage(self, append: Append) -> None:
        staged = self._staged
        staged.entries.extend(append.entries)
        staged.hard_state = append.hard_state or staged.hard_state
        staged.after.extend(append.after)
        staged.must_sync = staged.must_sync or append.must_sync
        staged.size_bytes += sum([len(entry.data) for entry in append.entries])
        # A commit index alone is worth no write of its own: it goes out with the next entries, or with the next tick.
        worth_a_write = append.must_sync or append.after
        if staged.size_bytes >= STAGED_BYTES_MAX or (worth_a_write and self.actor_inbox.empty()):
            self._flush()  # enough, or nothing waits that the note would gather
        elif worth_a_write and not self._marked:
            self._marked = True
            self.actor_ref.tell(_Flush())

    def _flush(self) -> None:
        if self._in_flight is not None:
            return  # what is staged goes out when this sync has ended
        if self._installing is not None and self._installing is not self._to_note:
            self._to_note = None  # one of this member's own, which the leader's makes worthless
            return  # what is staged goes on from a snapshot whose file is being written
        if self._to_note is not None:
            self._write_snapshot_record(self._to_note)
        batch = self._staged
        if batch.empty:
            return
        started_s = self._clock.monotonic_s()
        try:
            self._written_bytes += self._log.append(batch.entries, batch.hard_state)
        except DiskFull as error:
            self._notice_full(str(error))
            return
        self._write_times.observe(self._clock.monotonic_s() - started_s)
        self._staged = _Batch()
        self._in_flight = batch
        self._in_flight_since_s = started_s
        if not batch.must_sync:
            self._finish_sync(None)
        elif self._alone and self._sync_s <= SYNC_HERE_MAX_S and (self._background is None or len(batch.entries) == 1):
            self._finish_sync(self._sync())
        elif not self._begin_in_background():
            self._syncer.tell(Work(_SYNCED, self._sync, self.actor_ref))

    def _begin_in_background(self) -> bool:
        """Have the kernel sync; False where it cannot, or where the log has more to do than that."""
        background = self._background
        if background is None:
            return False
        descriptor = self._log.descriptor
        if descriptor < 0:
            return False
        try:
            background.begin(descriptor)
        except OSError as error:
            self._logger.warning("the kernel takes no more syncs; a thread makes them from now on", error=str(error))
            background.close()
            self._background = None
            return False
        self._in_background = True
        return True

    def _notice_end(self, error: OSError | None) -> None:
        """Take the end of a sync from the loop, which has nobody to guard what it calls."""
        self._home.settle(lambda: self.actor_ref.tell(_SyncEnded(error)))

    def _take_answer(self, message: Answered) -> None:
        if message.token == _SYNCED:
            self._finish_sync(message.outcome)
            self._flush()
        elif message.token == _SAVED:
            self._note_snapshot(message.outcome)

    def _sync(self) -> float | DiskFull:
        """Sync on whichever thread this is; return how long it took, in seconds."""
        return self._outcome(self._log.sync, self._clock.monotonic_s())

    def _outcome(self, end_sync: Callable[[], None], since_s: float) -> float | DiskFull:
        """End a sync that began at *since_s*; return how long it took, in seconds."""
        try:
            end_sync()
        except DiskFull as error:
            return error
        return self._clock.monotonic_s() - since_s

    def _finish_sync(self, outcome: object, *, late: bool = False) -> None:
        """Go on after a sync that took *outcome* seconds, or some more if it was noticed *late*."""
        batch, self._in_flight = self._in_flight, None
        self._in_background = False
        assert batch is not None
        if self._stalled:
            self._stalled = False
            self._logger.warning("the disk answers again")
            self._tell_stalled()
        if isinstance(outcome, DiskFull):
            # The log has taken the whole batch back.
            self._staged = batch.followed_by(self._staged)
            self._notice_full(str(outcome))
            return
        if isinstance(outcome, float):
            self._sync_times.observe(outcome)
            if outcome < self._sync_s:
                self._sync_s += (outcome - self._sync_s) * SYNC_FALL_WEIGHT
            elif not late:
                self._sync_s += (outcome - self._sync_s) * SYNC_RISE_WEIGHT
            if outcome > SLOW_SYNC_S:
                self._logger.warning("slow fdatasync", took_s=round(outcome, 3), expected_s=SLOW_SYNC_S)
        for delivery in batch.after:
            delivery.send()

    def _look_for_stall(self, now_s: float) -> None:
        if self._in_flight is not None and not self._stalled and now_s - self._in_flight_since_s > self._stall_s:
            self._stalled = True
            self._logger.error("the disk does not answer", waited_s=round(now_s - self._in_flight_since_s, 3))
            self._tell_stalled()

    def _tell_stalled(self) -> None:
        if self._raft is not None:
            self._raft.tell(DiskIs(self._stalled))

    def _samples(self) -> list[Sample]:
        return [
            Sample("etcd_disk_wal_write_bytes_total", self._written_bytes),
            Sample("etcd_disk_wal_write_duration_seconds", self._write_times.distribution()),
            Sample("etcd_disk_wal_fsync_duration_seconds", self._sync_times.distribution()),
            Sample("etcd_snap_fsync_duration_seconds", self._save_times.distribution()),
            Sample("etcd_debugging_snap_save_total_duration_seconds", self._save_times.distribution()),
        ]

    def _save_file(self, snapshot: Snapshot) -> tuple[Snapshot, float] | DiskFull:
        """Write a snapshot's file, on the syncer's thread; return how long that took, too, in seconds."""
        started_s = self._clock.monotonic_s()
        try:
            self._snapshots.save(snapshot)
            took_s = self._clock.monotonic_s() - started_s
            self._snapshots.purge()
        except DiskFull as error:
            return error
        return snapshot, took_s

    def _note_snapshot(self, outcome: object) -> None:
        if isinstance(outcome, DiskFull):
            # The log just stays longer: another snapshot is asked for after the next snapshot-count entries.  One
            # from the leader is tried again as soon as there is room.
            self._notice_full(str(outcome))
            self._saving_installing = False
            return
        # The file comes before its record: a record that names a file promises that it is there.
        assert isinstance(outcome, tuple), outcome
        snapshot, took_s = outcome
        self._save_times.observe(took_s)
        if snapshot is self._installing:
            self._saving_installing = False
        self._to_note = snapshot
        self._flush()

    def _write_snapshot_record(self, snapshot: Snapshot) -> None:
        self._to_note = None
        metadata = snapshot.metadata
        try:
            self._log.save_snapshot(metadata.index, metadata.term, metadata.conf_state)
        except DiskFull as error:
            self._notice_full(str(error))
            return
        if snapshot is self._installing:
            self._installing = None
        needless = self._log.release(before=metadata.index)
        if needless:
            self._janitor.tell(Work(_REMOVED, partial(self._log.remove, needless), self.actor_ref))
        self._logger.info("saved raft snapshot", index=metadata.index, term=metadata.term)

    def _save_installing(self) -> None:
        """Have the file of a snapshot from the leader written, unless that is under way or done."""
        snapshot = self._installing
        if snapshot is not None and snapshot is not self._to_note and not self._saving_installing:
            self._saving_installing = True
            self._syncer.tell(Work(_SAVED, partial(self._save_file, snapshot), self.actor_ref))

    def _look_at_space(self) -> None:
        free_bytes = self._free_bytes()
        if free_bytes < FREE_BYTES_MIN:
            self._notice_full(f"{free_bytes} bytes are free")
            return
        self._save_installing()
        self._flush()
        if self._full and self._in_flight is None and self._staged.empty:
            self._notice_room()

    def _notice_full(self, reason: str) -> None:
        if self._full:
            return
        self._full = True
        self._logger.error("hardly any space is left on the disk; writes are refused until there is", reason=reason)
        for writer in self._writers:
            writer.tell(WritesRefused(NoSpace()))

    def _notice_room(self) -> None:
        self._full = False
        self._logger.info("there is space on the disk again; writes are accepted")
        for writer in self._writers:
            writer.tell(WritesRefused(None))

"""WalActor: what is written together, what leaves when, and how a full disk is survived."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from actors import wal as wal_module
from actors.address import Delivery
from actors.messages.common import Tick
from actors.messages.raft import DiskIs
from actors.messages.serve import Answered, WritesRefused
from actors.messages.wal import Append, Attend, ObserveSpace, SaveSnapshot
from actors.wal import FREE_BYTES_MIN, WalActor
from core.errors import NoSpace
from core.raft.messages import ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata
from core.types import Index, MemberId, Term
from tests.actors.home import TestHome
from tests.fakes import Told
from wal.codec import Metadata
from wal.errors import WalFailed
from wal.filesystem import MemoryFile, MemoryFileSystem
from wal.log import WriteAheadLog, valid_snapshots
from wal.snapshots import Snapshots

if TYPE_CHECKING:
    from actors.messages.worker import Work
    from wal.background_sync import BackgroundSync

WAL = Path("/wal")
SNAP = Path("/snap")
DESCRIPTOR = 42
STALL_S = 1.0
SEGMENT_SIZE_BYTES = 8192
MAX_WALS = 2


def entry(index: int, data: bytes = b"data") -> Entry:
    return Entry(Term(1), Index(index), EntryType.NORMAL, data)


def state(commit: int) -> HardState:
    return HardState(Term(1), MemberId(1), Index(commit))


class Kernel:
    """Takes syncs of a disk in memory, and makes them when it is told to."""

    def __init__(self, fs: MemoryFileSystem) -> None:
        self._fs = fs
        self.busy = self.refuses = self.closed = False
        self.ended: Any = None

    def watch(self, ended: Any) -> None:
        self.ended = ended

    def begin(self, descriptor: int) -> None:
        assert descriptor == DESCRIPTOR
        if self.refuses:
            raise OSError("not any more")
        self.busy = True

    def look(self) -> None:
        """Do nothing: the test makes the syncs."""

    def work(self, error: OSError | None = None) -> None:
        """Make the sync that was asked for."""
        assert self.busy
        self.busy = False
        if error is None:
            for name in self._fs.list(WAL):
                self._fs.open(WAL / name).fdatasync()
        self.ended(error)

    def wait(self, _timeout_s: float) -> bool:
        if self.busy:
            self.work()
        return True

    def close(self) -> None:
        self.closed = True


class Disk:
    """A WalActor on a disk in memory, with a kernel if that is wanted."""

    def __init__(self, *, kernel: bool = False) -> None:
        self.home = TestHome()
        self.fs = MemoryFileSystem()
        self.fs.make_folder(SNAP)
        self.fs.make_folder(WAL.parent)
        log = WriteAheadLog.create(
            WAL,
            self.fs,
            Metadata(MemberId(1), 2),
            segment_size_bytes=SEGMENT_SIZE_BYTES,
            max_wals=MAX_WALS,
        )
        self.kernel = Kernel(self.fs)
        self.syncer, self.janitor = Told(), Told()
        self.free_bytes = FREE_BYTES_MIN
        self.journal: list[Any] = []
        self.writer = Told()
        self.wal = self.home.spawn(
            WalActor,
            log=log,
            snapshots=Snapshots(SNAP, self.fs, 5),
            syncer=self.syncer,
            janitor=self.janitor,
            background=cast("BackgroundSync", self.kernel) if kernel else None,
            free_bytes=lambda: self.free_bytes,
            stall_s=STALL_S,
            clock=self.home.clock,
            logger=self.home.logger,
        )
        self.raft = Told()
        self.home.tell(self.wal, Attend(self.raft, alone=True))

    def append(self, index: int, *, must_sync: bool = True, data: bytes = b"data") -> None:
        """Tell the actor to append the entry at *index*, and then to note ``index`` in the journal."""
        after = (Delivery(Told(self.journal), index),)
        self.wal.actor_ref.tell(Append([entry(index, data)], state(index), after, must_sync))

    def observe(self) -> None:
        self.home.tell(self.wal, ObserveSpace(self.writer))

    def work(self) -> None:
        """Do what the syncer was handed, and deliver its answers."""
        for work in cast("list[Work]", self.syncer.take()):
            work.answer_to.tell(Answered(work.token, work.job()))
        self.home.run()

    def slow_down(self) -> None:
        """Make the next syncs slow enough to be handed to the syncer."""
        self.home.clock.now_s = 0.0
        self.append(1)
        self.fs.on_sync = lambda: self.home.clock.pass_s(0.1)
        self.home.run()
        self.fs.on_sync = None

    def durable(self) -> list[int]:
        """Return the indexes that the log holds after the power has failed."""
        self.fs.crash()
        _, replay = WriteAheadLog.open(WAL, self.fs, (Index(0), Term(0)), segment_size_bytes=SEGMENT_SIZE_BYTES)
        return [each.index for each in replay.entries]


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_all_that_queued_up_shares_one_sync(disk: Disk) -> None:
    """A busy log costs one fdatasync a batch, not one an entry."""
    syncs = disk.fs.syncs
    for index in range(1, 6):
        disk.append(index)
    disk.home.run()
    assert disk.fs.syncs == syncs + 1
    assert disk.journal == [1, 2, 3, 4, 5]


def test_nothing_leaves_before_it_is_durable(disk: Disk) -> None:
    """An acknowledgement for an entry that a power failure can take back is a lost write."""
    disk.append(1)
    disk.append(2)
    disk.home.deliver_one()
    assert disk.journal == []
    disk.home.run()
    assert disk.journal == [1, 2]
    assert disk.durable() == [1, 2]


def test_one_that_comes_alone_does_not_wait(disk: Disk) -> None:
    """With nothing behind it in the mailbox there is no batch to gather: a lone client's put costs no extra turn."""
    disk.append(1)
    disk.home.deliver_one()
    assert disk.journal == [1]
    assert disk.durable() == [1]


def test_what_comes_during_a_batch_is_the_next_batch(disk: Disk) -> None:
    """The marker bounds a batch: a stream of appends cannot put off the sync for ever."""
    disk.append(1)
    disk.append(2)
    disk.home.deliver_one()
    disk.append(3)
    syncs = disk.fs.syncs
    disk.home.deliver_one()
    disk.home.deliver_one()  # the marker, told before the third append
    assert (disk.fs.syncs, disk.journal) == (syncs + 1, [1, 2])
    disk.home.run()
    assert disk.journal == [1, 2, 3]


def test_a_large_batch_does_not_wait_for_its_marker(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is staged lies in memory, so it is bounded."""
    monkeypatch.setattr(wal_module, "STAGED_BYTES_MAX", 10)
    disk.append(1, data=b"x" * 10)
    disk.home.deliver_one()
    assert disk.journal == [1]


def test_a_commit_that_moved_alone_costs_no_sync(disk: Disk) -> None:
    """It can be found out again; the next sync takes it along."""
    syncs = disk.fs.syncs
    disk.home.tell(disk.wal, Append((), state(1), (), must_sync=False))
    assert disk.fs.syncs == syncs


def test_slow_syncs_move_to_the_syncer(disk: Disk) -> None:
    """While a disk takes its time, the loop serves others; what comes meanwhile is the next batch."""
    disk.slow_down()
    disk.append(2)
    disk.home.run()
    disk.append(3)
    disk.home.run()
    assert disk.journal == [1]
    assert len(disk.syncer.messages) == 1
    disk.work()
    assert disk.journal == [1, 2]
    disk.work()
    assert disk.journal == [1, 2, 3]


def test_fast_syncs_come_back_to_the_loop(disk: Disk) -> None:
    """One slow moment of a fast disk must not cost every later put two hand-overs."""
    disk.slow_down()
    for index in range(2, 60):
        disk.append(index)
        disk.home.run()
        disk.work()
    disk.append(60)
    disk.home.run()
    assert disk.syncer.messages == []
    assert disk.journal[-1] == 60


def test_where_others_could_lead_the_loop_never_waits_for_the_disk(disk: Disk) -> None:
    """The first sync that hangs would hang the loop too, and with it all that could hand leadership over."""
    disk.home.tell(disk.wal, Attend(disk.raft, alone=False))
    disk.append(1)
    disk.home.run()
    assert disk.journal == []
    disk.work()
    assert disk.journal == [1]


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk whose syncs the kernel makes."""
    monkeypatch.setattr(MemoryFile, "descriptor", DESCRIPTOR)
    return Disk(kernel=True)


def test_while_the_kernel_syncs_the_next_batch_is_gathered(beside: Disk) -> None:
    """The loop is free meanwhile, and nothing leaves before its sync has ended."""
    beside.append(1)
    beside.append(2)
    beside.home.run()
    assert (beside.journal, beside.kernel.busy) == ([], True)
    beside.append(3)
    beside.append(4)
    beside.home.run()
    assert beside.journal == []
    beside.kernel.work()
    beside.home.run()
    assert (beside.journal, beside.kernel.busy) == ([1, 2], True)
    beside.kernel.work()
    beside.home.run()
    assert beside.journal == [1, 2, 3, 4]
    assert beside.syncer.messages == []


def test_one_entry_alone_is_synced_right_here(beside: Disk) -> None:
    """A lone client has nothing to do meanwhile: being told of the end would only make it wait longer."""
    beside.append(1)
    beside.home.run()
    assert (beside.journal, beside.kernel.busy) == ([1], False)


def test_where_others_could_lead_one_entry_is_the_kernels_too(beside: Disk) -> None:
    """The loop never waits for the disk there."""
    beside.home.tell(beside.wal, Attend(beside.raft, alone=False))
    beside.append(1)
    beside.home.run()
    assert beside.journal == []
    beside.kernel.work()
    beside.home.run()
    assert beside.journal == [1]


def test_a_sync_of_the_kernels_that_does_not_return_is_told_too(beside: Disk) -> None:
    """Whoever makes it: others lead meanwhile, and what waits for it leaves when it has ended after all."""
    beside.home.tell(beside.wal, Attend(beside.raft, alone=False))
    beside.append(1)
    beside.home.run()
    beside.home.clock.now_s += STALL_S * 1.1
    beside.home.tell(beside.wal, Tick(beside.home.clock.now_s))
    assert beside.raft.take() == [DiskIs(stalled=True)]
    beside.kernel.work()
    beside.home.run()
    assert beside.raft.take() == [DiskIs(stalled=False)]
    assert beside.journal == [1]


def test_a_full_disk_met_by_the_kernel_is_survived(beside: Disk) -> None:
    """As one that was met right here: the batch is written again, before whatever came meanwhile."""
    beside.append(1)
    beside.append(2)
    beside.home.run()
    beside.append(3)
    beside.home.run()
    beside.kernel.work(OSError(errno.ENOSPC, "no room"))
    beside.home.run()
    beside.home.tell(beside.wal, Tick(1.0))
    if beside.kernel.busy:
        beside.kernel.work()
    beside.home.run()
    assert beside.journal == [1, 2, 3]
    assert beside.durable() == [1, 2, 3]


def test_any_other_failure_met_by_the_kernel_is_fatal(beside: Disk) -> None:
    """After it nobody knows what the disk holds."""
    beside.append(1)
    beside.append(2)
    beside.home.run()
    beside.kernel.work(OSError(errno.EIO, "the disk is gone"))
    with pytest.raises(WalFailed):
        beside.home.run()
    assert beside.journal == []


def test_a_kernel_that_takes_no_more_is_replaced_by_the_syncer(beside: Disk) -> None:
    """Whatever the reason, writes go on."""
    beside.kernel.refuses = True
    beside.append(1)
    beside.append(2)
    beside.home.run()
    assert (beside.journal, beside.kernel.closed) == ([], True)
    beside.work()
    assert beside.journal == [1, 2]
    beside.append(3)
    beside.home.run()
    assert beside.journal == [1, 2, 3]


def test_how_late_an_end_is_noticed_says_nothing_of_the_disk(beside: Disk) -> None:
    """A loop that is busy sees ends late; a lone client's next sync is still made right here."""
    for index in range(1, 200, 2):
        beside.append(index)
        beside.append(index + 1)
        beside.home.run()
        beside.home.clock.pass_s(0.01)
        if beside.kernel.busy:
            beside.kernel.work()
        beside.work()
    beside.append(201)
    beside.home.run()
    assert beside.journal[-1] == 201


def test_at_the_end_the_kernel_is_waited_for(beside: Disk) -> None:
    """A log that is closed in the middle of a sync would stay locked in a program that goes on."""
    beside.append(1)
    beside.append(2)
    beside.home.run()
    beside.append(3)
    beside.home.run()
    beside.wal.teardown()
    assert not beside.kernel.busy
    log, replay = WriteAheadLog.open(WAL, beside.fs, (Index(0), Term(0)), segment_size_bytes=SEGMENT_SIZE_BYTES)
    log.close()
    assert [each.index for each in replay.entries] == [1, 2, 3]
    assert beside.durable() == [1, 2, 3]


def test_an_end_that_comes_behind_the_stop_is_no_sync_under_way(beside: Disk) -> None:
    """It was noticed when this actor took no more messages; the log is closed all the same."""
    beside.append(1)
    beside.append(2)
    beside.home.run()
    beside.kernel.work()
    beside.wal.teardown()
    log, _ = WriteAheadLog.open(WAL, beside.fs, (Index(0), Term(0)), segment_size_bytes=SEGMENT_SIZE_BYTES)
    log.close()


def test_a_sync_that_does_not_return_is_told_once_and_so_is_its_end(disk: Disk) -> None:
    """A leader whose disk hangs must not go on leading by heartbeats (etcd issue 15247)."""
    disk.home.tell(disk.wal, Attend(disk.raft, alone=False))
    disk.append(1)
    disk.home.run()
    for _ in range(3):
        disk.home.clock.now_s += STALL_S * 0.6
        disk.home.tell(disk.wal, Tick(disk.home.clock.now_s))
    assert disk.raft.take() == [DiskIs(stalled=True)]
    disk.work()
    assert disk.raft.take() == [DiskIs(stalled=False)]
    assert disk.journal == [1]


def test_syncs_that_are_slow_but_return_are_no_stall(disk: Disk) -> None:
    """Each has its own time: a busy disk is no reason for an election."""
    disk.home.tell(disk.wal, Attend(disk.raft, alone=False))
    for index in range(1, 5):
        disk.append(index)
        disk.home.run()
        disk.home.clock.now_s += STALL_S * 0.9
        disk.home.tell(disk.wal, Tick(disk.home.clock.now_s))
        disk.work()
    assert disk.raft.take() == []


def test_a_sync_that_takes_a_second_is_told(disk: Disk) -> None:
    """The operator of a slow disk finds it in the log, under etcd's words."""
    disk.fs.on_sync = lambda: disk.home.clock.pass_s(1.5)
    disk.append(1)
    disk.home.run()
    assert disk.home.logged("slow fdatasync")[0]["took_s"] == 1.5


def test_a_write_that_finds_no_room_is_kept_and_tried_again(disk: Disk) -> None:
    """A full disk is somebody's to clear, and no reason to forget what raft believes to be on its way."""
    disk.observe()
    disk.fs.capacity_bytes = disk.fs.used_bytes()
    disk.append(1, data=b"x" * 2 * SEGMENT_SIZE_BYTES)
    disk.home.run()
    assert disk.journal == []
    assert isinstance(disk.writer.last(WritesRefused).error, NoSpace)
    disk.fs.capacity_bytes = None
    disk.home.tell(disk.wal, Tick(1.0))
    assert disk.journal == [1]
    assert disk.writer.last(WritesRefused).error is None
    assert disk.durable() == [1]


@pytest.mark.parametrize("where", ["here", "on the syncer"])
def test_a_sync_that_finds_no_room_is_tried_again_in_order(disk: Disk, where: str) -> None:
    """The log takes the batch back, so it has to be written again, before whatever came meanwhile."""
    disk.observe()
    if where == "on the syncer":
        disk.slow_down()
    disk.fs.next_sync_error = errno.ENOSPC
    disk.append(2 if where == "on the syncer" else 1)
    disk.home.run()
    last = len(disk.journal) + 2
    disk.append(last)
    disk.home.run()
    disk.work()
    disk.work()
    assert disk.journal == list(range(1, last + 1))
    assert [refused.error is None for refused in disk.writer.of(WritesRefused)] == [False]
    disk.home.tell(disk.wal, Tick(1.0))
    assert disk.writer.last(WritesRefused).error is None
    assert disk.durable() == list(range(1, last + 1))


def test_any_other_failure_of_a_sync_is_fatal(disk: Disk) -> None:
    """After it nobody knows what the disk holds but a start that reads it."""
    disk.fs.next_sync_error = errno.EIO
    disk.append(1)
    with pytest.raises(WalFailed):
        disk.home.run()
    assert disk.journal == []


def test_writes_are_refused_before_the_disk_is_full(disk: Disk) -> None:
    """The store behind the log cannot wait for room as the log can."""
    disk.observe()
    disk.free_bytes = FREE_BYTES_MIN - 1
    disk.home.tell(disk.wal, Tick(1.0), Tick(2.0))
    assert [type(refused.error) for refused in disk.writer.of(WritesRefused)] == [NoSpace]
    disk.free_bytes = FREE_BYTES_MIN
    disk.home.tell(disk.wal, Tick(3.0))
    assert disk.writer.last(WritesRefused).error is None


def test_who_starts_to_listen_on_a_full_disk_is_told_at_once(disk: Disk) -> None:
    """A listener that opens after the disk has filled up would otherwise take writes that cannot be done."""
    disk.free_bytes = 0
    disk.home.tell(disk.wal, Tick(1.0))
    disk.observe()
    assert isinstance(disk.writer.last(WritesRefused).error, NoSpace)


def snapshot(index: int) -> Snapshot:
    return Snapshot(SnapshotMetadata(ConfState((MemberId(1),)), Index(index), Term(1)), b"members")


def test_a_snapshots_file_is_there_before_its_record(disk: Disk) -> None:
    """A record promises its file: a start that finds the record alone has nothing to start from."""
    disk.append(1)
    disk.home.run()
    disk.home.tell(disk.wal, SaveSnapshot(snapshot(1)))
    assert disk.fs.list(SNAP) == []
    assert (1, 1) not in valid_snapshots(WAL, disk.fs)
    [work] = disk.syncer.take()
    answer = work.job()
    assert len(disk.fs.list(SNAP)) == 1
    assert (1, 1) not in valid_snapshots(WAL, disk.fs)
    disk.home.tell(disk.wal, Answered(work.token, answer))
    assert (1, 1) in valid_snapshots(WAL, disk.fs)
    assert disk.home.logged("saved raft snapshot") != []


def test_segments_that_nobody_needs_are_removed_beside_the_log(disk: Disk) -> None:
    """Removing a segment takes the disk as long as dozens of syncs, for which clients would wait."""
    for index in range(1, 6):
        disk.append(index, data=b"x" * SEGMENT_SIZE_BYTES)
        disk.home.run()
    disk.home.tell(disk.wal, SaveSnapshot(snapshot(5)))
    disk.work()
    names = disk.fs.list(WAL)
    assert len(names) == 6
    for work in cast("list[Work]", disk.janitor.take()):
        disk.home.tell(disk.wal, Answered(work.token, work.job()))
    assert disk.fs.list(WAL) == names[3:]  # from the one with the entry before the snapshot on
    disk.append(6)
    disk.home.run()
    assert disk.journal == [1, 2, 3, 4, 5, 6]


def test_a_snapshots_record_waits_for_a_sync_under_way(disk: Disk) -> None:
    """The log belongs to one thread at a time."""
    disk.slow_down()
    disk.home.tell(disk.wal, SaveSnapshot(snapshot(1)))
    [work] = disk.syncer.take()
    disk.append(2)
    disk.home.run()
    disk.home.tell(disk.wal, Answered(work.token, work.job()))
    assert (1, 1) not in valid_snapshots(WAL, disk.fs)
    disk.work()
    assert (1, 1) in valid_snapshots(WAL, disk.fs)


def test_a_snapshot_without_room_leaves_the_log_longer_and_nothing_else(disk: Disk) -> None:
    """It will be asked for again; meanwhile the log holds all that it would have stood for."""
    disk.observe()
    disk.append(1)
    disk.home.run()
    disk.fs.capacity_bytes = disk.fs.used_bytes()
    disk.home.tell(disk.wal, SaveSnapshot(snapshot(1)))
    disk.work()
    assert isinstance(disk.writer.last(WritesRefused).error, NoSpace)
    disk.fs.capacity_bytes = None
    disk.home.tell(disk.wal, Tick(1.0))
    assert disk.writer.last(WritesRefused).error is None
    assert (1, 1) not in valid_snapshots(WAL, disk.fs)


def test_a_stop_writes_what_is_staged(disk: Disk) -> None:
    """The marker behind the stop is never met, and the commit index that waits for company would be lost."""
    disk.append(1)
    disk.home.stop(disk.wal)
    assert disk.durable() == [1]


def test_a_stop_on_a_slow_disk_syncs_by_itself(disk: Disk) -> None:
    """The syncer would still be at the files while they are closed."""
    disk.slow_down()
    disk.append(2)
    disk.home.stop(disk.wal)
    assert disk.syncer.messages == []
    assert disk.durable() == [1, 2]


def test_a_stop_leaves_the_log_to_a_sync_under_way(disk: Disk) -> None:
    """Closing its files under the syncer would look like a failed disk."""
    disk.slow_down()
    disk.append(2)
    disk.home.run()
    disk.append(3)
    disk.home.stop(disk.wal)
    disk.work()
    assert disk.journal == [1]
    assert disk.durable() == [1, 2]


def test_a_stop_on_a_full_disk_is_a_stop(disk: Disk) -> None:
    """Nobody was told of what is not written, so there is nothing to crash for."""
    disk.fs.next_sync_error = errno.ENOSPC
    disk.append(1)
    disk.home.stop(disk.wal)
    assert disk.home.crashes == []
    assert disk.durable() == []

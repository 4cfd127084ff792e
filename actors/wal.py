"""WalActor: the only writer of the raft log.

All that queues up while one sync runs is written and synced together (architecture decision 3): the first Append of a
batch sends the actor itself a marker, and since a mailbox keeps its order, everything that came before the marker is
staged when it is met.

A full disk is survived: writes are refused while hardly any room is left; one that fails all the same leaves the log as
it was, and what is staged is tried again on each tick.  Any other failure ends the process, since a failed sync may
have dropped what it should have written.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, final

from actors.base import Home, NodeActor
from actors.messages.common import Tick
from actors.messages.serve import WritesRefused
from actors.messages.wal import Append, ObserveSpace, SaveSnapshot, WalMessage
from core.errors import NoSpace
from wal.errors import DiskFull

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from actors.address import Address, AnyDelivery
    from core.raft.messages import Entry, HardState
    from wal.log import WriteAheadLog
    from wal.snapshots import Snapshots

FREE_BYTES_MIN = 32 << 20
"""Below this, writes are refused before they fail: the store behind the log needs room too, and cannot wait for it."""

STAGED_BYTES_MAX = 64 << 20
"""More than this is written without waiting for the rest of the mailbox."""


class _Flush:
    """A note to self: everything before me is staged."""


@final
class WalActor(NodeActor[WalMessage | _Flush]):
    """Makes the log durable.

    Owns: the open segment, the snapshot files.  Tells: whoever is named in a message's *after*; the writers, when the
    disk is full and when it no longer is.  Fails when: a write or sync fails for any other reason.
    """

    def __init__(
        self,
        home: Home,
        log: WriteAheadLog,
        snapshots: Snapshots,
        free_bytes: Callable[[], int],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """*free_bytes* tells how much room is left where the data lies."""
        super().__init__(home)
        self._log = log
        self._free_bytes = free_bytes
        self._snapshots = snapshots
        self._logger = logger
        self._writers: list[Address[WritesRefused]] = []
        self._entries: list[Entry] = []
        self._hard_state: HardState | None = None
        self._after: list[tuple[AnyDelivery, ...]] = []
        self._must_sync = False
        self._staged_bytes = 0
        self._marked = False
        self._full = False

    def handle(self, message: WalMessage | _Flush) -> None:
        """Take one message."""
        match message:
            case Append():
                self._stage(message)
            case _Flush():
                self._marked = False
                self._flush()
            case SaveSnapshot():
                self._flush()
                self._save_snapshot(message)
            case ObserveSpace():
                self._writers.append(message.observer)
            case Tick():
                self._look_at_space()

    def teardown(self) -> None:
        """Write what is staged: a marker behind the stop message is never delivered."""
        self._flush()
        self._log.close()

    def _stage(self, append: Append) -> None:
        if not self._marked:
            self._marked = True
            self.actor_ref.tell(_Flush())
        self._entries.extend(append.entries)
        self._hard_state = append.hard_state or self._hard_state
        self._after.append(append.after)
        self._must_sync = self._must_sync or append.must_sync
        self._staged_bytes += sum(len(entry.data) for entry in append.entries)
        if self._staged_bytes >= STAGED_BYTES_MAX:
            self._flush()

    def _flush(self) -> None:
        if not self._after:
            return
        try:
            self._log.append(self._entries, self._hard_state)
            if self._must_sync:
                self._log.sync()
        except DiskFull as error:
            self._notice_full(str(error))
            return
        after = self._after
        self._entries, self._hard_state, self._after = [], None, []
        self._must_sync, self._staged_bytes = False, 0
        for delivery in chain.from_iterable(after):
            delivery.send()

    def _save_snapshot(self, message: SaveSnapshot) -> None:
        metadata = message.snapshot.metadata
        try:
            # The file comes first: a record that names a file promises that it is there.
            self._snapshots.save(message.snapshot)
            self._log.save_snapshot(metadata.index, metadata.term, metadata.conf_state)
            self._log.sync()
        except DiskFull as error:
            # The log just stays longer: another snapshot is asked for after the next snapshot-count entries.
            self._notice_full(str(error))
            return
        self._snapshots.purge()
        self._log.release(before=metadata.index)

    def _look_at_space(self) -> None:
        free_bytes = self._free_bytes()
        if free_bytes < FREE_BYTES_MIN:
            self._notice_full(f"{free_bytes} bytes are free")
            return
        self._flush()
        if self._full and not self._after:
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

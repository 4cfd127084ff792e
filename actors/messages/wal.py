"""What WalActor receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import Tick
from actors.messages.metrics import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.address import Address, AnyDelivery
    from actors.messages.raft import DiskIs
    from actors.messages.serve import WritesRefused
    from core.raft.messages import Entry, HardState, Snapshot


class Append(NamedTuple):
    """Make durable, then send *after*.  Nothing in *after* leaves before the sync has returned.

    A hard state whose commit alone has moved needs no sync of its own (*must_sync* False): it goes out with the next.
    """

    entries: Sequence[Entry]
    hard_state: HardState | None
    after: tuple[AnyDelivery, ...]
    must_sync: bool = True


class SaveSnapshot(NamedTuple):
    """Write a raft snapshot file and its WAL record, and let go of what lies before it."""

    snapshot: Snapshot
    installs: bool = False
    """It came from the leader: what is appended after this goes on from it, and waits until it is noted."""


class Attend(NamedTuple):
    """Tell *raft* when a sync does not return.

    While this member is *alone* nobody else could go on meanwhile, so that a quick one may hold up the loop.
    """

    raft: Address[DiskIs]
    alone: bool


class ObserveSpace(NamedTuple):
    """Tell *observer* when there is no room for the log, and when there is again."""

    observer: Address[WritesRefused]


WalMessage = Append | Attend | SaveSnapshot | ObserveSpace | Tick | Measure

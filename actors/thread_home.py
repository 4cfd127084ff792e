"""The home of actors that have a thread each: what blocks outside the GIL (fsync, large reads, hashing) waits there."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from actors.base import Mailbox
from actors.load import Load

if TYPE_CHECKING:
    from collections.abc import Callable

    from pykka._envelope import Envelope

    from actors.address import Address
    from actors.base import FatalHook, M, NodeActor


class ThreadInbox(SimpleQueue["Envelope[Any]"], Mailbox):
    """The mailbox of an actor with a thread of its own.  How long its messages take is not measured."""

    def __init__(self, load: Load) -> None:
        super().__init__()
        self.load = load

    def get(self, block: bool = True, timeout: float | None = None) -> Envelope[Any]:
        """Wait for the oldest message, and remove and return it."""
        envelope = super().get(block, timeout)
        self.load.message_count += 1
        self.load.batch_count += 1
        return envelope


class ThreadHome:
    """A thread for each actor: Pykka's own loop on a faster queue."""

    def __init__(self, fatal: FatalHook) -> None:
        self.fatal = fatal
        self._inboxes: list[ThreadInbox] = []

    def make_inbox(self, actor: NodeActor[Any]) -> Mailbox:
        """Return an unbounded queue."""
        inbox = ThreadInbox(Load(type(actor).__name__))
        self._inboxes.append(inbox)
        return inbox

    def loads(self) -> list[tuple[Load, int]]:
        """Return each actor's load and the depth of its mailbox."""
        return [(inbox.load, inbox.qsize()) for inbox in self._inboxes]

    def settle(self, tell: Callable[[], None]) -> None:
        """Call *tell*: each actor's thread is already at it."""
        tell()

    def near(self, _address: Address[M]) -> Address[M] | None:
        """See Home: no two actors share a thread."""
        return None

    def start(self, actor: NodeActor[Any]) -> None:
        """Start the actor's thread, named after its class."""
        threading.Thread(target=actor._actor_loop, name=type(actor).__name__).start()  # noqa: SLF001 - a Pykka home

"""Where an extension lives: one thread for one life of it, of which nothing may reach the rest of the node.

The thread makes the actor, runs its setup, delivers what it is told, and tells at the end whether it crashed, whatever
was raised: SystemExit too, which Pykka would take as a wish to stop every actor of the process.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from pykka._envelope import Envelope  # Pykka names its envelope nowhere else

from actors.base import Mailbox
from actors.messages.extension import ExtensionEnded, ExtensionStarted, Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.base import Home, M, NodeActor
    from actors.extension import ExtensionActor
    from actors.messages.extension import GateMessage


class Parcel(NamedTuple):
    """Something from the node for an extension: opened on its thread, then handled, then noted as taken."""

    open: Callable[[], object]
    token: int = 0
    size_bytes: int = 0


class Stop(NamedTuple):
    """The extension shall end."""


class ExtensionInbox(SimpleQueue[Envelope[Any]], Mailbox):
    """The mailbox of one life."""


class ExtensionHome:
    """The home of one life of one extension."""

    def __init__(
        self, name: str, life: int, gate: Address[GateMessage], make: Callable[[Home], ExtensionActor]
    ) -> None:
        self.inbox = ExtensionInbox()
        self._name = name
        self._life = life
        self._gate = gate
        self._make = make
        self._actor: ExtensionActor
        self._error: BaseException | None = None

    def launch(self) -> None:
        """Start the thread."""
        # A daemon: an extension that does not end must not keep the process alive.
        threading.Thread(target=self._run, name=f"Extension {self._name}", daemon=True).start()

    def tell(self, message: object) -> None:
        """Put *message* into the mailbox, from any thread."""
        self.inbox.tell(message)

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return self.inbox.qsize()

    def fatal(self, _actor: str, error: BaseException) -> None:
        """See Home: ends this life, no more."""
        if self._error is None:
            self._error = error

    def make_inbox(self, _actor: NodeActor[Any]) -> Mailbox:
        """See Home."""
        return self.inbox

    def settle(self, tell: Callable[[], None]) -> None:
        """See Home: this thread is at it."""
        tell()

    def near(self, _address: Address[M]) -> Address[M] | None:
        """See Home: nobody else is on this thread."""
        return None

    def start(self, actor: NodeActor[Any]) -> None:
        """See Home; never called: the actor is made on the thread that runs it."""
        raise AssertionError(actor)

    def begin(self) -> bool:
        """Make the actor and run its setup; False if this life is over."""
        return self._guarded(self._begin)

    def deliver_next(self) -> bool:
        """Wait for the next message and deliver it; False if this life is over."""
        return self._guarded(self._deliver_next)

    def _run(self) -> None:
        living = self.begin()
        while living:
            living = self.deliver_next()

    def _guarded(self, step: Callable[[], bool]) -> bool:
        living = False
        try:
            living = step()
        except BaseException as error:  # noqa: BLE001 - whatever it was, only this extension ends
            self.fatal(self._name, error)
        if not living:
            self._gate.tell(ExtensionEnded(self._life, self._error))
        return living

    def _begin(self) -> bool:
        self._actor = self._make(self)
        self._actor.on_start()
        self._gate.tell(ExtensionStarted(self._life))
        return True

    def _deliver_next(self) -> bool:
        actor = self._actor
        message = self.inbox.get().message
        if type(message) is Stop:
            actor.actor_stopped.set()
            actor.on_stop()
            return False
        if type(message) is Parcel:
            opened = message.open()
            if opened is not None:
                actor.node.noticed(opened)
                actor.on_receive(opened)
            self._gate.tell(Taken(self._life, message.token, message.size_bytes, type(opened)))
        else:
            actor.on_receive(message)
        return True

"""The base of every actor: typed dispatch, fail-stop, and a home that decides which thread drains the mailbox.

Pykka by itself lets an actor live on half-changed after an exception under ask, does not call on_failure for one in
on_start, and swallows one in on_stop.  So all three hooks run under one guard here, and whatever escapes ends the
process (architecture decision 5): recovery from disk is the one repair path.

An actor never knows whether a thread of its own, a loop that it shares, or a simulator delivers to it: that is its
home's business (decision 3; see loop_home.py and thread_home.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, final

import pykka
from pykka._envelope import Envelope  # Pykka names its envelope nowhere else
from pykka.messages import _ActorStop

from actors.messages.common import Tick

if TYPE_CHECKING:
    from actors.address import Address

M = TypeVar("M")

FatalHook = Callable[[str, BaseException], None]
"""Told the name of the actor that crashed and why.  Returns; the process ends soon after, from the main thread."""


class Mailbox(Protocol):
    """Where an actor's messages wait: Pykka's idea of one, and a way around its envelopes."""

    def put(self, envelope: Envelope[Any], /) -> None:
        """Append, from any thread."""

    def tell(self, message: Any, /) -> None:  # noqa: ANN401 - each actor has its own
        """Append what wants no answer, from any thread: in an envelope, unless the mailbox can do without."""
        self.put(Envelope(message))

    def get(self) -> Envelope[Any]:
        """Remove and return the oldest."""

    def empty(self) -> bool:
        """Whether nothing waits."""


class Home(Protocol):
    """Where an actor lives: makes its mailbox and has it drained."""

    @property
    def fatal(self) -> FatalHook:
        """Whom to tell of a crash."""

    def make_inbox(self, actor: NodeActor[Any]) -> Mailbox:
        """Return the mailbox of *actor*, which is still under construction."""

    def settle(self, tell: Callable[[], None]) -> None:
        """Call *tell*, and deliver what it tells actors of this home at once, if they share the calling thread."""

    def near(self, address: Address[M]) -> Address[M] | None:
        """Return an address whose tell() ends when the message is handled, if *address* is of this home's one thread.

        For actors of this home, which must not tell themselves so.
        """

    def start(self, actor: NodeActor[Any]) -> None:
        """Run its setup, then deliver what is told to it, until it has stopped."""


class Probe:
    """Asked once after the start: answers when setup has run."""


class NodeRef(pykka.ActorRef[Any]):
    """The address of an actor: Pykka's, but what is told to an actor that has stopped is dropped.

    Pykka's own raises in the sender.  Actors stop one after the other while answers are still on their way, and an
    answer that comes too late must not look like a crash of whoever gives it.
    """

    def __init__(self, actor: NodeActor[Any]) -> None:
        super().__init__(actor)
        self.tell = actor.actor_inbox.tell  # type: ignore[assignment, method-assign]


class NodeActor(pykka.ThreadingActor, Generic[M]):
    """Base of every actor.  Subclasses write setup, handle and teardown; all three run under one guard."""

    def __init__(self, home: Home, /) -> None:
        self._home = home
        super().__init__()
        self._actor_ref = self.actor_ref = NodeRef(self)

    def setup(self) -> None:
        """Prepare, on the actor's own thread, before the first message."""

    @abstractmethod
    def handle(self, message: M) -> None:
        """Take one message."""

    def teardown(self) -> None:
        """Clean up, on the actor's own thread, after the last message."""

    @final
    def on_start(self) -> None:
        """Run setup (called by Pykka)."""
        self._guard(self.setup)

    @final
    def on_stop(self) -> None:
        """Run teardown (called by Pykka)."""
        self._guard(self.teardown)

    @final
    def on_receive(self, message: Any) -> None:  # noqa: ANN401 - Pykka's signature
        """Pass *message* to handle (called by Pykka)."""
        kind = type(message)
        if kind is Probe:
            return
        if kind is Tick and message.taken is not None:
            message.taken()
        try:
            self.handle(message)
        except Exception as error:
            self._home.fatal(type(self).__name__, error)
            raise

    def _handle_receive(self, message: Any) -> Any:  # noqa: ANN401 - Pykka's signature
        # Pykka's own first looks whether a proxy calls, which none does here, for every message.
        if type(message) is _ActorStop:
            return super()._handle_receive(message)
        return self.on_receive(message)

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._home.fatal(type(self).__name__, error)
            raise

    actor_inbox: Mailbox
    actor_ref: NodeRef = cast("NodeRef", None)
    """Where to reach this actor.  An attribute: Pykka's property is one more call for every message to oneself."""

    def _create_actor_inbox(self) -> Mailbox:  # type: ignore[override]  # static in Pykka, which calls it on self
        return self._home.make_inbox(self)

    def _start_actor_loop(self) -> None:
        self._home.start(self)


def deliver(actor: NodeActor[Any], envelope: Envelope[Any]) -> None:
    """Let *actor* take one message, as Pykka's own loop would."""
    if actor.actor_stopped.is_set():
        if envelope.reply_to is not None:
            envelope.reply_to.set_exception((pykka.ActorDeadError, pykka.ActorDeadError(str(actor)), None))
        return
    try:
        response = actor._handle_receive(envelope.message)  # noqa: SLF001
    except Exception:  # noqa: BLE001 - NodeActor has told the fatal hook; a caller that asked must not wait for ever
        if envelope.reply_to is None:
            fail(actor)
            return
        envelope.reply_to.set_exception()
    else:
        if envelope.reply_to is not None:
            envelope.reply_to.set(response)


def fail(actor: NodeActor[Any]) -> None:
    """Let *actor* take nothing more: it has crashed, its home's fatal hook was told, and the process is ending."""
    pykka.ActorRegistry.unregister(actor.actor_ref)
    actor.actor_stopped.set()

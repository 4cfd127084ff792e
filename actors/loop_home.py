"""The home of the actors of the hot path: an asyncio loop that they share with the sockets.

Measured on two cores under the GIL: a second busy Python thread adds hand-overs, not speed.  A message to an actor of
a loop lies in its mailbox as it is; only what is asked, and wants an answer, comes in Pykka's envelope.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from actors.base import Probe, deliver, fail
from actors.load import Load
from actors.messages.common import Tick

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.base import FatalHook, M, Mailbox, NodeActor

DRAIN_MAX_S = 0.005
"""How long mailboxes are drained before the loop looks at its sockets again, so that no actor can starve them."""

APART: Final = frozenset({Envelope, Probe, Tick, _ActorStop})
"""What is delivered by way of Pykka's hooks.  Anything else goes to the actor's handle, without a detour."""


class LoopInbox:
    """The mailbox of an actor on a shared loop."""

    __slots__ = ("_home", "actor", "handle", "load", "queue", "scheduled")

    def __init__(self, home: LoopHome, actor: NodeActor[Any]) -> None:
        self._home = home
        self.actor = actor
        self.load = Load(type(actor).__name__)
        self.queue: deque[Any] = deque()
        """Messages, and envelopes of those that are asked."""
        self.scheduled = False
        self.handle: Callable[[Any], None] | None = None
        """Takes what is told; None before the actor's setup."""

    def tell(self, message: Any, /) -> None:  # noqa: ANN401 - see Mailbox
        """Append from any thread."""
        # The append comes before the look at the flag, and the drain clears the flag before it pops: whoever loses
        # the race, the message is seen.
        self.queue.append(message)
        if not self.scheduled:
            self.scheduled = True
            self._home.schedule(self)

    def put(self, envelope: Envelope[Any], /) -> None:
        """Append from any thread."""
        self.tell(envelope)

    def get(self) -> Envelope[Any]:
        """Remove and return the oldest; IndexError when empty (Pykka asks empty first)."""
        return enveloped(self.queue.popleft())

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self.queue

    def set_up(self) -> None:
        """Run the actor's setup."""
        self.actor._actor_loop_setup()  # noqa: SLF001 - a Pykka home
        self._handle_while_alive()

    def deliver(self, message: Any) -> Callable[[Any], None]:  # noqa: ANN401 - see Mailbox
        """Deliver by way of Pykka's hooks; return what takes the next ones."""
        deliver(self.actor, enveloped(message))
        return self._handle_while_alive()

    def fail(self) -> None:
        """Take nothing more: the actor has crashed."""
        fail(self.actor)
        self.handle = dropped
        self.scheduled = True

    def _handle_while_alive(self) -> Callable[[Any], None]:
        self.handle = dropped if self.actor.actor_stopped.is_set() else self.actor.handle
        return self.handle


class Near:
    """An address in the sender's own home: what is told is handled, after all that was told before it, at once."""

    __slots__ = ("_home", "_inbox")

    def __init__(self, home: LoopHome, inbox: LoopInbox) -> None:
        self._home = home
        self._inbox = inbox

    def tell(self, message: Any, /) -> None:  # noqa: ANN401 - see Mailbox
        """Append, and deliver; to an actor before its setup only append."""
        inbox = self._inbox
        if inbox.handle is None:
            inbox.tell(message)
        else:
            inbox.queue.append(message)
            self._home.hand_over(inbox)


class LoopHome:
    """One thread with one asyncio loop for its actors and their sockets.

    Mailboxes that have something are drained in turn within one loop callback, so a chain of tells among actors of
    this home costs no further round of the selector.
    """

    def __init__(self, fatal: FatalHook, name: str, now_s: Callable[[], float] | None = None) -> None:
        """*now_s* is what asyncio's loops ask for the time, monotonic: asking it without them in between costs less."""
        self.fatal = fatal
        self.loop = asyncio.new_event_loop()
        if now_s is not None:
            self.loop.time = now_s  # type: ignore[method-assign]
        self._ready: deque[LoopInbox] = deque()
        self._inboxes: list[LoopInbox] = []
        self._scheduled = False
        self._draining = False
        self._handed_over_s = 0.0
        self._thread_id = 0
        self._runner = threading.Thread(target=self._run_loop, name=name)
        self._runner.start()

    def make_inbox(self, actor: NodeActor[Any]) -> Mailbox:
        """Return a mailbox that wakes the loop."""
        inbox = LoopInbox(self, actor)
        self._inboxes.append(inbox)
        return inbox

    def __contains__(self, inbox: object) -> bool:
        """Whether an actor that lives here has this mailbox."""
        return inbox in self._inboxes

    def loads(self) -> list[tuple[Load, int]]:
        """Return each actor's load and the depth of its mailbox."""
        return [(inbox.load, len(inbox.queue)) for inbox in self._inboxes]

    def start(self, actor: NodeActor[Any]) -> None:
        """Have the loop run the actor's setup, before anything that was or will be told to it."""
        # Through the mailbox, not beside it: a drain that is under way may meet the first message at any moment.
        inbox = actor.actor_inbox
        assert isinstance(inbox, LoopInbox), inbox
        inbox.scheduled = True
        self.schedule(inbox)

    def schedule(self, inbox: LoopInbox) -> None:
        """Have *inbox* drained soon."""
        self._ready.append(inbox)
        if threading.get_ident() != self._thread_id:
            # A loop that is closed has no actors left: what they are told is dropped, as Pykka drops it.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._drain)
        elif not self._draining and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._drain)

    def settle(self, tell: Callable[[], None]) -> None:
        """Call *tell*; what it tells actors of this home is delivered in this turn of the loop, not in the next one."""
        if self._draining or threading.get_ident() != self._thread_id:
            tell()
            return
        self._draining = True  # nobody need wake the loop for what is told
        try:
            tell()
        finally:
            self._drain()

    def near(self, address: Address[M]) -> Address[M] | None:
        """See Home."""
        inbox = getattr(address, "actor_inbox", None)
        return Near(self, inbox) if inbox in self._inboxes else None

    def hand_over(self, inbox: LoopInbox) -> None:
        """Deliver what *inbox* holds now, in the middle of another actor's message.  On the loop's thread."""
        now_s = self.loop.time
        began_s = now_s()
        self._deliver(inbox)
        took_s = now_s() - began_s
        inbox.load.busy_s += took_s
        self._handed_over_s += took_s

    def close(self) -> None:
        """Stop the loop after its actors have stopped, and wait for the thread; harmless when repeated."""
        with contextlib.suppress(RuntimeError):  # closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._runner.join()

    def _run_loop(self) -> None:
        self._thread_id = threading.get_ident()
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def _drain(self) -> None:
        ready = self._ready
        self._scheduled = False
        self._draining = True
        now_s = self.loop.time
        began_s = now_s()
        until_s = began_s + DRAIN_MAX_S
        while ready:
            if began_s > until_s:
                self._scheduled = True
                self.loop.call_soon(self._drain)
                break
            inbox = ready.popleft()
            inbox.scheduled = False
            if inbox.handle is None:
                inbox.set_up()
            if not inbox.queue:
                continue  # it was filled while it was drained, and came up once more
            self._deliver(inbox)
            ended_s = now_s()
            inbox.load.busy_s += ended_s - began_s - self._handed_over_s
            self._handed_over_s = 0.0
            began_s = ended_s
        self._draining = False

    def _deliver(self, inbox: LoopInbox) -> None:
        """Deliver what *inbox* holds now, but not what comes meanwhile."""
        handle = inbox.handle
        assert handle is not None, "not set up yet"
        queue = inbox.queue
        count = len(queue)
        try:
            left = count
            while left:  # not a range: most counts are 1
                left -= 1
                message = queue.popleft()
                if type(message) in APART:
                    handle = inbox.deliver(message)
                else:
                    handle(message)
        except Exception as error:  # noqa: BLE001 - the process is ending; until then the others here go on
            self.fatal(type(inbox.actor).__name__, error)
            inbox.fail()
            self._ready.append(inbox)  # what waits behind is told that it is dead
        load = inbox.load
        load.message_count += count
        load.batch_count += 1


def dropped(_message: object) -> None:
    """Take what is told to an actor that has stopped."""


def enveloped(message: Any) -> Envelope[Any]:  # noqa: ANN401 - see Mailbox
    """Return what Pykka expects of a mailbox."""
    return message if type(message) is Envelope else Envelope(message)

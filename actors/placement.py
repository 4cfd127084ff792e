"""Homes for actors: a thread of one's own, or an asyncio loop that several share.

Measured on two cores under the GIL: a second busy Python thread adds hand-overs, not speed, so the actors of the hot
path share one loop with the sockets; what blocks outside the GIL (fsync, large reads, hashing) has its own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pykka

if TYPE_CHECKING:
    from pykka._actor import ActorInbox
    from pykka._envelope import Envelope

    from actors.base import FatalHook, NodeActor

DRAIN_MAX_S = 0.005
"""How long mailboxes are drained before the loop looks at its sockets again, so that no actor can starve them."""


class Load:
    """How much an actor had to do.  Its own thread writes; others may read, and see the past."""

    __slots__ = ("batch_count", "busy_s", "message_count", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.message_count = 0
        self.batch_count = 0
        """How often its mailbox was drained."""
        self.busy_s = 0.0


class ThreadInbox(SimpleQueue["Envelope[Any]"]):
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

    def make_inbox(self, actor: NodeActor[Any]) -> ActorInbox:
        """Return an unbounded queue."""
        inbox = ThreadInbox(Load(type(actor).__name__))
        self._inboxes.append(inbox)
        return inbox

    def loads(self) -> list[tuple[Load, int]]:
        """Return each actor's load and the depth of its mailbox."""
        return [(inbox.load, inbox.qsize()) for inbox in self._inboxes]

    def settle(self) -> None:
        """Do nothing: each actor's thread is already at it."""

    def start(self, actor: NodeActor[Any]) -> None:
        """Start the actor's thread, named after its class."""
        threading.Thread(target=actor._actor_loop, name=type(actor).__name__).start()  # noqa: SLF001 - a Pykka home


class LoopInbox:
    """The mailbox of an actor on a shared loop."""

    __slots__ = ("_home", "actor", "load", "queue", "scheduled", "set_up")

    def __init__(self, home: LoopHome, actor: NodeActor[Any]) -> None:
        self._home = home
        self.actor = actor
        self.load = Load(type(actor).__name__)
        self.queue: deque[Envelope[Any]] = deque()
        self.scheduled = False
        self.set_up = False

    def put(self, envelope: Envelope[Any], /) -> None:
        """Append from any thread."""
        # The append comes before the look at the flag, and the drain clears the flag before it pops: whoever loses
        # the race, the envelope is seen.
        self.queue.append(envelope)
        if not self.scheduled:
            self.scheduled = True
            self._home.schedule(self)

    def get(self) -> Envelope[Any]:
        """Remove and return the oldest; IndexError when empty (Pykka asks empty first)."""
        return self.queue.popleft()

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self.queue


class LoopHome:
    """One thread with one asyncio loop for its actors and their sockets.

    Mailboxes that have something are drained in turn within one loop callback, so a chain of tells among actors of
    this home costs no further round of the selector.
    """

    def __init__(self, fatal: FatalHook, name: str) -> None:
        self.fatal = fatal
        self.loop = asyncio.new_event_loop()
        self._ready: deque[LoopInbox] = deque()
        self._inboxes: list[LoopInbox] = []
        self._scheduled = False
        self._draining = False
        self._thread = threading.Thread(target=self._run_loop, name=name)
        self._thread.start()

    def make_inbox(self, actor: NodeActor[Any]) -> ActorInbox:
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
        if threading.get_ident() != self._thread.ident:
            # A loop that is closed has no actors left: what they are told is dropped, as Pykka drops it.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._drain)
        elif not self._draining and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._drain)

    def settle(self) -> None:
        """Drain the mailboxes within this turn of the loop, instead of in the next one."""
        if not self._draining and threading.get_ident() == self._thread.ident:
            self._drain()

    def close(self) -> None:
        """Stop the loop after its actors have stopped, and wait for the thread; harmless when repeated."""
        with contextlib.suppress(RuntimeError):  # closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run_loop(self) -> None:
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
            actor = inbox.actor
            if not inbox.set_up:
                inbox.set_up = True
                actor._actor_loop_setup()  # noqa: SLF001 - a Pykka home
            queue = inbox.queue
            count = len(queue)
            for _ in range(count):
                deliver(actor, queue.popleft())
            ended_s = now_s()
            if count:  # an inbox that was filled while it was drained comes up once more
                load = inbox.load
                load.message_count += count
                load.batch_count += 1
                load.busy_s += ended_s - began_s
            began_s = ended_s
        self._draining = False


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
            pykka.ActorRegistry.unregister(actor.actor_ref)
            actor.actor_stopped.set()  # the home's fatal hook was told; the process is ending
            return
        envelope.reply_to.set_exception()
    else:
        if envelope.reply_to is not None:
            envelope.reply_to.set(response)

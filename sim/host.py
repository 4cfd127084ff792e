"""Homes and a host whose actors are never started: the schedule delivers to them, one message at a time.

They meet what actors of a process meet: Pykka's mailboxes in their order, an asyncio loop where they share one (only
as much of it as actors use), a ticker, a clock.  A home is a thread: while a delivery costs time, nobody else who lives
there gets anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from pykka._envelope import Envelope

from actors import base
from actors.base import deliver
from actors.messages.common import Tick
from actors.peer_transport import PeerTransportActor
from actors.serve import ServeActor
from sim.describe import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random

    from actors.address import Address, AnyDelivery
    from actors.base import Home, NodeActor
    from sim.schedule import Mailbox, Schedule

P = ParamSpec("P")
M = TypeVar("M")


class SimClock:
    """A member's clock: goes at its own rate, and the time of day may jump."""

    def __init__(self, schedule: Schedule, rate: float, started_s: float) -> None:
        self._schedule = schedule
        self._rate = rate
        self._started_s = started_s
        self.wall_offset_s = 1_700_000_000.0

    def monotonic_s(self) -> float:
        """See Clock."""
        return self._started_s + (self._schedule.now_s + self._schedule.spent_s) * self._rate

    def wall_s(self) -> float:
        """See Clock."""
        return self.wall_offset_s + self.monotonic_s()


class Finished:
    """A task that ran to its end when it was made."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call it now."""
        callback(self)

    def cancelled(self) -> bool:
        """See asyncio.Task."""
        return False

    def exception(self) -> None:
        """See asyncio.Task."""


class SimLoop:
    """As much of an asyncio loop as actors use; also a mailbox, of what is called soon."""

    def __init__(self, home: SimHome) -> None:
        self._home = home
        self._soon: deque[tuple[float, Callable[..., object], tuple[object, ...]]] = deque()

    def time(self) -> float:
        """See asyncio: monotonic seconds."""
        return self._home.host.clock.monotonic_s()

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """See asyncio."""
        if not self._home.host.alive:
            return
        if not self._soon:
            self._home.host.wait(self)
        self._soon.append((self._home.host.schedule.now_s + self._home.host.schedule.spent_s, callback, args))

    def create_task(self, work: Coroutine[Any, Any, None]) -> Finished:
        """Run *work* to its end: nothing that actors run here waits for anything."""
        try:
            work.send(None)
        except StopIteration:
            return Finished()
        raise AssertionError(f"{work} waits for something that the simulation does not have")

    @property
    def due_s(self) -> float:
        """See Mailbox."""
        free_s, told_s = self._home.free_s, self._soon[0][0]
        return free_s if free_s > told_s else told_s  # noqa: FURB136 - asked of every mailbox at every step

    def empty(self) -> bool:
        """See Mailbox."""
        return not self._soon or not self._home.host.alive

    def deliver(self) -> None:
        """Call what has waited longest."""
        _, callback, args = self._soon.popleft()
        with self._home:
            callback(*args)


class SimInbox(base.Mailbox):
    """The mailbox of one actor."""

    def __init__(self, home: SimHome, actor: NodeActor[Any]) -> None:
        self.home = home
        self._actor = actor
        self._queue: deque[tuple[float, Envelope[Any]]] = deque()

    def put(self, envelope: Envelope[Any], /) -> None:
        """Append, to be delivered a little later."""
        host = self.home.host
        if not host.alive:
            return
        if not self._queue:
            host.wait(self)
        self._queue.append((host.schedule.now_s + host.schedule.spent_s + host.hop_s(), envelope))

    def get(self) -> Envelope[Any]:
        """Remove and return the oldest."""
        return self._queue.popleft()[1]

    def empty(self) -> bool:
        """See Mailbox."""
        return not self._queue or not self.home.host.alive

    @property
    def due_s(self) -> float:
        """See Mailbox."""
        free_s, told_s = self.home.free_s, self._queue[0][0]
        return free_s if free_s > told_s else told_s  # noqa: FURB136 - see above

    def deliver(self) -> None:
        """Deliver the message that has waited longest."""
        with self.home:
            self._deliver()

    def hand_over(self, message: object) -> None:
        """Deliver all that waits, and then *message*, in the middle of another actor's message.

        What comes meanwhile, also from the actor itself, waits for its turn.
        """
        host = self.home.host
        if not host.alive:
            return
        self._queue.append((host.schedule.now_s, Envelope(message)))
        for _ in range(len(self._queue)):
            self._deliver()
        host.schedule.forget({id(self)})
        if self._queue and host.alive:
            host.wait(self)

    def _deliver(self) -> None:
        envelope = self.get()
        actor, host = self._actor, self.home.host
        message = envelope.message
        if type(message) is not Tick:
            host.schedule.note(host.name, f"{type(actor).__name__} {describe(message)}")
        deliver(actor, envelope)
        host.delivered(actor)


class SimNear:
    """See Near of the shared loop."""

    def __init__(self, inbox: SimInbox) -> None:
        self._inbox = inbox

    def tell(self, message: object) -> None:
        """Have it handled now."""
        self._inbox.hand_over(message)


class SimHome:
    """A thread of a simulated member."""

    def __init__(self, host: SimHost) -> None:
        self.host = host
        self.free_s = 0.0
        self._loop = SimLoop(self)

    @property
    def fatal(self) -> Callable[[str, BaseException], None]:
        """See Home."""
        return self.host.crashed

    def make_inbox(self, actor: NodeActor[Any]) -> SimInbox:
        """See Home."""
        return SimInbox(self, actor)

    def settle(self, tell: Callable[[], None]) -> None:
        """See Home: mailboxes are drained when the schedule says so."""
        tell()

    def near(self, address: Address[M]) -> Address[M] | None:
        """See Home."""
        inbox = getattr(address, "actor_inbox", None)
        return SimNear(inbox) if isinstance(inbox, SimInbox) and inbox.home is self else None

    def start(self, actor: NodeActor[Any]) -> None:
        """Run the actor's setup."""
        with self:
            actor._actor_loop_setup()  # noqa: SLF001 - a Pykka home

    def call(self, callback: Callable[[], object]) -> None:
        """Have *callback* called on this thread."""
        self._loop.call_soon(callback)

    def __enter__(self) -> None:
        asyncio._set_running_loop(self._loop)  # type: ignore[arg-type]  # noqa: SLF001 - as much of a loop as actors use

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(None)  # noqa: SLF001
        self.free_s = max(self.free_s, self.host.schedule.now_s + self.host.schedule.spent_s)


class Surroundings(Protocol):
    """What a host's member has around it."""

    def delivered(self, actor: NodeActor[Any]) -> None:
        """Notice that *actor* has taken a message."""

    def crashed(self, actor: str, error: BaseException) -> None:
        """Notice that *actor* has crashed."""

    def attach(self, **kwargs: Any) -> Address[Any]:  # noqa: ANN401 - as PeerTransportActor takes them
        """Return what stands for PeerTransportActor."""

    def make_engine(self, *args: Any) -> Any:  # noqa: ANN401 - as ServeActor asks for one
        """Return what stands for the engine of a listener."""

    def address_of(self, actor: NodeActor[Any]) -> Address[Any]:
        """Return what others shall tell instead of *actor*."""


class SimHost:
    """One life of one member, from a start to a crash."""

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        clock: SimClock,
        random: Random,
        hop_s: float,
        around: Surroundings,
    ) -> None:
        self.name = name
        self.schedule = schedule
        self.clock = clock
        self.alive = True
        self._random = random
        self._hop_s = hop_s
        self._around = around
        self._mailboxes: dict[int, Mailbox] = {}
        self._loops: dict[str, SimHome] = {}
        self._homes: list[SimHome] = []

    def own_thread(self) -> SimHome:
        """See Host: a new one for each who asks."""
        home = SimHome(self)
        self._homes.append(home)
        return home

    def loop(self, name: str) -> SimHome:
        """See Host."""
        if name not in self._loops:
            self._loops[name] = self.own_thread()
        return self._loops[name]

    def spawn(
        self, home: Home, make: Callable[Concatenate[Home, P], NodeActor[M]], *args: P.args, **kwargs: P.kwargs
    ) -> Address[M]:
        """See Host.  Sockets, and chance that is not ours, are replaced on the way."""
        given: dict[str, Any] = dict(kwargs)
        if make is PeerTransportActor:
            return self._around.attach(**given)
        if make is ServeActor:
            given["make_engine"] = self._around.make_engine
        if "random" in given:
            given["random"] = self._random
        assert isinstance(home, SimHome), home
        # Threads of their own are asked for once and shared by name only: each actor there gets one.
        place = home if home in self._loops.values() else self.own_thread()
        actor = make(place, *args, **given)
        place.start(actor)
        return self._around.address_of(actor)

    def crashed(self, actor: str, error: BaseException) -> None:
        """See Host."""
        self._around.crashed(actor, error)

    def retire(self) -> None:
        """See Host."""
        raise AssertionError(f"{self.name} was told that it is no member")

    def delivered(self, actor: NodeActor[Any]) -> None:
        """Notice that *actor* has taken a message."""
        self._around.delivered(actor)

    def wait(self, mailbox: Mailbox) -> None:
        """Have *mailbox* delivered from."""
        self._mailboxes[id(mailbox)] = mailbox
        self.schedule.wait(mailbox)

    def hop_s(self) -> float:
        """Return how late the next message comes."""
        return self._random.random() * self._hop_s if self._hop_s else 0.0

    def pause(self, length_s: float) -> None:
        """Stop all threads for a while."""
        until_s = self.schedule.now_s + length_s
        for home in self._homes:
            home.free_s = max(home.free_s, until_s)

    def end(self) -> None:
        """Deliver nothing any more."""
        self.alive = False
        self.schedule.forget(set(self._mailboxes))


class SimTicker:
    """Ticks over a member's own time, as daemon.ticker does: nobody who has not taken the last tick gets another."""

    def __init__(self, host: SimHost, rate: float, period_s: float) -> None:
        self._host = host
        self._rate = rate
        self._period_s = period_s
        self._listeners: list[tuple[Address[Tick], list[bool]]] = []

    def start(self) -> None:
        """Begin to tick."""
        self._host.schedule.after(self._period_s / self._rate, self._tick)

    def listen(self, listener: Address[Tick]) -> None:
        """See Ticks."""
        self._listeners.append((listener, []))

    def after(self, delay_s: float, delivery: AnyDelivery) -> None:
        """See Ticks."""
        self._host.schedule.after(delay_s / self._rate, delivery.send)

    def _tick(self) -> None:
        if not self._host.alive:
            return
        now_s = self._host.clock.monotonic_s()
        for listener, untaken in self._listeners:
            if not untaken:
                untaken.append(True)
                listener.tell(Tick(now_s, untaken.clear))
        self._host.schedule.after(self._period_s / self._rate, self._tick)

"""A home for actors under test: nothing is started, and messages are delivered one at a time, in the order of telling.

It delivers through the same function as the shared loop, so an actor meets here what it meets in a node.  Beside it
stand what the actors are handed: addresses that keep what they are told, a clock and a ``later`` that are moved by
hand, and a logger that remembers.  tests/actors/test_home.py holds this home to the real ones.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import structlog

from actors.base import Mailbox, deliver
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from pykka._envelope import Envelope

    from actors.address import Address, AnyDelivery
    from actors.base import Home, M, NodeActor

P = ParamSpec("P")
A = TypeVar("A", bound="NodeActor[Any]")

DELIVERIES_MAX = 100_000
"""More than any test needs: an actor that tells itself something for ever is found, not waited for."""


class TestInbox(Mailbox):
    """The mailbox of one actor."""

    __test__ = False

    def __init__(self, home: TestHome, actor: NodeActor[Any]) -> None:
        self._home = home
        self.actor = actor
        self.queue: deque[Envelope[Any]] = deque()

    def put(self, envelope: Envelope[Any], /) -> None:
        """Append, and take a place in the home's order."""
        self.queue.append(envelope)
        self._home.order.append(self)

    def get(self) -> Envelope[Any]:
        """Remove and return the oldest."""
        return self.queue.popleft()

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self.queue


class TestHome:
    """Where actors live that are not started."""

    __test__ = False

    def __init__(self) -> None:
        self.crashes: list[tuple[str, BaseException]] = []
        self.order: deque[TestInbox] = deque()
        self.clock = FakeClock()
        self.later = Later(self.clock)
        self.log = structlog.testing.LogCapture()
        self.logger = structlog.stdlib.BoundLogger(None, [self.log], {})

    def fatal(self, actor: str, error: BaseException) -> None:
        """Keep the crash for the test to look at."""
        self.crashes.append((actor, error))

    def make_inbox(self, actor: NodeActor[Any]) -> TestInbox:
        """Return a mailbox of this home."""
        return TestInbox(self, actor)

    def start(self, actor: NodeActor[Any]) -> None:
        """Run the actor's setup."""
        actor._actor_loop_setup()

    def settle(self, tell: Callable[[], None]) -> None:
        """Call *tell*: only the test delivers."""
        tell()

    def near(self, _address: Address[M]) -> Address[M] | None:
        """Return nothing: only the test delivers."""
        return None

    def build(self, make: Callable[Concatenate[Home, P], A], *args: P.args, **kwargs: P.kwargs) -> A:
        """Return an actor whose setup has not run."""
        return make(self, *args, **kwargs)

    def spawn(self, make: Callable[Concatenate[Home, P], A], *args: P.args, **kwargs: P.kwargs) -> A:
        """Return an actor whose setup has run; what it told itself and others there is not delivered yet."""
        actor = self.build(make, *args, **kwargs)
        self.start(actor)
        return actor

    def deliver_one(self) -> bool:
        """Deliver the message that has waited longest; False if there is none."""
        if not self.order:
            return False
        inbox = self.order.popleft()
        deliver(inbox.actor, inbox.get())
        return True

    def run(self) -> None:
        """Deliver until nothing waits; a crash of an actor fails the test with its cause."""
        for _ in range(DELIVERIES_MAX):
            if not self.deliver_one():
                break
        else:
            raise AssertionError(f"still busy after {DELIVERIES_MAX} messages")
        if self.crashes:
            raise self.crashes[0][1]

    def tell(self, actor: NodeActor[Any], *messages: object) -> None:
        """Tell *actor* these, and deliver until nothing waits."""
        for message in messages:
            actor.actor_ref.tell(message)
        self.run()

    def stop(self, actor: NodeActor[Any]) -> None:
        """Stop *actor* as a host does: behind what it was told already."""
        actor.actor_ref.stop(block=False)
        self.run()

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Return the log entries with this message."""
        return [dict(entry) for entry in self.log.entries if entry["event"] == message]


class Later:
    """The ticker's ``after``, moved by hand: what is due goes out when the test says so."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, AnyDelivery]] = []
        self._count = 0

    def __call__(self, delay_s: float, delivery: AnyDelivery, /) -> None:
        """Keep *delivery* until its time has come."""
        self._count += 1
        heapq.heappush(self._due, (self._clock.now_s + delay_s, self._count, delivery))

    def __len__(self) -> int:
        return len(self._due)

    def advance(self, by_s: float) -> None:
        """Let *by_s* seconds pass and send what is due."""
        self._clock.now_s += by_s
        while self._due and self._due[0][0] <= self._clock.now_s:
            heapq.heappop(self._due)[2].send()

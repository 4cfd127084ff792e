"""The ticker: ticks that nobody is flooded with, and deliveries in the order in which they are due."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

import pytest

from actors.address import Delivery
from daemon.clock import SystemClock
from daemon.ticker import Ticker
from tests.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.messages.common import Tick

WAIT_S = 10.0
PERIOD_S = 0.002


class Mailbox:
    """An address that another thread waits on."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[object] = queue.SimpleQueue()

    def tell(self, message: object) -> None:
        self.queue.put(message)

    def get(self) -> object:
        return self.queue.get(timeout=WAIT_S)


class Ticks:
    """An address of ticks, which takes them when the test says so."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Tick] = queue.SimpleQueue()

    def tell(self, message: Tick) -> None:
        self.queue.put(message)

    def take(self) -> float:
        """Take the next tick and return its time."""
        tick = self.queue.get(timeout=WAIT_S)
        assert tick.taken is not None
        tick.taken()
        return tick.now_s


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    made = Ticker(SystemClock(), PERIOD_S)
    made.start()
    yield made
    made.stop()


def test_ticks_come_again_and_again_to_all(ticker: Ticker) -> None:
    """Raft, leases and timeouts all live by them."""
    one, two = Ticks(), Ticks()
    ticker.listen(one)
    ticker.listen(two)
    for ticks in (one, two):
        times = [ticks.take() for _ in range(3)]
        assert times == sorted(set(times))


class ShortClock(FakeClock):
    """A microsecond goes by between two looks, whatever really does."""

    def monotonic_s(self) -> float:
        self.pass_s(1e-6)
        return super().monotonic_s()


class Again:
    """Asks the ticker for the next message when it is told one."""

    def __init__(self, ticker: Ticker, last: int) -> None:
        self.done = Mailbox()
        self._ticker = ticker
        self._last = last

    def tell(self, number: int) -> None:
        if number == self._last:
            self.done.tell(number)
        else:
            self._ticker.after(1e-6 * (number % 5), Delivery(self, number + 1))


def test_very_short_waits_come_to_an_end() -> None:
    """A wait that is over before it has begun must not last for ever: no tick would come after it."""
    ticker = Ticker(ShortClock(), 1.0)
    again = Again(ticker, 20_000)
    ticker.start()
    ticker.after(0.0, Delivery(again, 0))
    assert again.done.get() == 20_000
    ticker.stop()


def test_who_has_not_taken_a_tick_gets_no_second(ticker: Ticker) -> None:
    """After a stall a burst of ticks would look like an election timeout, and start an election for nothing."""
    stalled, running = Ticks(), Ticks()
    ticker.listen(stalled)
    ticker.listen(running)
    for _ in range(5):
        running.take()
    assert stalled.queue.qsize() <= 1
    stalled.take()
    assert stalled.take()


def test_a_late_tick_is_not_made_up_for() -> None:
    """Ten seconds of a machine that slept are one tick, not a hundred."""
    clock = FakeClock(0.0)
    ticker = Ticker(clock, PERIOD_S)
    ticks, asked = Ticks(), Mailbox()
    ticker.listen(ticks)
    ticker.start()
    clock.now_s = 10.0
    assert ticks.take() == 10.0
    ticker.after(0.0, Delivery(asked, "a round later"))
    asked.get()
    assert ticks.queue.empty()
    ticker.stop()


def test_deliveries_go_out_when_they_are_due() -> None:
    """In the order of their times, and of asking where those are equal; not one before its time."""
    clock = FakeClock(0.0)
    ticker = Ticker(clock, PERIOD_S)
    mailbox = Mailbox()
    for delay_s, name in ((3.0, "third"), (1.0, "first"), (1.0, "second"), (9.0, "never")):
        ticker.after(delay_s, Delivery(mailbox, name))
    ticker.start()
    clock.now_s = 0.5
    ticker.after(0.0, Delivery(mailbox, "at once"))
    assert mailbox.get() == "at once"
    clock.now_s = 3.0
    assert [mailbox.get() for _ in range(3)] == ["first", "second", "third"]
    ticker.stop()
    assert mailbox.queue.empty(), "what was due later is dropped by a stop"

"""The one thread that knows how time passes: it tells Tick to those who asked, and sends what is due later.

Actors have no timers of their own.  What they want told later they give to the ticker as a Delivery; the simulator
has a ticker of the same shape over virtual time.
"""

from __future__ import annotations

import heapq
import queue
import threading
from typing import TYPE_CHECKING, Protocol

from actors.messages.common import Tick

if TYPE_CHECKING:
    from actors.address import Address, AnyDelivery
    from core.clock import Clock


class Ticks(Protocol):
    """What actors' wiring asks of a ticker, over real time or virtual."""

    def listen(self, listener: Address[Tick]) -> None:
        """Tell *listener* each tick from now on."""

    def after(self, delay_s: float, delivery: AnyDelivery) -> None:
        """Send *delivery* in *delay_s* seconds."""


class Ticker:
    """Ticks every *period_s* seconds, and delivers later what it is given.  Its methods may be called by any thread."""

    def __init__(self, clock: Clock, period_s: float) -> None:
        self._clock = clock
        self._period_s = period_s
        self._listeners: list[_Listener] = []
        # Not a SimpleQueue: in Python 3.11 its get() waits for ever if its timeout is over before the wait has begun.
        self._asked: queue.Queue[tuple[float, AnyDelivery] | None] = queue.Queue()
        self._due: list[tuple[float, int, AnyDelivery]] = []
        self._order = 0
        self._thread = threading.Thread(target=self._run, name="Ticker")

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the thread; what was due later is dropped."""
        self._asked.put(None)
        self._thread.join()

    def listen(self, listener: Address[Tick]) -> None:
        """Tell *listener* each tick from now on, except while it has not taken the one before."""
        self._listeners = [*self._listeners, _Listener(listener)]

    def after(self, delay_s: float, delivery: AnyDelivery) -> None:
        """Send *delivery* in *delay_s* seconds."""
        self._asked.put((self._clock.monotonic_s() + delay_s, delivery))

    def _run(self) -> None:
        next_tick_s = self._clock.monotonic_s() + self._period_s
        while True:
            now_s = self._clock.monotonic_s()
            until_s = min(next_tick_s, self._due[0][0]) if self._due else next_tick_s
            try:
                asked = self._asked.get(timeout=max(until_s - now_s, 0.0))
            except queue.Empty:
                pass
            else:
                if asked is None:
                    return
                self._order += 1
                heapq.heappush(self._due, (asked[0], self._order, asked[1]))
                continue
            now_s = self._clock.monotonic_s()
            while self._due and self._due[0][0] <= now_s:
                heapq.heappop(self._due)[2].send()
            if next_tick_s <= now_s:
                # A tick that comes late is not made up for: raft counts elapsed ticks, and a burst of them after a
                # stall would start an election for nothing.
                next_tick_s += self._period_s
                if next_tick_s <= now_s:
                    next_tick_s = now_s + self._period_s
                for listener in self._listeners:
                    listener.tick(now_s)


class _Listener:
    """One who is told, and whether a tick lies in its mailbox."""

    def __init__(self, address: Address[Tick]) -> None:
        self._address = address
        self._untaken = False

    def tick(self, now_s: float) -> None:
        """Tell of a tick, unless the last one is still to be taken."""
        if not self._untaken:
            self._untaken = True
            self._address.tell(Tick(now_s, self._take))

    def _take(self) -> None:
        self._untaken = False

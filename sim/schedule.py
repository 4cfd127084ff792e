"""Virtual time, and who is next.

Owns the clock of the simulation, what is due when, and the one source of chance for the order of deliveries.  Time
stands still while anybody has something to do; then it jumps to the next moment at which somebody has.  A mailbox keeps
its order; which mailbox is next is drawn.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

DELIVERIES_MAX = 800_000
"""More than any sound run needs: members that keep each other busy for ever are found, not waited for."""


class Failure(BaseException):
    """A promise was broken; the text says which.  No Exception, so that no guard takes it for an actor's crash."""


class Mailbox(Protocol):
    """Something with messages for one receiver."""

    @property
    def due_s(self) -> float:
        """From when on the first message may be delivered."""

    def deliver(self) -> None:
        """Deliver the first message."""

    def empty(self) -> bool:
        """Whether nothing waits that will ever be delivered."""


class Trace:
    """What happened, for people, and as one number: equal numbers mean equal runs."""

    def __init__(self, lines_max: int | None) -> None:
        self.lines: deque[str] = deque(maxlen=lines_max)
        self._digest = blake2b(digest_size=16)

    def note(self, now_s: float, who: str, what: str) -> None:
        """Add a line."""
        line = f"{now_s:11.6f} {who:<4} {what}"
        self.lines.append(line)
        self._digest.update(line.encode())

    def hexdigest(self) -> str:
        """Return the number of all lines so far, also of those that are no longer kept."""
        return self._digest.hexdigest()


class Schedule:
    """The simulation's thread."""

    def __init__(self, random: Random, trace: Trace) -> None:
        self.now_s = 0.0
        self.spent_s = 0.0
        """What the delivery under way has cost so far: its messages leave that much later."""
        self.deliveries = 0
        self._random = random
        self._trace = trace
        self._timed: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._waiting: list[Mailbox] = []

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Call *act* in *delay_s* seconds."""
        self._order += 1
        heapq.heappush(self._timed, (self.now_s + self.spent_s + delay_s, self._order, act))

    def wait(self, mailbox: Mailbox) -> None:
        """Have *mailbox*, which was empty until now, delivered from."""
        self._waiting.append(mailbox)

    def forget(self, mailboxes: set[int]) -> None:
        """Deliver nothing any more from the mailboxes with these identities."""
        self._waiting = [mailbox for mailbox in self._waiting if id(mailbox) not in mailboxes]

    def note(self, who: str, what: str) -> None:
        """Add to the trace."""
        self._trace.note(self.now_s, who, what)

    def step(self) -> None:
        """Deliver one message, or let time pass until there is one."""
        now_s = self.now_s
        while self._timed and self._timed[0][0] <= now_s:
            self.spent_s = 0.0
            heapq.heappop(self._timed)[2]()
        waiting = self._waiting
        dues = [mailbox.due_s for mailbox in waiting]
        first_s = min(dues, default=math.inf)
        if first_s <= now_s:
            ready = [mailbox for mailbox, due_s in zip(waiting, dues, strict=True) if due_s <= now_s]
            mailbox = ready[self._random.randrange(len(ready))] if len(ready) > 1 else ready[0]
            self.spent_s = 0.0
            self.deliveries += 1
            if self.deliveries > DELIVERIES_MAX:
                raise Failure(f"still busy after {DELIVERIES_MAX} messages")
            waiting.remove(mailbox)
            mailbox.deliver()
            self.spent_s = 0.0
            # It may be back already, if it was empty and was told something.
            if not mailbox.empty() and mailbox not in self._waiting:
                self._waiting.append(mailbox)
            return
        if self._timed:
            first_s = min(first_s, self._timed[0][0])
        if first_s == math.inf:
            raise Failure("nothing is left to happen: nobody ticks")
        self.now_s = first_s

    def run_until(self, end_s: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Go on until *end_s* or until *done*, which is asked every tenth of a second; whether it was done."""
        ask_s = self.now_s
        while self.now_s < end_s:
            if self.now_s >= ask_s:
                if done():
                    return True
                ask_s = self.now_s + 0.1
            self.step()
        return done()

"""MetricsActor: gathers the numbers that the other actors keep, whenever somebody wants to see them.

One round of questions serves everybody who asked before it began.  An actor that has stopped, or is too busy to answer
in time, is missing from the answer; its families come back with the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from actors.base import Home, NodeActor
from actors.messages.common import Tick
from actors.messages.metrics import Gather, Join, Measure, Measured, MetricsMessage
from actors.messages.serve import Answered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.address import Address
    from core.clock import Clock
    from core.metrics import Sample

ROUND_MAX_S = 2.0
"""How long a round waits for answers: well below the ten seconds that Prometheus waits by default."""


@final
class MetricsActor(NodeActor[MetricsMessage]):
    """Knows whom to ask for numbers.

    Owns: the round under way and who waits for it.  Tells: its sources (Measure), whoever asked (Answered).
    Fails when: never by itself.
    """

    def __init__(self, home: Home, *, own: Callable[[], Sequence[Sample]], clock: Clock) -> None:
        """*own* gives numbers that belong to no other actor; it may be called at any time."""
        super().__init__(home)
        self._own = own
        self._clock = clock
        self._sources: list[Address[Measure]] = []
        self._next: list[Gather] = []
        self._asked: list[Gather] = []
        self._round = 0
        self._missing = 0
        self._ends_s = 0.0
        self._samples: list[Sample] = []

    def handle(self, message: MetricsMessage) -> None:
        """Take one message."""
        match message:
            case Tick():
                if self._asked and message.now_s > self._ends_s:
                    self._end_round()
            case Measured():
                self._take(message)
            case Gather():
                self._next.append(message)
                if not self._asked:
                    self._begin_round()
            case Join():
                self._sources.append(message.source)

    def _begin_round(self) -> None:
        self._asked, self._next = self._next, []
        self._round += 1
        self._missing = len(self._sources)
        self._ends_s = self._clock.monotonic_s() + ROUND_MAX_S
        self._samples = list(self._own())
        question = Measure(self._round, self.actor_ref)
        for source in self._sources:
            source.tell(question)
        if not self._missing:
            self._end_round()

    def _take(self, message: Measured) -> None:
        if message.round != self._round or not self._asked:
            return
        self._samples += message.samples
        self._missing -= 1
        if not self._missing:
            self._end_round()

    def _end_round(self) -> None:
        asked, self._asked = self._asked, []
        samples, self._samples = tuple(self._samples), []
        for each in asked:
            each.answer_to.tell(Answered(each.token, samples))
        if self._next:
            self._begin_round()

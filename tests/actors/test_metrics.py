"""MetricsActor: one round of questions for all who ask, and an answer even if an actor gives none."""

from __future__ import annotations

from actors.messages.common import Tick
from actors.messages.metrics import Gather, Join, Measure, Measured
from actors.messages.serve import Answered
from actors.metrics import ROUND_MAX_S, MetricsActor
from core.metrics import Sample
from tests.actors.home import TestHome
from tests.fakes import Told

OWN, ONE, TWO = (Sample(name, 1) for name in ("own", "one", "two"))


class Desk:
    """The actor, two sources and somebody who asks."""

    def __init__(self) -> None:
        self.home = TestHome()
        self.actor = self.home.spawn(MetricsActor, own=lambda: (OWN,), clock=self.home.clock)
        self.sources = (Told(), Told())
        self.asker = Told()
        self.tell(*(Join(source) for source in self.sources))

    def tell(self, *messages: object) -> None:
        """Tell the actor these."""
        self.home.tell(self.actor, *messages)

    def ask(self, token: int) -> None:
        """Want the numbers."""
        self.tell(Gather(token, self.asker))

    def rounds(self) -> list[int]:
        """Return the rounds that the first source was asked in."""
        return [message.round for message in self.sources[0].of(Measure)]


def test_samples_of_all_come_together() -> None:
    """The answer comes when the last source has told its numbers."""
    desk = Desk()
    desk.ask(7)
    desk.tell(Measured(1, [ONE]))
    assert not desk.asker.messages
    desk.tell(Measured(1, [TWO]))
    assert desk.asker.take() == [Answered(7, (OWN, ONE, TWO))]


def test_who_asks_meanwhile_gets_a_round_of_its_own() -> None:
    """Numbers must not be older than the question; all who wait share the next round."""
    desk = Desk()
    desk.ask(1)
    desk.ask(2)
    desk.ask(3)
    desk.tell(Measured(1, [ONE]), Measured(1, [TWO]))
    assert [answer.token for answer in desk.asker.take()] == [1]
    assert desk.rounds() == [1, 2]
    desk.tell(Measured(2, [ONE]), Measured(2, []))
    assert desk.asker.take() == [Answered(2, (OWN, ONE)), Answered(3, (OWN, ONE))]


def test_a_source_that_is_silent_is_left_out() -> None:
    """One stuck actor must not hide how the others are; its late answer is no part of the next round."""
    desk = Desk()
    desk.ask(1)
    desk.tell(Measured(1, [ONE]), Tick(desk.home.clock.now_s + ROUND_MAX_S))
    assert not desk.asker.messages
    desk.tell(Tick(desk.home.clock.now_s + ROUND_MAX_S + 0.1))
    assert desk.asker.take() == [Answered(1, (OWN, ONE))]
    desk.tell(Measured(1, [TWO]))
    desk.ask(2)
    desk.tell(Measured(1, [TWO]), Measured(2, [ONE]), Measured(2, []))
    assert desk.asker.take() == [Answered(2, (OWN, ONE))]


def test_without_sources_the_answer_comes_at_once() -> None:
    """While the others start, there are the numbers of the process."""
    home, asker = TestHome(), Told()
    actor = home.spawn(MetricsActor, own=lambda: (OWN,), clock=home.clock)
    home.tell(actor, Gather(1, asker))
    assert asker.take() == [Answered(1, (OWN,))]

"""Every home treats an actor alike: the two that nodes use, and the one that tests use in their place."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pykka
import pytest

from actors.base import NodeActor, Probe
from actors.loop_home import LoopHome
from actors.messages.common import Tick
from actors.thread_home import ThreadHome
from tests.actors.home import TestHome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.base import Home

WAIT_S = 10.0


class Hop(NamedTuple):
    """Note the number, and tell oneself the rest of the way."""

    number: int
    left: int


class Recorder(NodeActor[Any]):
    """Writes down what happens to it."""

    def __init__(self, home: Home, journal: list[Any], fail_on: object = None) -> None:
        super().__init__(home)
        self._journal = journal
        self._fail_on = fail_on

    def setup(self) -> None:
        self._note("setup")
        self.actor_ref.tell("told in setup")

    def handle(self, message: Any) -> None:
        self._note(message)
        if isinstance(message, Hop) and message.left:
            self.actor_ref.tell(Hop(message.number + 1, message.left - 1))

    def teardown(self) -> None:
        self._note("teardown")

    def _note(self, what: object) -> None:
        self._journal.append(what)
        if what == self._fail_on:
            raise RuntimeError(f"asked to fail on {what}")


class House:
    """One home, and how to wait until nothing is left to do there."""

    def __init__(self, home: Home, crashes: list[tuple[str, BaseException]], run: Callable[[], None] | None) -> None:
        self.home = home
        self.crashes = crashes
        self._run = run

    def settle(self, ref: pykka.ActorRef[Any], times: int = 1) -> None:
        """Return when what was told before, and *times* rounds of what that told, has been handled."""
        for _ in range(times):
            if self._run is not None:
                self._run()
            else:
                with contextlib.suppress(pykka.ActorDeadError):
                    ref.ask(Probe(), timeout=WAIT_S)

    def stop(self, ref: pykka.ActorRef[Any]) -> None:
        """Stop the actor and wait for it."""
        stopping = ref.stop(block=False)
        if self._run is not None:
            self._run()
        stopping.get(timeout=WAIT_S)


@pytest.fixture(params=["loop", "thread", "test"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    crashes: list[tuple[str, BaseException]] = []

    def fatal(actor: str, error: BaseException) -> None:
        crashes.append((actor, error))

    if request.param == "loop":
        loop = LoopHome(fatal, "Under test")
        yield House(loop, crashes, None)
        loop.close()
    elif request.param == "thread":
        yield House(ThreadHome(fatal), crashes, None)
    else:
        test_home = TestHome()

        def run() -> None:
            while test_home.deliver_one():
                pass

        yield House(test_home, test_home.crashes, run)
    for thread in threading.enumerate():
        if thread.name == Recorder.__name__:
            thread.join(WAIT_S)
    assert len(pykka.ActorRegistry.get_all()) == 0, "an actor was left running"


def test_setup_comes_first_and_messages_keep_their_order(house: House) -> None:
    """An actor may rely on its setup having run, and on a mailbox that keeps its order."""
    journal: list[Any] = []
    ref = Recorder.start(house.home, journal)
    house.settle(ref)
    for number in range(5):
        ref.tell(number)
    house.settle(ref)
    house.stop(ref)
    assert journal == ["setup", "told in setup", 0, 1, 2, 3, 4, "teardown"]


def test_what_an_actor_tells_itself_queues_behind_what_was_told_before(house: House) -> None:
    """Notes to self mark the end of a batch: everything told before the note is met before it."""
    journal: list[Any] = []
    ref = Recorder.start(house.home, journal)
    house.settle(ref, 2)
    ref.tell(Hop(0, 3))
    house.settle(ref, 5)
    house.stop(ref)
    assert journal[2:-1] == [Hop(0, 3), Hop(1, 2), Hop(2, 1), Hop(3, 0)]


def test_a_stop_waits_for_what_was_told_and_drops_what_comes_after(house: House) -> None:
    """Whoever stops an actor gets its last words; a sender that comes too late is not hurt."""
    journal: list[Any] = []
    ref = Recorder.start(house.home, journal)
    house.settle(ref, 2)
    ref.tell("before")
    house.stop(ref)
    ref.tell("after")
    house.settle(ref)
    assert journal == ["setup", "told in setup", "before", "teardown"]
    assert house.crashes == []


@pytest.mark.parametrize("moment", ["setup", "told", "teardown"])
def test_an_exception_is_fatal_whenever_it_happens(house: House, moment: str) -> None:
    """Pykka by itself lets an actor die quietly in setup and teardown; a node must end instead."""
    journal: list[Any] = []
    ref = Recorder.start(house.home, journal, fail_on=moment)
    house.settle(ref)
    ref.tell("told")
    house.settle(ref)
    with contextlib.suppress(pykka.ActorDeadError):
        house.stop(ref)
    assert [(actor, str(error)) for actor, error in house.crashes] == [("Recorder", f"asked to fail on {moment}")]


def test_a_crashed_actor_takes_no_more(house: House) -> None:
    """What is half changed must not go on."""
    journal: list[Any] = []
    ref = Recorder.start(house.home, journal, fail_on="bad")
    house.settle(ref)
    ref.tell("bad")
    ref.tell("good")
    house.settle(ref)
    assert "good" not in journal
    assert not ref.is_alive()


def test_asking_a_stopped_actor_fails_at_once(house: House) -> None:
    """The host probes what it started: a dead actor must not keep it waiting."""
    ref = Recorder.start(house.home, [], fail_on="setup")
    house.settle(ref)
    with pytest.raises(pykka.ActorDeadError):
        ref.ask(Probe(), timeout=WAIT_S)


def test_a_tick_counts_as_taken_when_it_is_handled(house: House) -> None:
    """Only then may the ticker tell the next one: what piled up behind a stall must not come as a burst."""
    journal: list[Any] = []
    ref = Recorder.start(house.home, journal)
    house.settle(ref, 2)
    ref.tell(Tick(1.0, lambda: journal.append("taken")))
    house.settle(ref)
    house.stop(ref)
    assert [type(each) if isinstance(each, Tick) else each for each in journal[2:]] == ["taken", Tick, "teardown"]

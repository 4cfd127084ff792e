"""The shared loop: messages of other threads are never lost, and no drain holds up the sockets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from actors import loop_home
from actors.base import NodeActor, Probe
from actors.loop_home import LoopHome
from actors.thread_home import ThreadHome

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pykka

    from actors.base import Home

WAIT_S = 10.0
SENDERS = 4
MESSAGES = 2000
HOPS = 32


class Counter(NodeActor[Any]):
    """Writes down what it is told, and calls what can be called."""

    def __init__(self, home: Home, journal: list[Any]) -> None:
        super().__init__(home)
        self._journal = journal

    def handle(self, message: Any) -> None:
        if callable(message):
            message()
        else:
            self._journal.append(message)


class Crashes:
    """A fatal hook."""

    def __init__(self) -> None:
        self.told: list[tuple[str, BaseException]] = []

    def __call__(self, actor: str, error: BaseException) -> None:
        self.told.append((actor, error))


@pytest.fixture
def crashes() -> Crashes:
    return Crashes()


@pytest.fixture
def home(crashes: Crashes) -> Iterator[LoopHome]:
    made = LoopHome(crashes, "Under test")
    yield made
    made.close()


def stop(*refs: pykka.ActorRef[Any]) -> None:
    for ref in refs:
        ref.stop(timeout=WAIT_S)


@pytest.mark.parametrize("placement", ["loop", "thread"])
def test_no_message_of_any_thread_is_lost(placement: str, home: LoopHome, crashes: Crashes) -> None:
    """Several threads race with the drain for the mailbox; each one's messages keep their order."""
    journal: list[tuple[int, int]] = []
    ref = Counter.start(home if placement == "loop" else ThreadHome(crashes), journal)

    def send(sender: int) -> None:
        for number in range(MESSAGES):
            ref.tell((sender, number))

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ref.ask(Probe(), timeout=WAIT_S)
    for sender in range(SENDERS):
        assert [number for each, number in journal if each == sender] == list(range(MESSAGES))
    stop(ref)


def test_no_wake_up_is_lost(home: LoopHome) -> None:
    """A message that meets an idle loop, or one that is just about to become idle, is handled without another."""
    taken = threading.Semaphore(0)
    ref = Counter.start(home, [])
    for _ in range(MESSAGES):
        ref.tell(taken.release)
        assert taken.acquire(timeout=WAIT_S), "the loop slept over a message"
    stop(ref)


def test_two_actors_that_talk_to_each_other_do_not_starve_the_loop(home: LoopHome) -> None:
    """However chatty actors are, sockets are looked at in between."""
    turned = threading.Event()
    one, two = Counter.start(home, []), Counter.start(home, [])
    stopped = threading.Event()

    def ping() -> None:
        if not stopped.is_set():
            two.tell(pong)

    def pong() -> None:
        one.tell(ping)

    one.tell(ping)
    home.loop.call_soon_threadsafe(turned.set)
    assert turned.wait(WAIT_S)
    stopped.set()
    stop(one, two)


def test_a_chain_of_tells_runs_in_one_turn(home: LoopHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hop of a put through the house must not cost a look at the sockets."""
    monkeypatch.setattr(loop_home, "DRAIN_MAX_S", WAIT_S)
    journal: list[Any] = []
    ref = Counter.start(home, journal)
    done = threading.Event()

    def chain(left: int) -> None:
        journal.append(left)
        if left:
            ref.tell(lambda: chain(left - 1))
        else:
            done.set()

    def begin() -> None:
        home.loop.call_soon(lambda: journal.append("next turn"))
        chain(HOPS)

    ref.tell(begin)
    assert done.wait(WAIT_S)
    ref.ask(Probe(), timeout=WAIT_S)
    assert "next turn" not in journal[:HOPS]
    stop(ref)


def test_an_exception_under_tell_is_fatal_and_harms_no_other(home: LoopHome, crashes: Crashes) -> None:
    """The process is about to end; until then the loop that others share goes on."""
    journal: list[Any] = []
    broken, other = Counter.start(home, []), Counter.start(home, journal)
    broken.tell(lambda: 1 // 0)
    other.tell("still here")
    other.ask(Probe(), timeout=WAIT_S)
    assert [(actor, type(error)) for actor, error in crashes.told] == [("Counter", ZeroDivisionError)]
    assert journal == ["still here"]
    assert not broken.is_alive()
    stop(other)


def test_what_is_told_to_a_closed_loop_is_dropped(crashes: Crashes) -> None:
    """A worker's answer may come after everything has stopped."""
    home = LoopHome(crashes, "Under test")
    journal: list[Any] = []
    ref = Counter.start(home, journal)
    stop(ref)
    home.close()
    ref.tell("too late")
    assert journal == []
    assert crashes.told == []


def test_settling_delivers_within_the_turn(home: LoopHome) -> None:
    """What a batch of requests set in motion is answered before the engine writes."""
    journal: list[Any] = []
    ref = Counter.start(home, journal)
    ref.ask(Probe(), timeout=WAIT_S)
    seen: list[list[Any]] = []
    done = threading.Event()

    def turn() -> None:
        home.settle(lambda: ref.tell("told in this turn"))
        seen.append(list(journal))
        done.set()

    home.loop.call_soon_threadsafe(turn)
    assert done.wait(WAIT_S)
    assert seen == [["told in this turn"]]
    stop(ref)


def test_settling_from_another_thread_leaves_it_to_the_loop(home: LoopHome) -> None:
    """Actors of this home run on its thread and on no other."""
    threads: list[threading.Thread] = []
    ref = Counter.start(home, [])
    home.settle(lambda: ref.tell(lambda: threads.append(threading.current_thread())))
    ref.ask(Probe(), timeout=WAIT_S)
    assert [thread.name for thread in threads] == ["Under test"]
    stop(ref)


def test_what_is_told_near_is_handled_before_tell_returns(home: LoopHome) -> None:
    """All that was told before comes first: a mailbox keeps its order."""
    journal: list[Any] = []
    ref, other = Counter.start(home, journal), Counter.start(home, journal)
    ref.ask(Probe(), timeout=WAIT_S)
    near = home.near(ref)
    assert near is not None

    def tell_both_ways() -> None:
        ref.tell("told before")
        near.tell("told near")
        journal.append("returned")

    other.tell(tell_both_ways)
    other.ask(Probe(), timeout=WAIT_S)
    ref.ask(Probe(), timeout=WAIT_S)
    assert journal == ["told before", "told near", "returned"]
    stop(ref, other)


def test_nobody_elsewhere_is_near(home: LoopHome, crashes: Crashes) -> None:
    """An actor with another thread cannot be made to hurry by who tells it something."""
    ref = Counter.start(ThreadHome(crashes), [])
    assert home.near(ref) is None
    assert ThreadHome(crashes).near(ref) is None
    stop(ref)


def test_who_crashes_near_does_not_take_the_teller_along(home: LoopHome, crashes: Crashes) -> None:
    """The crash is that of whoever was told; messages to it are dropped from then on."""
    journal: list[Any] = []
    ref, other = Counter.start(home, journal), Counter.start(home, journal)
    ref.ask(Probe(), timeout=WAIT_S)
    near = home.near(ref)
    assert near is not None

    def tell_twice() -> None:
        near.tell(lambda: 1 // 0)
        near.tell("nobody hears this")
        journal.append("went on")

    other.tell(tell_twice)
    other.ask(Probe(), timeout=WAIT_S)
    assert journal == ["went on"]
    assert [(actor, type(error)) for actor, error in crashes.told] == [("Counter", ZeroDivisionError)]
    stop(other)


def test_before_its_setup_an_actor_takes_nothing(home: LoopHome) -> None:
    """What is told near meanwhile waits in its mailbox."""
    journal: list[Any] = []
    other = Counter.start(home, [])

    def start_and_tell() -> None:
        started.append(Counter.start(home, journal))
        near = home.near(started[0])
        assert near is not None
        near.tell("early")
        seen.append(list(journal))

    seen: list[list[Any]] = []
    started: list[pykka.ActorRef[Any]] = []
    other.tell(start_and_tell)
    other.ask(Probe(), timeout=WAIT_S)
    started[0].ask(Probe(), timeout=WAIT_S)
    assert (seen, journal) == ([[]], ["early"])
    stop(other, *started)

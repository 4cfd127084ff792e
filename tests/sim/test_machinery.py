"""The simulated threads, time and network: what actors may rely on holds here too."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, final

import pytest

from actors.base import Home, NodeActor
from actors.messages.raft import Step, Unreachable
from core.raft.messages import Message, MessageType
from core.types import Index, MemberId, Term
from sim.host import SimClock, SimHost
from sim.network import Network
from sim.schedule import Failure, Schedule, Trace
from sim.settings import from_seed
from tests.fakes import Told

SYNC_S = 0.25


class Around:
    """What a host asks of its member."""

    def delivered(self, actor: NodeActor[Any]) -> None:
        """Take note of nothing."""

    def crashed(self, actor: str, error: BaseException) -> None:
        raise AssertionError((actor, error))

    def attach(self, **kwargs: Any) -> Any:
        raise AssertionError(kwargs)

    def make_engine(self, *args: Any) -> Any:
        raise AssertionError(args)

    def address_of(self, actor: NodeActor[Any]) -> Any:
        return actor.actor_ref


@final
class Recorder(NodeActor[Any]):
    """Keeps what it is told, and when; a float costs so much time before it is passed on."""

    def __init__(self, home: Home, schedule: Schedule, journal: list[Any], then: Any = None) -> None:
        super().__init__(home)
        self._schedule = schedule
        self._journal = journal
        self._then = then

    def handle(self, message: Any) -> None:
        self._journal.append((message, round(self._schedule.now_s, 6)))
        if isinstance(message, float):
            self._schedule.spent_s += message
            if self._then is not None:
                self._then.tell("done")


class Threads:
    """A host with two actors on one home and one on another."""

    def __init__(self, seed: int = 1) -> None:
        self.schedule = Schedule(Random(seed), Trace(None))
        self.host = SimHost("m1", self.schedule, SimClock(self.schedule, 1.0, 0.0), Random(seed), 0.0, Around())
        self.journal: list[Any] = []
        shared = self.host.loop("Core")
        self.other = self.host.spawn(self.host.own_thread(), Recorder, self.schedule, self.journal)
        self.alone = self.host.spawn(self.host.own_thread(), Recorder, self.schedule, self.journal)
        self.first = self.host.spawn(shared, Recorder, self.schedule, self.journal, self.other)
        self.second = self.host.spawn(shared, Recorder, self.schedule, self.journal)

    def run(self, deliveries: int) -> list[Any]:
        while self.schedule.deliveries < deliveries:
            self.schedule.step()
        return self.journal


def test_a_mailbox_keeps_its_order() -> None:
    """Whichever is next, no message overtakes another to the same actor."""
    for seed in range(10):
        threads = Threads(seed)
        for number in range(5):
            threads.first.tell(("first", number))
            threads.second.tell(("second", number))
        told = [message for message, _ in threads.run(10)]
        for name in ("first", "second"):
            assert [number for who, number in told if who == name] == list(range(5))


def test_chance_decides_which_mailbox_is_next() -> None:
    """Otherwise one order of things would be tried over and over."""
    orders = set()
    for seed in range(20):
        threads = Threads(seed)
        threads.first.tell("a")
        threads.second.tell("b")
        orders.add(tuple(message for message, _ in threads.run(2)))
    assert orders == {("a", "b"), ("b", "a")}


def test_who_shares_a_thread_waits_for_what_costs_time() -> None:
    """A sync on the shared loop holds up all who live there, and what follows from it comes after it."""
    threads = Threads()
    threads.first.tell(SYNC_S)
    threads.run(1)
    threads.second.tell("waits")
    assert sorted(threads.run(3)[1:]) == [("done", SYNC_S), ("waits", SYNC_S)]


def test_a_thread_of_its_own_goes_on_meanwhile() -> None:
    """That is what it has one for."""
    threads = Threads()
    threads.first.tell(SYNC_S)
    threads.run(1)
    threads.alone.tell("at once")
    assert threads.run(2)[1] == ("at once", 0.0)


def test_nothing_reaches_a_process_that_has_ended() -> None:
    """What lay in its mailboxes is gone, and what comes later as well."""
    threads = Threads()
    threads.first.tell("lost")
    threads.host.end()
    threads.second.tell("late")
    with pytest.raises(Failure, match="nothing is left to happen"):
        threads.run(1)
    assert threads.journal == []


class Port:
    """One member on the network."""

    def __init__(self, member: int) -> None:
        self.name = f"m{member}"
        self.member = MemberId(member)
        self.told = Told()
        self.raft: Any = self.told


def wired(**changes: Any) -> tuple[Schedule, Network, Any, Any]:
    """Return a network of two members."""
    quiet = {"drop_rate": 0.0, "duplicate_rate": 0.0, "in_order": True, "latency_s": 0.01}
    schedule = Schedule(Random(1), Trace(None))
    network = Network(schedule, Random(1), replace(from_seed(1), **{**quiet, **changes}))
    ports: list[Any] = [Port(1), Port(2)]
    for port in ports:
        network.connect(port.member, port)
    return schedule, network, ports[0], ports[1]


def sent(kind: MessageType = MessageType.APPEND, index: int = 0) -> Message:
    return Message(kind, MemberId(2), MemberId(1), term=Term(1), index=Index(index))


def arrived(schedule: Schedule, port: Any) -> list[int]:
    """Let everything arrive; return the indexes in their order."""
    schedule.after(10.0, lambda: None)
    schedule.run_until(10.0)
    return [message.index for step in port.told.of(Step) for message in step.messages]


def test_a_stream_keeps_its_order() -> None:
    """Seeds whose links are streams reorder nothing within one."""
    schedule, network, sender, receiver = wired()
    for index in range(20):
        network.carry(sender, sent(index=index))
    assert arrived(schedule, receiver) == list(range(20))


def test_messages_overtake_each_other_elsewhere() -> None:
    """Peers have several streams to a member, and raft must not depend on their order."""
    schedule, network, sender, receiver = wired(in_order=False)
    for index in range(20):
        network.carry(sender, sent(index=index))
    got = arrived(schedule, receiver)
    assert got != list(range(20))
    assert sorted(got) == list(range(20))


def test_a_cut_link_carries_nothing_either_before_or_after() -> None:
    """What is under way when a link is cut is lost too; the other direction still works."""
    schedule, network, sender, receiver = wired()
    network.carry(sender, sent(index=1))
    network.link(sender.member, receiver.member).cut = True
    network.carry(sender, sent(index=2))
    network.carry(receiver, sent(index=3)._replace(to=MemberId(1), sender=MemberId(2)))
    assert arrived(schedule, receiver) == []
    assert [message.index for step in sender.told.of(Step) for message in step.messages] == [3]


def test_only_proposals_are_never_doubled() -> None:
    """Raft takes a copy of anything else for what it is."""
    schedule, network, sender, receiver = wired(duplicate_rate=1.0)
    network.carry(sender, sent(index=1))
    network.carry(sender, sent(MessageType.PROPOSE, index=2))
    assert sorted(arrived(schedule, receiver)) == [1, 1, 2]


def test_once_faults_have_ended_nothing_is_lost() -> None:
    """Otherwise nothing could be demanded of a cluster afterwards."""
    schedule, network, sender, receiver = wired(drop_rate=1.0)
    network.carry(sender, sent(index=1))
    network.calm = True
    network.carry(sender, sent(index=2))
    assert arrived(schedule, receiver) == [2]
    assert all(told.member == receiver.member for told in sender.told.of(Unreachable))

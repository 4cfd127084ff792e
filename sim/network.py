"""Messages between members: delayed, dropped, doubled, out of order, cut off.

It stands where PeerTransportActor stands, takes the same Send and tells RaftActor the same Step.  A proposal that is
passed on is never doubled: raft does not tell copies apart, and real streams never make any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.messages.common import ActivityIs
from actors.messages.peer_transport import AskMember, ObserveActivity, Send
from actors.messages.raft import CarryMessages, SnapshotStatus, Step, Unreachable
from actors.messages.serve import Answered
from core.raft.messages import MessageType
from sim.describe import describe_raft
from sim.pages import SimPages

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from actors.address import Address
    from actors.messages.peer_transport import MemberAnswer
    from actors.messages.raft import RaftMessage
    from core.raft.messages import Message
    from core.types import MemberId
    from sim.schedule import Schedule
    from sim.settings import Settings

UNREACHABLE_REPORTED = 0.5
"""How often a sender learns that a message was lost."""


class Link:
    """One direction between two members."""

    def __init__(self) -> None:
        self.cut = False
        self.last_s = 0.0


class Network:
    """All links."""

    def __init__(self, schedule: Schedule, random: Random, settings: Settings) -> None:
        self._schedule = schedule
        self._random = random
        self._settings = settings
        self._ports: dict[MemberId, SimPeers] = {}
        self._links: dict[tuple[MemberId, MemberId], Link] = {}
        self.calm = False
        """Whether faults have ended: nothing is dropped or doubled any more."""

    def connect(self, member: MemberId, peers: SimPeers) -> None:
        """Deliver to this life of *member* from now on."""
        self._ports[member] = peers

    def disconnect(self, member: MemberId) -> None:
        """Deliver to *member* no more."""
        self._ports.pop(member, None)

    def link(self, sender: MemberId, to: MemberId) -> Link:
        """Return one direction between two members."""
        return self._links.setdefault((sender, to), Link())

    def heal(self) -> None:
        """Let all links work."""
        for link in self._links.values():
            link.cut = False

    def members(self) -> list[MemberId]:
        """Return those that are connected."""
        return sorted(self._ports)

    def delay_s(self) -> float:
        """Return how long the next message takes."""
        mean_s = self._settings.latency_s
        if not self.calm and self._random.random() < 0.01:
            mean_s *= 20
        return self._random.expovariate(1.0 / mean_s)

    def carry(self, sender: SimPeers, message: Message) -> None:
        """Take one message on its way, or lose it."""
        link, random = self.link(sender.member, message.to), self._random
        lossy = not self.calm
        if link.cut or message.to not in self._ports or (lossy and random.random() < self._settings.drop_rate):
            self._schedule.note("net", f"lost {sender.name} to {message.to:x} {describe_raft(message)}")
            if random.random() < UNREACHABLE_REPORTED:
                sender.raft.tell(Unreachable(message.to))
            return
        doubled = lossy and message.type is not MessageType.PROPOSE and random.random() < self._settings.duplicate_rate
        for _ in range(2 if doubled else 1):
            arrives_s = self._schedule.now_s + self._schedule.spent_s + self.delay_s()
            if self._settings.in_order:
                arrives_s = link.last_s = max(arrives_s, link.last_s)
            self._schedule.after(
                arrives_s - self._schedule.now_s - self._schedule.spent_s, self._arrival(link, message)
            )

    def ask(self, sender: SimPeers, asked: AskMember) -> None:
        """Carry a question to another member and its answer back; without one, that is told when its time is over."""
        forth, back = self.link(sender.member, asked.member), self.link(asked.member, sender.member)
        answered = False

        def answer(got: MemberAnswer | None) -> None:
            nonlocal answered
            if not answered and (got is None or not back.cut):
                answered = True
                asked.answer_to.tell(Answered(asked.token, got))

        def arrive() -> None:
            peers = self._ports.get(asked.member)
            if peers is not None and not forth.cut:
                peers.pages.handle(asked, lambda got: self._schedule.after(self.delay_s(), lambda: answer(got)))

        self._schedule.note(sender.name, f"asks {asked.member:x} for {asked.path}")
        self._schedule.after(self.delay_s(), arrive)
        self._schedule.after(asked.timeout_s, lambda: answer(None))

    def _arrival(self, link: Link, message: Message) -> Callable[[], None]:
        def arrive() -> None:
            peers = self._ports.get(message.to)
            if peers is not None and not link.cut:
                peers.raft.tell(Step((message,)))

        return arrive


class SimPeers:
    """What PeerTransportActor is to the other actors of one member."""

    def __init__(self, name: str, member: MemberId, network: Network, given: dict[str, Any]) -> None:
        """*given* is what PeerTransportActor would be given."""
        self.name = name
        self.member = member
        self.raft: Address[RaftMessage] = given["raft"]
        self._network = network
        self.pages = SimPages(
            given["identity"].cluster_id, given["apply"], given["lease"], self, given["checker"], given["timeout_s"]
        )
        self.raft.tell(CarryMessages(self))

    def tell(self, message: Any) -> None:  # noqa: ANN401 - what does not concern the network is dropped
        """Take what PeerTransportActor takes."""
        match message:
            case Send():
                for each in message.messages:
                    if each.type is MessageType.SNAPSHOT:
                        self.raft.tell(SnapshotStatus(each.to, ok=False))
                    else:
                        self._network.carry(self, each)
            case AskMember():
                self._network.ask(self, message)
            case ObserveActivity():
                message.observer.tell(ActivityIs(dict.fromkeys(self._network.members(), 0.0)))
            case _:
                pass

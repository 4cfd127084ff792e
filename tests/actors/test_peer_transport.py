"""PeerTransportActor between links that carry nothing and raft: what is passed on, held back, asked and answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actors.address import Delivery
from actors.messages.apply import Inspect, ObserveCluster
from actors.messages.common import ActivityIs, ClusterIs
from actors.messages.lease import Renew
from actors.messages.peer_transport import ObserveActivity, Send, Taken
from actors.messages.raft import CarryMessages, Step, Unreachable
from actors.messages.serve import Drain, Open, Renewed
from actors.peer_transport import UNTAKEN_BATCHES_MAX, PeerTransportActor
from core.membership.member import Member
from core.raft.messages import Message, MessageType
from core.types import MemberId, Term
from net.rafthttp.headers import Identity
from net.rpc import HttpRequest
from tests.actors.home import TestHome
from tests.entries import CLUSTER, MEMBER, make_applier
from tests.fakes import Told
from tests.unit.test_services_pages import FakeResponder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OTHER = MemberId(0xB2)
HEARTBEAT = Message(MessageType.HEARTBEAT, MEMBER, OTHER, term=Term(2))


class FakePeer:
    """One link."""

    def __init__(self) -> None:
        self.reading = True
        self.active_since_s: float | None = None

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True


class FakeLinks:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.peers = {OTHER: FakePeer()}
        self.sent: list[Message] = []
        self.members: list[tuple[dict[MemberId, Any], Any]] = []
        self.closed = False

    def send(self, messages: list[Message]) -> None:
        self.sent += messages

    def set_members(self, members: dict[MemberId, Any], removed: Any) -> None:
        self.members.append((members, removed))

    def handle(self, _request: HttpRequest, _responder: FakeResponder) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """Keeps what it is told to do."""

    delivering = False

    def __init__(self, journal: list[str]) -> None:
        self._journal = journal

    async def start(self) -> None:
        self._journal.append("start")

    def flush(self) -> None:
        self._journal.append("flush")

    async def drain(self, timeout_s: float) -> None:
        self._journal.append(f"drain {timeout_s}")

    async def close(self) -> None:
        self._journal.append("close")


class Transport:
    """A PeerTransportActor among addresses that keep what it says."""

    def __init__(self) -> None:
        self.home = TestHome()
        self.loop = asyncio.new_event_loop()
        self.raft, self.apply, self.lease, self.worker = Told(), Told(), Told(), Told()
        self.checker = Told()
        self.links = FakeLinks()
        self.engine: list[str] = []
        self.removed: list[bool] = []

        def spawn() -> None:
            self.actor = self.home.spawn(
                PeerTransportActor,
                identity=Identity(CLUSTER, MEMBER, (), "3.6.0", "3.0.0"),
                known={},
                make_client=lambda: None,  # type: ignore[arg-type,return-value]  # these links dial nobody
                make_engine=lambda _http, _upgrade: FakeEngine(self.engine),
                apply=self.apply,
                raft=self.raft,
                lease=self.lease,
                worker=self.worker,
                checker=self.checker,
                make_export=no_export,
                snap_folder=Path("/nowhere"),
                timeout_s=7.0,
                clock=self.home.clock,
                removed=lambda: self.removed.append(True),
                logger=self.home.logger,
            )
            self.actor._links = self.links  # type: ignore[assignment]  # a fake

        self.turn(spawn)

    def turn(self, action: Callable[[], object]) -> None:
        """Do *action* on the loop, then run it until nothing is left to do."""

        async def run() -> None:
            action()
            for _ in range(4):
                self.home.run()
                await asyncio.sleep(0)
            self.home.run()

        self.loop.run_until_complete(run())

    def tell(self, *messages: object) -> None:
        self.turn(lambda: self.home.tell(self.actor, *messages))

    def get(self, path: str, method: str = "GET") -> FakeResponder:
        """Ask for a page."""
        responder = FakeResponder()
        request = HttpRequest(method, path, "", {}, b"", "192.0.2.1:1", secure=False, common_name=None)
        self.actor._handle_http(request, responder)
        return responder

    def answer(self) -> None:
        """Let the state machine answer what it was asked."""
        applier = make_applier()
        for inspect in self.apply.of(Inspect):
            inspect.question(applier)
        self.turn(lambda: None)


def no_export(_view: object) -> Any:
    raise AssertionError("no test asks for it")


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.loop.close()


def test_it_offers_to_carry_and_asks_who_the_others_are(transport: Transport) -> None:
    """Raft has nowhere to send to before, and nobody to send to either."""
    assert [type(message) for message in transport.raft.messages] == [CarryMessages]
    assert ObserveCluster in [type(message) for message in transport.apply.messages]


def test_messages_of_raft_go_to_the_links(transport: Transport) -> None:
    """In their order."""
    transport.tell(Send([HEARTBEAT]))
    assert transport.links.sent == [HEARTBEAT]


def test_messages_of_others_go_to_raft(transport: Transport) -> None:
    """As one batch, which raft says that it has taken."""
    transport.actor.receive(OTHER, [HEARTBEAT])
    step = transport.raft.last(Step)
    assert (list(step.messages), step.after) == ([HEARTBEAT], Delivery(transport.actor.actor_ref, Taken()))


def test_a_raft_that_is_behind_is_sent_no_more(transport: Transport) -> None:
    """Nothing is read from peers while too much lies in raft's mailbox; it goes on when half of that is taken."""
    peer = transport.links.peers[OTHER]
    reading = []
    for _ in range(UNTAKEN_BATCHES_MAX):
        transport.actor.receive(OTHER, [HEARTBEAT])
    reading.append(peer.reading)
    transport.actor.receive(OTHER, [HEARTBEAT])
    reading.append(peer.reading)
    transport.tell(*[Taken()] * (UNTAKEN_BATCHES_MAX // 2))
    reading.append(peer.reading)
    transport.tell(Taken())
    reading.append(peer.reading)
    assert reading == [True, False, False, True]


def test_what_is_lost_is_told_to_raft(transport: Transport) -> None:
    """It then probes before it sends more."""
    transport.actor.unreachable(OTHER)
    assert transport.raft.last(Unreachable) == Unreachable(OTHER)


def test_links_follow_what_is_applied(transport: Transport) -> None:
    """Not what was proposed; and a member that finds itself removed says so."""
    me, other = Member(MEMBER, ("http://127.0.0.1:1",)), Member(OTHER, ("http://127.0.0.1:2",))
    transport.tell(ClusterIs((me, other), (), "3.6.0"))
    assert transport.links.members[-1] == ({MEMBER: me.peer_urls, OTHER: other.peer_urls}, ())
    assert transport.removed == []
    transport.tell(ClusterIs((other,), (MEMBER,), "3.6.0"))
    assert transport.removed == [True]


def test_who_is_connected_is_told_at_once_and_at_each_change(transport: Transport) -> None:
    """Changes of members and hand-overs are judged by it."""
    observer = Told()
    transport.tell(ObserveActivity(observer))
    transport.links.peers[OTHER].active_since_s = 5.0
    transport.actor.activity_changed()
    assert observer.messages == [ActivityIs({}), ActivityIs({OTHER: 5.0})]


def test_pages_are_answered_by_the_state_machine(transport: Transport) -> None:
    """Members that join read them here."""
    page = transport.get("/members")
    assert not page.done
    transport.answer()
    assert (page.status, json.loads(page.body)) == (200, [])
    assert page.headers["x-etcd-cluster-id"] == f"{CLUSTER:x}"


@pytest.mark.parametrize("member", ["x", "", "-1", "9" * 5000, str(1 << 64)])
def test_a_member_that_cannot_be_is_not_found(transport: Transport, member: str) -> None:
    """Whatever stands in the path; a number of thousands of digits is one that int() refuses."""
    assert transport.get(f"/members/promote/{member}", "POST").status == 404


def test_renewals_are_answered_by_token(transport: Transport) -> None:
    """For other members, whose clients' leases live here."""
    heard: list[object] = []
    transport.actor.renew(5, heard.append)  # type: ignore[arg-type]  # a lease
    renew = transport.lease.last(Renew)
    transport.tell(Renewed([(token, 10) for token, _ in renew.asks]))
    assert heard == [10]


def test_listeners_open_and_drain(transport: Transport) -> None:
    """And the end is told when it has come."""
    drained = Told()
    transport.tell(Open())
    transport.tell(Drain(5.0, Delivery(drained, "drained")))
    assert transport.engine == ["start", "drain 5.0", "close"]
    assert drained.messages == ["drained"]


def test_a_stop_closes_the_links(transport: Transport) -> None:
    """Peers see at once that this member is gone."""
    transport.turn(lambda: transport.home.stop(transport.actor))
    assert transport.links.closed

"""The gRPC proxy's actors, told by hand what clients and members say: who shares a stream, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors.messages.common import Tick
from actors.messages.metrics import Measure, Measured
from actors.messages.serve import Answered
from grpcproxy.leases import FAILED_MAX, LeasesActor
from grpcproxy.messages import (
    ClientAsked,
    ClientBlocked,
    ClientClosed,
    ClientHalfClosed,
    ClientOpened,
    CloseStream,
    Finish,
    Forward,
    Frames,
    Group,
    OpenStream,
    ProxiesAre,
    SendOn,
    StreamEnded,
    StreamGot,
    StreamOpened,
)
from grpcproxy.methods import KEEP_ALIVE, WATCH
from grpcproxy.registry import RegistryActor, encode_endpoint
from grpcproxy.settings import Front
from grpcproxy.watches import NO_LEADER, WatchesActor
from net.rpc import OK, Code, Status
from proto.kv_pb2 import Event, KeyValue
from proto.rpc_pb2 import (
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    PutRequest,
    PutResponse,
    RangeResponse,
    ResponseHeader,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from tests.actors.home import TestHome
from tests.fakes import Told

if TYPE_CHECKING:
    from collections.abc import Iterator

LOST = Status(Code.UNAVAILABLE, "connection lost")
ANYBODY = Group("", wants_leader=False, metadata=())
SOMEBODY = Group("token", wants_leader=True, metadata=(("token", "token"),))


class Middle:
    """An actor between clients and members that the test plays."""

    def __init__(self, make: Any, **more: Any) -> None:
        self.home = TestHome()
        self.upstream, self.front = Told(), Told()
        self.actor = self.home.spawn(make, upstream=self.upstream, **more)

    def tell(self, *messages: Any) -> None:
        self.home.tell(self.actor, *messages)

    def open(self, *clients: int, group: Group = ANYBODY) -> None:
        """Let clients open their streams."""
        self.tell(*(ClientOpened(client, group, self.front) for client in clients))

    def asked(self, kind: type[Any]) -> list[Any]:
        """What the member was asked for of that kind since the last look, oldest first."""
        found = [message for message in self.upstream.messages if type(message) is kind]
        self.upstream.messages[:] = [message for message in self.upstream.messages if type(message) is not kind]
        return found

    def stream(self) -> int:
        """The number of the one stream that has been opened, which is now connected."""
        [opened] = self.asked(OpenStream)
        self.tell(StreamOpened(opened.number))
        return int(opened.number)

    def heard(self) -> dict[int, list[bytes]]:
        """What clients were sent since the last look."""
        found: dict[int, list[bytes]] = {}
        for message in self.front.messages:
            if isinstance(message, Frames):
                for number, frame in message.frames:
                    found.setdefault(number, []).append(frame)
        self.front.messages[:] = [message for message in self.front.messages if not isinstance(message, Frames)]
        return found

    def ended(self) -> list[tuple[tuple[int, ...], Status]]:
        """How clients' streams were ended."""
        return [(tuple(each.numbers), each.status) for each in self.front.messages if isinstance(each, Finish)]


def renewal(lease: int) -> bytes:
    return LeaseKeepAliveRequest(ID=lease).SerializeToString()


def renewed(lease: int, ttl_s: int = 5) -> bytes:
    return LeaseKeepAliveResponse(ID=lease, TTL=ttl_s).SerializeToString()


@pytest.fixture
def leases() -> Middle:
    return Middle(LeasesActor)


def test_keep_alives_of_a_group_share_a_stream(leases: Middle) -> None:
    """Another group has one of its own: a member must see whose token it is."""
    leases.open(1, 2)
    leases.open(3, group=SOMEBODY)
    leases.tell(ClientAsked(1, renewal(7)), ClientAsked(2, renewal(7)), ClientAsked(3, renewal(8)))
    first, second = leases.asked(OpenStream)
    assert [(each.method, each.metadata) for each in (first, second)] == [
        (KEEP_ALIVE, ()),
        (KEEP_ALIVE, SOMEBODY.metadata),
    ]
    assert leases.asked(SendOn) == []  # nobody is connected yet
    leases.tell(StreamOpened(first.number), StreamOpened(second.number))
    assert [(each.number, each.body) for each in leases.asked(SendOn)] == [
        (first.number, renewal(7)),
        (second.number, renewal(8)),
    ]
    leases.tell(StreamGot(first.number, renewed(7)))
    assert leases.heard() == {1: [renewed(7)], 2: [renewed(7)]}


def test_what_was_asked_is_asked_at_the_next_member(leases: Middle) -> None:
    """A member that dies is replaced without the clients noticing; they hear of it if none can be found."""
    leases.open(1)
    leases.tell(ClientAsked(1, renewal(7)))
    for failed in range(1, FAILED_MAX + 1):
        number = leases.stream()
        assert [each.body for each in leases.asked(SendOn)] == [renewal(7)]
        leases.tell(StreamEnded(number, LOST))
        assert leases.ended() == ([((1,), LOST)] if failed == FAILED_MAX else [])
        leases.tell(Tick(float(failed)))
    assert leases.asked(OpenStream) == []


def test_who_sends_no_more_gets_the_last_answer_and_then_the_end(leases: Middle) -> None:
    """As with a member: half-closed is not gone."""
    leases.open(1)
    leases.tell(ClientAsked(1, renewal(7)), ClientHalfClosed(1))
    number = leases.stream()
    assert leases.ended() == []
    leases.tell(StreamGot(number, renewed(7)))
    assert (leases.heard(), leases.ended()) == ({1: [renewed(7)]}, [((1,), OK)])
    assert leases.asked(CloseStream) == [CloseStream(number, leases.actor.actor_ref)]


def test_the_last_client_takes_the_stream_of_leases_with_it(leases: Middle) -> None:
    """Nothing is kept for nobody, and what comes late hurts nobody."""
    leases.open(1, 2)
    leases.tell(ClientAsked(1, renewal(7)))
    number = leases.stream()
    leases.tell(ClientClosed(1))
    assert leases.asked(CloseStream) == []
    leases.tell(ClientClosed(2), ClientClosed(2), ClientAsked(2, renewal(7)), ClientHalfClosed(9))
    assert [each.number for each in leases.asked(CloseStream)] == [number]
    leases.tell(StreamGot(number, renewed(7)), StreamEnded(number, LOST), StreamOpened(number), Tick(1.0))
    assert (leases.heard(), leases.ended(), leases.asked(OpenStream)) == ({}, [], [])


def test_junk_on_either_side_ends_what_it_came_on(leases: Middle) -> None:
    """A client's own stream; and the stream to a member that talks nonsense, for which another is found."""
    leases.open(1, 2)
    leases.tell(ClientAsked(1, b"\xff"), ClientAsked(2, renewal(7)))
    [(numbers, status)] = leases.ended()
    assert (numbers, status.code) == ((1,), Code.INTERNAL)
    number = leases.stream()
    leases.tell(StreamGot(number, b"\xff"))
    assert [each.number for each in leases.asked(CloseStream)] == [number]
    leases.tell(Tick(1.0))
    assert len(leases.asked(OpenStream)) == 1


def test_a_refusal_is_for_whoever_asked(leases: Middle) -> None:
    """Others of the group go on."""
    leases.open(1, 2)
    leases.tell(ClientAsked(1, renewal(7)))
    refusal = Status(Code.PERMISSION_DENIED, "etcdserver: permission denied")
    leases.tell(StreamEnded(leases.stream(), refusal))
    assert leases.ended() == [((1,), refusal)]


def create(key: bytes, **fields: Any) -> bytes:
    return WatchRequest(create_request=WatchCreateRequest(key=key, **fields)).SerializeToString()


@pytest.fixture
def watches() -> Iterator[Middle]:
    middle = Middle(WatchesActor, namespace=None)
    yield middle
    assert middle.home.crashes == []


def allow(watches: Middle, revision: int = 4) -> None:
    """Let the member answer the reads by which it is found out who may watch."""
    answer = RangeResponse(header=ResponseHeader(revision=revision)).SerializeToString()
    watches.tell(*(Answered(each.token, answer) for each in watches.asked(Forward)))


def member_creates(watches: Middle, number: int, revision: int = 4) -> list[int]:
    """Let the member answer the requests for watchers; their ids there."""
    ids = []
    for sent in watches.asked(SendOn):
        watch_id = WatchRequest.FromString(sent.body).create_request.watch_id
        answer = WatchResponse(header=ResponseHeader(revision=revision), watch_id=watch_id, created=True)
        watches.tell(StreamGot(number, answer.SerializeToString()))
        ids.append(watch_id)
    return ids


def event(watch_id: int, key: bytes, revision: int) -> bytes:
    kv = KeyValue(key=key, mod_revision=revision, create_revision=revision, version=1)
    header = ResponseHeader(revision=revision)
    return WatchResponse(header=header, watch_id=watch_id, events=[Event(kv=kv)]).SerializeToString()


def revisions(frames: list[bytes]) -> list[int]:
    return [each.kv.mod_revision for frame in frames for each in WatchResponse.FromString(frame).events]


def test_equal_watchers_cost_the_member_one(watches: Middle) -> None:
    """And each hears what it asked for, of a member that is replaced too: without a gap and nothing twice."""
    watches.open(1, 2)
    watches.tell(ClientAsked(1, create(b"k")), ClientAsked(2, create(b"k")))
    allow(watches)
    number = watches.stream()
    [watch_id] = member_creates(watches, number)
    watches.tell(StreamGot(number, event(watch_id, b"k", 5)))
    heard = watches.heard()
    assert [revisions(heard[client]) for client in (1, 2)] == [[5], [5]]
    watches.tell(StreamEnded(number, LOST), Tick(1.0))
    assert (watches.heard(), watches.ended()) == ({}, [])
    number = watches.stream()
    [again] = [WatchRequest.FromString(each.body).create_request for each in watches.upstream.of(SendOn)]
    assert (again.key, again.start_revision) == (b"k", 6)
    [watch_id] = member_creates(watches, number)
    watches.tell(StreamGot(number, event(watch_id, b"k", 7)))
    heard = watches.heard()
    assert [revisions(heard[client]) for client in (1, 2)] == [[7], [7]]
    numbers = Told()
    watches.tell(Measure(1, numbers))
    samples = {sample.family: sample.value for sample in numbers.last(Measured).samples}
    assert samples["etcd_grpc_proxy_watchers_coalescing_total"] == 1


def test_who_may_not_read_may_not_watch(watches: Middle) -> None:
    """Others' watchers may be there already; where a member cannot be asked the client comes back later."""
    watches.open(1, 2)
    watches.tell(ClientAsked(1, create(b"k")))
    [check] = watches.asked(Forward)
    watches.tell(Answered(check.token, Status(Code.PERMISSION_DENIED, "etcdserver: permission denied")))
    [frame] = watches.heard()[1]
    told = WatchResponse.FromString(frame)
    assert (told.created, told.canceled, told.cancel_reason) == (True, True, "etcdserver: permission denied")
    watches.tell(ClientAsked(2, create(b"k")))
    [check] = watches.asked(Forward)
    watches.tell(Answered(check.token, Status(Code.UNAVAILABLE, "nobody there")))
    assert watches.ended() == [((2,), Status(Code.UNAVAILABLE, "nobody there"))]
    assert watches.asked(OpenStream) == []


def test_only_who_wants_a_leader_hears_that_there_is_none(watches: Middle) -> None:
    """Everybody else waits for the next one."""
    watches.open(1)
    watches.open(2, group=SOMEBODY)
    watches.tell(ClientAsked(1, create(b"k")), ClientAsked(2, create(b"k")))
    allow(watches)
    opened = watches.asked(OpenStream)
    assert [each.method for each in opened] == [WATCH, WATCH]
    watches.tell(*(StreamOpened(each.number) for each in opened))
    watches.tell(*(StreamEnded(each.number, NO_LEADER) for each in opened))
    assert watches.ended() == [((2,), NO_LEADER)]
    watches.tell(Tick(1.0))
    assert [each.metadata for each in watches.asked(OpenStream)] == [()]


def test_one_that_does_not_read_is_left_out_and_catches_up(watches: Middle) -> None:
    """Its events are in the member's history; meanwhile they wait nowhere."""
    watches.open(1, 2)
    watches.tell(ClientAsked(1, create(b"k")), ClientAsked(2, create(b"k")))
    allow(watches)
    number = watches.stream()
    [watch_id] = member_creates(watches, number)
    watches.heard()
    watches.tell(ClientBlocked(1, blocked=True), StreamGot(number, event(watch_id, b"k", 5)))
    assert list(watches.heard()) == [2]
    watches.tell(ClientBlocked(1, blocked=False))
    [again] = [WatchRequest.FromString(each.body).create_request for each in watches.upstream.of(SendOn)]
    assert again.start_revision == 5


def test_the_last_watching_client_takes_the_stream_with_it(watches: Middle) -> None:
    """And one that left before its watcher was allowed leaves nothing behind either."""
    watches.open(1, 2)
    watches.tell(ClientAsked(1, create(b"k")))
    allow(watches)
    number = watches.stream()
    watches.tell(ClientAsked(2, create(b"k")), ClientClosed(2), ClientClosed(1))
    assert [each.number for each in watches.asked(CloseStream)] == [number]
    allow(watches)
    watches.tell(StreamGot(number, event(0, b"k", 5)), StreamEnded(number, LOST), Tick(1.0))
    assert (watches.heard(), watches.asked(OpenStream)) == ({}, [])


def test_a_member_that_talks_nonsense_is_left(watches: Middle) -> None:
    """A client that does so is sent away; neither disturbs others."""
    watches.open(1, 2)
    watches.tell(ClientAsked(1, create(b"k")), ClientAsked(2, b"\xff"))
    [(numbers, status)] = watches.ended()
    assert (numbers, status.code) == ((2,), Code.INTERNAL)
    allow(watches)
    number = watches.stream()
    watches.tell(StreamGot(number, b"\xff"), Tick(1.0))
    assert [each.number for each in watches.asked(CloseStream)] == [number]
    assert len(watches.asked(OpenStream)) == 1


class Registry:
    """A proxy that registers itself, and the members that the test plays."""

    def __init__(self) -> None:
        self.home = TestHome()
        self.upstream, self.front = Told(), Told()
        settings = Front({}, advertise_client_url="me:1", resolver_prefix="px", resolver_ttl_s=6, host_name="host")
        self.actor = self.home.spawn(
            RegistryActor, settings=settings, upstream=self.upstream, front=self.front, logger=self.home.logger
        )

    def tell(self, *messages: Any) -> None:
        self.home.tell(self.actor, *messages)

    def answer(self, method: str, outcome: Any) -> Forward:
        """Answer the newest call of *method*."""
        call = next(each for each in reversed(self.upstream.of(Forward)) if each.method.endswith(method))
        self.tell(Answered(call.token, outcome if isinstance(outcome, Status) else outcome.SerializeToString()))
        return call


def test_a_proxy_registers_itself_on_a_lease_and_follows_the_others() -> None:
    """Clients are sent to those that are there: itself, and whoever has come since, in etcd's own records."""
    registry = Registry()
    registry.tell(Tick(1.0))
    registry.answer("/LeaseGrant", LeaseGrantResponse(ID=9, TTL=6))
    put = PutRequest.FromString(registry.answer("/Put", PutResponse()).body)
    assert (put.key, put.lease) == (b"px/me:1", 9)
    other = KeyValue(key=b"px/other:1", value=encode_endpoint("other:1", "elsewhere"))
    mine = KeyValue(key=put.key, value=put.value)
    registry.answer("/Range", RangeResponse(header=ResponseHeader(revision=5), kvs=[mine, other]))
    assert registry.front.last(ProxiesAre).proxies == (("host", "me:1"), ("elsewhere", "other:1"))
    [watch] = registry.upstream.of(OpenStream)
    registry.tell(StreamOpened(watch.number))
    [sent] = registry.upstream.of(SendOn)
    assert WatchRequest.FromString(sent.body).create_request.start_revision == 6
    gone = Event(type=Event.DELETE, kv=KeyValue(key=b"px/other:1", mod_revision=6))
    message = WatchResponse(header=ResponseHeader(revision=6), events=[gone])
    registry.tell(StreamGot(watch.number, message.SerializeToString()))
    assert registry.front.last(ProxiesAre).proxies == (("host", "me:1"),)
    registry.tell(Tick(3.5))
    renewals = [each for each in registry.upstream.of(SendOn) if each.number != watch.number]
    assert [LeaseKeepAliveRequest.FromString(each.body).ID for each in renewals] == [9]
    registry.home.stop(registry.actor)
    assert registry.upstream.of(Forward)[-1].method.endswith("/LeaseRevoke")


def test_a_proxy_that_lost_its_lease_registers_anew() -> None:
    """Members that could not be reached for so long have forgotten it; and it asks on while they refuse."""
    registry = Registry()
    registry.tell(Tick(1.0))
    registry.answer("/LeaseGrant", LOST)
    assert len(registry.home.logged("this proxy cannot be registered yet")) == 1
    registry.tell(Tick(2.5))
    registry.answer("/LeaseGrant", LeaseGrantResponse(ID=9, TTL=6))
    registry.answer("/Put", PutResponse())
    before = len(registry.upstream.of(Forward))
    registry.tell(Tick(100.0), Tick(102.0))
    assert len(registry.home.logged("this proxy's lease has expired; it registers anew")) == 1
    grants = [each for each in registry.upstream.of(Forward)[before:] if each.method.endswith("/LeaseGrant")]
    assert len(grants) == 1


def test_nonsense_on_a_stream_of_the_registry_ends_that_stream() -> None:
    """And no other: it is opened anew, one at a time, and the proxies that are known stay."""
    registry = Registry()
    registry.tell(Tick(1.0))
    registry.answer("/LeaseGrant", LeaseGrantResponse(ID=9, TTL=6))
    registry.answer("/Put", PutResponse())
    registry.answer("/Range", RangeResponse(header=ResponseHeader(revision=5)))
    registry.tell(Tick(3.5))
    watch, lease = registry.upstream.of(OpenStream)
    registry.tell(StreamGot(lease.number, b"\xff"))
    assert [each.number for each in registry.upstream.of(CloseStream)] == [lease.number]
    assert registry.home.logged("the other proxies cannot be followed for now") == []
    registry.tell(StreamGot(watch.number, b"\xff"))
    assert [each.number for each in registry.upstream.of(CloseStream)] == [lease.number, watch.number]
    registry.tell(Tick(6.0))
    registry.answer("/Range", RangeResponse(header=ResponseHeader(revision=5)))
    assert sorted(each.number for each in registry.upstream.of(OpenStream)[2:]) == sorted([lease.number, watch.number])

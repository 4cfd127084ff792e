"""The gate of extensions: whatever one does or leaves undone, the node goes on, and what waits for it is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors.address import Delivery
from actors.extension import CALLS_MAX, ExtensionActor, Place
from actors.extension_gate import (
    ASKED_MAX,
    BACK_OFF_MAX_S,
    SEEN_MAX,
    START_SLOW_S,
    STOP_TIMEOUT_S,
    WELL_AFTER_S,
    ExtensionGateActor,
    Kind,
)
from actors.messages.extension import (
    Answer,
    AskedCall,
    AskedHttp,
    AskedStream,
    CallsSeen,
    ClientLeft,
    ClientSaid,
    Describe,
    HttpAsked,
    RoutesAre,
    Saw,
    StartExtensions,
    StopExtensions,
    StreamEnded,
    StreamHeard,
    StreamHeardAll,
    StreamLeft,
    StreamOpened,
    StreamSaid,
    WatchSaid,
)
from actors.messages.metrics import Measure, Measured
from actors.messages.raft import ObserveRole, RoleIs
from core.auth.rules import NOBODY
from core.errors import AuthOldRevision, TooManyRequests
from core.types import MemberId, Term
from net.rpc import OK, Code, HttpRequest, Routes, Status
from proto.rpc_pb2 import LeaseKeepAliveResponse, PutRequest, PutResponse, WatchRequest, WatchResponse
from services.errors import status_of
from services.observed import CallSeen
from tests.actors.home import TestHome
from tests.fakes import FakeCall, FakeStream, Told

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.extension_home import ExtensionHome
    from net.rpc import Call, Stream

SEEN = CallSeen(1.0, 0.1, "/etcdserverpb.KV/Put", "192.0.2.1:1", False, "", "", b"request", b"", OK, False)


class Probe(ExtensionActor):
    """Does what the test asks for, and keeps what it is told."""

    observes_calls = True

    def __init__(self, home: Any, node: Any) -> None:
        super().__init__(home, node)
        self.told: list[Any] = []

    def setup(self) -> None:
        self.node.options.lives.append(self)
        self.node.options.on_setup(self)

    def handle(self, message: Any) -> None:
        if isinstance(message, BaseException):
            raise message
        self.told.append(message)

    def teardown(self) -> None:
        self.node.options.journal.append(f"{self.node.name} teardown")

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.told if type(message) is kind]


class Script:
    """The options of a Probe: what it shall do."""

    def __init__(self, journal: list[str]) -> None:
        self.lives: list[Probe] = []
        self.journal = journal
        self.on_setup: Callable[[Probe], None] = lambda _probe: None


class Streaming:
    """A service of one stream: keeps what it hears."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.heard: list[object] = []

    def on_message(self, message: bytes) -> None:
        self.heard.append(message)

    def on_half_close(self) -> None:
        self.heard.append("half closed")

    def on_drained(self) -> None:
        self.heard.append("drained")

    def on_closed(self, status: Status) -> None:
        self.heard.append(status)


class Page:
    """An HttpResponder that keeps its answer."""

    def __init__(self) -> None:
        self.answer: tuple[Any, ...] = ()

    @property
    def done(self) -> bool:
        return bool(self.answer)

    def reply(self, *answer: Any) -> None:
        self.answer = answer


class House:
    """A gate with extensions whose threads are the test's own."""

    def __init__(self, count: int = 1) -> None:
        self.home = TestHome()
        self.journal: list[str] = []
        self.scripts = [Script(self.journal) for _ in range(count)]
        self.homes: list[ExtensionHome] = []
        """Launched, but not begun."""
        self.running: list[ExtensionHome] = []
        self.slow_starts = False
        self.calls: list[tuple[Call, bytes]] = []
        self.streams: list[Streaming] = []
        self.raft = Told()
        kinds = [
            Kind(
                Place(
                    f"probe{number}",
                    script,
                    MemberId(1),
                    "m1",
                    self.home.logger,
                    self.home.clock,
                    self.home.later,
                ),
                Probe,
                "tests:Probe",
                observes=True,
            )
            for number, script in enumerate(self.scripts)
        ]
        self.gate = self.home.spawn(
            ExtensionGateActor,
            kinds=kinds,
            raft=self.raft,
            clock=self.home.clock,
            later=self.home.later,
            launch=self.launch,
            logger=self.home.logger,
        )
        routes = Routes(
            {"/etcdserverpb.KV/Put": lambda call, payload: self.calls.append((call, payload))},
            dict.fromkeys(
                ("/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive", "/a.B/Stream"), self.open
            ),
        )
        self.tell(RoutesAre(routes), StartExtensions())
        self.run()

    def open(self, stream: Stream) -> Streaming:
        handler = Streaming(stream)
        self.streams.append(handler)
        return handler

    def launch(self, home: ExtensionHome) -> None:
        self.homes.append(home)

    def tell(self, *messages: Any) -> None:
        self.home.tell(self.gate, *messages)

    def run(self) -> None:
        """Let everybody get on until nothing waits."""
        self.home.run()
        homes, self.homes = ([], self.homes) if self.slow_starts else (self.homes, [])
        for home in homes:
            if home.begin():
                self.running.append(home)
        self.home.run()
        while busy := [home for home in self.running if home.depth]:
            for home in busy:
                if not home.deliver_next():
                    self.running.remove(home)
            self.home.run()

    def probe(self, number: int = 0) -> Probe:
        """The newest life of an extension."""
        return self.scripts[number].lives[-1]

    def crash(self, error: BaseException) -> None:
        self.probe().actor_ref.tell(error)
        self.run()

    def state(self) -> dict[str, Any]:
        told: list[Any] = []
        self.tell(Describe(told.extend))
        return dict(told[0])


def test_a_crash_is_logged_and_the_extension_begins_anew_after_a_while_that_grows() -> None:
    """The node does not depend on an extension; and one that fails at once must not fill the log."""
    house = House()
    for wait_s in (0.5, 1.0, 2.0):
        house.crash(RuntimeError("the cause"))
        assert house.state()["state"] == "backing off"
        house.home.later.advance(wait_s - 0.1)
        house.run()
        assert house.state()["state"] == "backing off"
        house.home.later.advance(0.1)
        house.run()
        assert house.state()["state"] == "running"
    assert [house.state()["restarts"], len(house.scripts[0].lives)] == [3, 4]
    logged = house.home.logged("an extension crashed")
    assert [(line["extension"], line["error"]) for line in logged] == [("probe0", "RuntimeError('the cause')")] * 3
    assert "in handle" in logged[0]["stacktrace"]
    house.home.later.advance(WELL_AFTER_S)
    house.crash(RuntimeError("later"))
    assert house.home.logged("an extension will be started again")[-1]["wait_s"] == 0.5
    assert not house.home.crashes


def test_a_crash_in_setup_counts_and_nothing_gives_it_up() -> None:
    """It may need what is not there yet, for however long."""
    house = House()
    house.scripts[0].on_setup = lambda _probe: 1 // 0  # type: ignore[assignment]  # it does not return
    house.crash(RuntimeError("first"))
    for _ in range(20):
        house.home.later.advance(BACK_OFF_MAX_S)
        house.run()
    assert house.state()["restarts"] == 21
    assert house.home.logged("an extension will be started again")[-1]["wait_s"] == BACK_OFF_MAX_S
    house.scripts[0].on_setup = lambda _probe: None
    house.home.later.advance(BACK_OFF_MAX_S)
    house.run()
    assert house.state()["state"] == "running"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_not_even_a_wish_to_exit_reaches_further_than_the_extension(error: BaseException) -> None:
    """Pykka would stop every actor of the process."""
    house = House()
    house.crash(error)
    assert house.state()["state"] == "backing off"
    assert not house.home.crashes


def test_calls_are_answered_by_messages() -> None:
    """With the response, or with the status that a client would get."""
    house = House()
    node = house.probe().node
    tokens = [node.put(b"k", b"v"), node.put(b"", b""), node.call("/a.B/No", PutRequest(), PutResponse)]
    house.run()
    (call, payload), (refused, _) = house.calls
    assert PutRequest.FromString(payload) == PutRequest(key=b"k", value=b"v")
    call.reply(PutResponse(prev_kv={"key": b"k"}).SerializeToString())
    refused.fail(Status(Code.INVALID_ARGUMENT, "etcdserver: key is not provided"))
    house.run()
    assert house.probe().of(Answer) == [
        Answer(tokens[2], None, Status(Code.UNIMPLEMENTED, "unknown method /a.B/No")),
        Answer(tokens[0], PutResponse(prev_kv={"key": b"k"}), OK),
        Answer(tokens[1], None, Status(Code.INVALID_ARGUMENT, "etcdserver: key is not provided")),
    ]


def test_a_call_judged_by_old_rules_is_made_again() -> None:
    """The node itself may do it under any rules; nothing was done yet."""
    house = House()
    house.probe().node.put(b"k", b"v")
    house.run()
    house.calls[0][0].fail(status_of(AuthOldRevision()))
    assert len(house.calls) == 2
    house.calls[1][0].reply(b"")
    house.run()
    assert [answer.status for answer in house.probe().of(Answer)] == [OK]


def test_calls_under_way_are_bounded() -> None:
    """An extension that asks without end must not fill the memory."""
    house = House()
    node = house.probe().node
    for _ in range(CALLS_MAX):
        node.put(b"k", b"v")
    with pytest.raises(TooManyRequests):
        node.put(b"k", b"v")
    house.run()
    house.calls[0][0].reply(b"")
    house.run()
    node.put(b"k", b"v")


def test_a_stream_waits_for_an_extension_that_is_slow() -> None:
    """What is sent and not handled counts as unsent, so that watchers go on from history and not from a queue."""
    house = House()
    node = house.probe().node
    token = node.watch(b"a", b"b", start_revision=7)
    house.home.run()
    watch = house.streams[0]
    create = WatchRequest.FromString(watch.heard[0]).create_request  # type: ignore[arg-type]  # bytes
    assert (create.key, create.range_end, create.start_revision) == (b"a", b"b", 7)
    event = WatchResponse(watch_id=0, events=[{"kv": {"key": b"a"}}])
    watch.stream.send(event.SerializeToString())
    watch.stream.send(event.SerializeToString())
    assert watch.stream.unsent_bytes == 2 * event.ByteSize()
    house.run()
    assert house.probe().of(WatchSaid) == [WatchSaid(token, event)] * 2
    assert (watch.stream.unsent_bytes, watch.heard[1:]) == (0, ["drained"])


def test_a_watch_whose_history_is_gone_says_where_to_go_on() -> None:
    """Otherwise an extension could not tell what it has missed."""
    house = House()
    token = house.probe().node.watch(b"a", start_revision=1)
    house.home.run()
    house.streams[0].stream.send(WatchResponse(canceled=True, compact_revision=9).SerializeToString())
    house.run()
    ended = house.probe().of(StreamEnded)[0]
    assert (ended.token, ended.compact_revision, ended.status.code) == (token, 9, Code.OUT_OF_RANGE)
    assert isinstance(house.streams[0].heard[-1], Status)  # its stream was closed


def test_a_lease_is_kept_alive_by_one_answer() -> None:
    """The stream that it takes is nobody's business."""
    house = House()
    token = house.probe().node.keep_alive(5)
    house.home.run()
    handler = house.streams[0]
    handler.stream.send(LeaseKeepAliveResponse(ID=5, TTL=60).SerializeToString())
    handler.stream.finish()
    house.run()
    told = [message for message in house.probe().told if not isinstance(message, RoleIs)]
    assert told == [Answer(token, LeaseKeepAliveResponse(ID=5, TTL=60), OK)]


def test_streams_end_with_the_life_that_opened_them() -> None:
    """A new life knows nothing of them, and nobody would take what they send."""
    house = House()
    token = house.probe().node.open_stream("/a.B/Stream")
    house.home.run()
    house.streams[0].stream.send(b"one")
    house.run()
    assert house.probe().of(StreamSaid) == [StreamSaid(token, b"one")]
    house.crash(RuntimeError("end"))
    assert house.streams[0].heard == [Status(Code.CANCELLED, "context canceled")] or house.streams[0].heard[
        -1
    ] == Status(Code.CANCELLED, "context canceled")
    house.streams[0].stream.send(b"too late")


def test_who_asks_an_extension_is_answered_even_if_it_crashes() -> None:
    """A client must not wait for one who will never answer."""
    house = House()
    page, call = Page(), FakeCall()
    request = HttpRequest("GET", "/x", "", {}, b"", "192.0.2.1:1", secure=False, common_name=None)
    house.tell(AskedHttp(0, request, NOBODY, page))  # type: ignore[arg-type]  # as much of a responder as is used
    house.run()
    asked = house.probe().of(HttpAsked)[0]
    house.probe().node.answer_http(asked, 200, b"yes")
    house.run()
    assert page.answer == (200, [("content-type", "text/plain; charset=utf-8")], b"yes")
    house.tell(AskedCall(0, call, b"", NOBODY))
    house.crash(RuntimeError("end"))
    assert call.status == Status(Code.UNAVAILABLE, "the extension has stopped")
    late = Page()
    house.tell(AskedHttp(0, request, NOBODY, late))  # type: ignore[arg-type]  # as above
    assert late.answer[0] == 503


def test_what_waits_for_an_extension_is_bounded() -> None:
    """Clients of a slow extension are turned away before they fill the memory."""
    house = House()
    calls = [FakeCall() for _ in range(ASKED_MAX + 1)]
    for call in calls:
        house.tell(AskedCall(0, call, b"", NOBODY))
    assert [call.done for call in calls] == [False] * ASKED_MAX + [True]
    assert calls[-1].status == Status(Code.UNAVAILABLE, "the extension probe0 has too much to answer")


def test_a_client_streams_with_an_extension_at_the_pace_of_the_slower() -> None:
    """Neither a client nor an extension can make the other's messages pile up here."""
    house = House()
    stream = FakeStream()
    house.tell(AskedStream(0, stream, NOBODY))
    house.run()
    opened = house.probe().of(StreamOpened)[0]
    house.tell(*[ClientSaid(stream, b"x" * 100_000) for _ in range(11)])
    reading = [stream.reading]
    house.run()
    assert [*reading, stream.reading] == [False, True]
    assert len(house.probe().of(StreamHeard)) == 11
    node = house.probe().node
    node.say(opened, b"answer")
    house.run()
    assert stream.sent == [b"answer"]
    stream.unsent_bytes = 5 << 20
    node.say(opened, b"too much")
    house.run()
    assert stream.status is not None
    assert stream.status.code is Code.RESOURCE_EXHAUSTED
    house.tell(ClientSaid(stream, None), ClientLeft(stream, stream.status), ClientSaid(stream, b"late"))
    house.run()
    assert house.probe().told[-2:] == [StreamHeardAll(opened.ticket), StreamLeft(opened.ticket, stream.status)]
    node.say(opened, b"nobody there")
    house.run()


def test_streams_of_clients_end_with_an_extension_that_crashes() -> None:
    """They would wait for ever."""
    house = House()
    streams = [FakeStream(), FakeStream()]
    house.tell(AskedStream(0, streams[0], NOBODY))
    house.crash(RuntimeError("end"))
    house.tell(ClientLeft(streams[0], OK), AskedStream(0, streams[1], NOBODY))
    assert [stream.status for stream in streams] == [
        Status(Code.UNAVAILABLE, "the extension has stopped"),
        Status(Code.UNAVAILABLE, "the extension probe0 is not running"),
    ]


def test_no_answer_of_an_extension_can_break_the_listener() -> None:
    """It would be written on the loop that all clients share."""
    node = House().probe().node
    asked = HttpAsked(1, HttpRequest("GET", "/", "", {}, b"", "", secure=False, common_name=None), NOBODY)
    for status, body, headers in ((99, b"", ()), (200, "text", ()), (200, b"", (("a", "b\r\nc: d"),))):
        with pytest.raises(ValueError, match="no "):
            node.answer_http(asked, status, body, headers=headers)  # type: ignore[arg-type]  # that is the point
    for refuse in (
        lambda: node.send(1, "text"),  # type: ignore[arg-type]  # that is the point
        lambda: node.call(["/a"], PutRequest(), PutResponse),  # type: ignore[arg-type]  # that is the point
    ):
        with pytest.raises(TypeError):
            refuse()


def test_calls_seen_come_in_batches_and_those_too_many_are_counted() -> None:
    """No history holds calls: one who is slow is told how many it has missed, and no queue grows."""
    house = House()
    house.tell(Saw(SEEN))  # on its way
    for _ in range(SEEN_MAX + 5):
        house.gate.actor_ref.tell(Saw(SEEN))
    house.home.run()
    house.run()
    first, rest = house.probe().of(CallsSeen)
    assert (first, len(rest.calls), rest.lost) == (CallsSeen((SEEN,), 0), SEEN_MAX, 5)
    assert house.state()["calls_lost"] == 5
    house.crash(RuntimeError("end"))
    house.tell(Saw(SEEN))
    house.home.later.advance(0.5)
    house.run()
    assert house.probe().of(CallsSeen) == [CallsSeen((SEEN,), 0)]  # what came between two lives is not lost


def test_calls_that_a_crash_may_have_lost_are_counted() -> None:
    """An audit that could not be written must not look complete."""
    house = House()
    house.gate.actor_ref.tell(Saw(SEEN))
    house.gate.actor_ref.tell(Saw(SEEN))
    house.probe().actor_ref.tell(RuntimeError("before it takes them"))
    house.home.run()
    house.run()
    house.home.later.advance(0.5)
    house.run()
    assert house.probe().of(CallsSeen) == [CallsSeen((), 2)]
    assert house.state()["calls_lost"] == 2


def test_who_leads_is_told_at_the_start_and_only_as_it_is_now() -> None:
    """One who is slow wants to know who leads, not who has led."""
    house = House()
    assert house.raft.of(ObserveRole)
    roles = [RoleIs(Term(term), MemberId(term), is_leader=term == 4) for term in (1, 2, 3, 4)]
    house.tell(*roles)
    house.run()
    assert house.probe().of(RoleIs) == [roles[0], roles[3]]
    assert (house.probe().node.is_leader, house.probe().node.leader) == (True, 4)
    house.crash(RuntimeError("end"))
    house.home.later.advance(0.5)
    house.run()
    assert house.probe().of(RoleIs) == [roles[3]]


def test_extensions_stop_in_reverse_and_one_that_hangs_is_left_behind() -> None:
    """A stop of the node must not wait for ever for what is not its own."""
    house = House(count=3)
    stopped = Told()
    hanging = house.running.pop(1)
    house.tell(StopExtensions(Delivery(stopped, "stopped")))
    house.run()
    assert (house.journal, stopped.messages) == (["probe2 teardown"], [])
    house.home.later.advance(STOP_TIMEOUT_S / 2)
    house.run()
    assert (house.journal, stopped.messages) == (["probe2 teardown", "probe0 teardown"], [])
    house.home.later.advance(STOP_TIMEOUT_S / 2)
    house.run()
    assert stopped.messages == ["stopped"]
    assert house.home.logged("an extension does not stop and is left behind")[0]["extension"] == "probe1"
    hanging.deliver_next()
    house.run()
    assert len(stopped.messages) == 1


def test_a_stop_takes_no_longer_for_many_that_hang() -> None:
    """Whoever runs the service waits five seconds, not five for each; one that is late may still be in time."""
    house = House(count=6)
    stopped = Told()
    hanging = [house.running.pop(number) for number in (5, 4, 3, 1)]
    house.tell(StopExtensions(Delivery(stopped, "stopped")))
    for _ in range(10):
        house.run()
        house.home.later.advance(STOP_TIMEOUT_S / 20)
    house.run()
    assert (house.journal, stopped.messages) == (["probe2 teardown", "probe0 teardown"], [])
    while hanging[0].deliver_next():
        pass
    house.home.later.advance(STOP_TIMEOUT_S / 2)
    house.run()
    assert (house.journal[2:], stopped.messages) == (["probe5 teardown"], ["stopped"])
    left = house.home.logged("an extension does not stop and is left behind")
    assert sorted(entry["extension"] for entry in left) == ["probe1", "probe3", "probe4"]


def test_one_that_hangs_at_its_start_is_told_of() -> None:
    """The node serves without it, so nobody else would notice."""
    house = House(count=2)
    assert house.home.logged("an extension has not started yet") == []
    house.crash(RuntimeError("end"))
    house.slow_starts = True
    house.home.later.advance(START_SLOW_S / 2)
    house.run()
    house.home.later.advance(START_SLOW_S)
    house.run()
    assert [entry["extension"] for entry in house.home.logged("an extension has not started yet")] == ["probe0"]


def test_later_is_told_to_the_life_that_asked() -> None:
    """A new one has timers of its own."""
    house = House()
    house.probe().node.later(10.0, "due")
    house.home.later.advance(10.0)
    house.run()
    assert house.probe().told == ["due"]
    house.probe().node.later(10.0, "due")
    house.crash(RuntimeError("end"))
    house.home.later.advance(10.0)
    house.run()
    assert house.probe().told == []


def test_numbers_tell_how_extensions_are() -> None:
    """An operator sees a crash loop before somebody misses the extension."""
    house = House()
    house.crash(RuntimeError("end"))
    numbers = Told()
    house.tell(Measure(1, numbers))
    samples = {(sample.family, *sample.labels): sample.value for sample in numbers.last(Measured).samples}
    assert samples == {
        ("actcd_extension_state", "probe0", "backing off"): 1,
        ("actcd_extension_restarts_total", "probe0"): 1,
        ("actcd_extension_mailbox_depth", "probe0"): 0,
        ("actcd_extension_calls_lost_total", "probe0"): 0,
    }

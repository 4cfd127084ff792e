"""The HTTP pages of a client listener: health as load balancers and orchestrators ask for it, and the version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from core.errors import RequestTimeout
from core.metrics import Distribution, Sample
from core.types import MemberId
from core.version import SERVER_VERSION
from net.rpc import HttpRequest
from services.errors import status_of
from services.slow_requests import SlowRequest
from services.status_pages import StatusPages
from services.trace_pages import InFlight, Waiting
from tests.fake_node import MEMBER, FakeNode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOSPACE, CORRUPT, FUTURE = 1, 2, 9


class FakeResponder:
    """Keeps the answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.done = False
        self.unsent_bytes = 0

    def reply(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """See HttpResponder."""
        assert not self.done, "answered twice"
        self.status, self.headers, self.body, self.done = status, dict(headers), body, True

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See HttpResponder."""
        raise AssertionError((status, headers))

    def write(self, chunk: bytes) -> None:
        """See HttpResponder."""
        raise AssertionError(chunk)

    def upgrade(self, *_anything: object) -> None:
        """See HttpResponder: it cannot."""

    def end(self) -> None:
        """See HttpResponder."""
        raise AssertionError

    def follow(self, on_drained: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """See HttpResponder."""
        raise AssertionError((on_drained, on_closed))


def get(node: FakeNode, path: str, query: str = "", method: str = "GET") -> FakeResponder:
    """Ask for a page."""
    responder = FakeResponder()
    request = HttpRequest(method, path, query, {}, b"", "192.0.2.1:1", secure=False, common_name=None)
    StatusPages(node).handle(request, responder)
    return responder


def health(
    node: FakeNode, query: str = "", alarms: Sequence[tuple[MemberId, int]] = (), *, read: bool = True
) -> FakeResponder:
    """Ask for /health, with these alarms on, and let its read go on."""
    responder = get(node, "/health", query)
    node.answer(list(alarms))
    if read:
        node.run_reads()
    return responder


def reason(responder: FakeResponder) -> str:
    """Return why it says that it is not healthy."""
    assert responder.status == 503
    found = json.loads(responder.body)
    assert found["health"] == "false"
    return str(found["reason"])


def test_a_healthy_member_says_so() -> None:
    """After a linearizable read: a member that is cut off from the others is not healthy."""
    node = FakeNode()
    waiting = health(node, read=False)
    assert not waiting.done
    node.run_reads()
    assert (waiting.status, waiting.body) == (200, b'{"health":"true","reason":""}')


@pytest.mark.parametrize(
    ("alarm", "text"), [(NOSPACE, "ALARM NOSPACE"), (CORRUPT, "ALARM CORRUPT"), (FUTURE, "ALARM UNKNOWN")]
)
def test_an_alarm_makes_unhealthy(alarm: int, text: str) -> None:
    """In etcd's words, so that probes which look for them find them."""
    responder = health(FakeNode(), alarms=[(MEMBER, alarm)])
    assert reason(responder) == text
    assert responder.body.endswith(b"\n")


def test_an_excluded_alarm_is_passed_over() -> None:
    """An orchestrator that restarts for every fault must not restart for want of space."""
    alarms = [(MEMBER, NOSPACE), (MemberId(7), CORRUPT)]
    assert reason(health(FakeNode(), "exclude=NOSPACE", alarms)) == "ALARM CORRUPT"
    assert health(FakeNode(), "exclude=NOSPACE&exclude=CORRUPT", alarms).status == 200


def test_without_a_leader_nobody_is_healthy() -> None:
    """Nothing can be written, and nothing read for sure."""
    node = FakeNode()
    node.leader = MemberId(0)
    assert reason(health(node)) == "RAFT NO LEADER"


def test_a_serializable_health_asks_this_member_only() -> None:
    """It stands for the process, not for the cluster."""
    node = FakeNode()
    node.leader = MemberId(0)
    responder = health(node, "serializable=true", read=False)
    assert responder.status == 200
    assert node.reads == []


def test_a_failed_read_makes_unhealthy() -> None:
    """With what it failed of."""
    node = FakeNode()
    responder = health(node, read=False)
    [(asker, _)] = node.reads
    asker.fail(status_of(RequestTimeout()))
    assert reason(responder) == "RANGE ERROR:etcdserver: request timed out"


def test_the_version_names_server_and_cluster() -> None:
    """Tools decide by it what to use."""
    node = FakeNode()
    responder = get(node, "/version")
    assert responder.headers["content-type"] == "application/json"
    assert json.loads(responder.body) == {"etcdserver": SERVER_VERSION, "etcdcluster": node.cluster_version}
    node.cluster_version = ""
    assert json.loads(get(node, "/version").body)["etcdcluster"] == "not_decided"


def test_an_unknown_page_is_not_found() -> None:
    """As Go's server says it."""
    responder = get(FakeNode(), "/nothing")
    assert (responder.status, responder.body) == (404, b"404 page not found\n")


@pytest.mark.parametrize("path", ["/health", "/version"])
def test_pages_are_read_only(path: str) -> None:
    """Anything but GET is told so, HEAD too: so does etcd."""
    for method in ("POST", "HEAD"):
        refused = get(FakeNode(), path, method=method)
        assert (refused.status, refused.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("query", ["%", "exclude", "&&=&", "exclude=%ff", "serializable=1&serializable=true"])
def test_a_query_of_any_bytes_is_taken(query: str) -> None:
    """It comes from anybody."""
    assert health(FakeNode(), query).status == 200


LINES = (
    (1_699_999_000.0, {"level": "info", "ts": "22:00:00", "caller": "actors/raft.py:9", "msg": "became leader"}),
    (1_699_999_995.0, {"level": "error", "ts": "22:13:15", "caller": "actors/raft.py:10", "msg": "odd", "peer": "<b>"}),
)


def trace_page(node: FakeNode, path: str, query: str = "", *, peer: str = "127.0.0.1:9") -> FakeResponder:
    """Ask for a page of traces where the log is at debug."""
    responder = FakeResponder()
    request = HttpRequest("GET", path, query, {}, b"", peer, secure=False, common_name=None)
    StatusPages(node, lines=lambda: LINES).handle(request, responder)
    return responder


@pytest.mark.parametrize("path", ["/debug/requests", "/debug/events"])
def test_pages_of_traces_are_for_this_machine_at_debug_alone(path: str) -> None:
    """They tell who talks to this server and what it logs, which is nobody's business from afar (etcd's own rule)."""
    node = FakeNode()
    assert get(node, path).status == 404
    for peer in ("192.0.2.1:9", "[2001:db8::1]:9", "127.0.0.1.example.org:9"):
        refused = trace_page(node, path, peer=peer)
        assert (refused.status, refused.body) == (401, b"not allowed\n")
    assert node.asked == []


def test_the_page_of_requests_shows_what_is_known_anyhow() -> None:
    """Who hangs, what is slow, how calls end: the first questions about a server that behaves oddly."""
    node = FakeNode()
    put = ("unary", "etcdserverpb.KV", "Put")
    node.flight = InFlight([Waiting("/etcdserverpb.KV/Put", "10.0.0.1:5", 1.25)], 3, 0.5, [("/Watch", "<peer>")] * 2)
    node.slow.append(SlowRequest(1_699_999_990.0, "/etcdserverpb.KV/Txn", "10.0.0.2:6", 2.5))
    responder = trace_page(node, "/debug/requests", peer="[::ffff:127.0.0.1]:9")
    node.answer(
        [
            Sample("grpc_server_started_total", 0, ("unary", "etcdserverpb.KV", "Range")),
            Sample("grpc_server_started_total", 7, put),
            Sample("grpc_server_handled_total", 4, (*put, "OK")),
            Sample("grpc_server_handled_total", 2, (*put, "Unavailable")),
            Sample(
                "etcd_server_request_duration_seconds", Distribution((0.001, 0.002), (1, 0, 4), 9.0), ("Put", "true")
            ),
            Sample(
                "etcd_server_request_duration_seconds", Distribution((0.001, 0.002), (2, 0, 0), 9.0), ("Put", "true")
            ),
        ]
    )
    assert responder.status == 200
    assert responder.headers["content-type"] == "text/html; charset=utf-8"
    page = responder.body.decode()
    for shown in (
        "<td>etcdserverpb.KV/Put</td><td>[1 active]</td><td>[4 ok]</td><td>[2 errors]</td><td>Unavailable: 2</td>",
        "<td>Put</td><td>ok</td><td>3</td><td></td><td>4</td>",
        "waiting: 1 writes; 3 reads, 0.500 s",
        "<td>10.0.0.1:5</td><td>1.250 s</td>",
        "<td>&lt;peer&gt;</td><td>2</td>",
        "<td>10 s ago</td><td>/etcdserverpb.KV/Txn</td><td>10.0.0.2:6</td><td>2.500 s</td>",
    ):
        assert shown in page
    assert "KV/Range" not in page


def test_the_page_of_events_shows_the_newest_lines_of_the_log() -> None:
    """By where they come from, with how long ago errors were; what they contain is text and never markup."""
    page = trace_page(FakeNode(), "/debug/events").body.decode()
    assert '<a href="?fam=actors%2Fraft.py">actors/raft.py</a>' in page
    row = "<td>[2 total]</td><td>[1 errs&lt;10s]</td><td>[1 errs&lt;1m]</td>"
    assert row in page
    assert "became leader" not in page
    family = trace_page(FakeNode(), "/debug/events", "fam=actors%2Fraft.py").body.decode()
    assert "<td>became leader</td>" in family
    assert "odd peer=&lt;b&gt;" in family
    assert b"<h2>" not in trace_page(FakeNode(), "/debug/events", "fam=<script>").body

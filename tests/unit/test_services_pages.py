"""The HTTP pages of a client listener: health as load balancers and orchestrators ask for it, and the version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from core.errors import RequestTimeout
from core.types import MemberId
from core.version import SERVER_VERSION
from net.rpc import HttpRequest
from services.errors import status_of
from services.status_pages import StatusPages
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

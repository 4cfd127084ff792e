"""The JSON gateway apart from any server: routes, headers, streams, deadlines, and clients that go."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from net.rpc import OK, Code, HttpRequest, Routes, Status
from proto.rpc_pb2 import (
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    PutRequest,
    PutResponse,
    RangeResponse,
    WatchResponse,
)
from services.access import HttpOptions, Serves
from services.client_http import ClientHttp
from services.gateway import INLINE_BYTES_MAX, MESSAGES_MAX, PATHS
from services.gateway_calls import HTTP_STATUS, LARGE_BYTES
from tests.fake_node import FakeNode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.rpc import Call, Context, Stream


class Web:
    """The other end of one answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.done = False
        self.unsent_bytes = 0
        self.drain: Callable[[], None]
        self.leave: Callable[[], None]

    def follow(self, on_drained: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """See HttpResponder."""
        self.drain, self.leave = on_drained, on_closed

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """See HttpResponder."""
        assert not self.status, "started twice"
        self.status, self.headers = status, dict(headers)

    def write(self, chunk: bytes) -> None:
        """See HttpResponder."""
        self.chunks.append(chunk)

    def upgrade(self, *_anything: object) -> None:
        """See HttpResponder: it cannot."""

    def end(self) -> None:
        """See HttpResponder."""
        assert not self.done, "ended twice"
        self.done = True

    def reply(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """See HttpResponder."""
        self.start(status, headers)
        self.write(body)
        self.end()

    @property
    def said(self) -> object:
        """The body, read."""
        return json.loads(b"".join(self.chunks))


class Service:
    """Keeps the calls, and what streams tell it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, bytes]] = []
        self.streams: list[Stream] = []
        self.heard: list[object] = []

    def unary(self, call: Call, payload: bytes) -> None:
        """Take a call."""
        self.calls.append((call, payload))

    def stream(self, stream: Stream) -> Service:
        """Take a stream."""
        self.streams.append(stream)
        return self

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""
        self.heard.append(message)

    def on_half_close(self) -> None:
        """See StreamHandler."""
        self.heard.append("half closed")

    def on_drained(self) -> None:
        """See StreamHandler."""
        self.heard.append("drained")

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
        self.heard.append(status.code)


class Site:
    """A listener with two methods and two streams."""

    def __init__(
        self, options: HttpOptions | None = None, on_refused: Callable[[Context, Status], None] | None = None
    ) -> None:
        self.service, self.node = Service(), FakeNode()
        service = self.service
        self.routes = Routes(
            {"/etcdserverpb.KV/Put": service.unary, "/etcdserverpb.KV/Range": service.unary},
            {"/etcdserverpb.Lease/LeaseKeepAlive": service.stream, "/etcdserverpb.Watch/Watch": service.stream},
            on_refused=on_refused,
        )
        self._handler = ClientHttp(self.node, self.routes, options or HttpOptions())

    def ask(
        self,
        path: str,
        body: bytes = b"{}",
        method: str = "POST",
        *,
        secure: bool = False,
        common_name: str | None = None,
        **headers: str,
    ) -> Web:
        """Ask, and return what has come of it so far."""
        web = Web()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path, _, query = path.partition("?")
        request = HttpRequest(method, path, query, named, body, "192.0.2.1:1", secure, common_name)
        self._handler.handle(request, web)
        return web


def test_a_call_goes_to_the_service_and_its_answer_comes_back_as_json() -> None:
    """The same method that gRPC reaches gets the message; what it answers is one JSON object."""
    site = Site()
    web = site.ask("/v3/kv/put", b'{"key":"YQ==","value":"Yg=="}')
    ((call, payload),) = site.service.calls
    assert (call.method, PutRequest.FromString(payload)) == ("/etcdserverpb.KV/Put", PutRequest(key=b"a", value=b"b"))
    assert not call.done
    call.reply(PutResponse().SerializeToString())
    call.fail(Status(Code.INTERNAL, "too late"))
    assert (web.status, web.said, call.done) == (200, {}, True)
    assert web.headers["grpc-metadata-content-type"] == "application/grpc"


@pytest.mark.parametrize("code", [code for code in Code if code])
def test_each_failure_has_its_http_status(code: Code) -> None:
    """Clients judge by the one or the other."""
    site = Site()
    web = site.ask("/v3/kv/put")
    site.service.calls[0][0].fail(Status(code, 'why "not"'))
    assert web.status == HTTP_STATUS[code]
    assert web.said == {"error": 'why "not"', "code": int(code), "message": 'why "not"'}
    assert ("www-authenticate" in web.headers) == (code is Code.UNAUTHENTICATED)


def test_headers_become_metadata() -> None:
    """Tokens, custom metadata, and the mark that a gateway carries the call, so that a certificate names nobody."""
    site = Site()
    site.ask("/v3/kv/put", authorization="token", grpc_metadata_x="y", user_agent="curl", x_other="z", common_name="cn")
    call = site.service.calls[0][0]
    assert call.common_name is None
    assert call.metadata["authorization"] == ("token",)
    assert call.metadata["x"] == ("y",)
    assert call.metadata["grpcgateway-user-agent"] == ("curl",)
    assert "grpcgateway-accept" in call.metadata
    assert "x-other" not in call.metadata


def test_a_deadline_ends_a_call() -> None:
    """Grpc-Timeout is kept; a call that was answered in time is left alone."""
    site = Site()
    web = site.ask("/v3/kv/put", grpc_timeout="2S")
    ((seconds, expire),) = site.node.deadlines
    assert seconds == 2.0
    expire()
    assert (web.status, web.said) == (
        504,
        {"error": "context deadline exceeded", "code": 4, "message": "context deadline exceeded"},
    )
    answered = site.ask("/v3/kv/put", grpc_timeout="2S")
    site.service.calls[1][0].reply(b"")
    assert answered.status == 200
    assert not site.node.deadlines  # called off
    assert site.ask("/v3/kv/put", grpc_timeout="soon").status == 400
    assert site.ask("/v3/kv/put", grpc_timeout="1n").status == 504


def test_a_large_answer_is_written_by_a_worker() -> None:
    """JSON of megabytes would keep all other clients waiting."""
    site = Site()
    web = site.ask("/v3/kv/range")
    message = RangeResponse()
    message.kvs.add(value=b"x" * LARGE_BYTES)
    site.service.calls[0][0].reply(message.SerializeToString())
    at_once = web.done
    site.node.run_jobs()
    assert (at_once, web.done, web.status) == (False, True, 200)


def test_a_large_body_is_read_by_a_worker() -> None:
    """Its faults too: nobody can keep the loop busy with a body of many small things."""
    site = Site()
    value = "eA==" * INLINE_BYTES_MAX
    site.ask("/v3/kv/put", f'{{"value":"{value[:INLINE_BYTES_MAX]}"}}'.replace("==", "AA").encode())
    wrong = site.ask("/v3/kv/put", b"[" * (INLINE_BYTES_MAX + 1))
    at_once = len(site.service.calls)
    site.node.run_jobs()
    assert (at_once, len(site.service.calls), wrong.status) == (0, 1, 400)
    gone = site.ask("/v3/kv/put", b" " * (INLINE_BYTES_MAX + 1))
    gone.done = True
    site.node.run_jobs()
    assert len(site.service.calls) == 1
    site.ask("/v3/watch", b"{}" * (INLINE_BYTES_MAX + 1))
    site.node.run_jobs()
    assert site.service.heard == [b""] * MESSAGES_MAX + ["half closed"]


def test_a_stream_is_one_line_a_message() -> None:
    """Each message in a chunk of its own, in order, and the requests of the body one by one."""
    site = Site()
    web = site.ask("/v3/lease/keepalive", b'{"ID":"1"} {"ID":2} x')
    asked = [LeaseKeepAliveRequest(ID=number).SerializeToString() for number in (1, 2)]
    assert site.service.heard == [*asked, "half closed"]
    stream = site.service.streams[0]
    assert not web.status
    stream.send(LeaseKeepAliveResponse(ID=1, TTL=9).SerializeToString())
    stream.send(b"")
    stream.finish()
    stream.send(b"")
    assert web.chunks == [b'{"result":{"ID":"1","TTL":"9"}}\n', b'{"result":{}}\n']
    assert (web.status, web.done, site.service.heard[-1]) == (200, True, Code.OK)


def test_a_stream_that_fails_says_so() -> None:
    """As an answer of its own if nothing was sent, else as the last line."""
    site = Site()
    early = site.ask("/v3/watch")
    site.service.streams[0].finish(Status(Code.UNAVAILABLE, "gone"))
    assert (early.status, early.said) == (503, {"error": "gone", "code": 14, "message": "gone"})
    late = site.ask("/v3/watch")
    site.service.streams[1].send(WatchResponse(created=True).SerializeToString())
    site.service.streams[1].finish(Status(Code.UNAVAILABLE, "gone"))
    error = json.loads(late.chunks[-1])["error"]
    assert (error["code"], error["grpc_code"], error["http_code"], error["message"]) == (14, 14, 503, "gone")
    assert late.done


def test_a_stream_ends_with_its_client() -> None:
    """Whoever watches hears that nobody listens any more, once; a deadline and a slow reader are passed on."""
    site = Site()
    web = site.ask("/v3/watch")
    web.drain()
    web.leave()
    site.service.streams[0].finish(OK)
    assert site.service.heard[-2:] == ["drained", Code.CANCELLED]
    site.ask("/v3/watch", grpc_timeout="1S")
    site.node.deadlines[-1][1]()
    assert site.service.heard[-1] == Code.DEADLINE_EXCEEDED


def test_pausing_holds_requests_back() -> None:
    """A stream whose reader is slow gets no further request."""
    site = Site()

    class Pausing(Service):
        def on_message(self, message: bytes) -> None:
            super().on_message(message)
            self.streams[0].pause_reading()

    pausing = Pausing()
    site.routes.streams["/etcdserverpb.Lease/LeaseKeepAlive"] = pausing.stream  # type: ignore[index]  # a dict here
    site.ask("/v3/lease/keepalive", b'{"ID":1}{"ID":2}')
    assert len(pausing.heard) == 1
    pausing.streams[0].resume_reading()
    pausing.streams[0].resume_reading()
    assert pausing.heard[-1] == "half closed"


def test_calls_are_counted_with_those_of_grpc() -> None:
    """A dashboard shows what clients do, whichever way they come."""
    site = Site()
    site.ask("/v3/kv/put")
    site.service.calls[0][0].reply(b"")
    site.ask("/v3/kv/put")
    site.service.calls[1][0].fail(Status(Code.NOT_FOUND, "x"))
    tally = site.routes.tallies.find("/etcdserverpb.KV/Put")
    assert (tally.started, tally.ended) == (2, {Code.OK: 1, Code.NOT_FOUND: 1})


def test_only_routes_that_exist_are_served() -> None:
    """Unknown paths, other methods and the old names of the prefix."""
    site = Site()
    assert site.ask("/v3/nothing").status == 404
    assert site.ask("/v3/kv/txn").status == 404  # no service has it here
    assert site.ask("/v3").headers["location"] == "/v3/"
    assert site.ask("/v3/kv/put", method="GET").said == {
        "error": "Method Not Allowed",
        "code": 12,
        "message": "Method Not Allowed",
    }
    site.ask("/v3beta/kv/put")
    site.ask("/v3alpha/kv/put")
    assert len(site.service.calls) == 2
    assert sum(map(len, PATHS.values())) == 51
    assert Site(HttpOptions(gateway=False)).ask("/v3/kv/put").status == 404


CLEAN = {
    "/v3": "/v3/",
    "//v3": "/v3/",
    "/v3?x=y": "/v3/?x=y",
    "/v3//kv/put": "/v3/kv/put",
    "/v3beta//kv/put": "/v3/kv/put",
    "//health?a=b%20c": "/health?a=b%20c",
    "/v3/./kv/../kv//put/": "/v3/kv/put/",
    "/..": "/",
    "/x/../": "/",
    '/v3//a"b<é': "/v3/a%22b%3C%C3%A9",
    "/v3//a?é": "/v3/a?%C3%A9",
}


@pytest.mark.parametrize("path", CLEAN)
def test_paths_that_are_not_clean_are_redirected(path: str) -> None:
    """As by Go's server: who joins addresses carelessly gets where they meant to, if they follow; CONNECT never."""
    site = Site()
    posted, got = site.ask(path), site.ask(path, method="GET")
    assert (posted.status, posted.headers["location"], posted.chunks) == (301, CLEAN[path], [b""])
    link = CLEAN[path].replace('"', "&#34;")
    assert got.chunks == [f'<a href="{link}">Moved Permanently</a>.\n\n'.encode()]
    is_root_of_the_gateway = path in {"/v3", "/v3?x=y"}
    assert site.ask(path, method="CONNECT").status == (301 if is_root_of_the_gateway else 404)
    assert site.ask(path, method="OPTIONS").status == 200
    assert Site(HttpOptions(serves=Serves.METRICS)).ask(path).status == (404 if is_root_of_the_gateway else 301)


def test_messages_are_as_large_as_over_grpc() -> None:
    """JSON is no way around the limit: what is told, and that a stream says it, are gRPC's."""
    site = Site(HttpOptions(message_bytes_max=100))
    large = {"error": "grpc: received message larger than max (104 vs. 100)", "code": 8}
    body = json.dumps({"key": b64encode(bytes(102)).decode()}).encode()
    web = site.ask("/v3/kv/put", body)
    assert (web.status, web.said) == (429, {**large, "message": large["error"]})
    assert not site.service.calls
    web = site.ask("/v3/watch", b'{"create_request":' + body + b"}")
    assert web.status == 429
    assert site.service.heard == [Code.RESOURCE_EXHAUSTED]
    assert site.ask("/v3/kv/put", json.dumps({"key": b64encode(bytes(98)).decode()}).encode()).status == 0


def test_bodies_that_reach_no_method_are_told() -> None:
    """Whoever keeps a record hears of them, with the method that they were meant for."""
    told: list[tuple[str, Code]] = []
    site = Site(
        HttpOptions(message_bytes_max=10), on_refused=lambda call, status: told.append((call.method, status.code))
    )
    site.ask("/v3/kv/put", b"{")
    site.ask("/v3/watch", b"x")
    site.ask("/v3/kv/range", grpc_timeout="soon")
    site.ask("/v3/kv/put", json.dumps({"key": b64encode(bytes(20)).decode()}).encode())
    site.ask("/v3/nothing")
    assert told == [
        ("/etcdserverpb.KV/Put", Code.INVALID_ARGUMENT),
        ("/etcdserverpb.Watch/Watch", Code.UNKNOWN),
        ("/etcdserverpb.KV/Range", Code.INVALID_ARGUMENT),
        ("/etcdserverpb.KV/Put", Code.RESOURCE_EXHAUSTED),
    ]


def test_hosts_that_are_not_ours_are_refused() -> None:
    """A page in a browser may rebind its own name to our address; over TLS it would fail by the certificate."""
    site = Site(HttpOptions(hosts=frozenset(("good", "::1"))))
    for host, status in (("good", 200), ("good:2379", 200), ("[::1]:2379", 200), ("evil", 421), ("good.evil:1", 421)):
        assert site.ask("/version", method="GET", host=host).status == status
    refused = site.ask("/version", method="GET", host="evil")
    assert refused.chunks[0].startswith(b"\netcd received your request, but the Host header was unrecognized.")
    assert site.ask("/version", method="GET", host="evil", secure=True).status == 200
    for open_to_all in (frozenset(), frozenset("*")):
        assert Site(HttpOptions(hosts=open_to_all)).ask("/version", method="GET", host="evil").status == 200


def test_browsers_may_call_from_the_origins_that_are_named() -> None:
    """From others the request still runs, but the browser does not show its answer."""
    anywhere = Site().ask("/version", method="GET", origin="http://a")
    assert anywhere.headers["access-control-allow-origin"] == "*"
    site = Site(HttpOptions(origins=frozenset(("http://a",))))
    assert site.ask("/version", method="GET", origin="http://a").headers["access-control-allow-origin"] == "http://a"
    other = site.ask("/version", method="GET", origin="http://b")
    assert (other.status, "access-control-allow-origin" in other.headers) == (200, False)
    preflight = site.ask("/v3/kv/put", method="OPTIONS", origin="http://a")
    assert (preflight.status, preflight.chunks) == (200, [b""])
    assert preflight.headers["access-control-allow-headers"] == "accept, content-type, authorization"


def test_listeners_serve_what_they_are_for() -> None:
    """One for metrics changes nothing; one for gRPC has no pages."""
    metrics, grpc = (Site(HttpOptions(serves=serves)) for serves in (Serves.METRICS, Serves.GRPC))
    assert metrics.ask("/v3/kv/put").status == 404
    assert metrics.ask("/version", method="GET").status == 404
    metrics.ask("/health", method="GET")
    assert metrics.node.asked[-1][0] == "alarms"
    assert grpc.ask("/version", method="GET").status == 404
    assert grpc.ask("/v3/kv/put").status == 404

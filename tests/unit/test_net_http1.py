"""HTTP/1.1 on the shared port: keep-alive, pipelining, bodies, refusals, timeouts; and which protocol it is at all."""

from __future__ import annotations

import asyncio

import pytest

from net.http1 import IDLE_TIMEOUT_S, READ_AHEAD_BYTES_MAX, Http1Connection
from net.http1_parser import FIELDS_MAX, HttpFaultError, RequestParser
from net.http2 import frames
from net.rpc import HttpRequest, HttpResponder, Limits
from net.sniff import SniffingConnection
from net.transports import LINGER_S, STALL_S
from tests.unit.net_harness import FakeTransport, World

LIMITS = Limits(http_head_bytes_max=1000, http_body_bytes_max=100)


class Browser:
    """A client, and the service that it asks."""

    def __init__(self, *, http: bool = True) -> None:
        self.requests: list[HttpRequest] = []
        self.held: list[HttpResponder] = []
        self.world = World(LIMITS, self._serve if http else None)
        self.transport = FakeTransport()
        self.connection = Http1Connection(self.world.commons, self.transport)

    def _serve(self, request: HttpRequest, responder: HttpResponder) -> None:
        self.requests.append(request)
        if request.path == "/hold":
            self.held.append(responder)
        elif request.path == "/raise":
            raise ValueError(request.path)
        else:
            responder.reply(200, [("x", "y")], request.body or b"ok")

    def ask(self, *pieces: bytes) -> bytes:
        """Send bytes, let the loop turn, return what came since the last time."""
        for piece in pieces:
            self.connection.data_received(piece)
            self.world.loop.turn()
        return self.received()

    def received(self) -> bytes:
        answer = bytes(self.transport.written)
        self.transport.written.clear()
        return answer


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


GET = b"GET /a%20b?c=%20d HTTP/1.1\r\nHost: h\r\nAccept: a\r\nAccept: b\r\n\r\n"


def test_request_and_answer() -> None:
    """Path decoded, query raw, names in lower case, repeated fields joined."""
    browser = Browser()
    assert browser.ask(GET) == ok(b"ok")
    (request,) = browser.requests
    assert (request.method, request.path, request.query) == ("GET", "/a b", "c=%20d")
    assert request.headers == {"host": "h", "accept": "a, b"}
    assert (request.body, request.peer, request.secure) == (b"", "192.0.2.1:4321", False)


def test_pieces_of_any_size() -> None:
    """A request means the same however its bytes are cut."""
    post = (
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nt: u\r\n\r\n"
    )
    browser = Browser()
    assert browser.ask(*(bytes([byte]) for byte in post + GET)) == ok(b"abcde") + ok(b"ok")


def test_pipelining_keeps_order() -> None:
    """The second request waits for the answer to the first, even if it could be answered at once."""
    browser = Browser()
    hold = b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n"
    assert browser.ask(GET + hold + GET + GET) == ok(b"ok")
    assert len(browser.requests) == 2
    browser.held[0].reply(204, [], b"")
    browser.world.loop.turn()
    assert browser.received() == b"HTTP/1.1 204 No Content\r\n\r\n" + ok(b"ok") * 2


def test_bodies() -> None:
    """With a length, in chunks, with none."""
    browser = Browser()
    assert browser.ask(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab", b"c") == ok(b"abc")
    assert browser.ask(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") == ok(b"ok")
    assert browser.ask(b"\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n") == ok(b"ok")


def test_expect_continue() -> None:
    """The client is told to go on if it waits, and only then."""
    browser = Browser()
    head = b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    assert browser.ask(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert browser.ask(b"abc") == ok(b"abc")
    assert browser.ask(head + b"abc") == ok(b"abc")


def test_head() -> None:
    """The headers of the answer without its body."""
    assert Browser().ask(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n") == ok(b"ok")[:-2]


def test_connection_header_and_http_1_0() -> None:
    """Close is honoured; HTTP/1.0 is kept alive only on request."""
    closing = Browser()
    answer = closing.ask(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert b"\r\nconnection: close\r\n" in answer
    assert closing.transport.sent_eof
    kept = Browser()
    answer = kept.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"connection: keep-alive" in answer
    assert b"connection" not in kept.ask(b"GET / HTTP/1.0\r\n\r\n")  # that it closes goes without saying
    assert kept.transport.sent_eof


def test_chunked_answer() -> None:
    """One chunk per write, no empty one in the middle; HTTP/1.0 gets the bare bytes and the end of the connection."""
    browser = Browser()
    browser.ask(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n")
    responder = browser.held[0]
    responder.start(200, [("a", "b")])
    responder.write(b"one")
    responder.write(b"")
    browser.world.loop.turn()
    assert browser.received() == b"HTTP/1.1 200 OK\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
    responder.end()
    responder.write(b"late")
    responder.end()
    assert responder.done
    browser.world.loop.turn()
    assert browser.received() == b"0\r\n\r\n"
    browser.ask(b"GET /hold HTTP/1.0\r\n\r\n")
    browser.held[1].start(200, [])
    browser.held[1].write(b"bare")
    browser.held[1].end()
    browser.world.loop.turn()
    assert browser.received() == b"HTTP/1.0 200 OK\r\n\r\nbare"
    assert browser.transport.sent_eof


REFUSED: dict[str, tuple[bytes, int]] = {
    "no request": (b"hello\r\n\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: h\n\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
    "folded line": (b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", 400),
    "null in a value": (b"GET / HTTP/1.1\r\nHost: h\0\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "bad target": (b"GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "two lengths": (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    "signed length": (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\nx", 400),
    "length and chunks": (
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        400,
    ),
    "bad chunk size": (b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "chunk without end": (b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
    "chunk size line without end": (
        b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 300,
        400,
    ),
    "length above the limit": (b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n", 413),
    "chunks above the limit": (
        b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3c\r\n" + b"x" * 60 + b"\r\n3c\r\n",
        413,
    ),
    "target too long": (b"GET /" + b"x" * 8192, 414),
    "expectation": (b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", 417),
    "headers too large": (b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"x" * 1000, 431),
    "trailers too large": (
        b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: " + b"x" * 1000,
        431,
    ),
    "too many headers": (b"GET / HTTP/1.1\r\n" + b"a:\r\n" * (FIELDS_MAX + 1), 431),
    "bad escape": (b"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "bad host": (b"GET / HTTP/1.1\r\nHost: h h\r\n\r\n", 400),
    "unknown coding": (b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "two codings": (
        b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        501,
    ),
    "unknown version": (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    """What cannot be trusted is answered, and the connection ends: no smuggled second request is ever read."""
    request, status = REFUSED[name]
    browser = Browser()
    answer = browser.ask(request + GET)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close\r\n" in answer
    assert browser.transport.sent_eof
    assert browser.requests == []
    browser.world.loop.advance(LINGER_S + 0.1)
    assert browser.transport.aborted


WORDS: dict[str, tuple[bytes, bytes]] = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request: missing required Host header"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400 Bad Request: too many Host headers"),
    "bad host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"400 Bad Request: malformed Host header"),
    "bad name": (b"GET / HTTP/1.1\r\nHost: h\r\na b: c\r\n\r\n", b"400 Bad Request: invalid header name"),
    "bad value": (b"GET / HTTP/1.1\r\nHost: h\r\na: \1\r\n\r\n", b"400 Bad Request: invalid header value"),
    "no field": (b"GET / HTTP/1.1\r\nHost: h\r\nabc\r\n\r\n", b"400 Bad Request"),
    "expectation": (b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", b""),
    "coding": (b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", b"Unsupported transfer encoding"),
}


@pytest.mark.parametrize("name", WORDS)
def test_refusals_in_words(name: str) -> None:
    """They are those of Go's server, so that nobody who looks for them in a log has to look for others."""
    request, text = WORDS[name]
    assert Browser().ask(request).partition(b"\r\n\r\n")[2] == text


def test_any_method_and_any_later_version_of_http_1() -> None:
    """What a method means is for the service to say; a minor version changes nothing (RFC 9110, section 2.5)."""
    browser = Browser()
    for line in (b"BREW /tea HTTP/1.1", b"CONNECT h:1 HTTP/1.1", b"GET / HTTP/1.9"):
        assert browser.ask(line + b"\r\nHost: h\r\n\r\n") == ok(b"ok")
    assert [(request.method, request.path) for request in browser.requests] == [
        ("BREW", "/tea"),
        ("CONNECT", ""),
        ("GET", "/"),
    ]


def test_a_large_head_is_read_once() -> None:
    """However small the pieces are that it comes in, and whatever the pieces end with."""
    parser = RequestParser(1 << 20, 100)
    head = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: " + b"y" * 60_000 + b"\r\n\r\n"
    for at in range(0, len(head), 7):
        assert parser.next_request() is None
        parser.feed(head[at : at + 7])
    request = parser.next_request()
    assert request is not None
    assert len(request.headers["a"]) == 60_000


def test_absolute_and_asterisk_targets() -> None:
    """Proxies send whole URLs (RFC 9112, section 3.2.2)."""
    browser = Browser()
    browser.ask(b"GET http://h:1/p?q HTTP/1.1\r\nHost: h\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
    assert [(request.path, request.query) for request in browser.requests] == [("/p", "q"), ("*", "")]


def test_without_a_handler() -> None:
    """A listener for gRPC alone answers 404."""
    assert Browser(http=False).ask(GET).startswith(b"HTTP/1.1 404 ")


def test_handler_that_raises() -> None:
    """A bug of a service is answered 500 and reported."""
    browser = Browser()
    assert browser.ask(b"GET /raise HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 500 ")
    assert [type(fault) for fault in browser.world.service.faults] == [ValueError]


def test_timeouts() -> None:
    """A request that is not complete in time gets 408; a connection without one is closed, later between requests."""
    slow = Browser()
    slow.ask(b"GET / HT")
    slow.world.loop.advance(LIMITS.header_timeout_s + 0.1)
    assert slow.received().startswith(b"HTTP/1.1 408 ")
    slow_body = Browser()
    slow_body.ask(GET)
    slow_body.ask(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na")
    slow_body.world.loop.advance(IDLE_TIMEOUT_S - 1)
    slow_body.ask(b"b")
    slow_body.world.loop.advance(1.1)
    assert slow_body.received().startswith(b"HTTP/1.1 408 ")
    silent = Browser()
    silent.world.loop.advance(LIMITS.header_timeout_s + 0.1)
    assert silent.transport.sent_eof
    assert silent.received() == b""
    kept = Browser()
    kept.ask(GET)
    kept.world.loop.advance(IDLE_TIMEOUT_S - 1)
    assert kept.ask(GET) == ok(b"ok")
    kept.world.loop.advance(IDLE_TIMEOUT_S + 0.1)
    assert kept.transport.sent_eof


def test_slow_services_are_waited_for() -> None:
    """No timeout runs while the service works."""
    browser = Browser()
    browser.ask(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n")
    browser.world.loop.advance(10_000)
    browser.held[0].reply(200, [("x", "y")], b"late")
    browser.world.loop.turn()
    assert browser.received() == ok(b"late")


def test_half_closed_client_gets_its_answer() -> None:
    """Some clients send a request and the end of their side together."""
    browser = Browser()
    browser.ask(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n")
    assert browser.connection.eof_received()
    browser.held[0].reply(200, [("x", "y")], b"a")
    browser.world.loop.turn()
    assert browser.received() == ok(b"a")
    assert browser.transport.sent_eof
    assert not Browser().connection.eof_received()


def test_slow_reader_is_not_read() -> None:
    """A client that does not take its answers gets no further ones."""
    browser = Browser()
    browser.connection.pause_writing()
    assert not browser.transport.is_reading()
    assert browser.ask(GET) == b""
    browser.connection.resume_writing()
    browser.world.loop.turn()
    assert browser.received() == ok(b"ok")


def test_pipelining_is_bounded() -> None:
    """While a request is answered, only so much of the next ones is read."""
    browser = Browser()
    browser.ask(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n" + GET * (READ_AHEAD_BYTES_MAX // len(GET) + 1))
    assert not browser.transport.is_reading()
    browser.held[0].reply(200, [], b"")
    browser.world.loop.turn()
    assert len(browser.requests) == READ_AHEAD_BYTES_MAX // len(GET) + 2
    assert browser.transport.is_reading()


def test_slow_reader_gets_the_last_answer() -> None:
    """A connection that is to close waits as long as the client takes some of what is left, and no longer."""
    browser = Browser()
    browser.transport.buffered_bytes = 3
    browser.ask(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    for left_bytes in (2, 1):
        browser.transport.buffered_bytes = left_bytes
        browser.world.loop.advance(STALL_S + 0.1)
    aborted = [browser.transport.aborted]
    browser.world.loop.advance(STALL_S + 0.1)
    assert [*aborted, browser.transport.aborted] == [False, True]


def test_drain_and_loss() -> None:
    """A drain waits for the answer in flight, and only for that; a lost client is told to the service."""
    idle, busy, lost = Browser(), Browser(), Browser()
    idle.connection.drain()
    assert idle.transport.sent_eof
    busy.ask(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
    busy.connection.drain()
    busy.held[0].reply(200, [("x", "y")], b"a")
    busy.world.loop.turn()
    assert busy.received() == ok(b"a")
    assert busy.transport.sent_eof
    lost.ask(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n")
    lost.connection.connection_lost(None)
    assert lost.held[0].done
    lost.held[0].reply(200, [], b"")
    lost.world.loop.turn()
    assert lost.received() == b""
    assert not lost.world.commons.connections


def test_parser_stops_after_a_fault() -> None:
    """The parser itself raises on what it cannot read."""
    parser = RequestParser(1000, 100)
    parser.feed(b"\0\r\n\r\n")
    with pytest.raises(HttpFaultError):
        parser.next_request()


@pytest.mark.parametrize("cut", [1, 2, 10, 23, 24, 30])
def test_sniffing(cut: int) -> None:
    """The preface means HTTP/2, anything else HTTP/1.1, wherever the reads end."""
    greeting = frames.PREFACE + frames.settings_frame({})
    for opening, expected in ((greeting, bytes([0, 0, 18, frames.SETTINGS])), (GET, b"HTTP/1.1 404")):
        world = World()
        transport = SwitchingTransport()
        sniffing = SniffingConnection(world.commons)
        transport.set_protocol(sniffing)
        sniffing.connection_made(transport)
        transport.deliver(opening[:cut])
        transport.deliver(opening[cut:])
        world.loop.turn()
        assert transport.written.startswith(expected)
        assert len(world.commons.connections) == 1


class SwitchingTransport(FakeTransport):
    """Hands bytes to whatever protocol is set, as asyncio does."""

    def set_protocol(self, protocol: object) -> None:
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self._protocol = protocol

    def deliver(self, chunk: bytes) -> None:
        if chunk:
            memoryview(self._protocol.get_buffer(-1))[: len(chunk)] = chunk
            self._protocol.buffer_updated(len(chunk))


def test_silent_and_superfluous_connections() -> None:
    """A client that says nothing is cut after the header timeout; one too many, or during a drain, at once."""
    world = World(Limits(connections_max=1))
    transports = [FakeTransport(), FakeTransport()]
    for transport in transports:
        SniffingConnection(world.commons).connection_made(transport)
    assert [transport.aborted for transport in transports] == [False, True]
    world.loop.advance(Limits().header_timeout_s + 0.1)
    assert [transport.aborted for transport in transports] == [True, True]
    assert not world.commons.connections

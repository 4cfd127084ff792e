"""gRPC on HTTP/2 streams: framing, deadlines, refusals in grpc-go's words, streams and their ends."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest

from net.http2 import frames
from net.http2.frames import END_HEADERS, END_STREAM, ErrorCode, frame
from net.http2.messages import STATUS_MESSAGE_BYTES_MAX, percent_encode
from net.rpc import OK, Code, HttpRequest, HttpResponder, Limits, Status
from tests.unit.net_harness import Client, World, data


def status_of(client: Client, stream_id: int = 1) -> tuple[Code, str]:
    """Return the gRPC status that came, its message still percent-encoded."""
    fields = client.outcome(stream_id)[1]
    return Code(int(fields["grpc-status"])), fields.get("grpc-message", "")


def test_reply_on_the_wire() -> None:
    """Headers, one DATA frame, trailers; no field enters the client's table."""
    client = Client()
    client.feed(client.headers(1), data(1, b"hello"))
    headers, body, trailers = client.received()
    assert (headers.kind, headers.flags, body.kind, body.flags) == (frames.HEADERS, END_HEADERS, frames.DATA, 0)
    assert body.payload == b"\0\0\0\0\x05hello"
    assert trailers[:2] == (frames.HEADERS, END_HEADERS | END_STREAM)
    assert client.fields(headers) == [(":status", "200"), ("content-type", "application/grpc")]
    assert client.fields(trailers) == [("grpc-status", "0")]
    assert not client.decoder.header_table.dynamic_entries


def test_failure_is_trailers_only() -> None:
    """A refusal is a single HEADERS frame with everything in it."""
    client = Client()
    client.feed(client.headers(1, path="Hold"), data(1, b""))
    client.service.held[0][0].fail(Status(Code.NOT_FOUND, "lease 100 % gone: ü"))
    client.world.loop.turn()
    (only,) = client.received()
    assert only.flags == END_HEADERS | END_STREAM
    assert client.outcome(1, [only])[1] == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "lease 100 %25 gone: %C3%BC",
    }


def test_percent_encoding_is_cut_between_characters_of_the_code() -> None:
    """Trailers stay small enough for clients, and a cut never leaves half of a %XX."""
    encoded = percent_encode("a" + "\n" * STATUS_MESSAGE_BYTES_MAX)
    assert STATUS_MESSAGE_BYTES_MAX - 3 < len(encoded) <= STATUS_MESSAGE_BYTES_MAX
    assert encoded[1:] == b"%0A" * (len(encoded) // 3)
    assert percent_encode("\ud800") == b"?"


REFUSALS: dict[str, tuple[list[tuple[str, str]], int, Code, str]] = {
    "unknown service": ([(":path", "/a.B/C")], 200, Code.UNIMPLEMENTED, "unknown service a.B"),
    "unknown method": ([(":path", "/test.Echo/C")], 200, Code.UNIMPLEMENTED, "unknown method C for service test.Echo"),
    "no method": ([(":path", "/test")], 200, Code.UNIMPLEMENTED, 'malformed method name: "/test"'),
    "no slash": ([(":path", "a/b")], 200, Code.UNIMPLEMENTED, 'malformed method name: "a/b"'),
    "not POST": (
        [(":method", "GET")],
        405,
        Code.INTERNAL,
        'Received a HEADERS frame with :method "GET" which should be POST',
    ),
    "timeout too short": (
        [("grpc-timeout", "S")],
        400,
        Code.INTERNAL,
        'malformed grpc-timeout: transport: timeout string is too short: "S"',
    ),
    "timeout too long": (
        [("grpc-timeout", "123456789S")],
        400,
        Code.INTERNAL,
        'malformed grpc-timeout: transport: timeout string is too long: "123456789S"',
    ),
    "timeout unit": (
        [("grpc-timeout", "12x")],
        400,
        Code.INTERNAL,
        'malformed grpc-timeout: transport: timeout unit is not recognized: "12x"',
    ),
    "timeout digits": (
        [("grpc-timeout", "-1S")],
        400,
        Code.INTERNAL,
        'malformed grpc-timeout: strconv.ParseUint: parsing "-1": invalid syntax',
    ),
    "timeout over": ([("grpc-timeout", "0n")], 200, Code.DEADLINE_EXCEEDED, "context deadline exceeded"),
    "unknown encoding": (
        [("grpc-encoding", "snappy")],
        200,
        Code.UNIMPLEMENTED,
        'grpc: Decompressor is not installed for grpc-encoding "snappy"',
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    """What names no call is refused at its headers, in grpc-go's words; the rest of the request is ignored."""
    changes, http_status, code, text = REFUSALS[name]
    client = Client()
    # Twice: the second block may be found by its bytes, and must not be taken for a valid one.
    for stream_id in (1, 3):
        client.feed(client.headers(stream_id, *changes), data(stream_id, b"x"))
        fields = client.outcome(stream_id)[1]
        assert (fields[":status"], fields["grpc-status"]) == (str(http_status), str(int(code)))
        assert fields["grpc-message"] == text
    client.feed(client.headers(5), data(5, b"x"))
    assert status_of(client, 5) == (Code.OK, "")


@pytest.mark.parametrize("content_type", ["text/html", "application/grpcweb"])
def test_refused_content_types_are_read_to_their_end(content_type: str) -> None:
    """What is no gRPC may be a browser's or curl's; they cannot take an answer while they send."""
    client = Client()
    client.feed(client.headers(1, ("content-type", content_type)))
    assert client.received() == []
    client.feed(data(1, b"x"))
    body, fields = client.outcome(1)
    assert (body, fields[":status"], fields["grpc-status"]) == (b"", "415", "3")
    assert fields["grpc-message"] == f'invalid gRPC request content-type "{content_type}"'


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;charset=utf-8"])
def test_content_subtypes(content_type: str) -> None:
    """Clients may name the codec."""
    client = Client()
    client.feed(client.headers(1, ("content-type", content_type)), data(1, b"x"))
    assert status_of(client) == (Code.OK, "")


LIMIT = Limits().receive_message_bytes_max
TOO_LARGE = b"\0" + (LIMIT + 1).to_bytes(4, "big")
BOMB = gzip.compress(bytes(LIMIT + 1))
TORN_GZIP = gzip.compress(b"hello")[:-9]


def gzipped(payload: bytes) -> bytes:
    return b"\1" + len(payload).to_bytes(4, "big") + payload


BAD_MESSAGES: dict[str, tuple[bytes, str, Code, str]] = {
    "none": (
        b"",
        "identity",
        Code.INTERNAL,
        "cardinality violation: received no request message from non-client-streaming RPC",
    ),
    "two": (
        b"\0\0\0\0\x01a\0\0\0\0\x01b",
        "identity",
        Code.INTERNAL,
        "cardinality violation: received multiple request messages for non-client-streaming RPC",
    ),
    "torn prefix": (b"\0\0\0", "identity", Code.INTERNAL, "unexpected EOF"),
    "torn message": (b"\0\0\0\0\x05abc", "identity", Code.INTERNAL, "unexpected EOF"),
    "too large": (
        TOO_LARGE,
        "identity",
        Code.RESOURCE_EXHAUSTED,
        f"grpc: received message larger than max ({LIMIT + 1} vs. {LIMIT})",
    ),
    "too large when decompressed": (
        gzipped(BOMB),
        "gzip",
        Code.RESOURCE_EXHAUSTED,
        f"grpc: received message after decompression larger than max {LIMIT}",
    ),
    "compressed without encoding": (
        gzipped(gzip.compress(b"x")),
        "identity",
        Code.INTERNAL,
        "grpc: compressed flag set with identity or empty encoding",
    ),
    "torn gzip": (
        gzipped(TORN_GZIP),
        "gzip",
        Code.INTERNAL,
        "grpc: failed to read decompressed data: unexpected EOF",
    ),
    "unknown flag": (b"\x02\0\0\0\0", "gzip", Code.INTERNAL, "grpc: received unexpected payload format 2"),
}


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, "Hold") for name in BAD_MESSAGES]
    + [(name, "Stream") for name in sorted(BAD_MESSAGES.keys() - {"none", "two"})],
)
def test_bad_messages(name: str, path: str) -> None:
    """Requests that are not exactly one message, or not what they claim, end with grpc-go's status."""
    payload, encoding, code, text = BAD_MESSAGES[name]
    client = Client()
    changes = [("grpc-encoding", encoding)] if encoding != "identity" else []
    client.feed(client.headers(1, *changes, path=path), frame(frames.DATA, END_STREAM, 1, payload))
    assert status_of(client) == (code, text)
    assert client.service.held == []
    for stream in client.service.streams:
        assert stream.told == [Status(code, text)]
    assert client.connection.buffered_bytes == 0


def test_calls_that_reach_no_method_are_told() -> None:
    """Whoever keeps a record hears of them, once each; of others it hears from the methods themselves."""
    world, told = World(), list[tuple[str, str, Status]]()
    world.commons.routes = replace(
        world.commons.routes, on_refused=lambda call, status: told.append((call.method, call.peer, status))
    )
    client = Client(world)
    client.feed(client.headers(1, path="Hold"), frame(frames.DATA, END_STREAM, 1, TOO_LARGE))
    client.feed(client.headers(3, (":path", "/a.B/C")), data(3, b"x"))
    client.feed(client.headers(5, path="Hold"), frame(frames.DATA, END_STREAM, 5, b""))
    client.feed(client.headers(7), data(7, b"fine"))
    assert [(method.rpartition("/")[2], status.code) for method, _, status in told] == [
        ("Hold", Code.RESOURCE_EXHAUSTED),
        ("C", Code.UNIMPLEMENTED),
        ("Hold", Code.INTERNAL),
    ]
    assert {peer for _, peer, _ in told} == {"192.0.2.1:4321"}


def test_gzip() -> None:
    """Both whole requests and messages in a stream are decompressed; uncompressed ones may stand between them."""
    client = Client()
    payload = gzipped(gzip.compress(b"hello" * 1000)) + b"\0\0\0\0\x01x"
    client.feed(client.headers(1, ("grpc-encoding", "gzip"), path="Stream"), frame(frames.DATA, 0, 1, payload))
    assert client.service.streams[0].told == [b"hello" * 1000, b"x"]
    client.feed(
        client.headers(3, ("grpc-encoding", "gzip")), frame(frames.DATA, END_STREAM, 3, gzipped(gzip.compress(b"y")))
    )
    assert client.outcome(3)[0][5:] == b"y"


@pytest.mark.parametrize("cut", range(1, 12))
def test_request_in_pieces(cut: int) -> None:
    """DATA frames may cut a message anywhere, and the end may come alone or as trailers."""
    body = b"\0\0\0\0\x07abcdefg"
    for stream_id, last in (
        (1, frame(frames.DATA, END_STREAM, 1, body[cut:])),
        (3, frame(frames.DATA, 0, 3, body[cut:]) + frame(frames.DATA, END_STREAM, 3, b"")),
        (5, frame(frames.DATA, 0, 5, body[cut:]) + frame(frames.HEADERS, END_HEADERS | END_STREAM, 5, b"")),
    ):
        client = Client()
        client.feed(client.headers(stream_id), frame(frames.DATA, 0, stream_id, body[:cut]))
        assert client.received() == []
        client.feed(last)
        assert client.outcome(stream_id)[0] == body


def test_unary_waits_for_the_end() -> None:
    """Until the client has ended its side a second message may follow, so the first is not handed over."""
    client = Client()
    client.feed(client.headers(1, path="Hold"), data(1, b"x", end=False))
    assert client.service.held == []
    client.feed(frame(frames.DATA, END_STREAM, 1, b""))
    assert client.service.held[0][1] == b"x"


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("2S", 2), ("2M", 120), ("1H", 3600), ("300m", 0.3), ("300000u", 0.3)]
)
def test_deadline(timeout: str, seconds: float) -> None:
    """A call ends at its deadline, answered or not; a late answer is ignored."""
    client = Client()
    for stream_id in (1, 3):  # new, then found by what stands around the timeout
        client.feed(client.headers(stream_id, ("grpc-timeout", timeout), path="Hold"), data(stream_id, b"x"))
        call = client.service.held[-1][0]
        assert call.deadline_s is not None
        assert call.deadline_s - client.world.loop.now_s == pytest.approx(seconds)
        client.world.loop.advance(seconds - 0.1)
        assert not call.done
        client.world.loop.advance(0.2)
        assert status_of(client, stream_id) == (Code.DEADLINE_EXCEEDED, "context deadline exceeded")
        call.reply(b"late")
        client.world.loop.turn()
        assert client.received() == []


def test_deadline_of_an_unfinished_request() -> None:
    """Deadlines hold from the headers on, whether or not the message has come, for unary calls and streams."""
    client = Client()
    for stream_id, path in ((1, "Echo"), (3, "Echo"), (5, "Stream")):
        client.feed(client.headers(stream_id, ("grpc-timeout", "1S"), path=path))
        client.world.loop.advance(1.1)
        assert status_of(client, stream_id)[0] == Code.DEADLINE_EXCEEDED
    assert client.service.streams[0].told == [Status(Code.DEADLINE_EXCEEDED, "context deadline exceeded")]


def test_answered_calls_leave_the_wheel() -> None:
    """A client's five-second timeout must not keep its call in memory for five seconds."""
    client = Client()
    for number in range(10):
        stream_id = 2 * number + 1
        client.feed(client.headers(stream_id, ("grpc-timeout", "5S"), path="Hold"), data(stream_id, b"x"))
        call = client.service.held[-1][0]
        bucket = getattr(call, "bucket")  # noqa: B009  # not part of the Call interface
        assert call in bucket
        call.reply(b"")
        assert call not in bucket


def test_metadata_is_what_the_client_sent() -> None:
    """Protocol fields are left out, repeated ones kept in order, bytes that are no UTF-8 kept as surrogates."""
    client = Client()
    block = client.headers(1, ("token", "t"), path="Hold")[9:] + b"\x00\x05token\x01u" + b"\x00\x01a\x01\xff"
    client.feed(frame(frames.HEADERS, END_HEADERS, 1, block), data(1, b""))
    call = client.service.held[0][0]
    assert call.metadata == {
        ":authority": ["localhost"],
        "content-type": ["application/grpc"],
        "token": ["t", "u"],
        "a": ["\udcff"],
    }
    assert (call.method, call.peer, call.common_name) == ("/test.Echo/Hold", "192.0.2.1:4321", None)


def test_stream_both_ways() -> None:
    """Messages come one by one and in order; headers go with the first answer; the end is told last and once."""
    client = Client()
    client.feed(client.headers(1, path="Stream"), frame(frames.DATA, 0, 1, b"\0\0\0\0\x01a\0\0\0\0\x01b\0\0"))
    recorder = client.service.streams[0]
    assert recorder.told == [b"a", b"b"]
    recorder.stream.send(b"1")
    recorder.stream.send(b"2")
    client.world.loop.turn()
    assert [received.kind for received in client.received()] == [frames.HEADERS, frames.DATA, frames.DATA]
    client.feed(frame(frames.DATA, END_STREAM, 1, b"\0\0\x01c"))
    assert recorder.told[2:] == [b"c", "half closed"]
    recorder.stream.finish(Status(Code.ABORTED, "enough"))
    assert recorder.told[4:] == []  # not from within the service's own call
    client.world.loop.turn()
    assert recorder.told[4:] == [Status(Code.ABORTED, "enough")]
    (trailers,) = client.received()
    assert client.fields(trailers) == [("grpc-status", "10"), ("grpc-message", "enough")]
    recorder.stream.send(b"ignored")
    recorder.stream.finish()
    client.world.loop.turn()
    assert client.received() == []


def test_finish_before_the_client_has_ended() -> None:
    """The answer is complete, so the client is told to stop sending, without an error (RFC 9113, section 8.1)."""
    client = Client()
    client.feed(client.headers(1, path="Stream"))
    client.service.streams[0].stream.finish()
    client.world.loop.turn()
    trailers, reset = client.received()
    assert trailers.flags & END_STREAM
    assert (reset.kind, reset.payload) == (frames.RST_STREAM, bytes(4))
    client.feed(data(1, b"on its way"))
    assert client.received() == []
    assert client.service.streams[0].told == [OK]


def test_finish_waits_for_what_is_queued() -> None:
    """Status and end come behind the last byte; a deadline or an abort does not wait."""
    client = Client()
    client.feed(frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 3}), client.headers(1, path="Stream"))
    recorder = client.service.streams[0]
    recorder.stream.send(b"abc")
    recorder.stream.finish()
    client.world.loop.turn()
    assert recorder.told == []
    client.received()
    client.feed(frames.window_update_frame(1, 5))
    received = client.received()
    assert client.outcome(1, received) == (b"\0\0\0\x03abc"[2:], {"grpc-status": "0"})
    assert recorder.told == [OK]


def test_paused_stream() -> None:
    """While paused nothing is delivered, not even the half close, and the window is not opened; then all of it."""
    client = Client()
    client.feed(client.headers(1, path="Stream"))
    recorder = client.service.streams[0]
    recorder.stream.pause_reading()
    client.feed(data(1, b"a", end=False), data(1, b"b"))
    assert recorder.told == []
    assert client.connection.buffered_bytes == 12
    recorder.stream.resume_reading()
    assert recorder.told == []
    client.world.loop.turn()
    assert recorder.told == [b"a", b"b", "half closed"]
    assert client.connection.buffered_bytes == 0


def test_cancel() -> None:
    """RST_STREAM of the client ends unary calls and streams, and drops what they had queued."""
    client = Client()
    client.feed(frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 0}))
    client.feed(client.headers(1, path="Hold"), data(1, b""), client.headers(3, path="Stream"))
    recorder = client.service.streams[0]
    recorder.stream.send(b"queued")
    assert client.connection.queued_bytes == 11
    client.feed(frames.reset_frame(1, ErrorCode.CANCEL), frames.reset_frame(3, ErrorCode.CANCEL))
    assert client.service.held[0][0].done
    assert recorder.told == [Status(Code.CANCELLED, "context canceled")]
    assert client.connection.queued_bytes == 0
    assert client.connection.streams == {}


def test_handler_that_raises() -> None:
    """A bug of a service is answered INTERNAL without its details, and reported."""
    client = Client()
    client.feed(client.headers(1, path="Raise"), data(1, b"secret"))
    assert status_of(client) == (Code.INTERNAL, "internal error")
    assert [type(fault) for fault in client.service.faults] == [ValueError]


def answer(request: HttpRequest, responder: HttpResponder) -> None:
    """Answer /chunks in chunks, anything else with a description."""
    if request.path == "/chunks":
        responder.start(200, [("content-type", "text/plain")])
        responder.write(b"one")
        responder.write(b"two")
        responder.end()
        return
    text = f"{request.method} {request.path} {request.query} {request.headers['host']} {request.body.decode()}"
    responder.reply(202, [("Content-Type", "text/plain")], text.encode())


def plain(client: Client, stream_id: int, method: str, path: str, body: bytes = b"") -> bytes:
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "h"), ("a", "b")]
    head = frame(frames.HEADERS, END_HEADERS | (0 if body else END_STREAM), stream_id, client.encoder.encode(fields))
    return head + frame(frames.DATA, END_STREAM, stream_id, body) if body else head


def test_plain_http() -> None:
    """What is not gRPC goes to the HTTP handler, over the same connection."""
    client = Client(World(http=answer))
    client.feed(plain(client, 1, "PUT", "/a%20b?c=%20", b"body"))
    assert client.outcome(1) == (
        b"PUT /a b c=%20 h body",
        {":status": "202", "content-type": "text/plain", "content-length": "21"},
    )
    client.feed(plain(client, 3, "HEAD", "/x"))
    assert client.outcome(3)[0] == b""
    client.feed(plain(client, 5, "GET", "/chunks"))
    assert client.outcome(5) == (b"onetwo", {":status": "200", "content-type": "text/plain"})
    client.feed(client.headers(7), data(7, b"x"))
    assert status_of(client, 7) == (Code.OK, "")


def test_plain_http_body_limit() -> None:
    """A body above the limit is answered 413 before it is complete."""
    client = Client(World(Limits(http_body_bytes_max=10), http=answer))
    client.feed(plain(client, 1, "PUT", "/", bytes(11)))
    assert client.outcome(1)[1][":status"] == "413"
    assert client.connection.buffered_bytes == 0

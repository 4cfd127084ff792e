"""The HTTP/2 connection: every rule of RFC 9113 that a peer can break, and what keeps a peer from doing harm."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest

from net.http2 import frames, guard
from net.http2.dispatch import BUFFERED_BYTES_MAX, CONNECTION_WINDOW_BYTES
from net.http2.frames import END_HEADERS, END_STREAM, ErrorCode, frame
from net.http2.life import RESET_IDS_MAX
from net.http2.sending import QUEUED_BYTES_MAX, TURN_BYTES_MAX
from net.http2.stream import STREAM_WINDOW_BYTES
from net.rpc import Call, Limits, Status
from net.transports import LINGER_S
from tests.unit.net_harness import Client, Frame, World, data

PREFACE = frames.PREFACE
SETTINGS = frames.settings_frame({})


def uint32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def test_greeting() -> None:
    """The server's SETTINGS come first; they shut the dynamic table and open a large window."""
    client = Client(greet=False)
    client.feed(PREFACE + SETTINGS)
    first, second, third = client.received()
    assert first.kind == frames.SETTINGS
    assert (frames.SETTINGS_HEADER_TABLE_SIZE, 0) in frames.parse_settings(first.payload)
    assert second == (frames.WINDOW_UPDATE, 0, 0, uint32(CONNECTION_WINDOW_BYTES - frames.WINDOW_BYTES_DEFAULT))
    assert third == (frames.SETTINGS, frames.ACK, 0, b"")


def test_bytes_may_come_one_by_one() -> None:
    """Reads end anywhere: within the preface, a frame's header, its payload."""
    client = Client(greet=False)
    for byte in PREFACE + SETTINGS + client.headers(1) + data(1, b"hello"):
        client.feed(bytes([byte]))
    body, fields = client.outcome(1)
    assert (body[5:], fields["grpc-status"]) == (b"hello", "0")


def test_a_connection_that_has_ended_is_gone_at_once() -> None:
    """A thousand that wait for the garbage collector are freed by it in one go: a stall of a twentieth of a second."""
    client = Client()
    client.feed(client.headers(1) + data(1, b"hello"))
    world, held = (
        client.world,
        weakref.ref(client.transport),
    )  # by the connection, to which, compiled, nothing refers weakly
    gc.disable()
    try:
        client.connection.connection_lost(None)
        del client
        world.loop.turn()
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"\x00"])
def test_bad_preface(first: bytes) -> None:
    """Whoever does not begin as section 3.4 says is sent away."""
    client = Client(greet=False)
    client.feed(first)
    assert client.transport.sent_eof


def test_a_large_answer_leaves_in_several_turns() -> None:
    """A client that reads as fast as it is sent to must not keep the loop from everybody else."""
    client = Client()
    room = 8 * TURN_BYTES_MAX
    client.feed(
        frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: room}),
        frames.window_update_frame(0, room),
        client.headers(1, path="Hold"),
        data(1, b""),
    )
    client.received()
    [(call, _)] = client.service.held
    message = bytes(4 * TURN_BYTES_MAX)
    before = len(client.transport.written)
    call.reply(message)
    sent_bytes = []
    while client.world.loop.soon:
        callbacks, client.world.loop.soon = client.world.loop.soon, []
        for callback in callbacks:
            callback()
        sent_bytes.append(len(client.transport.written) - before)
        before = len(client.transport.written)
    assert 3 < len(sent_bytes) < 10
    assert max(sent_bytes) < 1.5 * TURN_BYTES_MAX
    body, fields = client.outcome(1)
    assert body == b"\0" + uint32(len(message)) + message
    assert fields["grpc-status"] == "0"


def test_one_write_per_read() -> None:
    """All answers to one read leave together; a system call per answer would cost more than the answer."""
    client = Client()
    writes = client.transport.writes
    client.feed(*(client.headers(number) + data(number, b"x") for number in range(1, 201, 2)))
    assert client.transport.writes == writes + 1
    assert sum(1 for received in client.received() if received.kind == frames.DATA) == 100


def test_batch_end_comes_once_after_all_messages() -> None:
    """Services collect a batch and send it on at its end, once per turn of the loop."""
    client = Client()
    before = client.service.batches
    pieces = [client.headers(number, path="Hold") + data(number, b"x") for number in range(1, 21, 2)]
    client.connection.data_received(b"".join(pieces[:5]))
    client.connection.data_received(b"".join(pieces[5:]))
    assert (len(client.service.held), client.service.batches - before) == (10, 0)
    client.world.loop.turn()
    assert client.service.batches - before == 1


@pytest.mark.parametrize("path", ["Echo", "Raise", "Hold"])
def test_while_calls_are_handed_over_the_end_of_the_batch_is_sure_to_come(path: str) -> None:
    """Services wait for it instead of asking the loop for a turn of their own, so a batch without an end would hang."""
    client = Client()
    commons, before = client.world.commons, client.service.batches
    seen: list[bool] = []
    unary = dict(commons.routes.unary)
    method = unary[f"/test.Echo/{path}"]

    def looking(call: Call, message: bytes) -> None:
        seen.append(commons.delivering)
        method(call, message)

    unary[f"/test.Echo/{path}"] = looking
    commons.routes = replace(commons.routes, unary=unary)
    client.connection.data_received(client.headers(1, path=path) + data(1, b"x"))
    assert (seen, commons.delivering) == ([True], False)
    client.world.loop.turn()
    assert client.service.batches - before == 1


CONNECTION_FAULTS: dict[str, tuple[bytes, ErrorCode]] = {
    "DATA on stream 0": (frame(frames.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(frames.DATA, 0, 5, b"x"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on stream 0": (frame(frames.HEADERS, END_HEADERS, 0, b"\x82"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on an even stream": (frame(frames.HEADERS, END_HEADERS, 2, b"\x82"), ErrorCode.PROTOCOL_ERROR),
    "HEADERS that do not decode": (frame(frames.HEADERS, END_HEADERS, 5, b"\xff"), ErrorCode.COMPRESSION_ERROR),
    "padding larger than HEADERS": (
        frame(frames.HEADERS, END_HEADERS | frames.PADDED, 5, b"\x09\x82"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "padding larger than DATA": (frame(frames.DATA, frames.PADDED, 3, b"\x02x"), ErrorCode.PROTOCOL_ERROR),
    "DATA without its padding length": (frame(frames.DATA, frames.PADDED, 3, b""), ErrorCode.FRAME_SIZE_ERROR),
    "PRIORITY on stream 0": (frame(frames.PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (frame(frames.RST_STREAM, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frame(frames.RST_STREAM, 0, 5, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM of a wrong length": (frame(frames.RST_STREAM, 0, 3, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (frame(frames.SETTINGS, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS of a wrong length": (frame(frames.SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS acknowledgement with payload": (
        frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "ENABLE_PUSH 2": (frames.settings_frame({2: 2}), ErrorCode.PROTOCOL_ERROR),
    "INITIAL_WINDOW_SIZE 2^31": (frames.settings_frame({4: 1 << 31}), ErrorCode.FLOW_CONTROL_ERROR),
    "MAX_FRAME_SIZE too small": (frames.settings_frame({5: 16_383}), ErrorCode.PROTOCOL_ERROR),
    "MAX_FRAME_SIZE too large": (frames.settings_frame({5: 1 << 24}), ErrorCode.PROTOCOL_ERROR),
    "PUSH_PROMISE": (frame(frames.PUSH_PROMISE, 0, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "PING on a stream": (frame(frames.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "PING of a wrong length": (frame(frames.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame(frames.GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY too short": (frame(frames.GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of a wrong length": (frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE by nothing": (frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE on an idle stream": (frame(frames.WINDOW_UPDATE, 0, 5, uint32(1)), ErrorCode.PROTOCOL_ERROR),
    "connection window overflow": (
        frame(frames.WINDOW_UPDATE, 0, 0, uint32(frames.WINDOW_BYTES_MAX)),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "CONTINUATION of nothing": (frame(frames.CONTINUATION, END_HEADERS, 3, b""), ErrorCode.PROTOCOL_ERROR),
    "block interrupted": (
        frame(frames.HEADERS, 0, 5, b"\x82") + frame(frames.PING, 0, 0, bytes(8)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "block interrupted by HEADERS": (
        frame(frames.HEADERS, 0, 5, b"\x82") + frame(frames.HEADERS, END_HEADERS, 7, b"\x82"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "block interrupted by DATA": (frame(frames.HEADERS, 0, 5, b"\x82") + data(3, b""), ErrorCode.PROTOCOL_ERROR),
    "block continued on another stream": (
        frame(frames.HEADERS, 0, 5, b"\x82") + frame(frames.CONTINUATION, END_HEADERS, 7, b""),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "frame larger than MAX_FRAME_SIZE": (frame(frames.DATA, 0, 3, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
    "unknown frame larger than MAX_FRAME_SIZE": (frame(99, 0, 3, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("name", CONNECTION_FAULTS)
def test_connection_faults(name: str) -> None:
    """A broken rule of the connection is answered with GOAWAY, after the answers that were due; then it ends."""
    piece, code = CONNECTION_FAULTS[name]
    client = Client()
    client.feed(client.headers(1), data(1, b"x"), client.headers(3, path="Hold"), piece)
    received = client.received()
    assert client.outcome(1, received)[1]["grpc-status"] == "0"
    assert received[-1].kind == frames.GOAWAY
    assert int.from_bytes(received[-1].payload[4:8], "big") == code
    assert client.transport.sent_eof
    client.feed(client.headers(9), data(9, b"x"))
    assert client.received() == []
    client.world.loop.advance(LINGER_S + 0.1)
    assert client.transport.aborted


def test_first_frame_must_be_settings() -> None:
    """Section 3.4."""
    client = Client(greet=False)
    client.feed(PREFACE, frame(frames.PING, 0, 0, bytes(8)))
    goaway = client.goaway()
    assert goaway is not None
    assert goaway[0] == ErrorCode.PROTOCOL_ERROR


STREAM_FAULTS: dict[str, tuple[list[bytes], ErrorCode]] = {
    "PRIORITY of a wrong length": ([frame(frames.PRIORITY, 0, 1, bytes(4))], ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE by nothing": ([frame(frames.WINDOW_UPDATE, 0, 1, bytes(4))], ErrorCode.PROTOCOL_ERROR),
    "stream window overflow": (
        [frame(frames.WINDOW_UPDATE, 0, 1, uint32(frames.WINDOW_BYTES_MAX))],
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "DATA after the end": ([data(1, b""), data(1, b"")], ErrorCode.STREAM_CLOSED),
    "HEADERS after the end": (
        [data(1, b""), frame(frames.HEADERS, END_HEADERS | END_STREAM, 1, b"")],
        ErrorCode.STREAM_CLOSED,
    ),
    "trailers without the end": ([frame(frames.HEADERS, END_HEADERS, 1, b"")], ErrorCode.PROTOCOL_ERROR),
    "pseudo field in trailers": (
        [frame(frames.HEADERS, END_HEADERS | END_STREAM, 1, b"\x82")],
        ErrorCode.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_stream_faults(name: str) -> None:
    """A broken rule of one stream resets that stream, tells its call, and leaves the others alone."""
    pieces, code = STREAM_FAULTS[name]
    client = Client()
    client.feed(client.headers(1, path="Stream"), *pieces)
    assert client.reset_code(1) == code
    assert isinstance(client.service.streams[0].told[-1], Status)
    client.feed(client.headers(3), data(3, b"x"))
    assert client.outcome(3)[1]["grpc-status"] == "0"


MALFORMED: dict[str, list[tuple[str, str]]] = {
    "upper case": [("Token", "x")],
    "space in a name": [("a b", "x")],
    "empty name": [("", "x")],
    "line feed in a value": [("a", "x\ny")],
    "space around a value": [("a", " x")],
    "connection": [("connection", "close")],
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "te other than trailers": [("te", "gzip")],
    "unknown pseudo field": [(":other", "x")],
    "pseudo field of a response": [(":status", "200")],
    "empty path": [(":path", "")],
    "CONNECT": [(":method", "CONNECT")],
    "content-length that is none": [("content-length", "-1")],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests(name: str) -> None:
    """Section 8.1.1: a malformed request is a stream error PROTOCOL_ERROR."""
    client = Client()
    client.feed(client.headers(1, *MALFORMED[name]))
    assert client.reset_code(1) == ErrorCode.PROTOCOL_ERROR
    client.feed(client.headers(3), data(3, b"x"))
    assert client.outcome(3)[1]["grpc-status"] == "0"


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "POST"), (":path", "/"), ("a", "b")],
        [(":method", "POST"), (":scheme", "http"), ("a", "b"), (":path", "/")],
        [(":method", "POST"), (":method", "POST"), (":scheme", "http"), (":path", "/")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("host", "a"), ("host", "b")],
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), ("content-length", "1"), ("content-length", "2")],
        [],
    ],
)
def test_pseudo_fields_missing_repeated_or_late(fields: list[tuple[str, str]]) -> None:
    """Section 8.3."""
    client = Client()
    client.feed(frame(frames.HEADERS, END_HEADERS, 1, client.encoder.encode(fields)))
    assert client.reset_code(1) == ErrorCode.PROTOCOL_ERROR


def test_stream_ids() -> None:
    """A stream that is closed stays closed (5.1); one that was skipped cannot be opened any more (5.1.1)."""
    reused = Client()
    reused.feed(reused.headers(1), data(1, b""), reused.headers(1))
    goaway = reused.goaway()
    assert goaway is not None
    assert goaway[:2] == (ErrorCode.STREAM_CLOSED, 1)
    skipped = Client()
    skipped.feed(skipped.headers(5), data(5, b""), skipped.headers(3))
    goaway = skipped.goaway()
    assert goaway is not None
    assert goaway[:2] == (ErrorCode.PROTOCOL_ERROR, 5)


def test_late_frames_of_a_stream_that_we_reset_are_ignored() -> None:
    """The client may have sent them before it saw the RST_STREAM (section 5.1)."""
    client = Client()
    client.feed(client.headers(1, ("te", "gzip")), data(1, b"x", end=False), client.headers(1, flags=5))
    kinds = [received.kind for received in client.received()]
    assert kinds == [frames.RST_STREAM]
    client.feed(frame(frames.RST_STREAM, 0, 1, bytes(4)), frame(frames.WINDOW_UPDATE, 0, 1, uint32(5)))
    assert client.received() == []


def test_padding_priority_and_reserved_bits() -> None:
    """Parts of frames that mean nothing to us are skipped, wherever they are allowed."""
    client = Client()
    block = client.headers(1)[9:]
    padded = b"\x03" + bytes(5) + block + b"\0\0\0"
    flags = END_HEADERS | frames.PADDED | frames.PRIORITIZED
    message = b"\x02\0\0\0\0\x01x\0\0"
    client.feed(
        frame(frames.PRIORITY, 0, 7, bytes(5)),
        frame(0x42, 0xFF, 9, b"unknown"),
        frame(frames.HEADERS, flags, 1 | 1 << 31, padded),
        frame(frames.DATA, frames.PADDED | END_STREAM, 1 | 1 << 31, message),
    )
    assert client.outcome(1)[0][5:] == b"x"


def test_continuation() -> None:
    """A block may be cut anywhere, also into empty pieces; END_STREAM stays with the HEADERS frame."""
    client = Client()
    block = client.headers(1)[9:]
    pieces = [block[:1], b"", block[1:7], block[7:]]
    client.feed(frame(frames.HEADERS, END_STREAM, 1, pieces[0]))
    for piece in pieces[1:-1]:
        client.feed(frame(frames.CONTINUATION, 0, 1, piece))
    client.feed(frame(frames.CONTINUATION, END_HEADERS, 1, pieces[-1]))
    assert client.outcome(1)[1]["grpc-status"] == "13"  # ended without a message


def test_client_that_fills_the_table_before_it_knows_better() -> None:
    """Blocks that race our SETTINGS use the dynamic table; they mean what they say, remembered or not."""
    client = Client(obedient=False)
    for number in range(1, 41, 2):
        changes = [("grpc-timeout", f"{number}S")] if number % 3 else []
        client.feed(client.headers(number, *changes, path="Hold"), data(number, b"%d" % number))
    assert [message for _, message in client.service.held] == [b"%d" % number for number in range(1, 41, 2)]
    deadlines = [call.deadline_s for call, _ in client.service.held]
    assert deadlines == [client.world.loop.now_s + number if number % 3 else None for number in range(1, 41, 2)]


def test_content_length_must_agree() -> None:
    """Section 8.1.1, on the hot path as well as off it."""
    client = Client()
    for stream_id, length, pieces in (
        (1, "7", [data(1, b"x")]),
        (3, "7", [data(3, b"x")]),
        (5, "5", [data(5, b"x")]),
        (7, "7", [data(7, b"x", end=False), frame(frames.DATA, END_STREAM, 7, b"")]),
    ):
        client.feed(client.headers(stream_id, ("content-length", length)), *pieces)
        assert client.reset_code(stream_id) == ErrorCode.PROTOCOL_ERROR
    client.feed(client.headers(9, ("content-length", "6")), data(9, b"x"))
    assert client.outcome(9)[1]["grpc-status"] == "0"


def test_answers_wait_for_the_windows() -> None:
    """Sends keep within both windows and within MAX_FRAME_SIZE, and go on as they open."""
    client = Client()
    client.feed(frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 10}))
    client.feed(client.headers(1), *_in_pieces(1, bytes(40_000)))
    sent = [received for received in client.received() if received.kind == frames.DATA]
    assert [len(received.payload) for received in sent] == [10]
    client.feed(frames.window_update_frame(1, 5))
    assert [len(received.payload) for received in client.received()] == [5]
    client.feed(frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 100_000}))
    received = client.received()
    sizes = [len(answer.payload) for answer in received if answer.kind == frames.DATA]
    assert sum(sizes) == 40_005 - 15
    assert max(sizes) <= frames.PAYLOAD_BYTES_DEFAULT
    assert received[-1].flags & END_STREAM


def test_settings_may_make_windows_negative() -> None:
    """Section 6.9.2: a smaller INITIAL_WINDOW_SIZE takes back what was granted; that has to be made up first."""
    client = Client()
    client.feed(client.headers(1, path="Stream"))
    stream = client.service.streams[0].stream
    stream.send(bytes(995))
    client.feed(frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 0}))
    client.received()
    stream.send(bytes(15))
    client.feed(frames.window_update_frame(1, 1000))
    assert client.received() == []
    assert stream.unsent_bytes == 20
    client.feed(frames.window_update_frame(1, 7))
    assert [len(received.payload) for received in client.received()] == [7]
    client.feed(frames.window_update_frame(1, 50))
    assert [len(received.payload) for received in client.received()] == [13]
    assert client.service.streams[0].told == ["drained"]


def test_connection_window_is_shared_fairly() -> None:
    """Streams that wait for the connection's window take turns, frame by frame."""
    client = Client()
    client.feed(frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 1 << 30}))
    for stream_id in (1, 3, 5):
        client.feed(client.headers(stream_id, path="Stream"))
        client.service.streams[-1].stream.send(bytes(200_000))
    client.world.loop.turn()
    client.received()
    client.feed(frames.window_update_frame(0, 9 * frames.PAYLOAD_BYTES_DEFAULT))
    sent: dict[int, int] = {}
    for received in client.received():
        sent[received.stream_id] = sent.get(received.stream_id, 0) + len(received.payload)
    assert len(sent) == 3
    assert max(sent.values()) - min(sent.values()) <= frames.PAYLOAD_BYTES_DEFAULT


def test_large_frames_if_the_client_takes_them() -> None:
    """MAX_FRAME_SIZE of the peer is used, and a large answer then needs few frames."""
    client = Client()
    client.feed(frames.settings_frame({4: 1 << 30, 5: 1 << 20}), frames.window_update_frame(0, 1 << 30))
    client.received()
    client.feed(client.headers(1), *_in_pieces(1, bytes(500_000)))
    assert [len(received.payload) for received in client.received() if received.kind == frames.DATA] == [500_005]


def _in_pieces(stream_id: int, message: bytes) -> list[bytes]:
    body = b"\0" + uint32(len(message)) + message
    pieces = [body[start : start + 16_384] for start in range(0, len(body), 16_384)]
    ended = [frame(frames.DATA, 0, stream_id, piece) for piece in pieces[:-1]]
    return [*ended, frame(frames.DATA, END_STREAM, stream_id, pieces[-1])]


def test_receive_windows_are_opened_again() -> None:
    """A client that keeps to the windows can send for ever; the connection's window covers closed streams as well."""
    client = Client()
    window = CONNECTION_WINDOW_BYTES
    streams = {}
    for number in range(40):
        stream_id = 2 * number + 1
        pieces = [client.headers(stream_id), *_in_pieces(stream_id, bytes(1_500_000))]
        streams[stream_id] = STREAM_WINDOW_BYTES
        for piece in pieces:
            if piece[3] == frames.DATA:
                window -= len(piece) - 9
                streams[stream_id] -= len(piece) - 9
            assert window >= 0
            assert streams[stream_id] >= 0
            client.feed(piece)
            for received in client.received():
                if received.kind == frames.WINDOW_UPDATE and received.stream_id == 0:
                    window += frames.parse_uint31(received.payload)
                elif received.kind == frames.WINDOW_UPDATE:
                    streams[received.stream_id] += frames.parse_uint31(received.payload)
    assert window > 0


def test_client_that_exceeds_the_stream_window() -> None:
    """Section 6.9.1: a stream error, for a handler that does not read."""
    client = Client()
    client.feed(client.headers(1, path="Stream"))
    client.service.streams[0].stream.pause_reading()
    for _ in range(STREAM_WINDOW_BYTES // 16_384):
        client.feed(frame(frames.DATA, 0, 1, bytes(16_384)))
    assert client.received() == []
    client.feed(frame(frames.DATA, 0, 1, b"x"))
    assert client.reset_code(1) == ErrorCode.FLOW_CONTROL_ERROR


def test_client_that_exceeds_the_connection_window() -> None:
    """Memory for what is not consumed is bounded: above it the window stays shut, and overrunning it is a fault."""
    client = Client()
    count = (BUFFERED_BYTES_MAX + 2 * CONNECTION_WINDOW_BYTES) // STREAM_WINDOW_BYTES + 2
    for number in range(count):
        stream_id = 2 * number + 1
        client.feed(client.headers(stream_id, path="Stream"))
        client.service.streams[-1].stream.pause_reading()
        for _ in range(STREAM_WINDOW_BYTES // 16_384):
            client.connection.data_received(frame(frames.DATA, 0, stream_id, bytes(16_384)))
        if client.transport.sent_eof:
            break
    goaway = client.goaway()
    assert goaway is not None
    assert goaway[0] == ErrorCode.FLOW_CONTROL_ERROR


def test_concurrent_streams_limit() -> None:
    """Above SETTINGS_MAX_CONCURRENT_STREAMS a stream is refused, which clients may repeat elsewhere."""
    client = Client(limits=Limits(concurrent_streams_max=2))
    for stream_id in (1, 3, 5):
        client.feed(client.headers(stream_id, path="Hold"), data(stream_id, b"x"))
    assert client.reset_code(5) == ErrorCode.REFUSED_STREAM
    client.service.held[0][0].reply(b"")
    client.feed(client.headers(7), data(7, b"x"))
    assert client.outcome(7)[1]["grpc-status"] == "0"


def test_rapid_reset() -> None:
    """CVE-2023-44487: opening and resetting streams without end exhausts the patience, not the server."""
    client = Client()
    for number in range(2 * guard.PATIENCE_MAX):
        stream_id = 2 * number + 1
        client.feed(client.headers(stream_id, path="Hold"), data(stream_id, b""), frames.reset_frame(stream_id, 8))
        if client.transport.sent_eof:
            break
    goaway = client.goaway()
    assert goaway is not None
    assert goaway[0] == ErrorCode.ENHANCE_YOUR_CALM
    assert guard.PATIENCE_MAX - 100 < number <= guard.PATIENCE_MAX
    assert all(call.done for call, _ in client.service.held)


def test_mass_cancel_is_no_attack() -> None:
    """A client that gives up thousands of calls at once, every now and then, keeps its connection."""
    client = Client()
    next_id = 1
    for _ in range(3):
        for stream_id in range(next_id, next_id + 6000, 2):
            client.feed(client.headers(stream_id, path="Hold"), data(stream_id, b""))
        for stream_id in range(next_id, next_id + 6000, 2):
            client.feed(frames.reset_frame(stream_id, 8))
        next_id += 6000
        client.world.loop.advance(30)
    assert client.goaway() is None


FLOODS: dict[str, bytes] = {
    "SETTINGS": SETTINGS,
    "SETTINGS acknowledgements": frames.SETTINGS_ACK,
    "PRIORITY": frame(frames.PRIORITY, 0, 1, bytes(5)),
    "empty DATA": frame(frames.DATA, 0, 1, b""),
    "padding alone": frame(frames.DATA, frames.PADDED, 1, b"\x03\0\0\0"),
    "PING acknowledgements": frame(frames.PING, frames.ACK, 0, bytes(8)),
    "GOAWAY": frames.goaway_frame(0, 0, ""),
    "unknown frames": frame(0x55, 0, 0, b""),
    "DATA on a closed stream": frame(frames.DATA, 0, 3, b"x"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(name: str) -> None:
    """Frames that cost us and bring nothing may come now and then, but not without end."""
    client = Client()
    client.feed(client.headers(1, path="Stream"), client.headers(3), data(3, b""))
    for _ in range(guard.PATIENCE_MAX // 100 + 2):
        client.connection.data_received(FLOODS[name] * 100)
    goaway = client.goaway()
    assert goaway is not None
    assert goaway[0] in {ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.FLOW_CONTROL_ERROR}


def test_settings_cost_more_with_many_streams() -> None:
    """Each change of the window goes through all streams: with thousands open, a few dozen changes are too many."""
    client = Client()
    count = 4000
    client.feed(*(client.headers(2 * number + 1, path="Stream") for number in range(count)))
    change = frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 1})
    allowed = guard.PATIENCE_MAX // (guard.SETTINGS_COST + count // guard.STREAMS_PER_SETTINGS_COST)
    client.feed(change * (allowed - 1))
    assert client.goaway() is None
    client.feed(change * 2)
    goaway = client.goaway()
    assert goaway is not None
    assert goaway[0] == ErrorCode.ENHANCE_YOUR_CALM


def test_continuation_flood() -> None:
    """A block without end is cut off at twice the header list's limit."""
    client = Client()
    client.feed(frame(frames.HEADERS, 0, 1, b""))
    for _ in range(2 * Limits().header_list_bytes_max // 16_000 + 1):
        client.feed(frame(frames.CONTINUATION, 0, 1, bytes(16_000)))
    goaway = client.goaway()
    assert goaway is not None
    assert goaway[0] == ErrorCode.ENHANCE_YOUR_CALM


def test_header_bomb() -> None:
    """A small block that decodes to a huge list is answered 431, and the connection lives on."""
    client = Client(obedient=False)
    bomb = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 10_000
    client.feed(frame(frames.HEADERS, END_HEADERS | END_STREAM, 1, bomb))
    assert client.outcome(1)[1] == {":status": "431"}
    client.feed(client.headers(3), data(3, b"x"))
    assert client.outcome(3)[1]["grpc-status"] == "0"


def test_slow_header_block() -> None:
    """A block that is begun has to end in time: the connection can do nothing else meanwhile."""
    client = Client()
    client.feed(frame(frames.HEADERS, 0, 1, b"\x82"))
    client.world.loop.advance(Limits().header_timeout_s + 0.1)
    goaway = client.goaway()
    assert goaway is not None
    assert goaway[0] == ErrorCode.ENHANCE_YOUR_CALM


def test_client_that_never_greets() -> None:
    """Without SETTINGS the connection ends after the header timeout; with them it may stay idle."""
    silent = Client(greet=False)
    silent.feed(PREFACE)
    silent.world.loop.advance(Limits().header_timeout_s + 0.1)
    assert silent.transport.aborted
    assert not _aborted_within(Client(), 3600)


def _aborted_within(client: Client, seconds: float) -> bool:
    client.world.loop.advance(seconds)
    return client.transport.aborted


def test_zero_window_bounds_what_waits() -> None:
    """A client that asks but never opens its windows is refused once enough waits; it may go on when that is gone."""
    client = Client()
    client.feed(frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 0}))
    size = 2_000_000
    asked = 0
    while client.connection.queued_bytes <= QUEUED_BYTES_MAX:
        stream_id = 2 * asked + 1
        client.feed(client.headers(stream_id), *_in_pieces(stream_id, bytes(size)))
        asked += 1
    assert asked <= QUEUED_BYTES_MAX // size + 1
    client.received()
    client.feed(client.headers(2 * asked + 1))
    assert client.reset_code(2 * asked + 1) == ErrorCode.REFUSED_STREAM
    for number in range(asked):
        client.feed(frames.reset_frame(2 * number + 1, ErrorCode.CANCEL))
    assert client.connection.queued_bytes == 0
    client.feed(frames.settings_frame({frames.SETTINGS_INITIAL_WINDOW_SIZE: 100}))
    client.feed(client.headers(2 * asked + 3), data(2 * asked + 3, b"x"))
    assert client.outcome(2 * asked + 3)[1]["grpc-status"] == "0"


def test_slow_reader_is_not_read() -> None:
    """While the socket is full no request is read, and what is answered waits in its stream."""
    client = Client()
    client.feed(client.headers(1, path="Hold"), data(1, b""))
    client.connection.pause_writing()
    assert not client.transport.is_reading()
    client.service.held[0][0].reply(b"late")
    client.world.loop.turn()
    assert client.outcome(1)[0] == b""
    client.connection.resume_writing()
    assert client.transport.is_reading()
    assert client.outcome(1)[0][5:] == b"late"


def ping(payload: bytes = b"12345678") -> bytes:
    return frame(frames.PING, 0, 0, payload)


def test_ping_is_answered() -> None:
    """With the same payload."""
    client = Client()
    client.feed(ping())
    assert client.received() == [Frame(frames.PING, frames.ACK, 0, b"12345678")]


def test_ping_strikes_with_streams() -> None:
    """As grpc-go counts: pings closer than the minimum are strikes, two are forgiven, the third ends it."""
    client = Client()
    client.feed(client.headers(1, path="Hold"))
    client.feed(ping())
    for _ in range(5):
        client.world.loop.advance(Limits().keepalive_min_time_s + 0.1)
        client.feed(ping())
    assert client.goaway() is None
    client.feed(ping())
    client.feed(ping())
    assert client.goaway() is None
    client.feed(ping())
    assert client.goaway() == (ErrorCode.ENHANCE_YOUR_CALM, 1, "too_many_pings")


def test_ping_strikes_without_streams() -> None:
    """Without streams pings have to be two hours apart."""
    client = Client()
    for _ in range(3):
        client.feed(ping())
        client.world.loop.advance(60)
    assert client.goaway() is None
    client.feed(ping())
    goaway = client.goaway()
    assert goaway is not None
    assert goaway[2] == "too_many_pings"


def test_answers_pardon_pings() -> None:
    """Clients that measure bandwidth ping along with data; whatever we send resets the count."""
    client = Client()
    for number in range(50):
        client.feed(client.headers(2 * number + 1), data(2 * number + 1, b""), ping(), ping(), ping())
    assert client.goaway() is None


def test_keepalive() -> None:
    """A connection on which nothing is heard is pinged, and cut if that brings no sign of life."""
    limits = Limits(keepalive_interval_s=100, keepalive_timeout_s=20)
    client = Client(limits=limits)
    client.world.loop.advance(99)
    assert client.received() == []
    client.world.loop.advance(2)
    (sent,) = client.received()
    assert (sent.kind, sent.flags) == (frames.PING, 0)
    client.feed(frame(frames.PING, frames.ACK, 0, sent.payload))
    assert not _aborted_within(client, 99)
    assert _aborted_within(client, 2 + 20.1)


def test_drain() -> None:
    """Two GOAWAYs with a ping in between, as grpc-go: streams on their way are served, later ones are not."""
    client = Client()
    client.feed(client.headers(1, path="Hold"), data(1, b""))
    client.received()
    client.connection.drain()
    client.world.loop.turn()
    first, sent_ping = client.received()
    assert first.payload[:4] == uint32(frames.STREAM_ID_MAX)
    client.feed(client.headers(3), data(3, b"on its way"), frame(frames.PING, frames.ACK, 0, sent_ping.payload))
    received = client.received()
    assert client.outcome(3, received)[1]["grpc-status"] == "0"
    assert received[-1].payload == uint32(3) + uint32(0)
    client.feed(client.headers(5), data(5, b"too late"))
    assert client.received() == []
    assert not client.transport.sent_eof
    client.service.held[0][0].reply(b"done")
    client.world.loop.turn()
    assert client.outcome(1)[0][5:] == b"done"
    assert client.transport.sent_eof


def test_drain_without_streams_closes_at_once() -> None:
    """Nothing is in flight once the ping is answered."""
    client = Client()
    client.connection.drain()
    client.world.loop.turn()
    sent_ping = client.received()[-1]
    client.feed(frame(frames.PING, frames.ACK, 0, sent_ping.payload))
    assert client.transport.sent_eof


def test_nothing_is_sent_after_the_end() -> None:
    """The last answer of a drain closes the connection in the middle of a read; what follows in it is ignored."""
    client = Client()
    client.feed(client.headers(1))
    client.connection.drain()
    client.world.loop.turn()
    sent_ping = client.received()[-1]
    client.feed(frame(frames.PING, frames.ACK, 0, sent_ping.payload))
    client.feed(data(1, b"x"), client.headers(3, ("te", "gzip")), ping(), frame(frames.DATA, 0, 9, b""))
    received = client.received()
    assert client.outcome(1, received)[1]["grpc-status"] == "0"
    assert {answer.stream_id for answer in received if answer.kind != frames.GOAWAY} == {1}
    assert client.transport.sent_eof


def test_lost_connection_ends_every_call() -> None:
    """Services learn that nobody listens any more; answering is then of no effect."""
    world = World()
    client = Client(world)
    client.feed(client.headers(1, path="Hold"), data(1, b""), client.headers(3, path="Stream"))
    client.connection.connection_lost(ConnectionResetError())
    world.loop.turn()
    call, _ = client.service.held[0]
    assert call.done
    call.reply(b"")
    stream = client.service.streams[0]
    stream.stream.send(b"")
    stream.stream.finish()
    world.loop.turn()
    assert [type(told) for told in stream.told] == [Status]
    assert not world.commons.connections
    assert client.outcome(1)[1] == {}


def test_reset_memory_is_bounded() -> None:
    """Ids of streams that we have reset are remembered, but not without end."""
    client = Client()
    for number in range(RESET_IDS_MAX + 50):
        client.feed(client.headers(2 * number + 1, path="Nope"))
    assert len(client.connection.reset_ids) == RESET_IDS_MAX

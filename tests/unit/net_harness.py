"""A connection without a socket: a transport that keeps what is written, a loop that is a list, a clock set by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from hpack import Decoder, Encoder

from net.commons import Commons
from net.deadlines import Deadlines, Timer
from net.http2 import frames
from net.http2.connection import Http2Connection
from net.rpc import Call, HttpHandler, Limits, Routes, Status, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

GRPC_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Echo/Echo"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


class FakeTransport(asyncio.Transport):
    """Keeps what is written; full and closed when it is told to be."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4321)})
        self.written = bytearray()
        self.writes = 0
        self._reading = True
        self.sent_eof = False
        self.aborted = False
        self.buffered_bytes = 0
        self._closing = False

    def write(self, data: Any) -> None:
        assert not self._closing, "write after close"
        assert not self.sent_eof, "write after the end"
        self.written += data
        self.writes += 1

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.buffered_bytes

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.sent_eof = True

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self.aborted = self._closing = True

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_reading(self) -> bool:
        return self._reading


class FakeTimer:
    """A scheduled call."""

    def __init__(self, at_s: float, callback: Callable[[], None]) -> None:
        self.at_s = at_s
        self.callback = callback
        self.canceled = False

    def cancel(self) -> None:
        self.canceled = True


class FakeLoop:
    """Time and turns by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.soon: list[Callable[[], object]] = []
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def call_at(self, at_s: float, callback: Callable[[], None]) -> Timer:
        timer = FakeTimer(at_s, callback)
        self.timers.append(timer)
        return timer

    def turn(self) -> None:
        """Run what was scheduled, and what that schedules."""
        while self.soon:
            callbacks, self.soon = self.soon, []
            for callback in callbacks:
                callback()

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end_s = self.now_s + seconds
        while True:
            due = [timer for timer in self.timers if not timer.canceled and timer.at_s <= end_s]
            if not due:
                break
            first = min(due, key=lambda timer: timer.at_s)
            self.timers.remove(first)
            self.now_s = max(self.now_s, first.at_s)
            first.callback()
            self.turn()
        self.now_s = end_s
        self.turn()


class Recorder:
    """A stream handler that writes down what it is told."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.told: list[object] = []

    def on_message(self, message: bytes) -> None:
        self.told.append(message)

    def on_half_close(self) -> None:
        self.told.append("half closed")

    def on_drained(self) -> None:
        self.told.append("drained")

    def on_closed(self, status: Status) -> None:
        self.told.append(status)


class Frame(NamedTuple):
    """A frame as the client received it."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


class Service:
    """Answers Echo at once, keeps the calls of Hold, records the streams of Stream."""

    def __init__(self) -> None:
        self.held: list[tuple[Call, bytes]] = []
        self.streams: list[Recorder] = []
        self.batches = 0
        self.faults: list[BaseException] = []

    def routes(self) -> Routes:
        def open_stream(stream: Stream) -> Recorder:
            self.streams.append(Recorder(stream))
            return self.streams[-1]

        def fail(call: Call, message: bytes) -> None:
            raise ValueError(message)

        unary = {
            "/test.Echo/Echo": lambda call, message: call.reply(message),
            "/test.Echo/Hold": lambda call, message: self.held.append((call, message)),
            "/test.Echo/Raise": fail,
        }
        return Routes(unary=unary, streams={"/test.Echo/Stream": open_stream})

    def on_batch_end(self) -> None:
        self.batches += 1


class World:
    """What a listener would give to its connections."""

    def __init__(self, limits: Limits | None = None, http: HttpHandler | None = None) -> None:
        self.loop = FakeLoop()
        self.service = Service()
        self.commons = Commons(
            routes=self.service.routes(),
            http=http,
            limits=limits or Limits(),
            scheduler=self.loop,
            deadlines=Deadlines(self.loop.time, self.loop.call_at),
            fatal=self.service.faults.append,
            log=structlog.get_logger(),
            on_batch_end=self.service.on_batch_end,
        )


class Client:
    """The other end of one HTTP/2 connection."""

    def __init__(
        self, world: World | None = None, *, greet: bool = True, limits: Limits | None = None, obedient: bool = True
    ) -> None:
        self.world = world or World(limits)
        self.service = self.world.service
        self.transport = FakeTransport()
        self.connection = Http2Connection(self.world.commons, self.transport)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self._seen = 0
        if greet:
            self.connection.data_received(frames.PREFACE + frames.settings_frame({}))
            if obedient:
                self.feed(frames.SETTINGS_ACK)
                self.encoder.header_table_size = 0
            self.received()

    def feed(self, *pieces: bytes) -> None:
        """Send bytes in one read, then let the loop turn."""
        self.connection.data_received(b"".join(pieces))
        self.world.loop.turn()

    def headers(
        self, stream_id: int, *changes: tuple[str, str], flags: int = frames.END_HEADERS, path: str | None = None
    ) -> bytes:
        """Encode HEADERS for a gRPC call; *changes* replace or add fields."""
        fields = dict(GRPC_HEADERS)
        if path is not None:
            fields[":path"] = f"/test.Echo/{path}"
        fields.update(changes)
        return frames.frame(frames.HEADERS, flags, stream_id, self.encoder.encode(list(fields.items())))

    def received(self) -> list[Frame]:
        """Return the frames that came since the last time."""
        data = bytes(self.transport.written[self._seen :])
        self._seen = len(self.transport.written)
        parsed = []
        while data:
            head, flags, stream_id = frames.FRAME_HEADER.unpack_from(data)
            end = 9 + (head >> 8)
            assert len(data) >= end, "torn frame"
            parsed.append(Frame(head & 0xFF, flags, stream_id, data[9:end]))
            data = data[end:]
        return parsed

    def outcome(self, stream_id: int, received: list[Frame] | None = None) -> tuple[bytes, dict[str, str]]:
        """Return the DATA and the last headers that came for *stream_id*."""
        body = b""
        fields: dict[str, str] = {}
        for frame in self.received() if received is None else received:
            if frame.stream_id == stream_id and frame.kind == frames.DATA:
                body += frame.payload
            elif frame.stream_id == stream_id and frame.kind == frames.HEADERS:
                fields |= dict(self.fields(frame))
        return body, fields

    def fields(self, received: Frame) -> list[tuple[str, str]]:
        """Decode the block of a HEADERS frame."""
        return [(str(name), str(value)) for name, value in self.decoder.decode(received.payload)]

    def goaway(self) -> tuple[frames.ErrorCode, int, str] | None:
        """Return code, last stream and reason of the last GOAWAY that came, if any."""
        found = [frame for frame in self.received() if frame.kind == frames.GOAWAY]
        if not found:
            return None
        payload = found[-1].payload
        code = frames.ErrorCode(int.from_bytes(payload[4:8], "big"))
        return code, int.from_bytes(payload[:4], "big"), payload[8:].decode()

    def reset_code(self, stream_id: int) -> frames.ErrorCode | None:
        """Return the code of the last RST_STREAM that came for *stream_id*, if any."""
        found = [frame for frame in self.received() if frame[0] == frames.RST_STREAM and frame.stream_id == stream_id]
        return frames.ErrorCode(int.from_bytes(found[-1].payload, "big")) if found else None


def data(stream_id: int, message: bytes, *, end: bool = True) -> bytes:
    """Encode one whole gRPC message as one DATA frame."""
    payload = b"\0" + len(message).to_bytes(4, "big") + message
    return frames.frame(frames.DATA, frames.END_STREAM if end else 0, stream_id, payload)

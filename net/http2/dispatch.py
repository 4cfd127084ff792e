"""What each kind of frame means, apart from the hot path: RFC 9113, section 6, and the rules for closed streams.

Owns the receiving half of a connection: header blocks, receive windows, the patience with useless frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from net.http2 import frames, guard
from net.http2.frames import ConnectionFaultError, ErrorCode, StreamFaultError
from net.http2.headers import BlockMemory, Decoded, HeaderDecoder, decode_string
from net.http2.life import CANCELED, Life
from net.http2.opening import open_stream, refuse_oversized
from net.http2.request import Request, check_trailers, parse_timeout_s
from net.http2.stream import STREAM_WINDOW_BYTES, Http2Stream
from net.rpc import Status

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from net.commons import Commons

CONNECTION_WINDOW_BYTES: Final = 16 * 1024 * 1024
"""What a client may send on all streams together before it is handed out anew."""

BUFFERED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Above this, in unfinished and undelivered messages, the connection's window is not opened any further."""

BLOCK_BYTES_FACTOR: Final = 2
"""How much larger than the list it decodes to a block may be; continuations beyond are a flood."""

TIMEOUTS_MAX: Final = 4096
"""How many decoded `grpc-timeout` values a connection remembers."""


class Dispatch(Life):
    """The receiving half; Http2Connection adds the read buffer to it."""

    def __init__(self, commons: Commons, transport: asyncio.Transport) -> None:
        super().__init__(commons, transport)
        limits = commons.limits
        self.memory: BlockMemory[Request] = BlockMemory()
        self.ids_skipped = False
        self.receive_window = CONNECTION_WINDOW_BYTES
        self.buffered_bytes = 0
        self.unfinished_block: tuple[int, int, bytearray] | None = None
        self._decoder = HeaderDecoder(limits.header_list_bytes_max)
        self._timeouts: dict[bytes, float] = {}
        self._patience = guard.Patience(self.last_read_s)
        self._strikes = guard.PingStrikes(limits.keepalive_min_time_s)
        settings = {
            frames.SETTINGS_HEADER_TABLE_SIZE: 0,
            frames.SETTINGS_INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            frames.SETTINGS_MAX_HEADER_LIST_SIZE: limits.header_list_bytes_max,
        }
        if limits.concurrent_streams_max < 0xFFFFFFFF:
            settings[frames.SETTINGS_MAX_CONCURRENT_STREAMS] = limits.concurrent_streams_max
        self.out.append(frames.settings_frame(settings))
        increment = CONNECTION_WINDOW_BYTES - frames.WINDOW_BYTES_DEFAULT
        self.out.append(frames.window_update_frame(0, increment))
        self.hold()

    def dispatch(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Handle one frame.  Raises StreamFaultError or ConnectionFaultError where the peer broke a rule."""
        if self.unfinished_block is not None and kind != frames.CONTINUATION:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "header block interrupted")
        if self.greeted_at_s is None and kind != frames.SETTINGS:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "first frame is not SETTINGS")
        if kind < len(_KINDS):
            _KINDS[kind](self, flags, stream_id, payload)
        else:
            self.annoyed(guard.USELESS_COST)

    def annoyed(self, cost: int) -> None:
        """Lose some patience; the connection ends when none is left."""
        if not self._patience.spend(cost, self.last_read_s):
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, "too many useless frames")

    def grant(self) -> None:
        """Check and, once half of it is used, open the connection's receive window."""
        if self.receive_window < 0:
            raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        if self.receive_window < CONNECTION_WINDOW_BYTES // 2 and self.buffered_bytes <= BUFFERED_BYTES_MAX:
            self.out.append(frames.window_update_frame(0, CONNECTION_WINDOW_BYTES - self.receive_window))
            self.receive_window = CONNECTION_WINDOW_BYTES

    def find_timed(self, block: bytes) -> tuple[Request, float] | None:
        """Find a block that is known but for its `grpc-timeout`; return it with that timeout in seconds."""
        found = self.memory.find_timed(block)
        if found is None:
            return None
        request, raw = found
        timeout_s = self._timeouts.get(raw)
        if timeout_s is None:
            parsed = parse_timeout_s(decode_string(raw))
            if isinstance(parsed, Status) or parsed <= 0:
                return None
            if len(self._timeouts) >= TIMEOUTS_MAX:
                self._timeouts.clear()
            timeout_s = self._timeouts[raw] = parsed
        return request, timeout_s

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.receive_window -= len(payload)
        body = frames.unpad(payload, flags & frames.PADDED) if flags & frames.PADDED else payload
        ended = bool(flags & frames.END_STREAM)
        if not body and not ended:
            self.annoyed(guard.USELESS_COST)
        stream = self._stream(stream_id)
        if stream is not None:
            stream.take(len(payload), len(body), ended)
            stream.remote_open = not ended
            stream.receive(body, ended)

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that clients do not open")
        if flags & (frames.PADDED | frames.PRIORITIZED):
            payload = frames.unpad(payload, flags)
        if flags & frames.END_HEADERS:
            self._block(flags, stream_id, payload)
        else:
            self.unfinished_block = (stream_id, flags, bytearray(payload))
            self.block_since_s = self.last_read_s
            self.check_at(self.last_read_s + self.commons.limits.header_timeout_s)

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self.unfinished_block is None or self.unfinished_block[0] != stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self.annoyed(guard.USELESS_COST)
        _, headers_flags, block = self.unfinished_block
        block += payload
        if len(block) > BLOCK_BYTES_FACTOR * self.commons.limits.header_list_bytes_max:
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        if flags & frames.END_HEADERS:
            self.unfinished_block = None
            self.block_since_s = None
            self._block(headers_flags, stream_id, bytes(block))

    def _block(self, flags: int, stream_id: int, block: bytes) -> None:
        ended = bool(flags & frames.END_STREAM)
        if stream_id <= self.last_stream_id:
            self._trailers(stream_id, self._decode(block), ended)
            return
        if stream_id > self.last_stream_id + 2:
            self.ids_skipped = True
        self.last_stream_id = stream_id
        found = self._find(block) or self._understand(block)
        if self.goaway_id is not None:
            self.remember_reset(stream_id)
            return
        if len(self.streams) >= self.streams_max:
            raise StreamFaultError(ErrorCode.REFUSED_STREAM, "too many streams")
        if found is None:
            refuse_oversized(self, stream_id, ended)
        else:
            open_stream(self, stream_id, found[0], found[1], ended)

    def _find(self, block: bytes) -> tuple[Request, float | None] | None:
        request = self.memory.whole.get(block)
        return self.find_timed(block) if request is None else (request, None)

    def _understand(self, block: bytes) -> tuple[Request, float | Status | None] | None:
        """Decode a block that is new, and remember it if that is of use; None if its list is too large."""
        decoded = self._decode(block)
        if decoded.size_bytes > self.commons.limits.header_list_bytes_max:
            return None
        request = Request(decoded.fields, self.commons.routes)
        timeout_s: float | Status | None = None
        for name, value in decoded.fields:
            if name == b"grpc-timeout":
                timeout_s = parse_timeout_s(value)
        if not decoded.changed_table and (decoded.timeout_at >= 0 or timeout_s is None):
            self.memory.remember(block, decoded, request)
        return request, timeout_s

    def _decode(self, block: bytes) -> Decoded:
        decoded = self._decoder.decode(block)
        if decoded.changed_table:
            self.memory.table_changed()
        return decoded

    def _trailers(self, stream_id: int, decoded: Decoded, ended: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id in self.reset_ids:
                return
            code = ErrorCode.PROTOCOL_ERROR if self.ids_skipped else ErrorCode.STREAM_CLOSED
            raise ConnectionFaultError(code, "HEADERS on a stream that is closed")
        if not stream.remote_open:
            raise StreamFaultError(ErrorCode.STREAM_CLOSED, "HEADERS after the end")
        check_trailers(decoded.fields)
        if not ended:
            raise StreamFaultError(ErrorCode.PROTOCOL_ERROR, "second HEADERS without the end")
        stream.take(0, 0, ended=True)
        stream.remote_open = False
        stream.receive(b"", ended=True)

    def _priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFaultError(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")
        self.annoyed(guard.USELESS_COST)

    def _rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        if stream_id == 0 or stream_id > self.last_stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on a stream that is idle")
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.annoyed(guard.RESET_COST)
            self.abandon(stream, CANCELED)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS acknowledgement with a payload")
            self.annoyed(guard.USELESS_COST)
            self._decoder.announced_zero()
            return
        self.annoyed(guard.SETTINGS_COST + len(self.streams) // guard.STREAMS_PER_SETTINGS_COST)
        self.apply_settings(frames.parse_settings(payload))
        self.out.append(frames.SETTINGS_ACK)
        if self.greeted_at_s is None:
            self.greeted()

    def _push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong length")
        if flags & frames.ACK:
            self.annoyed(guard.USELESS_COST)
            self.pong(payload)
            return
        self.out.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        pardoned, self.strikes_pardoned = self.strikes_pardoned, False
        if not self._strikes.pinged(self.last_read_s, pardoned=pardoned, streams_open=bool(self.streams)):
            raise ConnectionFaultError(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def _goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0 or len(payload) < 8:
            code = ErrorCode.PROTOCOL_ERROR if stream_id else ErrorCode.FRAME_SIZE_ERROR
            raise ConnectionFaultError(code, "GOAWAY on a stream or too short")
        # The client opens no more streams and closes when its own are done; there is nothing to do for us.
        self.annoyed(guard.USELESS_COST)

    def _window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        if stream_id > self.last_stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that is idle")
        self.widen(stream_id, frames.parse_uint31(payload))

    def _stream(self, stream_id: int) -> Http2Stream | None:
        """Find the stream that DATA came for; None if it is one that we have reset."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            return stream
        if stream_id == 0 or stream_id > self.last_stream_id:
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that is idle")
        self.annoyed(guard.USELESS_COST)
        if stream_id in self.reset_ids:
            return None
        raise StreamFaultError(ErrorCode.STREAM_CLOSED, "DATA on a stream that is closed")


# Of the class: a connection that had its own bound methods would not be gone when its last user lets go of it, but lie
# about until the garbage collector frees thousands of them in one go, while everybody waits.
_KINDS: Final[tuple[Callable[[Dispatch, int, int, bytes], None], ...]] = (
    Dispatch._data,  # noqa: SLF001 - its own module, here and below
    Dispatch._headers,  # noqa: SLF001
    Dispatch._priority,  # noqa: SLF001
    Dispatch._rst_stream,  # noqa: SLF001
    Dispatch._settings,  # noqa: SLF001
    Dispatch._push_promise,  # noqa: SLF001
    Dispatch._ping,  # noqa: SLF001
    Dispatch._goaway,  # noqa: SLF001
    Dispatch._window_update,  # noqa: SLF001
    Dispatch._continuation,  # noqa: SLF001
)

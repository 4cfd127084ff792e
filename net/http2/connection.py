"""One HTTP/2 connection of the native engine: bytes in, frames to streams, answers out.

The hot path is a unary call in its usual shape: HEADERS whose block is known by its bytes, then the one DATA frame
that has the whole message and ends the request.  `_frames` cuts both from the read buffer and hands the message over
without any per-call task, future or log line.  Everything else goes through `dispatch`.

Owns the receiving half and the connection's life: greeting, keepalive, drain, faults.  Any bytes at all are answered
as RFC 9113 says; nothing a peer sends raises out of here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from net.http2 import frames
from net.http2.dispatch import Dispatch
from net.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HEADERS,
    STREAM_ID_MAX,
    ConnectionFaultError,
    ErrorCode,
    StreamFaultError,
)
from net.http2.grpc import UnaryCall
from net.http2.life import CANCELED
from net.http2.messages import MESSAGE_PREFIX
from net.rpc import Code, Status

if TYPE_CHECKING:
    import asyncio

    from net.commons import Commons

_LARGEST_HEAD: Final = frames.PAYLOAD_BYTES_DEFAULT << 8 | 0xFF
"""Length and type of the largest frame that we accept, as they stand in a frame's first four bytes."""


class Http2Connection(Dispatch):
    """Speaks HTTP/2 on *transport*, from the client's preface on.  For asyncio it is wrapped in an Http2Protocol."""

    def __init__(self, commons: Commons, transport: asyncio.Transport) -> None:
        super().__init__(commons, transport)
        self._buffer = commons.read_buffer
        self._rest = b""
        self._greeted = False
        self._timed: list[UnaryCall] = []

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to; asyncio's call."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read; asyncio's call."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take what was read; answer all of it with one write."""
        if self.ended:
            return
        self.holding = True
        if self._rest:
            data = self._rest + data
        commons = self.commons
        self.last_read_s = commons.now()
        commons.delivering = True
        try:
            self._take(data)
            self.flush()
        finally:  # what others have asked for by now waits for it, whatever became of this
            commons.delivered(self.last_read_s)

    def _take(self, data: bytes) -> None:
        try:
            if not self._greeted:
                data = self._greet(data)
            self._rest = data[self._frames(data) :] if self._greeted else data
            if self._timed:
                self._watch_deadlines()
            self.grant()
        except ConnectionFaultError as fault:
            self.fail(fault.code, fault.reason)

    def _greet(self, data: bytes) -> bytes:
        if len(data) < len(frames.PREFACE):
            if not frames.PREFACE.startswith(data):
                raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "no preface")
            return data
        if not data.startswith(frames.PREFACE):
            raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "no preface")
        self._greeted = True
        return data[len(frames.PREFACE) :]

    def _frames(self, data: bytes) -> int:
        """Handle all whole frames of *data*; return where the first incomplete one begins."""
        position = 0
        end = len(data)
        unpack = FRAME_HEADER.unpack_from
        unpack_prefix = MESSAGE_PREFIX.unpack_from
        known = self.memory.whole
        streams = self.streams
        message_bytes_max = self.commons.limits.receive_message_bytes_max
        within_block = self.unfinished_block is not None
        head: int
        flags: int
        stream_id: int
        size: int
        while end - position >= 9:
            head, flags, stream_id = unpack(data, position)
            if head > _LARGEST_HEAD:
                raise ConnectionFaultError(ErrorCode.FRAME_SIZE_ERROR, "frame larger than MAX_FRAME_SIZE")
            start = position + 9
            stop = start + (head >> 8)
            if stop > end:
                break
            kind = head & 0xFF
            if kind == HEADERS and flags == END_HEADERS and not within_block:
                block = data[start:stop]
                request = known.get(block)
                deadline_s: float | None = None
                if request is None:
                    timed = self.find_timed(block)
                    if timed is not None:
                        request, timeout_s = timed
                        deadline_s = self.last_read_s + timeout_s
                if (
                    request is not None
                    and request.quick
                    and self.last_stream_id < stream_id <= STREAM_ID_MAX
                    and stream_id & 1
                    and len(streams) < self.streams_max
                ):
                    if stream_id > self.last_stream_id + 2:
                        self.ids_skipped = True
                    self.last_stream_id = stream_id
                    call = streams[stream_id] = UnaryCall(self, stream_id, request, deadline_s)
                    if request.content_length is not None:
                        call.body_bytes_left = request.content_length
                    if deadline_s is not None:
                        self._timed.append(call)
                    position = stop
                    continue
            elif kind == DATA and flags == END_STREAM and not within_block and stop - start >= 5:
                stream = streams.get(stream_id)
                if type(stream) is UnaryCall and stream.fresh:
                    compressed, size = unpack_prefix(data, start)
                    if (
                        not compressed
                        and size == stop - start - 5
                        and size <= message_bytes_max
                        and (stream.body_bytes_left is None or stream.body_bytes_left == size + 5)
                    ):
                        self.receive_window -= size + 5
                        position = stop
                        stream.receive_whole(data[start + 5 : stop])
                        continue
            position = stop
            try:
                self.dispatch(kind, flags, stream_id & 0x7FFFFFFF, data[start:stop])
            except StreamFaultError as fault:
                self.reset(stream_id & 0x7FFFFFFF, fault.code, Status(Code.INTERNAL, fault.reason))
            if self.ended:
                return end
            within_block = self.unfinished_block is not None
        return position

    def _watch_deadlines(self) -> None:
        """Put on the wheel what was opened in this read and not answered in it."""
        deadlines = self.commons.deadlines
        for call in self._timed:
            if not call.done:
                assert call.deadline_s is not None, call.stream_id
                call.bucket = deadlines.add(call, call.deadline_s)
        self._timed.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every call that its client has gone; asyncio's call."""
        del exc
        self.writable = False
        self.end_all(CANCELED)
        self.commons.left(self)

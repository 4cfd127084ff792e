"""One stream of an HTTP/2 connection: its states, its windows, and what of it waits to be sent.

gRPC calls and plain HTTP exchanges build on this; it knows neither.  Spec: RFC 9113, sections 5.1 and 5.2.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from net.http2 import frames
from net.http2.frames import FRAME_HEADER, ErrorCode, StreamFaultError

if TYPE_CHECKING:
    from net.deadlines import Bucket
    from net.http2.dispatch import Dispatch
    from net.rpc import Status

STREAM_WINDOW_BYTES: Final = 1024 * 1024
"""What a client may send on one stream before it is consumed."""


class Http2Stream:
    """A stream that the client has opened, until both sides are done with it.

    The defaults live in the class: most streams are unary calls that never change them.
    """

    remote_open = True
    """Whether the client may still send."""
    done = False
    """Whether our side has ended (though its last bytes may be queued), or the stream is gone."""
    window_delta = 0
    """The send window, less the connection's INITIAL_WINDOW_SIZE (RFC 9113, section 6.9.2)."""
    receive_window = STREAM_WINDOW_BYTES
    body_bytes_left: int | None = None
    """By the content-length, if there was one."""
    queue: deque[memoryview] | None = None
    """DATA payload that waits for the window or the socket."""
    unsent_bytes = 0
    is_pending = False
    tail: bytes | None = None
    """The frame that ends our side, to follow the queue."""
    bucket: Bucket | None = None
    """Where its deadline waits."""

    def __init__(self, connection: Dispatch, stream_id: int) -> None:
        self.connection = connection
        self.stream_id = stream_id

    def receive(self, payload: bytes, ended: bool) -> None:
        """Take the payload of a DATA frame (already counted), or an empty one for trailers."""
        raise NotImplementedError

    def lost(self, status: Status) -> None:
        """Notice that the client has gone, or was sent away by RST_STREAM; nothing can be sent any more."""
        raise NotImplementedError

    def drained(self) -> None:
        """Notice that the queue has become empty."""
        if self.tail is not None:
            self.send_tail()

    def take(self, flow_bytes: int, payload_bytes: int, ended: bool) -> None:
        """Account for a DATA frame before its payload is received."""
        if not self.remote_open:
            raise StreamFaultError(ErrorCode.STREAM_CLOSED, "DATA after the end")
        self.receive_window -= flow_bytes
        if self.receive_window < 0:
            raise StreamFaultError(ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")
        if self.body_bytes_left is not None:
            self.body_bytes_left -= payload_bytes
            if self.body_bytes_left < 0 or (ended and self.body_bytes_left):
                raise StreamFaultError(ErrorCode.PROTOCOL_ERROR, "content-length disagrees with the body")

    def grant(self) -> None:
        """Open the client's window again once half of it is used; to be called when its bytes were consumed."""
        if self.receive_window < STREAM_WINDOW_BYTES // 2 and self.remote_open and not self.done:
            increment = STREAM_WINDOW_BYTES - self.receive_window
            self.receive_window = STREAM_WINDOW_BYTES
            self.connection.out.append(frames.window_update_frame(self.stream_id, increment))
            self.connection.hold()

    def send_data(self, payload: bytes) -> None:
        """Send DATA, now if possible or else when the windows and the socket allow."""
        connection = self.connection
        size = len(payload)
        if (
            self.queue
            or not connection.writable
            or size > connection.send_window
            or size > connection.frame_bytes_max
            or size > connection.initial_window + self.window_delta
        ):
            if not size:
                return
            if self.queue is None:
                self.queue = deque()
            self.queue.append(memoryview(payload))
            self.unsent_bytes += size
            connection.count_queued(size)
            connection.enqueue(self)
            return
        connection.send_window -= size
        self.window_delta -= size
        connection.strikes_pardoned = True
        connection.out.append(FRAME_HEADER.pack(size << 8 | frames.DATA, 0, self.stream_id))
        connection.out.append(payload)
        connection.hold()

    def send_queued(self, room: int) -> int:
        """Put one DATA frame of at most *room* bytes out; return its payload's size."""
        queue = self.queue
        assert queue, self.stream_id
        pieces: list[memoryview] = []
        size = 0
        while queue and size < room:
            piece = queue.popleft()
            if len(piece) > room - size:
                queue.appendleft(piece[room - size :])
                piece = piece[: room - size]
            pieces.append(piece)
            size += len(piece)
        connection = self.connection
        connection.send_window -= size
        self.window_delta -= size
        self.unsent_bytes -= size
        connection.count_queued(-size)
        connection.strikes_pardoned = True
        connection.out.append(FRAME_HEADER.pack(size << 8 | frames.DATA, 0, self.stream_id))
        connection.out += pieces
        return size

    def finish_with(self, tail: bytes) -> None:
        """End our side with the frame *tail* once everything queued has left."""
        self.tail = tail
        if not self.queue:
            self.send_tail()

    def send_tail(self) -> None:
        """Send the last frame and forget the stream."""
        assert self.tail is not None, self.stream_id
        connection = self.connection
        connection.strikes_pardoned = True
        connection.out.append(self.tail)
        if self.remote_open:
            # RFC 9113 8.1: the answer is complete; the rest of the request is not needed.
            connection.out.append(frames.reset_frame(self.stream_id, ErrorCode.NO_ERROR))
        connection.forget(self)
        connection.hold()

    def drop_queue(self) -> None:
        """Throw away what waits to be sent."""
        if self.queue:
            self.queue.clear()
            self.connection.count_queued(-self.unsent_bytes)
            self.unsent_bytes = 0

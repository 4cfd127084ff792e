"""The life of an HTTP/2 connection apart from its frames: greeting in time, keepalive, drain, faults, the end.

One entry on the listener's wheel per connection covers all of its timeouts.  Keepalive and drain follow grpc-go's
server; faults follow RFC 9113, section 5.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from net.http2 import frames
from net.http2.frames import ErrorCode
from net.http2.sending import QUEUED_BYTES_MAX, SendingSide
from net.rpc import Code, Status
from net.transports import leave

if TYPE_CHECKING:
    import asyncio

    from net.commons import Commons
    from net.deadlines import Bucket
    from net.http2.stream import Http2Stream

RESET_IDS_MAX: Final = 1000
"""How many streams that we have reset are remembered, whose late frames are ignored."""

_KEEPALIVE_PING: Final = b"keepaliv"
_DRAIN_PING: Final = b"draining"

CANCELED: Final = Status(Code.CANCELLED, "context canceled")


class Life(SendingSide):
    """The state of a connection as a whole."""

    def __init__(self, commons: Commons, transport: asyncio.Transport) -> None:
        super().__init__(commons, transport)
        self.streams_max = 0
        """How many streams may be open: none before the client's SETTINGS, nor when too much waits to be sent."""
        self.last_stream_id = 0
        self.last_read_s = commons.now()
        self.greeted_at_s: float | None = None
        self.block_since_s: float | None = None
        """When a header block began that has not ended."""
        self.goaway_id: int | None = None
        """The last stream that is served, once that is final."""
        self.reset_ids: dict[int, None] = {}
        """Streams that we have reset, whose late frames are ignored."""
        self._pinged_at_s: float | None = None
        self._draining = False
        self._bucket: Bucket | None = None
        commons.joined(self)
        self.check_at(self.last_read_s + commons.limits.header_timeout_s)

    def greeted(self) -> None:
        """Note that the client's first SETTINGS have come."""
        self.greeted_at_s = self.last_read_s
        self.update_streams_max()
        if self.commons.limits.keepalive_interval_s:
            self.check_at(self.last_read_s + self.commons.limits.keepalive_interval_s)
        if self.commons.draining:
            self.drain()

    def update_streams_max(self) -> None:
        """Allow streams, unless more answers wait already than a connection may keep."""
        greeted = self.greeted_at_s is not None and self.goaway_id is None
        room = self.queued_bytes <= QUEUED_BYTES_MAX
        self.streams_max = self.commons.limits.concurrent_streams_max if greeted and room else 0

    def count_queued(self, change_bytes: int) -> None:
        """Keep count of what waits in all streams together."""
        before = self.queued_bytes
        self.queued_bytes = before + change_bytes
        if (before > QUEUED_BYTES_MAX) != (self.queued_bytes > QUEUED_BYTES_MAX):
            self.update_streams_max()

    def forget(self, stream: Http2Stream) -> None:
        """Let go of a stream that is done on our side; late frames of the client are then ignored."""
        self.streams.pop(stream.stream_id, None)
        if stream.remote_open:
            self.remember_reset(stream.stream_id)
        if not self.streams and self.goaway_id is not None:
            self.close()

    def remember_reset(self, stream_id: int) -> None:
        """Ignore what is still on its way for *stream_id*."""
        self.reset_ids[stream_id] = None
        if len(self.reset_ids) > RESET_IDS_MAX:
            del self.reset_ids[next(iter(self.reset_ids))]

    def reset(self, stream_id: int, code: ErrorCode, status: Status) -> None:
        """End a stream with RST_STREAM; a call on it sees *status*."""
        self.out.append(frames.reset_frame(stream_id, code))
        self.remember_reset(stream_id)
        self.hold()
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.abandon(stream, status)

    def abandon(self, stream: Http2Stream, status: Status) -> None:
        """Forget a stream without sending anything more on it."""
        stream.remote_open = False
        stream.drop_queue()
        stream.lost(status)
        self.forget(stream)

    def fail(self, code: ErrorCode, reason: str) -> None:
        """End the connection for a fault of its peer: GOAWAY with *reason*, then close."""
        self.out.append(frames.goaway_frame(self.last_stream_id, code, reason))
        self.commons.log.debug("connection.failed", peer=str(self.peername), code=code.name, reason=reason)
        self.close()

    def drain(self) -> None:
        """Take no new streams and close when the open ones are done, without losing any that are on their way."""
        if self.greeted_at_s is None:
            self.close()
        elif not self._draining and not self.ended:
            # As grpc-go does: the answer to the ping proves that the client has seen the first GOAWAY.
            self._draining = True
            self.out.append(frames.goaway_frame(frames.STREAM_ID_MAX, ErrorCode.NO_ERROR, "graceful_stop"))
            self.out.append(frames.frame(frames.PING, 0, 0, _DRAIN_PING))
            self.hold()

    def pong(self, payload: bytes) -> None:
        """Take the answer to one of our pings."""
        if self._draining and payload == _DRAIN_PING and self.goaway_id is None:
            self.goaway_id = self.last_stream_id
            self.out.append(frames.goaway_frame(self.goaway_id, ErrorCode.NO_ERROR, ""))
            self.update_streams_max()
            if not self.streams:
                self.close()

    def close(self) -> None:
        """Send what is in `out`, end every stream, then close; the peer's input is ignored from here on."""
        if self.ended:
            return
        self.flush()
        self.end_all(CANCELED)
        if not self.transport.is_closing():
            self.transport.resume_reading()
            leave(self.transport, self.commons.deadlines, self.commons.now)

    def abort(self) -> None:
        """Cut the connection."""
        self.transport.abort()

    def end_all(self, status: Status) -> None:
        """Tell every stream that its client cannot be reached; nothing is sent any more."""
        self.ended = True
        self.streams_max = 0
        self.goaway_id = None
        if self._bucket is not None:
            self._bucket.pop(self, None)
        for stream in list(self.streams.values()):
            self.abandon(stream, status)
        self.pending.clear()

    def check_at(self, at_s: float) -> None:
        """Look at the timeouts again at *at_s* at the latest, and not before."""
        if self._bucket is not None:
            self._bucket.pop(self, None)
        self._bucket = self.commons.deadlines.add(self, at_s)

    def expired(self, now_s: float) -> None:
        """Look at the timeouts."""
        limits = self.commons.limits
        self._bucket = None
        if self.greeted_at_s is None:
            self.transport.abort()
        elif self.block_since_s is not None and now_s - self.block_since_s >= limits.header_timeout_s:
            self.fail(ErrorCode.ENHANCE_YOUR_CALM, "header block not ended in time")
        elif limits.keepalive_interval_s:
            self._keep_alive(now_s)

    def _keep_alive(self, now_s: float) -> None:
        limits = self.commons.limits
        if self._pinged_at_s is not None and self.last_read_s >= self._pinged_at_s:
            self._pinged_at_s = None
        if self._pinged_at_s is None:
            if now_s - self.last_read_s < limits.keepalive_interval_s:
                self.check_at(self.last_read_s + limits.keepalive_interval_s)
                return
            self._pinged_at_s = now_s
            self.out.append(frames.frame(frames.PING, 0, 0, _KEEPALIVE_PING))
            self.hold()
        elif limits.keepalive_timeout_s and now_s - self._pinged_at_s >= limits.keepalive_timeout_s:
            self.transport.abort()
            return
        self.check_at(now_s + (limits.keepalive_timeout_s or limits.keepalive_interval_s))

"""The sending half of an HTTP/2 connection: what is queued, what flow control lets out, and the one write for it all.

Frames collect in `out` and leave in a single write when the read, or the turn of the loop, that caused them ends.
DATA that the peer's windows or a full socket hold back waits in its stream; `pending` names the streams that may
go on as soon as the connection can, in turn.  Spec: RFC 9113, sections 5.2 and 6.9.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from net.http2 import frames
from net.http2.frames import ConnectionFaultError, ErrorCode, StreamFaultError
from net.transports import common_name, peer_name

if TYPE_CHECKING:
    import asyncio

    from net.commons import Commons
    from net.http2.stream import Http2Stream

WRITE_BYTES_MAX: Final = 256 * 1024
"""One write takes about this much; then the socket is asked again whether it is full."""

TURN_BYTES_MAX: Final = 1024 * 1024
"""After so much in one go others have their turn: 30 MB to a client that reads as fast took 40 ms of the loop."""

SOCKET_BUFFER_HIGH_BYTES: Final = 512 * 1024
SOCKET_BUFFER_LOW_BYTES: Final = 128 * 1024
"""Above the high mark a connection's requests are no longer read, until the low mark is reached."""

QUEUED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Above this a connection's new streams are refused: its peer asks, but does not open its windows."""


class SendingSide:
    """Belongs to one connection; its attributes are public for the streams, whose hot paths use them directly."""

    def __init__(self, commons: Commons, transport: asyncio.Transport) -> None:
        self.commons = commons
        self.transport = transport
        self.out: list[bytes | memoryview] = []
        self.streams: dict[int, Http2Stream] = {}
        self.send_window = frames.WINDOW_BYTES_DEFAULT
        self.initial_window = frames.WINDOW_BYTES_DEFAULT
        self.frame_bytes_max = frames.PAYLOAD_BYTES_DEFAULT
        self.small_bytes_max = frames.PAYLOAD_BYTES_DEFAULT
        """Up to this size a stream that has sent nothing may send at once, if the connection's window has room."""
        self.pending: deque[Http2Stream] = deque()
        self.queued_bytes = 0
        self.writable = True
        self.ended = False
        """Whether the connection is over: after a fault, a drain or its loss.  Input and output are ignored then."""
        self.holding = False
        """Whether a flush is sure to come: nobody need ask for one."""
        self.strikes_pardoned = False
        """Whether HEADERS or DATA went out since the peer's last ping."""
        transport.set_write_buffer_limits(SOCKET_BUFFER_HIGH_BYTES, SOCKET_BUFFER_LOW_BYTES)

    def hold(self) -> None:
        """See to it that `out` is flushed at the end of this turn."""
        if not self.holding:
            self.holding = True
            self.commons.flush_later(self)

    def flush(self) -> None:
        """Write what has collected, and as much of what waits as may go."""
        self.holding = False
        if self.pending:
            self._pump()
        if self.out:
            self._write()

    @property
    def peername(self) -> str:
        """The client's address, ``host:port`` or the path of a unix socket."""
        return peer_name(self.transport)

    @property
    def common_name(self) -> str | None:
        """The subject CN of the verified client certificate, if one was given."""
        return common_name(self.transport)

    def count_queued(self, change_bytes: int) -> None:
        """Keep count of what waits in all streams together."""
        raise NotImplementedError

    def enqueue(self, stream: Http2Stream) -> None:
        """Let *stream*, which has something queued, take part as soon as its own window is open."""
        if not stream.is_pending:
            stream.is_pending = True
            self.pending.append(stream)
        self.hold()

    def pause_writing(self) -> None:
        """Stop sending and stop reading requests: the socket is full (asyncio's call)."""
        self.writable = False
        self._update_small_bytes_max()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on; asyncio's call."""
        self.writable = True
        self._update_small_bytes_max()
        self.transport.resume_reading()
        self.flush()

    def widen(self, stream_id: int, increment: int) -> None:
        """Apply a WINDOW_UPDATE of the peer."""
        if stream_id == 0:
            if increment == 0:
                raise ConnectionFaultError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            self.send_window += increment
            if self.send_window > frames.WINDOW_BYTES_MAX:
                raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "connection window overflows")
            return
        stream = self.streams.get(stream_id)
        if increment == 0:
            raise StreamFaultError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        if stream is not None:
            stream.window_delta += increment
            if self.initial_window + stream.window_delta > frames.WINDOW_BYTES_MAX:
                raise StreamFaultError(ErrorCode.FLOW_CONTROL_ERROR, "stream window overflows")
            if stream.queue:
                self.enqueue(stream)

    def apply_settings(self, settings: list[tuple[int, int]]) -> None:
        """Take the peer's settings; those of no concern to a server that pushes nothing are ignored."""
        # The last value of each is what holds in the end; going through all streams for each one would be a weapon.
        for name, value in dict(settings).items():
            if name == frames.SETTINGS_MAX_FRAME_SIZE:
                self.frame_bytes_max = value
            elif name == frames.SETTINGS_INITIAL_WINDOW_SIZE:
                self._change_initial_window(value)
        self._update_small_bytes_max()

    def _change_initial_window(self, size: int) -> None:
        self.initial_window = size
        for stream in self.streams.values():
            if size + stream.window_delta > frames.WINDOW_BYTES_MAX:
                raise ConnectionFaultError(ErrorCode.FLOW_CONTROL_ERROR, "a stream window overflows")
            if stream.queue:
                self.enqueue(stream)

    def _update_small_bytes_max(self) -> None:
        self.small_bytes_max = min(self.initial_window, self.frame_bytes_max) if self.writable else -1

    def _pump(self) -> None:
        """Give each pending stream a frame in turn, for as long as the connection's window and the socket allow."""
        pending = self.pending
        collected = written = 0
        while pending and self.writable and self.send_window > 0:
            if written >= TURN_BYTES_MAX:
                self.hold()  # go on in the next turn
                break
            stream = pending.popleft()
            room = min(self.send_window, self.initial_window + stream.window_delta, self.frame_bytes_max)
            if room <= 0 or not stream.queue:
                stream.is_pending = False
                continue
            collected += stream.send_queued(room)
            if stream.queue:
                pending.append(stream)
            else:
                stream.is_pending = False
                stream.drained()
            if collected >= WRITE_BYTES_MAX:
                self._write()
                written += collected
                collected = 0

    def _write(self) -> None:
        chunk = b"".join(self.out)
        self.out.clear()
        if not self.ended and not self.transport.is_closing():
            self.transport.write(chunk)

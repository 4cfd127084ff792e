"""gRPC calls on HTTP/2 streams: what all calls share, and the native engine's Call.

A unary reply that fits the windows, which is nearly every one, is three pieces appended to the connection's output:
headers and DATA header as one packed constant, the message, the packed trailers.  Spec: net/rpc.py for services,
PROTOCOL-HTTP2.md for the wire; where they are silent, grpc-go's behaviour.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from net.http2 import frames
from net.http2.messages import (
    MESSAGE_PREFIX,
    RESPONSE_BLOCK,
    TRAILERS_OK_BLOCK,
    MessageFaultError,
    MessageReader,
    prefixed,
    trailers_frame,
)
from net.http2.stream import Http2Stream
from net.rpc import OK, Code, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from net.http2.dispatch import Dispatch
    from net.http2.request import Request

_REPLY: Final = Struct(f">IBI{len(RESPONSE_BLOCK)}sIBIBI")
"""HEADERS with the response block, then the header of a DATA frame and the prefix of the message in it."""

_TRAILERS_OK: Final = Struct(f">IBI{len(TRAILERS_OK_BLOCK)}s")

_RESPONSE_HEAD: Final = len(RESPONSE_BLOCK) << 8 | frames.HEADERS
_TRAILERS_HEAD: Final = len(TRAILERS_OK_BLOCK) << 8 | frames.HEADERS

_pack_reply: Final = _REPLY.pack
_pack_trailers_ok: Final = _TRAILERS_OK.pack

UNCOPIED_BYTES_MIN: Final = 1 << 20
"""A larger message is not copied behind its prefix: 30 MB take 10 ms and more."""

DEADLINE: Final = Status(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
_HANDLER_RAISED: Final = Status(Code.INTERNAL, "internal error")
_NO_MESSAGE: Final = Status(
    Code.INTERNAL, "cardinality violation: received no request message from non-client-streaming RPC"
)
_SEVERAL_MESSAGES: Final = Status(
    Code.INTERNAL, "cardinality violation: received multiple request messages for non-client-streaming RPC"
)
TORN_MESSAGE: Final = Status(Code.INTERNAL, "unexpected EOF")


class GrpcCall(Http2Stream):
    """What unary and streaming calls share: who called, and how the call ends."""

    headers_sent = False
    buffered_bytes = 0
    cutter: MessageReader | None = None

    def __init__(self, connection: Dispatch, stream_id: int, request: Request, deadline_s: float | None) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.request = request
        self.deadline_s = deadline_s
        request.tally.started += 1

    @property
    def reader(self) -> MessageReader:
        """Cuts the request; made when DATA comes that is not a whole request in one piece."""
        if self.cutter is None:
            bytes_max = self.connection.commons.limits.receive_message_bytes_max
            self.cutter = MessageReader(self.request.encoding, bytes_max)
        return self.cutter

    @property
    def method(self) -> str:
        """The full path."""
        return self.request.path

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """Request metadata; bytes that are not UTF-8 come as lone surrogates."""
        return self.request.metadata()

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.connection.peername

    @property
    def common_name(self) -> str | None:
        """The subject CN of the client's certificate."""
        return self.connection.common_name

    def expired(self, now_s: float) -> None:
        """End the call at its deadline; the wheel's call."""
        del now_s
        self.bucket = None
        self.abort(DEADLINE)

    def raised(self, error: Exception) -> None:
        """Answer for a service that raised, and report it: that is a bug of ours."""
        self.abort(_HANDLER_RAISED)
        self.connection.commons.fatal(error)

    def abort(self, status: Status) -> None:
        """End the call with *status*, ahead of anything that still waits to be sent."""
        if self.done:
            return
        self.drop_queue()
        self.conclude(status)

    def count_buffered(self, held_bytes: int) -> None:
        """Have the connection count what of the request is held back in here."""
        self.connection.buffered_bytes += held_bytes - self.buffered_bytes
        self.buffered_bytes = held_bytes

    def conclude(self, status: Status) -> None:
        """End our side with *status* behind what is queued."""
        self.done = True
        self.request.tally.end(status.code)
        self.count_buffered(0)
        if self.bucket is not None:
            self.bucket.pop(self, None)
            self.bucket = None
        self.finish_with(trailers_frame(self.stream_id, status, alone=not self.headers_sent))

    def send_headers(self) -> None:
        """Send the response headers, which flow control does not concern."""
        self.headers_sent = True
        self.connection.out.append(frames.frame(frames.HEADERS, frames.END_HEADERS, self.stream_id, RESPONSE_BLOCK))
        self.connection.hold()

    def lost(self, status: Status) -> None:
        """Take note that the client has gone."""
        if not self.done:
            self.request.tally.end(status.code)
        self.done = True
        self.count_buffered(0)
        if self.bucket is not None:
            self.bucket.pop(self, None)
            self.bucket = None


class UnaryCall(GrpcCall):
    """A unary call in flight."""

    fresh = True
    """Whether nothing of the request has come but its headers."""
    message: bytes | None = None
    """The request, once it is complete and until the client has ended."""
    abandoned: Callable[[], None] | None = None
    """Who wants to know if the call ends without an answer."""

    def reply(self, message: bytes) -> None:
        """Answer with OK and *message*."""
        if self.done:
            return
        connection = self.connection
        size = len(message) + 5
        tally = self.request.tally
        tally.sent_bytes += size - 5
        if size > connection.small_bytes_max or size > connection.send_window or self.remote_open:
            self.send_headers()
            if size > UNCOPIED_BYTES_MIN:
                self.send_data(MESSAGE_PREFIX.pack(0, len(message)))
                self.send_data(message)
            else:
                self.send_data(prefixed(message))
            self.conclude(OK)
            return
        self.done = True
        tally.replied += 1
        if self.bucket is not None:
            self.bucket.pop(self, None)
        stream_id = self.stream_id
        connection.send_window -= size
        connection.strikes_pardoned = True
        connection.out += (
            _pack_reply(_RESPONSE_HEAD, 4, stream_id, RESPONSE_BLOCK, size << 8, 0, stream_id, 0, size - 5),
            message,
            _pack_trailers_ok(_TRAILERS_HEAD, 5, stream_id, TRAILERS_OK_BLOCK),
        )
        streams = connection.streams
        del streams[stream_id]
        if not streams and connection.goaway_id is not None:
            connection.forget(self)
        if not connection.holding:
            connection.hold()

    def fail(self, status: Status) -> None:
        """Answer with *status* and no message."""
        if not self.done:
            self.conclude(status)

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """Call *then* if it ends without an answer."""
        self.abandoned = then

    def abort(self, status: Status) -> None:
        """End the call with *status*; whoever was to answer hears of it."""
        self._tell_abandoned()
        super().abort(status)

    def lost(self, status: Status) -> None:
        """Take note that the client has gone."""
        self._tell_abandoned()
        super().lost(status)

    def _tell_abandoned(self) -> None:
        # Not from in here: the service may be in the middle of its own call.
        if self.abandoned is not None and not self.done:
            self.connection.commons.soon(self.abandoned)

    def receive_whole(self, message: bytes) -> None:
        """Hand over a request that came in one DATA frame, which the client ended with it."""
        self.fresh = False
        self.remote_open = False
        unary = self.request.unary
        assert unary is not None, self.request.path
        self.request.tally.received_bytes += len(message)
        try:
            unary(self, message)
        except Exception as error:  # noqa: BLE001  # a bug of the service, reported by raised
            self.raised(error)

    def receive(self, payload: bytes, ended: bool) -> None:
        """Collect the one message; hand it over when the client has ended."""
        self.fresh = False
        if self.done:
            return
        reader = self.reader
        try:
            reader.feed(payload)
            if self.message is None:
                self.message = reader.read()
        except MessageFaultError as fault:
            self._refuse(fault.status)
            return
        if self.message is not None and reader.held_bytes:
            self._refuse(_SEVERAL_MESSAGES)
        elif ended:
            self._deliver()
        else:
            self.count_buffered(reader.held_bytes + len(self.message or b""))
            self.grant()

    def _refuse(self, status: Status) -> None:
        """End a call whose request is none, so that its method will not hear of it."""
        on_refused = self.connection.commons.routes.on_refused
        if on_refused is not None:
            on_refused(self, status)
        self.abort(status)

    def _deliver(self) -> None:
        self.count_buffered(0)
        if self.message is None:
            self._refuse(TORN_MESSAGE if self.reader.held_bytes else _NO_MESSAGE)
            return
        message, self.message = self.message, None
        self.receive_whole(message)

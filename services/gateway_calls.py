"""Calls and streams that come as JSON: net.rpc's Call and Stream over an HTTP answer.

Services cannot tell them from gRPC's, but for the metadata that says that a gateway carries them.  A unary answer is
one JSON object; a stream's messages go out as ``{"result":...}`` lines, each in an HTTP chunk of its own, which is what
clients cut them by.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from net.rpc import OK, Code, Status, message_too_large
from services.gateway_json import encode, string

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.message import Message

    from net.rpc import HttpRequest, HttpResponder, StreamHandler
    from net.tally import Tally
    from services.node import Node

LARGE_BYTES: Final = 64 * 1024
"""Answers from this size on are turned into JSON by a worker: it takes some 20 ns a byte, more for small keys."""

JSON_TYPE: Final = ("content-type", "application/json")
FORWARDED: Final = (JSON_TYPE, ("grpc-metadata-content-type", "application/grpc"))
"""Headers of what a service has answered, rather than the gateway."""

DEADLINE: Final = Status(Code.DEADLINE_EXCEEDED, "context deadline exceeded")
CANCELED: Final = Status(Code.CANCELLED, "context canceled")

HTTP_STATUS: Final[Mapping[Code, int]] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


def refuse(responder: HttpResponder, status: Status) -> None:
    """Answer with *status* as the gateway gives it."""
    headers = [JSON_TYPE]
    if status.code is Code.UNAUTHENTICATED and status.message.isascii() and status.message.isprintable():
        headers.append(("www-authenticate", status.message))
    responder.reply(HTTP_STATUS[status.code], headers, error_body(status))


def error_body(status: Status) -> bytes:
    """Return the body that says *status*."""
    text = string(status.message)
    return f'{{"error":{text},"code":{int(status.code)},"message":{text}}}'.encode()


class GatewayContext:
    """Who called, by the HTTP request."""

    common_name: str | None = None
    """The certificate is the client's, not the caller's: it names nobody here."""

    def __init__(
        self,
        node: Node,
        method: str,
        metadata: Mapping[str, Sequence[str]],
        request: HttpRequest,
        timeout_s: float,
        tally: Tally,
    ) -> None:
        """Wait for *timeout_s* seconds at most; 0 is for ever."""
        self.method = method
        self.metadata = metadata
        self.tally = tally
        tally.started += 1
        self.peer = request.peer
        self.deadline_s: float | None = None
        self._cancel_deadline: Callable[[], None] = _nothing
        if timeout_s:
            self.deadline_s, self._cancel_deadline = node.at_deadline(timeout_s, self.expired)

    def expired(self) -> None:
        """End at the deadline."""
        raise NotImplementedError


class GatewayCall(GatewayContext):
    """A unary call."""

    def __init__(
        self,
        node: Node,
        method: str,
        metadata: Mapping[str, Sequence[str]],
        request: HttpRequest,
        timeout_s: float,
        tally: Tally,
        responder: HttpResponder,
        answer: type[Message],
    ) -> None:
        self._ended = False
        self._abandoned: Callable[[], None] = _nothing
        self._node = node
        self._responder = responder
        self._answer = answer
        super().__init__(node, method, metadata, request, timeout_s, tally)

    @property
    def done(self) -> bool:
        """Whether it was answered, or its client has gone."""
        return self._ended or self._responder.done

    def reply(self, message: bytes) -> None:
        """Answer with OK and *message*."""
        if not self._end(OK):
            return
        self.tally.sent_bytes += len(message)
        if len(message) < LARGE_BYTES:
            self._responder.reply(200, FORWARDED, as_json(self._answer, message))
        else:
            self._node.work(_Encoded(self._responder), lambda: as_json(self._answer, message))

    def fail(self, status: Status) -> None:
        """Answer with *status*."""
        if self._end(status):
            refuse(self._responder, status)

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """Call *then* if it ends without an answer."""
        self._abandoned = then
        self._responder.follow(_nothing, self._left)

    def expired(self) -> None:
        """End at the deadline."""
        if not self._ended:
            self.fail(DEADLINE)
            self._abandoned()

    def _left(self) -> None:
        if self._end(CANCELED):
            self._abandoned()

    def _end(self, status: Status) -> bool:
        if self._ended:
            return False
        self._ended = True
        self.tally.end(status.code)
        self._cancel_deadline()
        return True


class _Encoded:
    """Takes JSON from the worker."""

    def __init__(self, responder: HttpResponder) -> None:
        self._responder = responder

    @property
    def done(self) -> bool:
        """See Answerable."""
        return self._responder.done

    def reply(self, body: bytes) -> None:
        """See Answerable."""
        self._responder.reply(200, FORWARDED, body)

    def fail(self, status: Status) -> None:
        """See Answerable."""
        refuse(self._responder, status)


class GatewayStream(GatewayContext):
    """The server's half of a streaming call.  The client's messages have all come with the request."""

    def __init__(
        self,
        node: Node,
        method: str,
        metadata: Mapping[str, Sequence[str]],
        request: HttpRequest,
        timeout_s: float,
        tally: Tally,
        responder: HttpResponder,
        answer: type[Message],
        *,
        message_bytes_max: int,
    ) -> None:
        self._message_bytes_max = message_bytes_max
        self._responder = responder
        self._answer = answer
        self._handler: StreamHandler | None = None
        self._waiting: deque[bytes] = deque()
        self._paused = False
        self._half_closed = False
        self._started = False
        self._ended: Status | None = None
        self.on_room: Callable[[], None] = _nothing
        """Called when all messages of a live stream are delivered."""
        super().__init__(node, method, metadata, request, timeout_s, tally)

    def open(self, handler: StreamHandler, messages: Sequence[bytes], *, live: bool = False) -> None:
        """Let *handler* serve it, beginning with *messages*, behind which the client has ended its half.

        A *live* one has not: see more.
        """
        self._handler = handler
        self._half_closed = live
        self._waiting = deque(messages)
        self._responder.follow(self._drained, self._left)
        if self._ended is not None:
            handler.on_closed(self._ended)
        else:
            self._deliver()

    def more(self, message: bytes) -> None:
        """Take another message of a live stream."""
        if self._ended is None:
            self._waiting.append(message)
            self._deliver()

    @property
    def is_full(self) -> bool:
        """Whether messages wait to be delivered."""
        return bool(self._waiting)

    def send(self, message: bytes) -> None:
        """Send one line."""
        if self._ended is None:
            self._start(200, FORWARDED)
            self.tally.sent += 1
            self.tally.sent_bytes += len(message)
            self._responder.write(b'{"result":' + as_json(self._answer, message) + b"}\n")

    def finish(self, status: Status = OK) -> None:
        """End the stream, with a line that says why if it is not OK."""
        if self._ended is not None:
            return
        self._ended = status
        self.tally.end(status.code)
        self._cancel_deadline()
        if status.code is Code.OK:
            self._start(200, FORWARDED)
            self._responder.end()
        elif not self._started:
            refuse(self._responder, status)
        else:
            self._responder.write(stream_error(status))
            self._responder.end()
        if self._handler is not None:
            self._handler.on_closed(status)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the client does not take."""
        return self._responder.unsent_bytes

    def pause_reading(self) -> None:
        """Deliver no further message until resume_reading."""
        self._paused = True

    def resume_reading(self) -> None:
        """Undo pause_reading."""
        self._paused = False
        self._deliver()

    def expired(self) -> None:
        """End at the deadline."""
        self.finish(DEADLINE)

    def _start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        if not self._started:
            self._started = True
            self._responder.start(status, headers)

    def _deliver(self) -> None:
        handler = self._handler
        assert handler is not None, self.method
        while self._waiting and not self._paused and self._ended is None:
            message = self._waiting.popleft()
            if len(message) > self._message_bytes_max:
                self.finish(message_too_large(len(message), self._message_bytes_max))
                return
            self.tally.received += 1
            self.tally.received_bytes += len(message)
            handler.on_message(message)
        if not self._waiting and not self._paused and self._ended is None and not self._half_closed:
            self._half_closed = True
            handler.on_half_close()
        if not self._waiting:
            self.on_room()

    def _drained(self) -> None:
        if self._handler is not None and self._ended is None:
            self._handler.on_drained()

    def _left(self) -> None:
        if self._ended is None:
            self._ended = CANCELED
            self.tally.end(CANCELED.code)
            self._cancel_deadline()
            if self._handler is not None:
                self._handler.on_closed(CANCELED)


def stream_error(status: Status) -> bytes:
    """Return the last line of a stream that fails: with the names of both generations of gateways."""
    text = string(status.message)
    code, http_status = int(status.code), HTTP_STATUS[status.code]
    return (
        f'{{"error":{{"grpc_code":{code},"http_code":{http_status},"code":{code},"message":{text},'
        f'"http_status":{string(HTTP_PHRASE.get(http_status, ""))}}}}}\n'
    ).encode()


HTTP_PHRASE: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def as_json(kind: type[Message], message: bytes) -> bytes:
    """Return the JSON of a message of our own making."""
    try:
        return encode(kind.FromString(message)).encode()
    except DecodeError as error:
        raise AssertionError(f"a service has answered with what is no {kind.DESCRIPTOR.full_name}") from error


def _nothing() -> None:
    """Cancel nothing."""

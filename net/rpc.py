"""Calls and streams as services see them, whatever engine carries them.

Two engines implement this page: net/http2 (native) and net/grpcio_engine.  A service never learns which one drives
it.  All of it belongs to one listener's loop thread: no method here may be called from another thread.

Messages are the bytes of one protobuf message, without gRPC's five-byte prefix and already decompressed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from net.tally import Tallies

if TYPE_CHECKING:
    from net.websocket import WebSocket


class Code(IntEnum):
    """gRPC status codes (on the wire: never renumber)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ended: a gRPC code and a text for people (any Unicode; the engine percent-encodes it)."""

    code: Code
    message: str = ""


OK = Status(Code.OK)


def message_too_large(size_bytes: int, bytes_max: int) -> Status:
    """Return the status for a message above the limit, in grpc-go's words."""
    return Status(Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size_bytes} vs. {bytes_max})")


class Context(Protocol):
    """What both kinds of call can tell about who called.  Attributes cost nothing until they are read."""

    @property
    def method(self) -> str:
        """The full path, such as ``/etcdserverpb.KV/Put``."""

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """Request metadata by lower-case name; ``-bin`` values are left in base64."""

    @property
    def peer(self) -> str:
        """The client's address, ``host:port`` or the path of a unix socket."""

    @property
    def common_name(self) -> str | None:
        """The subject CN of the verified client certificate, if one was given."""

    @property
    def deadline_s(self) -> float | None:
        """When the client stops waiting, on the loop's clock (``loop.time()``); None if it never does."""


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """What there is to know of a call that never became one; a Context."""

    method: str
    metadata: Mapping[str, Sequence[str]]
    peer: str
    common_name: str | None = None
    deadline_s: float | None = None


class Call(Context, Protocol):
    """A unary call in flight.  Ends by exactly one reply or fail; later ones are ignored (the client has left)."""

    @property
    def done(self) -> bool:
        """Whether it has ended: answered, cancelled by the client, past its deadline, or its connection is gone."""

    def reply(self, message: bytes) -> None:
        """Answer with OK and *message*."""

    def fail(self, status: Status) -> None:
        """Answer with *status* (not OK) and no message."""

    def when_abandoned(self, then: Callable[[], None]) -> None:
        """Call *then* once if it ends without an answer: its client gives up, goes, or has waited long enough.

        For calls that wait on others and have something to undo; the last one given counts.
        """


class Stream(Context, Protocol):
    """The server's half of a streaming call."""

    def send(self, message: bytes) -> None:
        """Queue *message*; never blocks.  After the end it is ignored."""

    def finish(self, status: Status = OK) -> None:
        """Send what is queued, then end the stream with *status*."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes queued here because of flow control or a slow socket.  A service must stop sending when this grows."""

    def pause_reading(self) -> None:
        """Deliver no further message until resume_reading (flow control then stops the client)."""

    def resume_reading(self) -> None:
        """Undo pause_reading."""


class StreamHandler(Protocol):
    """The service's half of a streaming call; the engine calls it, on the loop's thread."""

    def on_message(self, message: bytes) -> None:
        """Take one message of the client."""

    def on_half_close(self) -> None:
        """Notice that the client will send no more (it still listens)."""

    def on_drained(self) -> None:
        """Notice that unsent_bytes has come down to zero after it was not."""

    def on_closed(self, status: Status) -> None:
        """Notice the end, whoever brought it about; called exactly once, the last call of all."""


UnaryMethod = Callable[[Call, bytes], None]
"""Handles a unary call, given the request's bytes.  Must not raise on anything that a client can send."""

StreamMethod = Callable[[Stream], StreamHandler]
"""Opens a streaming call of any kind: a server stream's one request arrives as its first message."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Every gRPC method of a listener by full path.  A path in neither table is answered UNIMPLEMENTED, in grpc-go's
    words: ``unknown service S`` or ``unknown method M for service S``."""  # noqa: D205, D209

    unary: Mapping[str, UnaryMethod]
    streams: Mapping[str, StreamMethod]
    tallies: Tallies = field(default_factory=Tallies, compare=False)
    """Where calls of these methods are counted."""
    on_refused: Callable[[Context, Status], None] | None = field(default=None, compare=False)
    """Told of calls that are refused before they reach a method, where somebody wants to know."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP/1.1 request with its whole body, or one made over HTTP/2 without gRPC's content type."""

    method: str
    path: str
    """Without the query, percent-decoded."""
    query: str
    headers: Mapping[str, str]
    """Lower-case names; repeated ones joined by ``, ``."""
    body: bytes
    peer: str
    secure: bool
    common_name: str | None


class HttpResponder(Protocol):
    """The answer to one HTTP request: whole, or in chunks."""

    @property
    def done(self) -> bool:
        """Whether the answer is complete or its client has gone."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait because the client does not read.  Whoever writes without end must stop when this grows."""

    def follow(self, on_drained: Callable[[], None], on_closed: Callable[[], None]) -> None:
        """Hear of the client of an answer that has no end by itself.

        *on_drained* is called when much was unsent and no longer is, *on_closed* once if the client goes before the end
        of the answer; one that ends its own half has gone.
        """

    def reply(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer at once; content-length is added."""

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Begin a chunked answer."""

    def write(self, chunk: bytes) -> None:
        """Send one chunk, as one HTTP chunk."""

    def end(self) -> None:
        """Finish a chunked answer."""

    def upgrade(
        self,
        headers: Sequence[tuple[str, str]],
        on_message: Callable[[bytes], None],
        on_drained: Callable[[], None],
        on_closed: Callable[[], None],
    ) -> WebSocket | None:
        """Answer with 101 and *headers*, and speak WebSocket from here on; None where the connection cannot.

        *on_message* gets each message, *on_drained* is called when much was unsent and no longer is, *on_closed* once.
        """


HttpHandler = Callable[[HttpRequest, HttpResponder], None]
"""Answers one HTTP request, now or later, on the loop's thread."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one listener accepts.  Defaults are etcd's where etcd has the limit."""

    receive_message_bytes_max: int = 1_572_864 + 512 * 1024
    concurrent_streams_max: int = 0xFFFFFFFF
    """Per connection, as announced in SETTINGS."""
    header_list_bytes_max: int = 64 * 1024
    """Of one request's decoded headers over HTTP/2 (RFC 9113 6.5.2 counting).  What the standard codes of HPACK cost to
    read is why it is not etcd's 16 MiB."""
    http_head_bytes_max: int = 1024 * 1024 + 4096
    """Of one HTTP/1.1 request's line and headers."""
    http_body_bytes_max: int = 4 * 1024 * 1024
    """Of one plain HTTP request; JSON needs more room than the message it stands for."""
    connections_max: int = 100_000
    header_timeout_s: float = 10.0
    """From accept to the end of the TLS handshake, and again to the end of a request's headers, once they have begun.
    A client of HTTP/2 has to send its SETTINGS in this time and may then be idle."""
    keepalive_min_time_s: float = 5.0
    """Pings closer than this are strikes; three strikes get GOAWAY ENHANCE_YOUR_CALM ``too_many_pings``."""
    keepalive_interval_s: float = 7200.0
    """After this long without a frame the server pings; 0 = never."""
    keepalive_timeout_s: float = 20.0
    """An unanswered ping ends the connection after this; 0 = never."""

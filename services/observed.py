"""Seeing every call of a listener as it ends, for those who keep a record of them.

Only a listener of which that is asked has its routes wrapped so; all others pay nothing.  What is kept of a call is its
request and the beginning of its answer, where the header stands; reading them is left to whoever wants to know.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from google.protobuf.message import DecodeError

from core.auth.rules import NOBODY, Identity
from net.rpc import OK, Code, Routes, Status
from proto.rpc_pb2 import WatchRequest, WatchResponse
from services.identity import ForwardedCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.clock import Clock
    from core.errors import EtcdError
    from net.rpc import Call, Context, Stream, StreamHandler, StreamMethod, UnaryMethod
    from services.node import Node

HEADER_BYTES_MAX: Final = 64
"""An answer's header is in so many of its first bytes."""

NAME_CHARACTERS_MAX: Final = 256
"""Of a method, which may be one that its caller has made up."""

WATCH: Final = "/etcdserverpb.Watch/Watch"


class CallSeen(NamedTuple):
    """One call that has ended, or one watch that was asked for."""

    ended_s: float
    """Seconds since 1970."""
    took_s: float
    method: str
    peer: str
    by_gateway: bool
    user: str
    """Empty where nobody was named, or auth is off."""
    common_name: str
    request: bytes
    """Of a stream the first message, of a watch the message that asked for it."""
    answer: bytes
    """Its first bytes."""
    status: Status
    client_left: bool
    """Whether the client did not wait for this end."""


class Observer:
    """Wraps the routes of a listener so that *seen* is called with each call that ends, on the listener's loop.

    Calls that reach no method are not among the routes: refused() is to be told of them.
    """

    def __init__(self, node: Node, clock: Clock, seen: Callable[[CallSeen], None]) -> None:
        self.node = node
        self.clock = clock
        self.seen = seen

    def observed(self, routes: Routes) -> Routes:
        """Return *routes*, each call of which is seen."""
        return Routes(
            {path: self._unary(method) for path, method in routes.unary.items()},
            {path: self._stream(method) for path, method in routes.streams.items()},
            routes.tallies,
        )

    def refused(self, context: Context, status: Status) -> None:
        """See a call that was refused before it reached a method; what it would have asked for is not known."""
        _Who(self, context).tell(b"", b"", Status(status.code, status.message[:NAME_CHARACTERS_MAX]))

    def _unary(self, method: UnaryMethod) -> UnaryMethod:
        def seen(call: Call, payload: bytes) -> None:
            method(_SeenCall(call, _Who(self, call), payload), payload)

        return seen

    def _stream(self, method: StreamMethod) -> StreamMethod:
        def seen(stream: Stream) -> StreamHandler:
            watched = _SeenStream(stream, _Who(self, stream))
            watched.open(method)
            return watched

        return seen


class _Who:
    """Who called, from where, and since when."""

    def __init__(self, observer: Observer, context: Context) -> None:
        self._observer = observer
        self._context = context
        self._since_s = observer.clock.monotonic_s()
        self._user = ""
        if observer.node.auth.enabled:
            observer.node.identify(context, self._name, self._nobody)

    def tell(self, request: bytes, answer: bytes, status: Status, *, client_left: bool = False) -> None:
        """Tell the observer how it ended."""
        context, clock = self._context, self._observer.clock
        seen = CallSeen(
            ended_s=clock.wall_s(),
            took_s=clock.monotonic_s() - self._since_s,
            method=context.method[:NAME_CHARACTERS_MAX],
            peer=context.peer,
            by_gateway="grpcgateway-accept" in context.metadata,
            user=self._user,
            common_name=context.common_name or "",
            request=request,
            answer=answer[:HEADER_BYTES_MAX],
            status=status,
            client_left=client_left,
        )
        self._observer.seen(seen)

    def _name(self, identity: Identity) -> None:
        self._user = "" if identity == NOBODY else identity.user

    def _nobody(self, _error: EtcdError) -> None:
        """Leave the name empty: the method itself refuses a bad token."""


class _SeenCall(ForwardedCall):
    """A unary call whose end is seen, even one that its client no longer waits for: what it did is done."""

    def __init__(self, call: Call, who: _Who, request: bytes) -> None:
        super().__init__(call)
        self._who = who
        self._request = request
        self._ended = False

    def reply(self, message: bytes) -> None:
        """See Call."""
        self._end(message, OK)
        self._call.reply(message)

    def fail(self, status: Status) -> None:
        """See Call."""
        self._end(b"", status)
        self._call.fail(status)

    def _end(self, answer: bytes, status: Status) -> None:
        if not self._ended:
            self._ended = True
            self._who.tell(self._request, answer, status, client_left=self._call.done)


class _SeenStream:
    """Both halves of a stream: what the service sends and what it is told go through here."""

    def __init__(self, stream: Stream, who: _Who) -> None:
        self._stream = stream
        self._who = who
        self._handler: StreamHandler
        self._is_watch = stream.method == WATCH
        self._creates: deque[bytes] = deque()
        """Watches that were asked for, and of which is not known yet what became of them."""
        self._first: bytes | None = None
        self._told = False

    def open(self, method: StreamMethod) -> None:
        """Let the service open its half."""
        self._handler = method(self)

    # -- the service's view: see Stream

    @property
    def method(self) -> str:
        """See Context."""
        return self._stream.method

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """See Context."""
        return self._stream.metadata

    @property
    def peer(self) -> str:
        """See Context."""
        return self._stream.peer

    @property
    def common_name(self) -> str | None:
        """See Context."""
        return self._stream.common_name

    @property
    def deadline_s(self) -> float | None:
        """See Context."""
        return self._stream.deadline_s

    @property
    def unsent_bytes(self) -> int:
        """See Stream."""
        return self._stream.unsent_bytes

    def send(self, message: bytes) -> None:
        """See Stream."""
        if self._creates:
            self._look_for_created(message)
        self._stream.send(message)

    def finish(self, status: Status = OK) -> None:
        """See Stream."""
        self._stream.finish(status)

    def pause_reading(self) -> None:
        """See Stream."""
        self._stream.pause_reading()

    def resume_reading(self) -> None:
        """See Stream."""
        self._stream.resume_reading()

    # -- the engine's view: see StreamHandler

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""
        if self._first is None:
            self._first = message
        if self._is_watch and asks_to_watch(message):
            self._creates.append(message)
        self._handler.on_message(message)

    def on_half_close(self) -> None:
        """See StreamHandler."""
        self._handler.on_half_close()

    def on_drained(self) -> None:
        """See StreamHandler."""
        self._handler.on_drained()

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
        for request in self._creates:
            self._tell(request, b"", status)
        if not self._told:
            self._tell(self._first or b"", b"", status)
        self._handler.on_closed(status)

    def _look_for_created(self, message: bytes) -> None:
        response = WatchResponse.FromString(message)
        if response.created:
            refused = Status(Code.PERMISSION_DENIED, response.cancel_reason) if response.canceled else OK
            self._tell(self._creates.popleft(), message, refused)

    def _tell(self, request: bytes, answer: bytes, status: Status) -> None:
        self._told = True
        self._who.tell(request, answer, status)


def asks_to_watch(message: bytes) -> bool:
    """Whether this is a request for a watch (what cannot be read ends the stream, and is seen then)."""
    try:
        return WatchRequest.FromString(message).HasField("create_request")
    except DecodeError:
        return False

"""What an extension receives, and what it and the listeners tell the actor that looks after extensions.

Whatever an extension asks for comes back as one of the first group, on its own thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.metrics import Measure
from actors.messages.raft import RoleIs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.message import Message

    from actors.address import AnyDelivery
    from core.auth.rules import Identity
    from net.rpc import Call, HttpRequest, HttpResponder, Routes, Status, Stream
    from proto.rpc_pb2 import WatchResponse
    from services.observed import CallSeen

# -- to an extension -----------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """How a call ended that the extension made under *token*: by a response, or by the status that refused it."""

    token: int
    response: Message | None
    status: Status


class WatchSaid(NamedTuple):
    """The watch *token* has events, was created, or tells how far it has come."""

    token: int
    response: WatchResponse


class StreamSaid(NamedTuple):
    """One message of the stream *token*."""

    token: int
    message: bytes


class StreamEnded(NamedTuple):
    """The stream *token*, or the watch, is over."""

    token: int
    status: Status
    compact_revision: int = 0
    """Of a watch that wanted history which is no more: what is left begins here."""


class CallsSeen(NamedTuple):
    """Calls of clients that have ended since the last time, oldest first."""

    calls: Sequence[CallSeen]
    lost: int
    """How many more there were, which the extension was too slow to be told of."""


class HttpAsked(NamedTuple):
    """A client asks for one of the extension's pages; answer with ``node.answer_http``."""

    ticket: int
    request: HttpRequest
    identity: Identity
    """Who asks; NOBODY while auth is off."""


class Called(NamedTuple):
    """A client calls one of the extension's gRPC methods; answer with ``node.answer`` or ``node.refuse``."""

    ticket: int
    method: str
    payload: bytes
    peer: str
    identity: Identity


class StreamOpened(NamedTuple):
    """A client opens one of the extension's streams; use ``node.say`` and ``node.finish``."""

    ticket: int
    method: str
    peer: str
    identity: Identity


class StreamHeard(NamedTuple):
    """A client sends a message on a stream that it has opened."""

    ticket: int
    payload: bytes


class StreamHeardAll(NamedTuple):
    """The client will send no more on the stream; it still listens."""

    ticket: int


class StreamLeft(NamedTuple):
    """The stream that a client has opened is over, whoever ended it."""

    ticket: int
    status: Status


ExtensionMessage = (
    Answer
    | WatchSaid
    | StreamSaid
    | StreamEnded
    | CallsSeen
    | HttpAsked
    | Called
    | StreamOpened
    | StreamHeard
    | StreamHeardAll
    | StreamLeft
    | RoleIs
)

# -- to the actor that looks after them ----------------------------------------------------------------------------


class StartExtensions(NamedTuple):
    """The node serves: start them, in their order."""


class StopExtensions(NamedTuple):
    """Stop them, last started first, then send *after*."""

    after: AnyDelivery


class RoutesAre(NamedTuple):
    """The methods that extensions may call, on the loop that this actor shares with those who serve them."""

    routes: Routes


class MakeCall(NamedTuple):
    """An extension in its *life* calls a unary method."""

    life: int
    token: int
    method: str
    payload: bytes
    wrap: Callable[[bytes | Status], object]


class OpenStream(NamedTuple):
    """An extension opens a stream."""

    life: int
    token: int
    method: str
    wrap: Callable[[bytes | Status], object]


class SendToStream(NamedTuple):
    """An extension sends on one of its streams; *last* if nothing will follow."""

    life: int
    token: int
    payload: bytes
    last: bool = False


class CloseStream(NamedTuple):
    """An extension wants no more of a stream."""

    life: int
    token: int


class Taken(NamedTuple):
    """An extension has handled what it was told: so many bytes of the stream *token* (0: of none).

    A client's stream is named by its ticket, below zero.
    """

    life: int
    token: int
    size_bytes: int
    kind: type


class AnswerAsked(NamedTuple):
    """An extension answers what it was asked."""

    life: int
    ticket: int
    answer: Callable[[Call | HttpResponder], None]


class ExtensionStarted(NamedTuple):
    """Its setup has run."""

    life: int


class ExtensionEnded(NamedTuple):
    """Its thread is at its end, by a crash if there is an *error*."""

    life: int
    error: BaseException | None


class StartAgain(NamedTuple):
    """The back-off of the extension *number* is over."""

    number: int


class StillStarting(NamedTuple):
    """This life has had time enough to begin."""

    life: int


class StopNext(NamedTuple):
    """This life had its share of the time that a stop may take: the next one need not wait for it."""

    life: int


class GiveUpStopping(NamedTuple):
    """All had the time that a stop may take."""


class AskedHttp(NamedTuple):
    """A listener of the same loop has a request for a page of the extension *number*."""

    number: int
    request: HttpRequest
    identity: Identity
    responder: HttpResponder


class AskedCall(NamedTuple):
    """A listener of the same loop has a call of a method of the extension *number*."""

    number: int
    call: Call
    payload: bytes
    identity: Identity


class AskedStream(NamedTuple):
    """A client has opened a stream of the extension *number* at a listener of the same loop."""

    number: int
    stream: Stream
    identity: Identity


class ClientSaid(NamedTuple):
    """The client of a stream has sent a message; None: it will send no more."""

    stream: Stream
    message: bytes | None


class ClientLeft(NamedTuple):
    """A stream that a client has opened is over."""

    stream: Stream
    status: Status


class SayToClient(NamedTuple):
    """An extension sends on a stream that a client has opened; a *status* ends it."""

    life: int
    ticket: int
    message: bytes
    status: Status | None = None


class Saw(NamedTuple):
    """A client's call has ended."""

    call: CallSeen


class Describe(NamedTuple):
    """Call *then* with how the extensions are, on the loop that this actor shares with the listeners."""

    then: Callable[[Sequence[dict[str, object]]], None]


GateMessage = (
    StartExtensions
    | StopExtensions
    | RoutesAre
    | MakeCall
    | OpenStream
    | SendToStream
    | CloseStream
    | Taken
    | AnswerAsked
    | ExtensionStarted
    | ExtensionEnded
    | StartAgain
    | StillStarting
    | StopNext
    | GiveUpStopping
    | AskedHttp
    | AskedCall
    | AskedStream
    | ClientSaid
    | ClientLeft
    | SayToClient
    | Saw
    | Describe
    | RoleIs
    | Measure
)

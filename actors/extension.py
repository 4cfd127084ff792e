"""ExtensionActor, which every extension is one of, and NodeApi, which is all that it has of its node.

An extension lives on a thread of its own, so it may take its time; what it is told meanwhile is bounded.  Everything
that it asks for comes back as a message (actors/messages/extension.py).  If it crashes, its setup runs again later in a
new object; the node goes on.  The tutorial is docs/adding-an-extension.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from actors.address import Delivery
from actors.base import Home, NodeActor
from actors.extension_options import NoOptions
from actors.messages.extension import (
    Answer,
    AnswerAsked,
    CloseStream,
    ExtensionMessage,
    MakeCall,
    OpenStream,
    SayToClient,
    SendToStream,
    StreamEnded,
    StreamSaid,
    WatchSaid,
)
from actors.messages.raft import RoleIs
from core.errors import Compacted, TooManyRequests
from core.types import MemberId, Term
from net.rpc import OK, Code, Status
from proto.rpc_pb2 import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    SnapshotRequest,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import structlog
    from google.protobuf.message import Message

    from actors.address import Address, AnyDelivery
    from actors.messages.extension import Called, GateMessage, HttpAsked, StreamOpened
    from core.clock import Clock
    from net.rpc import Call, HttpResponder

M = TypeVar("M", bound="Message")

CALLS_MAX = 1000
"""Calls of one extension that may wait for their answer, or their answer for the extension, at once."""
STREAMS_MAX = 100
WATCH = "/etcdserverpb.Watch/Watch"

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an extension is: what stays the same over all its lives."""

    name: str
    """What it is called in the log and in metrics."""
    options: Any
    """Of the kind that the extension declares."""
    member_id: MemberId
    member_name: str
    logger: structlog.stdlib.BoundLogger
    clock: Clock
    later: Callable[[float, AnyDelivery], None]


class NodeApi:
    """The node, as one life of one extension sees it.  For the extension's own thread only.

    Calls are made as the node itself: while auth is on, with the rights of root.  Methods return a token, under which
    the outcome comes as a message; they raise TooManyRequests where too much is under way already.
    """

    def __init__(self, place: Place, life: int, gate: Address[GateMessage]) -> None:
        self._place = place
        self._life = life
        self._gate = gate
        self._last_token = 0
        self._calls = 0
        self._streams: set[int] = set()
        self._role = RoleIs(Term(0), MemberId(0), is_leader=False)
        self._self: Address[object] | None = None

    # -- what stays the same -----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What this extension is called."""
        return self._place.name

    @property
    def options(self) -> Any:  # noqa: ANN401 - of the extension's own kind
        """The extension's options, of the kind that it declares."""
        return self._place.options

    @property
    def member_id(self) -> MemberId:
        """This member's id."""
        return self._place.member_id

    @property
    def member_name(self) -> str:
        """This member's name, from the configuration."""
        return self._place.member_name

    @property
    def logger(self) -> structlog.stdlib.BoundLogger:
        """The node's log; lines bear the extension's name."""
        return self._place.logger

    @property
    def clock(self) -> Clock:
        """What time it is."""
        return self._place.clock

    # -- who leads: every change comes as RoleIs, the first one soon after the start -----------------------------------

    @property
    def is_leader(self) -> bool:
        """Whether this member leads, as of the messages handled so far."""
        return self._role.is_leader

    @property
    def leader(self) -> MemberId:
        """Who leads; 0 while nobody is known to."""
        return self._role.leader

    # -- calls: each is answered by an Answer ------------------------------------------------------------------------

    def call(self, method: str, request: Message, response: type[Message]) -> int:
        """Call a unary method of the API by its full path, such as ``/etcdserverpb.Cluster/MemberList``."""
        if self._calls >= CALLS_MAX:
            raise TooManyRequests
        _check_method(method)
        self._calls += 1
        token = self._token()
        wrap = partial(_answer, token, response)
        self._gate.tell(MakeCall(self._life, token, method, request.SerializeToString(), wrap))
        return token

    def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> int:
        """Put one key; answered with a PutResponse."""
        return self.call(
            "/etcdserverpb.KV/Put", PutRequest(key=key, value=value, lease=lease, prev_kv=prev_kv), PutResponse
        )

    def delete(self, key: bytes, range_end: bytes = b"", *, prev_kv: bool = False) -> int:
        """Delete a key or a range; answered with a DeleteRangeResponse."""
        request = DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv)
        return self.call("/etcdserverpb.KV/DeleteRange", request, DeleteRangeResponse)

    def txn(self, request: TxnRequest) -> int:
        """Compare, then take one of two branches; answered with a TxnResponse."""
        return self.call("/etcdserverpb.KV/Txn", request, TxnResponse)

    def range(
        self, key: bytes, range_end: bytes = b"", *, revision: int = 0, limit: int = 0, serializable: bool = False
    ) -> int:
        """Read, with every write that was acknowledged before; *serializable*: at once, from what this member has."""
        request = RangeRequest(key=key, range_end=range_end, revision=revision, limit=limit, serializable=serializable)
        return self.call("/etcdserverpb.KV/Range", request, RangeResponse)

    def grant(self, ttl_s: int, lease: int = 0) -> int:
        """Make a lease; answered with a LeaseGrantResponse, which has its ID."""
        return self.call("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest(TTL=ttl_s, ID=lease), LeaseGrantResponse)

    def revoke(self, lease: int) -> int:
        """End a lease, and delete its keys; answered with a LeaseRevokeResponse."""
        return self.call("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeRequest(ID=lease), LeaseRevokeResponse)

    def time_to_live(self, lease: int, *, keys: bool = False) -> int:
        """Ask how long a lease has; answered with a LeaseTimeToLiveResponse."""
        request = LeaseTimeToLiveRequest(ID=lease, keys=keys)
        return self.call("/etcdserverpb.Lease/LeaseTimeToLive", request, LeaseTimeToLiveResponse)

    def keep_alive(self, lease: int) -> int:
        """Prolong a lease once; answered with an Answer that has a LeaseKeepAliveResponse (TTL 0: no such lease)."""
        token = self._open("/etcdserverpb.Lease/LeaseKeepAlive", _kept_alive)
        self.send(token, LeaseKeepAliveRequest(ID=lease).SerializeToString(), last=True)
        return token

    # -- streams -----------------------------------------------------------------------------------------------------

    def watch(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        start_revision: int = 0,
        prev_kv: bool = False,
        progress_notify: bool = False,
        filters: Sequence[WatchCreateRequest.FilterType] = (),
    ) -> int:
        """Watch from now on, or from *start_revision*: WatchSaid messages, until StreamEnded or `close`.

        An extension that is slow falls behind and is caught up from history, however far; what it needs of it may be
        compacted meanwhile, which ends the watch with a compact_revision.
        """
        create = WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            progress_notify=progress_notify,
            filters=filters,
        )
        token = self._open(WATCH, _watched)
        self.send(token, WatchRequest(create_request=create).SerializeToString())
        return token

    def snapshot(self) -> int:
        """Ask for the store as a file: StreamSaid messages with a SnapshotResponse each, until StreamEnded."""
        token = self.open_stream("/etcdserverpb.Maintenance/Snapshot")
        self.send(token, SnapshotRequest().SerializeToString(), last=True)
        return token

    def open_stream(self, method: str) -> int:
        """Call a streaming method of the API: StreamSaid messages, until StreamEnded or `close`."""
        _check_method(method)
        return self._open(method, _said)

    def send(self, token: int, message: bytes, *, last: bool = False) -> None:
        """Send on a stream; *last* if nothing will follow.  One that is over takes nothing any more."""
        _check_bytes(message)
        if token not in self._streams:
            return
        self._gate.tell(SendToStream(self._life, token, message, last))

    def close(self, token: int) -> None:
        """Want no more of a watch or stream; what was on its way may still come, no StreamEnded does."""
        if token in self._streams:
            self._streams.discard(token)
            self._gate.tell(CloseStream(self._life, token))

    # -- answers to what the extension is asked ----------------------------------------------------------------------

    def answer_http(
        self,
        asked: HttpAsked,
        status: int,
        body: bytes,
        content_type: str = "text/plain; charset=utf-8",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Answer a request for a page.  Raises ValueError where that would be no answer in HTTP."""
        all_headers = [("content-type", content_type), *headers]
        if not 200 <= status <= 599 or not isinstance(body, bytes):
            raise ValueError(f"no answer: status {status!r}, body of {type(body).__name__}")
        for name, value in all_headers:
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"no header: {name!r}: {value!r}")
        self._answer(asked.ticket, partial(_reply_http, status, all_headers, body))

    def answer(self, called: Called, response: bytes) -> None:
        """Answer a call with OK and the bytes of its response."""
        _check_bytes(response)
        self._answer(called.ticket, partial(_reply, response))

    def refuse(self, called: Called, status: Status) -> None:
        """Answer a call with *status*, which is not OK."""
        assert status.code, "OK is no refusal"
        self._answer(called.ticket, partial(_fail, status))

    def say(self, opened: StreamOpened, message: bytes) -> None:
        """Send on a stream that a client has opened.  One whose client does not read for long is ended."""
        _check_bytes(message)
        self._gate.tell(SayToClient(self._life, opened.ticket, message))

    def finish(self, opened: StreamOpened, status: Status = OK) -> None:
        """End a stream that a client has opened."""
        self._gate.tell(SayToClient(self._life, opened.ticket, b"", status))

    # -- time --------------------------------------------------------------------------------------------------------

    def later(self, delay_s: float, message: object) -> None:
        """Be told *message* in so many seconds, unless this life has ended by then."""
        assert self._self is not None, "for use from setup on"
        if not 0 <= delay_s < float("inf"):
            raise ValueError(f"a delay must be some seconds, not {delay_s!r}")
        self._place.later(delay_s, Delivery(self._self, message))

    # -- of its home -------------------------------------------------------------------------------------------------

    def lives_at(self, address: Address[object]) -> None:
        """Take note of the extension's own address."""
        self._self = address

    def noticed(self, message: object) -> None:
        """Take note of what is about to be handled."""
        match message:
            case Answer():
                if message.token in self._streams:
                    self.close(message.token)
                else:
                    self._calls -= 1
            case StreamEnded():
                self.close(message.token)
            case RoleIs():
                self._role = message

    def _open(self, method: str, wrap: Callable[[int, bytes | Status], object]) -> int:
        if len(self._streams) >= STREAMS_MAX:
            raise TooManyRequests
        token = self._token()
        self._streams.add(token)
        self._gate.tell(OpenStream(self._life, token, method, partial(wrap, token)))
        return token

    def _answer(self, ticket: int, answer: Callable[[Call | HttpResponder], None]) -> None:
        self._gate.tell(AnswerAsked(self._life, ticket, answer))

    def _token(self) -> int:
        self._last_token += 1
        return self._last_token


class ExtensionActor(NodeActor[Any]):
    """Base of every extension: write setup, handle and teardown.

    Owns: what it likes.  Tells: the node, through *node*.  Fails when: it may; then setup runs again in a new object,
    after a while that grows.
    """

    Options: ClassVar[type[Any]] = NoOptions
    """A frozen dataclass of what may stand below ``options``; its __post_init__ may raise ValueError."""
    pages: ClassVar[Sequence[str]] = ()
    """Paths that it answers over HTTP; one that ends in a slash stands for all below it."""
    methods: ClassVar[Sequence[str]] = ()
    """Full paths of unary gRPC methods that it answers."""
    streams: ClassVar[Sequence[str]] = ()
    """Full paths of streaming gRPC methods that it serves."""
    observes_calls: ClassVar[bool] = False
    """Whether it wants CallsSeen."""

    def __init__(self, home: Home, node: NodeApi, /) -> None:
        super().__init__(home)
        self.node = node
        node.lives_at(self.actor_ref)

    def handle(self, message: ExtensionMessage | Any) -> None:  # noqa: ANN401 - what it told itself too
        """Take one message."""
        raise NotImplementedError


def _check_bytes(message: object) -> None:
    if not isinstance(message, bytes):
        raise TypeError(f"a message must be bytes, not {type(message).__name__}")


def _check_method(method: object) -> None:
    if not isinstance(method, str):
        raise TypeError(f"a method is named by its path, not by {method!r}")


def _answer(token: int, kind: type[Message], outcome: bytes | Status) -> Answer:
    if isinstance(outcome, Status):
        return Answer(token, None, outcome)
    return Answer(token, kind.FromString(outcome), OK)


def _kept_alive(token: int, outcome: bytes | Status) -> Answer | None:
    if isinstance(outcome, Status):
        return None if outcome == OK else Answer(token, None, outcome)
    return Answer(token, LeaseKeepAliveResponse.FromString(outcome), OK)


def _watched(token: int, outcome: bytes | Status) -> WatchSaid | StreamEnded:
    if isinstance(outcome, Status):
        return StreamEnded(token, outcome)
    response = WatchResponse.FromString(outcome)
    if response.canceled:
        compacted = response.compact_revision > 0
        status = Status(Code.OUT_OF_RANGE if compacted else Code.CANCELLED, response.cancel_reason or Compacted.text)
        return StreamEnded(token, status, response.compact_revision)
    return WatchSaid(token, response)


def _said(token: int, outcome: bytes | Status) -> StreamSaid | StreamEnded:
    return StreamEnded(token, outcome) if isinstance(outcome, Status) else StreamSaid(token, outcome)


def _reply(response: bytes, call: Any) -> None:  # noqa: ANN401 - a call, as its ticket says
    call.reply(response)


def _fail(status: Status, call: Any) -> None:  # noqa: ANN401 - as above
    call.fail(status)


def _reply_http(status: int, headers: Sequence[tuple[str, str]], body: bytes, responder: Any) -> None:  # noqa: ANN401
    if not responder.done:
        responder.reply(status, headers, body)

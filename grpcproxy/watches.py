"""WatchesActor: clients' watch streams in front, one stream a group behind."""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, final

from google.protobuf.message import DecodeError

from actors.base import Home, NodeActor
from actors.messages.common import Tick
from actors.messages.metrics import Measure, Measured
from actors.messages.serve import Answered
from core.errors import Compacted, NoLeader
from core.metrics import Sample
from grpcproxy.coalescer import Coalescer, coalesced
from grpcproxy.groups import Groups, GroupStream
from grpcproxy.messages import (
    ClientAsked,
    ClientBlocked,
    ClientClosed,
    ClientHalfClosed,
    ClientOpened,
    Finish,
    Forward,
    Frames,
    StreamEnded,
    StreamGot,
    StreamOpened,
    WatchesMessage,
)
from grpcproxy.methods import RANGE, WATCH
from grpcproxy.namespace import FROM_KEY
from grpcproxy.statuses import NO_CONNECTION
from grpcproxy.watcher import Watcher
from net.rpc import Code, Status
from proto.rpc_pb2 import RangeRequest, RangeResponse, WatchRequest, WatchResponse
from services.errors import status_of, undecodable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.address import Address
    from grpcproxy.messages import FrontMessage, Group, UpstreamMessage
    from grpcproxy.namespace import Namespace
    from proto.rpc_pb2 import WatchCreateRequest

CHECK_TIMEOUT_S: Final = 5.0
INVALID_ID: Final = -1
EMPTY_RANGE: Final = "mvcc: watcher range is empty"
DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
AGAIN: Final = frozenset({Code.OK, Code.UNAVAILABLE, Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN})
"""Ends of a stream after which another member is asked."""

NO_LEADER: Final = status_of(NoLeader())


class Upstream(GroupStream):
    """The watchers of one group, and the stream that they share."""

    def __init__(self, prefix: bytes, group: Group, number: int) -> None:
        super().__init__(group, number)
        self.coalescer: Final = Coalescer(prefix)
        self.creating: Final[set[int]] = set()
        """Clients whose last watcher is not there yet."""


class Client:
    """One client's stream."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream: Final = upstream
        self.watchers: Final[dict[int, Watcher]] = {}
        self.later: Final[deque[WatchRequest]] = deque()
        self.judging = False
        """Whether it is being found out if its next watcher is allowed."""
        self.creating: Watcher | None = None
        """Its last watcher, until its client knows of it: answers come in the order of requests."""
        self.blocked = False
        self.next_id = 0


@final
class WatchesActor(NodeActor[WatchesMessage]):
    """Feeds all clients' watchers.

    Owns: clients' watch streams, groups.  Tells: UpstreamActor, FrontActor.  Fails when: never by itself.
    """

    def __init__(self, home: Home, *, upstream: Address[UpstreamMessage], namespace: Namespace | None) -> None:
        super().__init__(home)
        self._upstream = upstream
        self._namespace = namespace
        self._front: Address[FrontMessage] | None = None
        self._tokens = count(1)
        self._clients: dict[int, Client] = {}
        make = partial(Upstream, b"" if namespace is None else namespace.prefix)
        self._groups = Groups(upstream, WATCH, make, self.actor_ref)
        self._checks: dict[int, Callable[[object], None]] = {}
        self._saved = 0
        """Events that groups had saved which are gone."""

    def handle(self, message: WatchesMessage) -> None:
        """Take one message."""
        match message:
            case ClientOpened():
                self._open(message)
            case ClientAsked():
                self._ask(message)
            case ClientBlocked():
                self._block(message)
            case ClientHalfClosed():
                pass  # whoever has sent all its requests still wants its events
            case ClientClosed():
                self._close(message.number)
            case Answered():
                judge = self._checks.pop(message.token, None)
                if judge is not None:
                    judge(message.outcome)
            case StreamOpened():
                self._connected(message.number)
            case StreamGot():
                self._receive(message)
            case StreamEnded():
                self._lost(message)
            case Tick():
                for upstream in self._groups:
                    self._connect(upstream)
            case Measure():
                message.answer_to.tell(Measured(message.round, self._samples()))

    # -- clients -----------------------------------------------------------------------------------------------------

    def _open(self, message: ClientOpened) -> None:
        self._front = message.front
        self._clients[message.number] = Client(self._groups.join(message.group, message.number))

    def _ask(self, message: ClientAsked) -> None:
        client = self._clients.get(message.number)
        if client is None:
            return
        try:
            request = WatchRequest.FromString(message.body)
        except DecodeError as error:
            self._finish([message.number], undecodable(error))
            return
        client.later.append(request)
        self._go_on(message.number, client)

    def _go_on(self, number: int, client: Client) -> None:
        """Take requests in their order; one that creates waits until it is known whether it may."""
        coalescer = client.upstream.coalescer
        while client.later and not client.judging and client.creating is None:
            request = client.later.popleft()
            match request.WhichOneof("request_union"):
                case "create_request":
                    self._create(number, client, request.create_request)
                case "cancel_request":
                    watcher = client.watchers.pop(request.cancel_request.watch_id, None)
                    if watcher is not None:
                        coalescer.remove(watcher)
                        coalescer.frames.append((number, watcher.canceled(coalescer.header)))
                case "progress_request":
                    if not client.blocked:
                        coalescer.want_progress(number)
        self._flush(client.upstream)

    def _create(self, number: int, client: Client, create: WatchCreateRequest) -> None:
        create.key = create.key or b"\x00"
        end = create.range_end
        if create.start_revision < 0:
            self._turn_down(number, client, Compacted.text)
        elif end not in {b"", FROM_KEY} and end <= create.key:
            self._turn_down(number, client, EMPTY_RANGE)
        elif create.watch_id in client.watchers and create.watch_id:
            self._turn_down(number, client, DUPLICATE_ID)
        else:
            if self._namespace is not None:
                create.key, create.range_end = self._namespace.interval(create.key, end)
            client.judging = True
            self._judge(number, create, client.upstream.group)

    def _judge(self, number: int, create: WatchCreateRequest, group: Group) -> None:
        """Find out whether a client may read what it wants to watch: others' watchers may have been there before."""
        token = next(self._tokens)
        self._checks[token] = partial(self._end_judging, number, create)
        check = RangeRequest(
            key=create.key, range_end=create.range_end, serializable=True, count_only=True, limit=1
        ).SerializeToString()
        self._upstream.tell(Forward(token, RANGE, check, group.metadata, CHECK_TIMEOUT_S, self.actor_ref))

    def _end_judging(self, number: int, create: WatchCreateRequest, outcome: object) -> None:
        client = self._clients.get(number)
        if client is None:
            return
        client.judging = False
        if isinstance(outcome, Status):
            if outcome.code in {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}:
                # Nothing is known of what it may: clients come back after such an end, not after a canceled watcher.
                self._finish([number], Status(Code.UNAVAILABLE, outcome.message))
                return
            self._turn_down(number, client, outcome.message)
        else:
            assert isinstance(outcome, bytes), outcome
            now = RangeResponse.FromString(outcome).header.revision + 1
            watcher = Watcher(number, self._new_id(client, create.watch_id), create, create.start_revision, now)
            client.watchers[watcher.id] = watcher
            client.creating = watcher
            client.upstream.creating.add(number)
            if not client.blocked:
                client.upstream.coalescer.add(watcher)
            self._connect(client.upstream)
        self._go_on(number, client)

    def _new_id(self, client: Client, wanted: int) -> int:
        if wanted:
            return wanted
        while client.next_id in client.watchers:
            client.next_id += 1
        client.next_id += 1
        return client.next_id - 1

    def _turn_down(self, number: int, client: Client, reason: str) -> None:
        coalescer = client.upstream.coalescer
        answer = WatchResponse(
            header=coalescer.header,
            watch_id=INVALID_ID,
            created=True,
            canceled=True,
            cancel_reason=reason,
        )
        coalescer.frames.append((number, answer.SerializeToString()))

    def _block(self, message: ClientBlocked) -> None:
        """Take the watchers of a client that does not read out of the broadcasts; later they catch up from history."""
        client = self._clients.get(message.number)
        if client is None or client.blocked == message.blocked:
            return
        client.blocked = message.blocked
        for watcher in client.watchers.values():
            if message.blocked:
                client.upstream.coalescer.remove(watcher)
            else:
                client.upstream.coalescer.add(watcher)
        self._flush(client.upstream)

    def _close(self, number: int) -> None:
        client = self._clients.pop(number, None)
        if client is None:
            return
        upstream = client.upstream
        for watcher in client.watchers.values():
            upstream.coalescer.remove(watcher)
        upstream.coalescer.forget(number)
        upstream.creating.discard(number)
        if self._groups.leave(upstream, number):
            self._saved += upstream.coalescer.events_saved
        else:
            self._flush(upstream)

    # -- upstream ----------------------------------------------------------------------------------------------------

    def _connect(self, upstream: Upstream) -> None:
        if upstream.coalescer.watcher_count:
            self._groups.open(upstream)

    def _connected(self, number: int) -> None:
        upstream = self._groups.get(number)
        if upstream is not None:
            upstream.connected = True
            upstream.coalescer.connected()
            self._flush(upstream)

    def _receive(self, message: StreamGot) -> None:
        upstream = self._groups.get(message.number)
        if upstream is None:
            return
        try:
            upstream.coalescer.receive(message.body)
        except DecodeError:
            # Whatever that is, it is no member that could be listened to.
            self._lost(self._groups.give_up(message.number))
            return
        self._flush(upstream)

    def _lost(self, message: StreamEnded) -> None:
        # A message that had been sent before it was known does no harm: it goes to a stream that is no more.
        upstream = self._groups.ended(message.number)
        if upstream is None:
            return
        upstream.coalescer.lost()
        status = message.status
        tells_clients = upstream.group.wants_leader and status.message in {NO_LEADER.message, NO_CONNECTION.message}
        if tells_clients or status.code not in AGAIN:
            self._finish(sorted(upstream.clients), status)

    def _finish(self, numbers: Iterable[int], status: Status) -> None:
        numbers = list(numbers)
        assert self._front is not None, numbers
        self._front.tell(Finish(numbers, status))
        for number in numbers:
            self._close(number)

    def _flush(self, upstream: Upstream) -> None:
        """Send what the coalescer wants sent."""
        coalescer = upstream.coalescer
        if coalescer.requests:
            requests, coalescer.requests = coalescer.requests, []
            for request in requests:
                self._groups.send(upstream, request)
        if coalescer.frames:
            frames, coalescer.frames = coalescer.frames, []
            assert self._front is not None, frames
            self._front.tell(Frames(frames))
        for number in [number for number in upstream.creating if self._is_created(number)]:
            upstream.creating.discard(number)
            client = self._clients[number]
            client.creating = None
            self._go_on(number, client)

    def _is_created(self, number: int) -> bool:
        watcher = self._clients[number].creating
        return watcher is None or watcher.announced

    def _samples(self) -> tuple[Sample, ...]:
        coalescers = [upstream.coalescer for upstream in self._groups]
        saved = self._saved + sum(each.events_saved for each in coalescers)
        return (
            Sample("etcd_grpc_proxy_watchers_coalescing_total", coalesced(coalescers)),
            Sample("etcd_grpc_proxy_events_coalescing_total", saved),
        )

"""LeasesActor: clients' keep-alive streams in front, one stream a group behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from google.protobuf.message import DecodeError

from actors.base import Home, NodeActor
from actors.messages.common import Tick
from core.errors import NoLeader
from grpcproxy.groups import Groups, GroupStream
from grpcproxy.keepalives import KeepAlives
from grpcproxy.messages import (
    ClientAsked,
    ClientBlocked,
    ClientClosed,
    ClientHalfClosed,
    ClientOpened,
    Finish,
    Frames,
    LeasesMessage,
    StreamEnded,
    StreamGot,
    StreamOpened,
)
from grpcproxy.methods import KEEP_ALIVE
from net.rpc import OK, Code, Status
from proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse
from services.errors import status_of, undecodable

if TYPE_CHECKING:
    from actors.address import Address
    from grpcproxy.messages import FrontMessage, Group, UpstreamMessage

AGAIN: Final = frozenset({Code.OK, Code.UNAVAILABLE, Code.CANCELLED})
"""Ends of a stream that are nobody's fault."""

NO_LEADER: Final = status_of(NoLeader())


class Upstream(GroupStream):
    """The renewals of one group, and the stream that they share."""

    def __init__(self, group: Group, number: int) -> None:
        super().__init__(group, number)
        self.renewals: Final = KeepAlives()
        self.failed_count = 0
        """Streams in a row that brought nothing."""


class Client:
    """One client's stream."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream: Final = upstream
        self.waits = 0
        """For so many answers."""
        self.half_closed = False


FAILED_MAX: Final = 3
"""Streams in a row that may fail before those who wait are told."""


@final
class LeasesActor(NodeActor[LeasesMessage]):
    """Renews leases for all clients.

    Owns: clients' keep-alive streams, groups.  Tells: UpstreamActor, FrontActor.  Fails when: never by itself.
    """

    def __init__(self, home: Home, *, upstream: Address[UpstreamMessage]) -> None:
        super().__init__(home)
        self._front: Address[FrontMessage] | None = None
        self._clients: dict[int, Client] = {}
        self._groups = Groups(upstream, KEEP_ALIVE, Upstream, self.actor_ref)

    def handle(self, message: LeasesMessage) -> None:
        """Take one message."""
        match message:
            case ClientOpened():
                self._open(message)
            case ClientAsked():
                self._ask(message)
            case ClientBlocked():
                pass  # its stream is not read meanwhile, so it asks for nothing more
            case ClientHalfClosed():
                client = self._clients.get(message.number)
                if client is not None:
                    client.half_closed = True
                    self._finish_when_done(message.number, client)
            case ClientClosed():
                self._close(message.number)
            case StreamOpened():
                self._connected(message.number)
            case StreamGot():
                self._receive(message)
            case StreamEnded():
                self._lost(message)
            case Tick():
                for upstream in self._groups:
                    self._connect(upstream)

    def _open(self, message: ClientOpened) -> None:
        self._front = message.front
        self._clients[message.number] = Client(self._groups.join(message.group, message.number))

    def _ask(self, message: ClientAsked) -> None:
        client = self._clients.get(message.number)
        if client is None:
            return
        try:
            lease = LeaseKeepAliveRequest.FromString(message.body).ID
        except DecodeError as error:
            self._finish([message.number], undecodable(error))
            return
        client.waits += 1
        client.upstream.renewals.ask(message.number, lease)
        self._connect(client.upstream)
        self._pump(client.upstream)

    def _close(self, number: int) -> None:
        client = self._clients.pop(number, None)
        if client is None:
            return
        client.upstream.renewals.forget(number)
        self._groups.leave(client.upstream, number)

    # -- upstream ----------------------------------------------------------------------------------------------------

    def _connect(self, upstream: Upstream) -> None:
        if not upstream.renewals.idle:
            self._groups.open(upstream)

    def _connected(self, number: int) -> None:
        upstream = self._groups.get(number)
        if upstream is not None:
            upstream.connected = True
            self._pump(upstream)

    def _pump(self, upstream: Upstream) -> None:
        if upstream.connected:
            for lease in upstream.renewals.to_send():
                self._groups.send(upstream, LeaseKeepAliveRequest(ID=lease).SerializeToString())

    def _receive(self, message: StreamGot) -> None:
        upstream = self._groups.get(message.number)
        if upstream is None:
            return
        upstream.failed_count = 0
        try:
            lease = LeaseKeepAliveResponse.FromString(message.body).ID
        except DecodeError:
            self._lost(self._groups.give_up(message.number))
            return
        streams = [number for number in upstream.renewals.answered(lease) if number in self._clients]
        if streams:
            assert self._front is not None, streams
            self._front.tell(Frames([(number, message.body) for number in streams]))
        for number in streams:
            client = self._clients[number]
            client.waits -= 1
            self._finish_when_done(number, client)
        self._pump(upstream)

    def _lost(self, message: StreamEnded) -> None:
        upstream = self._groups.ended(message.number)
        if upstream is None:
            return
        status = message.status
        if status.code not in AGAIN:
            self._finish(upstream.renewals.refused(), status)
            return
        upstream.failed_count += 1
        if upstream.group.wants_leader and status.message == NO_LEADER.message:
            self._finish(sorted(upstream.clients), status)
        elif upstream.failed_count >= FAILED_MAX:
            self._finish(upstream.renewals.fail_all(), Status(Code.UNAVAILABLE, status.message))
        else:
            upstream.renewals.lost()

    # -- ends --------------------------------------------------------------------------------------------------------

    def _finish_when_done(self, number: int, client: Client) -> None:
        if client.half_closed and not client.waits:
            self._finish([number], OK)

    def _finish(self, numbers: list[int], status: Status) -> None:
        if not numbers:
            return
        assert self._front is not None, numbers
        self._front.tell(Finish(tuple(dict.fromkeys(numbers)), status))
        for number in numbers:
            self._close(number)

"""grpc.health.v1.Health: only the server as a whole (service name "") is known, as in etcd.

It is serving, unless the gate StopGRPCServiceOnDefrag is on and a client of this listener has the store defragmented:
whoever balances calls by health sends them elsewhere meanwhile.  What is called all the same is answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)

from net.rpc import Code, Status
from services.decode import decode
from services.errors import undecodable_message

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from net.rpc import Call, Stream

SERVICE_UNKNOWN = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()


class Health:
    """How one listener says that it is.  Belongs to the listener's thread."""

    def __init__(self, *, stops_on_defragment: bool = False, log: structlog.stdlib.BoundLogger | None = None) -> None:
        """*log* is told of each change."""
        self._stops_on_defragment = stops_on_defragment
        self._log = log
        self._defragmenting = 0
        self._watches: set[HealthWatch] = set()

    @property
    def state(self) -> HealthCheckResponse:
        """The state of the whole server."""
        stopped = self._stops_on_defragment and self._defragmenting
        return HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING if stopped else HealthCheckResponse.SERVING)

    def check(self, call: Call, payload: bytes) -> None:
        """Say whether the named service is served."""
        request = decode(call, HealthCheckRequest, payload)
        if request is None:
            return
        if request.service:
            call.fail(Status(Code.NOT_FOUND, "unknown service"))
        else:
            call.reply(self.state.SerializeToString())

    def list_all(self, call: Call, payload: bytes) -> None:
        """Tell the state of every service that has one."""
        if decode(call, HealthListRequest, payload) is not None:
            call.reply(HealthListResponse(statuses={"": self.state}).SerializeToString())

    def watch(self, stream: Stream) -> HealthWatch:
        """Return what handles a Health.Watch call."""
        return HealthWatch(stream, self)

    def defragmentation(self) -> Callable[[], None]:
        """Note that a defragmentation begins; what is returned is called, once, when it has ended."""
        self._count_defragmentations(1)
        return lambda: self._count_defragmentations(-1)

    def follow(self, watch: HealthWatch) -> None:
        """Tell *watch* of each change from now on."""
        self._watches.add(watch)

    def leave(self, watch: HealthWatch) -> None:
        """Tell *watch* no more."""
        self._watches.discard(watch)

    def _count_defragmentations(self, difference: int) -> None:
        before = self.state
        self._defragmenting += difference
        if self.state == before:
            return
        if self._log is not None:
            state = HealthCheckResponse.ServingStatus.Name(self.state.status)
            self._log.warning("grpc service status changed", status=state, reason="defragmentation")
        for watch in tuple(self._watches):
            watch.tell()


class HealthWatch:
    """One Health.Watch call: the present state at once, then each change."""

    def __init__(self, stream: Stream, health: Health) -> None:
        self._stream = stream
        self._health = health
        self._told = HealthCheckResponse.UNKNOWN

    def tell(self) -> None:
        """Send the present state if it is news; a client that reads slowly gets the last one when it has read."""
        state = self._health.state
        if state.status != self._told and not self._stream.unsent_bytes:
            self._told = state.status
            self._stream.send(state.SerializeToString())

    def on_message(self, message: bytes) -> None:
        """Send the present state."""
        try:
            request = HealthCheckRequest.FromString(message)
        except DecodeError as error:
            self._stream.finish(undecodable_message(error))
            return
        if request.service:
            self._stream.send(SERVICE_UNKNOWN)
        else:
            self._health.follow(self)
            self.tell()

    def on_half_close(self) -> None:
        """Go on: the client waits for changes."""

    def on_drained(self) -> None:
        """Tell what has changed meanwhile."""
        if self._told != HealthCheckResponse.UNKNOWN:
            self.tell()

    def on_closed(self, status: Status) -> None:
        """Forget the stream."""
        del status
        self._health.leave(self)

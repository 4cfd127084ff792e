"""grpc.health.v1.Health: only the server as a whole (service name "") is known, as in etcd."""

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
    from net.rpc import Call, Stream

SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
SERVICE_UNKNOWN = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()


def check(call: Call, payload: bytes) -> None:
    """Say whether the named service is served."""
    request = decode(call, HealthCheckRequest, payload)
    if request is None:
        return
    if request.service:
        call.fail(Status(Code.NOT_FOUND, "unknown service"))
    else:
        call.reply(SERVING)


def list_all(call: Call, payload: bytes) -> None:
    """Tell the state of every service that has one."""
    if decode(call, HealthListRequest, payload) is not None:
        whole = HealthCheckResponse(status=HealthCheckResponse.SERVING)
        call.reply(HealthListResponse(statuses={"": whole}).SerializeToString())


class HealthWatch:
    """One Health.Watch call: the present state at once, then each change (there is none before the listener stops)."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def on_message(self, message: bytes) -> None:
        """Send the present state."""
        try:
            request = HealthCheckRequest.FromString(message)
        except DecodeError as error:
            self._stream.finish(undecodable_message(error))
        else:
            self._stream.send(SERVICE_UNKNOWN if request.service else SERVING)

    def on_half_close(self) -> None:
        """Go on: the client waits for changes."""

    def on_drained(self) -> None:
        """Go on."""

    def on_closed(self, status: Status) -> None:
        """Nothing is kept for a stream."""

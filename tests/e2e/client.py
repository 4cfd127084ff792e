"""grpcio clients for the end-to-end tests: one channel, one stub a service.

Knows the generated stubs; the tests know messages.  Generated stubs have no types, so that is dealt with here once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from proto import election_pb2_grpc, lock_pb2_grpc, rpc_pb2_grpc

CALL_TIMEOUT_S: Final = 20.0

# Reconnect at once after a restart, take answers of any size, and never share a connection between two clients.
CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 20),
    # Despite its name it is also how long one attempt may take; a busy machine needs more than a few milliseconds.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


class Stubs(NamedTuple):
    """The services of one server.  Each attribute offers the service's methods by their names in rpc.proto."""

    kv: Any
    lease: Any
    watch: Any
    maintenance: Any
    cluster: Any
    auth: Any
    election: Any
    lock: Any


def stubs(channel: grpc.Channel | grpc.aio.Channel) -> Stubs:
    """Stubs on *channel*: blocking or asyncio, as the channel is."""
    return Stubs(
        kv=rpc_pb2_grpc.KVStub(channel),  # type: ignore[no-untyped-call]  # generated
        lease=rpc_pb2_grpc.LeaseStub(channel),  # type: ignore[no-untyped-call]  # generated
        watch=rpc_pb2_grpc.WatchStub(channel),  # type: ignore[no-untyped-call]  # generated
        maintenance=rpc_pb2_grpc.MaintenanceStub(channel),  # type: ignore[no-untyped-call]  # generated
        cluster=rpc_pb2_grpc.ClusterStub(channel),  # type: ignore[no-untyped-call]  # generated
        auth=rpc_pb2_grpc.AuthStub(channel),  # type: ignore[no-untyped-call]  # generated
        election=election_pb2_grpc.ElectionStub(channel),  # type: ignore[no-untyped-call]  # generated
        lock=lock_pb2_grpc.LockStub(channel),  # type: ignore[no-untyped-call]  # generated
    )


@contextmanager
def connect(endpoint: str) -> Iterator[Stubs]:
    """Blocking stubs on a connection of their own, closed at the end."""
    with grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS) as channel:
        yield stubs(channel)


def aio_channel(endpoint: str) -> grpc.aio.Channel:
    """An asyncio channel of its own; the caller closes it."""
    return grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)

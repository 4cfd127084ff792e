"""The engines of the listeners, made from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.extension import RoutesAre
from daemon.profiles import PROFILES
from net.grpcio_engine import GrpcioListener
from net.listener import NativeListener
from net.rpc import Limits, Routes
from services.access import HttpOptions, Serves

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    import structlog

    from actors.address import Address
    from actors.base import FatalHook
    from actors.serve import Engine
    from config.schema import Config
    from config.urls import Url
    from net.commons import TakeOver
    from net.rpc import HttpHandler

GRPC_OVERHEAD_BYTES = 512 * 1024
"""A message may exceed max-request-bytes by this before gRPC itself refuses it (etcd's allowance)."""


PEER_BODY_BYTES_MAX = 64 * 1024 * 1024
"""Of one raft message that comes as a post; snapshots and streams have no bound here."""


class ClientListener(NamedTuple):
    """Where clients are listened for."""

    url: Url
    socket: socket.socket | None
    """Bound and listening; None with the grpcio engine, which cannot take one over."""
    serves: Serves = Serves.ALL


def client_places(config: Config) -> list[tuple[Url, Serves]]:
    """Return where to listen for clients, and for whom."""
    member = config.member
    main = Serves.GRPC if member.listen_client_http_urls else Serves.ALL
    return [
        *((url, main) for url in member.listen_client_urls),
        *((url, Serves.HTTP) for url in member.listen_client_http_urls),
        *((url, Serves.METRICS) for url in config.metrics.listen_metrics_urls),
    ]


def http_options(config: Config, serves: Serves) -> HttpOptions:
    """Return what a client listener offers over HTTP."""
    return HttpOptions(
        serves=serves,
        gateway=config.member.enable_grpc_gateway,
        origins=frozenset(config.security.cors),
        hosts=frozenset(config.security.host_whitelist),
        profiles=PROFILES if config.metrics.enable_pprof or config.logging.log_level == "debug" else {},
        timed=config.metrics.metrics == "extensive",
        client_cert_auth=config.security.client_cert_auth,
    )


def bind_host(url: Url) -> str:
    """Return the address to bind for *url*: localhost is the IPv4 loopback, as for most clients."""
    return "127.0.0.1" if url.host == "localhost" else url.host


class GrpcioEngine:
    """A grpcio listener, which binds its port itself, as the actors' Engine."""

    def __init__(self, listener: GrpcioListener, host: str, port: int) -> None:
        self._listener = listener
        self._host = host
        self._port = port

    async def start(self) -> None:
        """See Engine."""
        await self._listener.start(self._host, self._port)

    def flush(self) -> None:
        """See Engine; grpcio does so itself."""

    async def drain(self, timeout_s: float) -> None:
        """See Engine."""
        await self._listener.drain(timeout_s)

    async def close(self) -> None:
        """See Engine."""
        await self._listener.close()


class NativeEngine:
    """A native listener and the sockets that it serves, as the actors' Engine."""

    def __init__(self, listener: NativeListener, sockets: Sequence[socket.socket]) -> None:
        self._listener = listener
        self._sockets = sockets

    async def start(self) -> None:
        """See Engine."""
        await self._listener.start(self._sockets)

    def flush(self) -> None:
        """See Engine."""
        self._listener.flush()

    async def drain(self, timeout_s: float) -> None:
        """See Engine."""
        await self._listener.drain(timeout_s)

    async def close(self) -> None:
        """See Engine."""
        await self._listener.close()


class InsideEngine:
    """The engine of the listener that extensions call: it has no socket, and hands its routes to *gate*."""

    def __init__(self, gate: Address[RoutesAre], routes: Routes) -> None:
        gate.tell(RoutesAre(routes))

    async def start(self) -> None:
        """See Engine."""

    def flush(self) -> None:
        """See Engine: answers are messages, and have left."""

    async def drain(self, timeout_s: float) -> None:
        """See Engine; extensions have been stopped before."""

    async def close(self) -> None:
        """See Engine."""


def client_limits(config: Config) -> Limits:
    """Return what a client listener accepts."""
    return Limits(
        receive_message_bytes_max=config.member.max_request_bytes + GRPC_OVERHEAD_BYTES,
        concurrent_streams_max=config.member.max_concurrent_streams,
        keepalive_min_time_s=config.member.grpc_keepalive_min_time_s,
        keepalive_interval_s=config.member.grpc_keepalive_interval_s,
        keepalive_timeout_s=config.member.grpc_keepalive_timeout_s,
    )


def make_client_engine(
    config: Config,
    listening: ClientListener,
    routes: Routes,
    http: HttpHandler,
    on_batch_end: Callable[[], None],
    fatal: FatalHook,
    logger: structlog.stdlib.BoundLogger,
) -> Engine:
    """Return the engine of one client listener."""
    limits = client_limits(config)

    def crashed(error: BaseException) -> None:
        fatal("ServeActor", error)

    if listening.socket is None:
        return GrpcioEngine(
            GrpcioListener(routes, limits, fatal=crashed, on_batch_end=on_batch_end),
            bind_host(listening.url),
            listening.url.port,
        )
    return NativeEngine(
        NativeListener(routes, http, limits, logger, fatal=crashed, on_batch_end=on_batch_end), [listening.socket]
    )


def make_peer_engine(
    http: HttpHandler,
    take_over: TakeOver,
    sockets: Sequence[socket.socket],
    fatal: FatalHook,
    logger: structlog.stdlib.BoundLogger,
) -> Engine:
    """Return the engine of the peer listeners, which serve pages, streams and no gRPC."""
    listener = NativeListener(
        Routes(unary={}, streams={}),
        http,
        Limits(http_body_bytes_max=PEER_BODY_BYTES_MAX),
        logger,
        fatal=lambda error: fatal("PeerTransportActor", error),
        take_over=take_over,
    )
    return NativeEngine(listener, sockets)

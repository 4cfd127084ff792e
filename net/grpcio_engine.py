"""The grpcio engine: the same Routes served by `grpc.aio`, as yardstick and fallback of the native one.

gRPC only: grpcio cannot share its port with HTTP/1.1.  Calls and streams behave as net/rpc.py says.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from net.grpcio_calls import AioStream, AioUnary
from net.http2.request import unknown_method
from net.tally import Tallies

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.rpc import Limits, Routes

PING_STRIKES_MAX: Final = 2


class GrpcioListener:
    """Serves *routes* with grpcio; the arguments are NativeListener's, without HTTP."""

    def __init__(
        self,
        routes: Routes,
        limits: Limits,
        *,
        fatal: Callable[[BaseException], None],
        on_batch_end: Callable[[], None] | None = None,
        credentials: grpc.ServerCredentials | None = None,
        reuse_port: bool = False,
    ) -> None:
        self._routes = routes
        self._limits = limits
        self._fatal = fatal
        self._on_batch_end = on_batch_end
        self._credentials = credentials
        self._reuse_port = reuse_port
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> int:
        """Listen on *address*, HOST:PORT (0: any) or unix:PATH; return the port.  Raises RuntimeError if that fails."""
        limits = self._limits
        options: list[tuple[str, Any]] = [
            ("grpc.so_reuseport", int(self._reuse_port)),
            ("grpc.server_handshake_timeout_ms", int(limits.header_timeout_s * 1000)),
            ("grpc.max_allowed_incoming_connections", limits.connections_max),
            ("grpc.max_receive_message_length", limits.receive_message_bytes_max),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", limits.header_list_bytes_max),
            ("grpc.http2.min_ping_interval_without_data_ms", int(limits.keepalive_min_time_s * 1000)),
            ("grpc.http2.max_ping_strikes", PING_STRIKES_MAX),
        ]
        if limits.concurrent_streams_max < 0x7FFFFFFF:
            options.append(("grpc.max_concurrent_streams", limits.concurrent_streams_max))
        if limits.keepalive_interval_s:
            options.append(("grpc.keepalive_time_ms", int(limits.keepalive_interval_s * 1000)))
            timeout_ms = int((limits.keepalive_timeout_s or 20.0) * 1000)
            # By itself grpcio pings only clients that call, twice if they send nothing, and waits a minute for pongs.
            options += [
                ("grpc.keepalive_timeout_ms", timeout_ms),
                ("grpc.http2.ping_timeout_ms", timeout_ms),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        server = self._server = grpc.aio.server(options=options)
        handler = _Handler(self._routes, Turns(self._fatal, self._on_batch_end))
        server.add_generic_rpc_handlers((handler,))
        if self._credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, self._credentials)
        await server.start()
        return bound

    async def drain(self, timeout_s: float) -> bool:
        """Accept no more, finish what is in flight; return whether that was done within *timeout_s*."""
        if self._server is None:
            return True
        started_s = asyncio.get_running_loop().time()
        await self._server.stop(timeout_s)
        return asyncio.get_running_loop().time() - started_s < timeout_s

    async def close(self) -> None:
        """Close everything; calls that are still in flight see their clients go."""
        if self._server is not None:
            await self._server.stop(None)


class Turns:
    """Runs *on_batch_end* once per turn of the loop in which something was delivered."""

    def __init__(self, fatal: Callable[[BaseException], None], on_batch_end: Callable[[], None] | None) -> None:
        self.fatal: Final = fatal
        self._on_batch_end = on_batch_end
        self._scheduled = False

    def delivered(self) -> None:
        """Note that a message was handed to a service in this turn."""
        if self._on_batch_end is not None and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self._scheduled = False
        assert self._on_batch_end is not None, "scheduled for nothing"
        try:
            self._on_batch_end()
        except Exception as error:  # noqa: BLE001  # a bug of the service: the hook ends the process
            self.fatal(error)


class _Handler(grpc.GenericRpcHandler):
    """Finds the route of a call.  No serializer is given, so messages stay bytes."""

    def __init__(self, routes: Routes, turns: Turns) -> None:
        self._routes = routes
        self._turns = turns

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return what serves the call; grpcio's call."""
        path = str(handler_call_details.method)
        unary = self._routes.unary.get(path)
        if unary is not None:

            async def serve_unary(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
                return await AioUnary(path, context, self._turns, self._routes.tallies).serve(unary, request)

            return grpc.unary_unary_rpc_method_handler(serve_unary)
        stream = self._routes.streams.get(path)

        async def serve_stream(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            if stream is None:
                status = unknown_method(path, self._routes)
                call = AioUnary(path, context, self._turns, Tallies())
                if self._routes.on_refused is not None:
                    self._routes.on_refused(call, status)
                await call.abort(status)
            else:
                await AioStream(path, context, self._turns, self._routes.tallies).serve(stream)

        return grpc.stream_stream_rpc_method_handler(serve_stream)

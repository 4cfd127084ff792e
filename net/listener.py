"""The native engine: one listener, one port, gRPC over HTTP/2 and HTTP/1.1 on it, with or without TLS.

Owns the listening sockets and the order of start, drain and close.  Everything runs on the event loop that called
start; services are called there and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from net.commons import Commons
from net.deadlines import Deadlines
from net.door import Door, Doorkeeper
from net.sniff import SniffingConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.commons import TakeOver
    from net.door import Security
    from net.rpc import HttpHandler, Limits, Routes

BACKLOG: Final = 1024
ACCEPTS_A_TURN: Final = 16
"""New connections taken in one turn of the loop.  asyncio takes as many as the backlog holds, before any of them is
counted: a burst would open more files than the process may, and the log would find none left."""

CLOSE_TIMEOUT_S: Final = 0.25
"""How long a close waits for clients to take note."""


class NativeListener:
    """Serves *routes*, and *http* for what is not gRPC; without *http* that is refused as grpc-go does.

    *fatal* is told of exceptions raised by services, which are bugs.  *on_batch_end* runs once per turn of the loop
    in which requests were handed over, after all of them; what is answered in it leaves in the same turn.  *take_over*
    may have HTTP/1.1 connections for itself; it closes them itself, too.  Without *security* there is no TLS.
    """

    def __init__(
        self,
        routes: Routes,
        http: HttpHandler | None,
        limits: Limits,
        log: Any,  # noqa: ANN401  # structlog's loggers have no common type
        *,
        fatal: Callable[[BaseException], None],
        on_batch_end: Callable[[], None] | None = None,
        security: Security | None = None,
        take_over: TakeOver | None = None,
    ) -> None:
        self._routes = routes
        self._http = http
        self._limits = limits
        self._log = log
        self._fatal = fatal
        self._on_batch_end = on_batch_end
        self._security = security
        self._take_over = take_over
        self._servers: list[asyncio.Server] = []
        self._commons: Commons | None = None

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound *sockets*; raises OSError if one cannot listen."""
        loop = asyncio.get_running_loop()
        commons = self._commons = Commons(
            routes=self._routes,
            http=self._http,
            limits=self._limits,
            scheduler=loop,
            deadlines=Deadlines(loop.time, loop.call_at),
            fatal=self._fatal,
            log=self._log,
            on_batch_end=self._on_batch_end,
            take_over=self._take_over,
        )
        keeper = None if self._security is None else Doorkeeper(commons, self._security)
        for sock in sockets:
            make = partial(SniffingConnection, commons) if keeper is None else partial(Door, keeper)
            create = loop.create_unix_server if sock.family is socket.AF_UNIX else loop.create_server
            self._servers.append(await create(make, sock=sock, backlog=ACCEPTS_A_TURN))
            sock.listen(BACKLOG)

    @property
    def delivering(self) -> bool:
        """Whether requests are being handed to services, so that *on_batch_end* is sure to come."""
        return self._commons is not None and self._commons.delivering

    def flush(self) -> None:
        """Send what has been answered to a lone client now, instead of at the end of this turn of the loop."""
        if self._commons is not None:
            self._commons.flush_alone()

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return 0 if self._commons is None else len(self._commons.connections)

    async def drain(self, timeout_s: float) -> bool:
        """Accept no more, finish what is in flight; return whether that was done within *timeout_s*."""
        commons = self._commons
        if commons is None:
            return True
        self._stop_accepting()
        commons.draining = True
        for connection in list(commons.connections):
            connection.drain()
        try:
            await asyncio.wait_for(commons.empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close everything; calls that are still in flight see their clients go."""
        self._stop_accepting()
        commons = self._commons
        if commons is None:
            return
        commons.draining = True
        for connection in list(commons.connections):
            connection.close()
        # Time for the last words to arrive; meanwhile services are told of the streams that have just ended.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(commons.empty.wait(), CLOSE_TIMEOUT_S)
        for connection in list(commons.connections):
            connection.abort()
        await asyncio.sleep(0)
        commons.deadlines.close()

    def _stop_accepting(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

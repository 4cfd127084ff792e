"""The TCP gateway: passes connections on to members that answer, byte for byte, TLS and all.

Owns one event loop with the listener and both ends of every connection.  It never looks into what it passes on, so it
needs no certificates.  A member that cannot be dialled is left alone for a while.  A connection that comes from the
gateway itself, however that came about, is cut: passed on, it would come back for ever.  Behaviour: etcd's ``gateway``.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from config.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    import structlog

    from proxy.remotes import Remote, Remotes

DIAL_TIMEOUT_S = 5.0
CHUNK_BYTES_MAX = 1 << 16
ACCEPT_PAUSE_S = 0.1
KEEPALIVE_S = 15
"""How long a silent connection is left before the system asks whether the other end is still there (Go's default)."""

_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED}
"""Connections that end make room again."""


class Gateway:
    """Passes connections on.  Everything happens in the event loop that runs it."""

    def __init__(self, remotes: Remotes, retry_s: float, logger: structlog.stdlib.BoundLogger) -> None:
        """Members that do not answer are tried again every *retry_s*."""
        self._remotes = remotes
        self._retry_s = retry_s
        self._logger = logger
        self._dialling: dict[socket.socket, Remote] = {}
        self._outgoing: dict[object, Remote] = {}
        """By the address that this end of the connection has."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        """Serve on *listener* until cancelled, or until it fails: OSError."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        self._logger.info("ready to proxy client requests", endpoints=[each.address for each in self._remotes.all])
        monitor = loop.create_task(self._monitor())
        try:
            while True:
                try:
                    incoming, address = await loop.sock_accept(listener)
                except OSError as error:
                    if error.errno not in _PASSING:
                        raise
                    self._logger.warning("cannot accept a connection; trying again", error=error.strerror)
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                    continue
                task = loop.create_task(self._serve(incoming, address))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in (monitor, *self._tasks):
                task.cancel()

    async def _serve(self, incoming: socket.socket, address: object) -> None:
        own = self._own(address)
        if own is not None:
            incoming.close()
            self._deactivate(own, "it leads back to this gateway")
            return
        outgoing = await self._dial_any()
        if outgoing is None:
            incoming.close()
            return
        local = outgoing.getsockname()
        try:
            _keep_alive(incoming)
            await pass_on(incoming, outgoing)
        finally:
            self._outgoing.pop(local, None)
            incoming.close()
            outgoing.close()

    def _own(self, address: object) -> Remote | None:
        """Return the remote that a connection from *address* was meant for, if this gateway has dialled it."""
        for dialled, remote in self._dialling.items():
            with suppress(OSError):
                if dialled.getsockname() == address:
                    return remote
        return self._outgoing.get(address)

    async def _dial_any(self) -> socket.socket | None:
        while (remote := self._remotes.pick()) is not None:
            try:
                outgoing = await self._dial(remote)
            except OSError as error:
                self._deactivate(remote, error.strerror or str(error) or "no answer")
                continue
            self._outgoing[outgoing.getsockname()] = remote
            return outgoing
        return None

    async def _dial(self, remote: Remote) -> socket.socket:
        """Return a connection; OSError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            failure = OSError("no address")
            for family, kind, protocol, _, address in await loop.getaddrinfo(
                remote.srv.target, remote.srv.port, type=socket.SOCK_STREAM
            ):
                outgoing = socket.socket(family, kind, protocol)
                outgoing.setblocking(False)
                _keep_alive(outgoing)
                self._dialling[outgoing] = remote
                try:
                    await loop.sock_connect(outgoing, address)
                except OSError as error:
                    failure = error
                    outgoing.close()
                except BaseException:
                    outgoing.close()
                    raise
                else:
                    return outgoing
                finally:
                    del self._dialling[outgoing]
            raise failure

    def _deactivate(self, remote: Remote, reason: str) -> None:
        if remote.is_active:
            remote.is_active = False
            interval = format_duration(self._retry_s)
            self._logger.warning("deactivated endpoint", address=remote.address, interval=interval, error=reason)

    async def _monitor(self) -> None:
        while True:
            await asyncio.sleep(self._retry_s)
            await asyncio.gather(*(self._reactivate(remote) for remote in self._remotes.inactive))

    async def _reactivate(self, remote: Remote) -> None:
        try:
            (await self._dial(remote)).close()
        except OSError as error:
            self._logger.warning(
                "failed to activate endpoint (stay inactive for another interval)",
                address=remote.address,
                interval=format_duration(self._retry_s),
                error=error.strerror or str(error) or "no answer",
            )
        else:
            remote.is_active = True
            self._logger.info("activated", address=remote.address)


async def pass_on(here: socket.socket, there: socket.socket) -> None:
    """Pass everything on, in both directions at once, each until its end; returns when both have ended or one broke."""
    async with asyncio.TaskGroup() as both:
        directions = [both.create_task(_pass_on(here, there)), both.create_task(_pass_on(there, here))]
        for direction in directions:
            direction.add_done_callback(lambda done: _stop_unless(done, directions))


def _stop_unless(done: asyncio.Task[bool], directions: Sequence[asyncio.Task[bool]]) -> None:
    if done.cancelled() or done.exception() is not None or not done.result():
        for direction in directions:
            direction.cancel()


async def _pass_on(source: socket.socket, sink: socket.socket) -> bool:
    """Return whether the direction has come to its end, and not broken."""
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, CHUNK_BYTES_MAX):
            await loop.sock_sendall(sink, data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

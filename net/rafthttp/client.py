"""The client's side of HTTP/1.1 between members: dial, ask, be answered.

Connections on which an answer was complete are kept for the next question.  Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

from net.rafthttp.body import LAST_CHUNK, BodyFault, chunk
from net.rafthttp.response import ResponseReader
from net.tls import TlsConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from net.tls import ClientTls

ANSWER_BYTES_MAX = 64 << 20
"""Of one answer that is gathered whole."""

IDLE_PER_URL_MAX = 4
"""Connections kept to one URL (etcd's pipeline has as many)."""

TIMEOUT_S_MIN = 5.0
"""Shortest timeout of a read or write: peers say that they live every third of it (see net.rafthttp.peer)."""

P = TypeVar("P", bound=asyncio.Protocol)


class Answer(NamedTuple):
    """A complete answer."""

    status: int
    headers: dict[str, str]
    """Lower-case names."""
    body: bytes


class PeerUnreachable(Exception):  # noqa: N818 - named for what is the matter
    """No answer came; the text says why."""


async def dial(url: str, make: Callable[[], P], tls: ClientTls | None, timeout_s: float, local_address: str = "") -> P:
    """Connect a new protocol to the peer at *url*, from the IP *local_address* if there is one; PeerUnreachable.

    Where the URL wants TLS, the peer has passed every check of *tls* before the protocol is told of the connection.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    try:
        secure = name = None
        if parts.scheme in {"https", "unixs"}:
            if tls is None:
                raise PeerUnreachable(f"{url} wants TLS, of which this member knows nothing")
            secure, name = tls.context(), tls.server_name or parts.hostname or "localhost"
        async with asyncio.timeout(timeout_s):
            if parts.scheme in {"unix", "unixs"}:
                _, unix = await loop.create_unix_connection(
                    make, parts.netloc + parts.path, ssl=secure, server_hostname=name
                )
                return unix
            _, connected = await loop.create_connection(
                make,
                parts.hostname or "",
                parts.port or 0,
                ssl=secure,
                server_hostname=name,
                local_addr=(local_address, 0) if local_address else None,
            )
            return connected
    except (OSError, ValueError, TimeoutError, TlsConfigurationError) as error:
        raise PeerUnreachable(f"{url}: {str(error) or type(error).__name__}") from error


def request_head(method: str, path: str, url: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return the head of a request to the peer at *url*."""
    host = urlsplit(url).netloc
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


class _Exchange(asyncio.Protocol):
    """A connection that carries one question at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._reader = ResponseReader()
        self._body: list[bytes] = []
        self._size_bytes = 0
        self._answered: asyncio.Future[Answer] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def usable(self) -> bool:
        """Whether the next question may go out here."""
        return self.transport is not None and not self.transport.is_closing()

    def begin(self) -> asyncio.Future[Answer]:
        """Prepare for the answer to a question that is about to be sent."""
        self._reader, self._body, self._size_bytes = ResponseReader(), [], 0
        self._answered = asyncio.get_running_loop().create_future()
        return self._answered

    def write(self, data: bytes) -> None:
        """Send a part of the question."""
        assert self.transport is not None, "not connected"
        self.transport.write(data)

    async def drained(self) -> None:
        """Wait until the peer has taken enough of what was written."""
        await self._writable.wait()

    def close(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport), transport
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        try:
            piece = self._reader.feed(data)
        except BodyFault as fault:
            self._fail(str(fault))
            return
        self._size_bytes += len(piece)
        if self._size_bytes > ANSWER_BYTES_MAX:
            self._fail("an answer that does not end")
            return
        self._body.append(piece)
        if self._reader.done:
            self._succeed()

    def eof_received(self) -> bool:
        """See asyncio."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._writable.set()
        if self._reader.done:
            return
        try:
            self._reader.end()
        except BodyFault as fault:
            self._fail(str(exc or fault))
        else:
            self._succeed()

    def pause_writing(self) -> None:
        """See asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._writable.set()

    def _succeed(self) -> None:
        answered, self._answered = self._answered, None
        if not self._reader.keeps_alive:
            self.close()
        if answered is not None and not answered.done():
            answered.set_result(Answer(self._reader.status, self._reader.headers, b"".join(self._body)))

    def _fail(self, reason: str) -> None:
        answered, self._answered = self._answered, None
        self.close()
        if answered is not None and not answered.done():
            answered.set_exception(PeerUnreachable(reason))


class PeerClient:
    """Asks peers.  Every method raises PeerUnreachable where no answer came in time."""

    def __init__(
        self,
        tls: ClientTls | None,
        dial_timeout_s: float,
        *,
        read_timeout_s: float = TIMEOUT_S_MIN,
        write_timeout_s: float = TIMEOUT_S_MIN,
        local_address: str = "",
    ) -> None:
        """Take a connection on which nothing came for *read_timeout_s* for broken.

        So is one whose peer took nothing for *write_timeout_s*.  *local_address* is what peers see, instead of the one
        that the system picks.
        """
        self.read_timeout_s = read_timeout_s
        self.write_timeout_s = write_timeout_s
        self._tls = tls
        self._dial_timeout_s = dial_timeout_s
        self._local_address = local_address
        self._idle: dict[str, list[_Exchange]] = {}

    async def dial(self, url: str, make: Callable[[], P]) -> P:
        """Connect a new protocol to the peer at *url*."""
        return await dial(url, make, self._tls, self._dial_timeout_s, self._local_address)

    async def ask(
        self, url: str, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, timeout_s: float
    ) -> Answer:
        """Send one request and return its answer; a kept connection that has died meanwhile is replaced once."""
        sized = [*headers, ("Content-Length", str(len(body)))] if body or method == "POST" else headers
        question = request_head(method, path, url, sized) + body
        idle = self._idle.setdefault(url, [])
        while idle:
            exchange = idle.pop()
            if exchange.usable:
                try:
                    return await self._ask(exchange, url, question, timeout_s)
                except PeerUnreachable:
                    break
        exchange = await self.dial(url, _Exchange)
        return await self._ask(exchange, url, question, timeout_s)

    async def upload(
        self,
        url: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        pieces: AsyncIterator[bytes],
        timeout_s: float,
    ) -> Answer:
        """POST *pieces* as they come, on a connection of their own.

        *timeout_s* is for the answer after the last one, and for the peer to take each piece.
        """
        exchange = await self.dial(url, _Exchange)
        try:
            answered = exchange.begin()
            chunked = [*headers, ("Transfer-Encoding", "chunked"), ("Connection", "close")]
            exchange.write(request_head("POST", path, url, chunked))
            async for piece in pieces:
                if answered.done() or not exchange.usable:
                    break  # refused, or gone
                exchange.write(chunk(piece))
                async with asyncio.timeout(timeout_s):
                    await exchange.drained()
            if not answered.done() and exchange.usable:
                exchange.write(LAST_CHUNK)
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError as error:
            raise PeerUnreachable(f"{url}: no answer within {timeout_s} s") from error
        finally:
            exchange.close()

    def close(self) -> None:
        """Close the kept connections."""
        for idle in self._idle.values():
            for exchange in idle:
                exchange.close()
        self._idle.clear()

    async def _ask(self, exchange: _Exchange, url: str, question: bytes, timeout_s: float) -> Answer:
        answered = exchange.begin()
        exchange.write(question)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await answered
        except TimeoutError as error:
            exchange.close()
            raise PeerUnreachable(f"{url}: no answer within {timeout_s} s") from error
        except asyncio.CancelledError:
            exchange.close()
            raise
        idle = self._idle.setdefault(url, [])
        if exchange.usable and len(idle) < IDLE_PER_URL_MAX:
            idle.append(exchange)
        else:
            exchange.close()
        return answer

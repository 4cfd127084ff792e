"""Which protocol a new connection speaks, by its first bytes: HTTP/2's preface, or else HTTP/1.1.

Sniffing works the same with and without TLS, whatever ALPN said.  Once decided, asyncio hands the bytes directly to
the protocol's own object.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from net.http1 import Http1Connection
from net.http2.connection import Http2Connection
from net.http2.frames import PREFACE
from net.reading import ReadingProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.commons import Commons
    from net.deadlines import Bucket


class Http2Protocol(asyncio.BufferedProtocol):
    """What asyncio sees of an HTTP/2 connection, which is no protocol of its kind: compiled classes have one base.

    Its methods are the connection's own, so that nothing lies between the loop and them.  A client that sends no more
    has no use for answers over HTTP/2: asyncio closes then.
    """

    def __init__(self, connection: Http2Connection) -> None:
        self.get_buffer = connection.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = connection.buffer_updated  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]


class SniffingConnection(ReadingProtocol):
    """A connection whose protocol is not known yet."""

    def __init__(self, commons: Commons) -> None:
        super().__init__(commons.read_buffer)
        self._commons = commons
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self._bucket: Bucket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept, or turn away what is above the limit; asyncio's call."""
        assert isinstance(transport, asyncio.Transport), transport
        self._transport = transport
        if len(self._commons.connections) >= self._commons.limits.connections_max or self._commons.draining:
            transport.abort()
            return
        self._commons.joined(self)
        timeout_s = self._commons.limits.header_timeout_s
        self._bucket = self._commons.deadlines.add(self, self._commons.now() + timeout_s)

    def data_received(self, data: bytes) -> None:
        """Decide as soon as the bytes differ from the preface or have all of it; asyncio's call."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._seen += data
        known = self._seen[: len(PREFACE)]
        if known == PREFACE:
            http2 = Http2Connection(self._commons, transport)
            self._hand_over(Http2Protocol(http2), http2.data_received)
        elif not PREFACE.startswith(known):
            http1 = Http1Connection(self._commons, transport)
            self._hand_over(http1, http1.data_received)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; asyncio's call."""
        del exc
        self._forget()

    def expired(self, now_s: float) -> None:
        """Turn away a client that has said nothing in time."""
        del now_s
        self.close()

    def close(self) -> None:
        """Close at once; nothing has been promised."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self.close()

    def drain(self) -> None:
        """Close: no request has begun."""
        self.close()

    def flush(self) -> None:
        """Do nothing: there is no output yet."""

    def _hand_over(self, protocol: asyncio.BufferedProtocol, take: Callable[[bytes], None]) -> None:
        assert self._transport is not None, "not connected"
        self._forget()
        self._transport.set_protocol(protocol)
        take(self._seen)

    def _forget(self) -> None:
        self._commons.left(self)
        if self._bucket is not None:
            self._bucket.pop(self, None)
            self._bucket = None

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
    from net.commons import Commons
    from net.deadlines import Bucket


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
            self._hand_over(Http2Connection(self._commons, transport))
        elif not PREFACE.startswith(known):
            self._hand_over(Http1Connection(self._commons, transport))

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

    def _hand_over(self, connection: Http2Connection | Http1Connection) -> None:
        assert self._transport is not None, "not connected"
        self._forget()
        self._transport.set_protocol(connection)
        connection.data_received(self._seen)

    def _forget(self) -> None:
        self._commons.left(self)
        if self._bucket is not None:
            self._bucket.pop(self, None)
            self._bucket = None

"""From an accepted socket to a connection that has passed TLS: the door of a listener that serves TLS.

Owns the handshake and its bounds: it has a deadline, and not more than so many are under way (GHSA-6vch-q96h-7gc3).
When there would be more, the oldest goes: an honest client takes milliseconds, so those who fill the door push out each
other.  Whether a certificate is good is decided in net/tls; where a client's address must fit its certificate, that is
asked here, since DNS may have to be asked.  Belongs to the listener's loop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from net.certificates import fits_address, fits_names
from net.reading import ReadingProtocol
from net.sniff import SniffingConnection
from net.transports import peer_name

if TYPE_CHECKING:
    from net.certificates import Certificate
    from net.commons import Commons
    from net.deadlines import Bucket
    from net.tls import ServerTls

HANDSHAKES_MAX: Final = 1000
"""Connections of one listener that may be at the door at once."""

REFUSALS_REMEMBERED_MAX: Final = 100
QUIET_S: Final = 60.0
"""Whoever is refused for the same reason again and again is worth a line only after it was quiet for so long."""

TLS_HANDSHAKE: Final = 0x16
"""The first byte of a TLS client; no other protocol here begins with it."""

NOT_TLS: Final = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


@dataclass(frozen=True, slots=True)
class Security:
    """How the connections of a listener are secured."""

    tls: ServerTls
    plain_too: bool = False
    """Whether those who do not begin with TLS are served, too."""
    address_must_fit: bool = False
    """Whether a client's certificate must name the address that it comes from."""
    for_peers: bool = False


class Doorkeeper:
    """What the doors of one listener share."""

    def __init__(self, commons: Commons, security: Security) -> None:
        self.commons = commons
        self.security = security
        self._waiting: dict[Door, None] = {}
        self._refused_s: dict[tuple[str, str], float] = {}

    def came(self, door: Door) -> None:
        """Count *door* in, at the cost of the oldest one."""
        self._waiting[door] = None
        if len(self._waiting) > HANDSHAKES_MAX:
            next(iter(self._waiting)).turn_away("too many handshakes at once")

    def left(self, door: Door) -> None:
        """Count *door* out."""
        self._waiting.pop(door, None)

    def refused(self, peer: str, reason: str) -> None:
        """Log that *peer* was refused, unless that is known."""
        now_s = self.commons.now()
        key = (peer.rpartition(":")[0], reason)
        before_s = self._refused_s.pop(key, None)
        self._refused_s[key] = now_s
        if len(self._refused_s) > REFUSALS_REMEMBERED_MAX:
            del self._refused_s[next(iter(self._refused_s))]
        if before_s is None or now_s - before_s > QUIET_S:
            self.commons.log.warning(
                "rejected connection on peer endpoint"
                if self.security.for_peers
                else "rejected connection on client endpoint",
                remote_addr=peer,
                reason=reason,
            )


class Door(ReadingProtocol):
    """A connection that has not passed yet."""

    def __init__(self, keeper: Doorkeeper) -> None:
        super().__init__(keeper.commons.read_buffer)
        self._keeper = keeper
        self._commons = keeper.commons
        self._transport: asyncio.Transport | None = None
        self._bucket: Bucket | None = None
        self._passed = False

    # -- asyncio's calls, before TLS ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock; asyncio's call."""
        assert isinstance(transport, asyncio.Transport), transport
        self._transport = transport
        commons = self._commons
        if len(commons.connections) >= commons.limits.connections_max or commons.draining:
            transport.abort()
            return
        commons.joined(self)
        self._bucket = commons.deadlines.add(self, commons.now() + commons.limits.header_timeout_s)
        self._keeper.came(self)

    def data_received(self, data: bytes) -> None:
        """Begin the handshake, or go without; asyncio's call."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if data[0] == TLS_HANDSHAKE:
            self._shake_hands(transport, data)
        elif self._keeper.security.plain_too:
            self.hand_over(transport).data_received(data)
        else:
            self._forget()
            transport.write(NOT_TLS)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; asyncio's call."""
        del exc
        self._forget()

    # -- the handshake -----------------------------------------------------------------------------------------------

    def _shake_hands(self, transport: asyncio.Transport, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        ended.add_done_callback(self._ended)
        # Made here and not by create_server(ssl=...), which tells nobody of handshakes that fail, and has one context
        # for all of them.
        tls = SSLProtocol(
            loop,
            Threshold(self, self._keeper.security.address_must_fit),
            self._keeper.security.tls.context(transport.write),
            ended,
            server_side=True,
        )
        transport.set_protocol(tls)
        tls.connection_made(transport)
        room = tls.get_buffer(len(data))
        room[: len(data)] = data
        tls.buffer_updated(len(data))

    def _ended(self, ended: asyncio.Future[None]) -> None:
        """Notice that the handshake has failed, or that it is over and the Threshold has been told."""
        error = None if ended.cancelled() else ended.exception()
        if error is not None:
            self.turn_away(_reason(error))
        elif self._transport is None or self._transport.is_closing():
            self._forget()

    def turn_away(self, reason: str) -> None:
        """Cut the connection, and say why."""
        if self._transport is not None and not self._passed:
            self._keeper.refused(peer_name(self._transport), reason)
        self.abort()

    def hand_over(self, transport: asyncio.Transport) -> SniffingConnection:
        """Let the client in, on *transport*."""
        self._passed = True
        self._forget()
        connection = SniffingConnection(self._commons)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        return connection

    # -- what a listener asks of its connections ---------------------------------------------------------------------

    def expired(self, now_s: float) -> None:
        """Turn away who has not passed in time."""
        del now_s
        self.turn_away("no handshake within the time allowed")

    def drain(self) -> None:
        """Close: no request has begun."""
        self.abort()

    def close(self) -> None:
        """Close at once; nothing has been promised."""
        self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def flush(self) -> None:
        """Do nothing: there is no output yet."""

    def _forget(self) -> None:
        self._commons.left(self)
        self._keeper.left(self)
        if self._bucket is not None:
            self._bucket.pop(self, None)
            self._bucket = None


class Threshold(asyncio.Protocol):
    """A connection after its handshake, until its client's address has been found to fit its certificate."""

    def __init__(self, door: Door, address_must_fit: bool) -> None:
        self._door = door
        self._address_must_fit = address_must_fit
        self._looking: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or ask DNS first; asyncio's call."""
        assert isinstance(transport, asyncio.Transport), transport
        certificate = transport.get_extra_info("peercert") or {}
        name = transport.get_extra_info("peername")
        if not self._address_must_fit or not certificate or not isinstance(name, tuple):
            # One who comes through a unix socket has no address.
            self._door.hand_over(transport)
            return
        host = str(name[0])
        fits = fits_address(certificate, host)
        if fits is None:
            transport.pause_reading()
            self._look_up(transport, certificate, host)
        else:
            self._judge(transport, host, fits=fits)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no further; asyncio's call."""
        del exc
        if self._looking is not None:
            self._looking.cancel()

    def _look_up(self, transport: asyncio.Transport, certificate: Certificate, host: str) -> None:
        loop = asyncio.get_running_loop()
        looking = self._looking = loop.run_in_executor(None, fits_names, certificate, host, names_of, addresses_of)

        def found(future: asyncio.Future[bool]) -> None:
            if not future.cancelled() and not transport.is_closing():
                self._judge(transport, host, fits=future.result())
                transport.resume_reading()

        looking.add_done_callback(found)

    def _judge(self, transport: asyncio.Transport, host: str, *, fits: bool) -> None:
        if fits:
            self._door.hand_over(transport)
        else:
            self._door.turn_away(f"the certificate is for none of the names and addresses of {host}")


def names_of(host: str) -> list[str]:
    """Return the names that DNS has for the address *host*."""
    try:
        name, aliases, _ = socket.gethostbyaddr(host)
    except (OSError, UnicodeError):
        return []
    return [name, *aliases]


def addresses_of(name: str) -> list[str]:
    """Return the addresses that DNS has for *name*."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error).partition(" (_ssl.c")[0]
    return str(error) or "the client left during the handshake"

"""Who is at the other end of a transport, and how to leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from net.certificates import common_name_in

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from net.deadlines import Deadlines

LINGER_S: Final = 1.0
"""After its last bytes have been sent, a client's input is ignored this long, so that it gets to see them."""

STALL_S: Final = 10.0
"""A client that takes nothing for so long, of what was to be its last bytes, does not get the rest."""


def peer_name(transport: asyncio.BaseTransport) -> str:
    """Return the client's address, ``host:port`` or the path of a unix socket."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(name or "")


def common_name(transport: asyncio.BaseTransport) -> str | None:
    """Return the subject CN of the verified client certificate, if one was given."""
    certificate = transport.get_extra_info("peercert")
    return common_name_in(certificate) if certificate else None


def leave(transport: asyncio.Transport, deadlines: Deadlines, now: Callable[[], float]) -> None:
    """Send what is buffered, for as long as the client takes some of it, and then the end; then close.

    Closing a socket at once while input is unread would reset the connection, and the last words might be lost.
    """
    if transport.is_closing():
        return
    if not transport.can_write_eof():
        transport.close()
    else:
        try:
            transport.write_eof()
        except OSError:
            # The other end has reset the connection, and asyncio has not noticed yet.
            transport.abort()
            return
    _Leaving(transport, deadlines, now)


class _Leaving:
    """Cuts a connection whose client neither takes the rest nor closes."""

    def __init__(self, transport: asyncio.Transport, deadlines: Deadlines, now: Callable[[], float]) -> None:
        self._transport = transport
        self._deadlines = deadlines
        self._left_bytes = transport.get_write_buffer_size()
        self._wait(now())

    def expired(self, now_s: float) -> None:
        left_bytes, self._left_bytes = self._left_bytes, self._transport.get_write_buffer_size()
        if self._left_bytes < left_bytes:
            self._wait(now_s)
        else:
            self._transport.abort()

    def _wait(self, now_s: float) -> None:
        self._deadlines.add(self, now_s + (STALL_S if self._left_bytes else LINGER_S))

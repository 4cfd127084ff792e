"""Who is at the other end of a transport, and how to leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def peer_name(transport: asyncio.BaseTransport) -> str:
    """Return the client's address, ``host:port`` or the path of a unix socket."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(name or "")


def common_name(transport: asyncio.BaseTransport) -> str | None:
    """Return the subject CN of the verified client certificate, if one was given."""
    certificate = transport.get_extra_info("peercert") or {}
    for relative_name in certificate.get("subject", ()):
        for key, value in relative_name:
            if key == "commonName":
                return str(value)
    return None


def finish_sending(transport: asyncio.Transport) -> bool:
    """Send what is buffered and then the end, but go on reading; False if the transport was closed instead.

    Closing a socket at once while input is unread would reset the connection, and the last words might be lost.
    """
    if not transport.can_write_eof():
        transport.close()
        return False
    try:
        transport.write_eof()
    except OSError:
        # The other end has reset the connection, and asyncio has not noticed yet.
        transport.abort()
        return False
    return True

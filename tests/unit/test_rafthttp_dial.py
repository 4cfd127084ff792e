"""Dialling peers with TLS: whom their certificates must name."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest
import structlog

from net.rafthttp.client import PeerUnreachable, dial
from net.tls import ClientTls, TlsFiles
from tests.pki import Authority

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("expected", "host", "passes"),
    [
        ("", "127.0.0.1", True),
        ("example.org", "127.0.0.1", True),
        ("other.org", "127.0.0.1", False),
        ("", "localhost", False),
    ],
)
def test_members_that_dns_named_must_prove_their_domain(tmp_path: Path, expected: str, host: str, passes: bool) -> None:
    """Whoever forges DNS answers can name a host that has a certificate of its own, but none of the domain."""
    authority = Authority(tmp_path)
    issued = authority.issue("peer", dns=("example.org",), addresses=("127.0.0.1",))
    tls = ClientTls(TlsFiles(trusted_ca=authority.pem, server_name=expected), structlog.get_logger())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.pem, issued.key)

    async def connect() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        async with server:
            url = f"https://{host}:{server.sockets[0].getsockname()[1]}"
            (await dial(url, Closing, tls, 5.0)).closed.cancel()

    if passes:
        asyncio.run(connect())
    else:
        with pytest.raises(PeerUnreachable, match=r"certificate|verif"):
            asyncio.run(connect())


class Closing(asyncio.Protocol):
    """A connection that is closed as soon as it is made."""

    def __init__(self) -> None:
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()

"""Dialling peers over TLS and unix sockets: whom a member believes, and what it shows."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from daemon.self_signed import self_signed
from net.door import Security
from net.listener import NativeListener
from net.rafthttp.client import PeerClient, PeerUnreachable
from net.rpc import HttpRequest, HttpResponder, Limits, Routes
from net.tls import ClientTls, ServerTls, TlsFiles
from tests.pki import Authority, Issued, replace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOG = structlog.get_logger()


def tell_security(request: HttpRequest, responder: HttpResponder) -> None:
    responder.reply(200, [], f"{request.secure} {request.common_name}".encode())


@asynccontextmanager
async def served(bound: socket.socket, files: TlsFiles | None) -> AsyncIterator[None]:
    security = None if files is None else Security(ServerTls(files, LOG), for_peers=True)
    listener = NativeListener(Routes({}, {}), tell_security, Limits(), LOG, fatal=lambda error: None, security=security)
    await listener.start([bound])
    try:
        yield
    finally:
        await listener.close()


async def asked(url: str, files: TlsFiles | None, client: PeerClient | None = None) -> str:
    """What the peer at *url* answers, or why it is not reached."""
    client = client or PeerClient(None if files is None else ClientTls(files, LOG), 5.0)
    try:
        return (await client.ask(url, "GET", "/", (), b"", 5.0)).body.decode()
    except PeerUnreachable as error:
        return str(error)
    finally:
        client.close()


def pair(issued: Issued, authority: Authority, **settings: Any) -> TlsFiles:
    return TlsFiles(issued.pem, issued.key, trusted_ca=authority.pem, **settings)


def test_both_ends_verify_each_other(tmp_path: Path) -> None:
    """A peer is believed only with a certificate of the authority, for its host, allowed by name and not revoked."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    peer, client = authority.issue("peer", common_name="member"), authority.issue("client")
    crl = authority.revoke(tmp_path / "crl", peer)
    cases = {
        "good": (pair(peer, authority), "True member"),
        "shows another as client": (
            pair(peer, authority, client_certificate=client.pem, client_key=client.key),
            "True client",
        ),
        "allowed": (pair(peer, authority, common_names=["member"]), "True member"),
        "not allowed": (pair(peer, authority, common_names=["x"]), "client certificate authentication failed"),
        "revoked": (pair(peer, authority, revoked=crl), f"certificate serial {peer.serial:x} revoked"),
        "distrusts": (pair(peer, other), "certificate verify failed"),
        "believes anybody": (TlsFiles(peer.pem, peer.key, anonymous=True), "True member"),
        "shows a stranger's": (pair(other.issue("stranger"), authority), "ALERT_UNKNOWN_CA"),
        "shows none": (TlsFiles(trusted_ca=authority.pem), "ALERT_CERTIFICATE_REQUIRED"),
        "knows nothing of TLS": (None, "wants TLS"),
    }

    async def run() -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        async with served(bound, pair(peer, authority)):
            for name, (files, expected) in cases.items():
                answer = await asked(url, files)
                assert expected in answer, (name, answer)
            localhost = url.replace("127.0.0.1", "localhost")
            assert await asked(localhost, pair(peer, authority)) == "True member"

    asyncio.run(run())


def test_a_certificate_for_another_host(tmp_path: Path) -> None:
    """The host in the URL counts, and a common name is none."""
    authority = Authority(tmp_path)
    peer = authority.issue("localhost", dns=("elsewhere",), addresses=("192.0.2.1",))

    async def run() -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        async with served(bound, TlsFiles(peer.pem, peer.key)):
            answer = await asked(f"https://localhost:{bound.getsockname()[1]}", pair(peer, authority))
            assert "Hostname mismatch" in answer

    asyncio.run(run())


def test_what_is_replaced_counts_for_the_next_dial(tmp_path: Path) -> None:
    """A member rotates what it shows and whom it trusts without a restart."""
    authority, newer = Authority(tmp_path), Authority(tmp_path / "newer")
    peer = authority.issue("peer", common_name="old")

    async def run() -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        async with served(bound, pair(peer, authority)):
            client = PeerClient(ClientTls(pair(peer, authority), LOG), 5.0)
            assert await asked(url, None, client) == "True old"
            authority.issue("peer", common_name="new")
            assert await asked(url, None, client) == "True new"
            replace(authority.pem, newer.pem.read_bytes())
            assert "certificate verify failed" in await asked(url, None, client)
            fresh = newer.issue("peer", common_name="newest")
            replace(peer.pem, fresh.pem.read_bytes())
            replace(peer.key, fresh.key.read_bytes())
            assert await asked(url, None, client) == "True newest"

    asyncio.run(run())


@pytest.mark.parametrize("scheme", ["unix", "unixs"])
def test_unix_sockets(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part behind the slashes is the file, as with etcd; with unixs TLS is spoken over it."""
    monkeypatch.chdir(tmp_path)
    authority = Authority(tmp_path)
    files = pair(authority.issue("peer"), authority)

    async def run() -> None:
        bound = socket.socket(socket.AF_UNIX)
        bound.bind("localhost:2380")
        async with served(bound, files if scheme == "unixs" else None):
            answer = await asked(f"{scheme}://localhost:2380", files)
            assert answer == ("True peer" if scheme == "unixs" else "False None")

    asyncio.run(run())


def test_certificates_made_at_the_start(tmp_path: Path) -> None:
    """They are for the hosts that are listened on, stay over a restart, and their key is its owner's alone."""
    certificate, key = self_signed(tmp_path / "fixtures" / "peer", ["127.0.0.1", "localhost", "localhost"], 1, LOG)
    assert certificate == tmp_path / "fixtures" / "peer" / "cert.pem"
    assert {path.stat().st_mode & 0o777 for path in (certificate, key)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (key.parent, key.parent.parent)} == {0o700}
    before = certificate.read_bytes()
    assert self_signed(certificate.parent, ["other"], 1, LOG) == (certificate, key)
    assert certificate.read_bytes() == before
    made = TlsFiles().with_certificate(certificate, key)

    async def run() -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        url = f"https://localhost:{bound.getsockname()[1]}"
        async with served(bound, made):
            assert await asked(url, TlsFiles(anonymous=True)) == "True None"
            assert await asked(url, TlsFiles(trusted_ca=certificate)) == "True None"

    asyncio.run(run())
    key.unlink()
    self_signed(certificate.parent, ["other"], 1, LOG)
    assert certificate.read_bytes() != before

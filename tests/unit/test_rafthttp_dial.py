"""Dialling peers with TLS: whom their certificates must name."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from config.gates import parse_gates
from config.schema import Clustering, Config
from config.schema import Member as MemberSettings
from config.urls import parse_urls
from core.raft.messages import Message, MessageType
from core.types import MemberId, Term
from daemon.dialling import local_address
from net.rafthttp.client import PeerClient, PeerUnreachable, dial
from net.rafthttp.headers import Identity
from net.rafthttp.links import Links, Surroundings
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


def test_peers_see_the_address_that_is_to_be_shown() -> None:
    """Firewalls and certificates may know only one of a machine's addresses."""
    seen: list[str] = []

    async def connect() -> None:
        def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(writer.get_extra_info("peername")[0])
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for client in (PeerClient(None, 5.0, local_address="127.0.0.9"), PeerClient(None, 5.0)):
                (await client.dial(url, Ending)).ended.cancel()
                with pytest.raises(PeerUnreachable):
                    await client.ask(url, "GET", "/version", (), b"", 5.0)

    asyncio.run(connect())
    assert seen == ["127.0.0.9", "127.0.0.9", "127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize(
    ("gates", "urls", "expected"),
    [
        ("", "http://10.0.0.1:2380", ""),
        ("SetMemberLocalAddr=true", "http://10.0.0.1:2380,http://10.0.0.2:2380", "10.0.0.1"),
        (
            "SetMemberLocalAddr=true",
            "http://localhost:1,http://127.0.0.1:1,http://0.0.0.0:1,http://[fd00::1]:1",
            "fd00::1",
        ),
        ("SetMemberLocalAddr=true", "http://host.example:2380", ""),
    ],
)
def test_the_address_to_show_is_the_first_that_others_reach(gates: str, urls: str, expected: str) -> None:
    """A loopback or every address is none to come from, and a name may mean several."""
    found = Config(
        member=MemberSettings(feature_gates=parse_gates(gates)),
        clustering=Clustering(initial_advertise_peer_urls=parse_urls(urls)),
    )
    assert local_address(found) == expected


def mismatched(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in log if line["event"].endswith("cluster ID mismatch")]


def test_a_peer_of_another_cluster_is_told_of_once_with_advice() -> None:
    """Three ways lead to it, each tried ten times a second; the operator needs one line that says what to do."""
    asked: list[bytes] = []
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).split()[1])
        if len(set(asked)) == 4 and len(asked) >= 8:  # two streams, posts, probes
            done.set()
        body = b"cluster ID mismatch\n"
        head = "HTTP/1.1 412 Precondition Failed\r\nX-Etcd-Cluster-ID: c2\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            links = Links(
                Identity(0xC1, 0xA1, (url,), "3.5.21", "3.0.0"),
                Surroundings(PeerClient(None, 5.0), structlog.get_logger(), lambda: 0.0, fail),
                Silent(),
            )
            links.set_members({MemberId(2): (url,)}, ())
            message = Message(MessageType.HEARTBEAT, MemberId(2), MemberId(0xA1), Term(1))
            async with asyncio.timeout(10.0):
                links.send([message])
                await done.wait()
            links.close()

    with structlog.testing.capture_logs() as log:
        asyncio.run(run())
    (line,) = mismatched(log)  # type: ignore[arg-type]
    assert (line["local_cluster_id"], line["remote_cluster_id"], line["peer_id"]) == ("c1", "c2", "2")
    assert "data directory" in line["advice"]
    assert not [each for each in log if "mismatch" in str(each.get("reason", ""))]


def fail(error: BaseException) -> None:
    raise error


class Silent:
    """Who hears of nothing but what is lost."""

    def unreachable(self, member: MemberId) -> None:
        """See LinkListener."""
        assert member == 2

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


class Ending(asyncio.Protocol):
    """A connection that tells nobody."""

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()


class Closing(asyncio.Protocol):
    """A connection that is closed as soon as it is made."""

    def __init__(self) -> None:
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()

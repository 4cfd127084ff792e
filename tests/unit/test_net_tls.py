"""TLS on the native engine, in one process: who gets in, what replaced files change, and what the door withstands."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import grpc.aio
import pytest
import structlog
from structlog.testing import CapturingLogger

from net import door
from net.door import NOT_TLS, Security
from net.listener import NativeListener
from net.rpc import Call, HttpRequest, HttpResponder, Limits, Routes
from net.tls import ServerTls, TlsConfigurationError, TlsFiles
from tests.pki import Authority, Issued, replace

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


class Pki(NamedTuple):
    """An authority and what it has signed."""

    authority: Authority
    server: Issued
    client: Issued
    other: Authority

    def files(self, *, client_ca: bool = True, **settings: Any) -> TlsFiles:
        ca = self.authority.pem if client_ca else None
        return TlsFiles(self.server.pem, self.server.key, trusted_ca=ca, **settings)

    def context(self, certificate: Issued | None = None, alpn: str | None = None) -> ssl.SSLContext:
        """The context of a client that trusts the authority."""
        context = ssl.create_default_context(cafile=self.authority.pem)
        if certificate is not None:
            context.load_cert_chain(certificate.pem, certificate.key)
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        return context


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    authority = Authority(tmp_path)
    return Pki(authority, authority.issue("server"), authority.issue("client"), Authority(tmp_path, "other"))


def tell_common_name(call: Call, _message: bytes) -> None:
    call.reply(str(call.common_name).encode())


def tell_security(request: HttpRequest, responder: HttpResponder) -> None:
    responder.reply(200, [], f"{request.secure} {request.common_name}".encode())


class Served:
    """A native listener with TLS, for the time of a with statement."""

    def __init__(self, files: TlsFiles, limits: Limits | None = None, **security: Any) -> None:
        echo = {"/test.Echo/Echo": lambda call, message: call.reply(message)}
        routes = Routes({"/test.Echo/Name": tell_common_name, **echo}, {})
        self.logger = CapturingLogger()
        log = structlog.wrap_logger(self.logger, processors=[])
        self.listener = NativeListener(
            routes,
            tell_security,
            limits or Limits(),
            log,
            fatal=lambda error: None,
            security=Security(ServerTls(files, log), **security),
        )
        self.port = 0

    @property
    def logged(self) -> list[tuple[str, str]]:
        """What was logged, and why."""
        return [(call.kwargs["event"], call.kwargs.get("reason", "")) for call in self.logger.calls]

    async def __aenter__(self) -> Self:
        bound = socket.create_server(("127.0.0.1", 0))
        self.port = bound.getsockname()[1]
        await self.listener.start([bound])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.close()

    async def get(self, context: ssl.SSLContext | None) -> tuple[str | None, bytes | None, bytes]:
        """Ask in HTTP/1.1; return the protocol agreed on, the server's certificate, the answer."""
        reader, writer = await asyncio.open_connection("localhost", self.port, ssl=context)
        try:
            writer.write(REQUEST)
            tls = writer.get_extra_info("ssl_object")
            head, found, body = (await reader.read()).partition(b"\r\n\r\n")
            if tls is None:
                return None, None, head + found + body
            return tls.selected_alpn_protocol(), tls.getpeercert(binary_form=True), body
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def answer(self, context: ssl.SSLContext | None) -> bytes | str:
        """Return what a client is answered, or why it is not."""
        try:
            return (await self.get(context))[2]
        except OSError as error:
            return str(error).partition("]")[0].partition("[SSL: ")[2] or type(error).__name__

    async def call(self, pki: Pki, method: str, message: bytes = b"") -> bytes:
        """Call in gRPC."""
        credentials = grpc.ssl_channel_credentials(
            pki.authority.pem.read_bytes(), pki.client.key.read_bytes(), pki.client.pem.read_bytes()
        )
        async with grpc.aio.secure_channel(f"localhost:{self.port}", credentials) as channel:
            answer: bytes = await channel.unary_unary(f"/test.Echo/{method}", bytes, bytes)(message, timeout=10)
            return answer


def at(version: ssl.TLSVersion, context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


def test_grpc_and_http_with_client_certificate(pki: Pki) -> None:
    """Both protocols share the port under TLS as well, and services see the client's verified name."""

    async def run() -> None:
        async with Served(pki.files()) as served:
            assert await served.call(pki, "Name") == b"client"
            assert await served.answer(pki.context(pki.client)) == b"True client"

    asyncio.run(run())


def test_connections_share_the_read_buffer(pki: Pki) -> None:
    """Large messages on several connections at once come back as they were: no read overwrites another's."""

    async def run() -> None:
        messages = [bytes([number]) * 1_500_000 for number in range(4)]
        async with Served(pki.files()) as served:
            assert await asyncio.gather(*(served.call(pki, "Echo", message) for message in messages)) == messages

    asyncio.run(run())


def test_alpn(pki: Pki) -> None:
    """h2 is offered, as new grpc-go clients insist; whoever wants something else is served all the same."""

    async def run() -> None:
        async with Served(pki.files(client_ca=False)) as served:
            for offered, agreed in (("h2", "h2"), ("http/1.1", None), (None, None)):
                protocol, _, answer = await served.get(pki.context(alpn=offered))
                assert (protocol, answer) == (agreed, b"True None"), offered

    asyncio.run(run())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_gets_in(pki: Pki, version: ssl.TLSVersion) -> None:
    """A client gets in with a certificate that is signed, valid and not revoked; otherwise TLS tells it why not."""
    revoked = pki.authority.issue("revoked")
    listed = pki.authority.revoke(pki.authority.pem.with_name("crl.pem"), revoked)
    clients = {
        "good": (pki.context(pki.client), b"True client"),
        "without names": (pki.context(pki.authority.issue("bare", dns=(), addresses=())), b"True bare"),
        "none": (pki.context(), "HANDSHAKE_FAILURE" if version is ssl.TLSVersion.TLSv1_2 else "CERTIFICATE_REQUIRED"),
        "stranger's": (pki.context(pki.other.issue("stranger")), "UNKNOWN_CA"),
        "expired": (pki.context(pki.authority.issue("expired", valid=False)), "CERTIFICATE_EXPIRED"),
    }

    async def run() -> None:
        async with Served(pki.files(revoked=listed)) as served:
            for name, (context, expected) in clients.items():
                answer = await served.answer(at(version, context))
                assert answer == expected if isinstance(expected, bytes) else str(answer).endswith(expected), name
            assert await served.answer(at(version, pki.context(revoked))) in {b"", "ConnectionResetError"}
            assert [event for event, _ in served.logged] == ["rejected connection on client endpoint"] * 4
            assert "revoked" in served.logged[-1][1]

    asyncio.run(run())


def test_allowed_names(pki: Pki) -> None:
    """A certificate that is valid but not on the list is turned away in the handshake."""

    async def run() -> None:
        cases: list[tuple[dict[str, Any], bytes | None]] = [
            ({"common_names": ["x", "client"]}, b"True client"),
            ({"common_names": ["x"]}, None),
            ({"host_names": ["x", "localhost"]}, b"True client"),
            ({"host_names": ["127.0.0.1"]}, b"True client"),
            ({"host_names": ["client"]}, None),
        ]
        for settings, expected in cases:
            async with Served(pki.files(**settings)) as served:
                answer = await served.answer(pki.context(pki.client))
                if expected is None:
                    assert answer in {b"", "ConnectionResetError"}, settings
                    assert served.logged[0][1] == "client certificate authentication failed"
                else:
                    assert answer == expected, settings

    asyncio.run(run())


def test_a_certificate_for_another_address(pki: Pki) -> None:
    """Where it is asked for, a stolen certificate is of no use elsewhere; DNS is asked where there are names."""
    authority = pki.authority
    clients = {
        "address": (authority.issue("a", dns=()), True),
        "name": (authority.issue("b", addresses=()), True),
        "no names": (authority.issue("c", dns=(), addresses=()), True),
        "other address": (authority.issue("d", dns=(), addresses=("192.0.2.1",)), False),
        "other name": (authority.issue("e", dns=("nowhere.invalid",), addresses=("192.0.2.1",)), False),
    }

    async def run() -> None:
        async with Served(pki.files(), address_must_fit=True, for_peers=True) as served:
            for name, (certificate, expected) in clients.items():
                answer = await served.answer(pki.context(certificate))
                assert (
                    isinstance(answer, bytes) and answer.startswith(b"True")
                    if expected
                    else answer
                    in {
                        b"",
                        "ConnectionResetError",
                    }
                ), name
            assert served.logged == [
                (
                    "rejected connection on peer endpoint",
                    "the certificate is for none of the names and addresses of 127.0.0.1",
                )
            ]

    asyncio.run(run())


def test_replaced_files_count_from_the_next_handshake_on(pki: Pki) -> None:
    """Rotating certificate, authority and revocation list needs no restart, and half a rotation disturbs nobody."""

    async def run() -> None:
        crl = pki.authority.revoke(pki.server.pem.with_name("crl"), der=True)
        async with Served(pki.files(revoked=crl)) as served:
            before = await served.get(pki.context(pki.client))
            replace(pki.server.pem, b"half")
            during = await served.get(pki.context(pki.client))
            pki.authority.issue("server", dns=())  # a client that dials an address names no server
            context = pki.context(pki.client)
            context.check_hostname = False
            after = await served.get(context)
            assert {before[2], during[2], after[2]} == {b"True client"}
            assert before[1] == during[1] != after[1]
            assert "the ones from before stay in use" in served.logged[0][0]
            pki.authority.revoke(crl, pki.client)
            assert await served.answer(context) in {b"", "ConnectionResetError"}
            replace(crl, b"nonsense")
            assert await served.answer(context) in {b"", "ConnectionResetError"}
            crl.unlink()
            assert await served.answer(context) in {b"", "ConnectionResetError"}
            pki.authority.revoke(crl)
            assert await served.answer(context) == b"True client"
            replace(pki.authority.pem, pki.other.pem.read_bytes())
            assert await served.answer(context) != b"True client"
            newcomer = pki.other.issue("newcomer")
            context.load_cert_chain(newcomer.pem, newcomer.key)
            assert await served.answer(context) == b"True newcomer"

    asyncio.run(run())


def test_a_certificate_with_addresses_alone_is_replaced_too(pki: Pki) -> None:
    """Go looks a certificate up by the name that the client asks for, and finds none by an address (#9541)."""

    async def run() -> None:
        pki.authority.issue("server", dns=())
        context = pki.context(pki.client)
        context.check_hostname = False
        async with Served(pki.files()) as served:
            before = await served.get(context)
            pki.authority.issue("server", dns=())
            after = await served.get(context)
            assert before[2] == after[2] == b"True client"
            assert before[1] != after[1]

    asyncio.run(run())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_outlives_what_it_was_granted_for(pki: Pki, version: ssl.TLSVersion) -> None:
    """A client that goes on with an old session would not be asked for its certificate, which may be revoked by now."""

    async def run() -> None:
        async with Served(pki.files()) as served:
            loop = asyncio.get_running_loop()
            context = at(version, pki.context(pki.client))

            def twice() -> list[bool]:
                reused, session = [], None
                for _ in range(2):
                    plain = socket.create_connection(("127.0.0.1", served.port))
                    with context.wrap_socket(plain, server_hostname="localhost", session=session) as secured:
                        secured.sendall(REQUEST)
                        assert b"True client" in secured.recv(10_000)
                        reused.append(bool(secured.session_reused))
                        session = secured.session
                return reused

            assert await loop.run_in_executor(None, twice) == [False, False]

    asyncio.run(run())


def test_versions_and_ciphers(pki: Pki) -> None:
    """The bounds and the suites hold."""

    async def run() -> None:
        suite = "ECDHE-ECDSA-AES256-GCM-SHA384"
        async with Served(pki.files(client_ca=False, version_max="TLS1.2", cipher_suites=[suite])) as served:
            context = pki.context()
            assert await served.answer(context) == b"True None"
            context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
            assert await served.answer(context) != b"True None"
            assert await served.answer(at(ssl.TLSVersion.TLSv1_3, pki.context())) == "TLSV1_ALERT_PROTOCOL_VERSION"
        async with Served(pki.files(client_ca=False, version_min="TLS1.3")) as served:
            assert await served.answer(at(ssl.TLSVersion.TLSv1_2, pki.context())) == "TLSV1_ALERT_PROTOCOL_VERSION"
            assert await served.answer(pki.context()) == b"True None"

    asyncio.run(run())


def test_plain_clients(pki: Pki) -> None:
    """Who forgets TLS is told so; where both are served on one port, as etcd does it, each gets its own."""

    async def run() -> None:
        async with Served(pki.files(client_ca=False)) as served:
            assert await served.answer(None) == NOT_TLS
        async with Served(pki.files(client_ca=False), plain_too=True) as served:
            plain = await served.answer(None)
            assert isinstance(plain, bytes)
            assert plain.endswith(b"False None")
            assert await served.answer(pki.context()) == b"True None"

    asyncio.run(run())


def test_rubbish_harms_nobody(pki: Pki) -> None:
    """Whatever comes in place of a handshake, the connection ends, and the next client is served."""
    chance = Random(7)
    pieces = [
        b"\x16",
        b"\x16\x03\x01\xff\xff" + bytes(500),
        b"\x16\x03\x01\x00\x00",
        b"\0" * 70_000,
        b"PRI * HTTP/2.0\r\n",
    ]
    pieces += [bytes([door.TLS_HANDSHAKE]) + chance.randbytes(chance.randrange(2000)) for _ in range(20)]

    async def run() -> None:
        async with Served(pki.files(), Limits(header_timeout_s=0.5)) as served:
            for piece in pieces:
                reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
                with suppress(OSError):
                    writer.write(piece)
                    await asyncio.wait_for(reader.read(), 10.0)
                writer.close()
            assert await served.answer(pki.context(pki.client)) == b"True client"

    asyncio.run(run())


def test_unfinished_handshakes_are_bounded(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens the door and stays in it is put out, by the clock or by the next ones (GHSA-6vch-q96h-7gc3)."""
    monkeypatch.setattr(door, "HANDSHAKES_MAX", 20)

    async def run() -> None:
        async with Served(pki.files(), Limits(header_timeout_s=0.3)) as served:
            silent = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(30)]
            for _, writer in silent[::2]:
                writer.write(bytes([door.TLS_HANDSHAKE, 3, 1]))  # and no more
            assert await served.answer(pki.context(pki.client)) == b"True client"
            assert served.listener.connection_count <= 20
            for reader, writer in silent:
                with suppress(OSError):
                    assert await asyncio.wait_for(reader.read(), 10.0) == b""
                writer.close()
            assert served.listener.connection_count == 0
            assert sorted({reason for _, reason in served.logged}) == [
                "no handshake within the time allowed",
                "too many handshakes at once",
            ]
            assert len(served.logged) == 2  # thirty refusals

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"version_min": "TLS1.1"}, 'unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)'),
        ({"cipher_suites": ["X"]}, "OpenSSL has none of the cipher suites X"),
        ({"trusted_ca": "missing"}, "cannot read the trusted authorities"),
        ({"trusted_ca": "server.key"}, "cannot read the trusted authorities"),
        ({"key": "client.key"}, "cannot use the certificate"),
        ({"certificate": None}, "KeyFile and CertFile must both be present[key: "),
        ({"revoked": "server.pem"}, "cannot be read"),
    ],
)
def test_bad_settings(pki: Pki, settings: dict[str, Any], text: str) -> None:
    """What cannot work is refused at the start, with words that say what."""
    folder = pki.server.pem.parent
    given: dict[str, Any] = {"certificate": "server.pem", "key": "server.key", **settings}
    paths = {"certificate", "key", "trusted_ca", "revoked"}
    files = {name: folder / value if name in paths and value else value for name, value in given.items()}
    with pytest.raises(TlsConfigurationError) as caught:
        ServerTls(TlsFiles(**files), structlog.get_logger()).context(lambda alert: None)
    assert text in str(caught.value)

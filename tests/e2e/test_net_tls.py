"""TLS on the native engine: ALPN, client certificates and their names, versions, replaced certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc.aio
import pytest
import structlog

from net.listener import NativeListener
from net.rpc import Call, HttpRequest, HttpResponder, Limits, Routes
from net.tls import TlsConfigurationError, TlsFiles, client_allowed, server_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.e2e

EXTENSIONS = "subjectAltName=DNS:localhost,IP:127.0.0.1"


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_certificate(folder: Path, name: str, *, ca: str | None = "ca") -> None:
    """Make name.pem and name.key with the name as CN; signed by *ca*, or by itself."""
    signed_by: list[str | Path] = [] if ca is None else ["-CA", folder / f"{ca}.pem", "-CAkey", folder / f"{ca}.key"]
    key_kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    files: list[str | Path] = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
    openssl("req", "-x509", *key_kind, *files, "-subj", f"/CN={name}", "-addext", EXTENSIONS, *signed_by)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    make_certificate(made, "ca", ca=None)
    for name in ("server", "client"):
        make_certificate(made, name)
    make_certificate(made, "stranger", ca=None)
    return made


def files_in(folder: Path, *, client_ca: bool = False, **settings: Any) -> TlsFiles:
    ca = folder / "ca.pem" if client_ca else None
    return TlsFiles(folder / "server.pem", folder / "server.key", trusted_ca=ca, **settings)


def client_context(folder: Path, certificate: str | None = None, alpn: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if certificate is not None:
        context.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    return context


def tell_common_name(call: Call, _message: bytes) -> None:
    call.reply(str(call.common_name).encode())


def tell_security(request: HttpRequest, responder: HttpResponder) -> None:
    responder.reply(200, [], f"{request.secure} {request.common_name}".encode())


class Served:
    """A native listener with TLS, for the time of a with statement."""

    def __init__(self, files: TlsFiles, admit: Callable[[Mapping[str, Any]], bool] | None = None) -> None:
        echo = {"/test.Echo/Echo": lambda call, message: call.reply(message)}
        routes = Routes({"/test.Echo/Name": tell_common_name, **echo}, {})
        context = server_context(files)
        log = structlog.get_logger()
        self._listener = NativeListener(
            routes, tell_security, Limits(), log, fatal=lambda error: None, tls=context, admit=admit
        )
        self.port = 0

    async def __aenter__(self) -> Self:
        bound = socket.create_server(("127.0.0.1", 0))
        self.port = bound.getsockname()[1]
        await self._listener.start([bound])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.close()

    async def get(self, context: ssl.SSLContext) -> tuple[str | None, bytes, bytes]:
        """Ask in HTTP/1.1; return the protocol agreed on, the server's certificate, the answer."""
        reader, writer = await asyncio.open_connection("localhost", self.port, ssl=context)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            tls = writer.get_extra_info("ssl_object")
            answer = (await reader.read()).partition(b"\r\n\r\n")[2]
            return tls.selected_alpn_protocol(), tls.getpeercert(binary_form=True), answer
        finally:
            writer.close()

    async def call(self, folder: Path, certificate: str, method: str, message: bytes = b"") -> bytes:
        """Call in gRPC, as *certificate*."""
        pem, key = (folder / f"{certificate}.{suffix}" for suffix in ("pem", "key"))
        credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes(), key.read_bytes(), pem.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{self.port}", credentials) as channel:
            answer: bytes = await channel.unary_unary(f"/test.Echo/{method}", bytes, bytes)(message, timeout=10)
            return answer


def test_grpc_and_http_with_client_certificate(folder: Path) -> None:
    """Both protocols share the port under TLS as well, and services see the client's verified name."""

    async def run() -> None:
        async with Served(files_in(folder, client_ca=True)) as served:
            assert await served.call(folder, "client", "Name") == b"client"
            assert (await served.get(client_context(folder, "client")))[2] == b"True client"

    asyncio.run(run())


def test_connections_share_the_read_buffer(folder: Path) -> None:
    """Large messages on several connections at once come back as they were: no read overwrites another's."""

    async def run() -> None:
        messages = [bytes([number]) * 1_500_000 for number in range(4)]
        async with Served(files_in(folder, client_ca=True)) as served:
            calls = (served.call(folder, "client", "Echo", message) for message in messages)
            assert await asyncio.gather(*calls) == messages

    asyncio.run(run())


@pytest.mark.parametrize(("offered", "agreed"), [("h2", "h2"), ("http/1.1", None), (None, None)])
def test_alpn(folder: Path, offered: str | None, agreed: str | None) -> None:
    """h2 is offered, as new grpc-go clients insist; whoever wants something else is served all the same."""

    async def run() -> None:
        async with Served(files_in(folder)) as served:
            protocol, _, answer = await served.get(client_context(folder, alpn=offered))
            assert (protocol, answer) == (agreed, b"True None")

    asyncio.run(run())


@pytest.mark.parametrize("certificate", [None, "stranger"])
def test_client_certificate_is_required(folder: Path, certificate: str | None) -> None:
    """With a CA, clients without a certificate that it signed get no answer."""

    async def run() -> None:
        async with Served(files_in(folder, client_ca=True)) as served:
            try:
                _, _, answer = await served.get(client_context(folder, certificate))
            except OSError:
                answer = b""
            assert answer == b""

    asyncio.run(run())


@pytest.mark.parametrize(("allowed", "answer"), [("client", b"True client"), ("other", b"")])
def test_allowed_names(folder: Path, allowed: str, answer: bytes) -> None:
    """A certificate that is valid but not on the list is turned away before any request."""

    async def run() -> None:
        admit = partial(client_allowed, common_names=[allowed], host_names=[])
        async with Served(files_in(folder, client_ca=True), admit) as served:
            try:
                seen = (await served.get(client_context(folder, "client")))[2]
            except OSError:
                seen = b""
            assert seen == answer

    asyncio.run(run())


def test_replaced_certificate_is_used(folder: Path, tmp_path: Path) -> None:
    """Rotation needs no restart: the next handshake shows the new certificate; a broken one fails only handshakes."""

    async def run() -> None:
        for name in ("ca.pem", "ca.key", "server.pem", "server.key"):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        async with Served(files_in(tmp_path)) as served:
            before = await served.get(client_context(folder))
            (tmp_path / "server.pem").write_bytes(b"half")
            with pytest.raises(OSError, match=r".*"):
                await served.get(client_context(folder))
            make_certificate(tmp_path, "server")
            after = await served.get(client_context(folder))
            assert (before[2], after[2]) == (b"True None", b"True None")
            assert before[1] != after[1]

    asyncio.run(run())


def test_versions_and_ciphers(folder: Path) -> None:
    """The bounds and the suites hold."""

    async def run() -> None:
        settings: dict[str, Any] = {
            "version_max": "TLS1.2",
            "cipher_suites": ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"],
        }
        async with Served(files_in(folder, **settings)) as served:
            context = client_context(folder)
            assert (await served.get(context))[2] == b"True None"
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            with pytest.raises(OSError, match=r".*"):
                await served.get(context)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"version_min": "TLS1.1"}, 'unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)'),
        ({"cipher_suites": ["X"]}, 'unexpected TLS cipher suite "X"'),
        ({"trusted_ca": Path("/nonexistent/ca.pem")}, "No such file"),
    ],
)
def test_bad_settings(folder: Path, settings: dict[str, Any], text: str) -> None:
    """What cannot work is refused at the start, with words that say what."""
    with pytest.raises(TlsConfigurationError) as caught:
        server_context(TlsFiles(folder / "server.pem", folder / "server.key", **settings))
    assert text in str(caught.value)


def test_names_on_allow_lists() -> None:
    """CN by equality; host names against the alternatives, with one wildcard label; empty lists allow all."""
    certificate = {
        "subject": ((("commonName", "a"),),),
        "subjectAltName": (("DNS", "*.example.com"), ("IP Address", "10.0.0.1")),
    }
    assert client_allowed(certificate, [], [])
    assert client_allowed(certificate, ["b", "a"], [])
    assert not client_allowed(certificate, ["b"], [])
    assert client_allowed(certificate, [], ["x.example.com"])
    assert client_allowed(certificate, [], ["10.0.0.1"])
    assert not client_allowed(certificate, [], ["example.com"])
    assert not client_allowed(certificate, [], ["x.y.example.com"])
    assert not client_allowed({}, ["a"], [])

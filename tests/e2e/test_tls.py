"""TLS as an operator configures it: who gets in on every listener, names of users, rotation, and members among etcd's.

What a single handshake gets is in tests/unit/test_net_tls.py; here are whole servers and the real tools.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, CHANNEL_OPTIONS, connect, stubs
from tests.e2e.harness import ROOT, Program, Server, actcd, etcd_tool, real_etcd, reserve_port, wait_for
from tests.pki import Authority, Issued, replace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e


class Site:
    """A folder with authorities and certificates, free ports, and servers that are killed at the end."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.authority, self.other = Authority(folder), Authority(folder, "other")
        self.server = self.authority.issue("server")
        self.root = self.authority.issue("root")
        self.crl = self.authority.revoke(folder / "crl")
        self._stack = stack

    def port(self) -> int:
        """A port that stays free until a server listens on it."""
        return int(self._stack.enter_context(reserve_port()).getsockname()[1])

    def section(self, issued: Issued, **more: object) -> dict[str, object]:
        """Half of the security section, with *issued* and the authority."""
        named = {"cert-file": str(issued.pem), "key-file": str(issued.key), "trusted-ca-file": str(self.authority.pem)}
        return {**named, "client-cert-auth": True, **{name.replace("_", "-"): value for name, value in more.items()}}

    def launch(self, name: str, program: Program, **settings: object) -> Server:
        """Start a server, which need not be ready yet."""
        given = {key.replace("_", "-"): value for key, value in settings.items()}
        server = Server(program, self.folder / name, settings={"log-level": "info", **given}, name=name)
        self._stack.callback(server.close)
        server.launch()
        return server

    def context(self, certificate: Issued | None) -> ssl.SSLContext:
        """A client of the authority's."""
        context = ssl.create_default_context(cafile=self.authority.pem)
        if certificate is not None:
            context.load_cert_chain(certificate.pem, certificate.key)
        return context

    def get(self, port: int, certificate: Issued | None, path: str = "/version") -> int | None:
        """The status of a page over TLS; None if the server lets nobody in."""
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10.0, context=self.context(certificate))
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def shown(self, port: int) -> bytes:
        """The certificate that the server at *port* shows."""
        context = self.context(self.root)
        with socket.create_connection(("127.0.0.1", port), timeout=10.0) as plain:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with context.wrap_socket(plain) as secured:
                return secured.getpeercert(binary_form=True) or b""

    def etcdctl(self, endpoint: str, *arguments: str, certificate: Issued | None = None) -> str:
        """What etcdctl says, whether it succeeds or not."""
        shown = [f"--cert={certificate.pem}", f"--key={certificate.key}"] if certificate is not None else []
        secure = [f"--cacert={self.authority.pem}", *shown] if "s://" in endpoint else []
        done = subprocess.run(
            [etcd_tool("etcdctl"), f"--endpoints={endpoint}", "--dial-timeout=10s", *secure, *arguments],
            env={"ETCDCTL_API": "3", "PATH": os.environ["PATH"], "HOME": str(self.folder)},
            cwd=self.folder,
            capture_output=True,
            encoding="utf-8",
            timeout=60.0,
            check=False,
        )
        return (done.stdout + done.stderr).strip()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


def wait_until_up(server: Server, port: int, path: str = "/health") -> None:
    """Wait until the plain listener at *port* says that the server is healthy."""

    def healthy() -> bool:
        assert server.process is not None, "not launched"
        assert server.process.poll() is None, server.log_tail()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    try:
        wait_for(healthy, 60.0, f"{server.name} is up")
    except AssertionError as late:
        raise AssertionError(f"{late}\n{server.log_tail()}") from None


def logged(server: Server, message: str) -> list[dict[str, Any]]:
    """The lines of the server's log with this message."""
    lines = [line for line in server.log_path.read_text(errors="replace").splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, lines) if line["msg"] == message]


def test_every_listener_asks_the_same(site: Site) -> None:
    """Whatever a listener is for, it lets in whom the configuration lets in, and nobody else.

    etcd once forgot the revocation list where HTTP has listeners of its own (GHSA-3wh4-j44w-pg92).  Names, rotation
    and the start messages are seen on the same server.
    """
    grpc_port, http_port, metrics_port, plain_port = (site.port() for _ in range(4))
    server = site.launch(
        "a",
        actcd(),
        listen_client_urls=f"https://127.0.0.1:{grpc_port},unixs://{site.folder}/s",
        listen_client_http_urls=f"https://127.0.0.1:{http_port}",
        listen_metrics_urls=f"https://127.0.0.1:{metrics_port},http://127.0.0.1:{plain_port}",
        client_transport_security=site.section(site.server, crl_file=str(site.crl)),
    )
    wait_until_up(server, plain_port)
    revoked = site.authority.issue("revoked")
    site.authority.revoke(site.crl, revoked)
    clients = {
        "good": site.root,
        "none": None,
        "stranger's": site.other.issue("stranger"),
        "expired": site.authority.issue("expired", valid=False),
        "revoked": revoked,
    }
    got = {name: [site.get(port, it) for port in (grpc_port, http_port, metrics_port)] for name, it in clients.items()}
    assert got.pop("good") == [404, 200, 404]  # gRPC alone, every page, and pages of metrics alone
    assert got == dict.fromkeys(got, [None] * 3)
    assert site.get(metrics_port, site.root, "/metrics") == 200

    # The name in the certificate is the user's.  A request through the gateway never has one (CVE-2018-16886).
    endpoint, joe = f"https://127.0.0.1:{grpc_port}", site.authority.issue("joe")
    for command in (
        "put secret x",
        "user add root --no-password",
        "user grant-role root root",
        "user add joe --no-password",
        "role add r",
        "role grant-permission r readwrite k",
        "user grant-role joe r",
        "auth enable",
    ):
        assert "rror" not in site.etcdctl(endpoint, *command.split(), certificate=site.root), command
    assert site.etcdctl(endpoint, "put", "k", "v", certificate=joe) == "OK"
    assert "permission denied" in site.etcdctl(endpoint, "get", "secret", certificate=joe)
    gateway = http.client.HTTPSConnection("127.0.0.1", http_port, timeout=10.0, context=site.context(site.root))
    gateway.request("POST", "/v3/kv/range", body=b'{"key":"c2VjcmV0"}')
    refused = gateway.getresponse()
    assert refused.status == 400
    assert b"CommonName of client sending a request against gateway will be ignored" in refused.read()
    gateway.close()
    with secure_channel(site, grpc_port, site.root) as channel:
        call = stubs(channel).kv.Range
        assert call(rpc_pb2.RangeRequest(key=b"secret"), timeout=CALL_TIMEOUT_S).count == 1
        with pytest.raises(grpc.RpcError) as caught:
            call(rpc_pb2.RangeRequest(key=b"secret"), metadata=[("grpcgateway-accept", "x")], timeout=CALL_TIMEOUT_S)
        assert "user name is empty" in str(caught.value)

    shown = [f"--cacert={site.authority.pem}", f"--cert={site.root.pem}", f"--key={site.root.key}"]
    assert "Snapshot saved" in save(site, f"--endpoints={endpoint}", *shown, "--dial-timeout=20s")
    assert "must be one of" in save(site, "--endpoints=ftp://x:1")

    # A certificate, and then the authority, are replaced: every listener follows at its next handshake.
    ports = (grpc_port, http_port, metrics_port)
    before = site.shown(grpc_port)
    site.server = site.authority.issue("server")
    assert len({site.shown(port) for port in ports} - {before}) == 1
    newer = Authority(site.folder / "newer")
    replace(site.authority.pem, newer.pem.read_bytes())
    fresh = newer.issue("server")
    replace(site.server.pem, fresh.pem.read_bytes())
    replace(site.server.key, fresh.key.read_bytes())
    assert [site.get(port, newer.issue("root"), "/version") for port in ports] == [404, 200, 404]
    assert [site.get(port, joe) for port in ports] == [None] * 3
    assert {each["address"] for each in logged(server, "serving client traffic securely")} == {
        f"https://127.0.0.1:{grpc_port}",
        f"https://127.0.0.1:{http_port}",
        f"unixs://{site.folder}/s",
    }
    assert logged(server, "serving client traffic insecurely; this is strongly discouraged!") == []
    assert server.stop() == -15
    assert not (site.folder / "s").exists()


def save(site: Site, *options: str) -> str:
    """What `actcd snapshot save` says, whether it succeeds or not."""
    command = [sys.executable, "-m", "daemon", "snapshot", "save", str(site.folder / "backup"), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60.0, check=False)
    return done.stdout + done.stderr


def secure_channel(site: Site, port: int, certificate: Issued) -> grpc.Channel:
    """A channel of a client with *certificate*."""
    files = (site.authority.pem, certificate.key, certificate.pem)
    credentials = grpc.ssl_channel_credentials(*(path.read_bytes() for path in files))
    return grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=CHANNEL_OPTIONS)


def test_the_other_engine(site: Site) -> None:
    """The engine grpcio serves the same files, follows when they are replaced, and tells services the client's name."""
    port, plain_port = site.port(), site.port()
    server = site.launch(
        "a",
        actcd(),
        engine="grpcio",
        listen_client_urls=f"https://127.0.0.1:{port},unix://{site.folder}/s,unixs://{site.folder}/t",
        listen_metrics_urls=f"http://127.0.0.1:{plain_port}",
        client_transport_security=site.section(site.server),
    )
    wait_until_up(server, plain_port)
    wait_for(lambda: "OK" in site.etcdctl(f"unix://{site.folder}/s", "put", "k", "v"), 20.0, "it serves")

    def served(certificate: Issued, key: bytes = b"k") -> bool:
        with suppress(grpc.RpcError), secure_channel(site, port, certificate) as channel:
            answer = stubs(channel).kv.Range(rpc_pb2.RangeRequest(key=key), timeout=5.0)
            return bool(answer.count)
        return False

    assert served(site.root)
    assert not served(site.other.issue("stranger"))
    assert not served(site.authority.issue("expired", valid=False))
    before = site.shown(port)
    site.server = site.authority.issue("server")
    assert site.shown(port) != before
    replace(site.server.pem, b"half")
    assert served(site.root)
    newer = Authority(site.folder / "newer")
    fresh = newer.issue("server")
    for old, new in ((site.authority.pem, newer.pem), (site.server.key, fresh.key), (site.server.pem, fresh.pem)):
        replace(old, new.read_bytes())
    old_root = site.root
    site.root = newer.issue("root")
    assert served(site.root)
    assert not served(old_root)
    for command in ("user add root --no-password", "user grant-role root root", "auth enable"):
        assert "rror" not in site.etcdctl(f"https://127.0.0.1:{port}", *command.split(), certificate=site.root), command
    assert served(site.root)
    assert not served(newer.issue("nobody"))


def test_members_of_both_kinds_over_tls(site: Site) -> None:
    """Ours and etcd verify each other in both directions; strangers are turned away with one line, and harm nobody."""
    peer_ports = [site.port() for _ in range(3)]
    plain_ports = [site.port() for _ in range(3)]
    cluster = ",".join(f"m{number}=https://127.0.0.1:{port}" for number, port in enumerate(peer_ports))
    issued = [site.authority.issue(f"m{number}", common_name="member") for number in range(3)]
    servers = [
        site.launch(
            f"m{number}",
            real_etcd() if number == 2 else actcd(),
            listen_client_urls=f"http://127.0.0.1:{plain_ports[number]}",
            advertise_client_urls=f"http://127.0.0.1:{plain_ports[number]}",
            listen_peer_urls=f"https://127.0.0.1:{peer_ports[number]}",
            initial_advertise_peer_urls=f"https://127.0.0.1:{peer_ports[number]}",
            initial_cluster=cluster,
            heartbeat_interval=50,
            election_timeout=1000,
            peer_transport_security=site.section(issued[number], **({} if number == 2 else {"allowed_cn": ["member"]})),
        )
        for number in range(3)
    ]
    for server, port in zip(servers, plain_ports, strict=True):
        wait_until_up(server, port)

    def put_and_read(key: bytes) -> None:
        """Write at each member, and read it at all."""
        for writer in plain_ports:
            with connect(f"127.0.0.1:{writer}") as client:
                lease = client.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=60), timeout=CALL_TIMEOUT_S).ID
                put = rpc_pb2.PutRequest(key=key, value=b"%d" % writer, lease=lease)
                client.kv.Put(put, timeout=CALL_TIMEOUT_S)
            for reader in plain_ports:
                with connect(f"127.0.0.1:{reader}") as client:
                    answer = client.kv.Range(rpc_pb2.RangeRequest(key=key), timeout=CALL_TIMEOUT_S)
                    assert [kv.value for kv in answer.kvs] == [b"%d" % writer]
                    renewal = iter([rpc_pb2.LeaseKeepAliveRequest(ID=lease)])
                    assert next(client.lease.LeaseKeepAlive(renewal, timeout=CALL_TIMEOUT_S)).TTL == 60

    put_and_read(b"a")
    strangers = [None, site.other.issue("x", common_name="member"), site.authority.issue("y", common_name="stranger")]
    for _ in range(3):
        for stranger in strangers:
            assert site.get(peer_ports[0], stranger, "/members") is None
    assert site.get(peer_ports[0], issued[1], "/members") == 200
    refused = logged(servers[0], "rejected connection on peer endpoint")
    reasons = [each["reason"] for each in refused]
    assert len(reasons) == len(set(reasons)) == 3, reasons
    assert "client certificate authentication failed" in reasons

    # All certificates are replaced by those of another authority, one member after the other, with both trusted.
    newer = Authority(site.folder / "newer")
    replace(site.authority.pem, site.authority.pem.read_bytes() + newer.pem.read_bytes())
    for number, old in enumerate(issued):
        fresh = newer.issue(f"m{number}", common_name="member")
        replace(old.key, fresh.key.read_bytes())
        replace(old.pem, fresh.pem.read_bytes())
    for number in (2, 0):  # etcd first: it reads authorities only when it starts, and would turn the others away
        servers[number].kill()  # the others dial it anew, and it them
        servers[number].launch()
        wait_until_up(servers[number], plain_ports[number])
    put_and_read(b"b")
    assert site.get(peer_ports[1], newer.issue("z", common_name="member"), "/members") == 200


def test_certificates_made_at_the_start(site: Site) -> None:
    """auto-tls and peer-auto-tls work beside etcd, on the port that also serves without TLS, and over unix sockets."""
    plain_ports = [site.port() for _ in range(2)]
    peer_ports = [site.port() for _ in range(2)]
    cluster = ",".join(f"m{number}=https://127.0.0.1:{port}" for number, port in enumerate(peer_ports))
    servers = [
        site.launch(
            f"m{number}",
            program,
            listen_client_urls=f"http://127.0.0.1:{plain_ports[number]},https://127.0.0.1:{plain_ports[number]}",
            advertise_client_urls=f"http://127.0.0.1:{plain_ports[number]}",
            listen_peer_urls=f"https://127.0.0.1:{peer_ports[number]}",
            initial_advertise_peer_urls=f"https://127.0.0.1:{peer_ports[number]}",
            initial_cluster=cluster,
            client_transport_security={"auto-tls": True},
            peer_transport_security={"auto-tls": True},
            self_signed_cert_validity=1,
        )
        for number, program in enumerate((actcd(), real_etcd()))
    ]
    for server, port in zip(servers, plain_ports, strict=True):
        wait_until_up(server, port)
    ours, theirs = (f"https://127.0.0.1:{port}" for port in plain_ports)
    made = servers[0].data_dir / "fixtures" / "client" / "cert.pem"
    assert site.etcdctl(theirs, "--insecure-skip-tls-verify", "put", "a", "1") == "OK"
    assert site.etcdctl(ours, "--insecure-skip-tls-verify", "get", "a", "--print-value-only") == "1"
    assert site.etcdctl(ours, f"--cacert={made}", "get", "a", "--print-value-only") == "1"
    assert site.etcdctl(f"http://127.0.0.1:{plain_ports[0]}", "get", "a", "--print-value-only") == "1"
    before = site.shown(plain_ports[0])
    servers[0].kill()
    servers[0].launch()
    wait_until_up(servers[0], plain_ports[0])
    assert site.shown(plain_ports[0]) == before

    # Our own client takes etcdctl's options.
    assert "Snapshot saved" in save(site, f"--endpoints={ours}", "--insecure-skip-tls-verify", "--dial-timeout=20s")
    assert "Snapshot saved" in save(site, f"--endpoints={ours}", f"--cacert={made}", "--dial-timeout=20s")
    assert "no server answers" in save(site, f"--endpoints={ours}", f"--cacert={site.authority.pem}")

"""Members that find each other: through an etcd, through the older discovery service, through DNS."""

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from proto import rpc_pb2
from tests.dns_server import serving
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.harness import Program, Server, actcd, etcd_tool, real_etcd, reserve_port, running, wait_for

pytestmark = pytest.mark.e2e

DISCOVERY = "/usr/bin/discovery.etcd.io"
OLD_ETCD = "/usr/bin/etcd"

WITH_DNS = """
import sys, dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = ["127.0.0.1"], int(sys.argv.pop(1))
dns.resolver.default_resolver = resolver
from daemon.__main__ import main
main()
"""


@contextmanager
def launched(
    directory: Path, settings: Mapping[str, object], programs: list[Program], first: int = 0
) -> Iterator[list[Server]]:
    """Servers named m0, m1, ... that are told of each other by nobody but what *settings* name."""
    with ExitStack() as stack:
        servers = []
        for number, program in enumerate(programs, first):
            server = Server(program, directory / f"m{number}", name=f"m{number}")
            server.settings = {**settings, "initial-cluster": "", "log-level": "info"}
            stack.callback(server.close)
            server.launch()
            servers.append(server)
        yield servers


def names_at(server: Server) -> set[str]:
    with connect(server.endpoint) as client:
        answer = client.cluster.MemberList(rpc_pb2.MemberListRequest(), timeout=CALL_TIMEOUT_S)
    return {member.name for member in answer.members}


def serve(server: Server) -> None:
    assert server.process is not None

    def healthy() -> bool:
        assert server.process is not None
        assert server.process.poll() is None, server.log_tail()
        return server._healthy()

    wait_for(healthy, 30.0, f"{server.name} serves")


def etcdctl(*arguments: str) -> None:
    subprocess.run([etcd_tool("etcdctl"), *arguments], check=True, capture_output=True, timeout=20.0)


def test_members_meet_at_an_etcd(tmp_path: Path) -> None:
    """A real etcd with TLS and users is asked as any client would ask it.

    The first two to come are the cluster, the third is told so; with data nobody needs the registry any more.
    """
    registry = Server(real_etcd(), tmp_path / "registry", {"client-transport-security": {"auto-tls": True}})
    address = registry.endpoint
    registry.settings = {
        **registry.settings,
        "listen-client-urls": f"https://{address}",
        "advertise-client-urls": f"https://{address}",
    }
    authority = registry.data_dir / "fixtures" / "client" / "cert.pem"
    with ExitStack() as stack:
        stack.callback(registry.close)
        registry.launch()
        flags = [f"--endpoints=https://{address}", f"--cacert={authority}"]

        def ready() -> bool:
            with suppress(subprocess.CalledProcessError):
                etcdctl(*flags, "put", "/_etcd/registry/token/_config/size", "2")
                return True
            return False

        wait_for(ready, 30.0, "the registry serves")
        etcdctl(*flags, "user", "add", "root", "--new-user-password=secret")
        etcdctl(*flags, "user", "grant-role", "root", "root")
        etcdctl(*flags, "auth", "enable")
        client = {
            "endpoints": ["127.0.0.1:1", address],
            "auth": {"username": "root", "password": "secret"},
            "secure": {"cacert": str(authority)},
        }
        settings = {"discovery-config": {"token": "token", "client": client}}
        first, second = stack.enter_context(launched(tmp_path, settings, [actcd(), actcd()]))
        serve(first)
        serve(second)
        assert names_at(first) == names_at(second) == {"m0", "m1"}

        late = Server(actcd(), tmp_path / "late", name="late")
        stack.callback(late.close)
        secure = {"insecure-transport": False, "insecure-skip-tls-verify": True}
        late.settings = {
            "initial-cluster": "",
            "discovery-config": {"token": "token", "client": {**client, "secure": secure}},
        }
        assert late.launch().wait(30.0) == 1
        assert "discovery: cluster is full" in late.log_tail()

        registry.kill()
        second.kill()
        second.launch()
        serve(second)
        assert "discovery token is ignored since cluster already initialized" in second.log_path.read_text()


def test_members_wait_for_each_other_and_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    """SIGTERM ends a member that waits; started again it takes the place that it has."""
    with running(Server(actcd(), tmp_path / "registry")) as registry, connect(registry.endpoint) as client:
        client.kv.Put(rpc_pb2.PutRequest(key=b"/_etcd/registry/t/_config/size", value=b"2"), timeout=CALL_TIMEOUT_S)
        settings = {"discovery-config": {"token": "t", "client": {"endpoints": [f"http://{registry.endpoint}"]}}}
        with launched(tmp_path, settings, [actcd()]) as (first,):
            wait_for(lambda: "waiting for peers" in first.log_path.read_text(), 30.0, "it has registered")
            first.stop()
            first.launch()
            with launched(tmp_path / "more", settings, [actcd()], first=1) as (second,):
                serve(first)
                serve(second)
                assert names_at(second) == {"m0", "m1"}


@pytest.mark.skipif(not shutil.which(DISCOVERY) or not shutil.which(OLD_ETCD), reason="needs Debian's etcd-discovery")
def test_members_meet_at_the_older_service_with_an_etcd_among_them(tmp_path: Path) -> None:
    """The service of etcd-discovery, on top of an etcd 3.4 with its v2 API: an etcd 3.5 and we make one cluster."""
    registry = Server(Program("etcd", (OLD_ETCD,)), tmp_path / "registry", {"enable-v2": True})
    reservation = reserve_port()
    address = f"127.0.0.1:{reservation.getsockname()[1]}"
    command = [DISCOVERY, "--addr", address, "--etcd", f"http://{registry.endpoint}", "--host", f"http://{address}"]
    with running(registry), reservation, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=-3) as service:
        try:
            tokens: list[str] = []

            def has_token() -> bool:
                with suppress(OSError), urllib.request.urlopen(f"http://{address}/new?size=2", timeout=5.0) as answer:
                    tokens.append(answer.read().decode())
                return bool(tokens)

            wait_for(has_token, 30.0, "the service gives a token")
            settings = {"discovery": tokens[-1]}
            with launched(tmp_path, settings, [actcd(), real_etcd()]) as servers:
                for server in servers:
                    serve(server)
                assert names_at(servers[0]) == names_at(servers[1]) == {"m0", "m1"}
        finally:
            service.kill()


def test_members_find_each_other_in_dns(tmp_path: Path) -> None:
    """Each knows itself by its address; the numbers it has for the others give way to their own names."""
    records: dict[str, list[str]] = {"_etcd-server-test._tcp.example.org": []}
    with serving(records) as (_, port):
        program = Program("actcd", (sys.executable, "-c", WITH_DNS, str(port)))
        settings = {"discovery-srv": "example.org", "discovery-srv-name": "test"}
        with ExitStack() as stack:
            servers = [Server(program, tmp_path / f"m{number}", name=f"m{number}") for number in range(2)]
            for server in servers:
                server.settings = {**settings, "initial-cluster": ""}
                records["_etcd-server-test._tcp.example.org"].append(
                    f"0 0 {server.peer_reservation.getsockname()[1]} 127.0.0.1."
                )
                stack.callback(server.close)
            for server in servers:
                server.launch()
            for server in servers:
                serve(server)
            assert names_at(servers[0]) == names_at(servers[1]) == {"m0", "m1"}
            stranger = Server(program, tmp_path / "stranger", {**settings, "initial-cluster": ""}, name="stranger")
            stack.callback(stranger.close)
            assert stranger.launch().wait(30.0) == 1
            assert 'cannot find local etcd member "stranger" in SRV records' in stranger.log_tail().replace("\\", "")

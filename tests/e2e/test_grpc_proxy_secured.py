"""`actcd grpc-proxy start` as it runs in earnest: TLS on both sides, members from DNS, pages on a port of their own."""

from __future__ import annotations

import http.client
import re
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.dns_server import serving
from tests.e2e.grpc_proxies import GrpcProxy
from tests.e2e.harness import Program, actcd, wait_for
from tests.e2e.test_discovery import WITH_DNS
from tests.e2e.test_tls import Site, wait_until_up

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

DOMAIN = "example.org"


def page(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a plain page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_proxy_with_tls_on_both_sides(tmp_path: Path) -> None:
    """Clients and members meet over two TLS connections; where the members are, DNS and then they themselves tell."""
    with ExitStack() as stack:
        site = Site(tmp_path, stack)
        member_cert = site.authority.issue("member", dns=(DOMAIN, "localhost"))
        first, second, plain, pages = (site.port() for _ in range(4))
        urls = f"https://127.0.0.1:{first},https://127.0.0.1:{second}"
        server = site.launch(
            "member",
            actcd(),
            listen_client_urls=urls,
            advertise_client_urls=urls,
            listen_metrics_urls=f"http://127.0.0.1:{plain}",
            client_transport_security=site.section(member_cert),
        )
        wait_until_up(server, plain)
        dns = stack.enter_context(
            serving({f"_etcd-client-ssl._tcp.{DOMAIN}": [f"0 0 {first} localhost."], f"_etcd-client._tcp.{DOMAIN}": []})
        )
        program = Program("proxy", (sys.executable, "-c", WITH_DNS, str(dns[1]), "grpc-proxy", "start"))
        flags = {
            "discovery-srv": DOMAIN,
            "cacert": site.authority.pem,
            "cert": site.root.pem,
            "key": site.root.key,
            "cert-file": site.server.pem,
            "key-file": site.server.key,
            "trusted-ca-file": site.authority.pem,
            "metrics-addr": f"http://127.0.0.1:{pages}",
            "endpoints-auto-sync-interval": "500ms",
            "advertise-client-url": "",
            "enable-pprof": "true",
        }
        proxy = GrpcProxy(program, tmp_path / "proxy", flags=[f"--{name}={value}" for name, value in flags.items()])
        stack.callback(proxy.close)
        proxy.launch()
        wait_until_up(proxy, pages)

        secure = f"https://{proxy.endpoint}"
        assert site.etcdctl(secure, "put", "k", "v", certificate=site.root) == "OK"
        assert site.etcdctl(secure, "get", "k", certificate=site.root) == "k\nv"
        assert "OK" not in site.etcdctl(secure, "put", "k", "stranger")
        assert "OK" not in site.etcdctl(f"http://{proxy.endpoint}", "put", "k", "plain")
        assert site.etcdctl(f"https://127.0.0.1:{first}", "get", "k", certificate=site.root) == "k\nv"

        assert site.get(proxy.client_port, site.root, "/health") == http.HTTPStatus.OK
        assert site.get(proxy.client_port, None, "/health") is None
        assert page(pages, "/health") == (200, b'{"health":"true","reason":""}')
        assert b"etcd_server_has_leader 1" in page(pages, "/metrics")[1]
        assert b"etcd_grpc_proxy_cache_keys_total" in page(pages, "/proxy/metrics")[1]
        assert b"goroutine" in page(pages, "/debug/pprof/")[1]
        assert b"thread MainThread" in page(pages, "/debug/pprof/goroutine")[1]

        def log() -> str:
            return proxy.log_path.read_text()

        assert f"localhost:{first}" in next(
            line for line in log().splitlines() if "discovered cluster from SRV" in line
        )
        found = re.compile(rf"addresses have changed.*127\.0\.0\.1:({first}|{second}).*127\.0\.0\.1:({first}|{second})")
        wait_for(lambda: found.search(log()) is not None, 15.0, "the members have told their addresses")
        assert site.etcdctl(secure, "get", "k", certificate=site.root) == "k\nv"
        assert proxy.end() == -15

        trusting = [each for each in proxy.flags if not each.startswith(("--cacert", "--metrics-addr"))]
        stranger = GrpcProxy(program, tmp_path / "stranger", flags=trusting)
        stack.callback(stranger.close)
        stranger.launch()
        told = "failed to validate discovered endpoints"
        wait_for(lambda: told in stranger.log_path.read_text(), 15.0, "an authority that nobody trusts is told of")

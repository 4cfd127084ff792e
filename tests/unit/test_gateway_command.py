"""`actcd gateway`: its flags, what it refuses, and which endpoints it takes.  Texts are those of etcd's gateway."""

from __future__ import annotations

import ssl
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import structlog

from config.gateway import GatewayFlags, read_flags
from config.start_flags import FlagsRefused, HelpWanted
from daemon.gateway_command import (
    GatewayRefused,
    chosen_endpoints,
    refuse_itself,
    run,
)
from net.srv import LookupFailed, Srv
from tests.e2e.harness import reserve_port

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LOGGER = structlog.get_logger()


def test_defaults_are_etcds() -> None:
    """A unit file without flags goes on working."""
    assert read_flags(["start"]) == GatewayFlags("127.0.0.1:23790", "127.0.0.1:2379", 60.0, "", "", False, "")
    assert chosen_endpoints(read_flags(["start"]), LOGGER) == (Srv("127.0.0.1", 2379),)


def test_flags_are_read_in_both_forms() -> None:
    """And the list of endpoints may be repeated."""
    given = "start --listen-addr=[::1]:1 --endpoints a:1,b:2 --endpoints=https://c:3 --retry-delay 1m30s word"
    options = read_flags([*given.split(), "--insecure-discovery", "--discovery-srv", "x.org"])
    assert options == GatewayFlags("[::1]:1", "a:1,b:2,https://c:3", 90.0, "x.org", "", True, "")
    assert not read_flags(["start", "--insecure-discovery=false"]).insecure_discovery


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["start", "--nope"], "unknown flag: --nope"),
        (["start", "--retry-delay", "x"], 'invalid argument "x" for "--retry-delay" flag'),
        (["start", "--retry-delay=-1s"], "must not be negative"),
        (["start", "--insecure-discovery=maybe"], 'invalid argument "maybe" for "--insecure-discovery" flag'),
        (["start", "--endpoints"], "flag needs an argument: --endpoints"),
        (["stop"], 'unknown command "stop"'),
    ],
)
def test_what_cannot_be_read_is_refused(arguments: list[str], text: str) -> None:
    """Nothing that was asked for is passed over."""
    with pytest.raises(FlagsRefused, match=text):
        read_flags(arguments)


def test_help() -> None:
    """For the word alone too, as in etcd."""
    for arguments in ([], ["--help"], ["start", "-h"]):
        with pytest.raises(HelpWanted):
            read_flags(arguments)


@pytest.mark.parametrize(("endpoints", "text"), [("foo", 'error parsing endpoint "foo"'), ("", "no endpoints found")])
def test_endpoints_that_are_none(endpoints: str, text: str) -> None:
    """In etcd's words."""
    with pytest.raises(GatewayRefused, match=text):
        chosen_endpoints(read_flags(["start", "--endpoints", endpoints]), LOGGER)


@pytest.mark.parametrize(
    ("listen", "endpoint", "text"),
    [
        ("foo", "a:1", "failed to validate listen address: foo"),
        (":1", "a:1", "failed to resolve listen host: $"),
        ("unknown:1", "a:1", "failed to resolve listen host: unknown"),
        ("a:1", "unknown:1", "failed to resolve endpoint host: unknown"),
        ("a:1", "b:1", r"\(b:1->10\.0\.0\.1:1\) should not resolve to the gateway listen addr \(a:1\)"),
        ("any:1", "own:1", r"\(own:1->127\.0\.0\.1:1\) should not resolve"),
    ],
)
def test_a_gateway_to_itself_is_refused(listen: str, endpoint: str, text: str) -> None:
    """CVE-2020-15114: one connection would become endless many.  Listening everywhere includes every own address."""
    hosts = {"a": {"10.0.0.1"}, "b": {"10.0.0.2", "10.0.0.1"}, "own": {"127.0.0.1"}, "any": {"0.0.0.0"}}

    def resolve(host: str) -> set[str]:
        if host not in hosts:
            raise OSError
        return hosts[host]

    host, port = endpoint.split(":")
    with pytest.raises(GatewayRefused, match=text):
        refuse_itself(listen, [Srv(host, int(port))], resolve)
    refuse_itself("a:1", [Srv("b", 2), Srv("own", 1)], resolve)


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and the reason on standard error."""
    reserved = reserve_port()
    with reserved:
        reserved.listen()
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        assert run(["start", "--listen-addr", address]) == 1
    assert f"listen tcp {address}: address already in use" in capsys.readouterr().err


@contextmanager
def member_with_certificate(folder: Path, domain: str) -> Iterator[int]:
    """Accept TLS connections as *domain*, whose certificate is in folder/cert.pem; yields the port."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
    subject = ["-subj", f"/CN={domain}", "-addext", f"subjectAltName=DNS:{domain}"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*made.split(), *subject, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = reserve_port()
    listener.listen()
    thread = threading.Thread(target=_handshakes, args=(listener, context))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(2)
        thread.join()
        listener.close()


def _handshakes(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        try:
            with connection, context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(1)
        except OSError:
            continue  # the client did not like the certificate


def test_members_that_dns_names_must_show_the_domains_certificate(tmp_path: Path) -> None:
    """CVE-2020-15136: DNS answers can be forged.  One without TLS or of another domain is left out, and so told."""
    with member_with_certificate(tmp_path, "example.org") as port:

        def lookup(service: str, _domain: str) -> Sequence[Srv]:
            return [Srv("127.0.0.1", port) if service == "etcd-client-ssl" else Srv("127.0.0.1", 1)]

        flags = ["start", "--discovery-srv", "example.org", "--trusted-ca-file", str(tmp_path / "cert.pem")]
        assert chosen_endpoints(read_flags(flags), LOGGER, lookup) == (Srv("127.0.0.1", port),)
        flags[2] = "other.org"
        with pytest.raises(GatewayRefused, match="no endpoints found"):
            chosen_endpoints(read_flags(flags), LOGGER, lookup)
        assert chosen_endpoints(read_flags([*flags, "--endpoints", "a:1"]), LOGGER, lookup) == (Srv("a", 1),)
        both = (Srv("127.0.0.1", port), Srv("127.0.0.1", 1))
        assert chosen_endpoints(read_flags([*flags, "--insecure-discovery"]), LOGGER, lookup) == both


def test_an_authority_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Rather than trusting nobody, or everybody."""
    flags = ["start", "--discovery-srv", "x", "--trusted-ca-file", str(tmp_path / "none")]
    with pytest.raises(GatewayRefused, match="cannot read the authority"):
        chosen_endpoints(read_flags(flags), LOGGER, lambda *_: [Srv("a", 1)])


def test_a_domain_without_records_is_refused() -> None:
    """The text names both questions that were asked."""

    def lookup(service: str, domain: str) -> Sequence[Srv]:
        raise LookupFailed(f"lookup _{service}._tcp.{domain}: no such host")

    with pytest.raises(GatewayRefused, match=r"dns lookup errors: .* and lookup _etcd-client-a\._tcp\.x: no such host"):
        chosen_endpoints(read_flags(["start", "--discovery-srv", "x", "--discovery-srv-name", "a"]), LOGGER, lookup)

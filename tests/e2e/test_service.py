"""A member as a service: what systemd hears, how long a stop takes with streams open, and where the log goes."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    PutRequest,
    SnapshotRequest,
    WatchCreateRequest,
    WatchRequest,
)
from tests.e2e.client import connect
from tests.e2e.harness import ROOT, Server, actcd, running

pytestmark = pytest.mark.e2e
UNIT = ROOT / "config" / "systemd" / "actcd.service"
STOPS_WITHIN_S = 4.0
"""Well below the five seconds that calls in flight are given, and far above what a stop takes."""


def test_systemd_hears_of_start_and_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY=1 when clients are served and not before, STOPPING=1 as soon as a stop begins."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with running(Server(actcd(), tmp_path / "server")) as server:
            assert systemd.recv(100) == b"READY=1"
            server.stop()
            assert systemd.recv(100) == b"STOPPING=1"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_sound(tmp_path: Path) -> None:
    """Systemd itself finds no fault in the unit file, once the program is where the file says."""
    program = tmp_path / "actcd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "actcd.service"
    unit.write_text(UNIT.read_text().replace("/opt/actcd/bin/actcd", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_open_streams_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    """Watches and keep-alives end with a code on which clients go elsewhere; a snapshot under way is finished."""
    with running(Server(actcd(), tmp_path)) as server, connect(server.endpoint) as client:
        client.kv.Put(PutRequest(key=b"k", value=b"v" * 100_000))
        lease = client.lease.LeaseGrant(LeaseGrantRequest(TTL=60)).ID
        stop = threading.Event()

        def requests(first: Any) -> Iterator[Any]:
            yield first
            stop.wait()

        watch = client.watch.Watch(requests(WatchRequest(create_request=WatchCreateRequest(key=b"a"))))
        keep_alive = client.lease.LeaseKeepAlive(requests(LeaseKeepAliveRequest(ID=lease)))
        assert next(watch).created
        assert next(keep_alive).TTL == 60
        gateway = http.client.HTTPConnection("127.0.0.1", server.client_port, timeout=30)
        gateway.request("POST", "/v3/watch", b'{"create_request":{"key":"YQ=="}}')
        lines = gateway.getresponse()
        assert json.loads(lines.readline())["result"]["created"]
        snapshot = client.maintenance.Snapshot(SnapshotRequest())
        blob = next(snapshot).blob
        begun_s = time.monotonic()
        server.stop()
        assert time.monotonic() - begun_s < STOPS_WITHIN_S
        stop.set()
        for stream in (watch, keep_alive):
            with pytest.raises(grpc.RpcError) as ended:
                next(stream)
            assert (ended.value.code(), ended.value.details()) == (
                grpc.StatusCode.UNAVAILABLE,
                "etcdserver: server stopped",
            )
        assert json.loads(lines.read())["error"]["message"] == "etcdserver: server stopped"
        gateway.close()
        blob += b"".join(part.blob for part in snapshot)
        assert len(blob) % 512 == 32


def test_a_log_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """No log, no start: exit 1 and a sentence on standard error, for a folder that is not there and for no journal."""
    for outputs in ([str(tmp_path / "none" / "log")], ["systemd/journal"]):
        if outputs == ["systemd/journal"] and os.path.exists("/run/systemd/journal/socket"):  # noqa: PTH110 - a socket
            continue
        server = Server(actcd(), tmp_path / str(len(outputs[0])), {"log-outputs": outputs})
        try:
            assert server.launch().wait(60) == 1
            assert server.log_tail().startswith("cannot open a log output: ")
        finally:
            server.close()

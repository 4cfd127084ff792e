"""`actcd gateway start` between etcdctl and members."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, Server, actcd, etcd_tool, reserve_port, run_etcdctl, running, wait_for

pytestmark = pytest.mark.e2e


def test_etcdctl_reaches_whichever_member_answers(tmp_path: Path) -> None:
    """Clients know one address; of two members the one that runs serves them, and a watch passes too."""
    gone = reserve_port()
    listening = reserve_port()
    port = listening.getsockname()[1]
    log_path = tmp_path / "gateway.log"
    with running(Server(actcd(), tmp_path / "member")) as server, log_path.open("wb") as log, gone, listening:
        endpoints = f"http://127.0.0.1:{gone.getsockname()[1]},{server.endpoint}"
        flags = ["--listen-addr", f"127.0.0.1:{port}", "--endpoints", endpoints, "--retry-delay=1h"]
        command = [sys.executable, "-m", "daemon", "gateway", "start", *flags]
        gateway = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_for(lambda: b"ready to proxy client requests" in log_path.read_bytes(), 15.0, "the gateway is ready")
            through = [etcd_tool("etcdctl"), f"--endpoints=127.0.0.1:{port}"]
            watch = subprocess.Popen(
                [*through, "watch", "--rev=1", "key"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for number in range(4):
                put = subprocess.run([*through, "put", "key", str(number)], capture_output=True, check=True)
                assert put.stdout == b"OK\n"
            assert run_etcdctl(server, "get", "key", "--print-value-only").stdout == "3\n"
            assert watch.stdout is not None
            seen = b""
            while b"3" not in seen:
                seen += watch.stdout.readline()
            watch.kill()
            watch.communicate()
            assert log_path.read_bytes().count(b"deactivated endpoint") == 1
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(10.0) == -signal.SIGTERM
        finally:
            gateway.kill()
            gateway.wait()

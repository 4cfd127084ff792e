"""gRPC proxies as processes: actcd's and etcd's own, in front of servers of the harness."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.harness import (
    POLL_INTERVAL_S,
    ROOT,
    Program,
    Server,
    etcd_tool,
)

START_TIMEOUT_S: Final = 60.0


def actcd_proxy() -> Program:
    """The proxy under test."""
    return Program("actcd", (sys.executable, "-m", "daemon", "grpc-proxy", "start"))


def etcd_proxy() -> Program:
    """The reference: the proxy of etcd 3.5.1."""
    return Program("etcd", (etcd_tool("etcd"), "grpc-proxy", "start"))


@dataclass
class GrpcProxy(Server):
    """A proxy; for clients it is a server like others."""

    behind: Sequence[str] = ()
    """Endpoints of the members."""
    flags: Sequence[str] = ()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for it to serve."""
        self.directory.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ETCD", "GRPC"))}
        command = [
            *self.program.command,
            f"--listen-addr={self.endpoint}",
            f"--endpoints={','.join(self.behind)}",
            *self.flags,
        ]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self.process

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the process and wait until it answers on its page."""
        process = self.launch()
        deadline_s = time.monotonic() + timeout_s
        while self.page("/proxy/metrics")[0] != http.HTTPStatus.OK:
            assert process.poll() is None, f"{self.program.name} left with {process.returncode}:\n{self.log_tail()}"
            assert time.monotonic() < deadline_s, f"not ready within {timeout_s} s:\n{self.log_tail()}"
            time.sleep(POLL_INTERVAL_S)

    def page(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        """Return status and body of a page; 0 if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.client_port, timeout=10.0)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The value of a metric without labels, from the proxy's own page."""
        for line in self.page("/proxy/metrics")[1].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"{self.program.name} has no metric {name}")

    def end(self) -> int:
        """Ask the process to leave; its return code."""
        return self.stop(signal.SIGTERM)


@contextmanager
def proxying(program: Program, directory: Path, servers: Sequence[Server], *flags: str) -> Iterator[GrpcProxy]:
    """Run a proxy in front of *servers*, and kill it at the end."""
    proxy = GrpcProxy(program, directory, behind=[server.endpoint for server in servers], flags=flags)
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.close()

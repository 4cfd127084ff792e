"""A member, or a cluster of them, inside another program: for test suites, and for programs that bring a store along.

    with Node() as node:
        client = connect(node.endpoint)

Nothing of the program is touched: no signals, no exit, no garbage collector, no loggers of others.  What keeps a member
from starting is raised to whoever starts it; a crash later is raised by stop(), and told by `failed` meanwhile.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from config.faults import ConfigRefused
from config.load import load_file
from daemon.host import ThreadHost
from daemon.logs import make_logger
from daemon.machine import THIS_MACHINE
from daemon.server import REFUSALS, StartRefused, launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from config.schema import Config
    from daemon.server import Running

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 120.0

QUICK: Mapping[str, object] = {"heartbeat-interval": 50, "election-timeout": 500, "log-level": "error"}
"""Settings of a node that a test suite wants: elections are quick, and its log is quiet."""


class NodeFailed(Exception):  # noqa: N818 - named for what happened
    """An actor of the node has crashed; the cause is the exception's cause."""


class _Left(BaseException):
    """Raised where a process would end."""


def _leave(code: int) -> None:
    raise _Left(code)


class Started(ABC):
    """What a ``with`` block starts, and stops at its end however it ends."""

    @abstractmethod
    def start(self) -> Self:
        """Start it, and wait until it serves."""

    @abstractmethod
    def close(self) -> None:
        """Stop it, and let go of all it has."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Node(Started):
    """One member.  Without a directory it is temporary: its data go when it is stopped.

    Its methods may be called by one thread at a time, any thread.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        *,
        name: str = "default",
        settings: Mapping[str, object] | None = None,
        extensions: Sequence[Mapping[str, object]] = (),
    ) -> None:
        """Make it, not start it: *settings* are those of a configuration file, *extensions* as below that key there.

        Ports are free ones, and stay the same over a stop and another start.
        """
        self.name = name
        self._temporary = data_dir is None
        self.data_dir = Path(tempfile.mkdtemp(prefix="actcd-")) if data_dir is None else Path(data_dir)
        self._settings = {**(settings or {}), **({"extensions": list(extensions)} if extensions else {})}
        self._client, self._peer = reserve_port(), reserve_port()
        self._initial_cluster = ""
        self._running: Running | None = None
        self._host: ThreadHost | None = None
        self._thread: threading.Thread | None = None
        self._stop_wanted = threading.Event()
        self._ready = threading.Event()
        self._over = threading.Event()
        self._error: BaseException | None = None

    @property
    def endpoint(self) -> str:
        """Where clients connect: ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self._client.getsockname()[1]}"

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"http://{self.endpoint}"

    @property
    def peer_url(self) -> str:
        """Where other members connect."""
        return f"http://127.0.0.1:{self._peer.getsockname()[1]}"

    @property
    def failed(self) -> BaseException | None:
        """What has crashed, if anything did; the node serves no more then."""
        return self._error

    def config(self) -> Config:
        """Return its configuration; raises ConfigRefused or StartRefused."""
        values = {
            "name": self.name,
            "data-dir": str(self.data_dir),
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": self._initial_cluster or f"{self.name}={self.peer_url}",
            **QUICK,
            **self._settings,
        }
        loaded = load_file("settings", replace(THIS_MACHINE, read_text=lambda _path: json.dumps(values)))
        for note in loaded.notes:
            if "nearest" in note.fields or "key" in note.fields:
                raise StartRefused(str(note))  # what a file may hold in vain, a program must not
        return loaded.config

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> Self:
        """Start it and wait until it serves; raises StartRefused, ConfigRefused, NodeFailed or TimeoutError."""
        self.launch()
        try:
            self.wait_until_ready(timeout_s)
        except BaseException:
            self.stop()
            raise
        return self

    def launch(self) -> None:
        """Start it without waiting for it to serve: one of several may need the others for that."""
        assert self._thread is None, "it runs already"
        config = self.config()
        logger = make_logger(config.logging)
        self._host = ThreadHost(logger, _leave)
        for event in (self._stop_wanted, self._ready, self._over):
            event.clear()
        self._error = None
        try:
            self._running = launch(config, logger, self._host)
        except REFUSALS as refused:
            if isinstance(refused, StartRefused):
                raise
            raise StartRefused(str(refused)) from refused
        except _Left:
            raise self._failure() from self._error
        self._thread = threading.Thread(target=self._live, name=f"Node {self.name}", daemon=True)
        self._thread.start()

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until it serves clients; raises NodeFailed or TimeoutError."""
        if not self._ready.wait(timeout_s):
            raise TimeoutError(f"the node {self.name} does not serve clients within {timeout_s} s")
        if self._error is not None:
            raise self._failure() from self._error

    def wait_until_stopped(self, timeout_s: float | None = None) -> bool:
        """Wait until it serves no more, whatever the reason; False if it still does after *timeout_s*."""
        return self._over.wait(timeout_s)

    def stop(self) -> None:
        """Stop it in order; harmless when it does not run.  Raises NodeFailed if it has crashed."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._host is not None, "launched without a host"
        self._stop_wanted.set()
        self._host.wake()
        thread.join(STOP_TIMEOUT_S)
        if thread.is_alive():
            raise TimeoutError(f"the node {self.name} does not stop within {STOP_TIMEOUT_S} s")
        self._running = self._host = None
        if self._error is not None:
            raise self._failure() from self._error

    def close(self) -> None:
        """Stop it, let its ports go, and remove the data of a temporary node."""
        try:
            self.stop()
        finally:
            self._client.close()
            self._peer.close()
            if self._temporary:
                shutil.rmtree(self.data_dir, ignore_errors=True)

    def joins(self, initial_cluster: str) -> None:
        """Be one of *initial_cluster*, as that setting has it."""
        self._initial_cluster = initial_cluster

    def _live(self) -> None:
        """Serve until somebody stops it or an actor crashes; on a thread of its own."""
        host, running = self._host, self._running
        assert host is not None, "launched without a host"
        assert running is not None, "launched, but not running"
        try:
            try:
                if running.open(self._stop_wanted.is_set):
                    self._ready.set()
                host.wait()
            except REFUSALS as refused:  # found out only now, with everything running
                self._error = refused
            running.stop()
        except _Left:
            self._error = host.crash[1] if host.crash is not None else None
            running.abandon()
        except BaseException as error:  # noqa: BLE001 - told to whoever stops it
            self._error = error
            running.abandon()
        finally:
            self._over.set()
            self._ready.set()  # nobody must wait for it any more

    def _failure(self) -> NodeFailed:
        crash = None if self._host is None else self._host.crash
        if crash is not None:
            self._error = crash[1]
        return NodeFailed(f"the node {self.name} has failed: {self._error!r}")


class Cluster(Started):
    """Several members in one program, each a temporary Node.

    with Cluster(3) as cluster:
        client = connect(cluster.endpoints)
    """

    def __init__(self, size: int = 3, *, settings: Mapping[str, object] | None = None) -> None:
        """Make them, not start them, with *settings* for all."""
        self._all = ExitStack()
        self.nodes = [Node(name=f"node{number}", settings=settings) for number in range(1, size + 1)]
        initial_cluster = ",".join(f"{node.name}={node.peer_url}" for node in self.nodes)
        for node in self.nodes:
            node.joins(initial_cluster)
            self._all.callback(node.close)

    @property
    def endpoints(self) -> list[str]:
        """Where clients connect."""
        return [node.endpoint for node in self.nodes]

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> Self:
        """Start all and wait until all serve; raises as Node.start does."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_until_ready(timeout_s)
        return self

    def close(self) -> None:
        """Stop all, last one first."""
        self._all.close()


def reserve_port() -> socket.socket:
    """Return a socket bound to a free port of the loopback; it never listens, but keeps others off the port."""
    reservation = socket.socket()
    reservation.bind(("127.0.0.1", 0))
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return reservation


__all__ = ["Cluster", "ConfigRefused", "Node", "NodeFailed", "StartRefused"]

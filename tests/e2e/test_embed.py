"""Members inside another program: they start and stop within a test, several at once, and touch nothing of it."""

from __future__ import annotations

import gc
import json
import signal
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING

import pytest

from actors.extension import ExtensionActor
from actors.messages.extension import Called, HttpAsked
from daemon.embed import Cluster, ConfigRefused, Node, NodeFailed, StartRefused
from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.harness import wait_for

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.e2e


def put(endpoint: str, key: bytes) -> int:
    with connect(endpoint) as client:
        return int(client.kv.Put(rpc_pb2.PutRequest(key=key, value=b"v"), timeout=CALL_TIMEOUT_S).header.revision)


def count(endpoint: str, key: bytes) -> int:
    with connect(endpoint) as client:
        return int(client.kv.Range(rpc_pb2.RangeRequest(key=key), timeout=CALL_TIMEOUT_S).count)


def page(node: Node, path: str) -> bytes:
    with urllib.request.urlopen(node.url + path, timeout=CALL_TIMEOUT_S) as answer:
        content: bytes = answer.read()
        return content


def test_a_node_leaves_the_program_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals, the interpreter's settings and threads are the program's own; the data of a temporary node go."""
    before = (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        sys.getswitchinterval(),
        gc.get_threshold(),
    )
    # Counting would not do: what the test run itself has frozen may die meanwhile.
    freezes: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: freezes.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: freezes.append("unfreeze"))
    threads = set(threading.enumerate())
    with Node() as node:
        data_dir = node.data_dir
        assert put(node.endpoint, b"k") == 2
        assert json.loads(page(node, "/health"))["health"] == "true"
        assert data_dir.exists()
        during = (
            signal.getsignal(signal.SIGTERM),
            signal.getsignal(signal.SIGINT),
            sys.getswitchinterval(),
            gc.get_threshold(),
        )
    assert (during, freezes) == (before, [])
    assert not data_dir.exists()
    assert node.wait_until_stopped(0.0)
    wait_for(
        lambda: not {each for each in threading.enumerate() if not each.daemon} - threads, 10.0, "threads are gone"
    )


def test_a_durable_node_starts_again_on_its_ports(tmp_path: Path) -> None:
    """What was acknowledged is there, and clients need not be told of a new address."""
    node = Node(tmp_path / "data")
    try:
        node.start()
        endpoint = node.endpoint
        put(endpoint, b"k")
        node.stop()
        node.stop()
        node.start()
        assert node.endpoint == endpoint
        assert count(endpoint, b"k") == 1
    finally:
        node.close()
    assert (tmp_path / "data").exists()


def test_nodes_are_strangers_and_clusters_agree() -> None:
    """Several in one program share nothing but the program; members of one cluster share their keys."""
    with Node() as alone, Cluster(3) as cluster:
        for number, endpoint in enumerate(cluster.endpoints):
            put(endpoint, b"k%d" % number)
        for endpoint in cluster.endpoints:
            assert [count(endpoint, b"k%d" % number) for number in range(3)] == [1, 1, 1]
        assert count(alone.endpoint, b"k0") == 0
        cluster.nodes[0].stop()  # two of three go on
        assert put(cluster.endpoints[1], b"more") > 0


def test_what_keeps_it_from_starting_is_raised(tmp_path: Path) -> None:
    """A program must not end for it, nor find the directory locked or a port taken by what did not start."""
    with Node(tmp_path / "data") as node:
        with pytest.raises(StartRefused, match="in use"), Node(tmp_path / "data"):
            pass
        taken = {"listen-client-urls": node.url, "advertise-client-urls": node.url}
        for _ in range(2):
            with pytest.raises(StartRefused, match="cannot listen"), Node(tmp_path / "other", settings=taken):
                pass
    with pytest.raises(ConfigRefused, match="election-timeout"), Node(settings={"election-timeout": 1}):
        pass
    with pytest.raises(StartRefused, match="nearest=election-timeout"), Node(settings={"election-timeot": 1}):
        pass
    with (
        pytest.raises(StartRefused, match=r"extension 1 \(no.such:Thing\): cannot import no"),
        Node(extensions=[{"actor": "no.such:Thing"}]),
    ):
        pass


def test_a_member_that_waits_for_others_can_be_given_up() -> None:
    """It is not ready, and must not hold up whoever has lost patience."""
    cluster = Cluster(3)
    try:
        with pytest.raises(TimeoutError):
            cluster.nodes[0].start(timeout_s=1.0)
    finally:
        cluster.close()


def test_a_crash_is_told_and_raised() -> None:
    """Fail-stop: the node serves no more, its program learns why and goes on."""
    node = Node().start()
    host = node._host
    assert host is not None
    host.crashed("WalActor", OSError("the disk is gone"))
    assert node.wait_until_stopped(20.0)
    assert str(node.failed) == "the disk is gone"
    with pytest.raises(NodeFailed, match="the disk is gone") as failed:
        node.close()
    assert isinstance(failed.value.__cause__, OSError)
    assert not node.data_dir.exists()


class Greeter(ExtensionActor):
    """Answers a page and a method."""

    pages = ("/greet",)
    methods = ("/greet.Service/Greet",)

    def handle(self, message: object) -> None:
        """Greet whoever asks."""
        if isinstance(message, HttpAsked):
            self.node.answer_http(message, 200, f"hello from {self.node.member_name}".encode())
        elif isinstance(message, Called):
            self.node.answer(message, message.payload)


def test_an_embedded_node_has_extensions() -> None:
    """A class of the program's own serves beside the store, for as long as the node does."""
    with Node(name="n1", extensions=[{"actor": f"{Greeter.__module__}:{Greeter.__name__}"}]) as node:
        wait_for(lambda: b'"running"' in page(node, "/debug/vars"), 10.0, "the extension runs")
        assert page(node, "/greet") == b"hello from n1"

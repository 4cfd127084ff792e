"""What members take from each other: rubbish is refused and logged, and a snapshot that breaks off is sent again."""

import http.client
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from core.raft.messages import ConfState, Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata
from core.types import Index, MemberId, Term
from net.rafthttp.messages import EntryEncoder, encode_message
from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.cluster import Cluster, Member, cluster_of, put_many
from tests.e2e.harness import wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three members that serve."""
    with cluster_of(3, tmp_path) as started:
        yield started


def ask(member: Member, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> tuple[int, bytes]:
    """Ask the peer listener of *member*; status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", member.peer_port, timeout=10.0)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def status(member: Member) -> rpc_pb2.StatusResponse:
    """Return what *member* says of itself."""
    with connect(member.endpoint) as client:
        answer: rpc_pb2.StatusResponse = client.maintenance.Status(rpc_pb2.StatusRequest(), timeout=CALL_TIMEOUT_S)
        return answer


def test_rubbish_is_refused_and_logged_and_harms_nobody(cluster: Cluster) -> None:
    """Bytes that are no HTTP, requests of other clusters, messages that are none: the cluster does not even notice."""
    leader, victim = cluster.leader(), cluster.followers()[0]
    before = status(victim)
    own, sender = cluster.member_id(victim), cluster.member_id(leader)
    headers = {
        "X-Server-From": f"{sender:x}",
        "X-Server-Version": "3.5.1",
        "X-Min-Cluster-Version": "3.0.0",
        "X-Etcd-Cluster-ID": f"{before.header.cluster_id:x}",
        "X-Raft-To": f"{own:x}",
    }
    for bytes_sent in (
        b"\x16\x03\x01\x02\x00",
        b"\x00" * 100_000,
        b"GET /raft HTTP/9.9\r\n\r\n",
        b"POST " + b"x" * 100_000,
    ):
        with socket.create_connection(("127.0.0.1", victim.peer_port), timeout=10.0) as rubbish:
            try:
                rubbish.sendall(bytes_sent)
                rubbish.shutdown(socket.SHUT_WR)
                while rubbish.recv(1 << 16):
                    pass
            except OSError:
                pass  # cut in the middle of it
    foreign = {**headers, "X-Etcd-Cluster-ID": "1"}
    assert ask(victim, "POST", "/raft", foreign) == (412, b"cluster ID mismatch\n")
    assert ask(victim, "GET", f"/raft/stream/message/{sender:x}", foreign)[0] == 412
    assert ask(victim, "POST", "/raft", {**headers, "X-Server-Version": "2.1.0"}) == (412, b"incompatible version\n")
    assert ask(victim, "POST", "/raft", headers, b"\xff" * 1000)[0] == 400
    assert ask(victim, "POST", "/raft/snapshot", headers, b"\xff" * 1000)[0] == 400
    assert ask(victim, "GET", "/raft/stream/nonsense/1", headers)[0] == 404
    term = Term(before.raftTerm)
    to, of = MemberId(own), MemberId(sender)
    state = ConfState((to,), ())
    snapshot = Snapshot(SnapshotMetadata(state, Index(1 << 40), term), b"")
    gap = (Entry(term, Index(1 << 40), EntryType.NORMAL, b"x"), Entry(term, Index(7), EntryType.NORMAL, b"y"))
    refused = Message(MessageType.SNAPSHOT, to, of, term, snapshot=snapshot)
    assert ask(victim, "POST", "/raft", headers, encode_message(refused, EntryEncoder()))[0] == 400
    for message in (
        Message(MessageType.APPEND, to, of, term, term, Index(before.raftIndex), gap, Index(1 << 50)),
        Message(MessageType.HEARTBEAT, to, of, term, commit=Index(1 << 50)),
        Message(MessageType.HEARTBEAT_RESPONSE, to, of, term, context=b"x"),
        Message(MessageType.APPEND_RESPONSE, to, of, term, index=Index(1 << 50)),
        Message(MessageType.READ_INDEX_RESPONSE, to, of, term, index=Index(1 << 50)),
        Message(MessageType.VOTE_RESPONSE, to, MemberId(12345), term),
    ):
        assert ask(victim, "POST", "/raft", headers, encode_message(message, EntryEncoder()))[0] == 204
    with connect(victim.endpoint) as client:
        client.kv.Put(rpc_pb2.PutRequest(key=b"after", value=b"rubbish"), timeout=CALL_TIMEOUT_S)
    after = status(victim)
    assert (after.leader, after.raftTerm) == (before.leader, before.raftTerm)
    cluster.wait_until_equal()
    log = victim.log_path.read_text(errors="replace")
    assert "refused a request of a peer" in log
    assert "refused a message" in log
    assert "a snapshot's message without its file" in log


def test_a_snapshot_that_breaks_off_is_sent_again(tmp_path: Path) -> None:
    """A new member whose connection breaks in the middle of it, twice, gets all in the end; nothing is left over."""
    settings = {"snapshot-count": 100, "experimental-snapshot-catchup-entries": 50}
    with cluster_of(1, tmp_path, settings) as cluster:
        first = cluster.members[0]
        put_many(first, 1500)
        second = cluster.add()
        assert second.proxy is not None
        second.proxy.break_off(b"POST /raft/snapshot", 30_000, times=2)
        second.launch()
        cluster.wait_until_serving(second, timeout_s=60.0)
        assert second.proxy.broken_count == 2
        cluster.wait_until_equal()
        assert first.log_path.read_text().count("could not send a snapshot") == 2
        assert "received a snapshot" in second.log_path.read_text()
        folder = second.data_dir / "member" / "snap"
        wait_for(lambda: not list(folder.glob("tmp-incoming-*")), 10.0, "what broke off is gone")

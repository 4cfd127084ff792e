"""One cluster of actcd and the real etcd 3.5.1: the judge of what is said between members.

Each leads in turn; every member takes writes and reads, a lagging one of either kind is brought up by the other's log
or snapshot, and the hashes of all are equal in the end.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.cluster import Cluster, Member, SharedCluster, members_of, put_many
from tests.e2e.harness import actcd, real_etcd, wait_for

pytestmark = pytest.mark.e2e

ETCD_CATCH_UP = 5000
"""Entries that etcd 3.5.1 keeps for members that lag, whatever it is told."""

SETTINGS = {"snapshot-count": 200, "experimental-snapshot-catchup-entries": 100}
"""So that a member that was down for a while needs a snapshot."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedCluster]:
    """What the tests of this module share."""
    with closing(
        SharedCluster(tmp_path_factory.mktemp("shared"), [actcd(), actcd(), real_etcd()], SETTINGS)
    ) as clusters:
        yield clusters


@pytest.fixture
def mixed(shared: SharedCluster) -> Cluster:
    """Two members of actcd and one of etcd."""
    return shared.whole()


def make_leader(cluster: Cluster, member: Member) -> None:
    """Let *member* lead."""
    leader = cluster.leader()
    if leader is not member:
        with connect(leader.endpoint) as client:
            target = cluster.member_id(member)
            client.maintenance.MoveLeader(rpc_pb2.MoveLeaderRequest(targetID=target), timeout=CALL_TIMEOUT_S)
        wait_for(lambda: cluster.leader() is member, 20.0, "leadership has moved")


@pytest.mark.parametrize("leading", [0, 2], ids=["actcd leads", "etcd leads"])
def test_every_member_takes_writes_reads_and_leases(mixed: Cluster, leading: int) -> None:
    """Entries, proposals, reads and questions about leases are understood in both directions."""
    make_leader(mixed, mixed.members[leading])
    for writer in mixed.members:
        with connect(writer.endpoint) as client:
            lease = client.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=60), timeout=CALL_TIMEOUT_S).ID
            put = rpc_pb2.PutRequest(key=b"key", value=writer.name.encode(), lease=lease)
            client.kv.Put(put, timeout=CALL_TIMEOUT_S)
        for reader in mixed.members:
            with connect(reader.endpoint) as client:
                answer = client.kv.Range(rpc_pb2.RangeRequest(key=b"key"), timeout=CALL_TIMEOUT_S)
                assert [kv.value for kv in answer.kvs] == [writer.name.encode()]
                renewal = iter([rpc_pb2.LeaseKeepAliveRequest(ID=lease)])
                assert next(client.lease.LeaseKeepAlive(renewal, timeout=10.0)).TTL == 60
                times = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True)
                assert client.lease.LeaseTimeToLive(times, timeout=CALL_TIMEOUT_S).keys == [b"key"]
    mixed.wait_until_equal()


@pytest.mark.parametrize(("leading", "lagging"), [(0, 2), (2, 0)], ids=["from actcd to etcd", "from etcd to actcd"])
def test_a_snapshot_for_the_other_kind(mixed: Cluster, leading: int, lagging: int) -> None:
    """A member that was down for longer than the leader's log reaches back starts from the leader's snapshot."""
    leader, behind = mixed.members[leading], mixed.members[lagging]
    snapshot_words = "applying a snapshot from the leader" if behind.program.name == "actcd" else "applied snapshot"
    before = behind.log_path.read_text(errors="replace").count(snapshot_words)
    behind.kill()
    wait_for(lambda: mixed.leader() is not behind, 20.0, "the others have a leader")
    make_leader(mixed, leader)
    put_many(leader, ETCD_CATCH_UP + 1500 if leader.program.name == "etcd" else 1500)
    mixed.restart(behind)
    mixed.wait_until_equal()
    assert behind.log_path.read_text(errors="replace").count(snapshot_words) > before


@pytest.mark.long
@pytest.mark.timeout(300)
def test_joining_a_running_etcd(tmp_path: Path) -> None:
    """Members of actcd join a cluster of etcd by its snapshot, serve, take over, and go on when etcd's member is gone.

    So a cluster can be moved from one to the other without a stop, and back.
    """
    # Changes need not wait until every connection has lasted five seconds: test_cluster.py has that.
    settings = {**SETTINGS, "strict-reconfig-check": False}
    cluster = Cluster(tmp_path, programs=[real_etcd()], settings=settings)
    try:
        cluster.found(1)
        etcd = cluster.members[0]
        put_many(etcd, ETCD_CATCH_UP + 1500)
        with connect(etcd.endpoint) as client:
            client.kv.Compact(rpc_pb2.CompactionRequest(revision=1000), timeout=CALL_TIMEOUT_S)
            lease = client.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=600), timeout=CALL_TIMEOUT_S).ID
            client.kv.Put(rpc_pb2.PutRequest(key=b"leased", value=b"v", lease=lease), timeout=CALL_TIMEOUT_S)
        joined = []
        for _ in range(2):
            member = cluster.join()
            cluster.wait_until_serving(member, 60.0)
            joined.append(member)
        assert "received a snapshot" in joined[0].log_path.read_text()
        cluster.wait_until_equal()
        lists = {str(sorted(members_of(member), key=str)) for member in cluster.members}
        assert len(lists) == 1, lists
        make_leader(cluster, joined[0])
        with connect(joined[1].endpoint) as client:
            question = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True)
            times = client.lease.LeaseTimeToLive(question, timeout=CALL_TIMEOUT_S)
            assert (times.grantedTTL, list(times.keys)) == (600, [b"leased"])
            request = rpc_pb2.MemberRemoveRequest(ID=cluster.member_id(etcd))
            wait_for(lambda: accepted(client.cluster.MemberRemove, request), 30.0, "etcd's member is removed")
            client.kv.Put(rpc_pb2.PutRequest(key=b"after", value=b"etcd"), timeout=CALL_TIMEOUT_S)
        assert etcd.process is not None
        etcd.process.wait(20.0)
        cluster.wait_until_equal()
    finally:
        cluster.close()


def accepted(method: Any, request: object) -> bool:
    """Whether the call succeeded; a change of members is refused until every connection has lasted for a while."""
    try:
        method(request, timeout=CALL_TIMEOUT_S)
    except grpc.RpcError:
        return False
    return True

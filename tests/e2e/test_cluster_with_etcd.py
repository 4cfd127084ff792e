"""One cluster of actcd and the real etcd 3.5.1: the judge of what is said between members.

Each leads in turn; every member takes writes and reads, a lagging one of either kind is brought up by the other's log
or snapshot, and the hashes of all are equal in the end.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.cluster import Cluster, Member, put_many
from tests.e2e.harness import actcd, real_etcd, wait_for

pytestmark = pytest.mark.e2e

SETTINGS = {"snapshot-count": 200, "experimental-snapshot-catchup-entries": 100}
"""So that a member that was down for a while needs a snapshot."""


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Cluster]:
    """Two members of actcd and one of etcd."""
    cluster = Cluster(tmp_path, programs=[actcd(), actcd(), real_etcd()], settings=SETTINGS)
    try:
        cluster.found(3)
        yield cluster
    finally:
        cluster.close()


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
    behind.kill()
    wait_for(lambda: mixed.leader() is not behind, 20.0, "the others have a leader")
    make_leader(mixed, leader)
    put_many(leader, 6500 if leader.program.name == "etcd" else 1500)
    mixed.restart(behind)
    mixed.wait_until_equal()
    snapshot_words = "applying a snapshot from the leader" if behind.program.name == "actcd" else "applied snapshot"
    assert snapshot_words in behind.log_path.read_text(errors="replace")

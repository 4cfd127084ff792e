"""A cluster that has lost its majority for ever goes on with the member that is left."""

from pathlib import Path

import grpc
import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.cluster import Cluster, Member, cluster_of

pytestmark = pytest.mark.e2e

FORCED = {"force-new-cluster": True}


def members_of(member: Member) -> dict[str, bool]:
    with connect(member.endpoint) as client:
        answer = client.cluster.MemberList(rpc_pb2.MemberListRequest(linearizable=True), timeout=CALL_TIMEOUT_S)
    return {each.name: each.isLearner for each in answer.members}


def values(member: Member) -> dict[bytes, bytes]:
    with connect(member.endpoint) as client:
        answer = client.kv.Range(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"), timeout=CALL_TIMEOUT_S)
    return {kv.key: kv.value for kv in answer.kvs}


def put(member: Member, key: bytes, timeout_s: float = CALL_TIMEOUT_S) -> None:
    with connect(member.endpoint) as client:
        client.kv.Put(rpc_pb2.PutRequest(key=key, value=b"v"), timeout=timeout_s)


def restarted_alone(cluster: Cluster, member: Member) -> None:
    member.settings = {**member.settings, **FORCED}
    cluster.restart(member)


def test_the_last_member_goes_on_alone(tmp_path: Path) -> None:
    """With all that the majority agreed to, also after a snapshot; and it can be made three again.

    What it had written by itself is dropped: no client was told that it holds.
    """
    with cluster_of(3, tmp_path, {"snapshot-count": 10, "snapshot-catchup-entries": 5}) as cluster:
        leader = cluster.leader()
        acknowledged = {b"key%d" % number for number in range(25)}
        for key in sorted(acknowledged):
            put(leader, key)
        for follower in cluster.followers():
            follower.kill()
        with pytest.raises(grpc.RpcError):
            put(leader, b"unacknowledged", timeout_s=0.5)
        old_cluster_id = status(leader).header.cluster_id
        leader.kill()
        restarted_alone(cluster, leader)
        assert members_of(leader) == {leader.name: False}
        assert values(leader) == dict.fromkeys(acknowledged, b"v")
        assert status(leader).header.cluster_id == old_cluster_id
        assert "discarding uncommitted WAL entries" in leader.log_path.read_text()

        # Left on by mistake, it drops nothing of what a cluster of one has acknowledged.
        put(leader, b"alone")
        leader.kill()
        cluster.restart(leader)
        assert b"alone" in values(leader)

        cluster.forget([member for member in cluster.members if member is not leader])
        joined = cluster.join()
        cluster.wait_until_serving(joined)
        assert values(joined) == values(leader)


def status(member: Member) -> rpc_pb2.StatusResponse:
    with connect(member.endpoint) as client:
        answer: rpc_pb2.StatusResponse = client.maintenance.Status(rpc_pb2.StatusRequest(), timeout=CALL_TIMEOUT_S)
    return answer

"""Three members as processes: what a cluster promises while some of them are killed, cut off, replaced or restarted.

No acknowledged write is lost, a minority serves nothing that could be stale, and in the end all hold the same.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import Any, Final

import grpc
import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, Stubs, connect
from tests.e2e.cluster import (
    ELECTION_MS,
    Cluster,
    Member,
    SharedCluster,
    Writer,
    cluster_of,
    expect_all,
    members_of,
    put_many,
)
from tests.e2e.harness import actcd, run_etcdctl, wait_for

pytestmark = pytest.mark.e2e

CYCLE_COUNT: Final = int(os.environ.get("ACTCD_CLUSTER_CYCLES", "6"))
"""How often members are killed in turn."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedCluster]:
    """What the tests of this module share."""
    with closing(SharedCluster(tmp_path_factory.mktemp("shared"), [actcd()] * 3)) as clusters:
        yield clusters


@pytest.fixture
def cluster(shared: SharedCluster) -> Cluster:
    """Three members that serve."""
    return shared.whole()


def put(endpoint: str, key: bytes, value: bytes = b"v", timeout_s: float = CALL_TIMEOUT_S) -> int:
    """Put at one member and return the revision."""
    with connect(endpoint) as client:
        return int(client.kv.Put(rpc_pb2.PutRequest(key=key, value=value), timeout=timeout_s).header.revision)


def get(endpoint: str, key: bytes, timeout_s: float = CALL_TIMEOUT_S, *, serializable: bool = False) -> list[bytes]:
    """Return the values of *key*, none or one, as one member answers."""
    with connect(endpoint) as client:
        request = rpc_pb2.RangeRequest(key=key, serializable=serializable)
        return [kv.value for kv in client.kv.Range(request, timeout=timeout_s).kvs]


def test_every_member_takes_writes_and_reads_what_others_took(cluster: Cluster) -> None:
    """A client may talk to any member, and finds there what was acknowledged anywhere before."""
    for writer in cluster.members:
        put(writer.endpoint, b"key", writer.name.encode())
        assert {get(reader.endpoint, b"key")[0] for reader in cluster.members} == {writer.name.encode()}
    cluster.wait_until_equal()


def test_leader_killed_under_load(cluster: Cluster) -> None:
    """Writes go on within two election timeouts (and what a vote takes), and none that was acknowledged is lost."""
    leader = cluster.leader()
    writer = Writer([member.endpoint for member in cluster.members if member is not leader])
    writer.wait_for_more(50)
    writer.gap_s = 0.0
    leader.kill()
    writer.wait_for_more(50)
    gap_s = writer.gap_s
    cluster.restart(leader)
    writer.wait_for_more(20)
    writer.stop()
    assert gap_s < 2 * ELECTION_MS / 1000 + 1.0
    cluster.wait_until_equal()
    for member in cluster.members:
        expect_all(member, writer.acknowledged)


def test_a_minority_serves_nothing_that_could_be_stale(cluster: Cluster) -> None:
    """A leader that is cut off acknowledges nothing; the others elect one, and after the heal all hold the same."""
    old = cluster.leader()
    others = [member for member in cluster.members if member is not old]
    put(old.endpoint, b"key", b"before")
    cluster.isolate(old)
    wait_for(lambda: bool(put_or_nothing(others[0].endpoint, b"key", b"after")), 20.0, "the majority writes")
    with pytest.raises(grpc.RpcError):
        put(old.endpoint, b"key", b"lost", timeout_s=2.0)
    with pytest.raises(grpc.RpcError):
        get(old.endpoint, b"key", timeout_s=2.0)
    assert get(old.endpoint, b"key", serializable=True) == [b"before"]
    assert get(others[1].endpoint, b"key") == [b"after"]
    cluster.heal()
    wait_for(lambda: get_or_nothing(old.endpoint, b"key") == [b"after"], 20.0, "the old leader has caught up")
    cluster.wait_until_equal()


def test_members_killed_in_turn_under_load(cluster: Cluster) -> None:
    """Whatever minority dies whenever: the others go on, and it comes back with all that it acknowledged."""
    random = Random(7)
    writer = Writer([member.endpoint for member in cluster.members])
    for _ in range(CYCLE_COUNT):
        victim = random.choice(cluster.members)
        writer.wait_for_more(10)
        victim.kill()
        writer.wait_for_more(10)
        cluster.restart(victim)
    writer.wait_for_more(10)
    writer.stop()
    cluster.wait_until_equal()
    for member in cluster.members:
        expect_all(member, writer.acknowledged)


def test_whole_cluster_killed_and_started(cluster: Cluster) -> None:
    """After a power cut everywhere, all that was acknowledged is there."""
    writer = Writer([member.endpoint for member in cluster.members])
    writer.wait_for_more(100)
    for member in cluster.members:
        member.kill()
    writer.stop()
    for member in cluster.members:
        member.launch()
    for member in cluster.members:
        cluster.wait_until_serving(member)
    cluster.wait_until_equal()
    expect_all(cluster.members[0], writer.acknowledged)


def test_rolling_restart_without_a_failed_request(cluster: Cluster) -> None:
    """A client that tries another member gets every request done while one member after the other is restarted."""
    writer = Writer([member.endpoint for member in cluster.members])
    for member in cluster.members:
        writer.wait_for_more(20)
        member.stop()
        cluster.restart(member)
    writer.wait_for_more(20)
    writer.stop()
    assert set(writer.failures) <= {"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNKNOWN"}
    cluster.wait_until_equal()
    expect_all(cluster.members[0], writer.acknowledged)


def test_a_stopping_leader_hands_over(tmp_path: Path) -> None:
    """Nobody has to wait for an election timeout when a leader is asked to leave."""
    election_s = 4.0  # far beyond what a busy machine makes of a hand-over
    with cluster_of(3, tmp_path, {"election-timeout": int(election_s * 1000)}) as cluster:
        leader = cluster.leader()
        # What is forwarded while leadership is on its way is dropped, as in etcd: the client has to ask again soon.
        writer = Writer([member.endpoint for member in cluster.members if member is not leader], timeout_s=1.0)
        writer.wait_for_more(20)
        writer.gap_s = 0.0
        assert leader.stop() == -signal.SIGTERM
        writer.wait_for_more(20)
        writer.stop()
        assert writer.gap_s < election_s


def test_leases_through_any_member_and_over_a_change_of_leader(cluster: Cluster) -> None:
    """A lease is renewed and looked up anywhere, outlives its leader, and ends when nobody renews it."""
    leader = cluster.leader()
    follower, other = cluster.followers()
    with connect(follower.endpoint) as client, connect(other.endpoint) as later:
        lease = client.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=2), timeout=CALL_TIMEOUT_S).ID
        client.kv.Put(rpc_pb2.PutRequest(key=b"leased", lease=lease), timeout=CALL_TIMEOUT_S)
        answer = next(client.lease.LeaseKeepAlive(iter([rpc_pb2.LeaseKeepAliveRequest(ID=lease)]), timeout=10.0))
        assert answer.TTL == 2
        question = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True)
        times = client.lease.LeaseTimeToLive(question, timeout=CALL_TIMEOUT_S)
        assert (times.grantedTTL, list(times.keys)) == (2, [b"leased"])
        assert times.TTL in {1, 2}
        leader.kill()
        renewal = iter([rpc_pb2.LeaseKeepAliveRequest(ID=lease)])
        assert next(later.lease.LeaseKeepAlive(renewal, timeout=10.0)).TTL == 2
        wait_for(lambda: not get(follower.endpoint, b"leased"), 10.0, "the lease ends")
        times = later.lease.LeaseTimeToLive(question, timeout=CALL_TIMEOUT_S)
        assert times.TTL == -1


def test_a_watch_survives_an_election(cluster: Cluster) -> None:
    """A stream at a follower loses and repeats nothing while the leader changes."""
    leader = cluster.leader()
    follower = cluster.followers()[0]
    with connect(follower.endpoint) as client, watching(client, b"w", b"x") as stream:
        writer = Writer([member.endpoint for member in cluster.members if member is not leader])
        writer.wait_for_more(20)
        leader.kill()
        writer.wait_for_more(20)
        writer.stop()
        seen: list[bytes] = []
        while not writer.acknowledged.keys() <= set(seen):
            seen += [event.kv.key for event in next(stream).events]
    assert [key for key in dict.fromkeys(seen) if key in writer.acknowledged] == sorted(writer.acknowledged)


@contextmanager
def watching(client: Stubs, key: bytes, range_end: bytes) -> Iterator[Any]:
    """A stream of answers about a range, open at both ends."""
    requests: SimpleQueue[rpc_pb2.WatchRequest | None] = SimpleQueue()
    requests.put(rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=key, range_end=range_end)))
    stream = client.watch.Watch(iter(requests.get, None), timeout=90.0)
    assert next(stream).created
    yield stream
    stream.cancel()
    requests.put(None)


def test_a_member_joins_after_compaction_learns_votes_and_leaves(tmp_path: Path) -> None:
    """What its log would need is gone, so it gets a snapshot; as a learner it does not vote, then it does."""
    settings = {"snapshot-count": 100, "experimental-snapshot-catchup-entries": 50}
    with cluster_of(1, tmp_path, settings) as cluster:
        first = cluster.members[0]
        put_many(first, 1500)
        second = cluster.add(learner=True)
        [learner] = [member for member in members_of(first) if member.isLearner]
        early = run_etcdctl(first, "member", "promote", f"{learner.ID:x}")
        assert "can only promote a learner member which is in sync with leader" in early.stderr
        second.launch()
        wait_for(lambda: bool(get_serializable(second.endpoint, b"many00000001")), 20.0, "the learner has the data")
        assert "received a snapshot" in second.log_path.read_text()
        for refused in ("put", "get"):
            outcome = run_etcdctl(second, refused, "w00000001", *(["x"] if refused == "put" else []))
            assert "rpc not supported for learner" in outcome.stderr
        member_id = f"{cluster.member_id(second):x}"
        promoted = run_etcdctl(first, "member", "promote", member_id)
        assert promoted.returncode == 0, promoted.stderr
        assert f"Member {member_id:>16} promoted" in promoted.stdout  # padded, should it begin with zeros
        cluster.wait_until_serving(second)
        put(second.endpoint, b"after")
        cluster.wait_until_equal()
        third = cluster.join()
        cluster.wait_until_serving(third)
        cluster.wait_until_equal()
        assert len(get_all(third)) == 1501

        def removed() -> bool:
            return run_etcdctl(first, "member", "remove", member_id).returncode == 0

        wait_for(removed, 20.0, "the member is removed")
        assert second.process is not None
        assert second.process.wait(10.0) == 0
        assert "was removed from the cluster for ever" in second.log_tail()
        second.launch()
        assert second.process.wait(20.0) == 0, "it stays out"
        put(third.endpoint, b"without it")
        cluster.wait_until_equal()


def test_a_member_that_has_lost_its_data_is_told_what_to_do(cluster: Cluster) -> None:
    """It may have voted: if it came back as if nothing had been, two leaders of one term were possible."""
    lost = cluster.followers()[0]
    lost.kill()
    settings = lost.settings
    lost.settings = {**settings, "data-dir": str(lost.directory / "other")}
    assert lost.launch().wait(20.0) == 1
    assert "has already been bootstrapped" in lost.log_tail()
    lost.settings = settings
    cluster.restart(lost)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_five_members_lose_any_two_under_load(tmp_path: Path) -> None:
    """Leader and follower die at once, and two others after them: writes go on, and all come back."""
    with cluster_of(5, tmp_path) as cluster:
        writer = Writer([member.endpoint for member in cluster.members])
        for _ in range(2):
            leader = cluster.leader()
            victims = [leader, next(member for member in cluster.members if member is not leader)]
            writer.wait_for_more(10)
            for victim in victims:
                victim.kill()
            writer.wait_for_more(10, timeout_s=60.0)
            for victim in victims:
                victim.launch()
            for victim in victims:
                cluster.wait_until_serving(victim, timeout_s=60.0)
        writer.stop()
        cluster.wait_until_equal()
        for member in cluster.members:
            expect_all(member, writer.acknowledged)


def test_leadership_goes_round_under_load(cluster: Cluster) -> None:
    """While clients write, watch and keep a lease alive: nothing is lost or missed, and the lease lives."""
    with connect(cluster.members[0].endpoint) as client:
        lease = client.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=5), timeout=CALL_TIMEOUT_S).ID
        client.kv.Put(rpc_pb2.PutRequest(key=b"leased", lease=lease), timeout=CALL_TIMEOUT_S)
        with watching(client, b"l", b"x") as stream:
            writer = Writer([member.endpoint for member in cluster.members])
            for target in (*cluster.members, cluster.members[0]):
                writer.wait_for_more(10)
                move_leader(cluster, target)
                renewal = iter([rpc_pb2.LeaseKeepAliveRequest(ID=lease)])
                with connect(target.endpoint) as anywhere:
                    assert next(anywhere.lease.LeaseKeepAlive(renewal, timeout=10.0)).TTL == 5
            writer.wait_for_more(10)
            writer.stop()
            seen: list[bytes] = []
            while not writer.acknowledged.keys() <= set(seen):
                seen += [event.kv.key for event in next(stream).events]
    assert b"leased" not in seen, "the lease has ended"
    assert [key for key in dict.fromkeys(seen) if key in writer.acknowledged] == sorted(writer.acknowledged)
    cluster.wait_until_equal()
    expect_all(cluster.members[0], writer.acknowledged)


def test_moving_leadership(cluster: Cluster) -> None:
    """The leader hands over to whom it is told, and nobody else may be asked to."""
    leader, target = cluster.leader(), cluster.followers()[0]
    request = rpc_pb2.MoveLeaderRequest(targetID=cluster.member_id(target))
    with connect(leader.endpoint) as client, connect(target.endpoint) as follower:
        with pytest.raises(grpc.RpcError, match="not leader"):
            follower.maintenance.MoveLeader(request, timeout=CALL_TIMEOUT_S)
        with pytest.raises(grpc.RpcError, match="bad leader transferee"):
            client.maintenance.MoveLeader(rpc_pb2.MoveLeaderRequest(targetID=1), timeout=CALL_TIMEOUT_S)
        client.maintenance.MoveLeader(request, timeout=CALL_TIMEOUT_S)
    assert cluster.leader() is target


def move_leader(cluster: Cluster, target: Member) -> None:
    """Let *target* lead."""

    def moved() -> bool:
        leader = cluster.leader()
        if leader is not target:
            request = rpc_pb2.MoveLeaderRequest(targetID=cluster.member_id(target))
            # Somebody else may lead by now, or an election may come in between.
            with suppress(grpc.RpcError), connect(leader.endpoint) as client:
                client.maintenance.MoveLeader(request, timeout=CALL_TIMEOUT_S)
        return cluster.leader() is target

    wait_for(moved, 30.0, f"{target.name} leads")


def get_all(member: Member) -> list[Any]:
    """Return all that *member* holds."""
    with connect(member.endpoint) as client:
        return list(client.kv.Range(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"), timeout=CALL_TIMEOUT_S).kvs)


def put_or_nothing(endpoint: str, key: bytes, value: bytes) -> int:
    """Put, or return 0 where that is refused."""
    try:
        return put(endpoint, key, value, timeout_s=2.0)
    except grpc.RpcError:
        return 0


def get_or_nothing(endpoint: str, key: bytes) -> list[bytes]:
    """Read, or return nothing where that is refused."""
    try:
        return get(endpoint, key, timeout_s=2.0)
    except grpc.RpcError:
        return []


def get_serializable(endpoint: str, key: bytes) -> list[bytes]:
    """Read what one member has, or return nothing while it does not serve."""
    try:
        return get(endpoint, key, timeout_s=2.0, serializable=True)
    except grpc.RpcError:
        return []

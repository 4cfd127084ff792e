"""What guards a running server and cluster, as processes: history compacted by itself, and corruption found."""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.cluster import Cluster, Member, Writer, cluster_of
from tests.e2e.conftest import MakeServer
from tests.e2e.corrupt import change_one_byte
from tests.e2e.harness import Program, Server, actcd, real_etcd, wait_for

pytestmark = pytest.mark.e2e


def put(endpoint: str, key: bytes, value: bytes = b"v") -> int:
    """Put at one server and return the revision."""
    with connect(endpoint) as client:
        return int(client.kv.Put(rpc_pb2.PutRequest(key=key, value=value), timeout=CALL_TIMEOUT_S).header.revision)


def is_compacted(server: Server, revision: int) -> bool:
    """Whether history at *revision* is refused for having been compacted."""
    with connect(server.endpoint) as client:
        try:
            client.kv.Range(rpc_pb2.RangeRequest(key=b"key", revision=revision), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            return "required revision has been compacted" in str(error.details())
    return False


@pytest.mark.parametrize("program", [actcd(), real_etcd()], ids=lambda program: program.name)
def test_history_older_than_the_period_is_compacted_by_itself(make_server: MakeServer, program: Program) -> None:
    """Without a client that compacts, the store still does not grow for ever; the present stays readable."""
    server = make_server(program, {"auto-compaction-mode": "periodic", "auto-compaction-retention": "1s"})
    first = put(server.endpoint, b"key", b"old")
    put(server.endpoint, b"key", b"new")
    wait_for(lambda: is_compacted(server, first), 15.0, "the first revision is compacted")
    with connect(server.endpoint) as client:
        answer = client.kv.Range(rpc_pb2.RangeRequest(key=b"key"), timeout=CALL_TIMEOUT_S)
    assert [kv.value for kv in answer.kvs] == [b"new"]


# -- corruption ------------------------------------------------------------------------------------------------------


def compact(endpoint: str, revision: int) -> None:
    """Compact, and wait until it is applied."""
    with connect(endpoint) as client:
        client.kv.Compact(rpc_pb2.CompactionRequest(revision=revision), timeout=CALL_TIMEOUT_S)


def corrupt_alarms(member: Member) -> list[int]:
    """Return for whom the CORRUPT alarm is on."""
    with connect(member.endpoint) as client:
        alarms = client.maintenance.Alarm(rpc_pb2.AlarmRequest(alarm=rpc_pb2.CORRUPT), timeout=CALL_TIMEOUT_S).alarms
    return [alarm.memberID for alarm in alarms]


def damage(member: Member) -> None:
    """Stop *member* and change one byte of a value that it holds."""
    member.kill()
    assert change_one_byte(member.data_dir, b"right", b"wrong") == 1


def reads(member: Member) -> bool:
    """Tell whether *member*, which has not left, answers a linearizable read."""
    assert member.process is not None, "not started"
    assert member.process.poll() is None, f"{member.name} has left:\n{member.log_tail()}"
    with connect(member.endpoint) as client:
        try:
            client.kv.Range(rpc_pb2.RangeRequest(key=b"key"), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError:
            return False
    return True


def expect_writes_refused(member: Member) -> None:
    """Assert that every write is refused as CORRUPT has it, and that reads are not."""
    with connect(member.endpoint) as client:
        for method, request in (
            (client.kv.Put, rpc_pb2.PutRequest(key=b"k")),
            (client.kv.DeleteRange, rpc_pb2.DeleteRangeRequest(key=b"k")),
            (client.kv.Compact, rpc_pb2.CompactionRequest(revision=2)),
            (client.lease.LeaseGrant, rpc_pb2.LeaseGrantRequest(TTL=60)),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                method(request, timeout=CALL_TIMEOUT_S)
            assert refused.value.code() is grpc.StatusCode.DATA_LOSS
            assert refused.value.details() == "etcdserver: corrupt cluster"
        assert client.kv.Range(rpc_pb2.RangeRequest(key=b"key"), timeout=CALL_TIMEOUT_S).kvs


def test_a_member_whose_data_was_damaged_does_not_serve(tmp_path: Path) -> None:
    """The initial check, on by default: one byte changed on disk, and the member says why it does not start."""
    with cluster_of(3, tmp_path) as cluster:
        put(cluster.members[0].endpoint, b"key", b"right")
        cluster.wait_until_equal()
        victim = cluster.followers()[0]
        damage(victim)
        process = victim.launch()
        assert process.wait(90.0) == 1
        assert "found data inconsistency with peers" in victim.log_tail()
        put(cluster.leader().endpoint, b"key", b"others go on")


@pytest.mark.parametrize(
    "settings",
    [
        {"feature-gates": "InitialCorruptCheck=false,CompactHashCheck=false", "corrupt-check-time": "1s"},
        {"feature-gates": "InitialCorruptCheck=false", "compact-hash-check-time": "1s", "corrupt-check-time": 0},
    ],
    ids=["periodic", "after a compaction"],
)
def test_the_leader_finds_the_member_whose_data_was_damaged(tmp_path: Path, settings: Mapping[str, object]) -> None:
    """One byte changed on the disk of a member that is down: the alarm names it, and stops all writes everywhere."""
    with cluster_of(3, tmp_path, settings) as cluster:
        put(cluster.members[0].endpoint, b"key", b"right")
        last = put(cluster.members[0].endpoint, b"other")
        cluster.wait_until_equal()
        victim = cluster.followers()[0]
        damage(victim)
        victim.launch()
        # Not until it is healthy: the leader may find it out before anybody asks, and then it never is.
        wait_for(lambda: reads(victim), 90.0, "the victim serves")
        victim_id, leader = cluster.member_id(victim), cluster.leader()
        if "CompactHashCheck" not in str(settings["feature-gates"]):
            compact(leader.endpoint, last)
        wait_for(lambda: corrupt_alarms(leader) == [victim_id], 60.0, "the alarm is raised")
        for member in cluster.members:
            expect_writes_refused(member)
        assert "corruption was found" in leader.log_path.read_text()


def test_mixed_with_etcd_the_members_can_be_compared(tmp_path: Path) -> None:
    """A real etcd 3.5.1 answers the questions of an actcd that leads, and hashes alike: no false alarm, no silence."""
    settings = {"experimental-corrupt-check-time": 1_000_000_000}
    cluster = Cluster(tmp_path, programs=[actcd(), actcd(), real_etcd()], settings=settings)
    try:
        cluster.found(3)
        for number in range(20):
            put(cluster.members[number % 3].endpoint, b"key%d" % (number % 4), b"%d" % number)
        compact(cluster.members[2].endpoint, 9)
        put(cluster.members[0].endpoint, b"key")
        leader = cluster.leader()
        if leader.program.name == "etcd":
            with connect(leader.endpoint) as client:
                target = cluster.member_id(cluster.members[0])
                client.maintenance.MoveLeader(rpc_pb2.MoveLeaderRequest(targetID=target), timeout=CALL_TIMEOUT_S)
            wait_for(lambda: cluster.leader() is cluster.members[0], 20.0, "actcd leads")
            leader = cluster.members[0]
        wait_for(lambda: "corruption check passed" in leader.log_path.read_text(), 20.0, "all were compared")
        assert corrupt_alarms(leader) == []
        assert "corruption was found" not in leader.log_path.read_text()
    finally:
        cluster.close()


# -- a disk that hangs -----------------------------------------------------------------------------------------------

STALL_S = 60


@contextmanager
def stalled_disk(member: Member) -> Iterator[None]:
    """Let every fdatasync of *member* take a minute, and nothing else."""
    delay = f"inject=fdatasync:delay_enter={STALL_S * 1_000_000}"
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-e", "trace=fdatasync", "-e", delay, "-p", str(member.pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    status = Path(f"/proc/{member.pid}/status")
    try:
        wait_for(lambda: f"TracerPid:\t{strace.pid}" in status.read_text(), 10.0, "strace is attached")
        yield
    finally:
        strace.send_signal(signal.SIGTERM)
        strace.wait(20.0)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is needed to make a disk hang")
def test_a_leader_whose_disk_hangs_leads_no_longer(tmp_path: Path) -> None:
    """Its process runs and its heartbeats would go on, but others lead, writes go on, and it still answers."""
    # What the kernel does by itself cannot be held up from outside; how its syncs are watched, test_wal.py shows.
    with cluster_of(3, tmp_path, {"log-sync": "thread"}) as cluster:
        old = cluster.leader()
        others = [member for member in cluster.members if member is not old]
        writer = Writer([member.endpoint for member in others])
        writer.wait_for_more(20)
        writer.gap_s = 0.0
        with stalled_disk(old):
            wait_for(lambda: cluster.leader() in others, 20.0, "another leads, and the old leader knows")
            writer.wait_for_more(50)
            assert "the disk does not answer" in old.log_path.read_text()
            with connect(old.endpoint) as client:  # the loop does not hang with the disk
                request = rpc_pb2.RangeRequest(key=b"w", range_end=b"x", serializable=True)
                assert client.kv.Range(request, timeout=5.0).count
        writer.stop()
        assert writer.gap_s < STALL_S / 4
        put(old.endpoint, b"after", b"v")
        cluster.wait_until_equal()

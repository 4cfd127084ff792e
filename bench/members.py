"""Three members of one program on this machine: writes at the leader, reads at a follower, and the loss of a leader.

Processor time for one request is measured too: with three servers and a load on a few processors it is what bounds the
rates, and it hardly depends on what else the machine does.
"""

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import h2load, load
from bench.rows import PUT, READ_KEY, Bench, Row
from proto import rpc_pb2
from tests.e2e.client import connect
from tests.e2e.cluster import Cluster, Member, Writer

MEMBERS_COUNT: Final = 3
KILLS_COUNT: Final = 3
SETTINGS: Final[Mapping[str, object]] = {"heartbeat-interval": 100, "election-timeout": 1000}
"""The defaults of both."""

WRITES: Final = "3 members, put at the leader, 100 clients"
READS: Final = "3 members, linearizable range at a follower, 100 clients"
LEADERLESS: Final = "3 members, time without a leader after kill -9"
UNITS: Final[Mapping[str, str]] = {
    WRITES: "/s",
    f"{WRITES}: processor time at the leader": "us",
    f"{WRITES}: processor time at a follower": "us",
    READS: "/s",
    f"{READS}: processor time at the leader": "us",
    f"{READS}: processor time at the follower": "us",
    LEADERLESS: "s",
}


def three_members() -> Row:
    """On members of its own, not on the server of the other rows."""

    def measure(bench: Bench) -> Mapping[str, float]:
        program = bench.server.program
        directory = bench.directory / "members"
        cluster = Cluster(directory, programs=[program] * MEMBERS_COUNT, settings=SETTINGS, proxied=False)
        try:
            cluster.found(MEMBERS_COUNT)
            figures = [*_writes(bench, cluster), *_reads(bench, cluster), _leaderless_s(cluster)]
        finally:
            cluster.close()
        return dict(zip(UNITS, figures, strict=True))

    return Row("three members", UNITS, measure)


def _writes(bench: Bench, cluster: Cluster) -> Sequence[float]:
    leader = cluster.leader()
    before = load.revision(leader.endpoint)
    run, used_s = _drive(bench, leader.endpoint, "KV/Put", PUT, cluster.members)
    if load.revision(leader.endpoint) - before < run.done_count:
        raise SystemExit(f"{WRITES}: {run.done_count} answers are more than there are new revisions")
    followers_s = [used_s[member.name] for member in cluster.members if member is not leader]
    return run.requests_per_s, used_s[leader.name], statistics.mean(followers_s)


def _reads(bench: Bench, cluster: Cluster) -> Sequence[float]:
    leader, follower = cluster.leader(), cluster.followers()[0]
    with connect(follower.endpoint) as client:
        client.kv.Put(rpc_pb2.PutRequest(key=READ_KEY, value=load.VALUE), timeout=load.CALL_TIMEOUT_S)
    request = rpc_pb2.RangeRequest(key=READ_KEY)
    run, used_s = _drive(bench, follower.endpoint, "KV/Range", request, cluster.members)
    return run.requests_per_s, used_s[leader.name], used_s[follower.name]


def _drive(
    bench: Bench,
    endpoint: str,
    method: str,
    request: rpc_pb2.PutRequest | rpc_pb2.RangeRequest,
    members: Sequence[Member],
) -> tuple[h2load.Run, Mapping[str, float]]:
    """Run h2load; return also each member's processor time for a request, in microseconds."""
    before_s = {member.name: processor_s(member.pid) for member in members}
    run = h2load.run(endpoint, method, request, h2load.CLIENTS[100], bench.seconds, bench.directory)
    # What is done while h2load warms up is not counted, so it is as many more as the time says.
    requests_count = run.done_count * (1 + h2load.WARM_UP_MS / 1000 / bench.seconds)
    used_us = {
        member.name: (processor_s(member.pid) - before_s[member.name]) / requests_count * 1e6 for member in members
    }
    return run, used_us


def _leaderless_s(cluster: Cluster) -> float:
    """Kill the leader a few times; return the median of how long no write was acknowledged."""
    gaps_s = []
    for _ in range(KILLS_COUNT):
        leader = cluster.leader()
        # A write that was on its way to the dead leader is given up soon: what counts is when the next one is taken.
        others = [member.endpoint for member in cluster.members if member is not leader]
        writer = Writer(others, prefix=b"bench/w%d-" % time.monotonic_ns(), timeout_s=0.1)
        writer.wait_for_more(20)
        writer.gap_s = 0.0
        leader.kill()
        writer.wait_for_more(20)
        writer.stop()
        gaps_s.append(writer.gap_s)
        cluster.restart(leader)
    return statistics.median(gaps_s)


def processor_s(pid: int) -> float:
    """Processor time that the process has used, its threads' and the system's for it, in seconds; from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

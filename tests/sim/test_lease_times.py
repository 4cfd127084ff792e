"""What is left of a lease when its leader dies: known to the next one as far as checkpoints told it."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import pytest

from core.raft.role import Role
from net.rpc import OK
from proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)
from sim.cluster import Cluster
from sim.connections import Call
from sim.schedule import Trace
from sim.settings import from_seed

if TYPE_CHECKING:
    from net.rpc import Status
    from sim.member import Member

TTL_S = 30
PASSED_S = 15.0
SLACK_S = 4
"""For the last checkpoint, an election, and the election timeout that a new leader gives on top."""


def quiet_cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Return three members without clients or faults, whose clocks go alike."""
    quiet = replace(
        from_seed(1),
        members=3,
        clients=0,
        watchers=0,
        drop_rate=0.0,
        duplicate_rate=0.0,
        clock_rates=(1.0, 1.0, 1.0),
        faults=(),
    )
    monkeypatch.setattr("sim.cluster.settings_of", lambda _seed, _plant: quiet)
    return Cluster(1, Trace(None))


def leader_of(cluster: Cluster, timeout_s: float = 30.0) -> Member:
    """Let time pass until somebody leads and serves, and return it."""

    def leading() -> list[Member]:
        return [
            each
            for each in cluster.members
            if each.running and each.raft.role is Role.LEADER and each.engine is not None and each.engine.open
        ]

    schedule = cluster.schedule
    assert schedule.run_until(schedule.now_s + timeout_s, lambda: bool(leading()))
    return leading()[0]


def ask(cluster: Cluster, member: Member, method: str, payload: bytes) -> bytes:
    """Make one call and return its answer."""
    answers: list[tuple[Status, bytes]] = []
    Call(cluster, member, method, "test", payload, lambda status, message: answers.append((status, message)))
    assert cluster.schedule.run_until(cluster.schedule.now_s + 10.0, lambda: bool(answers))
    [(status, message)] = answers
    assert status is OK, status
    return message


def left_s(cluster: Cluster, member: Member) -> int:
    """Return what *member* says is left of the lease."""
    request = LeaseTimeToLiveRequest(ID=7).SerializeToString()
    answer = ask(cluster, member, "/etcdserverpb.Lease/LeaseTimeToLive", request)
    return LeaseTimeToLiveResponse.FromString(answer).TTL


@pytest.mark.parametrize("checkpoint_s", [1.0, inf], ids=["checkpoints", "none"])
def test_what_is_left_of_a_lease_survives_its_leader(monkeypatch: pytest.MonkeyPatch, checkpoint_s: float) -> None:
    """Its holder is believed dead after its time, not after as many times as leaders change; etcd needs a gate for it.

    Without checkpoints the next leader knows only the whole time, and must give that.
    """
    monkeypatch.setattr("sim.member.LEASE_CHECKPOINT_S", checkpoint_s)
    cluster = quiet_cluster(monkeypatch)
    schedule = cluster.schedule
    leader = leader_of(cluster)
    granted = ask(
        cluster, leader, "/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest(ID=7, TTL=TTL_S).SerializeToString()
    )
    assert LeaseGrantResponse.FromString(granted).TTL == TTL_S
    granted_s = schedule.now_s
    schedule.run_until(granted_s + PASSED_S)
    assert left_s(cluster, leader) <= TTL_S - PASSED_S + 1
    leader.end(power=False)
    successor = leader_of(cluster)
    assert successor is not leader
    left = left_s(cluster, successor)
    known = checkpoint_s < inf
    assert (left <= TTL_S - PASSED_S + SLACK_S) == known
    expected_s = TTL_S - PASSED_S if known else TTL_S
    ends_s = schedule.now_s + expected_s + SLACK_S

    def gone() -> bool:
        return 7 not in {lease for lease, _, _ in successor.booted.applier.stored_leases()}

    assert not schedule.run_until(granted_s + TTL_S - 1, gone), "it ended before its time"
    assert schedule.run_until(ends_s, gone)

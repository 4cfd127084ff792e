"""What the strict reconfiguration check asks of a change before it is proposed.

A change is refused when the cluster that it leads to might have no quorum: too few members that ever started, or too
few that are connected now.  It depends on what one member sees at one moment, so it may never be part of applying.
Behaviour: the strict rules in the Cluster section of the etcd v3 API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import MemberNotEnoughStarted, UnhealthyCluster
from core.membership.change import context_of
from core.raft.messages import ConfChangeType

if TYPE_CHECKING:
    from collections.abc import Collection

    from core.membership.cluster import Cluster
    from core.raft.messages import ConfChange
    from core.types import MemberId

HEALTHY_AFTER_S = 5.0
"""How long a connection must have lasted without a break to count as *steady*."""


def check_strictly(
    cluster: Cluster,
    change: ConfChange,
    *,
    local: MemberId,
    connected: Collection[MemberId],
    steady: Collection[MemberId],
) -> None:
    """Raise MemberNotEnoughStarted or UnhealthyCluster if *change*, which is valid, would endanger the quorum.

    *connected* are the members that *local* has a connection with now, *steady* those it has had one with for
    `HEALTHY_AFTER_S`; *local* itself counts as steady.
    """
    voters = {member.id for member in cluster.voters}
    started = {member.id for member in cluster.voters if member.started}
    steady_count = len(voters & {local, *steady})
    match change.type:
        case ConfChangeType.ADD_LEARNER_NODE:
            _check_health(len(voters), steady_count)
        case ConfChangeType.ADD_NODE:
            if context_of(change).is_promote:
                # The learner is in step with the leader, which its own check has made sure of: it counts as started.
                _check_started(len(started) + 1, len(voters) + 1)
                return
            if (len(voters), len(started)) != (1, 1):  # else a cluster of one could never grow
                _check_started(len(started), len(voters) + 1)
            _check_health(len(voters), steady_count)
        case ConfChangeType.REMOVE_NODE:
            leaving = change.node_id
            if leaving not in voters:
                return
            _check_started(len(started - {leaving}), len(voters) - 1)
            if leaving != local and leaving not in connected:
                return  # it takes no part in the quorum as it is
            if steady_count - 1 < 1 + (len(voters) - 1) // 2:
                raise UnhealthyCluster
        case ConfChangeType.UPDATE_NODE:
            pass


def quorum(voter_count: int) -> int:
    """Return how many of so many voters make a majority."""
    return voter_count // 2 + 1


def _check_started(started_count: int, voter_count: int) -> None:
    if started_count < quorum(voter_count):
        raise MemberNotEnoughStarted


def _check_health(voter_count: int, steady_count: int) -> None:
    if voter_count > 1 and steady_count < quorum(voter_count + 1):
        raise UnhealthyCluster

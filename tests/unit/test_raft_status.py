"""How consensus stands, as /debug/vars shows it: etcd's names and forms."""

from __future__ import annotations

import json

from core.raft.status import status
from tests.unit.raft_nodes import make_leader, make_node


def test_a_leader_tells_of_every_member() -> None:
    """Ids in hexadecimal, states by etcd's names; and all of it can be JSON."""
    leader = make_leader()
    shown = json.loads(json.dumps(status(leader)))
    assert shown["id"] == shown["lead"] == f"{leader.id:x}"
    assert shown["raftState"] == "StateLeader"
    assert shown["progress"].keys() == {f"{member:x}" for member in leader.progress}
    states = {progress["state"] for progress in shown["progress"].values()}
    assert states <= {"StateProbe", "StateReplicate", "StateSnapshot"}


def test_a_follower_tells_of_itself() -> None:
    """Nobody is known to lead yet, and progress is a leader's."""
    shown = status(make_node())
    assert (shown["raftState"], shown["lead"], shown["progress"]) == ("StateFollower", "0", {})

"""A member whose disk does not answer: whoever leads hands over, and nobody stands for election on such a disk.

etcd issue 15247: a leader went on by heartbeats while its disk hung, and nothing was committed for minutes.
"""

from __future__ import annotations

import pytest

from core.raft import events
from core.raft.messages import NOBODY, MessageType
from core.raft.role import ProposeResult, Role
from core.types import MemberId
from tests.unit.raft_nodes import acknowledge, drain, make_leader, make_node, message


def tick(node: object, count: int) -> None:
    for _ in range(count):
        node.tick()  # type: ignore[attr-defined]


def test_a_leader_hands_over_to_the_voter_that_has_most_of_the_log() -> None:
    """The one that needs least before it can win."""
    node = make_leader()
    acknowledge(node, 3)
    node.propose([b"x"])
    drain(node)
    acknowledge(node, 2, node.log.last - 1)
    acknowledge(node, 3)
    drain(node)
    node.note_disk(stalled=True)
    output = drain(node)
    assert [sent.to for sent in output.of(MessageType.TIMEOUT_NOW)] == [3]
    assert events.DiskStalled(node.term, MemberId(3)) in output.events
    assert node.propose([b"y"]) is ProposeResult.TRANSFERRING


def test_who_does_not_take_over_in_time_leaves_it_to_an_election() -> None:
    """The leader steps down, so that its heartbeats no longer keep the others from one."""
    node = make_leader()
    acknowledge(node, 2)
    node.note_disk(stalled=True)
    drain(node)
    for _ in range(node.config.election_ticks):
        node.tick()
        acknowledge(node, 2)
        acknowledge(node, 3)
    assert node.role is Role.FOLLOWER
    assert node.leader_id == NOBODY


def test_without_anybody_to_hand_over_to_a_leader_steps_down_at_once() -> None:
    """Those who do not hear it may hear each other."""
    node = make_leader()
    for progress in node.progress.values():
        progress.active = False
    node.note_disk(stalled=True)
    assert node.role is Role.FOLLOWER


def test_a_leader_that_is_alone_stays() -> None:
    """Nobody would be better off, and once the disk answers it goes on where it was."""
    node = make_leader(voters=(1,))
    node.note_disk(stalled=True)
    tick(node, 5 * node.config.election_ticks)
    assert node.role is Role.LEADER
    node.note_disk(stalled=False)
    assert node.propose([b"x"]).accepted


@pytest.mark.parametrize("pre_vote", [True, False])
def test_nobody_stands_for_election_on_a_disk_that_hangs(pre_vote: bool) -> None:
    """Its own vote could not become durable; as soon as it can, it may."""
    node = make_node(pre_vote=pre_vote)
    node.note_disk(stalled=True)
    tick(node, 10 * node.config.election_ticks)
    assert (node.role, node.term) == (Role.FOLLOWER, 0)
    node.note_disk(stalled=False)
    tick(node, 2 * node.config.election_ticks)
    assert node.role is not Role.FOLLOWER


def test_on_such_a_disk_a_member_still_follows() -> None:
    """It takes what comes, and acknowledges it when it is durable."""
    node = make_node(term=1)
    node.note_disk(stalled=True)
    node.step(message(MessageType.HEARTBEAT, term=2))
    assert (node.term, node.leader_id) == (2, 2)

"""Changes of the configuration on a running member (raft thesis 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.raft.events import CampaignRefused, ConfChanged, ConfChangeRefused
from core.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    EntryType,
    MessageType,
)
from core.raft.role import ProposeResult, Role
from core.types import Index, MemberId, Term
from tests.unit.raft_nodes import acknowledge, drain, make_leader, make_node, message

if TYPE_CHECKING:
    from core.raft.node import RaftNode

ADD_2 = ConfChange(ConfChangeType.ADD_NODE, MemberId(2))
REMOVE_1 = ConfChange(ConfChangeType.REMOVE_NODE, MemberId(1))
REMOVE_3 = ConfChange(ConfChangeType.REMOVE_NODE, MemberId(3))


def commit_and_apply(node: RaftNode, change: ConfChange | ConfChangeV2) -> ConfState:
    """Let a change that was proposed take effect."""
    for voter in node.conf_state.voters:
        if voter != node.id:
            acknowledge(node, voter)
    while node.has_ready():
        ready = node.take_ready()
        if ready.stable is not None:
            node.stable(*ready.stable)
        if ready.committed:
            if any(entry.type is not EntryType.NORMAL for entry in ready.committed):
                node.apply_conf_change(change)
            node.applied_to(ready.committed[-1].index)
    return node.conf_state


def test_4_1_one_change_at_a_time() -> None:
    """The next one waits until the one before is applied; so does the first of a new leader."""
    node = make_leader([1, 1], term=1, voters=(1,))
    assert node.propose_conf_change(b"a") is ProposeResult.ACCEPTED
    assert node.propose_conf_change(b"b") is ProposeResult.CONF_CHANGE_PENDING
    commit_and_apply(node, ADD_2)
    assert node.propose_conf_change(b"b") is ProposeResult.ACCEPTED


def test_4_1_a_new_leader_waits_for_the_changes_of_others() -> None:
    """It does not look for one among the entries it inherited: any of them may be one."""
    node = make_leader([1, 1], term=1)
    assert node.propose_conf_change(b"a") is ProposeResult.CONF_CHANGE_PENDING
    acknowledge(node, 2)
    drain(node)
    assert node.propose_conf_change(b"a") is ProposeResult.ACCEPTED


def test_4_1_no_campaign_with_a_change_not_applied() -> None:
    """The member's own vote would count in a configuration that is over."""
    node = make_node([1, 1])
    node.step(message(MessageType.PROPOSE))
    node.log.append((node.log.entries(2, 3)[0]._replace(index=Index(3), type=EntryType.CONF_CHANGE),))
    node.commit_to(Index(3))
    node.campaign()
    assert isinstance(node.take_ready().events[0], CampaignRefused)
    assert node.role is Role.FOLLOWER


def test_4_2_a_new_voter_is_probed_and_counts() -> None:
    """It is sent what it lacks at once, and it counts as heard from until the next quorum check."""
    node = make_leader(voters=(1,))
    node.propose_conf_change(b"x")
    assert commit_and_apply(node, ADD_2) == ConfState((MemberId(1), MemberId(2)))
    node.propose([b"y"])
    drain(node)
    assert node.commit == 2
    progress = node.progress[MemberId(2)]
    assert (progress.active, progress.paused) == (True, True)
    acknowledge(node, 2)
    assert node.commit == 3


def test_4_2_the_first_probe_of_a_new_member_is_the_latest_entry() -> None:
    """Its log is unknown: usually it is empty and says so."""
    node = make_leader(voters=(1,))
    node.propose_conf_change(b"x")
    ready = node.take_ready()
    assert ready.stable is not None
    node.stable(*ready.stable)
    committed = node.take_ready().committed
    node.apply_conf_change(ADD_2)
    node.applied_to(committed[-1].index)
    (probe,) = node.take_ready().messages
    assert (probe.to, probe.index, len(probe.entries)) == (2, 1, 1)


def test_4_2_fewer_voters_may_commit_more() -> None:
    """When one that held things up is removed, what the others have is committed at once."""
    node = make_leader()
    acknowledge(node, 2)
    drain(node)
    node.propose_conf_change(b"x")
    drain(node)
    node.propose([b"y"])
    acknowledge(node, 3, 2)
    ready = node.take_ready()
    assert (node.commit, ready.stable) == (2, (1, 3))
    assert ready.stable is not None
    node.stable(*ready.stable)
    node.apply_conf_change(ConfChange(ConfChangeType.REMOVE_NODE, MemberId(2)))
    node.apply_conf_change(REMOVE_3)
    assert (node.commit, node.conf_state.voters) == (3, (1,))


def test_4_2_2_a_leader_may_manage_a_cluster_it_is_not_in() -> None:
    """Having removed itself it leads on without counting, and takes no proposals, until etcd stops it."""
    node = make_leader()
    acknowledge(node, 2)
    acknowledge(node, 3)
    drain(node)
    node.propose_conf_change(b"x")
    node.propose([b"y"])
    commit_and_apply(node, REMOVE_1)
    assert (node.role, node.conf_state.voters, list(node.progress)) == (Role.LEADER, (2, 3), [2, 3])
    assert node.propose([b"z"]) is ProposeResult.REMOVED
    for _ in range(10):
        acknowledge(node, 2)
        acknowledge(node, 3)
        node.tick()
    node.step(message(MessageType.HEARTBEAT, term=Term(node.term + (node.role is Role.LEADER))))
    node.campaign()
    assert (node.term, node.role) == (2, Role.FOLLOWER)


def test_4_2_2_what_was_proposed_before_its_removal_still_commits() -> None:
    """The remaining majority decides, without the leader's own log."""
    node = make_leader()
    acknowledge(node, 2)
    drain(node)
    node.propose_conf_change(b"x")
    node.propose([b"y"])
    node.take_ready()
    acknowledge(node, 2)
    acknowledge(node, 3)
    node.apply_conf_change(REMOVE_1)
    assert node.commit == 3


def test_a_change_that_does_not_fit_is_left_without_effect() -> None:
    """Every member sees the same entry at the same place and leaves it alike; the event tells."""
    node = make_node([1], voters=(1,))
    assert node.apply_conf_change(REMOVE_1) == ConfState((MemberId(1),))
    assert drain(node).events == [ConfChangeRefused("no voter would be left")]


def test_a_change_that_holds_already_is_no_news() -> None:
    """After a restart the changes since the last snapshot are applied again."""
    node = make_node([1])
    node.apply_conf_change(ADD_2)
    assert drain(node).events == []
    node.apply_conf_change(REMOVE_3)
    assert drain(node).events == [ConfChanged(ConfState((MemberId(1), MemberId(2))))]


@pytest.mark.parametrize(
    ("joint", "entry_type", "data", "result"),
    [
        (False, EntryType.CONF_CHANGE, b"\x10\x01", ProposeResult.ACCEPTED),
        (False, EntryType.CONF_CHANGE_V2, b"\x12\x02\x10\x02", ProposeResult.ACCEPTED),
        (False, EntryType.CONF_CHANGE_V2, b"", ProposeResult.CONF_CHANGE_UNFIT),
        (True, EntryType.CONF_CHANGE, b"", ProposeResult.CONF_CHANGE_UNFIT),
        (True, EntryType.CONF_CHANGE_V2, b"\x12\x02\x10\x02", ProposeResult.CONF_CHANGE_UNFIT),
        (True, EntryType.CONF_CHANGE_V2, b"\x1a\x01x", ProposeResult.ACCEPTED),
    ],
)
def test_4_3_joint_configurations_are_left_before_the_next_change(
    joint: bool, entry_type: EntryType, data: bytes, result: ProposeResult
) -> None:
    """What cannot fit is refused before it gets into the log."""
    node = make_leader(voters=(1,))
    if joint:
        singles = (ConfChangeSingle(ConfChangeType.ADD_NODE, MemberId(2)),)
        node.apply_conf_change(ConfChangeV2(ConfChangeTransition.JOINT_EXPLICIT, singles))
    assert node.propose_conf_change(data, entry_type) is result


def test_4_3_the_leader_leaves_an_implicit_joint_configuration() -> None:
    """As soon as it is applied; but not while it hands over, for then its successor does."""
    node = make_leader(voters=(1, 2))
    acknowledge(node, 2)
    drain(node)
    node.propose_conf_change(b"\x12\x02\x10\x03", EntryType.CONF_CHANGE_V2)
    acknowledge(node, 2)
    node.transfer_leader(MemberId(2))
    singles = (ConfChangeSingle(ConfChangeType.ADD_NODE, MemberId(3)),)
    commit_and_apply(node, ConfChangeV2(ConfChangeTransition.JOINT_IMPLICIT, singles))
    assert (node.conf_state.auto_leave, node.log.last) == (True, 2)
    for _ in range(10):
        acknowledge(node, 2)
        node.tick()
    assert node.log.entries(3, 4)[0][2:] == (EntryType.CONF_CHANGE_V2, b"")
    assert node.propose_conf_change(b"", EntryType.CONF_CHANGE_V2) is ProposeResult.CONF_CHANGE_PENDING

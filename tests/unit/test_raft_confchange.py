"""How one configuration becomes the next (raft thesis 4.1 to 4.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.raft.confchange import InvalidConfChangeError, changed, checked, holds_changes, members, votes
from core.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
)
from core.types import MemberId
from proto import raft_pb2

KINDS = {
    "+": ConfChangeType.ADD_NODE,
    "-": ConfChangeType.REMOVE_NODE,
    "~": ConfChangeType.ADD_LEARNER_NODE,
    "=": ConfChangeType.UPDATE_NODE,
}


def conf(text: str) -> ConfState:
    """Return a configuration written as voters/outgoing/learners/learners next, with ! for auto leave."""
    parts = [tuple(MemberId(int(digit)) for digit in part) for part in text.strip("!").split("/")]
    voters, outgoing, learners, learners_next = (parts + [()] * 4)[:4]
    return ConfState(voters, learners, outgoing, learners_next, text.endswith("!"))


def singles(text: str) -> tuple[ConfChangeSingle, ...]:
    """Return the changes written as +1 -2 ~3."""
    return tuple(ConfChangeSingle(KINDS[word[0]], MemberId(int(word[1:]))) for word in text.split())


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ("", "+1", "1"),
        ("1", "+2", "12"),
        ("13", "+2", "123"),
        ("12", "-1", "2"),
        ("12", "-3", "12"),
        ("12", "~3", "12//3"),
        ("12//3", "+3", "123"),
        ("12", "~2", "1//2"),
        ("12//3", "~3", "12//3"),
        ("12//3", "-3", "12"),
        ("12", "=2", "12"),
        ("12", "+0", "12"),
        ("12", "-0", "12"),
    ],
)
def test_a_simple_change_moves_one_member(before: str, change: str, after: str) -> None:
    """What is so already stays so (restarts apply changes again), and id 0 is a change that etcd refused."""
    (single,) = singles(change)
    assert changed(conf(before), ConfChange(single.type, single.node_id)) == conf(after)
    assert changed(conf(before), ConfChangeV2(changes=(single,))) == conf(after)


@pytest.mark.parametrize(
    ("before", "changes", "during", "after"),
    [
        ("1", "+2 +3", "123/1!", "123"),
        ("123", "-1 +4", "234/123!", "234"),
        ("123", "~3 ~2", "1/123//23!", "1//23"),
        ("12//3", "+3 ~2", "13/12//2!", "13//2"),
        ("123", "~3 +3", "123/123!", "123"),
        ("123", "~3 -3", "12/123!", "12"),
        ("12//3", "-3 +4", "124/12!", "124"),
    ],
)
def test_several_changes_pass_through_a_joint_configuration(before: str, changes: str, during: str, after: str) -> None:
    """Voters of both sets count meanwhile; who is to learn waits until it no longer votes in the outgoing set."""
    joint = changed(conf(before), ConfChangeV2(changes=singles(changes)))
    assert joint == conf(during)
    assert changed(joint, ConfChangeV2(context=b"anything")) == conf(after)


def test_who_leaves_a_joint_configuration_can_be_chosen() -> None:
    """Explicit waits for a second change; implicit has the leader make it, even for a single change."""
    for transition, joint in (("JOINT_EXPLICIT", "12/1"), ("JOINT_IMPLICIT", "12/1!")):
        change = ConfChangeV2(ConfChangeTransition[transition], singles("+2"))
        assert changed(conf("1"), change) == conf(joint)


@pytest.mark.parametrize(
    ("before", "change", "reason"),
    [
        ("1", ConfChangeV2(changes=singles("-1")), "no voter"),
        ("", ConfChangeV2(changes=singles("~1")), "no voter"),
        ("12/1", ConfChangeV2(changes=singles("+3")), "joint"),
        ("12/1", ConfChange(ConfChangeType.ADD_NODE, MemberId(3)), "joint"),
        ("12/1", ConfChangeV2(changes=singles("+3 +4")), "joint already"),
        ("", ConfChangeV2(changes=singles("+3 +4")), "without voters"),
        ("12", ConfChangeV2(), "not joint"),
        ("12", ConfChangeV2(changes=singles("-1 -2")), "no voter"),
    ],
)
def test_what_does_not_fit_is_refused(before: str, change: ConfChange | ConfChangeV2, reason: str) -> None:
    """A cluster without voters could never move again, and joint configurations do not nest."""
    with pytest.raises(InvalidConfChangeError, match=reason):
        changed(conf(before), change)


@pytest.mark.parametrize("broken", ["12//2", "1/12/2", "12///3", "123/12//3", "12/13//1", "/12"])
def test_a_configuration_from_outside_must_make_sense(broken: str) -> None:
    """A snapshot may bring any: nobody votes and learns, and only outgoing voters wait to learn."""
    with pytest.raises(InvalidConfChangeError):
        checked(conf(broken))


@pytest.mark.parametrize(("given_ids", "ordered"), [("", ""), ("312//54", "123//45"), ("1/321//32!", "1/123//23!")])
def test_a_configuration_from_outside_is_put_in_order(given_ids: str, ordered: str) -> None:
    """Two members that hold the same configuration must see equal values, and iterate alike."""
    assert checked(conf(given_ids)) == conf(ordered)


def test_members_are_everyone_and_votes_those_of_both_sets() -> None:
    """Learners get the log and do not vote; outgoing voters still do."""
    joint = conf("14/12/3")
    assert members(joint) == (1, 2, 3, 4)
    assert [votes(joint, member) for member in members(joint)] == [True, True, False, True]


@given(
    changes=st.lists(st.tuples(st.sampled_from("+-~"), st.integers(1, 300)), max_size=3),
    transition=st.integers(0, 2),
    context=st.binary(max_size=200),
)
def test_holds_changes_reads_what_protobuf_wrote(
    changes: list[tuple[str, int]], transition: int, context: bytes
) -> None:
    """The core tells a change from the end of a joint configuration without a protobuf library."""
    wire = raft_pb2.ConfChangeV2(
        transition=raft_pb2.ConfChangeTransition.keys()[transition],
        changes=[
            raft_pb2.ConfChangeSingle(type=raft_pb2.ConfChangeType.keys()[KINDS[kind]], node_id=member)
            for kind, member in changes
        ],
        context=context,
    )
    assert holds_changes(wire.SerializeToString()) is bool(changes)


@given(st.binary(max_size=40))
def test_holds_changes_takes_any_bytes(data: bytes) -> None:
    """The bytes come from another member: whatever they are, they are answered."""
    assert holds_changes(data) in {True, False}


def test_holds_changes_takes_other_wire_types_for_changes() -> None:
    """A field of a kind that ConfChangeV2 does not have is not the plain end of a joint configuration."""
    assert holds_changes(b"\x0d\x00\x00\x00\x00")

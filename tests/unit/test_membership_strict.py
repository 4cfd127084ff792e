"""The strict reconfiguration check: no change may lead to a cluster without a quorum."""

from __future__ import annotations

import pytest

from core.errors import EtcdError, MemberNotEnoughStarted, UnhealthyCluster
from core.membership.change import adding, promoting, removing, updating
from core.membership.cluster import Cluster
from core.membership.member import Member
from core.membership.strict import check_strictly, quorum
from core.types import MemberId

LEARNER = MemberId(9)


def cluster(*, started: int, unstarted: int = 0) -> Cluster:
    """Return voters 1..n, the first ones started, and a learner that is."""
    voters = [
        Member(MemberId(number), (f"http://m{number}:1",), name="n" if number <= started else "")
        for number in range(1, started + unstarted + 1)
    ]
    return Cluster([*voters, Member(LEARNER, ("http://m9:1",), is_learner=True, name="l")])


def verdict(
    members: Cluster, action: str, *, steady: set[int], connected: set[int] | None = None
) -> type[EtcdError] | None:
    """Judge *action* as member 1 sees it."""
    kind, _, number = action.partition(" ")
    target = MemberId(int(number or 20))
    change = {
        "add": adding(Member(target, ("http://new:1",))),
        "learn": adding(Member(target, ("http://new:1",), is_learner=True)),
        "remove": removing(target),
        "promote": promoting(target),
        "update": updating(target, ("http://new:1",)),
    }[kind]
    try:
        check_strictly(
            members,
            change,
            local=MemberId(1),
            connected={MemberId(each) for each in (steady if connected is None else connected)},
            steady={MemberId(each) for each in steady},
        )
    except EtcdError as error:
        return type(error)
    return None


@pytest.mark.parametrize(("voters", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_quorum(voters: int, majority: int) -> None:
    """More than half."""
    assert quorum(voters) == majority


@pytest.mark.parametrize(
    ("started", "unstarted", "refusal"),
    [
        (1, 0, None),  # one may always become two
        (2, 0, None),  # 2 of 3
        (1, 1, MemberNotEnoughStarted),  # 1 of 3
        (2, 1, MemberNotEnoughStarted),  # 2 of 4
        (3, 0, None),  # 3 of 4
        (4, 1, None),  # 4 of 6
        (3, 2, MemberNotEnoughStarted),  # 3 of 6
        (0, 1, MemberNotEnoughStarted),
    ],
)
def test_add_needs_a_quorum_of_started_members(started: int, unstarted: int, refusal: type[EtcdError] | None) -> None:
    """The new member counts, and it has not started."""
    members = cluster(started=started, unstarted=unstarted)
    everyone = set(range(1, started + unstarted + 1))
    assert verdict(members, "add", steady=everyone) is refusal


@pytest.mark.parametrize("action", ["add", "learn"])
@pytest.mark.parametrize(
    ("voters", "steady", "refusal"),
    [
        (1, set(), None),
        (2, set(), UnhealthyCluster),
        (2, {2}, None),
        (3, {2}, UnhealthyCluster),  # 2 of 4
        (3, {2, 3}, None),
        (3, {2, 9}, UnhealthyCluster),  # a learner has no vote
        (5, {2, 3}, UnhealthyCluster),  # 3 of 6
        (5, {2, 3, 4}, None),
    ],
)
def test_add_needs_a_quorum_of_steady_voters(
    action: str, voters: int, steady: set[int], refusal: type[EtcdError] | None
) -> None:
    """The member that checks counts itself; a cluster of one has nobody to be connected with."""
    assert verdict(cluster(started=voters), action, steady=steady) is refusal


def test_a_learner_may_join_an_unstarted_cluster() -> None:
    """It does not change the quorum, so who has started does not matter."""
    assert verdict(cluster(started=1, unstarted=1), "learn", steady={2}) is None


@pytest.mark.parametrize(
    ("action", "started", "unstarted", "steady", "refusal"),
    [
        ("remove 3", 3, 0, {2, 3}, None),
        ("remove 1", 3, 0, {2, 3}, None),
        ("remove 3", 3, 0, {2}, None),  # not connected: safe to remove
        ("remove 2", 3, 0, {2}, UnhealthyCluster),  # 1 would be left of the 2 needed
        ("remove 1", 3, 0, {2}, UnhealthyCluster),
        ("remove 2", 2, 0, {2}, None),  # 1 of 1 is left
        ("remove 1", 1, 1, {2}, MemberNotEnoughStarted),  # the one left has never started
        ("remove 2", 1, 1, set(), None),
        ("remove 1", 1, 0, set(), MemberNotEnoughStarted),  # nobody would be left
        ("remove 1", 2, 1, {2, 3}, MemberNotEnoughStarted),
        ("remove 9", 3, 0, set(), None),  # a learner may always go
    ],
)
def test_remove(action: str, started: int, unstarted: int, steady: set[int], refusal: type[EtcdError] | None) -> None:
    """Those who stay must have a quorum among themselves."""
    assert verdict(cluster(started=started, unstarted=unstarted), action, steady=steady) is refusal


def test_a_member_just_back_is_not_free_to_remove() -> None:
    """It is connected, if not yet steadily: the quorum may lean on it."""
    assert verdict(cluster(started=3), "remove 3", steady={2}, connected={2, 3}) is UnhealthyCluster


@pytest.mark.parametrize(
    ("started", "unstarted", "refusal"),
    [(1, 0, None), (1, 1, None), (1, 2, MemberNotEnoughStarted), (2, 2, None), (1, 3, MemberNotEnoughStarted)],
)
def test_promote_counts_the_learner_as_started(started: int, unstarted: int, refusal: type[EtcdError] | None) -> None:
    """Connections do not matter."""
    assert verdict(cluster(started=started, unstarted=unstarted), f"promote {LEARNER}", steady=set()) is refusal


def test_update_is_not_checked() -> None:
    """It moves no vote."""
    assert verdict(cluster(started=1, unstarted=2), "update 1", steady=set()) is None

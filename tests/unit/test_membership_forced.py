"""How a member is made a cluster of its own: what of its log stays, and which changes leave it alone."""

from __future__ import annotations

import pytest

from core.membership.change import adding, promoting, removing
from core.membership.cluster import Cluster
from core.membership.forced import Applied, Forced, ForceRefused, entries_of, forced
from core.membership.member import Member
from core.raft.confchange import changed
from core.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
)
from core.types import Index, MemberId, Term
from wal.codec import decode_change, decode_conf_change, encode_conf_change, encode_conf_change_v2

ONE, TWO, THREE, FOUR = (MemberId(number) for number in (1, 2, 3, 4))


def member(member_id: MemberId, *, is_learner: bool = False) -> Member:
    return Member(member_id, (f"http://m{member_id}:1",), is_learner=is_learner, name="n")


def applied(index: int, voters: tuple[MemberId, ...], learners: tuple[MemberId, ...] = ()) -> Applied:
    """What a store holds of these members."""
    members = [*map(member, voters), *(member(each, is_learner=True) for each in learners)]
    return Applied(Index(index), ConfState(voters, learners), Cluster(members))


def normal(index: int) -> Entry:
    return Entry(Term(2), Index(index), EntryType.NORMAL, b"put")


def change(index: int, content: ConfChange) -> Entry:
    return Entry(Term(2), Index(index), EntryType.CONF_CHANGE, encode_conf_change(content))


def force(state: Applied, entries: list[Entry], commit: int, local: MemberId = ONE) -> Forced:
    return forced(local, ("http://own:1",), state, entries, Index(commit), decode_change)


def test_what_is_not_committed_is_dropped_and_the_others_leave() -> None:
    """The others may have agreed to something else meanwhile; what they agreed to with us must stay."""
    found = force(applied(4, (ONE, TWO, THREE)), [normal(5), normal(6), normal(7)], commit=6)
    assert found == Forced(Index(6), (removing(TWO), removing(THREE)))


def test_what_is_applied_counts_as_committed() -> None:
    """The commit index is written only with later entries, so it may lag behind what was acknowledged."""
    assert force(applied(6, (ONE, TWO)), [normal(5), normal(6), normal(7)], commit=4).last == 6


def test_changes_between_the_store_and_the_commit_count() -> None:
    """Whoever they add must leave too, and whoever they remove must not leave twice."""
    entries = [change(5, removing(THREE)), change(6, adding(member(FOUR))), normal(7)]
    assert force(applied(4, (ONE, TWO, THREE)), entries, commit=6) == Forced(Index(6), (removing(TWO), removing(FOUR)))


def test_a_change_that_had_no_effect_has_none_here() -> None:
    """Its entry is committed although the members refused it: it must not bring in who is not there."""
    entries = [change(5, adding(Member(FOUR, ("http://m2:1",))))]  # an address of member 2
    assert force(applied(4, (ONE, TWO)), entries, commit=5).changes == (removing(TWO),)


def test_who_voted_alone_keeps_all_it_has_written() -> None:
    """A single voter commits by writing: its acknowledged entries may lie beyond the commit index on disk."""
    found = force(applied(4, (ONE,), (TWO,)), [normal(5), normal(6)], commit=4)
    assert found == Forced(Index(6), (removing(TWO),))


def test_who_voted_alone_keeps_all_up_to_the_second_voter() -> None:
    """From that change on it needed the other's agreement, which nobody knows of."""
    entries = [normal(5), change(6, adding(member(TWO))), normal(7)]
    assert force(applied(4, (ONE,)), entries, commit=4) == Forced(Index(6), (removing(TWO),))


def test_a_learner_becomes_the_voter() -> None:
    """In etcd no voter would be left, and the process crash."""
    found = force(applied(4, (TWO,), (ONE,)), [], commit=4)
    assert found.changes == (promoting(ONE), removing(TWO))


def test_a_member_that_the_store_does_not_know_is_added_first() -> None:
    """It joined and stopped before it heard of itself; there must be a voter at any time."""
    found = force(applied(4, (TWO,)), [], commit=4)
    assert found.changes == (adding(Member(ONE, ("http://own:1",))), removing(TWO))


def test_a_removed_member_is_refused() -> None:
    """Its id is barred for ever, so it could never lead: better said at once."""
    state = applied(4, (TWO, THREE))
    state.cluster.apply(removing(THREE))
    with pytest.raises(ForceRefused, match=r"member 3 was removed .* `actcd snapshot restore`"):
        force(state._replace(conf_state=ConfState((TWO,))), [], commit=4, local=THREE)


def test_changes_of_several_members_count_too() -> None:
    """They end a joint configuration or are still in it: from there single changes lead nowhere, so it is refused."""
    singles = (ConfChangeSingle(ConfChangeType.REMOVE_NODE, THREE), ConfChangeSingle(ConfChangeType.REMOVE_NODE, TWO))
    joint = encode_conf_change_v2(ConfChangeV2(ConfChangeTransition.JOINT_EXPLICIT, singles))
    entered = Entry(Term(2), Index(5), EntryType.CONF_CHANGE_V2, joint)
    left = Entry(Term(2), Index(6), EntryType.CONF_CHANGE_V2, b"")
    state = applied(4, (ONE, TWO, THREE, FOUR))
    assert force(state, [entered, left, normal(7)], commit=6) == Forced(Index(6), (removing(FOUR),))
    state = applied(4, (ONE, TWO, THREE))
    with pytest.raises(ForceRefused, match="being exchanged"):
        force(state, [entered, left, normal(7)], commit=5)


def test_the_entries_leave_this_member_alone() -> None:
    """Applied one after the other they never leave the cluster without a voter, and all are committed."""
    found = force(applied(4, (TWO, THREE), (ONE,)), [normal(5)], commit=5)
    entries, hard_state = entries_of(found, HardState(Term(7), TWO, Index(4)), encode_conf_change)
    assert [(entry.term, entry.index) for entry in entries] == [(7, 6), (7, 7), (7, 8)]
    assert hard_state == (7, TWO, 8)
    conf_state = ConfState((TWO, THREE), (ONE,))
    for entry in entries:
        conf_state = changed(conf_state, decode_conf_change(entry.data))
    assert conf_state == ConfState((ONE,))


def test_a_log_without_a_term_gets_the_first() -> None:
    """Raft takes no entry of term 0."""
    entries, hard_state = entries_of(
        force(applied(0, ()), [], commit=0), HardState(Term(0), MemberId(0), Index(0)), encode_conf_change
    )
    assert [(entry.term, entry.index) for entry in entries] == [(1, 1)]
    assert hard_state == (1, 0, 1)

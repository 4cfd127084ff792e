"""Cluster: what a change of the members may do, and what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import (
    EtcdError,
    MemberExists,
    MemberNotFound,
    MemberNotLearner,
    PeerUrlExists,
    TooManyLearners,
)
from core.membership.change import adding, promoting, removing, updating
from core.membership.cluster import Cluster
from core.membership.member import MalformedMember, Member
from core.mvcc.keyspace import Bucket
from core.raft.messages import ConfChange, ConfChangeType
from core.types import MemberId

if TYPE_CHECKING:
    from collections.abc import Iterable


def member(number: int, *, is_learner: bool = False, name: str = "n") -> Member:
    return Member(MemberId(number), (f"http://m{number}:1",), is_learner=is_learner, name=name)


def cluster() -> Cluster:
    """Members 1 and 2 vote, 3 learns, 9 was removed."""
    return Cluster([member(2), member(1), member(3, is_learner=True)], [MemberId(9)])


def test_members_are_listed_by_id() -> None:
    """MemberList is sorted, whatever the order of joining."""
    assert [each.id for each in cluster().members] == [1, 2, 3]
    assert [each.id for each in cluster().voters] == [1, 2]


def test_add() -> None:
    """The new member is what the context says."""
    members = cluster()
    new = member(4, name="")
    assert members.apply(adding(new)) == new
    assert members.member(MemberId(4)) == new


def test_add_learner() -> None:
    """As many as allowed."""
    members = Cluster([member(1)], learners_max=2)
    for number in (2, 3):
        added = members.apply(adding(member(number, is_learner=True)))
        assert added is not None
        assert added.is_learner
    with pytest.raises(TooManyLearners):
        members.validate(adding(member(4, is_learner=True)))


def test_remove_is_for_ever() -> None:
    """A removed member that came back under its id would bring a log that others have moved past."""
    members = cluster()
    assert members.apply(removing(MemberId(2))) is None
    assert [each.id for each in members.members] == [1, 3]
    assert members.is_removed(MemberId(2))
    assert not members.is_removed(MemberId(1))
    with pytest.raises(MemberNotFound):
        members.validate(adding(member(2)))


def test_update_changes_the_peer_urls_only() -> None:
    """Name and client URLs are the member's own to tell."""
    members = cluster()
    updated = members.apply(updating(MemberId(1), ("http://new:1",)))
    assert updated == Member(MemberId(1), ("http://new:1",), name="n")
    assert members.apply(updating(MemberId(1), ("http://new:1",))) == updated


def test_promote_makes_a_voter() -> None:
    """Everything else about the learner stays."""
    members = cluster()
    assert members.apply(promoting(MemberId(3))) == member(3)
    assert [each.id for each in members.voters] == [1, 2, 3]


def test_attributes() -> None:
    """A member publishes its name and client URLs; one removed meanwhile is passed over."""
    members = cluster()
    published = members.set_attributes(MemberId(1), "new", ("http://c:1",))
    assert published == Member(MemberId(1), ("http://m1:1",), name="new", client_urls=("http://c:1",))
    assert members.member(MemberId(1)) == published
    assert members.set_attributes(MemberId(9), "ghost", ()) is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (adding(member(1)), MemberExists),
        (adding(member(3, is_learner=True)), MemberExists),
        (adding(Member(MemberId(4), ("http://m2:1",))), PeerUrlExists),
        (adding(member(4, is_learner=True)), TooManyLearners),
        (adding(member(9)), MemberNotFound),
        (removing(MemberId(4)), MemberNotFound),
        (removing(MemberId(9)), MemberNotFound),
        (updating(MemberId(4), ("http://x:1",)), MemberNotFound),
        (updating(MemberId(1), ("http://m2:1",)), PeerUrlExists),
        (promoting(MemberId(1)), MemberNotLearner),
        (promoting(MemberId(4)), MemberNotFound),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change: ConfChange, error: type[EtcdError]) -> None:
    """The same words before the proposal and, if another change came first, when it is applied."""
    members = cluster()
    before = members.to_json()
    with pytest.raises(error):
        members.validate(change)
    with pytest.raises(error):
        members.apply(change)
    assert members.to_json() == before


@pytest.mark.parametrize(
    "change",
    [
        ConfChange(ConfChangeType.ADD_NODE, MemberId(4)),
        ConfChange(ConfChangeType.ADD_NODE, MemberId(4), context=member(5).to_json()),
        ConfChange(ConfChangeType.ADD_NODE, MemberId(4), context=member(4, is_learner=True).to_json()),
        ConfChange(ConfChangeType.UPDATE_NODE, MemberId(1), context=b"nonsense"),
    ],
)
def test_a_malformed_change_is_named(change: ConfChange) -> None:
    """No member of ours proposes such a thing: stop rather than guess what it meant."""
    with pytest.raises(MalformedMember):
        cluster().apply(change)


def test_a_change_that_raft_refused_does_nothing() -> None:
    """Raft leaves member id 0 in it."""
    members = cluster()
    before = members.to_json()
    assert members.apply(ConfChange(ConfChangeType.ADD_NODE, MemberId(0))) is None
    assert members.to_json() == before


def test_contexts_are_etcds() -> None:
    """Members that run etcd must read our changes, and we theirs."""
    assert promoting(MemberId(3)).context == b'{"id":3,"peerURLs":null,"isPromote":true}'
    assert updating(MemberId(3), ("http://a:1",)).context == b'{"id":3,"peerURLs":["http://a:1"]}'
    assert removing(MemberId(3)).context == b""
    theirs = ConfChange(
        ConfChangeType.ADD_NODE, MemberId(4), context=b'{"id":4,"peerURLs":["http://x:1"],"isPromote":false}'
    )
    assert cluster().apply(theirs) == Member(MemberId(4), ("http://x:1",))


def test_load_reads_the_buckets() -> None:
    """What the store holds is the cluster, as of its applied index."""
    rows = {
        Bucket.MEMBERS: [(b"2", member(2).to_json()), (b"1", member(1).to_json())],
        Bucket.MEMBERS_REMOVED: [(b"9", b"removed"), (b"ff", b"removed")],
        Bucket.CLUSTER: [(b"clusterVersion", b"3.5.0"), (b"downgrade", b"{}")],
    }
    loaded = Cluster.load(lambda bucket: rows[bucket])
    assert loaded.members == [member(1), member(2)]
    assert loaded.is_removed(MemberId(9))
    assert loaded.is_removed(MemberId(255))
    assert loaded.version == "3.5.0"


def test_load_of_an_empty_store() -> None:
    """A member that is to learn of the others from the log knows nobody yet."""

    def nothing(_: Bucket) -> Iterable[tuple[bytes, bytes]]:
        return ()

    loaded = Cluster.load(nothing)
    assert (loaded.members, loaded.version, loaded.to_json()) == ([], "", b"[]")


def test_load_names_what_is_malformed() -> None:
    """A bucket that no member wrote is corruption."""
    with pytest.raises(MalformedMember):
        Cluster.load(lambda bucket: [(b"x", b"removed")] if bucket is Bucket.MEMBERS_REMOVED else [])


def test_list_as_members_show_it_to_each_other() -> None:
    """The body of the peers' /members page."""
    assert Cluster([member(2, name=""), member(1)]).to_json() == (
        b'[{"id":1,"peerURLs":["http://m1:1"],"name":"n"},{"id":2,"peerURLs":["http://m2:1"]}]'
    )

"""The members of the cluster, those removed from it, and its version: replicated state, equal on every member.

Held by ApplyActor and changed by applied entries only.  What a change may do is decided here twice alike: before it is
proposed, to refuse it in words, and when it is applied, where a change that does not fit must change nothing.
Behaviour: the Cluster section of the etcd v3 API; formats: buckets members, members_removed and cluster.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from core.errors import (
    MemberExists,
    MemberNotFound,
    MemberNotLearner,
    PeerUrlExists,
    TooManyLearners,
)
from core.membership.change import context_of
from core.membership.downgrade import Downgrade
from core.membership.member import MalformedMember, Member, first_64_bits, go_json, member_from_json
from core.mvcc.keyspace import Bucket
from core.raft.messages import ConfChangeType
from core.types import MemberId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from core.raft.messages import ConfChange

LEARNERS_MAX = 1
"""How many learners there may be unless configured otherwise."""

_CLUSTER_VERSION_KEY = b"clusterVersion"
DOWNGRADE_KEY = b"downgrade"


def cluster_id_of(members: Iterable[MemberId]) -> int:
    """Return the id of the cluster that these members found; it stays when they change."""
    return first_64_bits(b"".join(member.to_bytes(8, "big") for member in sorted(members)))


class Cluster:
    """Who belongs to the cluster.  Belongs to ApplyActor."""

    def __init__(
        self,
        members: Iterable[Member] = (),
        removed: Iterable[MemberId] = (),
        version: str = "",
        *,
        learners_max: int = LEARNERS_MAX,
    ) -> None:
        """*version* is empty until the members have agreed on one."""
        self.version = version
        self.downgrade = Downgrade()
        self._members = {member.id: member for member in members}
        self._removed = set(removed)
        self._learners_max = learners_max

    @classmethod
    def load(
        cls, items: Callable[[Bucket], Iterable[tuple[bytes, bytes]]], *, learners_max: int = LEARNERS_MAX
    ) -> Cluster:
        """Read the buckets of a store; MalformedMember where one holds what no member wrote."""
        agreed = dict(items(Bucket.CLUSTER))
        cluster = cls(
            [member_from_json(value) for _, value in items(Bucket.MEMBERS)],
            [_parse_id(key) for key, _ in items(Bucket.MEMBERS_REMOVED)],
            agreed.get(_CLUSTER_VERSION_KEY, b"").decode(errors="replace"),
            learners_max=learners_max,
        )
        cluster.downgrade = Downgrade.from_json(agreed.get(DOWNGRADE_KEY, b""))
        return cluster

    @property
    def members(self) -> list[Member]:
        """Every member, by id."""
        return [self._members[member_id] for member_id in sorted(self._members)]

    @property
    def voters(self) -> list[Member]:
        """The members with a vote, by id."""
        return [member for member in self.members if not member.is_learner]

    @property
    def has_too_many_learners(self) -> bool:
        """Whether there are more learners than the configuration allows now."""
        return len(self._members) - len(self.voters) > self._learners_max

    def member(self, member_id: MemberId) -> Member:
        """Return one member; MemberNotFound."""
        found = self._members.get(member_id)
        if found is None:
            raise MemberNotFound
        return found

    def is_removed(self, member_id: MemberId) -> bool:
        """Return whether this member was once removed, so may never come back."""
        return member_id in self._removed

    @property
    def removed(self) -> list[MemberId]:
        """The ids of the members removed for ever, ascending."""
        return sorted(self._removed)

    def to_json(self) -> bytes:
        """Return the list that members show each other."""
        return go_json([member.fields() for member in self.members])

    def validate(self, change: ConfChange) -> None:
        """Raise why *change* does not fit the members; MalformedMember if its context cannot be read.

        An EtcdError: MemberNotFound, MemberExists, PeerUrlExists, MemberNotLearner or TooManyLearners.
        """
        member_id = change.node_id
        if member_id in self._removed:
            raise MemberNotFound
        if change.type is ConfChangeType.REMOVE_NODE:
            self.member(member_id)
            return
        member, is_promote = context_of(change)
        if member.id != member_id:
            raise MalformedMember(f"the context is about member {member.hex_id}, the change about {member_id:x}")
        if change.type is ConfChangeType.UPDATE_NODE:
            self.member(member_id)
            self._check_urls(member)
        elif is_promote:
            if not self.member(member_id).is_learner:
                raise MemberNotLearner
        else:
            self._check_new(change, member)

    def apply(self, change: ConfChange) -> Member | None:
        """Carry out *change* and return the member as it is now; None if it was removed or nothing changes.

        Raises what `validate` does, and then nothing has changed.
        """
        if change.node_id == 0:  # raft's way to have a refused change do nothing
            return None
        self.validate(change)
        if change.type is ConfChangeType.REMOVE_NODE:
            del self._members[change.node_id]
            self._removed.add(change.node_id)
            return None
        member, is_promote = context_of(change)
        if change.type is ConfChangeType.UPDATE_NODE:
            member = replace(self._members[member.id], peer_urls=member.peer_urls)
        elif is_promote:
            member = replace(self._members[member.id], is_learner=False)
        self._members[member.id] = member
        return member

    def settle(
        self, before: Collection[MemberId], after: Collection[MemberId], learners: Collection[MemberId]
    ) -> tuple[list[Member], list[MemberId]]:
        """Follow a change of several members at once: who takes part in raft *before* and *after*, *learners* last.

        Return the members whose standing has changed, and the ids of those that are gone.  Whoever votes in a joint
        configuration stays a member until that ends: the others must reach it.  Such a change tells no addresses, so it
        can bring nobody new: MemberNotFound, and nothing has changed.
        """
        if not set(after) <= {*before, *self._members}:
            raise MemberNotFound
        gone = sorted((set(before) - set(after)) & self._members.keys())
        for member_id in gone:
            del self._members[member_id]
            self._removed.add(member_id)
        settled = [
            replace(member, is_learner=not member.is_learner)
            for member in self.members
            if member.id in after and member.is_learner != (member.id in learners)
        ]
        self._members |= {member.id: member for member in settled}
        return settled, gone

    def set_attributes(self, member_id: MemberId, name: str, client_urls: tuple[str, ...]) -> Member | None:
        """Note what a member has published of itself and return it; None if there is no such member (any more)."""
        member = self._members.get(member_id)
        if member is None:
            return None
        member = self._members[member_id] = replace(member, name=name, client_urls=client_urls)
        return member

    def _check_new(self, change: ConfChange, member: Member) -> None:
        if member.id in self._members:
            raise MemberExists
        if member.is_learner != (change.type is ConfChangeType.ADD_LEARNER_NODE):
            raise MalformedMember(f"the context says isLearner {member.is_learner}, the change {change.type.name}")
        self._check_urls(member)
        learners = len(self._members) - len(self.voters)
        if member.is_learner and learners >= self._learners_max:
            raise TooManyLearners

    def _check_urls(self, member: Member) -> None:
        used = {url for other in self._members.values() if other.id != member.id for url in other.peer_urls}
        if not used.isdisjoint(member.peer_urls):
            raise PeerUrlExists


def _parse_id(key: bytes) -> MemberId:
    try:
        return MemberId(int(key, 16))
    except ValueError as error:
        raise MalformedMember(f"removed member {key!r}") from error

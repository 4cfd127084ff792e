"""From what is left of a cluster to a cluster of one: which entries stay, and which changes leave only this member.

What the others may not have agreed to is dropped, since nobody is left to ask; what a member that voted alone has
written was agreed by that.  A pure function of the log and of the applied members.  Behaviour: etcd's
``--force-new-cluster``, which cannot be forced on a learner or by one, and here can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.errors import EtcdError
from core.membership.change import adding, promoting, removing
from core.membership.cluster import Cluster
from core.membership.member import MalformedMember, Member
from core.raft.confchange import InvalidConfChangeError, changed, members, simplified
from core.raft.messages import ConfChange, ConfChangeV2, ConfState, Entry, EntryType, HardState
from core.types import Index, MemberId, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class ForceRefused(Exception):  # noqa: N818 - named for what happened
    """No cluster of one can be made from this data; the text is for the operator."""


class Applied(NamedTuple):
    """What the store holds."""

    up_to: Index
    conf_state: ConfState
    cluster: Cluster


class Forced(NamedTuple):
    """What the log is to be cut to, and then to go on with; all of it counts as committed."""

    last: Index
    changes: tuple[ConfChange, ...]


def forced(
    local: MemberId,
    peer_urls: tuple[str, ...],
    applied: Applied,
    entries: Sequence[Entry],
    commit: Index,
    decode: Callable[[Entry], ConfChange | ConfChangeV2],
) -> Forced:
    """Return how *local* goes on alone; ForceRefused.

    *entries* is the log, from before *applied* on; *commit* what is known to be committed.  *peer_urls* are for a
    member that the store does not know yet.
    """
    last = Index(max(commit, applied.up_to))
    conf_state = applied.conf_state
    cluster = Cluster(applied.cluster.members, applied.cluster.removed)
    for entry in entries:
        if entry.index <= applied.up_to:
            continue
        if entry.index > last and not _alone(conf_state, local):
            break
        last = Index(max(last, entry.index))
        if entry.type is not EntryType.NORMAL:
            conf_state = _after(conf_state, cluster, decode(entry))
    if cluster.is_removed(local):
        raise ForceRefused(
            f"member {local:x} was removed from the cluster, and may never come back to it: make a new cluster from a "
            "snapshot with `actcd snapshot restore`"
        )
    if conf_state.voters_outgoing:
        raise ForceRefused(
            "its members were being exchanged, which has not ended: start the others until it has, or make a new "
            "cluster from a snapshot with `actcd snapshot restore`"
        )
    return Forced(last, (*_joining(conf_state, local, peer_urls), *_leaving(conf_state, local)))


def entries_of(
    forced: Forced, hard_state: HardState, encode: Callable[[ConfChange], bytes]
) -> tuple[tuple[Entry, ...], HardState]:
    """Return the entries to append after *forced.last*, and the hard state that has them committed."""
    term = Term(max(hard_state.term, 1))
    entries = tuple(
        Entry(term, Index(index), EntryType.CONF_CHANGE, encode(change))
        for index, change in enumerate(forced.changes, forced.last + 1)
    )
    return entries, HardState(term, hard_state.vote, Index(forced.last + len(entries)))


def _alone(conf_state: ConfState, local: MemberId) -> bool:
    return conf_state.voters == (local,) and not conf_state.voters_outgoing


def _after(conf_state: ConfState, cluster: Cluster, change: ConfChange | ConfChangeV2) -> ConfState:
    """Return the configuration after *change*, and carry that out in *cluster*; nothing where it does not fit."""
    change = simplified(change)
    try:
        after = changed(conf_state, change)
        if isinstance(change, ConfChangeV2):
            cluster.settle(members(conf_state), members(after), after.learners)
        else:
            cluster.apply(change)
    except (EtcdError, MalformedMember, InvalidConfChangeError):
        return conf_state
    return after


def _joining(conf_state: ConfState, local: MemberId, peer_urls: tuple[str, ...]) -> tuple[ConfChange, ...]:
    # First of all changes, since there must be a voter at any time.
    if local in conf_state.voters:
        return ()
    if local in conf_state.learners:
        return (promoting(local),)
    return (adding(Member(local, peer_urls)),)


def _leaving(conf_state: ConfState, local: MemberId) -> tuple[ConfChange, ...]:
    return tuple(removing(member) for member in members(conf_state) if member != local)

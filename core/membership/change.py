"""What a change of the members carries beside its raft part: the JSON context of a ConfChange.

Adding a voter and promoting a learner are the same to raft; the context tells them apart.  A removal has no context.
Format: ConfChange.context of etcd, the JSON of a member, with ``isPromote`` in a promotion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core.membership.member import Member, go_json, json_object, member_from_fields
from core.raft.messages import ConfChange, ConfChangeType

if TYPE_CHECKING:
    from core.types import MemberId


class ChangeContext(NamedTuple):
    """A decoded context."""

    member: Member
    is_promote: bool


def adding(member: Member) -> ConfChange:
    """Return the change that adds a voter or a learner."""
    kind = ConfChangeType.ADD_LEARNER_NODE if member.is_learner else ConfChangeType.ADD_NODE
    return ConfChange(kind, member.id, context=member.to_json())


def removing(member_id: MemberId) -> ConfChange:
    """Return the change that removes a member for ever."""
    return ConfChange(ConfChangeType.REMOVE_NODE, member_id)


def updating(member_id: MemberId, peer_urls: tuple[str, ...]) -> ConfChange:
    """Return the change that gives a member other peer URLs."""
    return ConfChange(ConfChangeType.UPDATE_NODE, member_id, context=Member(member_id, peer_urls).to_json())


def promoting(member_id: MemberId) -> ConfChange:
    """Return the change that makes a learner a voter."""
    context = go_json({**Member(member_id, ()).fields(), "isPromote": True})
    return ConfChange(ConfChangeType.ADD_NODE, member_id, context=context)


def context_of(change: ConfChange) -> ChangeContext:
    """Decode the context of a change that has one; MalformedMember."""
    fields = json_object(change.context)
    return ChangeContext(member_from_fields(fields), fields.get("isPromote") is True)

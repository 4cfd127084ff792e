"""How a change turns one configuration into the next: a pure function over ConfState.

A simple change moves at most one voter; any other enters a joint configuration, in which both majorities decide, and
leaves it by a second change.  Every member computes the same from the same entries, so what is refused here is refused
everywhere.  Raft thesis sections 4.1 to 4.3; etcd applies a change when its entry is applied, not when it is appended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
)

if TYPE_CHECKING:
    from core.types import MemberId


class InvalidConfChangeError(Exception):
    """The change does not fit the configuration it would act on; its text says why."""


def changed(conf_state: ConfState, change: ConfChange | ConfChangeV2) -> ConfState:
    """Return the configuration after *change*, or raise InvalidConfChangeError."""
    if isinstance(change, ConfChange):
        return _simply(conf_state, (ConfChangeSingle(change.type, change.node_id),))
    if not change.changes and change.transition is ConfChangeTransition.AUTO:
        return _left(conf_state)
    if len(change.changes) > 1 or change.transition is not ConfChangeTransition.AUTO:
        return _entered(conf_state, change)
    return _simply(conf_state, change.changes)


def simplified(change: ConfChange | ConfChangeV2) -> ConfChange | ConfChangeV2:
    """Return *change* in the older form if it is a single one that passes through no joint configuration."""
    if isinstance(change, ConfChangeV2) and len(change.changes) == 1 and change.transition is ConfChangeTransition.AUTO:
        single = change.changes[0]
        return ConfChange(single.type, single.node_id, context=change.context)
    return change


def checked(conf_state: ConfState) -> ConfState:
    """Return a configuration that came from outside with its ids in order, or raise InvalidConfChangeError.

    The empty one is that of a member which is to learn of the others from their log.
    """
    if conf_state == ConfState():
        return conf_state
    draft = _Draft.of(conf_state)
    if conf_state.learners_next and not conf_state.voters_outgoing:
        raise InvalidConfChangeError("learners wait for the end of a joint configuration that is none")
    if draft.learners & (draft.voters | draft.outgoing):
        raise InvalidConfChangeError("a member both votes and learns")
    if not draft.learners_next <= draft.outgoing - draft.voters:
        raise InvalidConfChangeError("a member is to become a learner without being an outgoing voter")
    return draft.frozen()


def members(conf_state: ConfState) -> tuple[MemberId, ...]:
    """Return everyone who takes part, in ascending order."""
    return tuple(sorted({*conf_state.voters, *conf_state.voters_outgoing, *conf_state.learners}))


def votes(conf_state: ConfState, member: MemberId) -> bool:
    """Whether *member* counts in elections."""
    return member in conf_state.voters or member in conf_state.voters_outgoing


def holds_changes(data: bytes) -> bool:
    """Whether an encoded raftpb.ConfChangeV2 has changes (field 2), so does more than leave a joint configuration.

    The core does not decode entries; a leader that is handed one to propose must know this much of it.  Bytes that are
    no message count as changes, which the check at their application will then refuse.
    """
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag >> 3 == 2 or tag & 7 not in {0, 2}:
            return True
        value, position = _varint(data, position)
        if tag & 7 == 2:
            position += value
    return False


@dataclass(slots=True)
class _Draft:
    voters: set[MemberId]
    learners: set[MemberId]
    outgoing: set[MemberId]
    learners_next: set[MemberId]
    auto_leave: bool

    @classmethod
    def of(cls, conf_state: ConfState) -> _Draft:
        return cls(
            set(conf_state.voters),
            set(conf_state.learners),
            set(conf_state.voters_outgoing),
            set(conf_state.learners_next),
            conf_state.auto_leave,
        )

    def frozen(self) -> ConfState:
        if not self.voters:
            raise InvalidConfChangeError("no voter would be left")
        return ConfState(
            tuple(sorted(self.voters)),
            tuple(sorted(self.learners)),
            tuple(sorted(self.outgoing)),
            tuple(sorted(self.learners_next)),
            self.auto_leave,
        )

    def make(self, change: ConfChangeSingle) -> None:
        member = change.node_id
        if member == 0 or change.type is ConfChangeType.UPDATE_NODE:
            return  # etcd names nobody in a change that it refused when it met it
        if change.type is ConfChangeType.ADD_LEARNER_NODE and member in self.learners | self.learners_next:
            return
        self.voters.discard(member)
        self.learners.discard(member)
        self.learners_next.discard(member)
        if change.type is ConfChangeType.ADD_NODE:
            self.voters.add(member)
        elif change.type is ConfChangeType.ADD_LEARNER_NODE:
            # Who still votes in the outgoing majority learns only after it: nobody may do both.
            (self.learners_next if member in self.outgoing else self.learners).add(member)


def _simply(conf_state: ConfState, changes: tuple[ConfChangeSingle, ...]) -> ConfState:
    if conf_state.voters_outgoing:
        raise InvalidConfChangeError("a simple change cannot act on a joint configuration")
    draft = _Draft.of(conf_state)
    for change in changes:
        draft.make(change)
    return draft.frozen()


def _entered(conf_state: ConfState, change: ConfChangeV2) -> ConfState:
    if conf_state.voters_outgoing:
        raise InvalidConfChangeError("the configuration is joint already")
    if not conf_state.voters:
        raise InvalidConfChangeError("a configuration without voters cannot become joint")
    draft = _Draft.of(conf_state)
    draft.outgoing = set(conf_state.voters)
    for single in change.changes:
        draft.make(single)
    draft.auto_leave = change.transition is not ConfChangeTransition.JOINT_EXPLICIT
    return draft.frozen()


def _left(conf_state: ConfState) -> ConfState:
    if not conf_state.voters_outgoing:
        raise InvalidConfChangeError("the configuration is not joint")
    draft = _Draft.of(conf_state)
    draft.learners |= draft.learners_next
    draft.learners_next, draft.outgoing, draft.auto_leave = set(), set(), False
    return draft.frozen()


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, position

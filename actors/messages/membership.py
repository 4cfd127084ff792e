"""What MembershipActor receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import ActivityIs, ClusterIs, Tick
from actors.messages.metrics import Measure
from actors.messages.raft import RoleIs
from actors.messages.serve import Answered, Completed, Refused

if TYPE_CHECKING:
    from actors.address import Address, AnyDelivery
    from core.raft.messages import ConfChange
    from core.types import MemberId


class ChangeMembers(NamedTuple):
    """Carry out a change; answered with the members after it (as MemberListResponse has them), or an EtcdError."""

    token: int
    change: ConfChange
    answer_to: Address[Answered]


class PromoteMember(NamedTuple):
    """Make a learner a voter; answered as ChangeMembers is."""

    token: int
    member: MemberId
    answer_to: Address[Answered]
    may_forward: bool = True
    """Whether to ask the leader when this member is not it; otherwise that is the answer."""


class MoveLeader(NamedTuple):
    """Let *to* lead; answered with None when it does, or an EtcdError."""

    token: int
    to: MemberId
    answer_to: Address[Answered]


class StepDown(NamedTuple):
    """This member is about to stop: if it leads, let another one lead; then, or after *timeout_s*, send *after*."""

    timeout_s: float
    after: AnyDelivery


MembershipMessage = (
    ChangeMembers
    | PromoteMember
    | MoveLeader
    | StepDown
    | ActivityIs
    | ClusterIs
    | RoleIs
    | Completed
    | Refused
    | Answered
    | Tick
    | Measure
)

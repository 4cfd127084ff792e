"""What LeaseActor receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import Tick
from actors.messages.metrics import Measure
from actors.messages.peer_transport import CarryQuestions
from actors.messages.raft import RoleIs
from actors.messages.serve import Answered, AuthEvent, Completed, ReadIndexed, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.address import Address
    from actors.messages.serve import Renewed
    from core.types import Index, LeaseId, Term


class Granted(NamedTuple):
    """ApplyActor has granted these: id and time to live in seconds."""

    leases: Sequence[tuple[LeaseId, int]]


class Revoked(NamedTuple):
    """ApplyActor has revoked these."""

    leases: Sequence[LeaseId]


class Checkpointed(NamedTuple):
    """ApplyActor has met remaining times, in seconds, for these."""

    leases: Sequence[tuple[LeaseId, int]]


class Promote(NamedTuple):
    """The first entry of *term* is applied: whoever leads it may expire leases from now on."""

    term: Term


class Renew(NamedTuple):
    """Prolong these; the answers keep the order, but those about leases that are not known here come later."""

    asks: Sequence[tuple[int, LeaseId]]
    """Token of the asker, lease."""
    answer_to: Address[Renewed]
    may_forward: bool = True
    """Whether to ask the primary where this member is not it; otherwise that is the answer."""


class TimeToLive(NamedTuple):
    """How long does this lease have?  Answered with LeaseTimes."""

    token: int
    lease: LeaseId
    answer_to: Address[Answered]
    may_forward: bool = True
    """See Renew."""


class ListLeases(NamedTuple):
    """Which leases are there?  Answered with their ids, soonest-expiring first."""

    token: int
    answer_to: Address[Answered]


class AppliedIs(NamedTuple):
    """From ApplyActor: everything up to *index* is applied, and all that follows from it has been told."""

    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


LeaseEvent = Granted | Revoked | Checkpointed | Promote
LeaseMessage = (
    LeaseEvent
    | Renew
    | TimeToLive
    | ListLeases
    | AuthEvent
    | RoleIs
    | Tick
    | Completed
    | Refused
    | Answered
    | CarryQuestions
    | Measure
    | ReadIndexed
    | AppliedIs
)

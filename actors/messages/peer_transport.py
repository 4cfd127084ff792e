"""What PeerTransportActor receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import ActivityIs, ClusterIs
from actors.messages.metrics import Measure
from actors.messages.serve import Answered, Drain, Open, Renewed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.address import Address
    from actors.messages.membership import PromoteMember
    from core.raft.messages import Message
    from core.types import MemberId


class Send(NamedTuple):
    """Send these to the members that they name, now; what cannot leave is dropped, and raft is told."""

    messages: Sequence[Message]


class Taken(NamedTuple):
    """RaftActor has stepped what was told to it: read on."""


class ObserveActivity(NamedTuple):
    """Tell *observer* at once, and at each change, which members are connected."""

    observer: Address[ActivityIs]


class AskMember(NamedTuple):
    """Send an HTTP request to a member's peer URL; answered with MemberAnswer, or None where none came."""

    token: int
    member: MemberId
    method: str
    path: str
    body: bytes
    answer_to: Address[Answered]
    timeout_s: float
    content_type: str = "application/protobuf"


class MemberAnswer(NamedTuple):
    """What a member answered."""

    status: int
    body: bytes


class AnswerPromotions(NamedTuple):
    """Ask *judge* when another member wants a learner promoted here."""

    judge: Address[PromoteMember]


class CarryQuestions(NamedTuple):
    """Give questions to other members to *carrier* from now on, and try for *timeout_s* in all to have one answered."""

    carrier: Address[AskMember]
    timeout_s: float


PeerTransportMessage = (
    Send
    | Taken
    | ObserveActivity
    | AskMember
    | ClusterIs
    | Answered
    | Renewed
    | AnswerPromotions
    | Measure
    | Open
    | Drain
)

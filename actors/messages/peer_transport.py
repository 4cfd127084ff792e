"""What PeerTransportActor receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import ClusterIs
from actors.messages.serve import Answered, Drain, Open

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.address import Address
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


class ActivityIs(NamedTuple):
    """From PeerTransportActor: which members are connected."""

    since_s: Mapping[MemberId, float]
    """By member, since when without a break, monotonic seconds."""


class AskMember(NamedTuple):
    """Send an HTTP request to a member's peer URL; answered with MemberAnswer, or None where none came."""

    token: int
    member: MemberId
    method: str
    path: str
    body: bytes
    answer_to: Address[Answered]
    timeout_s: float


class MemberAnswer(NamedTuple):
    """What a member answered."""

    status: int
    body: bytes


PeerTransportMessage = Send | Taken | ObserveActivity | AskMember | ClusterIs | Answered | Open | Drain

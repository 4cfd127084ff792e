"""What a ServeActor, and anybody else who proposes or reads, receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import ActivityIs, ClusterIs, Tick
from actors.messages.metrics import Measure
from actors.messages.raft import RoleIs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.address import AnyDelivery
    from core.auth.rules import Rules
    from core.auth.tokens import TokenEvent
    from core.errors import EtcdError
    from core.mvcc.view import View
    from core.mvcc.watch_streams import StreamId
    from core.types import Index, RequestId, Term


class Completed(NamedTuple):
    """From ApplyActor: how requests ended, many at a time.  Unknown ids are ignored (the caller has left)."""

    outcomes: Sequence[tuple[RequestId, bytes | EtcdError]]


class Accepted(NamedTuple):
    """From ApplyActor: these are applied, and Completed comes when what they began has ended: no timeout holds now."""

    request_ids: Sequence[RequestId]


class Refused(NamedTuple):
    """From RaftActor: these were not proposed, for one reason."""

    request_ids: Sequence[RequestId]
    error: EtcdError


class ReadIndexed(NamedTuple):
    """From RaftActor: the round *context* is confirmed; whoever waits for it may read at *index* or later.

    An *error* ends the round without an index.
    """

    context: int
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    error: EtcdError | None = None


class Published(NamedTuple):
    """From ApplyActor after each batch: what may now be read."""

    view: View
    term: Term
    commit: Index
    allocated_bytes: int
    """Size of the store's files, as of a while ago."""


class AuthIs(NamedTuple):
    """From ApplyActor: who may do what from now on, and what has happened to tokens since it last said so."""

    rules: Rules
    tokens: Sequence[TokenEvent]


class TokensUsed(NamedTuple):
    """From a ServeActor, by way of ApplyActor: these were used at one listener and so live on at all of them."""

    used_s: Mapping[str, float]
    """When, in monotonic seconds."""


AuthEvent = AuthIs | TokensUsed


class WatchFrames(NamedTuple):
    """From WatchActor: messages for streams of this listener, in the order of sending."""

    frames: Sequence[tuple[StreamId, bytes]]
    """Stream number and the bytes of one WatchResponse."""


class WritesRefused(NamedTuple):
    """Refuse what would grow the data with this error; None takes it back."""

    error: EtcdError | None


class Renewed(NamedTuple):
    """From LeaseActor: keep-alives answered, in the order of asking."""

    answers: Sequence[tuple[int, int | EtcdError]]
    """Token of the asker, time to live granted in seconds (0: no such lease)."""


class Answered(NamedTuple):
    """From whomever was asked something under a token: the answer, whose type goes with the question."""

    token: int
    outcome: object
    """An EtcdError where there is none."""


class Drain(NamedTuple):
    """Stop accepting, let calls in flight end for a while, fail the rest, then send *after*."""

    timeout_s: float
    after: AnyDelivery


class Open(NamedTuple):
    """Begin to answer clients: the member is ready."""


ServeMessage = (
    Completed
    | Accepted
    | Refused
    | ReadIndexed
    | Published
    | WatchFrames
    | WritesRefused
    | Renewed
    | Answered
    | AuthEvent
    | RoleIs
    | ClusterIs
    | ActivityIs
    | Tick
    | Open
    | Drain
    | Measure
)

"""What the proxy's actors receive.

A token or a stream's number is the asker's own; it comes back with each answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import Tick
from actors.messages.metrics import Measure
from actors.messages.serve import Answered, Drain, Open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.address import Address
    from net.rpc import Status

Metadata = tuple[tuple[str, str | bytes], ...]


class Group(NamedTuple):
    """Clients that may share an upstream stream."""

    token: str
    wants_leader: bool
    """Whether the stream is to end when the member has no leader."""
    metadata: Metadata


# -- to UpstreamActor ------------------------------------------------------------------------------------------------


class Forward(NamedTuple):
    """Have a member answer a unary call; the Answered holds bytes or a Status."""

    token: int
    method: str
    body: bytes
    metadata: Metadata
    timeout_s: float | None
    answer_to: Address[Answered]
    not_at: tuple[str, ...] = ()
    """Endpoints that are not to be asked if there are others."""


class GiveUp(NamedTuple):
    """Nobody waits for the answer to Forward any more."""

    token: int
    answer_to: Address[Answered]


class OpenStream(NamedTuple):
    """Begin a stream with a member; of what comes and of its end *tell* is told."""

    number: int
    method: str
    metadata: Metadata
    timeout_s: float | None
    tell: Address[StreamEvent]


class SendOn(NamedTuple):
    """Send a message on a stream."""

    number: int
    tell: Address[StreamEvent]
    body: bytes


class HalfClose(NamedTuple):
    """Send no more on a stream."""

    number: int
    tell: Address[StreamEvent]


class Hold(NamedTuple):
    """Read no further on a stream, or do so again."""

    number: int
    tell: Address[StreamEvent]
    hold: bool


class CloseStream(NamedTuple):
    """End a stream; nothing more is told of it."""

    number: int
    tell: Address[StreamEvent]


UpstreamMessage = Forward | GiveUp | OpenStream | SendOn | HalfClose | Hold | CloseStream | Answered | Tick | Measure

# -- from UpstreamActor ----------------------------------------------------------------------------------------------


class StreamOpened(NamedTuple):
    """The stream goes to a member now."""

    number: int


class StreamGot(NamedTuple):
    """One message of a member."""

    number: int
    body: bytes


class StreamEnded(NamedTuple):
    """The stream is over."""

    number: int
    status: Status


StreamEvent = StreamOpened | StreamGot | StreamEnded

# -- from FrontActor to those who coalesce ---------------------------------------------------------------------------


class ClientOpened(NamedTuple):
    """A client has opened a stream."""

    number: int
    group: Group
    front: Address[FrontMessage]
    """Whom to tell what the client is to hear."""


class ClientAsked(NamedTuple):
    """A client has sent a message on its stream."""

    number: int
    body: bytes


class ClientHalfClosed(NamedTuple):
    """A client will send no more."""

    number: int


class ClientBlocked(NamedTuple):
    """A client does not read what it is sent, or (if not *blocked*) has read all of it."""

    number: int
    blocked: bool


class ClientClosed(NamedTuple):
    """A client's stream is over."""

    number: int


ClientEvent = ClientOpened | ClientAsked | ClientHalfClosed | ClientBlocked | ClientClosed
WatchesMessage = ClientEvent | StreamEvent | Answered | Tick | Measure
LeasesMessage = ClientEvent | StreamEvent | Tick
RegistryMessage = StreamEvent | Answered | Tick

# -- to FrontActor ---------------------------------------------------------------------------------------------------


class Frames(NamedTuple):
    """Messages for clients' streams, in the order of sending."""

    frames: Sequence[tuple[int, bytes]]


class Finish(NamedTuple):
    """End clients' streams."""

    numbers: Sequence[int]
    status: Status


class ProxiesAre(NamedTuple):
    """The proxies that have registered themselves: name and address."""

    proxies: tuple[tuple[str, str], ...]


FrontMessage = Answered | Frames | Finish | ProxiesAre | StreamEvent | Tick | Measure | Open | Drain

"""What WatchActor receives.  A stream is named by a number that no other stream of the node has."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.messages.common import Tick
from actors.messages.metrics import Measure
from actors.messages.serve import AuthEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.address import Address
    from actors.messages.serve import WatchFrames
    from core.mvcc.event import Revised
    from core.mvcc.view import View
    from core.mvcc.watch_streams import StreamId
    from core.types import Term


class Changed(NamedTuple):
    """ApplyActor has applied a batch: its events by revision, and the view that holds them."""

    revisions: Sequence[Revised]
    view: View
    term: Term


class Restored(NamedTuple):
    """A snapshot has replaced the store: what happened in between is only in the history of *view*."""

    view: View
    term: Term


class WatchRequested(NamedTuple):
    """The client sent one WatchRequest (its bytes are a valid one)."""

    listener: Address[WatchFrames]
    stream: StreamId
    request: bytes
    user: str | None = None
    """Who asks; None while auth is off."""
    refusal: str = ""
    """Why a create request must be turned down."""


class StreamClosed(NamedTuple):
    """The stream is over: forget its watchers."""

    listener: Address[WatchFrames]
    stream: StreamId


class StreamBlocked(NamedTuple):
    """More lies unsent for this stream than it may: send nothing until StreamDrained."""

    listener: Address[WatchFrames]
    stream: StreamId


class StreamDrained(NamedTuple):
    """All that was sent to this stream has left."""

    listener: Address[WatchFrames]
    stream: StreamId


WatchMessage = (
    AuthEvent | Changed | Restored | WatchRequested | StreamClosed | StreamBlocked | StreamDrained | Tick | Measure
)

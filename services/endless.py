"""Streams that never end by themselves: a stop ends them at once, as there is nothing of theirs to wait for.

Everything else that is in flight, snapshots and campaigns included, is given the time to end.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.rpc import Routes, Status, Stream, StreamHandler, StreamMethod

ENDLESS = frozenset(
    {
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/v3electionpb.Election/Observe",
        "/grpc.health.v1.Health/Watch",
    }
)


class EndlessStreams:
    """Those that are open, in the order in which they came.  Each is forgotten when its handler hears of its end."""

    def __init__(self) -> None:
        self._open: dict[int, Stream] = {}
        self._last = 0

    def followed(self, routes: Routes) -> Routes:
        """Return *routes*, through which the streams that are opened become known here."""
        streams = {path: self._follow(method) if path in ENDLESS else method for path, method in routes.streams.items()}
        return replace(routes, streams=streams)

    def open_streams(self) -> list[tuple[str, str]]:
        """Return method and peer of each, oldest first."""
        return [(stream.method, stream.peer) for stream in self._open.values()]

    def finish(self, status: Status) -> None:
        """End all of them."""
        for stream in list(self._open.values()):
            stream.finish(status)

    def _follow(self, method: StreamMethod) -> StreamMethod:
        def opened(stream: Stream) -> StreamHandler:
            handler = method(stream)
            self._last += 1
            self._open[self._last] = stream
            return _Followed(handler, partial(self._open.pop, self._last, None))

        return opened


class _Followed:
    """A stream's handler that has the stream forgotten when it is over."""

    def __init__(self, handler: StreamHandler, forget: Callable[[], object]) -> None:
        self._forget = forget
        self._on_closed = handler.on_closed
        self.on_message = handler.on_message
        self.on_half_close = handler.on_half_close
        self.on_drained = handler.on_drained

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
        self._forget()
        self._on_closed(status)

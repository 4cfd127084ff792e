"""Streams that never end by themselves: a stop ends them at once, as there is nothing of theirs to wait for.

Everything else that is in flight, snapshots and campaigns included, is given the time to end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
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
    """Those that are open, by the order in which they came.  One that has ended is forgotten by itself."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[int, Stream] = WeakValueDictionary()
        self._last = 0

    def followed(self, routes: Routes) -> Routes:
        """Return *routes*, through which the streams that are opened become known here."""
        streams = {path: self._follow(method) if path in ENDLESS else method for path, method in routes.streams.items()}
        return replace(routes, streams=streams)

    def open_streams(self) -> list[tuple[str, str]]:
        """Return method and peer of each, oldest first."""
        return [(stream.method, stream.peer) for _, stream in sorted(self._open.items())]

    def finish(self, status: Status) -> None:
        """End all of them."""
        for _, stream in sorted(self._open.items()):
            stream.finish(status)

    def _follow(self, method: StreamMethod) -> StreamMethod:
        def opened(stream: Stream) -> StreamHandler:
            self._last += 1
            self._open[self._last] = stream
            return method(stream)

        return opened

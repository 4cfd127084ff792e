"""Watchers: each follows a range through crashes, and misses, repeats and splits nothing.

When a watcher's stream ends it goes on behind the last revision that it was sent, at any member.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from proto.rpc_pb2 import WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse
from sim.clients import RANGES
from sim.connections import Stream
from sim.watching import Watched

if TYPE_CHECKING:
    from net.rpc import Status
    from sim.cluster import Cluster


class Watcher:
    """One watcher."""

    def __init__(self, number: int, cluster: Cluster) -> None:
        self.name = f"w{number}"
        self._cluster = cluster
        self._random = Random(f"watcher {number} {cluster.seed}")
        self._stream: Stream | None = None
        self._prev_kv = self._random.random() < 0.5
        key, range_end = RANGES[number % len(RANGES)]
        self._watched = Watched(self.name, cluster.truth, key, range_end, prev_kv=self._prev_kv)
        self._open()

    @property
    def events(self) -> int:
        """How many events have come."""
        return self._watched.events

    @property
    def complete(self) -> bool:
        """Whether everything that has happened has come."""
        return self._watched.complete

    def _open(self) -> None:
        member = self._random.choice(self._cluster.members)
        watched = self._watched
        key, range_end, start = watched.key, watched.range_end, watched.last + 1 if watched.last else 0
        self._cluster.schedule.note(self.name, f"{member.name}? watch {key!r} {range_end!r} from {start}")
        stream = Stream(
            self._cluster,
            member,
            "/etcdserverpb.Watch/Watch",
            self.name,
            lambda message: self._receive(stream, message),
            lambda status: self._closed(stream, status),
        )
        self._stream = stream
        create = WatchCreateRequest(key=key, range_end=range_end, start_revision=start, prev_kv=self._prev_kv)
        stream.write(WatchRequest(create_request=create).SerializeToString())
        if not self._cluster.network.calm:
            self._cluster.schedule.after(self._random.uniform(0.5, 10.0), lambda: self._disturb(stream))

    def _disturb(self, stream: Stream) -> None:
        """Leave, or ask how far the stream is."""
        if self._stream is not stream or self._cluster.network.calm:
            return
        if self._random.random() < 0.5:
            stream.leave()
            self._closed(stream, None)
        else:
            stream.write(WatchRequest(progress_request=WatchProgressRequest()).SerializeToString())
            self._cluster.schedule.after(self._random.uniform(0.5, 5.0), lambda: self._disturb(stream))

    def _closed(self, stream: Stream, status: Status | None) -> None:
        if self._stream is stream:
            self._cluster.schedule.note(self.name, f"stream ended: {status.message if status else 'left'}")
            self._stream = None
            self._cluster.schedule.after(self._random.uniform(0.05, 1.0), self._open)

    def _receive(self, stream: Stream, message: bytes) -> None:
        if self._stream is not stream:
            return
        response = WatchResponse.FromString(message)
        if response.canceled:
            self._watched.cancelled(response)
            stream.leave()
            self._closed(stream, None)
        else:
            self._watched.take(response)

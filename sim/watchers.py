"""Watchers: each follows a range through crashes, and misses, repeats and splits nothing.

Whatever a watcher has been sent is all that has happened up to the last revision in it.  When its stream ends it goes
on behind that revision, at any member.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from proto.kv_pb2 import Event, KeyValue
from proto.rpc_pb2 import WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse
from sim.clients import RANGES
from sim.connections import Stream
from sim.schedule import Failure

if TYPE_CHECKING:
    from net.rpc import Status
    from sim.cluster import Cluster

PROGRESS_ANSWER = -1
"""The watch id in answers to a request for progress."""


class Watcher:
    """One watcher."""

    def __init__(self, number: int, cluster: Cluster) -> None:
        self.name = f"w{number}"
        self.events = 0
        self.key, self.range_end = RANGES[number % len(RANGES)]
        self.last = 0
        """All events up to this revision have come."""
        self._cluster = cluster
        self._random = Random(f"watcher {number} {cluster.seed}")
        self._stream: Stream | None = None
        self._prev_kv = self._random.random() < 0.5
        self._open()

    @property
    def complete(self) -> bool:
        """Whether everything that has happened has come."""
        truth = self._cluster.truth
        return not truth.events(self.key, self.range_end, self.last, truth.revision)

    def _open(self) -> None:
        member = self._random.choice(self._cluster.members)
        start = self.last + 1 if self.last else 0
        self._cluster.schedule.note(self.name, f"{member.name}? watch {self.key!r} {self.range_end!r} from {start}")
        stream = Stream(
            self._cluster,
            member,
            "/etcdserverpb.Watch/Watch",
            self.name,
            lambda message: self._receive(stream, message),
            lambda status: self._closed(stream, status),
        )
        self._stream = stream
        create = WatchCreateRequest(key=self.key, range_end=self.range_end, start_revision=start, prev_kv=self._prev_kv)
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
            if not response.compact_revision:
                raise Failure(f"{self.name} was cancelled: {response}")
            # What is gone cannot come any more; go on where history begins.
            self.last = max(self.last, response.compact_revision - 1)
            stream.leave()
            self._closed(stream, None)
        elif response.created:
            if not self.last:
                self.last = response.header.revision
        elif response.events:
            self._take(response)
        else:
            self._take_progress(response)

    def _take(self, response: WatchResponse) -> None:
        truth = self._cluster.truth
        revisions = [event.kv.mod_revision for event in response.events]
        if revisions[0] <= self.last:
            raise Failure(f"{self.name} got an event of revision {revisions[0]} again or in part, after {self.last}")
        got = [(event.kv.mod_revision, event.type, event.kv.key, event.kv.value) for event in response.events]
        expected = [
            (
                revision,
                Event.DELETE if change.tombstone else Event.PUT,
                change.key,
                b"" if change.tombstone else KeyValue.FromString(change.kv).value,
            )
            for revision, change in truth.events(self.key, self.range_end, self.last, max(revisions))
        ]
        if got != expected:
            raise Failure(f"{self.name} got {got} after revision {self.last}, expected {expected}")
        if response.header.revision < max(revisions):
            raise Failure(f"{self.name} got events up to {max(revisions)} as of {response.header.revision}")
        if self._prev_kv:
            self._check_previous(response)
        self.last = max(revisions)
        self.events += len(got)

    def _check_previous(self, response: WatchResponse) -> None:
        for event in response.events:
            if not event.HasField("prev_kv"):
                continue  # created, or compacted meanwhile
            before = self._cluster.truth.get(event.kv.key, event.kv.mod_revision - 1)
            if before != event.prev_kv.SerializeToString(deterministic=True):
                raise Failure(f"{self.name} was told that {event.prev_kv} came before {event.kv}")

    def _take_progress(self, response: WatchResponse) -> None:
        revision = response.header.revision
        missing = self._cluster.truth.events(self.key, self.range_end, self.last, revision)
        if missing and self.last:
            raise Failure(f"{self.name} was told of progress to {revision}, but has not got {missing}")
        if response.watch_id == PROGRESS_ANSWER and self.last:
            self.last = max(self.last, revision)

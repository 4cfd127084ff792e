"""What one watcher has been sent, against what happened: nothing is missing, repeated, out of order or split.

Whatever it has been sent is all that has happened up to the last revision in it.  How it was sent, and by whom, is the
business of whoever watches: a simulated client or one of real servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.kv_pb2 import Event, KeyValue
from sim.schedule import Failure

if TYPE_CHECKING:
    from proto.rpc_pb2 import WatchResponse
    from sim.truth import Truth

PROGRESS_ANSWER = -1
"""The watch id in answers to a request for progress."""


class Watched:
    """One watcher's account, over as many streams as it took."""

    def __init__(self, name: str, truth: Truth, key: bytes, range_end: bytes, *, prev_kv: bool) -> None:
        self.events = 0
        self.last = 0
        """All events up to this revision have come."""
        self.key, self.range_end = key, range_end
        self._name = name
        self._truth = truth
        self._prev_kv = prev_kv

    @property
    def complete(self) -> bool:
        """Whether everything that has happened has come."""
        return not self._truth.events(self.key, self.range_end, self.last, self._truth.revision)

    def take(self, response: WatchResponse) -> None:
        """Check a response that ends nothing; Failure."""
        if response.created:
            if not self.last:
                self.last = response.header.revision
        elif response.events:
            self._take_events(response)
        else:
            self._take_progress(response)

    def cancelled(self, response: WatchResponse) -> None:
        """Take note of an end that the server gave a reason for: what is compacted cannot come any more; Failure."""
        if not response.compact_revision:
            raise Failure(f"{self._name} was cancelled: {response}")
        self.last = max(self.last, response.compact_revision - 1)

    def _take_events(self, response: WatchResponse) -> None:
        truth = self._truth
        revisions = [event.kv.mod_revision for event in response.events]
        if revisions[0] <= self.last:
            raise Failure(f"{self._name} got an event of revision {revisions[0]} again or in part, after {self.last}")
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
            raise Failure(f"{self._name} got {got} after revision {self.last}, expected {expected}")
        if response.header.revision < max(revisions):
            raise Failure(f"{self._name} got events up to {max(revisions)} as of {response.header.revision}")
        if self._prev_kv:
            self._check_previous(response)
        self.last = max(revisions)
        self.events += len(got)

    def _check_previous(self, response: WatchResponse) -> None:
        for event in response.events:
            if not event.HasField("prev_kv"):
                continue  # created, or compacted meanwhile
            before = self._truth.get(event.kv.key, event.kv.mod_revision - 1)
            if before != event.prev_kv.SerializeToString(deterministic=True):
                raise Failure(f"{self._name} was told that {event.prev_kv} came before {event.kv}")

    def _take_progress(self, response: WatchResponse) -> None:
        revision = response.header.revision
        missing = self._truth.events(self.key, self.range_end, self.last, revision)
        if missing and self.last:
            raise Failure(
                f"{self._name} was told of progress to {revision}, but has not got {len(missing)} changes after "
                f"{self.last}, such as {missing[0]}"
            )
        if response.watch_id == PROGRESS_ANSWER and self.last:
            self.last = max(self.last, revision)

"""A store for watch tests: keeps every event, and shows of them what a real one would at a revision."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.mvcc.event import Event, EventType, Revised
from proto import kv_pb2


def put_kv(key: bytes, value: bytes, *, create: int, mod: int, version: int) -> bytes:
    kv = kv_pb2.KeyValue(key=key, value=value, create_revision=create, mod_revision=mod, version=version)
    return bytes(kv.SerializeToString())


@dataclass(frozen=True)
class FakeHistory:
    """A History: the store as of the moment when it was made."""

    log: dict[int, list[Event]]
    revision: int
    compact_revision: int
    revisions_a_read_max: int = 1_000_000
    reads: list[tuple[int, int, bool]] = field(default_factory=list)

    def revised(self, start_revision: int, revisions_max: int, want_prev: bool) -> list[Revised]:
        assert start_revision >= self.compact_revision
        self.reads.append((start_revision, revisions_max, want_prev))
        first = max(start_revision, 2)
        revisions = [number for number in range(first, self.revision + 1) if number in self.log]
        return [
            Revised(number, [self._shown(number, event, want_prev=want_prev) for event in self.log[number]])
            for number in revisions[: min(revisions_max, self.revisions_a_read_max)]
        ]

    def _shown(self, revision: int, event: Event, *, want_prev: bool) -> Event:
        if want_prev and revision - 1 >= self.compact_revision:
            return event
        return event._replace(prev_kv=None)


@dataclass
class FakeStore:
    """Applies changes and remembers every event."""

    revision: int = 1
    compact_revision: int = -1
    log: dict[int, list[Event]] = field(default_factory=dict)
    live: dict[bytes, tuple[int, int, bytes]] = field(default_factory=dict)

    def change(self, *changes: tuple[bytes, bytes | None]) -> Revised:
        """Put each (key, value), or delete the key where the value is None, all in one revision."""
        self.revision += 1
        events = [self._event(key, value) for key, value in changes]
        self.log[self.revision] = events
        return Revised(self.revision, events)

    def history(self, revisions_a_read_max: int = 1_000_000) -> FakeHistory:
        return FakeHistory(dict(self.log), self.revision, self.compact_revision, revisions_a_read_max)

    def _event(self, key: bytes, value: bytes | None) -> Event:
        create, version, prev_kv = self.live.get(key, (self.revision, 0, None))
        if value is None:
            self.live.pop(key, None)
            kv = bytes(kv_pb2.KeyValue(key=key, mod_revision=self.revision).SerializeToString())
            return Event(EventType.DELETE, key, kv, prev_kv)
        kv = put_kv(key, value, create=create, mod=self.revision, version=version + 1)
        self.live[key] = (create, version + 1, kv)
        return Event(EventType.PUT, key, kv, prev_kv)

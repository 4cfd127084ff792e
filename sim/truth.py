"""What really happened to the keys: every revision, as the first member wrote it.

All others are held to it record by record, and every answer to a client is held to it as well.  Since each revision
tells which changes it made, ordering the writes of a history is no search: writes stand at their revision, reads
between two.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from proto.kv_pb2 import KeyValue
from sim.schedule import Failure

if TYPE_CHECKING:
    from collections.abc import Collection


class Change(NamedTuple):
    """One change of one key."""

    key: bytes
    kv: bytes
    """KeyValue in wire form; of a tombstone only the key."""
    tombstone: bool


class Version(NamedTuple):
    """A key from one revision on."""

    revision: int
    kv: bytes | None
    """None while it does not exist."""


class Truth:
    """The history of all keys."""

    def __init__(self) -> None:
        self.revision = 1
        self._changes: dict[tuple[int, int], Change] = {}
        self._by_revision: dict[int, list[Change]] = {}
        self._versions: dict[bytes, list[Version]] = {}
        self._values: dict[bytes, int] = {}

    def learn(self, member: str, main: int, sub: int, kv: bytes, *, tombstone: bool) -> None:
        """Take note of a record that *member* has written."""
        key = KeyValue.FromString(kv).key
        change = Change(key, kv, tombstone)
        known = self._changes.get((main, sub))
        if known is not None:
            if known != change:
                raise Failure(f"{member} holds another change at revision {main}.{sub} than others did")
            return
        if main < self.revision or (main > self.revision + 1):
            raise Failure(f"{member} wrote revision {main}.{sub} after revision {self.revision}")
        self.revision = main
        self._changes[main, sub] = change
        self._by_revision.setdefault(main, []).append(change)
        self._versions.setdefault(key, []).append(Version(main, None if tombstone else kv))
        if not tombstone:
            self._check_kv(key, main, kv)

    def _check_kv(self, key: bytes, main: int, encoded: bytes) -> None:
        """Check what the store derives by itself: revisions and versions."""
        kv = KeyValue.FromString(encoded)
        before = self.get(key, main - 1)
        created, version = main, 1
        if before is not None:
            old = KeyValue.FromString(before)
            created, version = old.create_revision, old.version + 1
        if (kv.mod_revision, kv.create_revision, kv.version) != (main, created, version):
            raise Failure(f"{key!r} at revision {main} has revisions and version {kv}")
        first = self._values.setdefault(kv.value, main)
        if first != main:
            raise Failure(f"the write of {kv.value!r} took effect at revision {first} and again at {main}")

    def changes(self, revision: int) -> list[Change]:
        """Return what *revision* changed."""
        return self._by_revision.get(revision, [])

    @property
    def values(self) -> Collection[bytes]:
        """Every value that was ever written."""
        return self._values.keys()

    def revision_of(self, value: bytes) -> int | None:
        """Return where this value, which only one write has, was written."""
        return self._values.get(value)

    def get(self, key: bytes, revision: int) -> bytes | None:
        """Return the key's KeyValue at *revision*, None where it has none."""
        versions = self._versions.get(key, [])
        at = bisect_right(versions, revision, key=lambda version: version.revision)
        return versions[at - 1].kv if at else None

    def range(self, key: bytes, range_end: bytes, revision: int) -> list[bytes]:
        """Return the KeyValues of [key, range_end) at *revision*."""
        keys = sorted(self._versions)
        inside = [each for each in keys if (key <= each < range_end if range_end else each == key)]
        found = [self.get(each, revision) for each in inside]
        return [kv for kv in found if kv is not None]

    def events(self, key: bytes, range_end: bytes, after: int, up_to: int) -> list[tuple[int, Change]]:
        """Return the changes of [key, range_end) behind revision *after*, with their revisions."""
        return [
            (revision, change)
            for revision in range(after + 1, up_to + 1)
            for change in self.changes(revision)
            if (key <= change.key < range_end if range_end else change.key == key)
        ]

"""The storage port: an ordered map of bytes to bytes with snapshots and atomic batches, and its fake in memory.

What the map holds is decided by core/mvcc/keyspace.py; an implementation knows none of it.  One thread writes.  A
reader that snapshot() returned may be used by any one thread at a time; scans are lazy and belong to their caller.
tests/contracts/test_backend.py says what both implementations owe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sortedcontainers import SortedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Find = Callable[[bytes, bytes], tuple[bytes, bytes] | None]


class Reader(Protocol):
    """What can be asked of a map.  *start* is included, *stop* is not; reverse begins just below *stop*."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value, or None."""

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Return keys and values in order."""

    def scan_keys(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[bytes]:
        """Return keys in order."""

    def scan_values(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        """Return values in the order of their keys."""

    def finder(self) -> Find:
        """Return what finds the last key of [start, stop) and its value, or None, in the map as it stands now.

        For many look-ups.  It stops at what it finds, where a reverse scan may first read on behind it, through
        whatever was removed there.
        """


class Backend(Reader, Protocol):
    """A map that one thread changes."""

    def snapshot(self) -> Reader:
        """Return the map as it stands now; later writes do not show in it."""

    def write(self, changes: Iterable[tuple[bytes, bytes | None]], *, sync: bool = False) -> None:
        """Set each key, or remove it where the value is None: all or nothing.

        With *sync* this and all earlier writes are durable on return.
        """

    def sync(self) -> None:
        """Make all that was written before durable, without holding up writes; for any thread."""

    def size_bytes(self) -> int:
        """Return what the map occupies on disk."""

    def size_in_use_bytes(self) -> int:
        """Return an estimate of what it would occupy without garbage; at most size_bytes()."""

    def compact(self, start: bytes | None = None, stop: bytes | None = None) -> None:
        """Give back the space of what was removed in [start, stop).  Slow; reads and writes go on meanwhile."""

    def keep_house(self) -> None:
        """Do what keeps later writes quick, every now and then; for one thread, beside reads and writes."""

    def close(self) -> None:
        """Let go of files.  No reader may be used afterwards, nor be in use in another thread."""


class MemoryReader:
    """A Reader of a SortedDict that nobody changes."""

    def __init__(self, items: SortedDict[bytes, bytes]) -> None:
        self._items = items

    def get(self, key: bytes) -> bytes | None:
        """See Reader."""
        return self._items.get(key)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """See Reader."""
        items = self._items
        return ((key, items[key]) for key in self.scan_keys(start, stop, reverse=reverse))

    def scan_keys(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[bytes]:
        """See Reader."""
        return self._items.irange(start, stop, inclusive=(True, False), reverse=reverse)

    def scan_values(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        """See Reader."""
        items = self._items
        return (items[key] for key in self.scan_keys(start, stop))

    def finder(self) -> Find:
        """See Reader."""
        items = self._items

        def last(start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
            key = next(items.irange(start, stop, inclusive=(True, False), reverse=True), None)
            return None if key is None else (key, items[key])

        return last


class MemoryBackend(MemoryReader):
    """The fake: it forgets what was not synced when crash() is called, as a machine that lost power may."""

    def __init__(self) -> None:
        super().__init__(SortedDict())
        self._durable: SortedDict[bytes, bytes] = SortedDict()
        self._shared = False

    def scan_keys(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[bytes]:
        """See Reader.  The map is copied at the next write, so that the scan does not see it."""
        self._shared = True
        return super().scan_keys(start, stop, reverse=reverse)

    def finder(self) -> Find:
        """See Reader.  The map is copied at the next write, as for a scan."""
        self._shared = True
        return super().finder()

    def snapshot(self) -> Reader:
        """See Backend.  The map is copied at the next write, not here."""
        self._shared = True
        return MemoryReader(self._items)

    def write(self, changes: Iterable[tuple[bytes, bytes | None]], *, sync: bool = False) -> None:
        """See Backend."""
        if self._shared:
            self._items = SortedDict(self._items)
            self._shared = False
        items = self._items
        for key, value in changes:
            if value is None:
                items.pop(key, None)
            else:
                items[key] = value
        if sync:
            self.sync()

    def sync(self) -> None:
        """See Backend."""
        self._durable = self._items
        self._shared = True

    def size_bytes(self) -> int:
        """See Backend."""
        return sum(len(key) + len(value) for key, value in self._items.items())

    def size_in_use_bytes(self) -> int:
        """See Backend."""
        return self.size_bytes()

    def compact(self, start: bytes | None = None, stop: bytes | None = None) -> None:
        """See Backend; nothing to give back."""

    def keep_house(self) -> None:
        """See Backend; nothing to do."""

    def close(self) -> None:
        """See Backend."""

    def crash(self) -> None:
        """Go back to the last synced write."""
        self._items = self._durable
        self._shared = True

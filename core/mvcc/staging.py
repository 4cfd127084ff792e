"""What was changed since the last flush, laid over the backend so that it reads as if it had been written.

Scans filter the staged keys of their space, so they cost a little more the more is staged: the owner flushes once for
each batch of entries.  Belongs to the store's thread.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.mvcc.backend import Backend, Find

RECENT_BYTES_MAX: Final = 4 << 20
"""Of live records that are kept in memory because they were lately in use, twice."""

_CURRENT: Final = ord("c")
_RECORDS: Final = ord("r")
_HISTORY: Final = ord("k")


class Staging:
    """A Reader of backend and staged changes.  None as a staged value means removed."""

    __slots__ = ("_older", "_recent", "_recent_bytes", "backend", "current", "history", "others")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._recent: dict[bytes, bytes | None] = {}
        self._older: dict[bytes, bytes | None] = {}
        self._recent_bytes = 0
        self.current: dict[bytes, bytes | None] = {}
        self.history: dict[bytes, bytes | None] = {}
        self.others: dict[bytes, bytes | None] = {}

    def __len__(self) -> int:
        return len(self.current) + len(self.history) + len(self.others)

    def write(self, *, sync: bool) -> None:
        """Hand everything staged to the backend as one batch, and forget it."""
        self.backend.write(
            chain(self.history.items(), self.current.items(), self.others.items()),
            sync=sync,
        )
        self._remember(self.current)
        self.current.clear()
        self.history.clear()
        self.others.clear()

    def get(self, key: bytes) -> bytes | None:
        """See Reader."""
        staged = self._space(key)
        if key in staged:
            return staged[key]
        return self.backend.get(key)

    def get_current(self, key: bytes) -> bytes | None:
        """Return what is under *key*, of the live records' space; a key that was lately in use is not read again.

        Most writes look at what they replace, which the same client has often written just before.
        """
        current = self.current
        if key in current:
            return current[key]
        recent = self._recent
        if key in recent:
            return recent[key]
        older = self._older
        record = older[key] if key in older else self.backend.get(key)
        self._remember({key: record})
        return record

    def _remember(self, records: dict[bytes, bytes | None]) -> None:
        self._recent.update(records)
        self._recent_bytes += sum([len(key) + len(record or b"") for key, record in records.items()])
        if self._recent_bytes > RECENT_BYTES_MAX:
            # What was not in use since the last time is forgotten.
            self._older, self._recent, self._recent_bytes = self._recent, {}, 0

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """See Reader."""
        committed = self.backend.scan(start, stop, reverse=reverse)
        staged = self._space(start)
        keys = sorted((key for key in staged if start <= key < stop), reverse=reverse)
        if not keys:
            return committed
        return overlaid(committed, [(key, staged[key]) for key in keys], reverse=reverse)

    def scan_keys(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[bytes]:
        """See Reader."""
        if self._space(start):
            return _keys(self.scan(start, stop, reverse=reverse))
        return self.backend.scan_keys(start, stop, reverse=reverse)

    def scan_values(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        """See Reader."""
        if self._space(start):
            return _values(self.scan(start, stop))
        return self.backend.scan_values(start, stop)

    def finder(self) -> Find:
        """See Reader."""
        committed = self.backend.finder()

        def last(start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
            staged = self._space(start)
            for key in sorted([key for key in staged if start <= key < stop], reverse=True):
                found = committed(key + b"\x00", stop)
                if found is not None:
                    return found
                value = staged[key]
                if value is not None:
                    return key, value
                stop = key
            return committed(start, stop)

        return last

    def _space(self, key: bytes) -> dict[bytes, bytes | None]:
        prefix = key[0]
        if prefix == _CURRENT:
            return self.current
        if prefix in {_RECORDS, _HISTORY}:
            return self.history
        return self.others


def _keys(items: Iterator[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for key, _ in items:
        yield key


def _values(items: Iterator[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for _, value in items:
        yield value


def overlaid(
    committed: Iterator[tuple[bytes, bytes]], staged: list[tuple[bytes, bytes | None]], *, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    """Return *committed* with *staged* laid over it, None hiding a key; both are in the same order."""
    at = 0
    end = len(staged)
    for item in committed:
        key = item[0]
        while at < end and (staged[at][0] > key if reverse else staged[at][0] < key):
            staged_key, value = staged[at]
            at += 1
            if value is not None:
                yield staged_key, value
        if at < end and staged[at][0] == key:
            value = staged[at][1]
            at += 1
            if value is not None:
                yield key, value
        else:
            yield item
    for key, value in staged[at:]:
        if value is not None:
            yield key, value

"""Answers to ranges, kept for serializable reads of the same range.  Pure.

As in etcd's proxy an entry lasts until a write through this proxy touches its range, the revision it asks for is
compacted, or there is no room: serializable reads may be old.  It holds what anybody may read who has shown no token;
whoever shows one must not be served from here, nor fill it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from core.errors import Compacted
from proto.rpc_pb2 import RangeRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

ENTRIES_MAX: Final = 2048
"""Etcd's bound."""

BYTES_MAX: Final = 64 << 20
"""Of all answers together; a range may be of any size."""

WRITES_REMEMBERED: Final = 1024
"""Ranges written last, so that an answer read before a write is not kept after it."""

FROM_KEY: Final = b"\x00"


class Entry(NamedTuple):
    """One answer."""

    key: bytes
    end: bytes
    revision: int
    """What was asked for; 0 for the newest, which writes make old."""
    answer: bytes


class RangeCache:
    """Answers by request, the least used leaving first."""

    def __init__(self, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._by_key: dict[bytes, set[bytes]] = {}
        """Names of entries of one key each."""
        self._ranges: set[bytes] = set()
        """Names of all other entries that writes make old."""
        self._bytes = 0
        self._compacted = -1
        self._writes: deque[tuple[int, bytes, bytes]] = deque(maxlen=WRITES_REMEMBERED)
        self.now = 0
        """Counts writes: what a read has to remember when it begins, see add."""

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, request: RangeRequest) -> bytes | None:
        """Return the answer to *request*, whether or not it is serializable.  Raises Compacted."""
        name = name_of(request)
        if 0 < request.revision < self._compacted:
            self._drop(name)
            raise Compacted
        entry = self._entries.get(name)
        if entry is None:
            return None
        self._entries.move_to_end(name)
        return entry.answer

    def add(self, request: RangeRequest, answer: bytes, began: int) -> None:
        """Keep *answer*, whose request left when `now` was *began*; not if a write may have come after it was read."""
        revision = max(request.revision, 0)
        if (revision and revision <= self._compacted) or len(answer) > self._bytes_max:
            return
        if not revision and self._written_since(began, request.key, request.range_end):
            return
        name = name_of(request)
        self._drop(name)
        self._entries[name] = Entry(request.key, request.range_end, revision, answer)
        self._bytes += len(answer)
        if not revision:
            if request.range_end:
                self._ranges.add(name)
            else:
                self._by_key.setdefault(request.key, set()).add(name)
        while len(self._entries) > self._entries_max or self._bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))

    def invalidate(self, key: bytes, end: bytes = b"") -> None:
        """Forget what a write to [key, end) may have changed; both before it is sent and once it is answered."""
        self.now += 1
        self._writes.append((self.now, key, end))
        names: list[bytes] = [name for name in self._ranges if self._meets(name, key, end)]
        if end:
            names += [name for point, found in self._by_key.items() if overlap(point, b"", key, end) for name in found]
        else:
            names += self._by_key.get(key, ())
        self._drop_all(names)

    def compact(self, revision: int) -> None:
        """Take note that revisions below *revision* cannot be read any more."""
        self._compacted = max(self._compacted, revision)

    def clear(self) -> None:
        """Forget everything: who may read what has changed."""
        self.now += WRITES_REMEMBERED + 1  # no read that is on its way is kept
        self._drop_all(list(self._entries))

    def _written_since(self, began: int, key: bytes, end: bytes) -> bool:
        if began < self.now - len(self._writes):
            return True  # more was written than is remembered
        return any(at > began and overlap(key, end, from_, to) for at, from_, to in self._writes)

    def _meets(self, name: bytes, key: bytes, end: bytes) -> bool:
        entry = self._entries[name]
        return overlap(entry.key, entry.end, key, end)

    def _drop_all(self, names: Iterable[bytes]) -> None:
        for name in names:
            self._drop(name)

    def _drop(self, name: bytes) -> None:
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        self._bytes -= len(entry.answer)
        self._ranges.discard(name)
        same = self._by_key.get(entry.key)
        if same is not None and not entry.end:
            same.discard(name)
            if not same:
                del self._by_key[entry.key]


def name_of(request: RangeRequest) -> bytes:
    """Return what requests with the same answer have in common."""
    if not request.serializable:
        named = RangeRequest()
        named.CopyFrom(request)
        named.serializable = True
        return named.SerializeToString(deterministic=True)
    return request.SerializeToString(deterministic=True)


def overlap(key: bytes, end: bytes, other_key: bytes, other_end: bytes) -> bool:
    """Whether two ranges share a key; an empty end stands for one key, FROM_KEY for all from it on."""
    return _before(key, other_key, other_end) and _before(other_key, key, end)


def _before(key: bytes, start: bytes, end: bytes) -> bool:
    """Whether *key* lies before the end of [start, end)."""
    return key <= start if not end else end == FROM_KEY or key < end

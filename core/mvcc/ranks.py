"""How many live keys a range holds, without walking it: the keys in a sorted list that knows positions.

Built beside the traffic, in steps, from the lowest key up: at any time it holds exactly the live keys below the
frontier, so changes behind the frontier are left to the step that gets there.  Belongs to the store's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sortedcontainers import SortedList

from core.mvcc.keyspace import FROM_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence


class Ranks:
    """The live keys up to *frontier*; ready once the frontier is None."""

    __slots__ = ("_keys", "frontier")

    def __init__(self) -> None:
        self._keys: SortedList[bytes] = SortedList()
        self.frontier: bytes | None = b""

    def extend(self, keys: Sequence[bytes], *, last: bool) -> None:
        """Take the next live keys, ascending from the frontier; *last* says that there are no more."""
        add = self._keys.add
        for key in keys:
            add(key)
        if last:
            self.frontier = None
        elif keys:
            self.frontier = keys[-1] + b"\x00"

    def created(self, key: bytes) -> None:
        """Note a key that was not there before."""
        if self.frontier is None or key < self.frontier:
            self._keys.add(key)

    def deleted(self, key: bytes) -> None:
        """Note that a live key has gone."""
        if self.frontier is None or key < self.frontier:
            self._keys.remove(key)

    def count(self, key: bytes, range_end: bytes) -> int:
        """Return the number of live keys in [key, range_end); only when ready."""
        assert self.frontier is None, self.frontier
        keys = self._keys
        if not range_end:
            return int(key in keys)
        first = keys.bisect_left(key)
        if range_end == FROM_KEY:
            return len(keys) - first
        return max(0, keys.bisect_left(range_end) - first)

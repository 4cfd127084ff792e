"""Permissions on keys: what a role grants, and the merged ranges that a user may touch.

A range is [key, range_end) as in a RangeRequest: an empty range_end means the one key, one zero byte means every key
from the first on.  Adjacent and overlapping grants count as one range, and an interval must lie in it completely.
Rules: section Auth of the etcd v3 API.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# authpb.Permission.Type (on the wire and on disk: never renumber).
READ = 0
WRITE = 1
READWRITE = 2

FROM_KEY = b"\x00"
"""As range_end: every key from the first on."""


class Permission(NamedTuple):
    """One grant.  A type that is none of the three is kept, as etcd keeps it, and grants nothing."""

    type: int
    key: bytes
    range_end: bytes = b""

    def grants(self, access: int) -> bool:
        """Whether it is of a type that includes *access*, READ or WRITE."""
        return self.type in {access, READWRITE}


EVERYTHING = Permission(READWRITE, b"", FROM_KEY)
"""What the root role shows as its permission."""


def is_valid_range(key: bytes, range_end: bytes) -> bool:
    """Whether a permission may be granted on this range: a key, and nothing that is empty."""
    return bool(key) and (not range_end or range_end == FROM_KEY or key < range_end)


class KeyRanges:
    """A set of keys as disjoint intervals, ascending.  Immutable."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[bytes, bytes]]) -> None:
        """Merge *ranges*, given as (key, range_end)."""
        self._starts: list[bytes] = []
        self._ends: list[bytes | None] = []
        """Exclusive; None for an interval without end, which only the last can be."""
        for start, end in sorted(filter(None, map(_interval, ranges)), key=_by_start):
            self._add(start, end)

    def _add(self, start: bytes, end: bytes | None) -> None:
        if self._starts:
            last = self._ends[-1]
            if last is None:
                return
            if start <= last:
                if end is None or end > last:
                    self._ends[-1] = end
                return
        self._starts.append(start)
        self._ends.append(end)

    def covers(self, key: bytes, range_end: bytes) -> bool:
        """Whether every key of [key, range_end) is in the set.

        A range that ends before it begins holds no key; it passes where both its ends are in one interval.
        """
        at = bisect_right(self._starts, key) - 1
        if at < 0:
            return False
        end = self._ends[at]
        if range_end == FROM_KEY:
            return end is None
        if end is None:
            return not range_end or range_end > self._starts[at]
        return key < end and (not range_end or self._starts[at] < range_end <= end)


def _by_start(interval: tuple[bytes, bytes | None]) -> bytes:
    return interval[0]


def _interval(range_: tuple[bytes, bytes]) -> tuple[bytes, bytes | None] | None:
    """Return start and exclusive end of a range; None if it holds no key."""
    key, range_end = range_
    if not range_end:
        return key, key + b"\x00"
    if range_end == FROM_KEY:
        return key, None
    return (key, range_end) if key < range_end else None

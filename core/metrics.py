"""Numbers that an actor keeps of its work, in the form in which it hands them to whoever publishes them.

An actor counts in plain integers of its own and turns them into samples when it is asked; nothing here is shared.
Which families there are, with types, labels and texts, stands in services/metric_families.py.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Distribution(NamedTuple):
    """What a histogram held when it was looked at."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets, ascending, without the infinite one."""
    counts: tuple[int, ...]
    """One more than there are bounds; not cumulative."""
    total: float


class Sample(NamedTuple):
    """One value of one family."""

    family: str
    value: float | Distribution
    labels: tuple[str, ...] = ()
    """Values in the order of the family's label names."""


class Histogram:
    """Counts observations by size.  Belongs to one thread."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count *value*, which was seen so many *times*."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each of *values*."""
        if not values:
            return
        counts, bounds = self.counts, self.bounds
        lowest = bisect_left(bounds, min(values))
        if lowest == bisect_left(bounds, max(values)):  # as in nearly every batch
            counts[lowest] += len(values)
        else:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def distribution(self) -> Distribution:
        """Return what it holds."""
        return Distribution(self.bounds, tuple(self.counts), self.total)


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Return *count* bounds, each *factor* times the one before."""
    return tuple(start * factor**power for power in range(count))


COMPACTION_BOUNDS_MS = exponential(100, 2, 14)
PAUSE_BOUNDS_MS = exponential(1, 2, 13)
ROUND_TRIP_BOUNDS_S = exponential(0.0001, 2, 16)
TTL_BOUNDS_S = exponential(1, 2, 24)
SYNC_BOUNDS_S = exponential(0.001, 2, 14)
APPLY_BOUNDS_S = exponential(0.0001, 2, 20)
DEFRAG_BOUNDS_S = exponential(0.1, 2, 13)
HASH_BOUNDS_S = exponential(0.01, 2, 15)
EXPORT_BOUNDS_S = exponential(0.01, 2, 17)
TRANSFER_BOUNDS_S = exponential(0.1, 2, 10)
INDEX_BOUNDS_MS = exponential(0.5, 2, 14)

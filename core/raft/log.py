"""The raft log in memory: every entry after the last compaction.

The log on disk is wal/'s; what of this one is durable already is remembered by ready.Writes.  Beside the entries runs
a list of their sizes summed up, so that any bound in bytes is a binary search.  Raft paper section 5.3.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from core.raft.messages import Entry, EntryType
from core.tuples import make_tuple
from core.types import Index, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

ENTRY_OVERHEAD_BYTES: Final = 16
"""What an entry takes in a message besides its data, roughly; it keeps a bound in bytes honest for tiny entries."""

_term_of: Final = itemgetter(0)


class RaftLog:
    """Entries with consecutive indexes after *compacted*, the (index, term) of the last entry that is gone.

    *first* is the first index held and *last* the last one; an empty log has ``last == first - 1``.
    """

    def __init__(self, entries: Sequence[Entry], compacted: tuple[Index, Term] = (Index(0), Term(0))) -> None:
        self._entries: list[Entry] = []
        self._ends: list[int] = [0]
        self._offset, self._offset_term = compacted
        self.last = self._offset
        self._check(entries)
        self.append(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> Index:
        """The lowest index whose entry is held, or would be."""
        return Index(self._offset + 1)

    @property
    def last_term(self) -> Term:
        """The term of the last entry, or of the compaction if no entry is held."""
        return self._entries[-1].term if self._entries else self._offset_term

    def term(self, index: Index) -> Term | None:
        """Return the term at *index*; None if the log does not reach there, or no longer does."""
        position = index - self._offset
        if 0 < position <= len(self._entries):
            return self._entries[position - 1].term
        return self._offset_term if position == 0 else None

    def entries(self, low: int, high: int) -> tuple[Entry, ...]:
        """Return the entries with ``low <= index < high``, all of which must be held."""
        assert self._offset < low <= high <= self.last + 1, (self._offset, low, high, self.last)
        return tuple(self._entries[low - self._offset - 1 : high - self._offset - 1])

    def entries_within(self, low: int, high: int, bytes_max: int) -> tuple[Entry, ...]:
        """Return as many of the entries with ``low <= index < high`` as *bytes_max* allows, at least one if any."""
        start = low - self._offset - 1
        fitting = bisect_right(self._ends, self._ends[start] + bytes_max, start) - 1
        return self.entries(low, min(high, max(fitting, start + 1) + self._offset + 1))

    def bytes_after(self, index: Index) -> int:
        """Return the size of all entries held after *index*."""
        return self._ends[-1] - self._ends[max(index - self._offset, 0)]

    def append_data(self, term: Term, datas: Sequence[bytes]) -> None:
        """Append normal entries of *term* with these *datas*."""
        normal = EntryType.NORMAL
        self._entries += [
            make_tuple(Entry, (term, index, normal, data)) for index, data in enumerate(datas, self.last + 1)
        ]
        self._grow([len(data) + ENTRY_OVERHEAD_BYTES for data in datas])

    def append(self, entries: Sequence[Entry]) -> None:
        """Append entries that continue the log; the caller has checked that they do."""
        assert not entries or entries[0].index == self.last + 1, (entries[0].index, self.last)
        self._entries += entries
        self._grow([len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries])

    def truncate(self, index: Index) -> None:
        """Drop every entry from *index* on."""
        assert self._offset < index, (self._offset, index)
        kept = index - self._offset - 1
        del self._entries[kept:]
        del self._ends[kept + 1 :]
        self.last = Index(self._offset + len(self._entries))

    def compact(self, index: Index) -> None:
        """Drop every entry up to *index* and remember its term; nothing happens if that has been done."""
        if index <= self._offset:
            return
        term = self.term(index)
        assert term is not None, (index, self.last)
        dropped = index - self._offset
        del self._entries[:dropped]
        del self._ends[:dropped]
        self._offset, self._offset_term = index, term

    def restart(self, index: Index, term: Term) -> None:
        """Forget all entries: the log goes on after a snapshot at *index*."""
        self._entries, self._ends = [], [0]
        self._offset, self._offset_term, self.last = index, term, index

    def matches(self, index: Index, term: Term) -> bool:
        """Whether this log has an entry of *term* at *index* (the log matching property then covers all before)."""
        return self.term(index) == term

    def reaches(self, index: Index, term: Term) -> bool:
        """Whether a log that ends with (*index*, *term*) is at least as up-to-date as this one (raft paper 5.4.1)."""
        return (term, index) >= (self.last_term, self.last)

    def conflict_hint(self, index: Index, term: Term) -> tuple[Index, Term]:
        """Return the highest position up to *index* whose term is not above *term*; term 0 if that is compacted.

        Two logs cannot match between there and *index* when the other one's term at *index* is *term*: terms rise
        along a log.
        """
        index = min(index, self.last)
        if index <= self._offset:
            return index, self.term(index) or Term(0)
        position = bisect_right(self._entries, term, 0, index - self._offset, key=_term_of)
        if position:
            return Index(self._offset + position), self._entries[position - 1].term
        return self._offset, self._offset_term if self._offset_term <= term else Term(0)

    def first_conflict(self, entries: Sequence[Entry]) -> Index | None:
        """Return the index of the first of *entries* that this log lacks or has in another term; None if it has all."""
        if entries and entries[0].index == self.last + 1:
            return entries[0].index
        return next((entry.index for entry in entries if self.term(entry.index) != entry.term), None)

    def _grow(self, sizes: list[int]) -> None:
        self._ends += list(accumulate(sizes, initial=self._ends[-1]))[1:]
        self.last = Index(self._offset + len(self._entries))

    def _check(self, entries: Sequence[Entry]) -> None:
        previous = (self._offset, self._offset_term)
        for entry in entries:
            if entry.index != previous[0] + 1 or entry.term < previous[1]:
                raise ValueError(f"raft log: entry (index {entry.index}, term {entry.term}) cannot follow {previous}")
            previous = (entry.index, entry.term)

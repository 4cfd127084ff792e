"""Which part of the log is durable while writes are in flight (raft thesis 3.8 and 10.2.1)."""

from __future__ import annotations

from core.raft.ready import StablePoint, Writes
from core.types import Index, Term


def point(term: int, index: int) -> StablePoint:
    """Return a stable point."""
    return StablePoint(Term(term), Index(index))


def test_writes_end_in_their_order() -> None:
    """The log is durable up to the newest write that has ended."""
    writes = Writes(Index(3))
    writes.begin(point(2, 4))
    writes.begin(point(2, 6))
    assert (writes.stable, bool(writes)) == (3, True)
    assert writes.finish(point(2, 4))
    assert (writes.stable, bool(writes)) == (4, True)
    assert writes.finish(point(2, 6))
    assert (writes.stable, bool(writes)) == (6, False)


def test_a_write_that_was_never_begun_does_not_end() -> None:
    """A report from before a restart, or twice, changes nothing."""
    writes = Writes(Index(3))
    writes.begin(point(2, 4))
    assert not writes.finish(point(1, 4))
    assert (writes.stable, bool(writes)) == (3, True)


def test_what_was_cut_off_does_not_become_durable() -> None:
    """A write that holds entries which gave way to another leader's counts up to the cut only."""
    writes = Writes(Index(3))
    writes.begin(point(2, 6))
    writes.cut(Index(4))
    writes.begin(point(3, 5))
    writes.finish(point(2, 6))
    assert writes.stable == 4
    writes.finish(point(3, 5))
    assert writes.stable == 5


def test_an_entry_that_comes_back_is_not_durable_by_its_first_write() -> None:
    """The ABA race: on disk the replacement lies between the two writes, and a crash there would show it."""
    writes = Writes(Index(3))
    writes.begin(point(2, 4))
    writes.cut(Index(3))
    writes.begin(point(3, 4))
    writes.cut(Index(3))
    writes.begin(point(4, 4))
    writes.finish(point(2, 4))
    writes.finish(point(3, 4))
    assert writes.stable == 3
    writes.finish(point(4, 4))
    assert writes.stable == 4


def test_a_cut_takes_back_what_was_durable() -> None:
    """Entries that are gone are not durable, whatever is on disk."""
    writes = Writes(Index(9))
    writes.cut(Index(5))
    assert writes.stable == 5

"""The raft log in memory (raft paper 5.3, 5.4.1)."""

from __future__ import annotations

import pytest

from core.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog
from core.raft.messages import Entry, EntryType
from core.types import Index, Term
from tests.unit.raft_nodes import entries


def make_log(*terms: int, compacted: tuple[int, int] = (0, 0)) -> RaftLog:
    """Return a log of entries of these terms."""
    return RaftLog(entries(terms, compacted[0] + 1), (Index(compacted[0]), Term(compacted[1])))


def test_an_empty_log_ends_where_it_was_compacted() -> None:
    """A member that starts from a snapshot has no entry yet, but a last index and term to vote by."""
    log = make_log(compacted=(7, 3))
    assert (log.first, log.last, log.last_term, len(log)) == (8, 7, 3, 0)


@pytest.mark.parametrize(("index", "term"), [(4, None), (5, 2), (6, 3), (7, 3), (8, None)])
def test_term_is_known_from_the_compaction_to_the_end(index: int, term: int | None) -> None:
    """The term at the compaction itself is needed for the consistency check of the first entry after it."""
    assert make_log(3, 3, compacted=(5, 2)).term(Index(index)) == term


def test_append_data_gives_each_its_place() -> None:
    """A batch of proposals becomes consecutive entries of the leader's term."""
    log = make_log(1)
    log.append_data(Term(2), [b"a", b"b"])
    assert log.entries(2, 4) == (
        Entry(Term(2), Index(2), EntryType.NORMAL, b"a"),
        Entry(Term(2), Index(3), EntryType.NORMAL, b"b"),
    )
    assert all(isinstance(entry, Entry) for entry in log.entries(1, 4))


def test_a_size_bounds_a_slice_but_one_entry_always_fits() -> None:
    """A message must make progress even when its first entry alone is too large (etcd: at least one entry)."""
    log = RaftLog([])
    log.append_data(Term(1), [b"x" * 84] * 4)  # 100 bytes each
    sizes = [len(log.entries_within(1, 5, limit)) for limit in (0, 99, 100, 199, 200, 400, 10_000)]
    assert sizes == [1, 1, 1, 1, 2, 4, 4]
    assert [entry.index for entry in log.entries_within(3, 4, 10_000)] == [3]


def test_sizes_stay_right_through_compaction_and_truncation() -> None:
    """Limits in bytes are differences of running sums, which must survive cuts at both ends."""
    log = RaftLog([])
    log.append_data(Term(1), [b"x" * size for size in range(10)])
    log.compact(Index(4))
    log.truncate(Index(9))
    log.append_data(Term(1), [b"y" * 20])
    expected = [4, 5, 6, 7, 20]
    assert log.bytes_after(Index(4)) == sum(expected) + len(expected) * ENTRY_OVERHEAD_BYTES
    assert log.bytes_after(Index(8)) == 20 + ENTRY_OVERHEAD_BYTES
    assert log.bytes_after(Index(2)) == log.bytes_after(Index(4))


def test_compaction_keeps_the_term_of_the_last_entry_dropped() -> None:
    """It is the leader's consistency check for the first entry that is left; compacting twice is harmless."""
    log = make_log(1, 2, 3)
    log.compact(Index(2))
    log.compact(Index(1))
    assert (log.first, log.last, log.term(Index(2)), log.entries(3, 4)) == (3, 3, 2, tuple(entries([3], 3)))


@pytest.mark.parametrize(("last", "reaches"), [((2, 9), False), ((3, 2), False), ((3, 3), True), ((4, 1), True)])
def test_up_to_date_compares_terms_then_lengths(last: tuple[int, int], reaches: bool) -> None:
    """Raft paper 5.4.1: the later last term wins, then the longer log."""
    assert make_log(1, 2, 3).reaches(Index(last[1]), Term(last[0])) is reaches


@pytest.mark.parametrize(
    ("index", "term", "hint"),
    [(9, 9, (6, 5)), (9, 4, (4, 4)), (5, 5, (5, 5)), (5, 3, (1, 1)), (3, 0, (0, 0)), (0, 3, (0, 0))],
)
def test_a_conflict_hint_skips_whole_terms(index: int, term: int, hint: tuple[int, int]) -> None:
    """Raft paper 5.3, last part: one probe for each conflicting term, not for each entry."""
    assert make_log(1, 4, 4, 4, 5, 5).conflict_hint(Index(index), Term(term)) == hint


def test_a_conflict_hint_does_not_invent_what_is_compacted() -> None:
    """Below the compaction nothing is known: a hint there has term 0, and makes the leader probe or send a snapshot."""
    log = make_log(5, 5, compacted=(3, 4))
    assert log.conflict_hint(Index(5), Term(4)) == (3, 4)
    assert log.conflict_hint(Index(5), Term(3)) == (3, 0)
    assert log.conflict_hint(Index(2), Term(4)) == (2, 0)


@pytest.mark.parametrize(
    ("terms", "first", "conflict"),
    [([1, 2, 2], 1, None), ([2, 3], 2, 3), ([2, 2, 2], 2, 4), ([5], 4, 4), ([], 2, None)],
)
def test_first_conflict_finds_what_must_be_written(terms: list[int], first: int, conflict: int | None) -> None:
    """Entries that are there already stay: a late message must not cut off newer ones (raft paper 5.3)."""
    assert make_log(1, 2, 2).first_conflict(entries(terms, first)) == conflict


def test_restart_forgets_everything_before_a_snapshot() -> None:
    """A restored snapshot replaces the log (raft paper 7)."""
    log = make_log(1, 1)
    log.restart(Index(9), Term(4))
    log.append(entries([4], 10))
    assert (log.first, log.last, log.last_term) == (10, 10, 4)


@pytest.mark.parametrize("broken", [entries([1], 3), entries([2, 1], 2), [*entries([1], 2), *entries([1], 4)]])
def test_a_log_with_holes_or_falling_terms_is_not_taken(broken: list[Entry]) -> None:
    """What the disk gives back is checked: with a hole the member must not start."""
    with pytest.raises(ValueError, match="cannot follow"):
        RaftLog(broken, (Index(1), Term(1)))

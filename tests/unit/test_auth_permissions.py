"""What a set of ranges covers, and which ranges may be granted."""

from __future__ import annotations

import pytest

from core.auth.permissions import FROM_KEY, READ, READWRITE, WRITE, KeyRanges, Permission, is_valid_range

GRANTED = ((b"b", b"d"), (b"d", b"f"), (b"e", b"h"), (b"m", b""), (b"m\0", b"p"), (b"x", FROM_KEY), (b"z", b"z5"))
"""Merged: [b, h), [m, p), [x, ...)."""


@pytest.mark.parametrize(
    ("key", "range_end", "covered"),
    [
        (b"a", b"", False),
        (b"b", b"", True),
        (b"g\xff", b"", True),
        (b"h", b"", False),
        (b"m", b"", True),
        (b"p", b"", False),
        (b"zzz", b"", True),
        (b"b", b"h", True),
        (b"c", b"g", True),
        (b"b", b"h\0", False),
        (b"a", b"c", False),
        (b"g", b"n", False),
        (b"m", b"p", True),
        (b"x", FROM_KEY, True),
        (b"y", FROM_KEY, True),
        (b"w", FROM_KEY, False),
        (b"b", FROM_KEY, False),
        (b"y", b"z", True),
        (b"w", b"z", False),
        (b"c", b"c", True),
        (b"e", b"c", True),
        (b"c", b"a", False),
        (b"y", b"a", False),
    ],
)
def test_an_interval_must_be_covered_whole(key: bytes, range_end: bytes, covered: bool) -> None:
    """Adjacent and overlapping grants count as one; a gap, or an open end against a closed one, refuses all of it."""
    assert KeyRanges(GRANTED).covers(key, range_end) is covered


def test_nothing_granted_covers_nothing() -> None:
    """A user without roles may touch no key."""
    assert not KeyRanges(()).covers(b"a", b"")
    assert not KeyRanges(()).covers(b"\0", FROM_KEY)


def test_a_stored_range_that_holds_no_key_grants_nothing() -> None:
    """Old servers let such grants in; they must not swallow their neighbours."""
    assert not KeyRanges([(b"d", b"b")]).covers(b"c", b"")
    assert KeyRanges([(b"d", b"b"), (b"c", b"")]).covers(b"c", b"")


@pytest.mark.parametrize(
    ("key", "range_end", "valid"),
    [
        (b"a", b"", True),
        (b"a", b"b", True),
        (b"a", FROM_KEY, True),
        (b"\0", FROM_KEY, True),
        (b"", b"", False),
        (b"", FROM_KEY, False),
        (b"b", b"a", False),
        (b"a", b"a", False),
    ],
)
def test_a_grant_must_hold_a_key(key: bytes, range_end: bytes, valid: bool) -> None:
    """An empty range is a mistake of whoever grants it."""
    assert is_valid_range(key, range_end) is valid


@pytest.mark.parametrize(
    ("type_", "reads", "writes"),
    [(READ, True, False), (WRITE, False, True), (READWRITE, True, True), (7, False, False)],
)
def test_what_a_type_grants(type_: int, reads: bool, writes: bool) -> None:
    """A type that nobody knows is kept, for whoever knows it, and grants nothing here."""
    permission = Permission(type_, b"k")
    assert (permission.grants(READ), permission.grants(WRITE)) == (reads, writes)

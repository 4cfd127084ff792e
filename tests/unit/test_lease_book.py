"""LeaseBook: which leases exist and which keys go with them."""

from __future__ import annotations

import pytest

from core.errors import LeaseExists, LeaseNotFound, LeaseTtlTooLarge
from core.lease.book import TTL_S_MAX, LeaseBook, minimum_ttl_s
from core.types import LeaseId

ONE, TWO = LeaseId(1), LeaseId(2)


@pytest.mark.parametrize(
    ("election_ticks", "tick_ms", "ttl_s"),
    [(10, 100, 2), (10, 10, 1), (50, 1000, 75), (11, 1000, 16), (20, 100, 3)],
)
def test_minimum_ttl_is_one_and_a_half_elections_rounded_up(election_ticks: int, tick_ms: int, ttl_s: int) -> None:
    """A lease must outlast an election, or every change of leader would end it; half ticks are dropped as etcd does."""
    assert minimum_ttl_s(election_ticks=election_ticks, tick_ms=tick_ms) == ttl_s


def test_grant_makes_a_lease() -> None:
    """What was granted exists with its TTL."""
    book = LeaseBook()
    book.grant(ONE, 60)
    assert book.exists(ONE)
    assert not book.exists(TWO)
    assert book.ttl_s(ONE) == 60
    assert list(book.ids) == [ONE]
    assert len(book) == 1


def test_grant_refuses_an_id_in_use() -> None:
    """A second grant must not take over the keys of the first."""
    book = LeaseBook()
    book.grant(ONE, 60)
    with pytest.raises(LeaseExists):
        book.grant(ONE, 5)
    assert book.ttl_s(ONE) == 60


def test_grant_refuses_a_ttl_above_the_limit() -> None:
    """The limit itself is allowed, one second more is not."""
    book = LeaseBook()
    with pytest.raises(LeaseTtlTooLarge):
        book.grant(ONE, TTL_S_MAX + 1)
    assert not book.exists(ONE)
    book.grant(ONE, TTL_S_MAX)
    assert book.exists(ONE)


def test_grant_refuses_no_lease() -> None:
    """Id 0 in a key means no lease, so it can never be one."""
    with pytest.raises(LeaseNotFound):
        LeaseBook().grant(LeaseId(0), 60)


def test_unknown_lease_is_refused_everywhere() -> None:
    """A put, a revoke and a look-up of a missing lease all name that condition."""
    book = LeaseBook()
    for call in (
        lambda: book.attach(ONE, b"k"),
        lambda: book.revoke(ONE),
        lambda: book.keys(ONE),
        lambda: book.ttl_s(ONE),
    ):
        with pytest.raises(LeaseNotFound):
            call()


@pytest.mark.parametrize("count", [0, 1, 2, 16, 17, 40])
def test_revoke_returns_the_keys_in_order(count: int) -> None:
    """Keys are deleted in one revision, sorted, whatever form the book keeps them in."""
    book = LeaseBook()
    book.grant(ONE, 60)
    keys = [b"%03d" % number for number in range(count)]
    for key in reversed(keys):
        book.attach(ONE, key)
        book.attach(ONE, key)
    assert book.keys(ONE) == keys
    assert book.revoke(ONE) == keys
    assert not book.exists(ONE)
    book.grant(ONE, 60)
    assert book.keys(ONE) == []


@pytest.mark.parametrize("count", [1, 2, 16, 40])
def test_detach_takes_one_key_away(count: int) -> None:
    """A key that was deleted or moved to another lease survives the revoke of its old one."""
    book = LeaseBook()
    book.grant(ONE, 60)
    keys = [b"%03d" % number for number in range(count)]
    for key in keys:
        book.attach(ONE, key)
    book.detach(ONE, b"other")
    assert book.keys(ONE) == keys
    for position, key in enumerate(keys):
        book.detach(ONE, key)
        assert book.keys(ONE) == keys[position + 1 :]


def test_detach_of_an_unknown_lease_changes_nothing() -> None:
    """Deleting the keys of a lease just revoked detaches them from a lease that is gone."""
    book = LeaseBook()
    book.detach(ONE, b"k")
    assert len(book) == 0


def test_book_without_leases_is_complete_at_once() -> None:
    """A store that uses no leases must not be scanned at start."""
    assert LeaseBook().complete


def test_a_complete_book_takes_no_step_of_a_walk() -> None:
    """The owner may offer its walk without asking first."""
    walk = iter([(ONE, b"a")])
    LeaseBook().rebuild(walk)
    assert next(walk) == (ONE, b"a")


def test_book_with_leases_becomes_complete_by_a_rebuild() -> None:
    """After a restart the attachments come from the live keys, in as many steps as the owner likes."""
    book = LeaseBook([(ONE, 60), (TWO, 60)])
    book.rebuild([(ONE, b"b"), (TWO, b"c")])
    book.rebuild([(ONE, b"a"), (LeaseId(9), b"stray")])
    before = book.complete
    book.rebuilt()
    assert (before, book.complete) == (False, True)
    assert book.keys(ONE) == [b"a", b"b"]
    assert book.revoke(TWO) == [b"c"]


def test_rebuild_does_not_bring_back_what_was_detached_meanwhile() -> None:
    """The walk reads an old state; a key that moved to another lease since then belongs to the new one only."""
    book = LeaseBook([(ONE, 60), (TWO, 60)])
    book.detach(ONE, b"moved")
    book.attach(TWO, b"moved")
    book.attach(ONE, b"returned")
    book.detach(ONE, b"returned")
    book.attach(ONE, b"returned")
    book.rebuild([(ONE, b"moved"), (ONE, b"returned"), (ONE, b"kept")])
    book.rebuilt()
    assert book.keys(ONE) == [b"kept", b"returned"]
    assert book.keys(TWO) == [b"moved"]

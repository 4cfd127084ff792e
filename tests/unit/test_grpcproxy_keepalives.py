"""Renewals shared between clients."""

from __future__ import annotations

from grpcproxy.keepalives import KeepAlives


def test_requests_for_a_lease_share_a_renewal_and_each_gets_an_answer() -> None:
    """The members see one renewal, however many clients ask; a client counts its answers."""
    renewals = KeepAlives()
    for stream in (1, 2, 1):
        renewals.ask(stream, 7)
    assert renewals.to_send() == [7]
    renewals.ask(3, 7)
    assert renewals.to_send() == []
    assert renewals.answered(7) == [1, 2, 1, 3]
    assert renewals.idle
    renewals.ask(1, 7)
    assert renewals.to_send() == [7], "the next request renews anew"


def test_what_was_asked_is_asked_again_elsewhere() -> None:
    """A member that dies must not cost a lease its renewal."""
    renewals = KeepAlives()
    renewals.ask(1, 7)
    renewals.ask(1, 8)
    renewals.to_send()
    renewals.ask(1, 9)
    renewals.lost()
    assert renewals.to_send() == [7, 8, 9]


def test_only_the_guilty_hears_of_a_refusal() -> None:
    """A member ends its stream for one lease that may not be renewed; the others' clients did nothing wrong."""
    renewals = KeepAlives()
    renewals.ask(1, 7)
    renewals.ask(2, 8)
    assert renewals.to_send() == [7, 8]
    assert renewals.refused() == []
    assert renewals.to_send() == [7]
    assert renewals.to_send() == [], "one by one"
    assert renewals.refused() == [1]
    assert renewals.to_send() == [8]
    assert renewals.answered(8) == [2]
    renewals.ask(1, 1)
    renewals.ask(1, 2)
    assert renewals.to_send() == [1, 2], "together again"


def test_a_stream_that_has_gone_waits_for_nothing() -> None:
    """What nobody else wants is not even asked; what is on its way has no one to go to."""
    renewals = KeepAlives()
    renewals.ask(1, 7)
    renewals.ask(1, 8)
    renewals.ask(2, 8)
    renewals.forget(1)
    assert renewals.to_send() == [8]
    renewals.forget(2)
    assert renewals.answered(8) == []
    renewals.ask(3, 9)
    assert renewals.fail_all() == [3]
    assert renewals.idle

"""AlarmBook and Quota: what stops writes, and when."""

from __future__ import annotations

import pytest

from core.alarms.book import Alarm, AlarmBook
from core.alarms.quota import DEFAULT_QUOTA_BYTES, Quota
from core.errors import CorruptCluster, NoSpace
from core.types import MemberId

ONE, TWO = MemberId(1), MemberId(2)


def test_alarms_are_raised_once_a_member() -> None:
    """The answer names the alarm only where something changed."""
    book = AlarmBook()
    assert book.activate(ONE, Alarm.NOSPACE)
    assert not book.activate(ONE, Alarm.NOSPACE)
    assert book.activate(TWO, Alarm.NOSPACE)
    assert book.activate(ONE, Alarm.CORRUPT)


def test_none_is_no_alarm() -> None:
    """Clients send it to ask for all kinds; raising it changes nothing."""
    book = AlarmBook()
    assert not book.activate(ONE, Alarm.NONE)
    assert not book.deactivate(ONE, Alarm.NONE)
    assert book.active() == []


def test_list_all_or_of_one_kind() -> None:
    """In a fixed order, so that members answer alike."""
    book = AlarmBook()
    book.activate(TWO, Alarm.CORRUPT)
    book.activate(TWO, Alarm.NOSPACE)
    book.activate(ONE, Alarm.NOSPACE)
    assert book.active() == [(ONE, Alarm.NOSPACE), (TWO, Alarm.NOSPACE), (TWO, Alarm.CORRUPT)]
    assert book.active(Alarm.CORRUPT) == [(TWO, Alarm.CORRUPT)]


def test_nospace_stops_growth_only() -> None:
    """Deleting and compacting must stay possible, or nobody could ever make room."""
    book = AlarmBook()
    book.activate(TWO, Alarm.NOSPACE)
    book.check_write()
    with pytest.raises(NoSpace):
        book.check_growth()


def test_corrupt_stops_every_write_and_comes_first() -> None:
    """Data that differs between members must not be written on, not even to make room."""
    book = AlarmBook()
    book.activate(ONE, Alarm.NOSPACE)
    book.activate(ONE, Alarm.CORRUPT)
    for check in (book.check_write, book.check_growth):
        with pytest.raises(CorruptCluster):
            check()


def test_writes_go_on_when_the_last_member_is_clear() -> None:
    """An alarm holds for all while one member has it."""
    book = AlarmBook()
    book.check_growth()
    book.activate(ONE, Alarm.NOSPACE)
    book.activate(TWO, Alarm.NOSPACE)
    assert book.deactivate(ONE, Alarm.NOSPACE)
    assert not book.deactivate(ONE, Alarm.NOSPACE)
    with pytest.raises(NoSpace):
        book.check_growth()
    assert book.deactivate(TWO, Alarm.NOSPACE)
    book.check_growth()


@pytest.mark.parametrize("number", [3, 99, -1])
def test_an_unknown_alarm_is_kept_and_forbids_nothing(number: int) -> None:
    """Any number may come from a client; it must not stop the member that applies it."""
    book = AlarmBook()
    assert book.activate(ONE, Alarm(number))
    assert not book.activate(ONE, Alarm(number))
    assert [(member, int(alarm)) for member, alarm in book.active()] == [(ONE, number)]
    assert [int(alarm) for _, alarm in book.active(Alarm(number))] == [number]
    book.check_growth()
    assert book.deactivate(ONE, Alarm(number))
    assert book.active() == []


def test_an_alarm_is_a_number() -> None:
    """Anything else is a mistake of ours."""
    with pytest.raises(ValueError, match="NOSPACE"):
        Alarm("NOSPACE")  # type: ignore[arg-type]  # the mistake in question


@pytest.mark.parametrize(("configured", "limit"), [(0, DEFAULT_QUOTA_BYTES), (-1, None), (5000, 5000)])
def test_quota_as_configured(configured: int, limit: int | None) -> None:
    """0 means two GiB, a negative number none."""
    assert Quota(configured).limit_bytes == limit


@pytest.mark.parametrize(
    ("store_size_bytes", "cost_bytes", "room"),
    [(0, 999, True), (0, 1000, False), (999, 1, False), (998, 1, True), (5000, 1, False), (5000, 0, True)],
)
def test_quota_is_reached_before_it_is_exceeded(store_size_bytes: int, cost_bytes: int, room: bool) -> None:
    """Size and cost must stay below the quota; what costs nothing passes even above it."""
    assert Quota(1000).has_room(store_size_bytes=store_size_bytes, cost_bytes=cost_bytes) is room
    assert Quota(-1).has_room(store_size_bytes=store_size_bytes, cost_bytes=cost_bytes)

"""When a leader compacts by itself: etcd's two schedules, and how their settings are read."""

from __future__ import annotations

import pytest

from config.compaction import AutoCompaction, parse_auto_compaction
from config.faults import BadValue
from core.mvcc.auto_compaction import PeriodicSchedule, RevisionSchedule

HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("mode", "retention", "kept"),
    [
        ("periodic", "0", AutoCompaction(0.0, 0)),
        ("periodic", "2", AutoCompaction(2 * HOUR_S, 0)),
        ("periodic", "90m", AutoCompaction(1.5 * HOUR_S, 0)),
        ("revision", "1000", AutoCompaction(0.0, 1000)),
        ("revision", "0", AutoCompaction(0.0, 0)),
    ],
)
def test_a_plain_number_is_hours_or_revisions(mode: str, retention: str, kept: AutoCompaction) -> None:
    """Files written for etcd keep their meaning: a wrong unit would throw away history that somebody needs."""
    assert parse_auto_compaction(mode, retention) == kept


@pytest.mark.parametrize(
    ("mode", "retention"),
    [("periodic", "-1"), ("periodic", "-5m"), ("revision", "5m"), ("revision", "-1"), ("periodic", "x")],
)
def test_what_cannot_be_meant_is_refused(mode: str, retention: str) -> None:
    """A negative retention would compact everything all the time (audit finding TOB-ETCD 10)."""
    with pytest.raises(BadValue):
        parse_auto_compaction(mode, retention)


def run_periodic(period_s: float, hours: float) -> list[tuple[float, int]]:
    """Return when a leader compacts at what, while the store's revision counts the seconds."""
    schedule = PeriodicSchedule(period_s, 0.0)
    now_s, made = 0.0, []
    while now_s <= hours * HOUR_S:
        due = schedule.due(now_s, int(now_s) + 1, leads=True)
        if due is not None:
            schedule.compacted(now_s, due)
            made.append((now_s, due))
        now_s += schedule.interval_s
    return made


def test_history_of_a_period_is_kept_and_compaction_comes_once_a_period() -> None:
    """With ten minutes, nobody who reads what is eight minutes old may find it compacted."""
    made = run_periodic(600.0, hours=1)
    assert [at for at, _ in made] == [600.0, 1200.0, 1800.0, 2400.0, 3000.0, 3600.0]
    for at, revision in made:
        assert 600.0 <= at - (revision - 1) <= 660.0  # one more sample interval is kept, as etcd does


def test_a_period_of_many_hours_compacts_every_hour_after_the_first_period() -> None:
    """A day's history goes hour by hour, not a day's worth at once."""
    made = run_periodic(24 * HOUR_S, hours=27)
    assert [at / HOUR_S for at, _ in made] == pytest.approx([24, 25, 26, 27])
    assert all(24 * HOUR_S <= at - (revision - 1) <= 24.1 * HOUR_S + 1 for at, revision in made)


def test_members_that_follow_take_samples_so_that_a_new_leader_goes_on() -> None:
    """Leadership that moves more often than the period must not keep the store from ever being compacted."""
    schedule = PeriodicSchedule(100.0, 0.0)
    for step in range(15):
        assert schedule.due(step * 10.0, step + 1, leads=False) is None
    assert schedule.due(150.0, 16, leads=True) == 5


def test_what_failed_is_due_again_at_the_next_interval_and_what_did_not_change_is_not() -> None:
    """A compaction that nobody applied is not forgotten for an hour; one without news is not worth an entry."""
    schedule = PeriodicSchedule(100.0, 0.0)
    due = [schedule.due(step * 10.0, 7, leads=True) for step in range(12)]
    assert due == [None] * 10 + [7, 7]
    schedule.compacted(110.0, 7)
    assert [schedule.due(200.0 + step * 10.0, 7, leads=True) for step in range(30)] == [None] * 30


def test_by_revision_so_many_are_kept() -> None:
    """Every five minutes, the distance is what was asked for; a store that is younger than that is left alone."""
    schedule = RevisionSchedule(1000)
    assert schedule.interval_s == 300.0
    assert schedule.due(0.0, 1000, leads=True) is None
    assert schedule.due(300.0, 1500, leads=False) is None
    assert schedule.due(300.0, 1500, leads=True) == 500
    schedule.compacted(300.0, 500)
    assert schedule.due(600.0, 1500, leads=True) is None
    assert schedule.due(900.0, 1501, leads=True) == 501

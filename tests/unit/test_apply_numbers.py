"""What the state machine counts of its work, as /metrics shows it."""

from __future__ import annotations

from core.apply.numbers import ApplyNumbers
from core.metrics import Distribution
from core.mvcc.event import Event, EventType, Revised

PUT = Event(EventType.PUT, b"k", b"12345", None)
DELETE = Event(EventType.DELETE, b"k", b"", None)


def values(numbers: ApplyNumbers) -> dict[str, float | Distribution]:
    """Return the samples by family."""
    return {sample.family: sample.value for sample in numbers.samples()}


def test_changes_are_counted_by_kind() -> None:
    """A transaction is what changes more than one key; puts count with their bytes."""
    numbers = ApplyNumbers()
    numbers.count([Revised(2, [PUT]), Revised(3, [PUT, DELETE]), Revised(4, [DELETE])])
    numbers.count([])
    found = values(numbers)
    assert found["etcd_mvcc_put_total"] == 2
    assert found["etcd_mvcc_delete_total"] == 2
    assert found["etcd_mvcc_txn_total"] == 1
    assert found["etcd_debugging_mvcc_total_put_size_in_bytes"] == 10


def test_a_compaction_is_timed_as_a_whole_and_step_by_step() -> None:
    """Milliseconds, as the names of the families say; the end is told in Unix seconds."""
    numbers = ApplyNumbers()
    numbers.compaction_began_s = 10.0
    numbers.compaction_step(0.002, 10.5, 1_700_000_000.5, finished=False)
    unfinished = values(numbers)
    numbers.compaction_step(0.004, 11.0, 1_700_000_001.5, finished=True)
    found = values(numbers)
    steps = found["etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds"]
    whole = found["etcd_debugging_mvcc_db_compaction_total_duration_milliseconds"]
    assert isinstance(steps, Distribution)
    assert isinstance(whole, Distribution)
    assert (sum(steps.counts), steps.total, sum(whole.counts), whole.total) == (2, 6.0, 1, 1000.0)
    assert unfinished["etcd_debugging_mvcc_db_compaction_last"] == 0
    assert found["etcd_debugging_mvcc_db_compaction_last"] == 1_700_000_001
    assert numbers.compaction_began_s is None

"""How long requests take by kind, counted by the batch: no request may be lost in that, and none counted twice."""

from __future__ import annotations

import pytest

from core.errors import Compacted, EtcdError
from core.metrics import Distribution
from net.rpc import Code, Status
from services.request_times import RequestTimes, name_of
from tests.fakes import FakeCall, FakeClock

REQUESTS, RANGES = "etcd_server_request_duration_seconds", "etcd_server_range_duration_seconds"


class Measured:
    """Times on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[float] = []
        self.times = RequestTimes(self.clock.monotonic_s, lambda _call, took_s, _now_s: self.told.append(took_s))

    def read(self, took_s: float = 0.0, *, alike: bool = True, error: EtcdError | None = None) -> FakeCall:
        """Answer a range, which takes that long."""
        call = FakeCall()

        def make() -> bytes:
            self.clock.now_s += took_s
            if error is not None:
                raise error
            return b"range"

        self.times.answer_range(call, make, alike=alike)
        return call

    def found(self, family: str, *labels: str) -> tuple[int, float]:
        """Return how many were counted, and their seconds in all."""
        for each in self.times.samples():
            if (each.family, each.labels) == (family, labels):
                assert isinstance(each.value, Distribution)
                return sum(each.value.counts), round(each.value.total, 6)
        return 0, 0.0


def test_writes_are_counted_by_kind_with_the_time_of_each() -> None:
    """A batch may hold puts and transactions that came at different times."""
    measured = Measured()
    waited = [(FakeCall(), 1.0, b"\x22"), (FakeCall(), 2.0, b"\x32"), (FakeCall(), 2.5, b"\x22")]
    measured.times.written(waited, 3.0)
    measured.times.written([], 4.0)
    measured.times.failed((FakeCall(), 3.0, b"\x22"), 3.25)
    assert measured.found(REQUESTS, "Put", "true") == (2, 2.5)
    assert measured.found(REQUESTS, "Txn", "true") == (1, 1.0)
    assert measured.found(REQUESTS, "Put", "false") == (1, 0.25)


def test_a_lone_read_is_measured_itself() -> None:
    """With one client every number is exact."""
    measured = Measured()
    for took_s in (0.001, 0.002):
        measured.read(took_s)
        measured.times.answering(None)
    assert measured.found(RANGES, "true") == (2, 0.003)
    assert measured.found(REQUESTS, "Range", "true") == (2, 0.003)


def test_reads_of_one_key_in_a_turn_are_counted_with_the_first() -> None:
    """Clocks cost as much as such a read does; the count must be exact all the same."""
    measured = Measured()
    measured.read(0.001)
    measured.read(0.001)
    measured.read(0.001)
    measured.times.answering(None)
    assert measured.found(RANGES, "true") == (3, 0.003)
    assert measured.found(REQUESTS, "Range", "true") == (3, 0.003)


def test_what_waited_for_the_others_has_taken_since_it_came() -> None:
    """A linearizable read takes as long as its round; reading takes but a small part of that."""
    measured = Measured()
    since_s = measured.clock.monotonic_s()
    measured.clock.now_s += 0.5
    measured.times.answering(since_s)
    measured.read()
    measured.read()
    measured.times.answer_txn(FakeCall(), lambda: b"txn")
    measured.times.answering(None)
    assert measured.found(REQUESTS, "Range", "true") == (2, 1.0)
    assert measured.found(REQUESTS, "ReadonlyTxn", "true") == (1, 0.5)
    assert measured.found(RANGES, "true") == (2, 0.0)


def test_a_range_of_many_keys_is_always_measured_itself() -> None:
    """It is the one that somebody looks for: it must not hide behind a quick one, nor lend its time to others."""
    measured = Measured()
    measured.read(0.001)
    measured.read(2.0, alike=False)
    measured.read(0.001)
    measured.times.answering(None)
    assert measured.found(RANGES, "true") == (3, 2.002)


def test_what_is_refused_is_counted_apart() -> None:
    """An error rate is read from this family."""
    measured = Measured()
    measured.read()
    first = measured.read(error=Compacted())
    measured.times.answer_txn(FakeCall(), lambda: b"txn")
    measured.times.answering(None)
    assert first.status is not None
    assert first.status.code is Code.OUT_OF_RANGE
    assert measured.found(REQUESTS, "Range", "false")[0] == measured.found(RANGES, "false")[0] == 1
    assert measured.found(REQUESTS, "ReadonlyTxn", "true")[0] == 1


def test_reads_of_a_worker_are_counted_and_told_when_they_end() -> None:
    """These are the slow ones, which go into the log; one that nobody waits for any more is no answer."""
    measured = Measured()
    answered, refused, left = (measured.times.long_range(FakeCall()) for _ in range(3))
    txn = measured.times.long_txn(FakeCall())
    measured.clock.now_s += 2.0
    answered.reply(b"range")
    refused.fail(Status(Code.OUT_OF_RANGE, "compacted"))
    txn.reply(b"txn")
    assert measured.told == [2.0, 2.0, 2.0]
    assert measured.found(REQUESTS, "Range", "true") == measured.found(RANGES, "true") == (1, 2.0)
    assert measured.found(REQUESTS, "Range", "false") == (1, 2.0)
    assert measured.found(REQUESTS, "ReadonlyTxn", "true") == (1, 2.0)
    assert not left.done


@pytest.mark.parametrize(
    ("tag", "name"),
    [(b"\x22", "Put"), (b"\x2a", "DeleteRange"), (b"\x42", "LeaseGrant"), (b"\xa2\x3f", "Authenticate")],
)
def test_kinds_are_called_as_in_etcd(tag: bytes, name: str) -> None:
    """Dashboards select by these names."""
    assert name_of(tag) == name

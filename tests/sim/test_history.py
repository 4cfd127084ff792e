"""The checks of a history, each shown by hand-made ones the fault that it is there for."""

from __future__ import annotations

import pytest

from proto.kv_pb2 import KeyValue
from proto.rpc_pb2 import DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, WatchResponse
from sim import operations
from sim.history import Asked, check_history
from sim.schedule import Failure
from sim.truth import Truth
from sim.watching import Watched

KEY = b"k"


def kv(value: bytes, revision: int, version: int) -> KeyValue:
    """Return what KEY holds, which was created at revision 2."""
    return KeyValue(key=KEY, value=value, mod_revision=revision, create_revision=2, version=version)


def truth_of(*values: bytes | None) -> Truth:
    """Return a truth in which KEY got these values from revision 2 on; None, which comes last, deletes it."""
    truth = Truth()
    for revision, value in enumerate(values, 2):
        record = KeyValue(key=KEY) if value is None else kv(value, revision, revision - 1)
        truth.learn("m", revision, 0, record.SerializeToString(), tombstone=value is None)
    return truth


def put(
    truth: Truth, value: bytes, times: tuple[float, float], revision: int | None, *, refused: bool = False
) -> Asked:
    """Return a put; without *revision* it got no answer that says one."""
    operation, answer = operations.put(truth, KEY, value), None
    if revision is not None:
        before = truth.get(KEY, revision - 1)
        prev_kv = KeyValue.FromString(before) if before else None
        answer = PutResponse(header=ResponseHeader(revision=revision), prev_kv=prev_kv).SerializeToString()
    return Asked("c1", "m", operation, *times, answer, refused)


def read(truth: Truth, times: tuple[float, float], revision: int, *, serializable: bool = False) -> Asked:
    """Return a read that was answered rightly as of *revision*."""
    operation = operations.read(truth, KEY, b"", serializable=serializable)
    kvs = [KeyValue.FromString(each) for each in truth.range(KEY, b"", revision)]
    answer = RangeResponse(header=ResponseHeader(revision=revision), kvs=kvs, count=len(kvs)).SerializeToString()
    return Asked("c2", "m", operation, *times, answer)


def delete(truth: Truth, times: tuple[float, float], revision: int | None) -> Asked:
    """Return a delete of KEY; without *revision* it got no answer."""
    operation, answer = operations.delete(truth, KEY, b""), None
    if revision is not None:
        kvs = [KeyValue.FromString(each) for each in truth.range(KEY, b"", revision - 1)]
        header = ResponseHeader(revision=revision)
        answer = DeleteRangeResponse(header=header, deleted=len(kvs), prev_kvs=kvs).SerializeToString()
    return Asked("c3", "m", operation, *times, answer)


def test_a_sound_history() -> None:
    """Overlapping questions may be ordered either way, and what got no answer may have happened or not."""
    truth = truth_of(b"one", b"two", None)
    check_history(
        truth,
        [
            put(truth, b"one", (0.0, 1.0), 2),
            read(truth, (0.5, 1.5), 2),
            put(truth, b"two", (1.0, 2.0), None),
            put(truth, b"never", (1.0, 2.0), None),
            put(truth, b"refused", (1.0, 2.0), None, refused=True),
            read(truth, (1.5, 3.0), 2),
            read(truth, (3.0, 4.0), 3),
            delete(truth, (3.0, 4.0), None),
            read(truth, (5.0, 6.0), 3, serializable=True),
        ],
    )


def test_finds_a_stale_read() -> None:
    """A linearizable read sees what was acknowledged before it was asked."""
    truth = truth_of(b"one", b"two")
    history = [put(truth, b"one", (0.0, 1.0), 2), put(truth, b"two", (1.0, 2.0), 3), read(truth, (2.1, 3.0), 2)]
    with pytest.raises(Failure, match="as of revision 2, although revision 3"):
        check_history(truth, history)


def test_finds_a_lost_write() -> None:
    """What was acknowledged is in the history that all members share."""
    truth = truth_of(b"one", b"other")
    history = [
        put(truth, b"one", (0.0, 1.0), 2),
        put(truth, b"lost", (1.0, 2.0), 3),
        put(truth, b"other", (1, 2), None),
    ]
    with pytest.raises(Failure, match="acknowledged at revision 3, which does not hold it"):
        check_history(truth, history)


def test_finds_a_wrong_value() -> None:
    """A serializable read may be old, but never wrong."""
    truth = truth_of(b"one")
    wrong = RangeResponse(header=ResponseHeader(revision=2), kvs=[kv(b"two", 2, 1)], count=1).SerializeToString()
    asked = read(truth, (1.0, 2.0), 2, serializable=True)._replace(answer=wrong)
    with pytest.raises(Failure, match="a read at revision 2"):
        check_history(truth, [put(truth, b"one", (0.0, 1.0), 2), asked])


def test_finds_a_write_before_its_time() -> None:
    """Also of a write without an answer: it cannot have happened before it was asked for."""
    truth = truth_of(b"one", b"two")
    history = [put(truth, b"two", (0.0, 1.0), 3), put(truth, b"one", (2.0, 3.0), None)]
    with pytest.raises(Failure, match="took effect at revision 2, which was there before it was asked for"):
        check_history(truth, history)


def test_finds_a_refused_write_that_happened() -> None:
    """Whoever was told that nothing has happened does it again."""
    truth = truth_of(b"one")
    with pytest.raises(Failure, match="was refused, but took effect at revision 2"):
        check_history(truth, [put(truth, b"one", (0.0, 1.0), None, refused=True)])


def test_finds_what_nobody_asked_for() -> None:
    """Neither values nor deletions come from nowhere; and one delete without an answer explains one deletion."""
    with pytest.raises(Failure, match="nobody wrote b'one'"):
        check_history(truth_of(b"one"), [])
    truth = truth_of(b"one", None)
    history = [put(truth, b"one", (0.0, 1.0), 2)]
    with pytest.raises(Failure, match="nobody asked for what revision 3 deleted"):
        check_history(truth, history)
    late = [delete(truth, (1.5, 2.0), None)]
    check_history(truth, [*history, *late])
    seen = Asked(
        "c4", "m", operations.read(truth, KEY, b"", serializable=False), 1.0, 1.2, read(truth, (0, 0), 3).answer
    )
    with pytest.raises(Failure, match="nobody asked for what revision 3 deleted"):
        check_history(truth, [*history, seen, *late])


def test_finds_a_member_that_goes_back() -> None:
    """Within one life a member only moves on, also for serializable reads."""
    truth = truth_of(b"one", b"two")
    history = [
        put(truth, b"one", (0.0, 1.0), 2),
        put(truth, b"two", (0.0, 1.0), 3),
        read(truth, (2.0, 3.0), 3, serializable=True),
        read(truth, (4.0, 5.0), 2, serializable=True),
    ]
    with pytest.raises(Failure, match="as of revision 2, after 3"):
        check_history(truth, history)


def events(*kvs: KeyValue) -> WatchResponse:
    """Return a response with puts."""
    response = WatchResponse(header=ResponseHeader(revision=kvs[-1].mod_revision))
    for each in kvs:
        response.events.add().kv.CopyFrom(each)
    return response


@pytest.mark.parametrize(
    ("responses", "fault"),
    [
        ([events(kv(b"one", 2, 1)), events(kv(b"one", 2, 1))], "again or in part"),
        ([events(kv(b"two", 3, 2))], "expected"),
        ([events(kv(b"two", 3, 2), kv(b"one", 2, 1))], "expected"),
        ([events(kv(b"else", 2, 1))], "expected"),
        ([WatchResponse(header=ResponseHeader(revision=3), watch_id=-1)], "was told of progress to 3"),
        ([WatchResponse(header=ResponseHeader(revision=3), canceled=True)], "was cancelled"),
    ],
    ids=["again", "a gap", "out of order", "another value", "progress ahead of events", "cancelled for no reason"],
)
def test_finds_a_watch_that_is_wrong(responses: list[WatchResponse], fault: str) -> None:
    """Watches are ordered, unique and complete; what is said of progress is true."""
    watched = Watched("w", truth_of(b"one", b"two"), KEY, b"", prev_kv=False)
    watched.take(WatchResponse(header=ResponseHeader(revision=1), created=True))

    def take(response: WatchResponse) -> None:
        if response.canceled:
            watched.cancelled(response)
        else:
            watched.take(response)

    for response in responses[:-1]:
        take(response)
    with pytest.raises(Failure, match=fault):
        take(responses[-1])

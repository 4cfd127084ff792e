"""What the cache of ranges keeps, and what makes it forget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Compacted
from grpcproxy.cache import WRITES_REMEMBERED, RangeCache, overlap
from proto.rpc_pb2 import RangeRequest


def request(key: bytes = b"k", end: bytes = b"", **more: int | bool) -> RangeRequest:
    return RangeRequest(key=key, range_end=end, **more)  # type: ignore[arg-type]


def filled(*requests: RangeRequest, cache: RangeCache | None = None) -> RangeCache:
    """Return a cache with an answer to each of *requests*."""
    cache = RangeCache() if cache is None else cache
    for each in requests:
        cache.add(each, b"answer", cache.now)
    return cache


def test_a_linearizable_answer_serves_serializable_reads() -> None:
    """It is at least as new as they ask for (etcd's rule); the same range with other limits is another answer."""
    cache = filled(request())
    assert cache.find(request(serializable=True)) == b"answer"
    assert cache.find(request(serializable=True, limit=1)) is None


@pytest.mark.parametrize(
    ("key", "end", "forgotten"),
    [
        (b"b", b"", True),
        (b"a", b"", False),
        (b"a", b"b", False),
        (b"a", b"c", True),
        (b"d", b"", False),
        (b"a", b"\0", True),
    ],
)
def test_writes_forget_what_they_touch(key: bytes, end: bytes, *, forgotten: bool) -> None:
    """A client that has written through this proxy reads no older value here, of a key or of a range around it."""
    cache = filled(request(b"b"), request(b"b", b"d"), request(b"b", b"d", revision=5))
    cache.invalidate(key, end)
    assert (cache.find(request(b"b", b"d")) is None) == forgotten
    assert (cache.find(request(b"b")) is None) == forgotten
    assert cache.find(request(b"b", b"d", revision=5)) is not None, "the past does not change"


def test_an_answer_read_before_a_write_is_not_kept_after_it() -> None:
    """The write was answered while the read was on its way: kept, its old value would stay for ever."""
    cache = RangeCache()
    began = cache.now
    cache.invalidate(b"k")
    cache.add(request(), b"old", began)
    cache.add(request(b"other"), b"kept", began)
    assert (cache.find(request()), cache.find(request(b"other"))) == (None, b"kept")
    for _ in range(WRITES_REMEMBERED + 1):
        cache.invalidate(b"x")
    cache.add(request(b"third"), b"too long ago to know", began)
    assert cache.find(request(b"third")) is None


def test_compacted_revisions_are_refused() -> None:
    """As a member would; and answers to them are not kept."""
    cache = filled(request(revision=4))
    cache.compact(5)
    with pytest.raises(Compacted):
        cache.find(request(revision=4))
    cache.add(request(revision=5), b"x", cache.now)
    assert len(cache) == 0


def test_clearing_also_drops_what_is_on_its_way() -> None:
    """After a change of permissions nothing that was read before may be served."""
    cache = filled(request())
    began = cache.now
    cache.clear()
    cache.add(request(), b"late", began)
    assert (len(cache), cache.find(request())) == (0, None)


def test_the_least_used_leave_first() -> None:
    """By count and by size, so that clients that ask for everything cannot fill the memory."""
    cache = filled(request(b"a"), request(b"b"), cache=RangeCache(entries_max=2))
    cache.find(request(b"a"))
    filled(request(b"c"), cache=cache)
    assert [cache.find(request(key)) is not None for key in (b"a", b"b", b"c")] == [True, False, True]
    small = RangeCache(bytes_max=10)
    small.add(request(b"a"), bytes(6), 0)
    small.add(request(b"b"), bytes(6), 0)
    small.add(request(b"c"), bytes(11), 0)
    assert [small.find(request(key)) is not None for key in (b"a", b"b", b"c")] == [False, True, False]


ends = st.one_of(st.just(b""), st.just(b"\0"), st.binary(min_size=1, max_size=2))


@given(st.binary(max_size=2), ends, st.binary(max_size=2), ends)
def test_ranges_overlap_if_a_key_lies_in_both(key: bytes, end: bytes, other: bytes, other_end: bytes) -> None:
    """Against the definition, for ranges that hold at least their own first key."""

    def holds(start: bytes, stop: bytes, each: bytes) -> bool:
        return each == start if not stop else start <= each and (stop == b"\0" or each < stop)

    if holds(key, end, key) and holds(other, other_end, other):
        shared = holds(key, end, other) or holds(other, other_end, key)
        assert overlap(key, end, other, other_end) == shared

"""WatchRanges against a walk over all ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.mvcc.watch_ranges import FROM_KEY, WatchRanges
from core.mvcc.watch_streams import StreamId, WatchCreate, Watcher

KEYS = st.binary(min_size=1, max_size=2)


def holds(watcher: Watcher, key: bytes) -> bool:
    if not watcher.range_end:
        return key == watcher.key
    return key >= watcher.key and (watcher.range_end == FROM_KEY or key < watcher.range_end)


@st.composite
def watchers(draw: st.DrawFn) -> Watcher:
    start, end = draw(KEYS), draw(st.sampled_from([b"", FROM_KEY]) | KEYS)
    if end not in {b"", FROM_KEY} and end <= start:
        end = start + b"\x00"
    request = WatchCreate(start, end, prev_kv=draw(st.booleans()))
    return Watcher(StreamId(0), 0, request, key=start, next_revision=1)


@given(st.lists(watchers(), max_size=40), st.data())
def test_match_finds_exactly_the_ranges_that_hold_a_key(added: list[Watcher], data: st.DataObject) -> None:
    """A range overlooked loses events, one too many leaks another tenant's; adding and removing must not disturb it."""
    ranges = WatchRanges()
    for watcher in added:
        ranges.add(watcher)
    kept = list(added)
    for watcher in data.draw(st.permutations(added)):
        key = data.draw(KEYS)
        groups = ranges.match(key)
        found = [each for group in groups for variant in group.variants.values() for each in variant]
        assert len({id(group) for group in groups}) == len(groups)
        assert sorted(map(id, found)) == sorted(id(each) for each in kept if holds(each, key))
        ranges.remove(watcher)
        kept.remove(watcher)
    assert ranges.match(b"a") == []


@given(st.lists(st.integers(0, 300), unique=True, max_size=200), st.data())
def test_the_interval_tree_stays_flat(starts: list[int], data: st.DataObject) -> None:
    """Clients choose the ranges: no order of theirs may turn the tree into a list."""
    ranges = WatchRanges()
    for start in starts:
        key = b"%03d" % start
        request = WatchCreate(key, key + b"\xff")
        ranges.add(Watcher(StreamId(0), 0, request, key=key, next_revision=1))
    if ranges._tree is not None:
        assert ranges._tree.height <= 1.45 * (len(starts) + 2).bit_length()

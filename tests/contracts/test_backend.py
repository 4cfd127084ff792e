"""What every backend owes the store: run on the fake in memory and on LevelDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.mvcc.backend import MemoryBackend
from storage.leveldb import open_leveldb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.mvcc.backend import Backend


@pytest.fixture(params=["memory", "leveldb"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made: Backend = MemoryBackend() if request.param == "memory" else open_leveldb(tmp_path / "db")
    yield made
    made.close()


def _fill(backend: Backend) -> None:
    backend.write([(b"k%d" % number, b"v%d" % number) for number in range(5)])


def test_a_written_batch_is_read_back_and_may_remove(backend: Backend) -> None:
    """A value of None removes: deletions and puts share one atomic batch."""
    _fill(backend)
    backend.write([(b"k1", None), (b"k2", b"new"), (b"unknown", None)], sync=True)
    assert backend.get(b"k1") is None
    assert backend.get(b"k2") == b"new"
    assert list(backend.scan(b"k0", b"k4")) == [(b"k0", b"v0"), (b"k2", b"new"), (b"k3", b"v3")]


def test_scans_include_start_exclude_stop_in_both_directions(backend: Backend) -> None:
    """The store's bounds rely on it: a wrong edge shows a neighbour's history."""
    _fill(backend)
    assert list(backend.scan_keys(b"k1", b"k3")) == [b"k1", b"k2"]
    assert list(backend.scan_keys(b"k1", b"k3", reverse=True)) == [b"k2", b"k1"]
    assert list(backend.scan_values(b"k1", b"k3")) == [b"v1", b"v2"]
    assert list(backend.scan(b"k1", b"k3", reverse=True)) == [(b"k2", b"v2"), (b"k1", b"v1")]


def test_the_last_of_a_range_is_found(backend: Backend) -> None:
    """The version of a key before a revision is looked up so: a neighbour's must never be taken for it."""
    _fill(backend)
    backend.write([(b"k2", None)])
    last = backend.finder()
    assert last(b"k0", b"k4") == (b"k3", b"v3")
    assert last(b"k1", b"k3") == (b"k1", b"v1")
    assert last(b"k2", b"k3") is None
    assert last(b"a", b"k0") is None
    assert last(b"k0", b"z") == (b"k4", b"v4")
    assert last(b"z", b"zz") is None
    for start, stop in ((b"k1", b"k1"), (b"k3", b"k1")):
        assert last(start, stop) is None


def test_a_finder_does_not_see_later_writes(backend: Backend) -> None:
    """One is used for a whole step or hash, of the map as it was at the beginning."""
    _fill(backend)
    last, of_snapshot = backend.finder(), backend.snapshot().finder()
    backend.write([(b"k4", None), (b"k5", b"new")])
    assert last(b"k", b"l") == of_snapshot(b"k", b"l") == (b"k4", b"v4")
    assert backend.finder()(b"k", b"l") == (b"k5", b"new")


def test_an_empty_or_backward_range_is_empty(backend: Backend) -> None:
    """A client may ask for a range whose end is at or before its key, and gets nothing."""
    _fill(backend)
    for start, stop in ((b"k2", b"k2"), (b"k3", b"k1"), (b"z", b"a")):
        assert list(backend.scan(start, stop)) == []
        assert list(backend.scan_keys(start, stop)) == []
        assert list(backend.scan_keys(start, stop, reverse=True)) == []
        assert list(backend.scan_values(start, stop)) == []


def test_a_snapshot_stays_as_it_was(backend: Backend) -> None:
    """Views are read while entries are applied."""
    _fill(backend)
    snapshot = backend.snapshot()
    backend.write([(b"k1", b"later"), (b"k2", None), (b"k9", b"new")])
    assert snapshot.get(b"k1") == b"v1"
    assert list(snapshot.scan_keys(b"k", b"l")) == [b"k0", b"k1", b"k2", b"k3", b"k4"]
    assert backend.get(b"k1") == b"later"


def test_a_scan_that_began_does_not_see_later_writes(backend: Backend) -> None:
    """Compaction writes while it walks."""
    _fill(backend)
    walk = backend.scan_keys(b"k", b"l")
    assert next(walk) == b"k0"
    backend.write([(b"k1", None), (b"k11", b"new")])
    assert list(walk) == [b"k1", b"k2", b"k3", b"k4"]


def test_sizes_agree_and_compacting_keeps_the_content(backend: Backend) -> None:
    """Status shows both sizes, and the one in use is never above the one on disk."""
    _fill(backend)
    backend.write([(b"k1", None)])
    backend.compact()
    assert 0 <= backend.size_in_use_bytes() <= backend.size_bytes()
    assert list(backend.scan_keys(b"k", b"l")) == [b"k0", b"k2", b"k3", b"k4"]


def test_syncing_may_come_after_writing(backend: Backend) -> None:
    """Whoever lets the raft log go syncs first, off the thread that writes."""
    _fill(backend)
    backend.sync()
    if isinstance(backend, MemoryBackend):
        backend.write([(b"k9", b"unsynced")])
        backend.crash()
    assert list(backend.scan_keys(b"k", b"l")) == [b"k0", b"k1", b"k2", b"k3", b"k4"]

"""What walks a store stops with its reader: a snapshot of gigabytes, or a hash, must not lie in memory as a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mvcc.backend import MemoryBackend
from core.mvcc.keyspace import (
    CURRENT,
    RECORDS,
    Bucket,
    attached_key,
    history_key,
    record_key,
    record_key_of_history,
    record_start,
)
from core.mvcc.record import encode_kv, tagged
from core.mvcc.staging import Staging
from core.mvcc.varint import varint
from core.mvcc.view import View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.mvcc.backend import Reader

READ_AHEAD_MAX = 3
"""How many items may be taken from a scan before the first comes out: the next key tells that one's last version."""


class Steep:
    """A Reader whose scans fail whoever takes more of them than the first items."""

    def __init__(self, backend: Reader) -> None:
        self._backend = backend
        self.get = backend.get
        self.finder = backend.finder

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """See Reader."""
        for number, item in enumerate(self._backend.scan(start, stop, reverse=reverse)):
            assert number < READ_AHEAD_MAX, "walked on without being asked"
            yield item

    def scan_keys(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[bytes]:
        """See Reader."""
        return map(_first, self.scan(start, stop, reverse=reverse))

    def scan_values(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        """See Reader."""
        return map(_second, self.scan(start, stop))


class SteepBackend(Steep, MemoryBackend):
    """The same as the backend below staged changes."""

    def __init__(self, backend: Reader) -> None:
        MemoryBackend.__init__(self)
        Steep.__init__(self, backend)  # whose methods come first


def _first(item: tuple[bytes, bytes]) -> bytes:
    return item[0]


def _second(item: tuple[bytes, bytes]) -> bytes:
    return item[1]


KEYS = [b"key%d" % number for number in range(9)]


def _filled() -> MemoryBackend:
    backend = MemoryBackend()
    for number, key in enumerate(KEYS):
        main = number + 2
        kv = encode_kv(key, varint(main), varint(main), 1, b"value", 7)
        at = history_key(key, main, 0)
        backend.write(
            [
                (CURRENT + key, tagged(kv)),
                (at, b""),
                (record_key_of_history(at), kv),
                (attached_key(7, key), b""),
                (Bucket.LEASE.prefix + key, b"lease"),
            ]
        )
    return backend


def _kv(number: int) -> bytes:
    return encode_kv(KEYS[number], varint(number + 2), varint(number + 2), 1, b"value", 7)


def test_a_view_is_walked_no_further_than_it_is_read() -> None:
    """Live and historic ranges, what a snapshot holds, buckets and attached keys: all of them are streams."""
    view = View(Steep(_filled()), revision=11, compact_revision=0, applied_index=1, applied_term=1)
    assert next(view.walk(b"key", b"kez")) == tagged(_kv(0))
    assert next(view.walk(b"key", b"kez", revision=5)) == tagged(_kv(0))
    assert next(view.versions_at(b"key", b"kez", 11)) == history_key(KEYS[0], 2, 0)
    assert next(view.revisions()) == (record_key(2, 0)[1:], _kv(0))
    assert next(view.bucket_items(Bucket.LEASE)) == (KEYS[0], b"lease")
    assert next(view.attached()) == (7, KEYS[0])
    assert view.range(b"key", b"kez", limit=1) == [tagged(_kv(0))]
    assert len(view.history(0, 1)) == 1


def test_staged_changes_do_not_make_a_walk_greedy() -> None:
    """A write transaction reads the whole store, too, before it changes some of it."""
    staging = Staging(SteepBackend(_filled()))
    staging.current[CURRENT + b"key00"] = b"staged"
    staging.history[record_key(1, 0)] = b"staged"
    assert next(staging.scan_keys(CURRENT, CURRENT + b"z")) == CURRENT + KEYS[0]
    assert next(staging.scan_values(CURRENT, CURRENT + b"z")) == tagged(_kv(0))
    assert next(staging.scan(record_start(0), RECORDS + b"\xff")) == (record_key(1, 0), b"staged")

"""Reading through what is staged: it must read as if it had been written."""

from __future__ import annotations

from core.mvcc.backend import MemoryBackend
from core.mvcc.keyspace import CURRENT
from core.mvcc.staging import Staging


def test_the_last_of_a_range_is_found_through_what_is_staged() -> None:
    """An entry reads an old version of a key that entries of the same batch have changed, too."""
    written: list[tuple[bytes, bytes | None]] = [(CURRENT + b"%d" % number, b"written") for number in range(5)]
    backend = MemoryBackend()
    backend.write(written)
    staged: dict[bytes, bytes | None] = {
        CURRENT + b"1": b"staged",
        CURRENT + b"2": None,
        CURRENT + b"3": None,
        CURRENT + b"9": None,
    }
    staging = Staging(backend)
    staging.current.update(staged)
    flushed = MemoryBackend()
    flushed.write([*written, *staged.items()])
    ends = [CURRENT + b"%d" % number for number in range(10)]
    found = {(start, stop): staging.finder()(start, stop) for start in ends for stop in ends}
    assert found == {(start, stop): flushed.finder()(start, stop) for start in ends for stop in ends}
    assert found[ends[0], ends[4]] == (CURRENT + b"1", b"staged")

"""Reading through what is staged: it must read as if it had been written."""

from __future__ import annotations

from core.mvcc.backend import MemoryBackend
from core.mvcc.keyspace import CURRENT
from core.mvcc.staging import RECENT_BYTES_MAX, Staging


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


class Counted(MemoryBackend):
    """Remembers which keys were read one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        self.read.append(key)
        return super().get(key)


def test_live_records_lately_in_use_are_not_read_again() -> None:
    """What was written, removed or looked for stands in memory after the flush as it does in the backend."""
    backend = Counted()
    staging = Staging(backend)
    staging.current[b"ca"] = b"1"
    staging.current[b"cb"] = b"2"
    staging.write(sync=False)
    staging.current[b"cb"] = None
    assert (staging.get_current(b"ca"), staging.get_current(b"cb")) == (b"1", None)
    staging.write(sync=False)
    for _ in range(2):
        assert [staging.get_current(key) for key in (b"ca", b"cb", b"cc")] == [b"1", None, None]
    assert backend.read == [b"cc"]


def test_what_is_remembered_of_live_records_is_bounded() -> None:
    """The store is larger than memory may become; what stays in use is kept, the rest is read anew."""
    backend = Counted()
    staging = Staging(backend)
    count = 4 * RECENT_BYTES_MAX // 1000
    for number in range(count):
        staging.current[b"c%d" % number] = b"%1000d" % number
        staging.write(sync=False)
        assert staging.get_current(b"c0") == b"%1000d" % 0
    assert backend.read == []
    assert staging.get_current(b"c1") == b"%1000d" % 1
    assert backend.read == [b"c1"]

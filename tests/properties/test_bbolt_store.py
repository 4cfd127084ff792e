"""Stores through bbolt files and back: nothing that a member would notice may differ."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import EtcdError
from core.mvcc.backend import MemoryBackend
from core.mvcc.hashing import hash_all, hash_kv
from core.mvcc.keyspace import ATTACHED, CURRENT, HISTORY, Bucket, after, record_key
from core.mvcc.rebuild import rebuild
from core.mvcc.store import Store
from storage.bbolt.export import Export, export
from storage.bbolt.load import NotAStore, import_into
from storage.bbolt.pages import BoltError
from storage.bbolt.reader import BoltFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    History = Sequence[Any]

KEYS = st.sampled_from([b"a", b"a\x00", b"a\x00\xff", b"ab", b"\x00", b"\xff", b"k" * 200])
PUTS = st.tuples(
    st.just("put"), KEYS, st.sampled_from([b"", b"v", b"x" * 130, b"y" * 9000]), st.sampled_from([0, 0, 7, -7])
)
DELETES = st.tuples(st.just("delete"), KEYS)
COMPACTIONS = st.tuples(st.just("compact"), st.integers(0, 4), st.integers(0, 5))
THE_STORES_OWN = {b"consistent_index", b"term", b"scheduledCompactRev", b"finishedCompactRev"}
"""What nobody else puts into bucket meta; Hypothesis finds such names in the sources and tries them."""
BUCKETS = st.tuples(
    st.just("bucket"), st.sampled_from(Bucket), st.binary(min_size=1, max_size=30), st.binary(max_size=90)
).filter(lambda step: step[1] is not Bucket.META or step[2] not in THE_STORES_OWN)
TRANSACTIONS = st.lists(st.one_of(PUTS, PUTS, DELETES), min_size=1, max_size=4)
HISTORIES = st.lists(st.one_of(TRANSACTIONS, TRANSACTIONS, COMPACTIONS, BUCKETS), max_size=40)


def store_with(history: History) -> Store:
    """A store after *history*; a compaction may have been left half done."""
    store = Store.open(MemoryBackend())
    for index, step in enumerate(history, 1):
        match step:
            case list():
                transaction = store.transaction()
                for change in step:
                    if change[0] == "put":
                        transaction.put(*change[1:])
                    else:
                        transaction.delete_range(change[1], b"")
                transaction.end()
            case ("compact", back, steps):
                _compact(store, store.revision - back, steps)
            case ("bucket", bucket, key, value):
                store.bucket_put(bucket, key, value)
        store.advance(index, 3)
        store.flush()
    return store


def _compact(store: Store, revision: int, steps: int) -> None:
    try:
        store.begin_compaction(revision)
    except EtcdError:
        return
    store.flush()
    for _ in range(steps):
        store.compaction_step(1)


def content(store: Store) -> dict[bytes, bytes]:
    return dict(store.backend.scan(b"\x00", b"\xff"))


@given(history=HISTORIES)
@settings(max_examples=150, deadline=None)
def test_rebuilding_gives_what_the_transactions_wrote(history: History) -> None:
    """Histories, live state and attachments follow from the records alone, after compactions too."""
    store = store_with(history)
    expected = content(store)
    spaces = (HISTORY, CURRENT, ATTACHED)
    store.backend.write([(key, None) for space in spaces for key in store.backend.scan_keys(space, after(space))])
    for _ in rebuild(store.backend):
        pass
    assert content(store) == expected


@given(history=HISTORIES)
@settings(max_examples=100, deadline=None)
def test_a_store_survives_export_and_import(history: History) -> None:
    """Every byte of the store comes back, so revisions, leases and both hashes are those of the origin."""
    store = store_with(history)
    copy = MemoryBackend()
    with TemporaryDirectory() as directory:
        path = Path(directory) / "db"
        assert export(store.view(), path) == path.stat().st_size
        import_into(path, copy)
    opened = Store.open(copy)
    assert content(opened) == content(store)
    assert opened.revision == store.revision
    assert (opened.applied_index, opened.applied_term) == (store.applied_index, store.applied_term)
    assert hash_all(opened.view(), google_crc32c.extend) == hash_all(store.view(), google_crc32c.extend)
    assert hash_kv(opened.view(), 0, google_crc32c.extend) == hash_kv(store.view(), 0, google_crc32c.extend)


@given(history=HISTORIES, data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_stores_are_refused_or_can_be_opened(history: History, data: st.DataObject) -> None:
    """Whatever bits are turned, the import says where it stopped, or its result can be opened, hashed and watched."""
    copy = MemoryBackend()
    with TemporaryDirectory() as directory:
        path = Path(directory) / "db"
        export(store_with(history).view(), path)
        damaged = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(damaged)
        try:
            import_into(path, copy)
        except BoltError as error:
            assert str(path) in str(error)  # noqa: PT017 - not all damage can be seen
            return
    view = Store.open(copy).view()
    hash_kv(view, 0, google_crc32c.extend)
    view.history(view.compact_revision, 1000, prev_kv=True)
    view.range(b"\x00", b"\x00")


def test_a_raised_revision_without_a_key_is_taken_over(tmp_path: Path) -> None:
    """The empty record with which etcdutl raises a revision counts for revision and hash, and is no key."""
    store = store_with([[("put", b"k", b"v", 0)]])
    store.backend.write([(record_key(1000, 0), b"")])
    export(store.view(), tmp_path / "db")
    copy = MemoryBackend()
    import_into(tmp_path / "db", copy)
    opened = Store.open(copy)
    assert opened.revision == 1000
    assert len(opened.view().range(b"\x00", b"\x00")) == 1
    assert opened.view().history(3, 10) == []
    store.revision = 1000
    assert hash_kv(opened.view(), 0, google_crc32c.extend).revision == 1000
    _compact(opened, 1000, 9)
    assert dict(opened.view().revisions(1000)) == {record_key(1000, 0)[1:]: b""}


def test_an_export_is_read_as_it_was_when_it_began(tmp_path: Path) -> None:
    """Writes go on while a snapshot is built and read, and none of them may show in it."""
    store = store_with([[("put", b"k%d" % number, b"v" * 5000, 0)] for number in range(2000)])
    exported = Export(store.view(), tmp_path)
    assert not exported.build()
    transaction = store.transaction()
    transaction.put(b"k1", b"later")
    transaction.end()
    store.advance(store.applied_index + 1, 3)
    store.flush()
    while not exported.build():
        pass
    pieces = list(iter(lambda: exported.read(1 << 20), b""))
    exported.close()
    assert sum(map(len, pieces)) == exported.size_bytes
    assert not list(tmp_path.iterdir())
    (tmp_path / "db").write_bytes(b"".join(pieces))
    with BoltFile(tmp_path / "db") as file:
        values = [value for _, value in file.items(b"key")]
    assert len(values) == 2000
    assert not any(b"later" in value for value in values)


def test_an_export_leaves_room_on_the_disk(tmp_path: Path) -> None:
    """A backup is worth less than the member's log, which needs the same disk."""
    exported = Export(store_with([]).view(), tmp_path, free_bytes_min=1 << 62)
    with pytest.raises(OSError, match="are free on the disk"):
        exported.build()
    exported.close()


@pytest.mark.parametrize(
    ("key", "kv"),
    [
        (b"short", b""),
        (record_key(2, 0)[1:] + b"x", b"\x0a\x01k"),
        (record_key(2, 0)[1:] + b"t", b""),
        (record_key(2, 0)[1:] + b"t", b"\x0a\x01k\x10\x02"),
        (record_key(2, 0)[1:], b"\x0a\x05k"),
        (record_key(2, 0)[1:], b"\x0a\xff"),
        (record_key(2, 0)[1:], b"\x0a\x01k\x18\x02\x10\x02\x20\x01"),
        (record_key(2, 0)[1:], b"\x0a\x01k\x10\x02\x18\x03\x20\x01"),
        (record_key(2, 0)[1:], b"\x0a\x01k\x10\x04\x18\x02\x20\x01"),
        (record_key(2, 0)[1:], b"\x0a\x01k\x10\x02\x18\x02\x20\x01\x2a\x09v"),
        (record_key(2, 0)[1:], b"\x0a\x01k\x10\x02\x18\x02\x20\x01\x2a\x01v\x38\x01"),
    ],
)
def test_records_that_no_etcd_wrote_are_refused(tmp_path: Path, key: bytes, kv: bytes) -> None:
    """The store reads records without checking them again, so the import is where a bad one must stop."""
    backend = MemoryBackend()
    backend.write([(b"r" + key, kv)])
    view = Store.open(MemoryBackend()).view()
    view.reader = backend
    export(view, tmp_path / "db")
    with pytest.raises(NotAStore, match=r"holds a bad record at offset \d+: "):
        import_into(tmp_path / "db", MemoryBackend())

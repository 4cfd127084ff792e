"""Snapshots from other members: kept only whole and sound, and taken over whole, even after a crash on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.membership.member import Member
from core.mvcc.backend import MemoryBackend
from core.mvcc.keyspace import Bucket
from core.mvcc.store import Store
from core.types import MemberId
from storage.bbolt.export import export
from storage.bbolt.pages import BoltError
from storage.incoming import IncomingFile, UnsoundSnapshot, replace_store, snapshot_path

if TYPE_CHECKING:
    from pathlib import Path


def store_with(**keys: str) -> Store:
    """A store that has applied as many entries as it has keys."""
    store = Store.open(MemoryBackend())
    for name, value in keys.items():
        transaction = store.transaction()
        transaction.put(name.encode(), value.encode(), 0)
        transaction.end()
    store.bucket_put(Bucket.MEMBERS, b"a1", b"{}")
    store.advance(len(keys) + 7, 3)
    store.flush(sync=True)
    return store


def received(store: Store, folder: Path, index: int) -> Path:
    """Export *store* and receive it."""
    source = folder / "exported"
    export(store.view(), source)
    data = source.read_bytes()
    file = IncomingFile(folder, index, 1)
    for at in range(0, len(data), 5000):
        file.write(data[at : at + 5000])
    file.finish()
    file.keep()
    return snapshot_path(folder, index)


def live(backend: MemoryBackend) -> set[bytes]:
    """Those of the tests' keys that *backend* holds."""
    view = Store.open(backend).live_view()
    return {key for key in (b"a", b"b", b"old") if view.count(key, b"")}


def test_the_store_is_replaced_by_what_came(tmp_path: Path) -> None:
    """Nothing of what was there before is left, and the applied index is the sender's."""
    path = received(store_with(a="1", b="2"), tmp_path, 9)
    backend = store_with(old="x").backend
    assert isinstance(backend, MemoryBackend)
    replace_store(path, backend, b'{"voters":[1],"auto_leave":false}')
    store = Store.open(backend)
    assert (store.applied_index, store.applied_term, store.revision) == (9, 3, 3)
    assert live(backend) == {b"a", b"b"}
    assert store.bucket_get(Bucket.MEMBERS, b"a1") == b"{}"
    assert store.bucket_get(Bucket.META, b"confState") == b'{"voters":[1],"auto_leave":false}'
    assert not path.exists()


def test_members_are_those_that_came_with_the_file(tmp_path: Path) -> None:
    """A store that etcd 3.5.1 has sent says of a member what it was when it was added, and no more."""
    path = received(store_with(a="1"), tmp_path, 8)
    backend = MemoryBackend()
    Store.open(backend)
    member = Member(MemberId(0xA1), ("http://a:2380",), name="a", client_urls=("http://a:2379",))
    replace_store(path, backend, b"{}", [member])
    assert Store.open(backend).bucket_get(Bucket.MEMBERS, b"a1") == member.to_json()


def test_a_replacement_that_was_cut_short_is_known_by_its_applied_index(tmp_path: Path) -> None:
    """At the next start the file is still there, and the store says that it has applied nothing."""
    path = received(store_with(a="1"), tmp_path, 8)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    backend = store_with(old="x").backend
    with pytest.raises(BoltError):
        replace_store(path, backend, b"{}")
    assert Store.open(backend).applied_index == 0
    path.write_bytes(whole)
    replace_store(path, backend, b"{}")
    assert Store.open(backend).applied_index == 8


def test_a_damaged_file_is_not_kept(tmp_path: Path) -> None:
    """Raft must never hear of a snapshot that cannot be started from."""
    file = IncomingFile(tmp_path, 9, 1)
    file.write(b"no database" * 1000)
    file.finish()
    with pytest.raises(UnsoundSnapshot):
        file.keep()
    assert list(tmp_path.iterdir()) == []


def test_a_transfer_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """Disks are not filled by members that come and go."""
    file = IncomingFile(tmp_path, 9, 1)
    file.write(b"half")
    file.discard()
    assert list(tmp_path.iterdir()) == []

"""A store made from a bbolt file, as etcd or actcd wrote it: the way in for snapshots of both.

Records and buckets are taken over byte for byte, so hashes stay what they were; the rest is rebuilt.  What the store
relies on is checked record by record, since bbolt has no checksums of its own: a file that passes can be opened.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from core.mvcc.keyspace import RECORDS, Bucket
from core.mvcc.rebuild import BATCH_SIZE_BYTES, rebuild
from core.mvcc.varint import read_varint
from storage.bbolt.export import KEY_BUCKET
from storage.bbolt.pages import BoltError
from storage.bbolt.reader import BoltFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from core.mvcc.backend import Backend

_NUMBER = rb"([\x80-\xff]{0,9}[\x00-\x7f])"
_BEHIND_KEY = re.compile(rb"\x10%b\x18%b\x20%b(?:\x2a%b)?" % (_NUMBER, _NUMBER, _NUMBER, _NUMBER))
"""KeyValue from create_revision to the length of the value, the fields in the order in which etcd writes them."""
_LEASE = re.compile(rb"\x30%b" % _NUMBER)
_PUT_KEY_SIZE_BYTES = 17
_TOMBSTONE_KEY_SIZE_BYTES = 18
_META_SIZES_BYTES = {b"consistent_index": 8, b"term": 8, b"scheduledCompactRev": 17, b"finishedCompactRev": 17}
_SUB_MAX = (1 << 32) - 1
_KNOWN = {bucket.bucket_name.encode(): bucket for bucket in Bucket}


class NotAStore(BoltError):  # noqa: N818 - named for what was found
    """A sound bbolt file whose content is not etcd's, or is damaged; the text names file, offset and what is wrong."""


class Imported(NamedTuple):
    """What was taken over."""

    record_count: int
    unknown_buckets: tuple[str, ...]
    """Left out, since nothing here knows what they are for."""


def import_into(path: Path, backend: Backend, progress: Callable[[str, int], None] | None = None) -> Imported:
    """Fill the empty *backend* with what the bbolt file at *path* holds, durably, so that Store.open() can be called.

    A trailer behind the database is passed over.  *progress* is told, now and then, what is being written and how many
    of it.  Raises BoltCorrupt, NotAStore, OSError; the backend must be thrown away then.
    """
    tell = progress or (lambda _what, _count: None)
    with BoltFile(path) as file:
        if KEY_BUCKET not in file.buckets:
            raise NotAStore(f"{path} is no database of etcd: it has no bucket 'key'")
        record_count = 0
        for batch in _batches(_records(file, path)):
            backend.write(batch)
            record_count += len(batch)
            tell("records", record_count)
        for name in file.buckets:
            if name in _KNOWN:
                for batch in _batches(_bucket_items(file, path, _KNOWN[name])):
                    backend.write(batch)
        unknown = tuple(name.decode(errors="replace") for name in file.buckets if name not in {*_KNOWN, KEY_BUCKET})
    for what, count in rebuild(backend):
        tell(what, count)
    backend.write([], sync=True)
    return Imported(record_count, unknown)


def _batches(items: Iterable[tuple[bytes, bytes]]) -> Iterable[list[tuple[bytes, bytes | None]]]:
    batch: list[tuple[bytes, bytes | None]] = []
    size_bytes = 0
    for item in items:
        batch.append(item)
        size_bytes += len(item[0]) + len(item[1])
        if size_bytes > BATCH_SIZE_BYTES:
            yield batch
            batch = []
            size_bytes = 0
    yield batch


def _records(file: BoltFile, path: Path) -> Iterable[tuple[bytes, bytes]]:
    for key, kv, at in file.located_items(KEY_BUCKET):
        fault = record_fault(key, kv)
        if fault:
            raise NotAStore(f"{path} holds a bad record at offset {at}: {fault}")
        yield RECORDS + key, kv


def _bucket_items(file: BoltFile, path: Path, bucket: Bucket) -> Iterable[tuple[bytes, bytes]]:
    for key, value, at in file.located_items(bucket.bucket_name.encode()):
        size_bytes = _META_SIZES_BYTES.get(key, len(value)) if bucket is Bucket.META else len(value)
        if size_bytes != len(value):
            fault = f"expected {size_bytes} bytes, found {len(value)}"
            raise NotAStore(f"{path} has a bad {key.decode(errors='replace')} at offset {at}: {fault}")
        yield bucket.prefix + key, value


def record_fault(key: bytes, kv: bytes) -> str:
    """Return in what a record differs from all that etcd writes, or nothing."""
    size_bytes = len(key)
    tombstone = size_bytes == _TOMBSTONE_KEY_SIZE_BYTES
    if size_bytes != _PUT_KEY_SIZE_BYTES and not (tombstone and key[-1:] == b"t"):
        return f"{key!r} is no revision"
    if key[8:9] != b"_" or key[0] >= 0x80 or int.from_bytes(key[9:17], "big") > _SUB_MAX:
        return f"{key!r} is no revision"
    if not kv:
        return "a tombstone without a key" if tombstone else ""  # etcdutl's mark of a raised revision
    if kv[0] != 0x0A:
        return f"its value begins with {kv[0]:#x}, not with a key"
    try:
        length, at = read_varint(kv, 1)
    except IndexError:
        return "its key's length does not end"
    at += length
    if at > len(kv) or not length:
        return f"its key of {length} bytes does not fit"
    if tombstone:
        return "" if at == len(kv) else "a tombstone with more than a key"
    return _put_fault(key, kv, at)


def _put_fault(key: bytes, kv: bytes, at: int) -> str:
    fields = _BEHIND_KEY.match(kv, at)
    if fields is None:
        return "its fields are not those of a KeyValue in their order"
    at = fields.end()
    if fields[4] is not None:
        at += read_varint(fields[4], 0)[0]
    if at < len(kv):
        lease = _LEASE.match(kv, at)
        at = at + 1 if lease is None else lease.end()
        if lease is None or at != len(kv):
            return "something follows its value that is no lease"
    if at != len(kv):
        return f"its value ends {at - len(kv)} bytes too late"
    modified, created = read_varint(fields[2], 0)[0], read_varint(fields[1], 0)[0]
    main = int.from_bytes(key[:8], "big")
    if modified != main:
        return f"it lies at revision {main}, but says that it was modified at {modified}"
    if created > modified:
        return f"it was created at {created}, after it was modified at {modified}"
    return ""
